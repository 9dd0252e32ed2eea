"""Trials of a catalogue: the mistakes whose replay equals an array that is wrong, by a block of it, then by all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.precision import UNITS, U
from fastcheck.convolutions import cost
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.catalogue import Hypothesis
from fastcheck.diagnosis.evidence import Diagnosis, Evidence
from fastcheck.diagnosis.forward_catalogue import OUTPUT
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import SPACE, Block, Problem
from fastcheck.diagnosis.replay import Replays, grouped_shape
from fastcheck.reports.layout import joined

SHARE = 0.999
"""Share of the failing entries that a replay must explain."""

LEFT = 1 / 16
"""Part of a failure that a replay may leave, by norm: more is explained by the bars, not by the mistake."""

MOST_CONFIRMED = 3
"""Replays of a large tensor that are made on the whole: more would cost more than the check, and say no more."""

CHUNK = 2**16
"""Entries that are compared at a time: arrays of all would take as much memory as the gradient, several times."""

SMALL = 2**27
"""Multiply-adds that replays of a small tensor may take in all."""

SCREENED = 0.99
"""Share of a block's entries that a replay must meet, before it is made on the whole."""

ROUNDINGS = 4
"""Unit round-offs of its own value by which a gradient may differ from a replay, besides its bar."""

LEAST_SCALED = 4
"""Entries that must fail before a factor is tried together with a mistake: fewer would fit too much."""

ROWS = 8
"""Rows of an input gradient that a block has."""

LOOSE = 16
"""Times a typical error bar by which a replay may miss an entry of a block."""


class Candidate(NamedTuple):
    """A mistake, and the factor that its array is multiplied by besides."""

    hypothesis: Hypothesis
    variant: Variant
    factor: float = 1.0

    @property
    def bug(self) -> str:
        """The mistake in words."""
        details = [self.variant.detail] if self.variant.detail else []
        if self.factor != 1:
            what = "output" if OUTPUT in self.hypothesis.tensors else "gradient"
            details.append(f"and the {what} is multiplied by {self.factor:.6g}")
        return ": ".join([self.hypothesis.bug, ", ".join(details)]) if details else self.hypothesis.bug

    @property
    def advice(self) -> str:
        """Where to look."""
        return self.variant.advice or self.hypothesis.advice


class Found(NamedTuple):
    """A mistake that makes a tensor's array: the share of the failing entries that it explains, and what it leaves."""

    trial: Trial
    candidate: Candidate
    explained: float
    residual: float


def diagnosed(trials: Sequence[Trial], catalogue: Sequence[Hypothesis]) -> Iterator[tuple[Diagnosis, list[Found]]]:
    """Yield the diagnoses of all trials, those of the same mistake as one, with what was found."""
    found: dict[str, list[Found]] = {}
    for trial in trials:
        for one in trial.confirmed():
            found.setdefault(one.candidate.bug, []).append(one)
    explained: dict[str, set[str]] = defaultdict(set)
    ranks = {hypothesis.name: rank for rank, hypothesis in enumerate(catalogue)}
    for bug, fits in sorted(found.items(), key=lambda one: (-len(one[1]), ranks[one[1][0].candidate.hypothesis.name])):
        name, tensors = fits[0].candidate.hypothesis.name, {fit.trial.evidence.name for fit in fits}
        if not tensors <= explained[name]:  # another variant of the same mistake explains them
            yield _diagnosis(bug, fits), fits
        explained[name] |= tensors


def _diagnosis(bug: str, fits: Sequence[Found]) -> Diagnosis:
    failing = [int(np.count_nonzero(fit.trial.failing)) for fit in fits]
    names = tuple(fit.trial.evidence.name for fit in fits)
    explained = sum(fit.explained * count for fit, count in zip(fits, failing, strict=True)) / sum(failing)
    residual = max(fit.residual for fit in fits)
    every = "all" if explained == 1 else f"{100 * explained:.2f} % of the"
    labels = [fit.trial.evidence.words for fit in fits]
    equals, wrong = f"{joined(labels)} {'equals' if len(names) == 1 else 'equal'} the gradient", "fail"
    if names == (OUTPUT,):
        equals, wrong = "it equals what was declared", "differ"
    return Diagnosis(
        bug=bug,
        evidence=f"computed again with this mistake, {equals} at {every} {sum(failing):,} entries that {wrong} (norm "
        f"ratio of what is left: {residual:.1e})",
        advice=fits[0].candidate.advice,
        tensors=names,
        explained=explained,
        residual=residual,
    )


class Trial:
    """A tensor that failed, or a declared output that differs, and the replays that might explain it."""

    def __init__(
        self, case: ConvCase, problem: Problem, evidence: Evidence, pool: Executor, catalogue: Sequence[Hypothesis]
    ) -> None:
        self.evidence, self.failing = evidence, evidence.failing
        of_output = evidence.name == OUTPUT
        dtype = case.output_dtype if of_output else case.grads[evidence.name].dtype
        self._problem, self._catalogue, self._unit = problem, catalogue, UNITS.get(np.dtype(dtype).name, U)
        self._most = max(MOST_CONFIRMED, SMALL // cost.forward(case.geometry))
        self._terms = case.geometry.met if of_output else case.geometry.most_terms(evidence.name)
        shape = grouped_shape(problem, evidence.name)
        self._replays = Replays(problem, evidence.name, self._block(shape), lambda: self._right(shape), pool)
        self._seen = self._replays.cut(evidence.analytic.reshape(shape))
        bars = evidence.error_bar[np.isfinite(evidence.error_bar) & (evidence.error_bar > 0)]
        self._typical = float(np.median(bars)) if len(bars) else 0.0

    def confirmed(self) -> Iterator[Found]:
        """Yield the mistakes whose replay fits the whole gradient, with how well it fits."""
        if not self.failing.any() or not np.isfinite(self.evidence.analytic).all():
            return
        for candidate in self._screened()[: self._most]:
            replay = candidate.factor * self._replays.whole(candidate.variant)
            explained, residual = self._fit(replay, self._slack(replay, candidate.variant))
            if explained >= SHARE and residual < LEFT:
                yield Found(self, candidate, explained, residual)

    def _screened(self) -> list[Candidate]:
        """Return the mistakes that fit a block of the gradient, in the order of the catalogue.

        Where none does, those that do together with a factor.
        """
        found: list[Candidate] = []
        scaled: list[Candidate] = []
        for hypothesis in self._catalogue:
            if self.evidence.name not in hypothesis.tensors or (hypothesis.last_resort and found):
                continue
            for variant in hypothesis.variants(self._problem):
                made = self._replays.of_block(variant)
                factor = self._factor(made)
                if self._is_near(made, self._slack(made, variant)):
                    found.append(Candidate(hypothesis, variant))
                elif factor and self._is_near(factor * made) and not hypothesis.last_resort:
                    scaled.append(Candidate(hypothesis, variant, factor))
        return found or ([] if self._is_scaled else scaled)

    def _factor(self, made: np.ndarray) -> float:
        """Return the factor with which a block comes closest; 0 where so few entries would fit anything."""
        size = float(np.vdot(made, made))
        few = np.count_nonzero(self.failing) < LEAST_SCALED or self._seen.size < LEAST_SCALED
        return 0.0 if few or not size else float(np.vdot(made, self._seen)) / size

    @property
    def _is_scaled(self) -> bool:
        """Whether a factor alone explains the block: no mistake is needed."""
        right = self._replays.of_block(Variant())
        return self._is_near(self._factor(right) * right)

    def _is_near(self, made: np.ndarray, slack: float = 0.0) -> bool:
        apart = np.abs(made - self._seen)
        bars = slack + LOOSE * self._typical + ROUNDINGS * self._unit * np.abs(self._seen)
        return bool(np.mean(apart <= bars) >= SCREENED)

    def _slack(self, replay: np.ndarray, variant: Variant) -> float:
        """Return what the rounding of a program's sums may add to a replay, whose sums are float64's."""
        if not variant.sums:
            return 0.0
        return (
            ROUNDINGS * variant.sums * math.sqrt(self._terms) * float(np.linalg.norm(replay)) / math.sqrt(replay.size)
        )

    def _right(self, shape: Shape) -> np.ndarray:
        """Return the right gradient: what was differenced, if that is all of it."""
        if self.evidence.is_whole:
            return self.evidence.numeric.reshape(shape)
        return self._replays.whole(Variant())

    def _block(self, shape: Shape) -> Block:
        """Return a few samples, groups, filters and channels where most entries fail."""
        failing = np.zeros(shape, dtype=bool)
        failing.reshape(-1)[self.evidence.dims] = self.failing
        every, first = slice(None), slice(1)
        if self.evidence.name == "bias":
            groups, kept = _worst(failing, 0), _worst(failing, 1)
            return Block(every, groups, *((first, kept) if self._problem.transposed else (kept, first)))
        one, two, three = (_worst(failing, axis) for axis in range(3))
        if self.evidence.name in ("input", OUTPUT):
            one, three = (slice(part.start, part.start + 1) for part in (one, three))
            rows = _worst_rows(failing) if self.evidence.name == "input" else every
            return Block(one, two, three, three, rows)
        return Block(every, one, two, three)

    def _fit(self, replay: np.ndarray, slack: float) -> tuple[float, float]:
        """Return the share of failing entries that a replay explains, 0 where it breaks one that passes; the residual.

        Where the right gradient has few terms or none, its bar is smaller than the rounding of what a wrong one adds
        up there; a typical bar is allowed in its place.
        """
        evidence, fitting, left, gap = self.evidence, 0, 0.0, 0.0
        analytic, made = evidence.analytic.reshape(-1), replay.reshape(-1)
        for start in range(0, len(evidence.dims), CHUNK):
            part = slice(start, start + CHUNK)
            dims, failing, bars = evidence.dims[part], self.failing[part], evidence.error_bar[part]
            seen, found = analytic[dims], made[dims]
            apart = np.abs(seen - found)
            within = apart <= np.maximum(bars, self._typical) + slack + ROUNDINGS * self._unit * np.abs(found)
            if not within[~failing].all():
                return 0.0, math.inf
            fitting += int(np.count_nonzero(within[failing]))
            left += float(np.sum(apart**2))
            gap += float(np.sum((seen - evidence.numeric[part]) ** 2))
        return fitting / int(np.count_nonzero(self.failing)), math.sqrt(left / gap)


def _worst(failing: np.ndarray, axis: int) -> slice:
    """Return two indices along an axis, or one, with the most failing entries."""
    low, high = np.sort(np.argsort(-_counts(failing, axis), kind="stable")[:2])[[0, -1]].tolist()
    return slice(low, high + 1, max(1, high - low))


def _worst_rows(failing: np.ndarray) -> slice:
    """Return neighbouring rows with the most failing entries."""
    counts = np.concatenate([[0], np.cumsum(_counts(failing, SPACE))])
    if len(counts) <= ROWS:
        return slice(None)
    start = int(np.argmax(counts[ROWS:] - counts[:-ROWS]))
    return slice(start, start + ROWS)


def _counts(failing: np.ndarray, axis: int) -> np.ndarray:
    return failing.sum(axis=tuple(one for one in range(failing.ndim) if one != axis))
