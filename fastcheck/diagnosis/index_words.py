"""A set of indices along one axis of a tensor, in words, and how much such a description says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_SPATIAL = {"depth", "row", "column", "position"}
"""Axes along which the first and the last index are borders, and not just numbers."""

_ORDINALS = {2: "second", 3: "third", 4: "fourth"}

_LONGER = 0.1
"""What words cost beyond those for one index."""

_LISTED = 4
"""Largest number of indices that are all listed."""


class Axis(NamedTuple):
    """An axis of a tensor.

    Attributes
    ----------
    name : str
        "filter", "tap row", "axis 0", ...
    size : int
    seen : int64 array
        Indices at which an entry was differenced, ascending.
    """

    name: str
    size: int
    seen: np.ndarray

    @property
    def noun(self) -> str:
        """What one index is called."""
        return "index" if self._is_numbered else self.name.rpartition(" ")[2] if self.is_tap else self.name

    @property
    def nouns(self) -> str:
        """What several indices are called."""
        return "indices" if self._is_numbered else f"{self.noun}s"

    @property
    def is_tap(self) -> bool:
        """Whether the axis is one of several of a kernel."""
        return self.name.startswith("tap ")

    @property
    def is_spatial(self) -> bool:
        """Whether its ends are borders."""
        return self.noun in _SPATIAL

    @property
    def _is_numbered(self) -> bool:
        return self.name.startswith("axis ")

    def phrase(self, words: str) -> str:
        """Return what stands for the entries at these indices."""
        return f"{words} of {self.name}" if self._is_numbered else words


class Named(NamedTuple):
    """A set of indices in words.

    Attributes
    ----------
    words : str
    cost : float
        Logarithm of the number of sets that are as simple: the more there are, the less it says that one fits.
    """

    words: str
    cost: float


def named(axis: Axis, indices: np.ndarray) -> Named:
    """Return the simplest description of a set of seen indices. Indices that were not seen may be either.

    Parameters
    ----------
    axis : Axis
    indices : int64 array
        Ascending, some of ``axis.seen``.
    """
    others = np.setdiff1d(axis.seen, indices, assume_unique=True)
    best = min(_descriptions(axis, indices), key=lambda one: one.cost)
    if not len(others):
        return best
    without = min(_descriptions(axis, others), key=lambda one: one.cost)
    if without.cost + _LONGER < best.cost:
        best = Named(f"all {axis.nouns} but {without.words}", without.cost + _LONGER)
    return Named(axis.phrase(best.words), best.cost)


def _descriptions(axis: Axis, indices: np.ndarray) -> Iterator[Named]:
    size = math.log(axis.size)
    yield _list(axis, indices)
    if len(indices) == 1:
        return
    inside = np.isin(axis.seen, indices, assume_unique=True)
    low, high = int(indices[0]), int(indices[-1])
    for k, words in ((high + 1, "first"), (axis.size - low, "last")):
        if np.array_equal(inside, axis.seen < k if words == "first" else axis.seen >= axis.size - k):
            yield Named(f"the {words} {k:,} of {axis.size:,} {axis.nouns}", size + _LONGER)
    if np.array_equal(inside, (axis.seen >= low) & (axis.seen <= high)):
        yield Named(f"{axis.nouns} {low:,} to {high:,}", 2 * size)
    yield from _borders(axis, inside)
    yield from _spaced(axis, indices, inside)


def _list(axis: Axis, indices: np.ndarray) -> Named:
    """Return the indices one by one; of many, their number and the first ones."""
    count = len(indices)
    if count == 1:
        return Named(_one(axis, int(indices[0])), math.log(axis.size))
    cost = math.log(axis.size) + log_choices(axis.size, count)
    numbers = [f"{index:,}" for index in indices[:_LISTED].tolist()]
    if count > _LISTED:
        return Named(f"{count:,} of {axis.size:,} {axis.nouns} ({', '.join(numbers[:3])}, ...)", cost)
    return Named(f"{axis.nouns} {', '.join(numbers[:-1])} and {numbers[-1]}", cost)


def _one(axis: Axis, index: int) -> str:
    """Return the words for one index."""
    end = {0: "first", axis.size - 1: "last"}.get(index)
    return f"the {end} {axis.noun}" if end and axis.is_spatial else f"{axis.noun} {index:,}"


def _borders(axis: Axis, inside: np.ndarray) -> Iterator[Named]:
    """Yield the indices at both ends, as many at one as at the other."""
    depth = np.minimum(axis.seen, axis.size - 1 - axis.seen)
    k = int(depth[inside].max()) + 1
    if axis.is_spatial and 2 * k < axis.size and np.array_equal(inside, depth < k) and len(set(axis.seen[inside])) > k:
        ends = f"the first and the last {axis.noun}"
        many = f"the first {k:,} and the last {k:,} of {axis.size:,} {axis.nouns}"
        yield Named(ends if k == 1 else many, math.log(axis.size) + _LONGER)


def _spaced(axis: Axis, indices: np.ndarray, inside: np.ndarray) -> Iterator[Named]:
    """Yield every k-th index: three of them show a rule, or two where k is 2."""
    k = int(np.gcd.reduce(np.diff(indices)))
    if k < 2 or (k > 2 and len(indices) < 3) or axis.size <= k + 1:
        return
    if not np.array_equal(inside, axis.seen % k == indices[0] % k):
        return
    start = int(indices[0] % k)
    words = f"every {_ORDINALS.get(k, f'{k:,}th')} {axis.noun}"
    yield Named(f"{words}, from {axis.noun} {start} on" if start else words, math.log(axis.size) + _LONGER)


def log_choices(size: int, count: int) -> float:
    """Return the logarithm of the number of sets of so many out of ``size``."""
    return math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
