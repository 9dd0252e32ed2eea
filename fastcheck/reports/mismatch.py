"""The exception that reports a check which did not pass."""

from __future__ import annotations

from typing import Any


class GradientMismatchError(AssertionError):
    """Raised where a check did not pass.

    Attributes
    ----------
    report : Report or NetworkReport
        Report of the check.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report
