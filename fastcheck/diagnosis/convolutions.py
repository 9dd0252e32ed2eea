"""Replays of the catalogue's mistakes against the gradients of a convolution that failed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastcheck.common import machine
from fastcheck.common.naming import listed
from fastcheck.common.precision import UNITS, U
from fastcheck.convolutions import cost
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.diagnosis.catalogue import CATALOGUE, Hypothesis
from fastcheck.diagnosis.evidence import Diagnosis, Evidence, Failed
from fastcheck.diagnosis.problem import Block, Problem, gradient, of_case
from fastcheck.diagnosis.variants import Variant

SHARE = 0.999
"""Share of the failing entries that a replay must explain."""

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

LOOSE = 16
"""Times a typical error bar by which a replay may miss an entry of a block."""


def replayed(case: ConvCase, failed: Failed) -> list[Diagnosis]:
    """Name the mistakes that make the gradients that failed, by making them again.

    Parameters
    ----------
    case : ConvCase
    failed : mapping of str to Evidence
        The tensors that failed.

    Returns
    -------
    list of Diagnosis
        Every mistake whose replay equals a gradient within its bars, those that explain most tensors first, then as in
        the catalogue. Several for one tensor make the same array. Empty where nothing known does.
    """
    if not failed:
        return []
    with ThreadPoolExecutor(machine.default_threads()) as pool, np.errstate(over="ignore", invalid="ignore"):
        problem = of_case(case, pool)
        trials = [
            _Trial(problem, case.geometry, evidence, case.grads[name].dtype.name, pool)
            for name, evidence in failed.items()
        ]
        return list(_told(problem, trials))


def _told(problem: Problem, trials: list[_Trial]) -> Iterator[Diagnosis]:
    """Yield the diagnoses of all trials, those of the same mistake as one."""
    found: dict[tuple[str, str], list[tuple[_Trial, float, float]]] = {}
    for trial in trials:
        for hypothesis, variant, explained, residual in trial.confirmed():
            found.setdefault((hypothesis.name, variant.detail), []).append((trial, explained, residual))
    places = {name: place for place, name in enumerate(found)}
    order = {hypothesis.name: place for place, hypothesis in enumerate(CATALOGUE)}
    told: dict[str, set[str]] = {}
    for key in sorted(found, key=lambda key: (-len(found[key]), order[key[0]], places[key])):
        names = {trial.evidence.name for trial, _, _ in found[key]}
        if not names <= told.setdefault(key[0], set()):
            yield _diagnosis(CATALOGUE[order[key[0]]], key[1], found[key])
        told[key[0]] |= names


def _diagnosis(hypothesis: Hypothesis, detail: str, fits: list[tuple[_Trial, float, float]]) -> Diagnosis:
    failing = [int(np.count_nonzero(trial.evidence.failing)) for trial, _, _ in fits]
    names = tuple(trial.evidence.name for trial, _, _ in fits)
    explained = sum(share * count for (_, share, _), count in zip(fits, failing, strict=True)) / sum(failing)
    residual = max(left for _, _, left in fits)
    every = "all" if explained == 1 else f"{100 * explained:.2f} % of the"
    return Diagnosis(
        bug=hypothesis.bug + (f": {detail}" if detail else ""),
        evidence=f"computed again with this mistake, {listed(names)} equals the gradient at {every} "
        f"{sum(failing):,} entries that fail (norm ratio of what is left: {residual:.1e})",
        advice=hypothesis.advice,
        tensors=names,
        explained=explained,
        residual=residual,
    )


@dataclass
class _Trial:
    """A tensor that failed, and the replays that might explain it."""

    problem: Problem
    geometry: ConvGeometry
    evidence: Evidence
    dtype: str
    pool: Executor

    def confirmed(self) -> Iterator[tuple[Hypothesis, Variant, float, float]]:
        """Yield the mistakes whose replay fits the whole gradient, with the share explained and the residual."""
        if not self._failing.any() or not np.isfinite(self.evidence.seen).all():
            return
        most = max(MOST_CONFIRMED, SMALL // cost.forward(self.geometry))
        for hypothesis, variant in self._screened()[:most]:
            explained, residual = self._fit(self._replay(variant))
            if explained >= SHARE:
                yield hypothesis, variant, explained, residual

    def _screened(self) -> list[tuple[Hypothesis, Variant]]:
        """Return the mistakes that fit a block of the gradient, in the order of the catalogue."""
        name = self.evidence.name
        seen = self._of_block(self._grouped)
        found: list[tuple[Hypothesis, Variant]] = []
        for hypothesis in CATALOGUE:
            if name not in hypothesis.tensors or (hypothesis.last_resort and found):
                continue
            for variant in hypothesis.variants(self.problem):
                if self._is_near(self._replay_of_block(variant), seen):
                    found.append((hypothesis, variant))
        return found

    def _is_near(self, predicted: np.ndarray, seen: np.ndarray) -> bool:
        return bool(np.mean(np.abs(predicted - seen) <= LOOSE * self._typical) >= SCREENED)

    def _replay(self, variant: Variant) -> np.ndarray:
        name = self.evidence.name
        return variant.after(variant.gradient(variant.within(variant.before(self.problem)), name, self.pool))

    def _replay_of_block(self, variant: Variant) -> np.ndarray:
        if variant.whole:
            made = variant.after(self._right) if variant.gradient is gradient else self._replay(variant)
            return self._of_block(made)
        part = variant.before(self.problem).part(self.evidence.name, self._block)
        return variant.after(variant.gradient(variant.within(part), self.evidence.name, self.pool))

    @cached_property
    def _right(self) -> np.ndarray:
        """The right gradient: what was differenced, if that is all of it."""
        if self.evidence.is_whole:
            return self.evidence.numeric.reshape(self._grouped.shape)
        return gradient(self.problem, self.evidence.name, self.pool)

    @cached_property
    def _failing(self) -> np.ndarray:
        return self.evidence.failing

    @cached_property
    def _grouped(self) -> np.ndarray:
        """The analytic gradient, grouped as the replays are."""
        groups, analytic = len(self.problem.w), self.evidence.analytic
        if self.evidence.name == "input":
            return analytic.reshape(len(analytic), groups, -1, *analytic.shape[2:])
        return analytic.reshape(groups, -1, *analytic.shape[1:])

    @cached_property
    def _block(self) -> Block:
        """A few samples, groups, filters and channels where most entries fail."""
        failing = np.zeros(self._grouped.shape, dtype=bool)
        failing.reshape(-1)[self.evidence.dims] = self._failing
        problem, name = self.problem, self.evidence.name
        if name == "input":
            counts = failing.sum(axis=problem.axes)  # samples, groups, channels
            samples, groups, channels = (_most(counts, axis) for axis in range(3))
            return Block(samples[:1], groups, channels[:1], channels[:1])
        every, first = np.arange(len(problem.v)), np.arange(1)
        counts = failing.reshape(*failing.shape[:2], -1).sum(axis=-1)
        groups, filters = _most(counts, 0), _most(counts, 1)
        if name == "bias":
            return Block(every, groups, *((first, filters) if problem.transposed else (filters, first)))
        channels = _most(failing.reshape(*failing.shape[:3], -1).sum(axis=-1), 2)
        return Block(every, groups, filters, channels)

    def _of_block(self, gradient: np.ndarray) -> np.ndarray:
        samples, groups, filters, channels = self._block
        if self.evidence.name == "input":
            return gradient[samples][:, groups][:, :, filters if self.problem.transposed else channels]
        if self.evidence.name == "bias":
            return gradient[groups][:, channels if self.problem.transposed else filters]
        return gradient[groups][:, filters][:, :, channels]

    @cached_property
    def _typical(self) -> float:
        """The error bar of a typical entry, and of what any replay adds to it."""
        bars = self.evidence.error_bar
        bars = bars[np.isfinite(bars) & (bars > 0)]
        return float(np.median(bars)) if len(bars) else 0.0

    def _fit(self, predicted: np.ndarray) -> tuple[float, float]:
        """Return the share of failing entries that a replay explains, 0 where it breaks one that passes; the residual.

        Where the right gradient has few terms or none, its bar is smaller than the rounding of what a wrong one adds
        up there; a typical bar is allowed in its place.
        """
        evidence, fitting, left, gap = self.evidence, 0, 0.0, 0.0
        analytic, made = evidence.analytic.reshape(-1), predicted.reshape(-1)
        for start in range(0, len(evidence.dims), CHUNK):
            part = slice(start, start + CHUNK)
            dims, failing, bars = evidence.dims[part], self._failing[part], evidence.error_bar[part]
            seen, found = analytic[dims], made[dims]
            apart = np.abs(seen - found)
            within = apart <= np.maximum(bars, self._typical) + ROUNDINGS * self._unit * np.abs(found)
            if not within[~failing].all():
                return 0.0, math.inf
            fitting += int(np.count_nonzero(within[failing]))
            left += float(np.sum(apart**2))
            gap += float(np.sum((seen - evidence.numeric[part]) ** 2))
        return fitting / int(np.count_nonzero(self._failing)), math.sqrt(left / gap)

    @property
    def _unit(self) -> float:
        return UNITS.get(self.dtype, U)


def _most(counts: np.ndarray, axis: int) -> np.ndarray:
    """Return up to two indices along an axis with the most failing entries, ascending."""
    along = counts.sum(axis=tuple(one for one in range(counts.ndim) if one != axis))
    return np.sort(np.argsort(-along, kind="stable")[:2])
