"""Verdicts: of a tensor, of a report, of two arrays; each with its reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastcheck.tally import Tally

Verdict = Literal["pass", "fail", "inconclusive", "error"]

NORM_RULE = 1e-9
"""Rule of thumb: a norm ratio about this small is good in double precision (UFLDL tutorial)."""

MAX_RULE = 1e-2
"""Rule of thumb: a larger max ratio usually means a wrong gradient (CS231n notes)."""

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "error": 3}
"""What the command line returns."""

UNDECIDED = 0.01
"""A tensor is inconclusive where more than this part of its dimensions have bars too wide to judge by."""

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


def of_tensor(tally: Tally, disagreements: int = 0, narrower: str = "") -> Judgement:
    """Judge a tensor by its error bars, unless the audit found its differences wrong.

    ``narrower`` is what would narrow the widest bar.
    """
    if disagreements:
        return Judgement(
            "error",
            f"the audit disagrees in {disagreements} place{'s' * (disagreements > 1)}: the differences are wrong",
            "check with --evaluator full, and report this as a bug of fastcheck",
        )
    if not tally.dims:
        return Judgement("inconclusive", "no dimension was checked", "let the check run longer")
    if tally.non_finite:
        return Judgement(
            "fail",
            f"{tally.non_finite:,} of {tally.dims:,} analytic values are nan or infinite",
            "look for a division by zero, a logarithm of zero or an overflow in the backward pass",
        )
    if tally.beyond:
        signs = f", {tally.sign_mismatches:,} of opposite sign" if tally.sign_mismatches else ""
        return Judgement(
            "fail",
            f"{tally.beyond:,} of {tally.dims:,} differ by more than the arithmetic can explain{signs}",
            "start from the worst dimensions: what do their indices have in common (a filter, a border tap)?",
        )
    if tally.undecided > UNDECIDED * tally.dims:
        return Judgement("inconclusive", f"{_undecided(tally)}: they are too wide to tell right from wrong", narrower)
    return Judgement("pass", f"all {tally.dims:,} lie within what the arithmetic can explain{_noted(tally)}")


def _undecided(tally: Tally) -> str:
    """Say how many bars are how wide."""
    assert tally.widest is not None
    larger = max(abs(tally.widest.analytic), abs(tally.widest.numeric))
    beside = f"{tally.widest.error_bar / larger:.1g} times the value itself" if larger else "around zero"
    return (
        f"{tally.undecided:,} of {tally.dims:,} lie within error bars of up to {tally.widest.error_bar:.1g} ({beside})"
    )


def _noted(tally: Tally) -> str:
    """Say what a pass owes to kinks and to bars too wide to judge by."""
    subgradients = f"{tally.subgradients:,} as subgradients at a kink" if tally.subgradients else ""
    undecided = f"{tally.undecided:,} cannot be told for their wide error bars" if tally.undecided else ""
    told = "; ".join(filter(None, (subgradients, undecided)))
    return f" ({told})" if told else ""


def of_arrays(tally: Tally) -> Judgement:
    """Judge two arrays of which nothing else is known, by the two rules of thumb."""
    if tally.non_finite:
        return Judgement("fail", f"{tally.non_finite:,} of {tally.dims:,} analytic values are nan or infinite")
    small_norm, small_max = tally.norm_ratio <= NORM_RULE, tally.max_ratio < MAX_RULE
    if small_norm and small_max:
        return Judgement("pass", "both rules of thumb hold")
    if not small_norm and not small_max:
        return Judgement("fail", "both rules of thumb are broken", "start from the worst dimensions below")
    broken = "max ratio" if small_norm else "norm ratio"
    return Judgement(
        "inconclusive",
        f"the {broken} breaks its rule of thumb, the other rule holds",
        "two arrays cannot tell round-off from a bug: check the layer itself, where error bars are computed",
    )
