"""Checks of arrays that users pass: one clear line for what cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.errors import FastcheckError


def as_array(name: str, value: Any) -> np.ndarray:
    """Return an array of any dtype; refuse a masked array, whose hidden entries would count."""
    if isinstance(value, np.ma.MaskedArray):
        raise FastcheckError(f"{name} is a masked array: expected one without a mask, such as its .filled(0)")
    try:
        return np.asarray(value)
    except Exception as error:  # whatever another library's array raises
        raise FastcheckError(f"{name} is not an array: {' '.join(str(error).split())}") from None


def as_floating(name: str, value: Any) -> np.ndarray:
    """Return an array of float64, float32 or float16, in either byte order; refuse any other dtype."""
    array = as_array(name, value)
    if array.dtype.newbyteorder("=") not in (np.float64, np.float32, np.float16):
        raise FastcheckError(f"{name} has dtype {array.dtype}: expected float64, float32 or float16")
    return _with_quiet_nans(array)


def _with_quiet_nans(array: np.ndarray) -> np.ndarray:
    """Return an array whose NaNs are quiet: NumPy warns when it converts a signalling NaN to float64."""
    if array.dtype.itemsize == 8:
        return array
    unknown = np.isnan(array)
    return np.where(unknown, array.dtype.type(np.nan), array) if unknown.any() else array


def finite(label: str, value: Any) -> np.ndarray:
    """Return a float64 copy of an array, after checking that it is not empty and that every entry is finite."""
    array = np.array(as_floating(label, value), dtype=np.float64, order="C")
    if not array.size:
        raise FastcheckError(f"{label} is empty: it has shape {array.shape}")
    refuse_non_finite(label, array)
    return array


def refuse_non_finite(label: str, array: np.ndarray) -> None:
    """Refuse an array with an entry that is not finite; the refusal names the first one."""
    is_finite = np.isfinite(array)
    if not is_finite.all():
        index = index_of(int(np.argmin(is_finite)), array.shape)
        raise FastcheckError(f"{label} is {array[index]} at index {list(index)}: expected finite numbers")
