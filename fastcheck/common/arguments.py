"""Checks of arguments: integers, positive numbers, shapes and indices."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import quoted, shown

Shape = tuple[int, ...]

LARGEST = 2**31
"""Bound on every integer argument: the product of two of them fits in 64 bits."""


def index_of(position: int, shape: Shape) -> Shape:
    """Return the index at a flat position, as `numpy.unravel_index` does, in plain integers."""
    rest, index = int(position), []
    for size in reversed(shape):
        rest, entry = divmod(rest, size)
        index.append(entry)
    return tuple(reversed(index))


def position_of(index: Shape, shape: Shape) -> int:
    """Return the flat position of an index."""
    return int(np.ravel_multi_index(index, shape))


def integer(name: str, value: Any, least: int, most: int = LARGEST - 1) -> int:
    """Return an integer between ``least`` and ``most``, or a float that is whole, as an int; refuse anything else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
        number = int(value) if whole else operator.index(value)
    except TypeError:
        raise FastcheckError(f"{name} is {quoted(value)}: expected an integer of at least {least}") from None
    if not least <= number <= most:
        bounds = f"at least {least}" if number < least else f"at most {most}"
        raise FastcheckError(f"{name} is {shown(number)}: expected an integer of {bounds}")
    return number


def sequence(value: Any) -> list[Any] | None:
    """Return the entries of a sequence, or of an array that has axes; None for anything else."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None


def scalar(value: Any) -> Any:
    """Return the entry of an array without axes; return anything else unchanged."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def flag(name: str, value: Any) -> bool:
    """Return a truth value, which a file may hold as a number of 0 or 1; refuse anything else."""
    value = scalar(value)
    if isinstance(value, (bool, int, np.bool_, np.integer)) and value in (0, 1):
        return bool(value)
    raise FastcheckError(f"{name} is {quoted(value)}: expected True or False")


def per_axis(name: str, value: Any, rank: int, least: int) -> Shape:
    """Return one integer of at least ``least`` for each of ``rank`` axes, from one for all axes or a sequence."""
    entries = sequence(value)
    if entries is None:
        return (integer(name, scalar(value), least),) * rank
    if len(entries) != rank:
        raise FastcheckError(
            f"{name} is {quoted(value)}: expected one integer, or {rank} of them, one per spatial axis"
        )
    return tuple(integer(name, entry, least) for entry in entries)


def positive(name: str, value: object) -> float:
    """Return a positive finite number as a float, unchanged; refuse anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise FastcheckError(f"{name} is {quoted(value)}: expected a positive finite number")
    return float(value)
