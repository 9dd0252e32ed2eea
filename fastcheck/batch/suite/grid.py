"""The grid of a case: its axes, and every combination of their values with its name."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from fastcheck.batch.suite.keys import Given, Key, Values
from fastcheck.common.naming import shown
from fastcheck.common.toml import Refused, TomlPath, refuse_unknown

GRID = "grid"

SAME_DATA = ("dtype", "backward")
"""Keys that say how gradients are computed: cases that differ in these alone have the same data."""


class GridPoint(NamedTuple):
    """A value on an axis, and how names have it: ``stride=2``."""

    key: str
    given: Given
    label: str


Axis = tuple[GridPoint, ...]


class Combination(NamedTuple):
    """One value of every axis.

    Attributes
    ----------
    name : str
        Their labels in the order of the file, with commas between them.
    data : str
        The same without those of `SAME_DATA`.
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
        Of keys and non-empty arrays.
    keys : mapping
        What this case may have.
    taken : collection of str
        What it has itself.
    elsewhere : mapping
        What a refusal tells of other keys.

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
        GridPoint(key, known.given((*where, place), f"{GRID}.{key}[{place}]", value), f"{key}={label(value)}")
        for place, value in enumerate(values)
    )


def label(value: Any, between: str = "x") -> str:
    """Return a value as a name has it: ``3x3``, ``0:1x2`` for paddings, ``weight+bias``."""
    if isinstance(value, list):
        mark = "+" if any(isinstance(entry, str) for entry in value) else between
        return mark.join(label(entry, ":") for entry in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def combinations(found: Collection[Axis]) -> Iterator[Combination]:
    """Yield the product of axes, the last one fastest; without any, one combination of nothing."""
    for points in itertools.product(*found):
        yield Combination(
            ",".join(point.label for point in points),
            ",".join(point.label for point in points if point.key not in SAME_DATA),
            {point.key: point.given for point in points},
        )
