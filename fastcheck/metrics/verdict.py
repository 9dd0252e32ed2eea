"""The verdict on a tensor, with its reason in words, and the rules of thumb for two arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastcheck.common.precision import Precision
from fastcheck.metrics import advice, reach
from fastcheck.metrics.advice import Circumstances
from fastcheck.metrics.judged import Judgement
from fastcheck.metrics.tally import Tally

NORM_RULE = 1e-9
"""Rule of thumb: a norm ratio of about this size is good in double precision (UFLDL tutorial)."""

MAX_RULE = 1e-2
"""Rule of thumb: a larger max ratio usually means a wrong gradient (CS231n notes)."""

SUMS = 64
"""Unit round-offs by which a sum of up to 10^5 terms differs from the same sum in another order: relative to its value,
the error of a sum of n terms grows as 0.2 sqrt(n), whether the signs of the terms are alike or mixed."""

INCONCLUSIVE_SHARE = 0.01
"""A tensor is inconclusive where a larger fraction of its dimensions has bars too wide to judge by."""


def of_tensor(facts: Circumstances) -> Judgement:
    """Judge a tensor by its error bars, unless the audit found its differences wrong."""
    tally, disagreements = facts.tally, facts.disagreements
    if disagreements:
        return Judgement(
            "error",
            f"the audit disagrees in {disagreements} place{'s' * (disagreements > 1)}: fastcheck's own differences are "
            "wrong",
            advice.said(advice.MISTAKEN, facts),
        )
    if not tally.dims:
        return Judgement("inconclusive", "no dimension was checked")
    if tally.non_finite:
        return Judgement(
            "fail",
            f"{tally.non_finite:,} of {tally.dims:,} analytic values are nan or infinite",
            advice.NON_FINITE,
        )
    if tally.beyond:
        signs = f", {tally.sign_mismatches:,} of opposite sign" if tally.sign_mismatches else ""
        if facts.black_box and facts.nearly_close:
            signs = (
                f", but by no more than {facts.apart:.1g} of their values: is {facts.subject} more accurate than that?"
            )
        return Judgement(
            "fail",
            f"{tally.beyond:,} of {tally.dims:,} differ by more than the arithmetic can explain{signs}",
            advice.said(advice.OUTSIDE, facts),
        )
    if tally.inconclusive > INCONCLUSIVE_SHARE * tally.dims:
        return Judgement(
            "inconclusive",
            _inconclusive(facts),
            advice.said(advice.NARROWER, facts),
        )
    return Judgement("pass", _passed(facts))


def _passed(facts: Circumstances) -> str:
    """Return the reason of a pass: how many of how many dimensions, and what a sample would have missed."""
    tally, total = facts.tally, math.prod(facts.shape)
    checked = f"{tally.dims:,}" if tally.dims == total else f"{tally.dims:,} checked of {total:,}"
    # Where dimensions are excluded for a kink, the rest is no longer the sample that was drawn.
    missed = f"; {reach.reach(total, tally.dims)}" if facts.sampled and not tally.excluded else ""
    return f"all {checked} lie within what the arithmetic can explain{_exceptions(tally)}{missed}"


def _inconclusive(facts: Circumstances) -> str:
    """Return the reason of an inconclusive verdict: the point shows nothing, or bars are too wide."""
    if facts.blinding is None or not facts.blind:
        return f"{_bars(facts.tally)}, too wide to tell right from wrong"
    what = "no value is distinguishable from zero" if facts.tally.min_digits is None else _bars(facts.tally)
    return f"{what}, since {facts.blinding.words}"


def _bars(tally: Tally) -> str:
    """Return how many bars are too wide to judge by, and how wide they are."""
    widest = tally.widest
    assert widest is not None
    larger = max(abs(widest.analytic), abs(widest.numeric))
    beside = f"{widest.error_bar / larger:.1g} times the value itself" if larger else "around zero"
    return f"{tally.inconclusive:,} of {tally.dims:,} lie within error bars of up to {widest.error_bar:.1g} ({beside})"


def _exceptions(tally: Tally) -> str:
    """Return what a pass owes to kinks, to bars too wide to judge by, and to bars that may hide a zero."""
    counts = (
        (tally.subgradients, "as subgradients at a kink"),
        (tally.automatic, "equal to what automatic differentiation returns at a kink, which is not a derivative"),
        (tally.inconclusive, "inconclusive, since their error bars are too wide"),
        (tally.hidden, "not zero, but no larger than their error bars"),
    )
    message = "; ".join(f"{count:,} {words}" for count, words in counts if count)
    return f" ({message})" if message else ""


def norm_rule(precision: str) -> float:
    """Return the largest norm ratio that is good for two gradients, the coarser of which was computed in a precision.

    In float64 it is `NORM_RULE`, since differences of a loss leave more than rounding does. In a narrower type, both
    arrays may differ by the rounding of two factors and of the result, each up to its unit round-off, and by `SUMS`
    unit round-offs of the type in which sums are kept (float32 where the type is narrower still). The norm ratio is
    half of the relative difference, for each of the two arrays. That makes 3.9e-6 for float32, 9.8e-4 for tf32, 1.5e-3
    for float16 and 1.2e-2 for bfloat16.

    Parameters
    ----------
    precision : str
        One of `fastcheck.common.precision.PRECISIONS`.
    """
    computed = replace(Precision.of(np.dtype(np.float64), precision, ()), rounded_operands=2)
    return max(NORM_RULE, computed.operand + computed.result + SUMS * computed.accumulator)
