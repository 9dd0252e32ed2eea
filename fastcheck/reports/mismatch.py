"""The exception that reports a check which did not pass, and the base of the reports that raise it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcheck.metrics.judged import Judged


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


class RaisesMismatch(Judged):
    """Base of reports that can raise."""

    if TYPE_CHECKING:

        def summary(self) -> str: ...

    def raise_if_failed(self) -> None:
        """Raise unless the check passed.

        Raises
        ------
        GradientMismatchError
            The exception carries the report.
        """
        if not self.passed:
            raise GradientMismatchError(self.summary(), self)
