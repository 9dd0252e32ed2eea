"""Consoles, tables and number formats, shared by all text output."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.metrics.judged import Verdict

STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "error": "magenta"}

_WIDTH = 132
"""Width of text that goes neither to a terminal nor to a pipe whose width is in the environment variable COLUMNS."""

_WIDE = 126
"""Width that the tables need."""

Cell = str | Text
Gap = tuple[int, bool]
_GAPS: tuple[Gap, ...] = ((1, False), (1, True), (0, False))
"""Padding beside each cell, and whether neighbours share it: three, two or one columns between entries."""

_NAMES = 24
"""Least width to which names are folded."""

_UNLIMITED = 10_000
"""Width in which every table fits."""


def console(stream: IO[str]) -> Console:
    """Make a console on a stream, as wide as the terminal or as COLUMNS says, or of a fixed width."""
    return Console(file=stream, **_options(stream))


def _options(stream: IO[str]) -> dict[str, Any]:
    width = None if stream.isatty() else _declared_width() or _WIDTH
    return {"width": width, "highlight": False, "markup": False, "emoji": False}


def _declared_width() -> int:
    """Return the width in the environment variable COLUMNS; 0 where there is none."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() and len(columns) < len(str(_UNLIMITED)) else 0


def is_limited(out: Console) -> bool:
    """Return whether tables must not be wider than a console."""
    return out.is_terminal or _declared_width() > 0


class _Page(io.StringIO):
    """In-memory text for a stream with a given encoding, which decides how tables are drawn."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def text_for(stream: IO[str], write: Callable[[Console], None]) -> str:
    """Return the output of ``write`` as text that suits a stream."""
    page = _Page(getattr(stream, "encoding", None) or "utf-8")
    write(Console(file=page, force_terminal=stream.isatty(), **_options(stream)))
    return page.getvalue()


def print_table(
    out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]], title: str = "", wide: int = _WIDE
) -> None:
    """Print a table, transposed if the terminal is too narrow for its columns.

    Columns are spaced as widely as fits. Without a terminal, a table may exceed the usual width.
    """
    if title:
        out.print(title)
    limited = is_limited(out)
    room = out.width if limited else _WIDE
    for gap in _GAPS:
        table = _table(headings, rows, gap)
        table.width = needed = _width(table, out)
        if needed <= room:
            break
    if not limited or out.width >= max(wide, needed):
        out.print(table, crop=False)
    elif (names := out.width - (needed - _names_width(headings, rows))) >= _NAMES:
        _fold_names(table, names)
        out.print(table)
    else:
        _print_transposed(out, tuple(heading.replace("\n", " ") for heading in headings), rows)


def _names_width(headings: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> int:
    """Return the width of the first column, which holds names."""
    return max(max(map(len, str(cell).splitlines())) for cell in (headings[0], *(row[0] for row in rows)))


def _fold_names(table: Table, width: int) -> None:
    """Fold the names of a table to a width: a line more is easier to read than rows turned to columns."""
    names = table.columns[0]
    names.no_wrap, names.overflow, names.width, table.width = False, "fold", width, None


def _print_transposed(out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> None:
    """Print rows as columns, as many side by side as fit; a single one that does not fit is folded."""
    while rows:
        count = max(1, min(len(rows), (out.width - 12) // 18))
        while count > 1 and _width(_transpose(headings, rows[:count]), out) > out.width:
            count -= 1
        table = _transpose(headings, rows[:count])
        out.print(
            table if _width(table, out) <= out.width else _transpose(headings, rows[:count], _GAPS[-1], fold=True)
        )
        rows = rows[count:]


def _transpose(
    headings: tuple[str, ...], rows: list[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False
) -> Table:
    names, *lines = zip(headings, *rows, strict=True)
    return _table(names, lines, gap, fold)


def _width(table: Table, out: Console) -> int:
    """Return the natural width of a table."""
    return out.measure(table, options=out.options.update(max_width=_UNLIMITED)).maximum


def _table(
    headings: Sequence[Cell], rows: Sequence[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False
) -> Table:
    """Make a table whose first column holds words, and the others numbers."""
    padding, shared = gap
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding), collapse_padding=shared)
    for column, heading in enumerate(headings):
        side: Literal["left", "right"] = "right" if column else "left"
        table.add_column(heading, justify=side, vertical="bottom", no_wrap=not fold, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def digits(value: float | None) -> str:
    """Return the number of digits that agree; a dash if none were compared."""
    return "-" if value is None else f"{value:z.1f}"
