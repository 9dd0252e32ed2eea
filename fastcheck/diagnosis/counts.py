"""Numbers of a function's arrays by which a gradient may be divided or multiplied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np

ROOT = "the square root"
"""How the names of square roots begin."""

_MOST = 3
"""Largest number of names of one kind that one number is given."""

_KIND = len("the si")


def counts_of(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what a gradient may be divided by, in words: sizes of axes and arrays, and square roots of sizes of axes.

    Parameters
    ----------
    arrays : mapping of str to array
        By the names that the user knows.
    """
    names: dict[float, list[str]] = {}
    for words, value in [*_sizes(arrays), *_roots(arrays), *_products(arrays)]:
        some = names.setdefault(value, [])
        alike = sum(one.startswith(words[:_KIND]) for one in some)
        if alike < _MOST and (not some or words.startswith(("the size of", ROOT))):
            some.append(words)
    return {" or ".join(some): value for value, some in names.items()}


def _axes(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, int]]:
    for name, array in arrays.items():
        for axis, size in enumerate(array.shape):
            if size > 1:
                yield name, axis, size


def _sizes(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for name, axis, size in _axes(arrays):
        yield f"the size of axis {axis} of {name}", float(size)


def _roots(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for name, axis, size in _axes(arrays):
        yield f"{ROOT} of the size of axis {axis} of {name}", math.sqrt(size)


def _products(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of entries of arrays, and the products of two axes of those with more axes."""
    for name, array in arrays.items():
        if array.ndim > 1:
            yield f"the number of entries of {name}", float(array.size)
        if array.ndim > 2:
            for one, other in itertools.combinations(range(array.ndim), 2):
                product = array.shape[one] * array.shape[other]
                yield f"the sizes of axes {one} and {other} of {name}, multiplied", float(product)
