"""Smaller steps where kinks crossed between -h and +h make error bars too wide to judge by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.convolutions.error_bars import Bars
from fastcheck_kernels import curved

CLOSER = 0.25
"""Each smaller step as a fraction of the one before."""

ROUNDS = 30
"""Number of smaller steps at most: at 2^-60 of the first, round-off would hide any kink left between."""


def closer(difference: Callable[[np.ndarray, float], np.ndarray], dims: np.ndarray, h: float, bars: Bars) -> np.ndarray:
    """Difference dimensions with a step, and again with smaller steps as long as that helps.

    Parameters
    ----------
    difference : callable
        Takes flat indices and a step, and returns a table with the columns of `fastcheck_kernels.curved`.
    dims : int64 array
    h : float
    bars : Bars
    """
    table = difference(dims, h)
    rows = bars.crossed(table)
    for _ in range(ROUNDS):
        if not rows.size:
            break
        h *= CLOSER
        again = difference(dims[rows], h)
        # With the step, the share of crossings falls and that of round-off rises: once the bar grows, it goes on to.
        better = again[:, curved.ROUNDING] < table[rows, curved.ROUNDING]
        table[rows[better]] = again[better]
        rows = rows[better]
        rows = rows[bars.crossed(table[rows])]
    return table
