"""Any report as text."""

from __future__ import annotations

from typing import IO

from rich.console import Console

from fastcheck.render.escape import harmless
from fastcheck.render.network import write_network
from fastcheck.render.page import printable_title, text_for
from fastcheck.render.report import write_report
from fastcheck.render.suite import write_suite
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport


def as_text(report: Report | SuiteReport, stream: IO[str], title: str = "") -> str:
    """Return a report as the text that suits a stream: coloured and of its width on a terminal, plain elsewhere.

    Rich itself ends the process where a reader stops reading, so that nothing is printed from here.
    """

    def write(out: Console) -> None:
        if isinstance(report, NetworkReport):
            write_network(harmless(report), out, printable_title(title))
        elif isinstance(report, SuiteReport):
            write_suite(report, out, title)
        else:
            write_report(harmless(report), out, printable_title(title))

    return text_for(stream, write)
