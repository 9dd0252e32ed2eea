"""The arrays around a gradient that failed: inputs, outputs, cotangents, and how outputs move with single entries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fastcheck.common.arguments import Shape

Columns = Callable[[str, np.ndarray], np.ndarray]
"""Takes a tensor and flat indices of some of its entries; returns the derivatives of all outputs by each, in rows."""


LARGEST = 2**24
"""Tensors of more entries are not compared with the arrays around them, which takes memory for each comparison."""


@dataclass(frozen=True)
class Around:
    """What a function was called with, and what it returned.

    Attributes
    ----------
    inputs : mapping of str to float64 array
        Those that are differentiated, by the names that tensors have.
    integers : mapping of str to array
        Inputs of integers or truth values.
    outputs, cotangents : mapping of str to float64 array
        By output: "output", or "output 0", "output 1", ...
    columns : callable, optional
    later : mapping of str to array
        The gradients that a second call returned, of tensors for which it returned others.
    """

    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    integers: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    cotangents: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: Columns | None = None
    later: Mapping[str, np.ndarray] = field(default_factory=dict)


def cotangent_of(output: str) -> str:
    """Return the name of an output's cotangent."""
    return output.replace("output", "grad_output", 1)


def aligned(array: np.ndarray, shape: Shape) -> Iterator[np.ndarray]:
    """Yield an array as it meets the entries of a shape: of as many entries in their order, or repeated along axes."""
    if math.prod(shape) > LARGEST:
        return
    if array.shape == shape:
        yield array
    elif array.size == math.prod(shape):
        yield array.reshape(shape)
    elif array.size < math.prod(shape):
        for left_out in _left_out(array.shape, shape):
            yield np.broadcast_to(np.expand_dims(array, left_out), shape)


def _left_out(smaller: Shape, shape: Shape) -> Iterator[tuple[int, ...]]:
    """Yield the axes without which a shape is, or broadcasts from, a smaller one."""
    if len(smaller) == len(shape):
        if all(one in (1, size) for one, size in zip(smaller, shape, strict=True)):
            yield ()
        return
    if len(smaller) > len(shape):
        return
    for axes in itertools.combinations(range(len(shape)), len(shape) - len(smaller)):
        if all(one in (1, shape[axis]) for one, axis in zip(smaller, _others(axes, len(shape)), strict=True)):
            yield axes


def _others(axes: tuple[int, ...], rank: int) -> list[int]:
    return [axis for axis in range(rank) if axis not in axes]
