"""A report of any kind, as text."""

from __future__ import annotations

from typing import IO

from rich.console import Console

from fastcheck.render.escape import escaped
from fastcheck.render.network import write_network
from fastcheck.render.outline import write_outline
from fastcheck.render.page import text_for
from fastcheck.render.report import write_report
from fastcheck.render.suite import write_suite
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport


def as_text(report: Report | SuiteReport, stream: IO[str], title: str = "", *, verbose: bool = False) -> str:
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
    """

    def write(out: Console) -> None:
        if not verbose:
            write_outline(report.outline(), out, title)
        elif isinstance(report, NetworkReport):
            write_network(escaped(report), out, title)
        elif isinstance(report, SuiteReport):
            write_suite(report, out, title)
        else:
            write_report(escaped(report), out, title)

    return text_for(stream, write)
