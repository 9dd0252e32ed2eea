"""One case of a suite: check its table, count its entries, and expand it into them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastcheck.batch.suite.entries import Entry
from fastcheck.batch.suite.folder import Folder
from fastcheck.batch.suite.grid import GRID, Axis, axes, combinations
from fastcheck.batch.suite.keys import NAME, Given, Key, Values
from fastcheck.batch.suite.kinds import KINDS, Expanded, Kind
from fastcheck.common.naming import nearest, shown
from fastcheck.common.toml import Refused, TomlPath, choices, refuse_unknown

CASE = "case"


@dataclass(frozen=True)
class CaseTable:
    """A ``[[case]]`` with its defaults.

    Build it with `CaseTable.of`, which checks it.

    Attributes
    ----------
    where : TomlPath
    name : str
        Its ``name``, or the one derived by its kind.
    kind : Kind
    values : mapping
        Its own values; where it has none, the defaults that its kind knows.
    axes : tuple of Axis
        The axes of its grid.
    folder : Folder
    """

    where: TomlPath
    name: str
    kind: Kind
    values: Values
    axes: tuple[Axis, ...]
    folder: Folder

    @classmethod
    def of(cls, position: int, table: dict[str, Any], defaults: Values, folder: Folder) -> CaseTable:
        """Check a case's table.

        Raises
        ------
        Refused
        """
        where: TomlPath = (CASE, position)
        word = _kind_of(where, table)
        kind, elsewhere = KINDS[word], _elsewhere(word)
        refuse_unknown(where, f"this {word} case", table, ("name", word, *kind.keys, GRID), elsewhere)
        given = {**_own(where, word, kind, table[word]), **_given(where, table, kind.keys)}
        known = {**kind.table, **kind.keys}
        grid = axes((*where, GRID), table[GRID], known, given, {**elsewhere, **_alone(word)}) if GRID in table else ()
        kind.needs(where, {*given, *(axis[0].key for axis in grid)})
        return cls(where, _name(where, word, kind, table), kind, {**_applying(defaults, kind), **given}, grid, folder)

    def count(self) -> int:
        """Return the number of entries, without making them."""
        sizing = [axis for axis in self.axes if axis[0].key in self.kind.sizing]
        others = math.prod(len(axis) for axis in self.axes if axis not in sizing)
        return others * sum(self.kind.size({**self.values, **one.values}) for one in combinations(sizing))

    def entries(self) -> Iterator[Entry]:
        """Yield its entries, in the order of the grid."""
        for one in combinations(self.axes):
            name, data = (f"{self.name}/{label}" if label else self.name for label in (one.name, one.data))
            yield from self.kind.entries(Expanded(name, data, self.where, {**self.values, **one.values}, self.folder))


def _kind_of(where: TomlPath, table: dict[str, Any]) -> str:
    expected = f"expected one of the keys {', '.join(KINDS)}"
    words = [key for key in table if key in KINDS]
    if len(words) > 1:
        raise Refused((*where, words[1]), f"case has {words[0]} and {words[1]}: {expected}")
    if words:
        return words[0]
    known = {"name", GRID, *(key for kind in KINDS.values() for key in kind.keys)}
    for key in table:
        if key not in known and nearest(key, KINDS):
            raise Refused((*where, key), f"case has the unknown key {shown(key)}{nearest(key, KINDS)}: {expected}")
    raise Refused(where, f"case has no kind: {expected}")


def _elsewhere(word: str) -> dict[str, str]:
    """Return hints for refusing keys that belong to cases of other kinds, or in the table of this kind."""
    kinds: dict[str, list[str]] = {}
    for other, kind in KINDS.items():
        for key in kind.keys:
            kinds.setdefault(key, []).append(other)
    hints = {key: f": {' and '.join(others)} cases have it" for key, others in kinds.items()}
    return {**hints, **dict.fromkeys(KINDS[word].table, f": it belongs in {word} = {{...}}")}


def _alone(word: str) -> dict[str, str]:
    """Return hints for refusing keys in a grid that belong in its case."""
    return dict.fromkeys(("name", word), ": it belongs in the case itself")


def _own(where: TomlPath, word: str, kind: Kind, value: Any) -> dict[str, Given]:
    """Check the value or the table of the key that names the kind."""
    if kind.own is not None:
        return {word: kind.own.given((*where, word), word, value)}
    if not isinstance(value, dict):
        raise Refused((*where, word), f"{word} is {shown(value)}: expected a table of {', '.join(kind.table)}")
    beside = dict.fromkeys(("name", GRID, *kind.keys), f": it belongs in the case, beside {word}")
    refuse_unknown((*where, word), word, value, tuple(kind.table), beside)
    return _given((*where, word), value, kind.table)


def _given(where: TomlPath, table: dict[str, Any], keys: Mapping[str, Key]) -> dict[str, Given]:
    return {key: keys[key].given((*where, key), key, value) for key, value in table.items() if key in keys}


def _name(where: TomlPath, word: str, kind: Kind, table: dict[str, Any]) -> str:
    name: str
    if "name" in table:
        name = NAME.given((*where, "name"), "name", table["name"]).value
    elif kind.named is None:
        raise Refused(where, f"this {word} case has no key 'name': expected a string")
    else:
        name = kind.named(table[word])
    return name


def _applying(defaults: Values, kind: Kind) -> Values:
    """Return the defaults whose key and value a kind knows: networks have other evaluators than convolutions."""

    def known(key: str, value: Any) -> bool:
        words = choices(kind.keys[key].kind) if isinstance(value, str) else ()
        return not words or value in words

    return {key: given for key, given in defaults.items() if key in kind.keys and known(key, given.value)}
