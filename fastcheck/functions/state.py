"""Whether a user's functions return the same values when they are called again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import UNITS, U
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding

Arrays = dict[str, np.ndarray]

REPEATS = 8
"""Calls at the start point of a loss whose values differ there."""

LAST_BITS = 1e-5
"""Largest relative difference from call to call that is attributed to rounding: sums in another order, in float32 too.
Values that differ by more are another function's (a dropout mask, a new sample)."""

ROUNDINGS = 16
"""Roundings of a value by which it may differ from call to call in any case."""

ALTERNATING = 1 / 8
"""Fraction of a difference by which later changes must go both ways for it to count as one of last bits."""

HALF_BITS = 32
"""Unit round-offs by which gradients in half precision may differ when summed in another order."""

ALIKE = 1e-6
"""Largest relative difference between what successive calls add to a gradient that counts as the same."""


def last_bits(unit: float) -> float:
    """Return the largest relative difference from call to call of values with this unit round-off."""
    return max(LAST_BITS, HALF_BITS * unit * (unit > UNITS["float32"]))


def scatter(
    first: float, again: Callable[[], float], accuracy: float, scale: Callable[[], float]
) -> tuple[float, list[HealthFinding]]:
    """Return the standard deviation of a loss from call to call, and a finding if there is one.

    Parameters
    ----------
    first : float
        The value of the first call.
    again : callable
        Returns the value of another call at the same point.
    accuracy : float
        Declared bound on the error of a value.
    scale : callable
        Returns the size of the loss's changes with its argument, for a value that is small by cancellation.

    Raises
    ------
    FastcheckError
        If the loss is a different function in each call.
    """
    second = again()
    if second == first:
        return 0.0, []
    values = np.array([first, second, *(again() for _ in range(REPEATS - 2))])
    spread, size = float(np.ptp(values)), float(np.abs(values).max())
    if spread > max(2 * accuracy, LAST_BITS * size):
        size = max(size, scale())
    if spread > max(2 * accuracy, LAST_BITS * size):
        raise FastcheckError(
            f"loss is {first!r} and then {second!r} at the same point: expected the same value again "
            "(fix the seed, or freeze the dropout mask; noise= declares the accuracy of a loss that never repeats)"
        )
    return float(values.std(ddof=1)), [health.loss_wavers(spread / size)]


def same(before: float, after: float, again: Callable[[], float], accuracy: float, size: float) -> bool:
    """Return whether two values at one point are the same, as far as a loss of this size repeats itself."""
    roundings = ROUNDINGS * U * size
    if abs(after - before) <= max(2 * accuracy, roundings):
        return True
    # Last bits may agree by chance in the first comparison; a loss that settles drifts one way, by less and less.
    changes = np.diff([after, *(again() for _ in range(REPEATS))]) / abs(after - before)
    wavers = (changes > ALTERNATING).any() and (changes < -ALTERNATING).any()
    return bool(wavers and abs(after - before) <= LAST_BITS * size)


def compared(
    first: Arrays, second: Arrays, again: Callable[[], Arrays], units: Mapping[str, float], function: str
) -> tuple[Arrays, list[HealthFinding]]:
    """Compare the gradients of two calls; return how much they differ, and a finding if there is one.

    Parameters
    ----------
    first, second : dict of str to array
    again : callable
        Returns the gradient of another call.
    units : mapping of str to float
        Unit round-off of each tensor in half precision, 0 for a wider type.
    function : str
        Name of the function that returns them.
    """
    apart = {name: _apart(first[name], second[name]) for name in first}
    nothing = {name: np.zeros(array.shape) for name, array in first.items()}
    differing = [name for name, array in apart.items() if array.any()]
    if not differing:
        return nothing, []
    parts = {name: _part(apart[name], first[name]) for name in differing}
    part = max(parts.values())
    if all(parts[name] <= max(LAST_BITS, HALF_BITS * units[name]) for name in differing):
        return {name: np.abs(array) for name, array in apart.items()}, [health.gradient_wavers(part, function)]
    third = again()
    steady = [
        name for name in differing if _part(_apart(second[name], third[name]) - apart[name], apart[name]) <= ALIKE
    ]
    if steady:
        return nothing, [health.gradient_adds_up(_factor(first, second, steady), steady, function)]
    if not any(_apart(second[name], third[name]).any() for name in first):
        return nothing, [health.gradient_settles(part, function)]
    return nothing, [health.gradient_differs(part, function)]


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the second array minus the first, 0 where both are the same nan or infinity."""
    with np.errstate(all="ignore"):
        apart = other.astype(np.float64) - one
    return np.where(np.isfinite(apart), apart, np.where((one == other) | np.isnan(one), 0.0, np.inf))


def _part(apart: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest difference as a fraction of the largest value."""
    size = float(np.abs(whole[np.isfinite(whole)].astype(np.float64)).max(initial=0.0))
    largest = float(np.abs(apart).max())
    return largest / size if size else math.inf * (largest > 0)


def _factor(first: Arrays, second: Arrays, names: list[str]) -> float | None:
    """Return the factor between the second gradient and the first, None where it is no multiple."""
    factors = set()
    for name in names:
        with np.errstate(all="ignore"):
            ratios = second[name].astype(np.float64) / first[name]
        ratios = ratios[np.isfinite(ratios)]
        if not ratios.size or np.ptp(ratios) > ALIKE * np.abs(ratios).max():
            return None
        factors.add(float(f"{ratios.flat[0]:.4g}"))
    return factors.pop() if len(factors) == 1 else None
