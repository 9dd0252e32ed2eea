"""The outline of a report as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from fastcheck.common.naming import printable
from fastcheck.metrics.judged import Verdict
from fastcheck.reports.layout import HEADINGS, cells_of
from fastcheck.reports.outline import LISTED_CASES, TENSOR_HEADINGS, Outline

_COLOURS: dict[Verdict, str] = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700", "error": "#8250df"}


def html(outline: Outline) -> str:
    """Return the outline as HTML: the verdict, a table of the tensors or cases, and the worst dimensions."""
    page = Element("div")
    _write(page, outline)
    for sentence in outline.foot:
        SubElement(page, "div", style="opacity: 0.7").text = printable(sentence)
    return ElementTree.tostring(page, encoding="unicode", method="html")


def _write(page: Element, outline: Outline, name: str = "") -> None:
    _write_verdict(page, outline.verdict, outline.head, name)
    if outline.tensors:
        _write_table(page, TENSOR_HEADINGS, outline.tensors)
    for block in outline.blocks:
        _write_table(page, HEADINGS, cells_of(block.rows), block.title)
    if outline.cases:
        rows = [(case, one.verdict, one.gist) for case, one in outline.cases]
        _write_table(page, ("case", "verdict", ""), rows)
    for sentence in outline.notes:
        SubElement(page, "div").text = printable(sentence)
    for case, one in outline.cases[:LISTED_CASES]:
        if one.verdict != "pass":
            _write(page, one, case)


def _write_verdict(page: Element, verdict: Verdict, head: str, name: str) -> None:
    line = SubElement(page, "div")
    line.text = f"{printable(name)} " if name else ""
    word = SubElement(line, "b", style=f"color: {_COLOURS[verdict]}")
    word.text, word.tail = verdict.upper(), f": {printable(head)}"


def _write_table(page: Element, headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    table = SubElement(page, "table")
    if title:
        SubElement(table, "caption").text = printable(title)
    for tag, row in (("th", headings), *(("td", row) for row in rows)):
        line = SubElement(table, "tr")
        for cell in row:
            SubElement(line, tag).text = printable(cell)
