"""The sizes of an array's entries: what is typical, and how alike they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SAMPLE = 2**13
"""Entries of a large array that stand for all of it."""


@dataclass(frozen=True)
class Structure:
    """How alike the non-zero magnitudes of a tensor are: repeated data make roundings add up instead of cancel.

    Attributes
    ----------
    multiplicity : int
        The largest number of equal ones.
    crowd : int
        The largest number within one relative window (the argument ``window``).
    """

    multiplicity: int
    crowd: int

    @classmethod
    def of(cls, values: np.ndarray, window: float) -> Structure:
        """Count equal and close magnitudes of an array.

        A large array is looked at in places spread over it, and as a whole only where those hold many equal magnitudes:
        sorting all took longer than differencing a layer.
        """
        flat = values.reshape(-1)
        if flat.size <= 2 * SAMPLE:
            return cls._counted(flat, window)
        found = cls._counted(_spread(flat), window)
        if found.multiplicity > 3:  # more than chance makes among the 2^24 significands of float32
            return cls._counted(flat, window)
        share = flat.size / SAMPLE
        alike = 1 if found.multiplicity <= 1 else math.ceil(found.multiplicity * share)
        return cls(alike, max(alike, math.ceil(found.crowd * share)))

    @classmethod
    def _counted(cls, values: np.ndarray, window: float) -> Structure:
        sizes = np.sort(np.abs(values))
        sizes = sizes[np.searchsorted(sizes, 0.0, side="right") :]
        if not sizes.size:
            return cls(0, 0)
        crowd = _longest_run(sizes, window)
        return cls(1 if crowd == 1 else _longest_run(sizes, 0.0), crowd)

    @classmethod
    def none(cls) -> Structure:
        """Describe a factor of one, which multiplies without changing anything."""
        return cls(1, 1)


def _spread(flat: np.ndarray) -> np.ndarray:
    """Return `SAMPLE` entries of a larger flat array, in places spread evenly and in step with no row or column."""
    return flat.take(_places(flat.size))


@lru_cache(maxsize=16)
def _places(size: int) -> np.ndarray:
    step = int(size * 0.6180339887) | 1  # multiples of the golden section
    while math.gcd(step, size) > 1:
        step += 2
    return np.arange(SAMPLE) * step % size


def _longest_run(sizes: np.ndarray, window: float) -> int:
    """Return the largest number of ascending sizes within one relative window: doubled, then bisected."""

    def fits(count: int) -> bool:
        return bool((sizes[count - 1 :] <= sizes[: sizes.size - count + 1] * (1 + window)).any())

    low, high = 1, 2
    while high <= sizes.size and fits(high):
        low, high = high, 2 * high
    high = min(high, sizes.size + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def rms(values: np.ndarray) -> float:
    """Return about the root mean square of the non-zero entries, without overflow."""
    flat = values.reshape(-1)
    few = _spread(flat) if flat.size > 2 * SAMPLE else flat
    sizes = np.abs(few)
    largest = float(sizes.max(initial=0.0))
    if largest == 0 and few is not flat:
        sizes = np.abs(flat)
        largest = float(sizes.max())
    if largest == 0:
        return 0.0
    sizes /= largest
    return largest * math.sqrt(float(np.square(sizes).sum()) / np.count_nonzero(sizes))


def share_of_nonzeros(values: np.ndarray) -> float:
    """Return about how many of an array's entries are not zero, as a part of all."""
    flat = values.reshape(-1)
    few = _spread(flat) if flat.size > 2 * SAMPLE else flat
    return np.count_nonzero(few) / few.size
