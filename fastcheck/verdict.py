"""Verdicts: of a tensor, of a report, of two arrays; each with its reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fastcheck.tally import Tally

Verdict = Literal["pass", "fail", "inconclusive", "error"]

NORM_RULE = 1e-9
"""Rule of thumb: a norm ratio about this small is good in double precision (UFLDL tutorial)."""

MAX_RULE = 1e-2
"""Rule of thumb: a larger max ratio usually means a wrong gradient (CS231n notes)."""

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "error": 3}
"""What the command line returns."""

_BY_WEIGHT: tuple[Verdict, ...] = ("fail", "error", "inconclusive", "pass")


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reason, and the next thing to try (empty where there is nothing to do)."""

    verdict: Verdict
    reason: str
    advice: str = ""


def heaviest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that decides among several; nothing at all is inconclusive."""
    present = set(verdicts)
    return next((verdict for verdict in _BY_WEIGHT if verdict in present), "inconclusive")


def of_tensor(tally: Tally, disagreements: int = 0) -> Judgement:
    """Judge a tensor by its error bars, unless the audit found its differences wrong."""
    if disagreements:
        return Judgement(
            "error",
            f"the audit disagrees in {disagreements} place{'s' * (disagreements > 1)}: the differences are wrong",
            "check with --evaluator local, and report this as a bug of fastcheck",
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
    return Judgement("pass", f"all {tally.dims:,} lie within what the arithmetic can explain")


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
