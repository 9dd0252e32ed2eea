"""The exceptions that fastcheck raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcheck.network_report import NetworkReport
    from fastcheck.report import Report


class FastcheckError(ValueError):
    """Bad input, told in one line: the argument, what it was and what was expected."""


class GradientMismatchError(AssertionError):
    """A check that did not pass.

    Attributes
    ----------
    report : Report
        The report of that check.
    """

    def __init__(self, message: str, report: Report | NetworkReport) -> None:
        super().__init__(message)
        self.report = report


def told(error: BaseException) -> str:
    """Return an error in a line."""
    kind = "" if isinstance(error, FastcheckError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())
