"""Quotients n(h) of one dimension over many steps: their noise, falls, order and slope.

A two-sided quotient n(h) of a smooth function errs by C h^2 (truncation) and by about B / h (rounding of the function's
values), so that its error falls with h and then rises: Nocedal and Wright, Numerical Optimization, section 8.1.

Order and slope come from n(h) alone, so that a wrong analytic value does not hide them. Round-off is random, and a
single error can be tiny by accident: nothing here relies on one alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import WIDE, U

_NEAR = 0.5
"""Decades within which steps count as neighbours."""

FIT = 1.0
"""Smallest range of steps, in decades, that shows an order, a slope or a plateau."""

_CLEAR = 10.0
"""Multiple of the noise from which a move is clear of it."""

_CAUTION = 30.0
"""Largest ratio, about, of an error bar to the round-off."""

_SUDDEN = 200.0
"""A fall is sudden where it exceeds what the step's fourth power explains by this factor. Two smooth terms of opposite
sign, C h^2 - D h^4, reach at most 100 times that with one step in a decade, and 11 times with more."""


class Quotients(NamedTuple):
    """The arrays of one dimension, the largest step first, and their features.

    ``first`` is the first step below the last sudden fall, ``best`` the step where n(h) wavers least, and ``wavering``
    the size of that.
    """

    h: np.ndarray
    n: np.ndarray
    a: float
    errors: np.ndarray
    bars: np.ndarray | None
    noise: np.ndarray
    first: int
    best: int
    wavering: float
    on_kink: bool

    @property
    def gap(self) -> float:
        return float(self.errors[self.best])


def examined(h: np.ndarray, n: np.ndarray, a: float, bars: np.ndarray | None, kinked: np.ndarray) -> Quotients:
    """Find the noise, the last sudden fall and the best step; ``kinked`` marks the steps that meet a kink."""
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(n - a)
        moves = np.abs(np.diff(n))
    noise = _noise(h, moves, bars)
    floor = np.maximum(3 * noise, 4 * U * np.abs(n))
    if bars is not None:
        floor = np.fmax(floor, np.append(bars[1:], bars[-1]))  # the smaller step's bar, which no longer has the kink
    first = _after_falls(h, moves, floor)
    level = np.maximum(_level(h[first:], n[first:]), noise[first:])
    if bars is not None:
        level = np.where(_narrow(n[first:], bars[first:]), level, np.inf)
    best = first + int(np.argmin(level))
    return Quotients(h, n, a, errors, bars, noise, first, best, float(level[best - first]), bool(kinked[best]))


def _narrow(n: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Return which bars are narrow beside n(h); all, where none is.

    Far above a function's own scale n(h) falls as 1 / h: it hardly wavers there, which shows nothing.
    """
    narrow: np.ndarray = bars <= WIDE * np.abs(n)
    return narrow | ~narrow.any()


def _noise(h: np.ndarray, moves: np.ndarray, bars: np.ndarray | None) -> np.ndarray:
    """Return B / h: the round-off of n(h), measured between the smallest steps.

    Steps too small to change the function at all give n(h) = 0 and show no round-off, and a few quotients of a
    coarsely rounded function may be equal by chance. The error bar then sets a lower bound.
    """
    smallest = h[1:] <= 100 * h[-1]
    least = 0.0 if bars is None else float(bars[-1] - bars.min()) * h[-1] / _CAUTION
    return max(float(np.median((moves * h[1:])[smallest])), least) / h


def _after_falls(h: np.ndarray, moves: np.ndarray, floor: np.ndarray) -> int:
    """Return the first step below the last sudden fall of n(h)'s moves; 0 without one.

    While a difference crosses a kink, n(h) moves by about as much as the slope changes there; below, it does not.
    """
    clear = np.maximum(moves, floor[:-1])
    for k in range(len(moves) - 3, -1, -1):
        nearby = max(2, int(np.count_nonzero(h[k + 1 : -1] >= h[k] / 10)))  # a single move may be small by accident
        if clear[k] > _SUDDEN * (h[k] / h[k + 1]) ** 4 * clear[k + 1 : k + 1 + nearby].max():
            return k + 1
    return 0


def _level(h: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the wavering of n around each step: the root mean square of its moves nearby."""
    if n.size < 2:
        return np.zeros(n.size)
    moves = np.abs(np.diff(n))
    here = np.maximum(np.append(moves[:1], moves), np.append(moves, moves[-1:]))
    return _nearby_rms(h, here)


def _nearby_rms(h: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the root mean square of the values at steps within `_NEAR` decades of each."""
    decades = np.log10(h)
    near = np.abs(decades[:, None] - decades) <= _NEAR + 1e-9
    size = float(np.abs(values).max(initial=0.0)) or 1.0  # scaled by it, squares neither overflow nor underflow
    return size * np.sqrt(near @ (values / size) ** 2 / near.sum(axis=1))


def order_of(seen: Quotients) -> float | None:
    """Return the power of h with which n(h) converges, from its moves between steps; None where it shows none.

    A move from h to r h is C h^2 (1 - r^2). The median of the local powers ignores both ends of the range, where terms
    beyond h^2 and round-off still show.
    """
    h, moves = seen.h[seen.first :], np.abs(np.diff(seen.n[seen.first :]))
    clear = moves > _CLEAR * seen.noise[seen.first + 1 :]
    count = int(np.argmin(clear)) if not clear.all() else clear.size
    if count < 3 or math.log10(h[0] / h[count - 1]) < FIT - 1e-9:
        return None
    size = np.log(moves[:count] / (1 - (h[1 : count + 1] / h[:count]) ** 2))
    powers = np.diff(size) / np.diff(np.log(h[:count]))
    low, middle, high = (float(value) for value in np.percentile(powers, [25, 50, 75]))
    return middle if middle > 0.5 and high - low < 0.5 else None


def slope_of(seen: Quotients) -> float | None:
    """Return the power of h with which n(h) departs from its best value below the best step; None where it shows none.

    Logarithms of random errors are skewed towards tiny ones. The root mean square, over neighbours, of h times the
    error hardly is, and a slope of -1 leaves it constant.
    """
    h, n = seen.h, seen.n
    below = h <= h[seen.best] * 10**-_NEAR * (1 + 1e-9)
    if n[seen.best]:
        below[np.flatnonzero(n)[-1] + 1 :] = False  # steps that rounding hides altogether
    h, n = h[below], n[below]
    size = _nearby_rms(h, np.abs(n - seen.n[seen.best]) * h)
    unclear = np.flatnonzero(size <= 8 * U * np.abs(seen.n[seen.best]) * h)  # hidden by the rounding of n(h) itself
    start = unclear[-1] + 1 if unclear.size else 0
    h, size = h[start:], size[start:]
    if h.size < 6 or math.log10(h[0] / h[-1]) < 2 * FIT:
        return None
    power = float(np.polyfit(np.log(h), np.log(size), 1)[0]) - 1
    return power if power < -0.5 else None
