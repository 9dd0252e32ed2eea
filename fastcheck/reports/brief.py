"""A report in about ten lines, for the failure of a test: what is wrong, by how much, where, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastcheck.common.naming import brief as cut
from fastcheck.common.naming import printable
from fastcheck.reports import layout, wording
from fastcheck.reports.digit_map import digit_maps
from fastcheck.reports.facts import Facts
from fastcheck.reports.layout import Row, wrapped
from fastcheck.reports.outline import Outline
from fastcheck.reports.report import CheckReport, Report
from fastcheck.reports.suite_report import NetworkReport
from fastcheck.reports.tensor_report import Entry, TensorReport, worst_first

ROWS = (3, 2, 1)
"""Largest number of dimensions listed for a tensor, where one, two or three do not pass. Of more, three are listed."""

NOTES = 5
"""Largest number of lines of notes, but for the first note: what to try comes first."""

_NAME = 30
"""Largest number of characters of a tensor's name in a row."""

_MANY = 1e6
"""Numbers of bars from here on are powers of ten."""


def brief(report: CheckReport) -> list[str]:
    """Return the short text of a report, line by line.

    Where the wrong entries lie is known from a diagnosis, or where the check kept its per-dimension arrays.
    """
    if not isinstance(report, (Report, NetworkReport)):
        return report.outline().lines()
    facts = report.facts()
    outline = wording.of_tensors(facts)
    wrong = [(name, tensor) for name, tensor in worst_first(facts.tensors) if not tensor.passed][: len(ROWS)]
    rows = [row for name, tensor in wrong for row in _rows(name, tensor, len(wrong))]
    return [*outline.opening(), *layout.table(rows, layout.WIDTH), *_where(report, facts), *_notes(outline)]


def _rows(name: str, tensor: TensorReport, tensors: int) -> Iterator[Row]:
    """Yield the worst dimensions of one of so many tensors."""
    entries = [entry for entry in tensor.worst if entry.verdict != "pass"]
    for entry in entries[: ROWS[tensors - 1]]:
        row = entry.row()
        remarks = ", ".join(filter(None, (_apart(entry), row.remark)))
        yield row._replace(remark=remarks, name=cut(printable(name), _NAME) if tensors > 1 else "")


def _apart(entry: Entry) -> str:
    """Return how many error bars the two values of a wrong entry are apart; empty where that is no number."""
    if entry.verdict != "fail" or not entry.error_bar or not math.isfinite(entry.difference):
        return ""
    bars = abs(entry.difference) / entry.error_bar
    return f"{bars:.0e} bars" if bars >= _MANY else f"{bars:,.0f} bars" if bars >= 10 else f"{bars:.1f} bars"


def _where(report: Report | NetworkReport, facts: Facts) -> Iterator[str]:
    """Yield which entries of a tensor are wrong, where there are several and not all are."""
    maps = {one.name: one for one in digit_maps(facts.tensors, report.operands)}
    several = [pair for pair in worst_first(facts.tensors) if 1 < pair[1].beyond_error_bar < pair[1].dims_checked]
    for name, tensor in several[: len(ROWS)]:
        shape, _, _ = (tensor.diagnosis or {}).get("shape", "").partition("; ")  # its signs and factors may be long
        shape = shape or (maps[name].where if name in maps else "")
        yield from wrapped(f"where {name} is wrong: {shape}" if shape else "")


def _notes(outline: Outline) -> Iterator[str]:
    """Yield the lines of the first notes: all of each, since half a sentence says nothing."""
    room = NOTES
    for number, note in enumerate(note for note in outline.notes if not note.startswith("where")):  # said already
        lines = list(wrapped(note))
        room -= len(lines)
        if room < 0 and number:
            return
        yield from lines
