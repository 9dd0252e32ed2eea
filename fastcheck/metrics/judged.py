"""What a verdict is, and what has one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

Verdict = Literal["pass", "fail", "inconclusive", "error"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "error": 3}
"""What the command line returns."""

_BY_WEIGHT: tuple[Verdict, ...] = ("fail", "error", "inconclusive", "pass")


class Judged:
    """What has a verdict. It is true where that is "pass", so that ``assert fastcheck.check(case)`` works in a test."""

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
    """A verdict, its reason, and the next thing to try (empty where there is nothing to do)."""

    verdict: Verdict
    reason: str
    advice: str = ""


def heaviest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that decides among several; nothing at all is inconclusive."""
    present = set(verdicts)
    return next((verdict for verdict in _BY_WEIGHT if verdict in present), "inconclusive")
