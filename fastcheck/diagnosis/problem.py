"""A convolution as a program sees it: grouped operands that a hypothesis may rearrange, the output, the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions import passes
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.entries import NUMPYS
from fastcheck.convolutions.geometry import ConvGeometry, Sides

SPACE = 3
"""The first spatial axis of a grouped array."""


class Block(NamedTuple):
    """A part of a gradient: slices, so that parts of arrays are views, of each axis before the spatial ones.

    Of an input gradient, ``rows`` are those of the first spatial axis.
    """

    samples: slice
    groups: slice
    filters: slice
    channels: slice
    rows: slice = slice(None)


@dataclass(frozen=True)
class Problem:
    """The operands of both passes, views of the case's arrays wherever that is possible.

    A convolution and its transpose are one relation between a big and a small array, ``big = stride * small +
    dilation * tap - low``. The big array of a convolution is its input, that of a transposed one its output.

    Attributes
    ----------
    big : array, shape (N, groups, channels, spatial...)
        Input, or the cotangent of a transposed convolution. Under a padding mode the input with its padding.
    small : array, shape (N, groups, filters, spatial...)
        Cotangent, or the input of a transposed convolution.
    w : array, shape (groups, filters, channels, taps...)
    bias : array, shaped as the output
    stride, dilation, low : tuple of int
        ``low`` is the padding before each axis.
    high : tuple of int
        Padding after each axis, which no gradient depends on.
    transposed : bool
    unsloped : array or None
        The cotangent before the slope of the loss; None of a loss that is linear.
    output : array or None
        The output, of a loss that is not linear.
    sources : tuple of int64 arrays
        Under a padding mode, the input's entry at each position of the padded input, for every axis; else empty.
    """

    big: np.ndarray
    small: np.ndarray
    w: np.ndarray
    bias: np.ndarray
    stride: Shape
    dilation: Shape
    low: Shape
    high: Shape
    transposed: bool = False
    unsloped: np.ndarray | None = None
    output: np.ndarray | None = None
    sources: tuple[np.ndarray, ...] = ()

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.stride)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of grouped arrays."""
        return tuple(range(SPACE, SPACE + self.rank))

    @property
    def x(self) -> np.ndarray:
        """The input."""
        return self.small if self.transposed else self.big

    @property
    def v(self) -> np.ndarray:
        """The cotangent."""
        return self.big if self.transposed else self.small

    @property
    def taps(self) -> Shape:
        """The kernel's sizes."""
        return self.w.shape[SPACE:]

    @property
    def inside(self) -> Shape:
        """The input's sizes in space, without the copies of a padding mode."""
        return tuple(int(one.max()) + 1 for one in self.sources) or self.x.shape[SPACE:]

    @property
    def filters_axis(self) -> int:
        """The axis of ``w`` that an input gradient sums over."""
        return 2 if self.transposed else 1

    def having(self, x: np.ndarray | None = None, v: np.ndarray | None = None, **changes: object) -> Problem:
        """Return the problem with another input, cotangent, or whatever else."""
        names = {"x": "small" if self.transposed else "big", "v": "big" if self.transposed else "small"}
        arrays = {names[name]: array for name, array in (("x", x), ("v", v)) if array is not None}
        return replace(self, **arrays, **changes)  # type: ignore[arg-type]

    def part(self, tensor: str, block: Block) -> Problem:
        """Return the problem of a part of a gradient or of the output: everything that this part depends on."""
        every = slice(None)
        samples, groups, filters, channels, _ = block
        if tensor in ("input", "output"):
            filters, channels = (filters, every) if (tensor == "input") == self.transposed else (every, channels)
        else:
            samples = every
        return replace(
            self,
            big=self.big[samples, groups, channels],
            small=self.small[samples, groups, filters],
            w=self.w[groups, filters, channels],
            bias=self.bias[samples, groups, channels if self.transposed else filters],
        )

    def of_rows(self, rows: slice) -> Problem:
        """Return the problem of some rows of a big gradient: the windows that meet them."""
        start, stop, _ = rows.indices(self.big.shape[SPACE])
        stride, low = self.stride[0], self.low[0]
        reach = self.dilation[0] * (self.taps[0] - 1)
        first = max(0, -((reach - low - start) // stride))
        last = max(first, (stop - 1 + low) // stride + 1)
        return replace(
            self,
            big=self.big[:, :, :, start:stop],
            small=self.small[:, :, :, first:last],
            low=(low + start - stride * first, *self.low[1:]),
        )


Gradient = Callable[[Problem, str, Executor], np.ndarray]
"""A pass: takes a problem, the tensor's name and an executor; returns its grouped gradient, or of "output" itself."""


def of_case(case: ConvCase, pool: Executor) -> Problem:
    """Return the problem of a case's gradients."""
    if case.loss == "vjp":
        return of_operands(case)
    geometry = case.geometry
    output = passes.convolve(geometry, case.input, case.weight, case.bias, pool)
    sloped, unsloped = case.grad_output * slope(case.loss, output), grouped(case.grad_output, geometry.groups)
    return of_operands(case).having(
        v=grouped(sloped, geometry.groups), unsloped=unsloped, output=grouped(output, geometry.groups)
    )


def of_operands(case: ConvCase) -> Problem:
    """Return the problem of a case's output, or of its gradients under a loss that is linear."""
    geometry = case.geometry
    filters = geometry.weight_shape[0] // geometry.groups
    x, sources = _with_padding(geometry, grouped(case.input, geometry.groups))
    v = grouped(case.grad_output, geometry.groups)
    bias = case.bias.reshape(geometry.groups, -1, *(1,) * geometry.rank)
    return Problem(
        big=v if geometry.transposed else x,
        small=x if geometry.transposed else v,
        w=case.weight.reshape(geometry.groups, filters, *geometry.weight_shape[1:]),
        bias=np.broadcast_to(bias, v.shape),
        stride=geometry.stride,
        dilation=geometry.dilation,
        low=(0,) * geometry.rank if sources else tuple(low for low, _ in geometry.padding),
        high=(0,) * geometry.rank if sources else tuple(high for _, high in geometry.padding),
        transposed=geometry.transposed,
        sources=sources,
    )


def slope(loss: str, output: np.ndarray) -> np.ndarray:
    """Return the slopes of a loss at the outputs."""
    if loss == "square":
        return output
    return (output > 0).astype(np.float64) if loss == "relu" else 1 - np.tanh(output) ** 2


def grouped(array: np.ndarray, groups: int) -> np.ndarray:
    """Return a view of an activation with its channels divided among groups."""
    return array.reshape(array.shape[0], groups, -1, *array.shape[2:])


def _with_padding(geometry: ConvGeometry, x: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return a grouped input with the padding that a padding mode gives it, and where the padding comes from."""
    if geometry.plain is geometry or geometry.transposed:
        return x, ()
    return padded(x, geometry.padding, geometry.padding_mode)


def padded(x: np.ndarray, sides: Sides, padding_mode: str) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return a grouped input padded with copies of its entries, and the entry that is at each position of each axis."""
    mode = NUMPYS[padding_mode]
    axes = zip(x.shape[SPACE:], sides, strict=True)
    sources = tuple(np.pad(np.arange(size), pair, mode=mode) for size, pair in axes)
    return np.pad(x, ((0, 0),) * SPACE + sides, mode=mode), sources


def gradient(problem: Problem, tensor: str, pool: Executor) -> np.ndarray:
    """Return a gradient by the reference backward pass, grouped as the tensor is in the problem; or the output."""
    if tensor == "bias":
        return problem.v.sum(axis=(0, *problem.axes))
    if not problem.small.size:  # rows that no window meets
        return np.zeros(problem.big.shape)
    # Kernels would be compiled again for arrays that are not contiguous or may not be written.
    arrays = (flat(problem.big), flat(problem.small), problem.w.reshape(-1, *problem.w.shape[2:]))
    big, small, w = (np.require(array, np.float64, ["C", "A", "W", "E"]) for array in arrays)
    geometry = ConvGeometry(
        input_shape=big.shape,
        weight_shape=w.shape,
        output_shape=small.shape,
        stride=problem.stride,
        padding=tuple((low, low) for low in problem.low),
        dilation=problem.dilation,
        groups=len(problem.w),
        spacing=(1,) * problem.rank,
    )
    if tensor == ("input" if problem.transposed else "output"):
        found = passes.convolve(geometry, big, w, np.zeros(len(w)), pool).reshape(problem.small.shape)
        return found + problem.bias if tensor == "output" else found
    adjoint = "weight" if tensor == "weight" else "input"
    found = passes.backward(geometry, big, w, small, pool, (adjoint,))[adjoint]
    if tensor == "weight":
        return found.reshape(problem.w.shape)
    found = found.reshape(problem.big.shape)
    return found + problem.bias if tensor == "output" else folded(problem, found)


def folded(problem: Problem, padded: np.ndarray) -> np.ndarray:
    """Return the gradient of an input from that of its padded form: copies add up."""
    for axis, sources in enumerate(problem.sources, SPACE):
        shape = (*padded.shape[:axis], sources.max() + 1, *padded.shape[axis + 1 :])
        total = np.zeros(shape)
        np.add.at(np.moveaxis(total, axis, 0), sources, np.moveaxis(padded, axis, 0))
        padded = total
    return padded


def in_space(indices: Iterable[Any]) -> tuple[Any, ...]:
    """Return the index of an array whose spatial axes have these indices."""
    return (..., *indices)


def flat(array: np.ndarray) -> np.ndarray:
    """Return an activation with the channels of its groups one after another."""
    return array.reshape(array.shape[0], -1, *array.shape[SPACE:])
