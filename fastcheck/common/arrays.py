"""Arrays as users give them, checked: one clear line for what cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.errors import FastcheckError


def as_array(name: str, value: Any) -> np.ndarray:
    """Return an array of any dtype; refuse one with a mask, whose entries would all count."""
    if isinstance(value, np.ma.MaskedArray):
        raise FastcheckError(f"{name} is a masked array: expected one without a mask, such as its .filled(0)")
    try:
        return np.asarray(value)
    except Exception as error:  # whatever another library's array raises
        raise FastcheckError(f"{name} is no array: {' '.join(str(error).split())}") from None


def as_floating(name: str, value: Any) -> np.ndarray:
    """Return an array of float64, float32 or float16, in either byte order; refuse any other dtype."""
    array = as_array(name, value)
    if array.dtype.newbyteorder("=") not in (np.float64, np.float32, np.float16):
        raise FastcheckError(f"{name} has dtype {array.dtype}: expected float64, float32 or float16")
    return _without_signals(array)


def _without_signals(array: np.ndarray) -> np.ndarray:
    """Return an array whose nan are quiet: NumPy warns of each conversion of a signalling one to float64."""
    if array.dtype.itemsize == 8:
        return array
    unknown = np.isnan(array)
    return np.where(unknown, array.dtype.type(np.nan), array) if unknown.any() else array


def finite(label: str, value: Any) -> np.ndarray:
    """Return a float64 array of one's own, which is not empty and holds finite numbers alone."""
    array = np.array(as_floating(label, value), dtype=np.float64, order="C")
    if not array.size:
        raise FastcheckError(f"{label} is empty: it has shape {array.shape}")
    refuse_non_finite(label, array)
    return array


def refuse_non_finite(label: str, array: np.ndarray) -> None:
    """Check that every entry is finite, and tell the first that is not."""
    good = np.isfinite(array)
    if not good.all():
        index = index_of(int(np.argmin(good)), array.shape)
        raise FastcheckError(f"{label} is {array[index]} at index {list(index)}: expected finite numbers")
