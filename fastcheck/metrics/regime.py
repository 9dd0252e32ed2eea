"""What the numbers of a tensor come from, in words: which part of the error bars it is that leaves so many digits."""

from __future__ import annotations

import math

from fastcheck.metrics import advice
from fastcheck.metrics.advice import Circumstances

SMALL = 0.1
"""A value below this fraction of a typical one has fewer digits for its size alone."""


def words(found: Circumstances) -> str:
    """Say what the ratios of a tensor whose dimensions lie inside their bars come from."""
    tally = found.tally
    least, digits = tally.least, tally.min_digits
    if least is None or not found.least or digits is None:
        return advice.said(advice.NOTHING_RESOLVED, found)
    source = advice.said(advice.SOURCES, found)
    whole = f"norm ratio {tally.norm_ratio:.0e}, {digits:.1f} digits at least: {source}"
    size = max(abs(least.analytic), abs(least.numeric))
    if not size < SMALL * tally.typical or not math.isfinite(tally.typical):
        return whole
    return f"{whole}; that value is only {size / tally.typical:.0e} of a typical one, so fewer of its digits are left"
