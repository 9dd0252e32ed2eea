"""Differences of regularisation, a sum over the parameters themselves, and the share of it in a gradient."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.networks.network import Penalty

FACTORS = (1.0, 0.0, 0.5, 2.0, -1.0)
"""Multiples of the regularisation's gradient that correct or mistaken code leaves in a gradient."""


class Share(NamedTuple):
    """The multiples of the gradients of ``l2 / 2 * w^2`` and of ``l1 * |w|`` in a given gradient.

    They are the pair of `FACTORS` that comes nearest. ``explains`` is true where this pair leaves the data loss's
    gradient in every entry, and no other pair that is as likely does.
    """

    l2: float
    l1: float
    explains: bool

    @property
    def wrong(self) -> bool:
        """Whether the gradient is known to contain another share than the right one."""
        return self.explains and not self.l2 == self.l1 == 1

    def of(self, penalty: Penalty) -> Penalty:
        """Return the share of a penalty."""
        return Penalty(self.l2 * penalty.l2, self.l1 * penalty.l1)


def difference(penalty: Penalty, w: np.ndarray, h: float) -> tuple[np.ndarray, ...]:
    """Return the difference of l2 / 2 * w^2 + l1 * |w| at some parameters.

    Returns
    -------
    value, roundoff, crossed, jump : float64 arrays
        The two-sided difference quotient, and bounds on its errors: from rounding, from the kink of |w| at zero where
        that is crossed, and from that kink at the point itself.
    kinks : int64 array
    """
    with np.errstate(over="ignore", invalid="ignore"):
        plus, minus = w + h, w - h
        width = plus - minus
        value = (penalty.l2 / 2 * (plus * plus - minus * minus) + penalty.l1 * (np.abs(plus) - np.abs(minus))) / width
        size = np.abs(w) + h
        roundoff = 2 * U * size * (penalty.l2 * size + penalty.l1) / h
        at_point = (w == 0) & (penalty.l1 > 0)
        inside = (np.abs(w) < h) & ~at_point & (penalty.l1 > 0)
        crossed = np.where(inside, penalty.l1 * (1 - np.abs(w) / h), 0.0)
    return value, roundoff, crossed, np.where(at_point, penalty.l1, 0.0), (inside | at_point).astype(np.int64)


def gradient(penalty: Penalty, w: np.ndarray) -> np.ndarray:
    """Return l2 * w + l1 * sign(w)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return penalty.l2 * w + penalty.l1 * np.sign(w)


def share(penalty: Penalty, w: np.ndarray, rest: np.ndarray, bars: np.ndarray) -> Share:
    """Return the share of a penalty's gradient in another gradient.

    Parameters
    ----------
    penalty : Penalty
    w : array
        The parameters.
    rest : array
        The given gradient minus the data loss's.
    bars : array
        Bounds on a difference between the two that arithmetic can explain.
    """
    left = {pair: _left(penalty, w, rest, bars, *pair) for pair in _pairs(penalty)}
    explaining = [pair for pair, (entries, _) in left.items() if entries == rest.size]
    # Where w and its signs explain equally well, a pair of equal factors is likelier.
    likely = [pair for pair in explaining if pair[0] == pair[1]] or explaining
    return Share(*max(likely or left, key=lambda pair: left[pair]), len(likely) == 1)


def _pairs(penalty: Penalty) -> list[tuple[float, float]]:
    """Return the pairs of factors of l2 and l1 that can be distinguished."""
    if penalty.l2 and penalty.l1:
        return list(itertools.product(FACTORS, FACTORS))
    return [(factor, factor) for factor in FACTORS]


def _left(
    penalty: Penalty, w: np.ndarray, rest: np.ndarray, bars: np.ndarray, l2: float, l1: float
) -> tuple[int, float]:
    """Return how many entries a share of the penalty explains, and the negative size of the rest that it leaves."""
    taken = Share(l2, l1, False).of(penalty)
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.abs(rest - taken_off(taken, w, rest))
        return int(np.count_nonzero(left <= bars)), -float(left[np.isfinite(left)].sum())


def taken_off(penalty: Penalty, w: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return the gradient of a penalty; at zeros of w, with the sign of 0 that comes nearest to a given rest.

    In code that sign is -1, 0 or 1, the same at all zeros, or at all negative zeros and at all positive ones. To allow
    any subgradient of l1 * |w|, or one for each zero, would hide errors of the data loss as large as l1.
    """
    taken = gradient(penalty, w)
    for zeros in ((w == 0) & np.signbit(w), (w == 0) & ~np.signbit(w)):
        left = rest[zeros & np.isfinite(rest)]
        if penalty.l1 and left.size:
            size = abs(penalty.l1)
            with np.errstate(over="ignore"):
                taken[zeros] = size * np.clip(np.rint(np.median(left) / size), -1, 1)
    return taken
