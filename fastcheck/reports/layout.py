"""Rows of numbers and wrapped sentences, as plain text."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastcheck.common.naming import printable

WIDTH = 80
"""Width of plain text, in columns."""

ROW_WIDTH = 60
"""Largest width of a row of numbers, in columns."""

HEADINGS = ("index", "analytic", "numeric", "off by", "")

_LEAST_DIGITS, _USUAL_DIGITS, _MOST_DIGITS = 3, 6, 17
"""Significant digits of a value: where a row would be too wide, usually, and where two values are nearly equal."""


class Row(NamedTuple):
    """One dimension of a tensor: its index, both values, a remark, and the tensor's name where several are listed."""

    at: tuple[int, ...]
    analytic: float
    numeric: float
    remark: str = ""
    name: str = ""

    @property
    def off_by(self) -> float:
        """|analytic - numeric|."""
        return abs(self.analytic - self.numeric)

    @property
    def telling_digits(self) -> int:
        """Number of significant digits that show two digits of the difference."""
        largest = max(abs(self.analytic), abs(self.numeric))
        if not 0 < self.off_by < math.inf or not largest < math.inf:
            return _USUAL_DIGITS
        return min(max(math.floor(math.log10(largest) - math.log10(self.off_by)) + 3, _USUAL_DIGITS), _MOST_DIGITS)


def table(rows: Sequence[Row], width: int = ROW_WIDTH) -> list[str]:
    """Return a heading and a line for each row, with as many digits and words as fit into so many columns."""
    if not rows:
        return []
    most = max(row.telling_digits for row in rows)
    for dense, count in itertools.product((False, True), range(most, _LEAST_DIGITS - 1, -1)):
        lines = _lines([_cells(row, count, dense) for row in rows])
        if max(map(len, lines)) <= width:
            break
    return lines


def cells_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the cells of each row, under `HEADINGS`."""
    return [_cells(row, row.telling_digits) for row in rows]


def _cells(row: Row, most: int, dense: bool = False) -> tuple[str, ...]:
    """Return a row's cells, with at most so many digits; dense ones have short indices and remarks."""
    count, space = min(row.telling_digits, most), "," if dense else ", "
    index = f"{row.name}[{space.join(map(str, row.at))}]"
    remark = row.remark.removesuffix(" sign") if dense else row.remark
    return index, f"{row.analytic:.{count}g}", f"{row.numeric:.{count}g}", f"{row.off_by:.3g}", remark


def _lines(cells: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        index, *numbers, remark = row
        aligned = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:-1], strict=True)]
        return "  ".join(["", f"{index:<{widths[0]}}", *aligned, remark]).rstrip()

    return [line(row) for row in (HEADINGS, *cells)]


def wrapped(text: str, width: int = WIDTH, indent: str = "  ") -> Iterator[str]:
    """Yield the lines of a text, made printable and wrapped between words; all but the first are indented."""
    yield from textwrap.wrap(printable(text), max(width, 20), subsequent_indent=indent, break_on_hyphens=False)


def short(value: float) -> str:
    """Return a number with two significant digits."""
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def joined(names: Sequence[str], most: int = 4) -> str:
    """Return names as a phrase: ``a, b and c``, or the first ones and the number of the others."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1:,} more"]
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
