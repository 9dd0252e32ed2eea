"""Read suites from TOML files: check every value, expand grids and published networks, and give the line of errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastcheck.batch.suite.case import CASE, CaseTable
from fastcheck.batch.suite.entries import MOST_CASES, Entry, Suite
from fastcheck.batch.suite.folder import Folder
from fastcheck.batch.suite.grid import GRID
from fastcheck.batch.suite.keys import DEFAULTS, DEFAULTS_TABLE, NAME, Values
from fastcheck.batch.suite.kinds import KINDS, LONGEST_NAME
from fastcheck.common.naming import shown
from fastcheck.common.toml import Document, Refused, TomlPath, read, refuse_unknown, tables


def read_suite(path: str | os.PathLike[str], *, allow_outside: bool = False, most: int | None = MOST_CASES) -> Suite:
    """Read a suite of cases from a TOML file.

    Parameters
    ----------
    path : path
        A ``[[case]]`` table for each case, preceded by an optional ``name`` and optional ``[defaults]``. A case has
        one key of `fastcheck.batch.suite.kinds.KINDS`, which gives its kind, and further keys of that kind;
        ``[defaults]`` apply to all cases whose kind knows the key. A case with a ``grid``, a table of keys and arrays,
        stands for every combination of their values, the last key varying fastest: ``NAME/stride=1,groups=4``. Paths
        are relative to the suite's folder.
    allow_outside : bool
        Whether paths may leave that folder.
    most : int, optional
        Largest number of cases after expansion; None for no limit.

    Returns
    -------
    Suite
        A convolution's data depend on its name without the grid's ``dtype=`` and ``backward=``, so that cases that
        differ only in these have the same data. The layers of published networks have the data of ``fastcheck zoo``.

    Raises
    ------
    FastcheckError
        If the file cannot be read, is not TOML, or is not a valid suite; the message gives the line, the key, its
        value and what was expected.
    """
    return read(path, partial(_suite, path=Path(path), allow_outside=allow_outside, most=most))


def _suite(document: Document, path: Path, allow_outside: bool, most: int | None) -> Suite:
    refuse_unknown((), "the suite", document.data, ("name", DEFAULTS_TABLE, CASE), _elsewhere())
    stem = os.fsencode(path.stem).decode("utf-8", "replace")
    name = NAME.given(("name",), "name", document.data.get("name", stem)).value
    defaults, folder = _defaults(document.data.get(DEFAULTS_TABLE, {})), Folder(path.parent, allow_outside)
    cases = [CaseTable.of(number, table, defaults, folder) for number, table in enumerate(tables(document.data, CASE))]
    _refuse_many(cases, most)
    return Suite(name, document.text, _entries(cases, document))


def _elsewhere() -> dict[str, str]:
    """Return hints for refusing keys at the top of the file that belong in a table."""
    words = (key for word, kind in KINDS.items() for key in (word, *kind.keys))
    hints = {**dict.fromkeys(words, ": it belongs in a [[case]]"), GRID: ": it belongs in a [[case]]"}
    return {**hints, **dict.fromkeys(DEFAULTS, f": it belongs in [{DEFAULTS_TABLE}] or a [[case]]")}


def _defaults(table: Any) -> Values:
    where: TomlPath = (DEFAULTS_TABLE,)
    if not isinstance(table, dict):
        raise Refused(where, f"{DEFAULTS_TABLE} is {shown(table)}: expected a table of {', '.join(DEFAULTS)}")
    refuse_unknown(where, DEFAULTS_TABLE, table, tuple(DEFAULTS), _elsewhere())
    return {key: DEFAULTS[key].given((*where, key), key, value) for key, value in table.items()}


def _refuse_many(cases: Sequence[CaseTable], most: int | None) -> None:
    counts = [case.count() for case in cases]
    if most is not None and sum(counts) > most:
        largest = max(range(len(cases)), key=counts.__getitem__)
        message = f"it has {sum(counts):,} cases once expanded, {counts[largest]:,} of them from this one"
        raise Refused((*cases[largest].where, GRID), f"{message}: expected at most {most:,} (--yes allows more)")


def _entries(cases: Sequence[CaseTable], document: Document) -> tuple[Entry, ...]:
    """Expand all cases, and refuse duplicate names."""
    named: dict[str, tuple[Entry, TomlPath]] = {}
    for case in cases:
        for entry in case.entries():
            if entry.name in named:
                message = f"two cases have the name {shown(entry.name, LONGEST_NAME)}"
                first = document.line(named[entry.name][1])
                raise Refused(case.where, f"{message}, the first on line {first}: expected distinct names")
            named[entry.name] = entry, case.where
    return tuple(entry for entry, _ in named.values())
