"""Verdicts: of a tensor, of a report, of two arrays; each with its reason in words."""

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
"""Rule of thumb: a norm ratio about this small is good in double precision (UFLDL tutorial)."""

MAX_RULE = 1e-2
"""Rule of thumb: a larger max ratio usually means a wrong gradient (CS231n notes)."""

SUMS = 64
"""Unit round-offs by which sums of up to 10^5 terms in one order differ from those in another: the error of a sum of n
terms grows as 0.2 sqrt(n) beside its value, whether the terms' signs are alike or mixed."""

UNDECIDED = 0.01
"""A tensor is inconclusive where more than this part of its dimensions have bars too wide to judge by."""


def of_tensor(found: Circumstances) -> Judgement:
    """Judge a tensor by its error bars, unless the audit found its differences wrong."""
    tally, disagreements = found.tally, found.disagreements
    if disagreements:
        return Judgement(
            "error",
            f"the audit disagrees in {disagreements} place{'s' * (disagreements > 1)}: the differences are wrong",
            advice.said(advice.MISTAKEN, found),
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
        if found.black_box and found.nearly_close:
            signs = f", and by no more than {found.apart:.1g} of their values: is the loss more accurate than that?"
        return Judgement(
            "fail",
            f"{tally.beyond:,} of {tally.dims:,} differ by more than the arithmetic can explain{signs}",
            advice.said(advice.OUTSIDE, found),
        )
    if tally.undecided > UNDECIDED * tally.dims:
        return Judgement(
            "inconclusive",
            _undecided(found),
            advice.said(advice.NARROWER, found),
        )
    return Judgement("pass", _explained(found))


def _explained(found: Circumstances) -> str:
    """Say how many lie inside their bars, of how many, and what a sample would have missed."""
    tally, total = found.tally, math.prod(found.shape)
    checked = f"{tally.dims:,}" if tally.dims == total else f"{tally.dims:,} checked of {total:,}"
    # Those that are left out for a kink are no part of what was drawn.
    missed = f"; {reach.reach(total, tally.dims)}" if found.sampled and not tally.excluded else ""
    return f"all {checked} lie within what the arithmetic can explain{_noted(tally)}{missed}"


def _undecided(found: Circumstances) -> str:
    """Say what cannot be judged, and why: the point shows nothing, or bars are too wide."""
    if found.blinding is None or not found.blind:
        return f"{_wide(found.tally)}: they are too wide to tell right from wrong"
    what = "no value is distinguishable from zero" if found.tally.min_digits is None else _wide(found.tally)
    return f"{what}, since {found.blinding.words}"


def _wide(tally: Tally) -> str:
    """Say how many bars are how wide."""
    assert tally.widest is not None
    larger = max(abs(tally.widest.analytic), abs(tally.widest.numeric))
    beside = f"{tally.widest.error_bar / larger:.1g} times the value itself" if larger else "around zero"
    return (
        f"{tally.undecided:,} of {tally.dims:,} lie within error bars of up to {tally.widest.error_bar:.1g} ({beside})"
    )


def _noted(tally: Tally) -> str:
    """Say what a pass owes to kinks, to bars too wide to judge by, and to bars that hide a value from zero."""
    counts = (
        (tally.subgradients, "as subgradients at a kink"),
        (tally.automatic, "as automatic differentiation has it at a kink: no derivative"),
        (tally.undecided, "cannot be told for their wide error bars"),
        (tally.hidden, "not zero, but no larger than their error bars"),
    )
    message = "; ".join(f"{count:,} {words}" for count, words in counts if count)
    return f" ({message})" if message else ""


def norm_rule(precision: str) -> float:
    """Return the norm ratio that is good for two gradients, the coarser of which was computed in this precision.

    `NORM_RULE` is that of float64, where differences of a loss leave more than rounding does. In a narrower type both
    arrays may differ by the rounding of two factors and of the result, each up to its unit round-off, and by `SUMS`
    unit round-offs of the type that sums are kept in (float32, where the type is narrower still). The norm ratio is
    half of the relative difference, for each of the two arrays. That is 3.9e-6 for float32, 9.8e-4 for tf32, 1.5e-3
    for float16 and 1.2e-2 for bfloat16.

    Parameters
    ----------
    precision : str
        One of `fastcheck.convolutions.case.PRECISIONS`.
    """
    computed = replace(Precision.of(np.dtype(np.float64), precision, ()), rounded_operands=2)
    return max(NORM_RULE, computed.operand + computed.result + SUMS * computed.accumulator)
