"""Hypotheses on a tensor's gradient, and whether one fits: inside the bars where it fails, and where it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fastcheck.diagnosis.around import Around
from fastcheck.diagnosis.evidence import Evidence, Failed

NEARLY_ALL = 0.98
"""Share of the failing entries that a hypothesis explains, and of the passing ones that it leaves inside their bars."""

MOST_LEFT = 0.1
"""A hypothesis leaves at most this share of the failure's norm: wide bars alone are no evidence."""

CHANCE = math.log(1e-6)
"""A fit is no evidence where chance is as likely as this to give one like it."""

_SAMPLE = 1000
"""Number of failing entries, and of passing ones, on which hypotheses are tried before they are confirmed on all."""

_BLOCK = 2**17
"""Number of entries on which a hypothesis is confirmed at a time."""


class Compared(NamedTuple):
    """What a hypothesis says of some entries.

    Attributes
    ----------
    observed, predicted : float64 arrays, shape (n,)
        Two arrays that are equal where it is true.
    allowed : float64 array, shape (n,)
        What they may differ by.
    """

    observed: np.ndarray
    predicted: np.ndarray
    allowed: np.ndarray


class Hypothesis(NamedTuple):
    """What a program may have done to a tensor's gradient.

    Attributes
    ----------
    words : mapping of str to str
        Fill the sentence of the pattern that it belongs to.
    compare : callable
        Takes the tensor's evidence, all of it or a part; returns what it says of that.
    free : int
        Number of parameters that were fitted: so many entries are no evidence.
    tried : int
        Number of hypotheses like this one that were tried.
    only : Evidence, optional
        The entries on which alone it can be judged, where these are not all.
    """

    words: Mapping[str, str]
    compare: Callable[[Evidence], Compared]
    free: int = 0
    tried: int = 1
    only: Evidence | None = None


class Fit(NamedTuple):
    """How well a hypothesis fits a tensor.

    Attributes
    ----------
    failing, explained : int
        Number of failing entries, and of those that it explains.
    left, gap : float
        Norms of what it leaves, and of the failure.
    of_some : bool
        Whether it was judged on some entries alone, which stand for all.
    """

    failing: int
    explained: int
    left: float
    gap: float
    of_some: bool = False

    @property
    def missed(self) -> int:
        """Number of failing entries that it does not explain."""
        return self.failing - self.explained


@dataclass(frozen=True)
class Known:
    """What is known beside one tensor's evidence.

    Attributes
    ----------
    failed : mapping of str to Evidence
        All tensors that failed.
    others : mapping of str to arrays
        Gradients of other tensors.
    counts : mapping of str to float
        Numbers of the problem, by their names: "N", "output pixels", ...
    around : Around
    """

    failed: Failed
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    around: Around = field(default_factory=Around)


def part_of(evidence: Evidence) -> Evidence:
    """Return some entries of a tensor's evidence, failing and passing ones, or all where these are not many."""
    if len(evidence.dims) <= 2 * _SAMPLE:
        return evidence
    failing, random = evidence.failing, np.random.default_rng(0)
    some = [
        places if len(places) <= _SAMPLE else random.choice(places, _SAMPLE, replace=False, shuffle=False)
        for places in (np.flatnonzero(failing), np.flatnonzero(~failing))
    ]
    return at(evidence, np.sort(np.concatenate(some)))


def at(evidence: Evidence, places: np.ndarray | slice) -> Evidence:
    """Return some entries of a tensor's evidence."""
    return replace(
        evidence, dims=evidence.dims[places], numeric=evidence.numeric[places], error_bar=evidence.error_bar[places]
    )


class _Tally(NamedTuple):
    """What counts, of some entries."""

    failing: int
    explained: int
    passing: int
    kept: int
    left: float
    gap: float
    chance: float
    best: np.ndarray


@np.errstate(all="ignore")
def fits(hypothesis: Hypothesis, evidence: Evidence) -> Fit | None:
    """Return how well a hypothesis fits a tensor; None where it does not, or where that is no evidence."""
    blocks = range(0, len(evidence.dims), _BLOCK)
    tallies = [_tally(hypothesis, at(evidence, slice(start, start + _BLOCK))) for start in blocks]
    failing, explained = sum(one.failing for one in tallies), sum(one.explained for one in tallies)
    passing, kept = sum(one.passing for one in tallies), sum(one.kept for one in tallies)
    left, gap = math.hypot(*(one.left for one in tallies)), math.hypot(*(one.gap for one in tallies))
    if explained < NEARLY_ALL * failing or kept < NEARLY_ALL * passing or not left <= MOST_LEFT * gap:
        return None
    # As many of the best entries as parameters were fitted say nothing.
    best = np.sort(np.concatenate([one.best for one in tallies]))[: hypothesis.free]
    chance = sum(one.chance for one in tallies) - float(best.sum()) + math.log(hypothesis.tried)
    return Fit(failing, explained, left, gap) if chance <= CHANCE else None


def _tally(hypothesis: Hypothesis, block: Evidence) -> _Tally:
    observed, predicted, allowed = hypothesis.compare(block)
    apart, gap, failing = np.abs(observed - predicted), np.abs(block.seen - block.numeric), block.failing
    within = apart <= allowed
    # An entry's chance to be explained is what it may differ by, over what was to be explained.
    chances = np.log(np.clip(allowed[failing] / gap[failing], 1e-16, 1.0))
    wrong = _count(failing)
    return _Tally(
        wrong,
        _count(within & failing),
        len(failing) - wrong,
        _count(within & ~failing),
        _norm(apart),
        _norm(gap),
        float(chances.sum()),
        np.sort(chances)[: hypothesis.free],
    )


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _norm(values: np.ndarray) -> float:
    """Return a norm that does not overflow; nan where a value is not finite."""
    size = float(np.abs(values).max(initial=0.0))
    return size * float(np.linalg.norm(values / size)) if 0 < size < math.inf else size
