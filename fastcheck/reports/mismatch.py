"""The exception that reports a check which did not pass, and the base of the reports that raise it."""

from __future__ import annotations

from typing import Any

from fastcheck.metrics.judged import Judged
from fastcheck.reports.readable import Readable


class GradientMismatchError(AssertionError):
    """Raised where a check did not pass. The message is the report's short text; its first line names the tensors.

    Attributes
    ----------
    report : Report, NetworkReport or SuiteReport
        Report of the check.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.report)


GradientMismatchError.__module__ = "fastcheck"  # its public name, which tracebacks and summaries of tests print


class RaisesMismatch(Judged, Readable):
    """Base of reports that can raise."""

    def raise_if_failed(self) -> None:
        """Raise unless the check passed.

        Raises
        ------
        GradientMismatchError
            The exception carries the report.
        """
        __tracebackhide__ = True  # pytest's: the traceback ends at the caller's line
        if not self.passed:
            outline = self.outline()
            lines = [outline.gist, "", *outline.lines()]
            raise GradientMismatchError("\n".join(lines), self)
