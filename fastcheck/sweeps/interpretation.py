"""The interpretation of a curve of errors: a reading in one word, and an explanation."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fastcheck.common.precision import WIDE, U
from fastcheck.sweeps.quotients import FIT, Quotients

Reading = Literal["truncation", "round-off", "coding mistake", "kink", "exact"]

_BEYOND = 30.0
"""Without an error bar, an error is a mistake where it exceeds the wavering of n(h) by this factor."""


def read(seen: Quotients, order: float | None, slope: float | None) -> tuple[Reading, str]:
    """Return the reading and its explanation."""
    if not math.isfinite(seen.a):
        return "coding mistake", (
            f"The analytic value is {seen.a}; the numeric value is {seen.n[seen.best]:.6g}. "
            "Look for a division by zero, a logarithm of zero or an overflow in the backward pass."
        )
    if not seen.errors.any():
        return "exact", "The numeric value equals the analytic one to the last bit at every step. Nothing is wrong."
    worst = _mistaken(seen)
    if worst is not None:
        return "coding mistake", _mistake_words(seen, worst)
    if seen.on_kink or seen.first:
        return "kink", _kink_words(seen)
    if order is not None:
        return "truncation", _truncation_words(seen, order, slope)
    return "round-off", _round_off_words(seen, slope)


def _plateau(seen: Quotients) -> tuple[int, int]:
    """Return the first and the last of the steps around the best one whose errors are about the same."""
    alike = np.abs(seen.errors - seen.gap) <= seen.gap / 2
    alike[: seen.first] = False
    low = high = seen.best
    while low > 0 and alike[low - 1]:
        low -= 1
    while high + 1 < alike.size and alike[high + 1]:
        high += 1
    return low, high


def _flat(seen: Quotients) -> bool:
    """Return whether the error stays the same over a range of steps, far above the wavering of n(h)."""
    low, high = _plateau(seen)
    size = max(abs(seen.a), float(np.abs(seen.n[seen.best])))
    wide = math.log10(seen.h[low] / seen.h[high]) >= FIT - 1e-9
    return wide and seen.gap > _BEYOND * seen.wavering + 100 * U * size


def _mistaken(seen: Quotients) -> int | None:
    """Return the step that shows most clearly that the analytic value is wrong; None where none does."""
    if seen.bars is None:
        return seen.best if _flat(seen) and not seen.on_kink else None
    beyond = ~(seen.errors <= seen.bars) & ~_refuted(seen.errors, seen.bars)
    beyond[: seen.first] = False
    if not beyond.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.argmax(np.where(beyond, seen.errors / seen.bars, 0)))


def _refuted(errors: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Return which bars are refuted by smaller steps: those of steps so large that the error has terms beyond h^2.

    The analytic value errs by at most error + bar at any step, and by at least error - bar.
    """
    most = np.minimum.accumulate((errors + bars)[::-1])[::-1]
    return errors - bars > np.append(most[1:], np.inf)


def _mistake_words(seen: Quotients, worst: int) -> str:
    low, high = _plateau(seen)
    explained = seen.wavering if seen.bars is None else seen.bars[worst]
    if low < high and low <= worst <= high:
        stays = f"The error stays near {seen.gap:.1e} from h = {seen.h[low]:.2g} to {seen.h[high]:.2g}"
    else:
        stays = f"At h = {seen.h[worst]:.2g} the error is {seen.errors[worst]:.1e}"
    return (
        f"{stays}, where arithmetic explains only {explained:.1e}: no step makes it smaller, so the analytic value is "
        f"wrong ({_beside(seen.a, float(seen.n[worst]))}). Look at the code that computes this entry: its index, its "
        "factor, its sign."
    )


def _beside(analytic: float, numeric: float) -> str:
    """Return a comparison of both values that shows a constant factor as well as an error in a late digit."""
    if not analytic:
        return f"it is 0, and the numeric value is {numeric:.6g}"
    ratio = numeric / analytic
    return (
        f"numeric / analytic is {ratio:.6g}" if abs(ratio - 1) > 1e-3 else f"numeric / analytic is 1 {ratio - 1:+.1e}"
    )


def _kink_words(seen: Quotients) -> str:
    if seen.on_kink:
        return (
            "The function has a kink (relu, max, abs) at this very point, or closer to it than any useful step: the "
            "slopes to its left and right differ, and any value between them is a valid subgradient. "
            "Move the point a little, or leave this dimension out (--kinks exclude)."
        )
    above, below = seen.h[seen.first - 1], seen.h[seen.first]
    return (
        f"The error falls suddenly between h = {above:.2g} and {below:.2g}: larger steps cross a kink (relu, max, "
        f"abs) or an equally sharp bend. Below, the error is {seen.gap:.1e}. Check with a step of at most {below:.2g}, "
        "or with --kinks exclude."
    )


def _truncation_words(seen: Quotients, order: float, slope: float | None) -> str:
    rises = "" if slope is None else f", then round-off takes over and the error rises as h^{slope:.1f}"
    converges = f"n(h) converges as h^{order:.1f} down to about h = {seen.h[seen.best]:.2g}{rises}"
    if _too_wide(seen):
        return f"{converges}. {_too_wide_words(seen)}"
    return (
        f"{converges}: a correct gradient of a curved loss looks like this.{_precision(seen)} "
        f"Steps near {seen.h[seen.best]:.2g} show most."
    )


def _round_off_words(seen: Quotients, slope: float | None) -> str:
    best = seen.h[seen.best]
    wavers = "hardly wavers at all" if slope is None else f"wavers as h^{slope:.1f} below"
    steadiest = f"n(h) is steadiest near h = {best:.2g} and {wavers}"
    departs = abs(float(seen.n[seen.first] - seen.n[seen.best]))
    if _too_wide(seen):
        return f"{steadiest}; it shows no order. {_too_wide_words(seen)}"
    if departs > _BEYOND * seen.wavering:
        return (
            f"{steadiest}; at larger steps it departs by {departs:.1e}, over too few steps to show an order. That is "
            f"round-off with little room for truncation, no bug.{_precision(seen)} Take steps near {best:.2g}."
        )
    return (
        f"{steadiest}; no part of it falls with h: round-off alone, not a bug.{_precision(seen)} A loss that is "
        f"linear or quadratic in this entry looks like this: take steps of {best:.2g} or more."
    )


def _too_wide(seen: Quotients) -> bool:
    """Return whether the bar at the best step is too wide: an error as large as the bar could be a bug."""
    return seen.bars is not None and bool(seen.bars[seen.best] > WIDE * _value(seen))


def _value(seen: Quotients) -> float:
    """Return the larger of the two values at the best step."""
    return max(abs(seen.a), abs(float(seen.n[seen.best])))


def _too_wide_words(seen: Quotients) -> str:
    assert seen.bars is not None
    if _value(seen) <= seen.bars[seen.best]:
        return (
            f"Neither value exceeds the error bar there, {seen.bars[seen.best]:.1e}: either the derivative is zero, or "
            "the bar is too wide to show a bug; a loss or a gradient that rounds less would show more."
        )
    return (
        f"The error bar there, {seen.bars[seen.best]:.1e}, is too wide to show a bug: a loss or a gradient that rounds "
        "less, or a larger step, would show more."
    )


def _precision(seen: Quotients) -> str:
    """Return a sentence on a plateau inside the error bar, where the analytic value has fewer digits than n(h)."""
    if seen.bars is None or not _flat(seen):
        return ""
    return (
        f" The error stays near {seen.gap:.1e}, inside its error bar of {seen.bars[seen.best]:.1e}: the analytic value "
        "has no more digits (float32? float64 shows more), or is off by less than this: a larger step shows more."
    )
