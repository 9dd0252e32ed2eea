"""Verdicts, their exit codes, and the base of everything that has a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

Verdict = Literal["pass", "fail", "inconclusive", "error"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "error": 3}
"""The exit code of the command line, by verdict."""

_BY_WEIGHT: tuple[Verdict, ...] = ("fail", "error", "inconclusive", "pass")


class Judged:
    """Base of what has a verdict. It is true if that is "pass", so ``assert fastcheck.check(case)`` works in a test."""

    if TYPE_CHECKING:

        @property
        def verdict(self) -> Verdict | None: ...

    @property
    def passed(self) -> bool:
        """Whether the verdict is "pass"."""
        return self.verdict == "pass"

    def __bool__(self) -> bool:
        return self.passed


@dataclass(frozen=True)
class Judgement(Judged):
    """A verdict, its reason, and what to try next (empty where there is nothing to do)."""

    verdict: Verdict
    reason: str
    advice: str = ""


def weight(verdict: Verdict) -> int:
    """Return the place of a verdict among all, the one that decides first."""
    return _BY_WEIGHT.index(verdict)


def heaviest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that decides among several; "inconclusive" where there is none."""
    present = set(verdicts)
    return next((verdict for verdict in _BY_WEIGHT if verdict in present), "inconclusive")
