"""A report of any kind, as text."""

from __future__ import annotations

from typing import IO

from rich.console import Console

from fastcheck.render.escape import escaped
from fastcheck.render.map import write_maps
from fastcheck.render.network import write_network
from fastcheck.render.outline import write_outline
from fastcheck.render.page import text_for
from fastcheck.render.report import write_report
from fastcheck.render.suite import write_suite
from fastcheck.reports.digit_map import digit_maps
from fastcheck.reports.readable import Plottable
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport


def as_text(
    report: Report | SuiteReport, stream: IO[str], title: str = "", *, verbose: bool = False, mapped: bool = False
) -> str:
    """Return a report as text that suits a stream: in colour and as wide as a terminal, and plain elsewhere.

    The caller prints the text: Rich would end the process if a reader stops reading.

    Parameters
    ----------
    report : Report or SuiteReport
    stream : text stream
    title : str
        Text before the first verdict.
    verbose : bool
        Whether to print all that the report has, instead of its outline.
    mapped : bool
        Whether to print where the digits are, if the report kept its per-dimension arrays.
    """

    def more(out: Console) -> None:
        if mapped and isinstance(report, Plottable):
            write_maps(digit_maps(report.tensors, report.operands), out, _phase(report))

    def write(out: Console) -> None:
        if not verbose:
            write_outline(report.outline(), out, title, more)
        elif isinstance(report, NetworkReport):
            write_network(escaped(report), out, title, more)
        elif isinstance(report, SuiteReport):
            write_suite(report, out, title)
        else:
            write_report(escaped(report), out, title, more)

    return text_for(stream, write)


def _phase(report: Plottable) -> str:
    """Return the phase whose tensors are mapped, where there are several."""
    return list(report.phases)[-1] if isinstance(report, NetworkReport) and len(report.phases) > 1 else ""
