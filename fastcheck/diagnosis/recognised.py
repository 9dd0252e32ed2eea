"""A convolution in a function of arrays: its operands and its geometry, by what its forward pass returns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.functions.vjp_case import VjpCase

_RANKS = (3, 4, 5)

_STRIDES, _DILATIONS = range(1, 5), range(1, 4)

_PADDING = 3
"""Padding that is tried even where a window is shorter."""

_MOST = 4000
"""Largest number of geometries that are tried."""

_CLOSE = 1e-9
"""What an output and the sum that it should be may differ by, relative to the sum of its terms' sizes."""

_SAMPLED = 32
"""Outputs that are computed to tell whether a geometry is the function's."""


class Axis(NamedTuple):
    """The geometry of one spatial axis."""

    stride: int
    dilation: int
    before: int
    after: int


class Recognised(NamedTuple):
    """A convolution, and the names of its tensors in the function.

    Attributes
    ----------
    case : ConvCase
    names : dict of str to str
        The function's, by the convolution's.
    """

    case: ConvCase
    names: dict[str, str]

    def explained(self, failed: Failed) -> list[Diagnosis]:
        """Return the mistakes of convolutions that explain the function's tensors."""
        from fastcheck.diagnosis.convolutions import replayed  # imports Numba

        own = {own: replace(failed[name], name=own, label=name) for own, name in self.names.items() if name in failed}
        found = replayed(self.case, own)
        return [one._replace(tensors=tuple(self.names[name] for name in one.tensors)) for one in found]


def convolution_in(case: VjpCase) -> Recognised | None:
    """Return the convolution that a function computes; None where it is none that was recognised.

    Its inputs are an input and a weight in the order of PyTorch's, and perhaps a bias; it has one output.
    """
    vjp = case.vjp
    if vjp.is_complex or len(vjp.here) != 1:
        return None
    ((label, output),) = vjp.here.items()
    arrays = {name: array for name, array in vjp.inputs.arrays.items() if array.size}
    for (image, x), (weight, w) in itertools.permutations(arrays.items(), 2):
        if not _may_be(x.shape, w.shape, output.shape):
            continue
        others = {name: array for name, array in arrays.items() if name not in (image, weight)}
        if len(others) > 1 or any(array.shape != w.shape[:1] for array in others.values()):
            continue
        bias = next(iter(others.values()), np.zeros(len(w)))
        for axes in itertools.islice(_geometries(x.shape, w.shape, output.shape), _MOST):
            if _agrees(x, w, bias, output, axes):
                names = {"input": image, "weight": weight} | dict.fromkeys(["bias"] * len(others), *others)
                return _made(case, x, w, bias, vjp.cotangent[label], axes, names)
    return None


def _may_be(x: tuple[int, ...], w: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Return whether shapes may be those of an input, a weight and an output."""
    if not len(x) == len(w) == len(output) or len(x) not in _RANKS:
        return False
    return (x[0], w[0]) == output[:2] and x[1] % w[1] == 0 and w[0] % (x[1] // w[1]) == 0


def _geometries(x: tuple[int, ...], w: tuple[int, ...], output: tuple[int, ...]) -> Iterator[tuple[Axis, ...]]:
    """Yield the geometries that fit shapes: those that are the same along all axes first."""
    each = [list(_axes(*sizes)) for sizes in zip(x[2:], w[2:], output[2:], strict=True)]
    every = set(each[0]).intersection(*each[1:])
    alike = [(one,) * len(each) for one in each[0] if one in every]
    yield from alike
    yield from (one for one in itertools.product(*each) if one not in alike)


def _axes(size: int, taps: int, outputs: int) -> Iterator[Axis]:
    """Yield the geometries of one axis: those with the same padding on both sides first."""
    found = list[Axis]()
    for stride, dilation in itertools.product(_STRIDES, _DILATIONS):
        reach = dilation * (taps - 1) + 1
        for before in range(max(reach, _PADDING + 1)):
            # What lies behind the last window changes nothing: the least padding there stands for all.
            least = max(0, stride * (outputs - 1) + reach - size - before)
            for after in dict.fromkeys((before, least)):
                fits = size + before + after >= reach and (size + before + after - reach) // stride + 1 == outputs
                if fits and after < max(reach, _PADDING + 1):
                    found.append(Axis(stride, dilation, before, after))
    yield from sorted(dict.fromkeys(found), key=lambda one: one.before != one.after)


def _agrees(x: np.ndarray, w: np.ndarray, bias: np.ndarray, output: np.ndarray, axes: tuple[Axis, ...]) -> bool:
    """Return whether a convolution of this geometry has these outputs, by some of them."""
    places = np.random.default_rng(0).choice(output.size, min(_SAMPLED, output.size), replace=False)
    for place in places.tolist():
        index = tuple(int(one) for one in np.unravel_index(place, output.shape))
        terms = _terms(x, w, index, axes)
        size = float(np.abs(terms).sum()) + abs(bias[index[1]])
        if not abs(float(terms.sum()) + bias[index[1]] - output[index]) <= _CLOSE * size:
            return False
    return True


def _terms(x: np.ndarray, w: np.ndarray, index: tuple[int, ...], axes: tuple[Axis, ...]) -> np.ndarray:
    """Return the products whose sum is one output, but for the bias."""
    sample, filter_, *position = index
    channels = w.shape[1]
    first = filter_ // (len(w) // (x.shape[1] // channels)) * channels
    rows = [
        axis.stride * o + axis.dilation * np.arange(taps) - axis.before
        for axis, o, taps in zip(axes, position, w.shape[2:], strict=True)
    ]
    inside = [(row >= 0) & (row < size) for row, size in zip(rows, x.shape[2:], strict=True)]
    met = [row[mask] for row, mask in zip(rows, inside, strict=True)]
    image = x[sample, first : first + channels][(slice(None), *np.ix_(*met))]
    return np.asarray(image * w[filter_][(slice(None), *np.ix_(*inside))])


def _made(
    case: VjpCase,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    cotangent: np.ndarray,
    axes: tuple[Axis, ...],
    names: Mapping[str, str],
) -> Recognised | None:
    checked = {own: name for own, name in names.items() if name in case.grads}
    try:
        made = ConvCase(
            x,
            w,
            bias,
            stride=tuple(one.stride for one in axes),
            padding=tuple((one.before, one.after) for one in axes),
            dilation=tuple(one.dilation for one in axes),
            groups=x.shape[1] // w.shape[1],
            grad_output=cotangent,
            grads={own: case.grads[name] for own, name in checked.items()},
        )
    except FastcheckError:  # more than fits in memory, say
        return None
    return Recognised(made, checked)
