"""Outputs that do not count in a gradient, or count twice: some of several, or those at some indices of an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fastcheck.diagnosis.around import cotangent_of
from fastcheck.diagnosis.hypotheses import NEARLY_ALL, Hypothesis
from fastcheck.diagnosis.index_words import Axis, named
from fastcheck.diagnosis.patterns.terms import Terms

_NEAR = 1e-2
"""A weight that is fitted is rounded if it is so close: whether the rounded ones fit is then looked at closely."""

_DOES = {0: "does not count", 2: "counts twice", -1: "has the wrong sign"}

_LOOP = (
    "look at the loop or slice over these outputs: its ends, a step, = where += is needed, one sample of a "
    "batch that is used alone"
)

_OFTEN = ((1.0, 0.0), (0.0, 1.0), (2.0, 1.0), (1.0, 2.0), (-1.0, 1.0), (1.0, -1.0))
"""How often what lies in a simple set of indices may count, and what lies outside of it."""

_LOOSE = 16.0
"""What fits within so many bars is looked at more closely."""


def weighted_outputs(terms: Terms, cotangents: Mapping[str, np.ndarray]) -> Iterator[Hypothesis]:
    """Yield that some of several outputs do not count, or count twice."""
    if len(cotangents) == 1:
        return
    starts = np.cumsum([0, *(array.size for array in cotangents.values())])[:-1]
    sums = np.add.reduceat(terms.right, starts, axis=1)
    advice = "look at how the gradients of several outputs are added"
    for number, name in enumerate(cotangents):
        for factor, does in _DOES.items():
            weights = np.ones(len(cotangents))
            weights[number] = factor
            what = f"{cotangent_of(name)} {does}"
            words = {"words": f"of the cotangents that meet in this gradient, {what}", "advice": advice}
            yield _weighted(terms, words, sums, weights, tried=3 * len(cotangents))


def _weighted(terms: Terms, words: Mapping[str, str], sums: np.ndarray, weights: np.ndarray, tried: int) -> Hypothesis:
    return terms.summed(words, sums @ weights, np.linalg.norm(sums * weights, axis=1), tried)


def simple_indices(terms: Terms, cotangents: Mapping[str, np.ndarray]) -> Iterator[Hypothesis]:
    """Yield that outputs at one index of an axis, the first or last ones or every second do not count, or twice."""
    yield from _weighted_indices(terms, cotangents, _simple_sets)


def any_indices(terms: Terms, cotangents: Mapping[str, np.ndarray]) -> Iterator[Hypothesis]:
    """Yield that the outputs at some indices along an axis do not count, or count twice."""
    yield from _weighted_indices(terms, cotangents, _weights)


_Candidates = Callable[[Terms, np.ndarray, np.ndarray], Iterator[np.ndarray]]
"""Takes terms, their sums at each index along an axis, and the sums of the rest; yields how often indices count."""


def _weighted_indices(
    terms: Terms, cotangents: Mapping[str, np.ndarray], candidates: _Candidates
) -> Iterator[Hypothesis]:
    start = 0
    axes = sum(array.ndim for array in cotangents.values())
    for name, cotangent in cotangents.items():
        several, end = terms.right[:, start : start + cotangent.size], start + cotangent.size
        rest = terms.right.sum(axis=1) - several.sum(axis=1)
        start = end
        for axis, size in enumerate(cotangent.shape):
            if size == 1:
                continue
            others = tuple(1 + other for other in range(cotangent.ndim) if other != axis)
            sums = several.reshape(len(several), *cotangent.shape).sum(axis=others)
            along = Axis(f"axis {axis}", size, np.arange(size))
            for weights in candidates(terms, sums, rest):
                yield from _in_words(terms, (sums, rest), weights, along, name, axes)


def _simple_sets(terms: Terms, sums: np.ndarray, rest: np.ndarray) -> Iterator[np.ndarray]:
    """Yield how often each index along an axis counts, in simple ways that nearly fit."""
    size, seen = sums.shape[1], (terms.entries.seen - rest)[:, None]
    index = np.arange(size)
    by_parity = np.stack([sums[:, ::2].sum(axis=1), sums[:, 1::2].sum(axis=1)], axis=1)
    for chosen, inside in ((_one, sums), (_up_to, np.cumsum(sums, axis=1)), (_every_second, by_parity)):
        outside = sums.sum(axis=1, keepdims=True) - inside
        for of_inside, of_outside in _OFTEN:
            apart = np.abs(of_inside * inside + of_outside * outside - seen)
            fits = (apart <= _LOOSE * terms.unsure[:, None]).mean(axis=0) >= NEARLY_ALL
            for k in np.flatnonzero(fits).tolist():
                yield np.where(chosen(index, k), of_inside, of_outside)


def _one(index: np.ndarray, k: int) -> np.ndarray:
    return index == k


def _up_to(index: np.ndarray, k: int) -> np.ndarray:
    return index <= k


def _every_second(index: np.ndarray, k: int) -> np.ndarray:
    return index % 2 == k


def _weights(terms: Terms, sums: np.ndarray, rest: np.ndarray) -> Iterator[np.ndarray]:
    """Yield how often each index counts, where these are numbers that have a meaning; 1 where that is not known."""
    if sums.shape[1] > len(sums) // 2:
        return
    scale = 1 / terms.unsure[:, None]
    size = np.linalg.norm(sums * scale, axis=0)
    known = size > 1e-3 * size.max()
    target = (terms.entries.seen - rest - sums[:, ~known].sum(axis=1)) * scale[:, 0]
    found, _, rank, _ = np.linalg.lstsq(sums[:, known] * scale / size[known], target, rcond=1e-10)
    if rank < np.count_nonzero(known):
        return
    weights = np.ones(sums.shape[1])
    weights[known] = found / size[known]
    settled = np.rint(weights)
    if (np.abs(weights - settled) <= _NEAR).all() and set(np.unique(settled)) <= {1, *_DOES}:
        yield settled


def _in_words(
    terms: Terms, sums: tuple[np.ndarray, np.ndarray], weights: np.ndarray, along: Axis, output: str, axes: int
) -> Iterator[Hypothesis]:
    """Yield the hypothesis that indices count so often, if they count otherwise than once."""
    others = set(np.unique(weights)) - {1.0}
    if len(others) != 1 or not (weights == 1).any():
        return
    (other,) = others
    indices = np.flatnonzero(weights == other)
    phrase, cost = named(along, indices)
    does = f"{phrase} of {output} {_DOES[int(other)]}"
    if other == 0:
        rest_of, _ = named(along, np.flatnonzero(weights == 1))
        does = f"only {rest_of} of {output} counts" if len(rest_of) < len(phrase) else does
    words = {"words": f"of the outputs that meet in this gradient, {does}", "advice": _LOOP}
    by_index, rest = sums
    predicted = by_index @ weights + rest
    tried = round(min(math.exp(cost), 1e9)) * axes * 3
    yield terms.summed(words, predicted, np.linalg.norm(by_index * weights, axis=1), tried)
