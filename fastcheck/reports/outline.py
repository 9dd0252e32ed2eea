"""The outline of a report: what a person reads first, the same in terminals, logs, exceptions and notebooks.

It begins and ends with the verdict. Between the two stand the tensors that did not pass, the worst first, with a few
dimensions each, and what to try next. Everything else is in the long text of `fastcheck.render`, and in the JSON.
`fastcheck.reports.wording` makes outlines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fastcheck.metrics.judged import Verdict
from fastcheck.reports import layout
from fastcheck.reports.layout import Row, wrapped

ROWS = (8, 5, 4)
"""Largest number of dimensions listed for a tensor, where one, two or three do not pass. Of more, three are listed."""

LISTED_CASES, ROWS_OF_CASE = 5, 3
"""Largest number of cases whose dimensions are listed (of others, the verdict is), and of dimensions of a tensor."""

TENSOR_HEADINGS = ("tensor", "verdict", "checked", "wrong", "norm ratio", "fewest digits")

_NAME = 30
"""Largest width to which names of cases are aligned."""


class Block(NamedTuple):
    """A tensor's title (empty where it is the only one) and some of its dimensions."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Outline:
    """What a report says, in short.

    Attributes
    ----------
    verdict : Verdict
    gist, head : str
        The verdict's reasons: as short as possible, and as the first line.
    blocks : tuple of Block
        Tensors that did not pass.
    notes, foot : tuple of str
        Sentences below them, on what was found and on what it took.
    cases : tuple of pairs of str and Outline
        Names and outlines of several checks.
    lead : str
        A sentence right below the first line; empty where there is none.
    tensors : tuple of tuples of str
        Cells of all tensors, under `TENSOR_HEADINGS`.
    """

    verdict: Verdict
    gist: str
    head: str
    blocks: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()
    foot: tuple[str, ...] = ()
    cases: tuple[tuple[str, Outline], ...] = ()
    lead: str = ""
    tensors: tuple[tuple[str, ...], ...] = ()

    @property
    def closing(self) -> str:
        """The verdict and its reasons, as short as possible."""
        return f"{self.verdict.upper()}: {self.gist}"

    def lines(self, width: int = layout.WIDTH, title: str = "") -> list[str]:
        """Return the text, line by line.

        Parameters
        ----------
        width : int
            Number of columns in which sentences are wrapped.
        title : str
            Text before the first verdict.
        """
        return [*self.opening(width, title), *self.body(width), *self.end(width)]

    def opening(self, width: int = layout.WIDTH, title: str = "") -> Iterator[str]:
        """Yield the lines of the verdict and its reasons."""
        before = f"{title}   " if title else ""
        yield from wrapped(f"{before}{self.verdict.upper()}: {self.head}", width)
        yield from wrapped(self.lead, width)

    def body(self, width: int = layout.WIDTH, rows: int = ROWS[0]) -> Iterator[str]:
        """Yield the lines on tensors and cases, with at most so many dimensions of each tensor, and the notes."""
        for block in self.blocks:
            if block.title:
                yield from wrapped(block.title, width)
            yield from layout.table(block.rows[:rows])
        longest = max((len(name) for name, _ in self.cases), default=0)
        for number, (name, case) in enumerate(self.cases):
            label = f"{name:<{min(longest, _NAME)}}"
            if case.verdict == "pass" or number >= LISTED_CASES:
                yield from wrapped(f"{label}   {case.closing}", width)
            else:
                yield from case.opening(width, label)
                yield from case.body(width, ROWS_OF_CASE)
        yield from self.sentences(width)

    def sentences(self, width: int = layout.WIDTH) -> Iterator[str]:
        """Yield the lines of the notes."""
        for note in self.notes:
            yield from wrapped(note, width)

    def end(self, width: int = layout.WIDTH) -> Iterator[str]:
        """Yield the lines on the check's cost, and the verdict again."""
        for sentence in (*self.foot, self.closing):
            yield from wrapped(sentence, width)
