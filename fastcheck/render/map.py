"""Where the digits are, as coloured blocks on a console: in pipes, as the characters that these hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from fastcheck.render.page import is_limited
from fastcheck.reports.axes import Plane
from fastcheck.reports.digit_map import UNRESOLVED, WRONG, DigitMap
from fastcheck.reports.layout import WIDTH, wrapped

MOST_ROWS = 32
"""Largest number of lines of a picture."""

_COLOURS = ("#fde725", "#a0da39", "#4ac16d", "#1fa187", "#277f8e")
"""Colours of two digits each, from few to many: those of the figure, viridis."""

_GAP, _INDENT = 3, 2


class _Marks(NamedTuple):
    """The characters of a wrong entry and of an unresolved one."""

    wrong: str
    unresolved: str


_UTF, _ASCII = _Marks("█", "·"), _Marks("#", ".")


class _Picture(NamedTuple):
    """A picture's lines, and its width in columns."""

    lines: list[Text]
    width: int


def write_maps(maps: Sequence[DigitMap], out: Console, where: str = "") -> None:
    """Print where the digits are: the pictures of each tensor, as many side by side as fit, and a legend.

    Parameters
    ----------
    maps : sequence of DigitMap
    out : Console
    where : str
        What was checked, where the heading has to say it.
    """
    if not maps:
        return
    width = out.width if is_limited(out) else WIDTH
    marks = _ASCII if out.options.ascii_only else _UTF
    heading = f"where the digits are{f' ({where})' * bool(where)}: a cell shows the worst of its entries"
    lines = [Text(line) for line in wrapped(heading, width)]
    for one in maps:
        lines += [Text(line, style="bold") for line in wrapped(f"{one.name}: {one.words}", width)]
        for shelf in _shelves([_picture(one, plane, width - _INDENT, marks) for plane in one.planes], width):
            lines += _beside(shelf)
    for line in (*lines, *_legend(width, marks)):
        if out.color_system is None:
            line.rstrip()
        out.print(line, no_wrap=True, overflow="crop")


def _shelves(pictures: Sequence[_Picture], width: int) -> Iterator[list[_Picture]]:
    """Yield pictures that fit side by side."""
    shelf: list[_Picture] = []
    for picture in pictures:
        if shelf and sum(one.width + _GAP for one in shelf) + picture.width + _INDENT > width:
            yield shelf
            shelf = []
        shelf.append(picture)
    yield shelf


def _beside(pictures: Sequence[_Picture]) -> Iterator[Text]:
    """Yield the lines of pictures that stand side by side."""
    for number in range(max(len(picture.lines) for picture in pictures)):
        line = Text(" " * _INDENT)
        for picture in pictures:
            own = picture.lines[number] if number < len(picture.lines) else Text()
            line.append_text(own).append(" " * (picture.width + _GAP - own.cell_len))
        line.right_crop(_GAP)
        yield line


def _picture(one: DigitMap, plane: Plane, width: int, marks: _Marks) -> _Picture:
    """Return the picture of a plane: a title, the indices across, and rows of cells; cells have two columns or one."""
    margin = len(str(plane.rows - 1)) + 1 if len(plane.axes) == 2 else 0
    room = max(width - margin, 1)
    found = one.binned(plane, MOST_ROWS, room)
    across = 2 if 2 * found.levels.shape[1] <= room else 1
    bins = f", bins of {found.height} x {found.width}" if max(found.height, found.width) > 1 else ""
    lines = [Text(line, style="dim") for line in wrapped(f"{plane.title}{bins}", width, "")]
    lines.append(Text(" " * margin + _ruler(found.levels.shape[1], found.width, across), style="dim"))
    for row, levels in enumerate(found.levels):
        line = Text.assemble((f"{row * found.height:>{margin - 1}} " if margin else "", "dim"))
        for level in levels.tolist():
            line.append_text(_cell(level, across, marks))
        lines.append(line)
    return _Picture(lines, max(line.cell_len for line in lines))


def _ruler(cells: int, each: int, across: int) -> str:
    """Return the first indices of some cells, evenly spaced, above these cells."""
    longest = len(str((cells - 1) * each))
    steps = (one * 10**power for power, one in product(range(19), (1, 2, 5)))
    step = next(step for step in steps if step * across > longest)
    labels = ((cell * across, str(cell * each)) for cell in range(0, cells, step))
    return "".join(f"{label:<{step * across}}" for at, label in labels if at + len(label) <= cells * across).rstrip()


def _cell(level: float, across: int, marks: _Marks) -> Text:
    if math.isnan(level):
        return Text(" " * across)
    if level == WRONG:
        return Text(marks.wrong * across, style="red on red")
    if level == UNRESOLVED:
        return Text(f"{marks.unresolved:<{across}}", style="dim")
    count = min(int(level), 9)
    return Text(f"{count:<{across}}", style=f"black on {_COLOURS[count // 2]}")


def _legend(width: int, marks: _Marks) -> Iterator[Text]:
    """Yield the meaning of every mark, as many to a line as fit."""
    digits = Text.assemble(*(_cell(count, 1, marks) for count in range(10)), " digits agree (9: 9+)")
    entries = [
        Text.assemble(_cell(WRONG, 2, marks), " wrong"),
        digits,
        Text.assemble(_cell(UNRESOLVED, 1, marks), " unresolved"),
        Text("blank: not checked"),
    ]
    line = Text()
    for entry in entries:
        if line and line.cell_len + _GAP + entry.cell_len > width:
            yield line
            line = Text()
        line.append_text(Text(" " * _GAP * bool(line))).append_text(entry)
    yield line
