"""Hypotheses on a tensor's gradient, and whether one fits: inside the bars where it fails, and where it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fastcheck.diagnosis.evidence import Evidence, Failed

NEARLY_ALL = 0.98
"""Share of the failing entries that a hypothesis explains, and of the passing ones that it leaves inside their bars."""

MOST_LEFT = 0.1
"""A hypothesis leaves at most this share of the failure's norm: wide bars alone are no evidence."""

CHANCE = math.log(1e-6)
"""A fit is no evidence where chance is as likely as this to give one like it."""

_SAMPLE = 1000
"""Number of failing entries, and of passing ones, on which hypotheses are tried before they are confirmed on all."""


class Compared(NamedTuple):
    """What a hypothesis says of some entries.

    Attributes
    ----------
    observed, predicted : float64 arrays, shape (n,)
        Two arrays that are equal where it is true.
    allowed : float64 array, shape (n,), or float
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
    """

    words: Mapping[str, str]
    compare: Callable[[Evidence], Compared]
    free: int = 0
    tried: int = 1


class Fit(NamedTuple):
    """How well a hypothesis fits a tensor.

    Attributes
    ----------
    failing, explained : int
        Number of failing entries, and of those that it explains.
    left, gap : float
        Norms of what it leaves, and of the failure.
    """

    failing: int
    explained: int
    left: float
    gap: float


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
    """

    failed: Failed
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)


def part_of(evidence: Evidence) -> Evidence:
    """Return some entries of a tensor's evidence, failing and passing ones, or all where these are not many."""
    if len(evidence.dims) <= 2 * _SAMPLE:
        return evidence
    failing, random = evidence.failing, np.random.default_rng(0)
    some = [
        places if len(places) <= _SAMPLE else random.choice(places, _SAMPLE, replace=False, shuffle=False)
        for places in (np.flatnonzero(failing), np.flatnonzero(~failing))
    ]
    at = np.sort(np.concatenate(some))
    return replace(evidence, dims=evidence.dims[at], numeric=evidence.numeric[at], error_bar=evidence.error_bar[at])


@np.errstate(all="ignore")
def fits(hypothesis: Hypothesis, evidence: Evidence) -> Fit | None:
    """Return how well a hypothesis fits a tensor; None where it does not, or where that is no evidence."""
    observed, predicted, allowed = hypothesis.compare(evidence)
    apart, failing = np.abs(observed - predicted), evidence.failing
    within = apart <= allowed
    wrong, right = int(failing.sum()), int(np.count_nonzero(~failing))
    explained = int(np.count_nonzero(within & failing))
    if explained < NEARLY_ALL * wrong or np.count_nonzero(within & ~failing) < NEARLY_ALL * right:
        return None
    gap = _norm(evidence.seen - evidence.numeric)
    # What the bars allow is not left.
    left = _norm(np.maximum(apart - np.maximum(allowed - evidence.error_bar, 0), 0)) if explained else math.inf
    if not left <= MOST_LEFT * gap or not _is_telling(hypothesis, evidence, failing, allowed):
        return None
    return Fit(wrong, explained, left, gap)


def _is_telling(hypothesis: Hypothesis, evidence: Evidence, failing: np.ndarray, allowed: np.ndarray) -> bool:
    """Return whether chance is too unlikely to bring all failing entries inside their bars.

    An entry's chance is its bar over the size of what was to be explained. As many of the best entries as parameters
    were fitted say nothing.
    """
    wide = np.broadcast_to(allowed, failing.shape)[failing]
    apart = np.abs(evidence.seen - evidence.numeric)[failing]
    each = np.log(np.clip(wide / apart, 1e-16, 1.0))
    evidence_left = np.sort(each)[hypothesis.free :]
    return float(evidence_left.sum()) + math.log(hypothesis.tried) <= CHANCE


def _norm(values: np.ndarray) -> float:
    """Return a norm that does not overflow; nan where a value is not finite."""
    size = float(np.abs(values).max(initial=0.0))
    return size * float(np.linalg.norm(values / size)) if 0 < size < math.inf else size
