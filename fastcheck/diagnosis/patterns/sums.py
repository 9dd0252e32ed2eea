"""Sums along axes that a gradient lacks: of normalisations, of a softmax, of labels.

Where a backward pass takes away a sum, a gradient that lacks it becomes right once the sum is taken away from it: each
pattern does that to the gradient, of which all entries are known, and compares the outcome with the derivative.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.diagnosis.around import LARGEST, aligned
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, corrected, replayed

_MOST_AXES = 5
"""Axes longer than one, of which all sets are tried."""

_LARGE = 2**20
"""Tensors with more entries are summed along fewer sets of axes, since each sum takes time."""

_LARGEST_EPSILON = 0.5
"""The largest number that a normalisation may add to the variance, relative to it."""


_ALWAYS_ZERO = 2
"""Two normalised entries have gradients of zero whatever the cotangent: they say nothing."""


class _Sums(NamedTuple):
    """Sets of entries that are summed.

    Attributes
    ----------
    words : str
        "axes 0, 2 and 3".
    shape : tuple of int
        Of the tensor, or with an axis split into groups.
    axes : tuple of int
        Of that shape.
    """

    words: str
    shape: Shape
    axes: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of entries of a set."""
        return math.prod(self.shape[axis] for axis in self.axes)

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return an array with these axes."""
        return array.reshape(self.shape)

    def total(self, array: np.ndarray) -> np.ndarray:
        """Return the sums, beside the entries that they are of."""
        return array.sum(axis=self.axes, keepdims=True)

    def mean(self, array: np.ndarray) -> np.ndarray:
        """Return the means, likewise."""
        return array.mean(axis=self.axes, keepdims=True)


def mean_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once its own mean is taken away."""
    for sums in (every := _of_function(part, known)):
        grad = sums.view(part.analytic)
        yield _hypothesis(part, sums, grad - sums.mean(grad), len(every))


def variance_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once the part along the normalised values is taken away."""
    yield from _along_normalised(part, known, centred=True, mean=False)


def statistics_constant(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once both its mean and the part along the normalised values are taken away."""
    yield from _along_normalised(part, known, centred=True, mean=True)


def norm_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once the part along the tensor itself is taken away."""
    yield from _along_normalised(part, known, centred=False, mean=False)


def _along_normalised(part: Evidence, known: Known, centred: bool, mean: bool) -> Proposals:
    if part.value is None:
        return
    every = [sums for sums in _of_function(part, known) if sums.size > _ALWAYS_ZERO or not centred]
    for sums in every:
        grad, value = sums.view(part.analytic), sums.view(part.value)
        grad = grad - sums.mean(grad) if mean else grad
        value = value - sums.mean(value) if centred else value
        variance = sums.mean(value**2)
        along = value * (sums.mean(grad * value) / variance)
        epsilon = _epsilon(part, grad, along, variance)
        taken = along * (variance / (variance + epsilon))
        yield _hypothesis(part, sums, grad - taken, len(every), free=1)


def _epsilon(part: Evidence, grad: np.ndarray, along: np.ndarray, variance: np.ndarray) -> float:
    """Return what is added to the variance, as it fits the derivative best; 0 where it does not fit."""

    def at(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, grad.shape).reshape(-1)[part.dims]

    taken, variances = at(grad) - part.numeric, at(variance)
    size = float(np.median(variances))
    epsilon = float(np.vdot(taken, variances * (at(along) - taken)) / np.vdot(taken, taken))
    return epsilon if 0 < epsilon <= _LARGEST_EPSILON * size else 0.0


def softmax_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once its sum, times the softmax, is taken away."""
    if part.value is None:
        return
    for sums in (every := _of_function(part, known)):
        grad = sums.view(part.analytic)
        yield _hypothesis(part, sums, grad - softmax(sums.view(part.value), sums.axes) * sums.total(grad), len(every))


def label_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once its sum is taken away where a label is."""
    for name, labels in known.around.integers.items():
        for axis, size in enumerate(part.shape):
            chosen = _one_hot(labels, part.shape, axis)
            if size > 1 and chosen is not None:
                grad = part.analytic
                words = {"labels": name, "axes": f"axis {axis}"}
                right = grad - chosen * grad.sum(axis=axis, keepdims=True)
                yield Hypothesis(words, corrected(part, right), tried=len(part.shape))


def _one_hot(labels: np.ndarray, shape: Shape, axis: int) -> np.ndarray | None:
    """Return ones at the labels along an axis, where these can be that; None otherwise."""
    others = (*shape[:axis], *shape[axis + 1 :])
    if labels.dtype.kind not in "iu" or labels.size != math.prod(others) or not labels.size:
        return None
    if labels.min() < 0 or labels.max() >= shape[axis]:
        return None
    places = np.arange(shape[axis]).reshape([-1 if one == axis else 1 for one in range(len(shape))])
    return places == np.expand_dims(labels.reshape(others), axis)


def softmax(value: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the softmax over axes."""
    shifted = np.exp(value - value.max(axis=axes, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axes, keepdims=True))


def softmax_slopes(part: Evidence, known: Known) -> Proposals:
    """What the backward pass of a softmax of some kind returns for the cotangent."""
    if part.value is None:
        return
    for cotangent in known.around.cotangents.values():
        for v in aligned(cotangent, part.shape):
            every = list(_sets(part.shape))
            for sums in every:
                p, grad = softmax(sums.view(part.value), sums.axes), sums.view(v)
                for words, made in _OF_SOFTMAX.items():
                    array = made(p, grad, sums.total)
                    words_of = {"words": words.format(axes=sums.words)}
                    yield Hypothesis(words_of, replayed(part, array), tried=len(every) * len(_OF_SOFTMAX))


_Total = Callable[[np.ndarray], np.ndarray]

_OF_SOFTMAX: dict[str, Callable[[np.ndarray, np.ndarray, _Total], np.ndarray]] = {
    "that of a softmax over {axes}": lambda p, v, total: p * (v - total(p * v)),
    "that of a log-softmax over {axes}": lambda p, v, total: v - p * total(v),
    "that of a softmax over {axes} of which only the diagonal counts, p (1 - p)": lambda p, v, total: p * (1 - p) * v,
}


def _hypothesis(part: Evidence, sums: _Sums, right: np.ndarray, tried: int, free: int = 0) -> Hypothesis:
    return Hypothesis({"axes": sums.words}, corrected(part, right), free=free, tried=tried)


def _of_function(part: Evidence, known: Known) -> list[_Sums]:
    """Return the sets of axes that a function may have normalised; none of a convolution, or a network's layer."""
    zero = (np.abs(part.numeric) <= part.error_bar)[part.failing].all()  # as much of a gradient would be left out
    return list(_sets(part.shape)) if known.around.inputs and not zero else []


def _sets(shape: Shape) -> Iterator[_Sums]:
    """Yield sets of axes that may have been normalised together, small ones first, then channels in groups."""
    if math.prod(shape) > LARGEST:
        return
    wide = [axis for axis, size in enumerate(shape) if size > 1][:_MOST_AXES]
    large = math.prod(shape) > _LARGE
    for count in range(1, len(wide) + 1):
        for axes in itertools.combinations(wide, count):
            if not large or count in (1, len(wide) - 1):
                yield _Sums(f"{'axis' if count == 1 else 'axes'} {_listed(axes)}", shape, axes)
    if wide and not large:
        yield from _groups(shape)


def _groups(shape: Shape) -> Iterator[_Sums]:
    """Yield groups of channels, with all that lies behind, and groups along the last axis."""
    rank = len(shape)
    for axis in {min(1, rank - 1), rank - 1}:
        for groups in range(2, shape[axis]):
            if shape[axis] % groups == 0 and shape[axis] > groups:
                split = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
                behind = " and all axes behind it" if axis < rank - 1 else ""
                yield _Sums(
                    f"each of {groups} groups along axis {axis}{behind}", split, tuple(range(axis + 1, rank + 1))
                )


def _listed(axes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, axes[:-1]))} and {axes[-1]}" if len(axes) > 1 else str(axes[0])
