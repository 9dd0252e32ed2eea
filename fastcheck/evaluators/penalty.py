"""Differences of regularisation, which is a sum over the parameters themselves."""

from __future__ import annotations

import numpy as np

from fastcheck.network import Penalty
from fastcheck.step import U


def difference(penalty: Penalty, w: np.ndarray, h: float) -> tuple[np.ndarray, ...]:
    """Difference l2 / 2 * w^2 + l1 * |w| at some parameters.

    Returns
    -------
    value, roundoff, crossed, jump : float64 arrays
        The two-sided difference quotient, and what rounding, the kink of |w| at zero where it is crossed, and that kink
        at the point itself make of it.
    kinks : int64 array
    """
    with np.errstate(over="ignore", invalid="ignore"):
        plus, minus = w + h, w - h
        moved = plus - minus
        value = (penalty.l2 / 2 * (plus * plus - minus * minus) + penalty.l1 * (np.abs(plus) - np.abs(minus))) / moved
        size = np.abs(w) + h
        roundoff = 2 * U * size * (penalty.l2 * size + penalty.l1) / h
        at_point = (w == 0) & (penalty.l1 > 0)
        inside = (np.abs(w) < h) & ~at_point & (penalty.l1 > 0)
        crossed = np.where(inside, penalty.l1 * (1 - np.abs(w) / h), 0.0)
    return value, roundoff, crossed, np.where(at_point, penalty.l1, 0.0), (inside | at_point).astype(np.int64)


def gradient(penalty: Penalty, w: np.ndarray) -> np.ndarray:
    """Return l2 * w + l1 * sign(w)."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: np.ndarray = penalty.l2 * w + penalty.l1 * np.sign(w)
    return found
