"""What the numbers of a tensor come from, in words: which part of the error bars it is that leaves so many digits."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastcheck.tally import Tally

PARTS = ("round-off", "truncation", "kinks", "gradient")
"""Parts of an error bar, as `fastcheck.evaluators.Evaluator.parts` names them."""

SMALL = 0.1
"""A value below this fraction of a typical one has fewer digits for its size alone."""

_NARROWER = {
    "round-off": "a larger step, or step='auto': the differences' round-off falls as 1/h",
    "truncation": "a smaller step: truncation falls as h^2",
    "kinks": "fewer data points, another point, or kinks='exclude': these units are near their kinks",
    "gradient": "fewer terms to a sum (a smaller batch or map), or a gradient computed in float64",
}


def main_part(parts: Mapping[str, float]) -> str:
    """Return the name of the largest part of a bar."""
    return max(PARTS, key=lambda name: parts[name])


def narrower(parts: Mapping[str, float]) -> str:
    """Return what would narrow a bar."""
    return _NARROWER[main_part(parts)]


def words(tally: Tally, parts: Mapping[str, float] | None, step: float, precision: str) -> str:
    """Say what the ratios of a tensor whose dimensions lie inside their bars come from.

    Parameters
    ----------
    tally : Tally
    parts : mapping or None
        Parts of the bar of ``tally.least``.
    step : float
    precision : str
        That of the gradient.
    """
    least = tally.least
    found = tally.min_digits
    if least is None or parts is None or found is None:
        return "no value exceeds its error bar: all are zero, as far as arithmetic can tell"
    source = _source(main_part(parts), step, precision)
    whole = f"norm ratio {tally.norm_ratio:.0e}, {found:.1f} digits at least: {source}"
    size = max(abs(least.analytic), abs(least.numeric))
    if not size < SMALL * tally.typical or not math.isfinite(tally.typical):
        return whole
    return f"{whole}; that value is only {size / tally.typical:.0e} of a typical one, so fewer of its digits are left"


def _source(part: str, step: float, precision: str) -> str:
    return {
        "round-off": f"round-off of the differences at h = {step:g}",
        "truncation": f"truncation of the differences at h = {step:g}, which falls as h^2",
        "kinks": f"kinks crossed between -h and +h, h = {step:g}",
        "gradient": f"round-off of the gradient's own sums, computed in {precision}",
    }[part]
