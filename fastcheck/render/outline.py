"""The outline of a report on a console: its plain text, with verdicts in colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console
from rich.text import Text

from fastcheck.common.errors import shortened
from fastcheck.render.page import STYLES, is_limited
from fastcheck.reports.layout import WIDTH
from fastcheck.reports.outline import Outline

_TITLE = 40
"""Largest number of characters of a title."""

_WIDEST = 100
"""Largest width of sentences, in columns: longer lines are hard to read."""


More = Callable[[Console], None]
"""What prints more of a report, above the verdict that ends it."""


def nothing(out: Console) -> None:
    """Print no more."""


def width_of(out: Console) -> int:
    """Return the width in which sentences are wrapped: that of a terminal, and `WIDTH` where there is none."""
    return min(out.width, _WIDEST) if is_limited(out) else WIDTH


def short_title(title: str) -> str:
    """Return a title, such as a path, that leaves room for the verdict beside it."""
    return shortened(title, _TITLE)


def write_outline(outline: Outline, out: Console, title: str = "", more: More = nothing) -> None:
    """Print an outline: the verdict, what did not pass, what to try next, more where there is any, and the verdict."""
    width = width_of(out)
    write_lines((*outline.opening(width, short_title(title)), *outline.body(width)), out)
    more(out)
    write_lines(outline.end(width), out)


def write_lines(lines: Iterable[str], out: Console) -> None:
    """Print lines of an outline, with verdicts and opposite signs in colour."""
    for line in lines:
        text = Text(line)
        for verdict, style in STYLES.items():
            text.highlight_words([f"{verdict.upper()}:"], style)
        text.highlight_regex(r"  opposite( sign)?$", STYLES["fail"])
        out.print(text, soft_wrap=True)
