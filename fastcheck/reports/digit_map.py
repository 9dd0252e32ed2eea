"""Where a tensor's digits are: its entries in bins over two axes, the worst entry of each bin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.metrics.tally import MOST_DIGITS, digits, relative_difference
from fastcheck.reports.axes import Plane, planes_of
from fastcheck.reports.tensor_report import Kept, TensorReport, worst_first

WRONG = -1.0
"""The level of an entry outside its error bar: below that of any number of digits."""

UNRESOLVED = MOST_DIGITS + 1.0
"""The level of an entry inside its error bar that is no larger than it, and so has no digits."""

_FEW = 3
"""Largest number of indices that are listed."""


class Binned(NamedTuple):
    """The levels of a tensor's entries over up to two axes.

    Attributes
    ----------
    levels : float64 array, shape (rows, columns)
        The lowest level in each bin, over all other axes; nan where no entry of the bin was checked.
    height, width : int
        Number of indices that a bin covers, downwards and across; the last bins may cover fewer.
    """

    levels: np.ndarray
    height: int
    width: int


def levels_of(kept: Kept) -> np.ndarray:
    """Return the level of each kept entry: `WRONG`, the digits that agree (0 to 16), or `UNRESOLVED`.

    Returns
    -------
    float64 array, shape (len(kept.dims),)
    """
    analytic, numeric = kept.analytic, kept.numeric
    with np.errstate(over="ignore", invalid="ignore"):
        larger = np.maximum(np.abs(analytic), np.abs(numeric))
        levels = digits(relative_difference(analytic, numeric))
        if kept.error_bar is None:
            return np.where(larger == 0, UNRESOLVED, levels)
        inside = (np.abs(analytic - numeric) <= kept.error_bar) & np.isfinite(larger)
        return np.where(inside, np.where(larger <= kept.error_bar, UNRESOLVED, levels), WRONG)


def binned(
    dims: np.ndarray, levels: np.ndarray, shape: Shape, plane: Plane, most_rows: int, most_columns: int
) -> Binned:
    """Put entries into equal bins over the axes of a plane, as few to a bin as fit; the worst decides each.

    Parameters
    ----------
    dims : int64 array
        Flat indices.
    levels : float64 array
        Of the same length; the lowest is the worst.
    shape : tuple of int
        Shape of the tensor.
    plane : Plane
    most_rows, most_columns : int
        Largest numbers of bins, at least 1.
    """
    height, width = -(-plane.rows // most_rows), -(-plane.columns // most_columns)
    rows, columns = -(-plane.rows // height), -(-plane.columns // width)
    places = [_index(dims, shape, axis) for axis in plane.axes]
    row = places[0] // height if len(places) == 2 else 0
    column = places[-1] // width if places else np.zeros(len(dims), dtype=np.int64)
    worst = np.full(rows * columns, np.nan)
    np.fmin.at(worst, row * columns + column, levels)
    return Binned(worst.reshape(rows, columns), height, width)


def _index(dims: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    """Return the indices along one axis of flat indices."""
    return dims // math.prod(shape[axis + 1 :]) % shape[axis]


@dataclass(frozen=True)
class DigitMap:
    """The levels of a tensor's checked entries, and the planes that show them.

    Attributes
    ----------
    name : str
        Name of the tensor.
    shape : tuple of int
    planes : tuple of Plane
    dims, levels : arrays
        Flat indices and levels of the checked entries.
    """

    name: str
    shape: Shape
    planes: tuple[Plane, ...]
    dims: np.ndarray
    levels: np.ndarray

    def binned(self, plane: Plane, most_rows: int, most_columns: int) -> Binned:
        """Return the levels over a plane, in at most so many bins."""
        return binned(self.dims, self.levels, self.shape, plane, most_rows, most_columns)

    @property
    def words(self) -> str:
        """How many entries are wrong, and where; bins that cover several indices cannot show a rule among these."""
        wrong = self.dims[self.levels == WRONG]
        if len(wrong):
            where = self.where
            return f"{len(wrong):,} of {len(self.dims):,} wrong" + f", all in {where}" * bool(where)
        fewest = self.levels.min(initial=UNRESOLVED)
        return f"at least {fewest:.1f} digits" if fewest < UNRESOLVED else "no digits"

    @property
    def where(self) -> str:
        """What all wrong entries share that not all checked ones do, axis by axis; empty where that is nothing."""
        return ", ".join(self._where(self.dims[self.levels == WRONG]))

    def _where(self, wrong: np.ndarray) -> Iterator[str]:
        """Yield where these entries lie along each axis, if there is a rule and entries elsewhere were checked."""
        for plane in self.planes:
            for axis, name in zip(plane.axes, plane.names, strict=True):
                found, checked = (_indices(dims, self.shape, axis) for dims in (wrong, self.dims))
                if len(found) < len(checked) and (words := _listed(found)):
                    yield f"{_plural(name, len(found))} {words}"


def _indices(dims: np.ndarray, shape: Shape, axis: int) -> list[int]:
    """Return the different indices along one axis, in ascending order."""
    return np.flatnonzero(np.bincount(_index(dims, shape, axis), minlength=shape[axis])).tolist()


def _plural(name: str, count: int) -> str:
    """Return the name of an axis as it stands before indices along it."""
    return f"{name} at" if name.startswith("axis ") else f"{name}{'s' * (count > 1)}"


def _listed(indices: Sequence[int]) -> str:
    """Return a few indices, or evenly spaced ones, in words; empty where they are neither."""
    if len(indices) == 1:
        return str(indices[0])
    steps = {after - before for before, after in pairwise(indices)}
    if steps == {1}:
        return f"{indices[0]} to {indices[-1]}" if len(indices) > 2 else f"{indices[0]} and {indices[1]}"
    if len(indices) <= _FEW:
        return f"{', '.join(map(str, indices[:-1]))} and {indices[-1]}"
    return f"{indices[0]}, {indices[1]}, ... {indices[-1]}" if len(steps) == 1 else ""


def digit_maps(tensors: Mapping[str, TensorReport], operands: Mapping[str, Any] | None) -> list[DigitMap]:
    """Return the maps of the tensors whose per-dimension arrays were kept, the worst tensor first."""
    return [
        DigitMap(name, one.shape, planes_of(name, one.shape, operands), one.kept.dims, levels_of(one.kept))
        for name, one in worst_first(tensors)
        if one.kept is not None
    ]
