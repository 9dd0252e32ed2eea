"""Evaluator ``full`` for a user's function: the whole loss, at every step that a dimension needs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from fastcheck.common.precision import WIDE, WIDE_TYPES
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.functions import opinions
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.entry import EntryDifferencer, Tensor
from fastcheck.functions.noise import UNMEASURED, Noise
from fastcheck.functions.shared_step import Shared, SharedStep
from fastcheck.functions.step_search import ROUNDS, Estimate, Search, better, exponent_of

BLOCK_DIMS = 32
"""Dimensions in a block: a few hundred calls of the loss between checks for Ctrl-C and updates of progress."""

SHARED_DIMS = 128, 512
"""Smallest and largest block of dimensions that share a step, and take two calls each."""

PARTS = 32
"""Blocks into which a tensor's dimensions are cut, within these bounds."""

KNOWN = 1024
"""Estimates that are kept: the report asks again for a few, and a call may take seconds."""

PILOTS = 5
"""Dimensions of a tensor that find its typical step, at which the search of the others starts."""

NEAR = 3
"""Powers of two by which a step may exceed the typical one where the loss has a scale far below its entries."""

PILOT_STEP = -17
"""Start of the pilots' search, as a power of two relative to the size of the entries: about the cube root of the unit
round-off, which balances the difference of a function that varies on the scale of its argument."""


class FunctionEvaluator:
    """Difference one tensor of a function by calling it.

    Parameters
    ----------
    case : FunctionCase
    name : str
        The tensor.
    noises : Noise
        Rounding of the loss where the tensor is perturbed: `fastcheck.functions.noise.of_loss`.
    errors : float64 array
        Bounds on the rounding of its analytic gradient: `fastcheck.functions.noise.of_gradient`.
    step : float or "auto"
    stencil : "auto", 3 or 5
    seed : int
        Random seed for the choice of pilots.
    start : int, optional
        The step of another tensor at which searches start, as a power of two relative to the size of entries; no pilots
        are sent then.

    Attributes
    ----------
    step : float
        As given, or the median of the pilots' best steps.
    start : int
        The typical step, as a power of two relative to the size of an entry.
    noise : float
        Standard deviation of a value of the loss.
    too_wide : float
        Bars that are a larger fraction of the slope are too wide.
    kinked : dict of int to Estimate
        Dimensions at a kink whose analytic value is a subgradient.
    """

    def __init__(
        self,
        case: FunctionCase,
        name: str,
        noises: Noise,
        errors: np.ndarray,
        step: float | Literal["auto"],
        stencil: Literal["auto", 3, 5],
        seed: int,
        start: int | None = None,
    ) -> None:
        self.kinked = dict[int, Estimate]()
        self._tensor = Tensor(case, name, noises, errors.reshape(-1), stencil, case.size(name))
        types = WIDE_TYPES * (1 if case.has_function else UNMEASURED)
        self.too_wide = max(WIDE, types * case.half_unit(name))
        self._fixed = None if step == "auto" else float(step)
        self.start, self._doubtful = PILOT_STEP if start is None else start, False
        self._pilots: dict[int, Estimate] = {}
        self._known: dict[int, Estimate] = {}
        self._shared: SharedStep | None = None
        if self._fixed is None and start is None:
            self._send_pilots(np.random.default_rng([seed, len(self._tensor.values)]))
        self.step = self._fixed or math.ldexp(1.0, self.start + exponent_of(self._tensor.size))

    @property
    def noise(self) -> float:
        return self._tensor.noise

    @property
    def doubtful(self) -> bool:
        """Whether the loss has a scale far below its entries' sizes, which steps of their size do not see."""
        return self._doubtful

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of `BLOCK_DIMS`, or larger ones where they share a step."""
        least, most = SHARED_DIMS
        count = BLOCK_DIMS if self._shared is None else min(most, max(least, len(dims) // PARTS))
        return [dims[start : start + count] for start in range(0, len(dims), count)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block: with the shared step, and by themselves where that does not do."""
        dims = indices(block)
        shared = self._together(dims)
        if shared is None:
            differences = self._one_by_one(dims)
        else:
            differences = self._shared_differences(dims, shared)
            left = np.flatnonzero(~shared.done)
            if left.size:
                differences.put(left, self._one_by_one(dims[left]))
        self._tensor.case.refuse_changes(self._tensor.arrays(), self._tensor.case.names.function)
        return differences

    def _shared_differences(self, dims: np.ndarray, shared: Shared) -> Differences:
        zeros = np.zeros(len(dims))
        bars = shared.roundoff + shared.truncation + self._tensor.errors[dims]
        wide = (bars > self.too_wide * shared.slopes) & (shared.slopes > 0)
        return Differences(dims, shared.numeric, bars, zeros.astype(np.int64), zeros, wide)

    def _together(self, dims: np.ndarray) -> Shared | None:
        """Difference dimensions with the shared step; pilots are not done, since their own searches are better."""
        if self._shared is None:
            return None
        shared = self._shared.difference(dims)
        return shared._replace(done=np.logical_and.reduce([shared.done, *(dims != pilot for pilot in self._pilots)]))

    def _one_by_one(self, dims: np.ndarray) -> Differences:
        entries = [EntryDifferencer(self._tensor, dim) for dim in dims.tolist()]
        estimates = [self._differenced(dim, entry) for dim, entry in zip(dims.tolist(), entries, strict=True)]
        bars = np.array([one.bar for one in estimates]) + self._tensor.errors[dims]
        jumps = np.array([one.jump for one in estimates])
        slopes = np.array(
            [max(entry.slope(one), abs(one.numeric)) for entry, one in zip(entries, estimates, strict=True)]
        )
        self.kinked |= {
            dim: one
            for dim, entry, one in zip(dims.tolist(), entries, estimates, strict=True)
            if one.jump and not entry.outside(one)
        }
        return Differences(
            dims,
            np.array([one.numeric for one in estimates]),
            bars,
            kinks=np.array([one.kinked for one in estimates], dtype=np.int64),
            jump=jumps,
            too_wide=(bars - jumps > self.too_wide * slopes) & (slopes > 0),
        )

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, by differencing again what is not known."""
        shared = self._together(dims)
        left = np.arange(len(dims)) if shared is None else np.flatnonzero(~shared.done)
        estimates = [self._differenced(dim, EntryDifferencer(self._tensor, dim)) for dim in dims[left].tolist()]
        alone = {
            "round-off": [one.roundoff for one in estimates],
            "truncation": [one.safety * one.truncation for one in estimates],
            "kinks": [one.widening for one in estimates],
            "steps": [one.doubt for one in estimates],
        }
        parts = {name: np.zeros(len(dims)) for name in alone}
        if shared is not None:
            parts["round-off"][:], parts["truncation"][:] = shared.roundoff, shared.truncation
        for name, values in alone.items():
            parts[name][left] = values
        return parts | {"gradient": self._tensor.errors[dims]}

    def _send_pilots(self, rng: np.random.Generator) -> None:
        """Find the typical step relative to the size of entries, and whether the loss has a scale far below them."""
        usual = np.flatnonzero(~self._tensor.case.small(self._tensor.name))
        among = usual if usual.size else np.arange(len(self._tensor.values))
        pilots, steps = {}, list[int]()
        for dim in rng.choice(among, min(PILOTS, len(among)), replace=False).tolist():
            entry = EntryDifferencer(self._tensor, dim)
            begin = (steps[-1] if steps else PILOT_STEP) + exponent_of(entry.reach)
            search, estimate = _found(entry, functools.partial(Search.best, start=begin, rounds=opinions.ROUNDS))
            if estimate is not None:
                steps.append(exponent_of(estimate.step) - exponent_of(entry.reach))
                pilots[dim] = entry, search, estimate
                contradicted = opinions.contradiction(entry, search, estimate) is not None
                self._doubtful = self._doubtful or contradicted
        self._pilots = {dim: opinions.decided(*pilot, self._doubtful) for dim, pilot in pilots.items()}
        steps = [
            exponent_of(self._pilots[dim].step) - exponent_of(entry.reach) for dim, (entry, _, _) in pilots.items()
        ]
        self.start = sorted(steps)[len(steps) // 2] if steps else PILOT_STEP
        if steps and self._tensor.case.has_many and not self._doubtful and self._tensor.stencil == "auto":
            self._shared = SharedStep(
                self._tensor, [(entry, search) for entry, search, _ in pilots.values()], self.start
            )

    def _differenced(self, dim: int, entry: EntryDifferencer) -> Estimate:
        """Estimate one derivative, or return the estimate if it is among the first ones."""
        known = self._known.get(dim, self._pilots.get(dim) if self._fixed is None else None)
        if known is not None:
            return known
        estimate = self._searched(entry) if self._fixed is None else self._with_fixed_step(entry, self._fixed)
        if estimate is None:
            begin = math.ldexp(1.0, self._begin(entry.reach))
            raise entry.not_finite(self._fixed or begin, given=self._fixed is not None)
        if len(self._known) < KNOWN:
            self._known[dim] = estimate
        return estimate

    def _searched(self, entry: EntryDifferencer, rounds: int = ROUNDS) -> Estimate | None:
        """Search for the step; for a small entry, from both of the scales that it may have."""
        other_size = entry.other_size()
        begin = self._begin(entry.reach)
        most = begin + NEAR if self._doubtful else None  # larger steps see only the coarse scale of the loss

        def find(search: Search) -> Estimate | None:
            best = search.best(begin, opinions.ROUNDS if entry.small else rounds, most)
            if other_size is not None:
                other = search.best(self._begin(other_size), opinions.ROUNDS)
                best = best if other is None else better(best, other)
            return best

        search, best = _found(entry, find)
        return best and opinions.decided(entry, search, best, self._doubtful)

    def _with_fixed_step(self, entry: EntryDifferencer, step: float) -> Estimate | None:
        """Estimate with the user's step; where the gradient is outside, the best step shows whether that is to blame.

        If so, the bar is widened by how far apart the two are.
        """
        _, estimate = _found(entry, lambda _: entry.with_step(step))
        if estimate is not None and estimate.jump and not opinions.at_the_point(entry, estimate).jump:
            estimate = estimate._replace(jump=0.0)
        if estimate is None or not entry.outside(estimate):
            return estimate
        other = self._searched(entry, opinions.ROUNDS)
        if other is None or (entry.outside(other) and estimate.agrees(other)):
            return estimate
        apart = abs(estimate.numeric - other.numeric) + other.bar
        return estimate._replace(truncation=estimate.truncation + apart)

    def _begin(self, size: float) -> int:
        return self.start + exponent_of(size)


def _found(entry: EntryDifferencer, find: Callable[[Search], Estimate | None]) -> tuple[Search, Estimate | None]:
    """Return a search and the estimate found in it.

    Where the gradient is outside of its bar, search once more, with the noise of all terms that depend on the entry: of
    a saturated output nothing is seen, since it does not move.
    """
    search = entry.search()
    estimate = find(search)
    if estimate is not None and entry.outside(estimate) and entry.sees_more():
        search = entry.search()
        estimate = find(search)
    return search, estimate
