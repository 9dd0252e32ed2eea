"""The source of a tensor's ratios in words: the part of the error bars that limits the digits."""

from __future__ import annotations

import math

from fastcheck.metrics import advice
from fastcheck.metrics.advice import Circumstances

SMALL_VALUE = 0.1
"""A value below this fraction of a typical one has fewer digits because of its size alone."""


def words(facts: Circumstances) -> str:
    """Return the source of the ratios of a tensor whose dimensions lie inside their bars."""
    tally = facts.tally
    least, digits = tally.least, tally.min_digits
    if least is None or not facts.least or digits is None:
        return advice.said(advice.NOTHING_RESOLVED, facts)
    source = advice.said(advice.SOURCES, facts)
    sentence = f"norm ratio {tally.norm_ratio:.0e}, at least {digits:.1f} digits: {source}"
    size = max(abs(least.analytic), abs(least.numeric))
    if not size < SMALL_VALUE * tally.typical or not math.isfinite(tally.typical):
        return sentence
    share = f"{size / tally.typical:.0e}"
    return f"{sentence}; the value with the fewest digits is only {share} of a typical value, so it has fewer digits"
