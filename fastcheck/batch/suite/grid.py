"""The grid of a case: its axes, and all named combinations of their values."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from fastcheck.batch.suite.keys import Given, Key, Values
from fastcheck.common.naming import shown
from fastcheck.common.toml import Refused, TomlPath, refuse_unknown

GRID = "grid"

SAME_DATA = ("dtype", "backward")
"""Keys for how gradients are computed; cases that differ only in these have the same data."""


class GridPoint(NamedTuple):
    """A value on an axis, and its label in names: ``stride=2``."""

    key: str
    given: Given
    label: str


Axis = tuple[GridPoint, ...]


class Combination(NamedTuple):
    """One value of every axis.

    Attributes
    ----------
    name : str
        Comma-separated labels, in the order of the file.
    data : str
        The same without the keys in `SAME_DATA`.
    values : mapping
    """

    name: str
    data: str
    values: Values


def axes(
    where: TomlPath, table: Any, keys: Mapping[str, Key], taken: Collection[str], elsewhere: Mapping[str, str]
) -> tuple[Axis, ...]:
    """Check the grid of a case.

    Parameters
    ----------
    where : TomlPath
    table : object
        A table of keys and non-empty arrays.
    keys : mapping
        Keys that the case may have.
    taken : collection of str
        Keys that the case itself has.
    elsewhere : mapping
        Hints for refusing keys that belong elsewhere.

    Raises
    ------
    Refused
    """
    if not isinstance(table, dict):
        raise Refused(where, f"{GRID} is {shown(table)}: expected a table of arrays")
    refuse_unknown(where, GRID, table, tuple(keys), elsewhere)
    for key in table:
        if key in taken:
            raise Refused((*where, key), f"{GRID} has the key {key!r}, which the case has too: expected one of them")
    return tuple(_axis((*where, key), key, values, keys[key]) for key, values in table.items())


def _axis(where: TomlPath, key: str, values: Any, known: Key) -> Axis:
    if not isinstance(values, list) or not values:
        raise Refused(where, f"{GRID}.{key} is {shown(values)}: expected an array of at least one value")
    return tuple(
        GridPoint(key, known.given((*where, number), f"{GRID}.{key}[{number}]", value), f"{key}={label(value)}")
        for number, value in enumerate(values)
    )


def label(value: Any, between: str = "x") -> str:
    """Return the label of a value: ``3x3``, ``0:1x2`` for paddings, ``weight+bias``."""
    if isinstance(value, list):
        mark = "+" if any(isinstance(entry, str) for entry in value) else between
        return mark.join(label(entry, ":") for entry in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def combinations(grid: Collection[Axis]) -> Iterator[Combination]:
    """Yield the product of axes, the last varying fastest; without axes, one empty combination."""
    for points in itertools.product(*grid):
        yield Combination(
            ",".join(point.label for point in points),
            ",".join(point.label for point in points if point.key not in SAME_DATA),
            {point.key: point.given for point in points},
        )
