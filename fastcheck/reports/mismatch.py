"""The exception of a check that did not pass."""

from __future__ import annotations

from typing import Any


class GradientMismatchError(AssertionError):
    """A check that did not pass.

    Attributes
    ----------
    report : Report or NetworkReport
        What the check found.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report
