"""What every text shares: consoles, tables, and how numbers are written."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.common.naming import printable
from fastcheck.metrics.judged import Verdict

STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "error": "magenta"}

_WIDTH = 132
"""Columns of text that does not go to a terminal."""

_WIDE = 126
"""Columns that the tables need."""

Cell = str | Text
Gap = tuple[int, bool]
_GAPS: tuple[Gap, ...] = ((1, False), (1, True), (0, False))
"""Padding at the sides of cells, and whether neighbours share it: three, two or one columns between entries."""

_UNLIMITED = 10_000
"""Columns in which every table fits."""


def console(stream: IO[str]) -> Console:
    """Make a console on a stream: as wide as the terminal, or of a fixed width where there is none."""
    return Console(file=stream, **_options(stream))


def _options(stream: IO[str]) -> dict[str, Any]:
    width = None if stream.isatty() else _WIDTH
    return {"width": width, "highlight": False, "markup": False, "emoji": False}


class _Page(io.StringIO):
    """Text in memory for a stream of some encoding, which decides how tables are drawn."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def text_for(stream: IO[str], write: Callable[[Console], None]) -> str:
    """Return what ``write`` prints, as text that suits a stream."""
    page = _Page(getattr(stream, "encoding", None) or "utf-8")
    write(Console(file=page, force_terminal=stream.isatty(), **_options(stream)))
    return page.getvalue()


def printable_title(title: str) -> str:
    """Return a title that can be printed, the empty lines before it kept."""
    words = title.lstrip("\n")
    return title[: len(title) - len(words)] + printable(words)


def print_table(
    out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]], title: str = "", wide: int = _WIDE
) -> None:
    """Print a table, turned on its side where the terminal is too narrow for its columns.

    Columns are as far apart as fits, and where there is no terminal a table may be wider than others.
    """
    if title:
        out.print(title)
    room = out.width if out.is_terminal else _WIDE
    for gap in _GAPS:
        table = _table(headings, rows, gap)
        table.width = needed = _width(table, out)
        if needed <= room:
            break
    if out.width >= max(wide, needed) or not out.is_terminal:
        out.print(table, crop=False)
    else:
        _print_turned(out, tuple(heading.replace("\n", " ") for heading in headings), rows)


def _print_turned(out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> None:
    """Print rows as columns, as many beside each other as fit; a single one that does not is folded."""
    while rows:
        count = max(1, min(len(rows), (out.width - 12) // 18))
        while count > 1 and _width(_turned(headings, rows[:count]), out) > out.width:
            count -= 1
        table = _turned(headings, rows[:count])
        out.print(table if _width(table, out) <= out.width else _turned(headings, rows[:count], _GAPS[-1], fold=True))
        rows = rows[count:]


def _turned(headings: tuple[str, ...], rows: list[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False) -> Table:
    names, *lines = zip(headings, *rows, strict=True)
    return _table(names, lines, gap, fold)


def _width(table: Table, out: Console) -> int:
    """Return how many columns of text a table takes where it may."""
    return out.measure(table, options=out.options.update(max_width=_UNLIMITED)).maximum


def _table(
    headings: Sequence[Cell], rows: Sequence[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False
) -> Table:
    """Make a table whose first column is words and the others numbers."""
    padding, shared = gap
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding), collapse_padding=shared)
    for place, heading in enumerate(headings):
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(heading, justify=side, vertical="bottom", no_wrap=not fold, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def short(value: float) -> str:
    """Return a number in two significant digits."""
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def digits(value: float | None) -> str:
    """Return how many digits agree, or that none were to be compared."""
    return "-" if value is None else f"{value:z.1f}"
