"""Evaluator ``coloured`` for a forward of arrays: entries that share no output are moved together.

All entries of a colour are moved at once, each by its own step and to a side of its own. An output's change belongs to
the one entry that its pattern says can move it (`fastcheck.functions.colour`), so a colour takes a pair of calls for
each step, of which there are two or three, and more where bars show that other steps are better. A derivative counts
where it agrees with the gradient, its bar is narrow, and no kink shows; all others are decided by `FunctionEvaluator`,
entry by entry.

The structure is verified, never believed. Outputs that no moved entry can move, by the pattern, must not change: when
single entries are moved, a sample of which is audited first, and when colours are. An output that depends on an entry
which the pattern excludes is either one of these, or one that another entry of the colour answers for. That entry's
derivative is then wrong, though not when it is differenced by itself, and the reason is looked for. Entries go to
random sides, so that no gradient fits such a derivative by design.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fastcheck.engine import sampling
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.functions.case import SMALL_ENTRY, FunctionCase
from fastcheck.functions.colour import Colour
from fastcheck.functions.evaluator import FunctionEvaluator
from fastcheck.functions.levels import FAR_OFF, Estimates, exponents_of
from fastcheck.functions.moves import Moves
from fastcheck.functions.noise import Noise
from fastcheck.functions.patterns import Pattern
from fastcheck.functions.step_search import ROUGH, exponent_of

OUTER, ALL = (0, 2), (0, 1, 2)
"""Steps at which each colour is differenced, as powers of two: h and 4h, which settle linear functions, then 2h too."""

ROUNDS = 3
"""Times that a colour is differenced with other steps."""

TIGHT = 1e-9
"""Bars of this fraction of a typical slope are narrow enough, whatever other steps would give."""

AUDITED = 32
"""Entries that are moved alone, each by one call, to verify the structure."""

BLOCK_COLOURS = 16
"""Colours in a block: about a hundred calls between checks for Ctrl-C and updates of progress."""

CONFIRMED = 4
"""Entries of a block that are differenced by themselves where more would fail, or have wide bars. If these show what
the colours showed, the rest is what the colours showed."""

FALLBACK = 64
"""Entries that are differenced by themselves where the structure is wrong."""

LOOKED_FOR = 2
"""Entries of a block for which it is looked for why they are right alone but not in their colour."""


class Breach(NamedTuple):
    """An output that depends on an entry it should not depend on, by the structure: flat indices of both."""

    dim: int
    output: int


class ColouredEvaluator:
    """Difference one tensor of a forward of arrays, colour by colour.

    Parameters
    ----------
    case : FunctionCase
        One whose loss is a sum of terms, one for each output.
    name : str
        The tensor.
    pattern : Pattern
    by_itself : FunctionEvaluator
        Differences entries of the tensor one by one.
    noises, errors, step, stencil, seed
        As `FunctionEvaluator` takes them.

    Attributes
    ----------
    step : float
    breaches : list of Breach
    alone : int
        Number of entries that were differenced by themselves.
    """

    def __init__(
        self,
        case: FunctionCase,
        name: str,
        pattern: Pattern,
        by_itself: FunctionEvaluator,
        noises: Noise,
        errors: np.ndarray,
        step: float | Literal["auto"],
        stencil: Literal["auto", 3, 5],
        seed: int,
    ) -> None:
        self._case, self._name, self._pattern, self._by_itself = case, name, pattern, by_itself
        self._noises, self._errors = noises, errors.reshape(-1)
        self._fixed = None if step == "auto" else float(step)
        self._points = (3, 5) if stencil == "auto" else (int(stencil),)
        self._analytic = case.grads[name].reshape(-1).astype(np.float64)
        self._moves, self._lock = Moves(case, name), threading.Lock()
        self._size = case.size(name)
        self.step, self.breaches, self.alone = by_itself.step, list[Breach](), 0
        count = len(self._analytic)
        self._sides = 2.0 * np.random.default_rng([seed, count, 7919]).integers(0, 2, count, dtype=np.int8) - 1
        self._colours = 0
        self._audited = self._audit(np.random.default_rng([seed, count]))

    def blocks(self, dims: Chosen) -> Sequence[Any]:
        """Cut dimensions into blocks: lists of entries of one colour each.

        Without a structure that can be used, they are blocks of entries to be differenced one by one: a few of them
        where the structure is wrong.
        """
        every = indices(dims)
        if self.breaches:
            few = np.unique(np.linspace(0, len(every) - 1, FALLBACK).astype(np.int64))
            return self._by_itself.blocks(every[few])
        if self._by_itself.doubtful:
            return self._by_itself.blocks(every)
        _, colours = np.unique(self._pattern.colours(every), return_inverse=True)
        order = np.argsort(colours, kind="stable")
        groups = np.split(every[order], np.cumsum(np.bincount(colours))[:-1])
        self._colours = len(groups)
        return [groups[start : start + BLOCK_COLOURS] for start in range(0, len(groups), BLOCK_COLOURS)]

    def __call__(self, block: Any) -> Differences:
        """Difference the entries of a block."""
        if isinstance(block, np.ndarray):
            return self._alone(block)
        found = _Found.joined([self._differenced(group) for group in block])
        differences = found.as_differences()
        few = self._sample(found)
        self._replace(differences, found.unusable | few)
        rest = found.doubtful & ~few
        if rest.any() and not self._confirms(differences, found, few):
            self._replace(differences, rest)
        self._explain(block, found, differences)
        return differences

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, by differencing them by themselves."""
        return self._by_itself.bar_components(dims)

    @property
    def words(self) -> str:
        """What the report calls the structure."""
        return self._pattern.words

    def described(self) -> dict[str, Any]:
        """Return what colours took, as a report keeps it."""
        counts = {"colours": self._colours, "calls": self._moves.calls, "audited": self._audited, "alone": self.alone}
        return {"structure": self.words} | counts

    # Colours

    def _differenced(self, group: np.ndarray) -> _Found:
        """Difference the entries of one colour; again with other steps, where bars show that they would be better."""
        owners, limits = self._pattern.owners(group), self._limits(group)
        exponents = self._exponents(group, limits)
        found = self._with_steps(group, exponents, owners)
        for _ in range(ROUNDS if self._fixed is None else 0):
            moved = np.clip(exponents + np.where(found.loose, found.shift, 0), *limits)
            if (moved == exponents).all():
                break
            found = found.improved(self._with_steps(group, moved, owners), moved < exponents)
            exponents = moved
        return found

    def _with_steps(self, group: np.ndarray, exponents: np.ndarray, owners: np.ndarray) -> _Found:
        """Difference with two steps, and with a third one where these do not settle all."""
        colour = Colour(self._moves, group, self._steps(group, exponents), owners, self._noises)
        safety = ROUGH if self._fixed is None else 1.0
        found = _Found.nothing(group)
        levels = colour.levels(OUTER)
        if levels is not None and 3 in self._points:
            found = self._judged(group, [levels.exact(safety)])
        if levels is not None and (found.unusable | found.doubtful).any():
            levels = colour.levels(ALL)
            if levels is not None:
                found = self._judged(group, [levels.estimates(points, safety) for points in self._points])
        if colour.intrusion is not None:
            self._blame(group, *colour.intrusion)
        return found

    def _steps(self, group: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        """Return the smallest step of each entry, to its own side."""
        if self._fixed is not None:
            return self._fixed * self._sides[group]
        return np.ldexp(self._sides[group], exponents)

    def _limits(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the exponents of each entry's smallest and largest step."""
        least = np.maximum(exponents_of(np.spacing(np.abs(self._moves.values[group]))) + 2, -1000)
        return least, np.maximum(exponents_of(self._room(group)) - 2, least)

    def _exponents(self, group: np.ndarray, limits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the exponents of the steps that are typical for the tensor, relative to the entries' sizes."""
        reach = np.maximum(np.abs(self._moves.values[group]), self._size)
        typical = exponent_of(self.step) - exponent_of(self._size)
        return np.clip(typical + exponents_of(reach), *limits)

    def _room(self, dims: np.ndarray) -> np.ndarray:
        """Return how far entries may move: not beyond zero, unless they may be small by accident."""
        sizes = np.abs(self._moves.values[dims])
        return np.where(sizes < SMALL_ENTRY * self._size, np.maximum(sizes, self._size), sizes)

    def _judged(self, group: np.ndarray, candidates: list[Estimates]) -> _Found:
        """Compare the gradient with the narrowest of some estimates and bars, which must agree with each other."""
        numeric, bar, shift = candidates[0]
        usable = np.isfinite(numeric) & np.isfinite(bar)
        for other, narrower, its_shift in candidates[1:]:
            agree = np.abs(other - numeric) <= narrower + bar
            # Five points decide, since they need larger steps; where they disagree, steps are too large for one.
            shift = np.where(agree, its_shift, np.minimum(shift, its_shift))
            usable &= agree
            better = narrower < bar
            numeric, bar = np.where(better, other, numeric), np.where(better, narrower, bar)
        bar = bar + self._errors[group]
        reach = np.maximum(np.abs(self._moves.values[group]), self._size)
        slopes = np.maximum(self._case.promised / reach, np.abs(numeric))
        off = np.abs(self._analytic[group] - numeric)
        wide = bar > self._by_itself.too_wide * slopes
        loose = ~(bar - self._errors[group] <= np.maximum(TIGHT * slopes, self._errors[group]))
        return _Found(group, numeric, bar, off, ~usable, wide, loose, shift)

    # Entries by themselves

    def _alone(self, dims: np.ndarray) -> Differences:
        with self._lock:
            self.alone += len(dims)
        return self._by_itself(dims)

    def _replace(self, differences: Differences, chosen: np.ndarray) -> None:
        """Difference entries by themselves, and put what they give in place of what colours gave."""
        if chosen.any():
            positions = np.flatnonzero(chosen)
            positions = positions[np.argsort(differences.dims[positions])]
            differences.put(positions, self._alone(differences.dims[positions]))

    @staticmethod
    def _sample(found: _Found) -> np.ndarray:
        """Mark the doubtful entries to difference by themselves: all, or some of all sizes of disagreement."""
        doubtful = np.flatnonzero(found.doubtful)
        if len(doubtful) > CONFIRMED:
            doubtful = doubtful[np.argsort(found.off[doubtful] / found.bar[doubtful], kind="stable")]
            doubtful = doubtful[np.linspace(0, len(doubtful) - 1, CONFIRMED).astype(np.int64)]
        few = np.zeros(len(found.dims), bool)
        few[doubtful] = True
        return few

    def _confirms(self, differences: Differences, found: _Found, few: np.ndarray) -> bool:
        """Return whether entries by themselves show what the colours showed."""
        assert differences.too_wide is not None
        off = np.abs(self._analytic[found.dims] - differences.numeric)
        same = found.fails == ~(off <= differences.error_bar)
        close = np.abs(differences.numeric - found.numeric) <= differences.error_bar + found.bar
        return bool((same & close & (differences.too_wide | found.fails))[few].all())

    # The structure

    def _audit(self, rng: np.random.Generator) -> int:
        """Move single entries far; return how many, and note what moves that should not."""
        shape = self._case.params[self._name].shape or (1,)
        count = min(AUDITED, len(self._analytic))
        audited = 0
        for dim in indices(sampling.stratified(shape, count, rng)).tolist():
            alone = np.array([dim])
            far = np.ldexp(self._sides[alone], exponents_of(self._room(alone)) - 2)
            terms = self._moves.terms(alone, self._moves.values[alone] + far)
            if terms is None:
                continue
            audited += 1
            changed = (self._pattern.owners(alone) < 0) & self._noises.moved(terms)
            if changed.any():
                self._breached(dim, int(np.argmax(changed)))
        return audited

    def _explain(self, block: list[np.ndarray], found: _Found, differences: Differences) -> None:
        """Look for the reason where an entry's derivative is right, but was wrong when its colour moved."""
        off = np.abs(self._analytic[found.dims] - differences.numeric)
        apart = np.abs(differences.numeric - found.numeric) > differences.error_bar + found.bar
        for dim in found.dims[found.fails & apart & (off <= differences.error_bar)][:LOOKED_FOR].tolist():
            group = next(group for group in block if dim in group)
            mine = self._pattern.owners(np.array([dim])) >= 0
            others = group[group != dim]
            steps = self._steps(others, self._limits(others)[1])
            values = self._moves.values[others] + steps
            terms = self._moves.terms(others, values)
            if terms is not None and (mine & self._noises.moved(terms)).any():
                self._blame(others, values, int(np.argmax(mine & self._noises.moved(terms))))

    def _blame(self, group: np.ndarray, values: np.ndarray, output: int) -> None:
        """Find, by halving, the entry that moves an output which none of these should move."""
        while len(group) > 1:
            half = len(group) // 2
            terms = self._moves.terms(group[:half], values[:half])
            part = slice(half) if terms is None or self._noises.moved(terms)[output] else slice(half, None)
            group, values = group[part], values[part]
        self._breached(int(group[0]), output)

    def _breached(self, dim: int, output: int) -> None:
        with self._lock:
            self.breaches.append(Breach(dim, output))


class _Found(NamedTuple):
    """What colours show: arrays with a value for each entry.

    Attributes
    ----------
    dims : int64 array
    numeric, bar, off : float64 arrays
        Derivatives, their error bars, and how far the gradient is off.
    unusable, wide, loose : bool arrays
        Whether a colour cannot judge the entry, and whether its bar is too wide, or wider than it may be elsewhere.
    shift : int64 array
        Powers of two by which steps should change to balance the bars.
    """

    dims: np.ndarray
    numeric: np.ndarray
    bar: np.ndarray
    off: np.ndarray
    unusable: np.ndarray
    wide: np.ndarray
    loose: np.ndarray
    shift: np.ndarray

    @classmethod
    def nothing(cls, dims: np.ndarray) -> _Found:
        """Return entries that no colour can judge."""
        zeros = np.zeros(len(dims))
        yes, no = np.ones(len(dims), bool), np.zeros(len(dims), bool)
        return cls(dims, zeros, zeros, zeros, yes, no, yes, np.full(len(dims), FAR_OFF))

    @classmethod
    def joined(cls, parts: Sequence[_Found]) -> _Found:
        """Join the entries of several colours."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def improved(self, other: _Found, smaller: np.ndarray) -> _Found:
        """Return, of each entry, what other steps gave if that is better.

        That is the one with the narrower bar; of two that contradict each other, that of the smaller step.
        """
        agree = np.abs(self.numeric - other.numeric) <= self.bar + other.bar
        better = ~other.unusable & (self.unusable | np.where(agree, other.bar < self.bar, smaller))
        return _Found(*(np.where(better, new, old) for old, new in zip(self, other, strict=True)))

    @property
    def fails(self) -> np.ndarray:
        """Whether the gradient lies outside the error bar."""
        fails: np.ndarray = ~self.unusable & ~(self.off <= self.bar)
        return fails

    @property
    def doubtful(self) -> np.ndarray:
        """Whether the entry fails, or has a bar that is too wide."""
        doubtful: np.ndarray = self.fails | (self.wide & ~self.unusable)
        return doubtful

    def as_differences(self) -> Differences:
        """Return copies of the arrays, without kinks."""
        zeros = np.zeros(len(self.dims))
        return Differences(
            self.dims, self.numeric.copy(), self.bar.copy(), zeros.astype(np.int64), zeros, self.wide.copy()
        )
