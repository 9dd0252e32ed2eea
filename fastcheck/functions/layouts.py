"""The same values in other memory layouts: strided, transposed, offset, expanded, read-only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.common.arrays import is_tensor

_BESIDE = 5.0
"""What lies between the values: code that reads it makes large errors."""


def strided(value: Any) -> Any:
    """Return every second entry of a larger array, along its last axis."""
    if not value.ndim:
        return value
    view = _blank(value, (*value.shape[:-1], 2 * value.shape[-1] + 1))[..., 1::2]
    view[...] = value
    return view


def transposed(value: Any) -> Any:
    """Return an array with the memory of one whose first and last axes are exchanged."""
    if value.ndim < 2:
        return value
    view = _blank(value, (value.shape[-1], *value.shape[1:-1], value.shape[0])).swapaxes(0, -1)
    view[...] = value
    return view


def offset(value: Any) -> Any:
    """Return an array that begins one entry into its memory."""
    view = _blank(value, (math.prod(value.shape) + 1,))[1:].reshape(tuple(value.shape))
    view[...] = value
    return view


def read_only(value: Any) -> Any:
    """Return NumPy's array in memory that may not be written."""
    if is_tensor(value):
        return value
    frozen = value.copy()
    frozen.flags.writeable = False
    return frozen


def not_contiguous(value: Any) -> Any:
    """Return an array that is strided, transposed and offset."""
    if not value.ndim:
        return offset(value)
    wide = _blank(
        value, (value.shape[-1], *value.shape[1:-1], 2 * value.shape[0] + 1) if value.ndim > 1 else _twice(value)
    )
    view = wide[..., 1::2].swapaxes(0, -1)
    view[...] = value
    return view


def all_at_once(value: Any) -> Any:
    """Return an array that is strided, transposed, offset and, where it is NumPy's, read-only."""
    view = not_contiguous(value)
    if not is_tensor(view):
        view.flags.writeable = False
    return view


def expanded(value: Any) -> Any:
    """Return the first entry along an axis, repeated along that axis by a stride of zero.

    The axis is the first one that has several entries. Code that reads the memory as if it were contiguous stays
    inside it.
    """
    axis = expanded_axis(value)
    if axis is None:
        return value
    whole = _blank(value, tuple(value.shape))
    first = whole[(slice(None),) * axis + (slice(0, 1),)]
    first[...] = value[(slice(None),) * axis + (slice(0, 1),)]
    if is_tensor(value):
        return first.expand(tuple(value.shape))
    strides = tuple(0 if number == axis else step for number, step in enumerate(first.strides))
    return np.lib.stride_tricks.as_strided(first, value.shape, strides)


def expanded_axis(value: Any) -> int | None:
    """Return the axis that `expanded` repeats; None where there is none."""
    return next((axis for axis, size in enumerate(value.shape) if size > 1), None)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "strided": strided,
    "transposed": transposed,
    "offset": offset,
    "read-only": read_only,
}
"""Layouts with the same values, by name."""


def _twice(value: Any) -> tuple[int, ...]:
    return (2 * value.shape[0] + 1,)


def _blank(value: Any, shape: tuple[int, ...]) -> Any:
    if is_tensor(value):
        return value.new_full(shape, _BESIDE)
    return np.full(shape, _BESIDE, value.dtype)
