"""Smaller steps, where kinks that are crossed between -h and +h make error bars too wide to judge by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.convolutions.error_bars import Bars
from fastcheck_kernels import curved

CLOSER = 0.25
"""The next step, as a part of the one before."""

ROUNDS = 30
"""Smaller steps at most: with one of 2^-60, nothing that is left outside could still be told apart."""


def closer(difference: Callable[[np.ndarray, float], np.ndarray], dims: np.ndarray, h: float, bars: Bars) -> np.ndarray:
    """Difference dimensions with a step, and again with smaller ones while that helps.

    Parameters
    ----------
    difference : callable
        Takes flat indices and a step, and returns a table of `fastcheck_kernels.curved`'s columns.
    dims : int64 array
    h : float
    bars : Bars
    """
    table = difference(dims, h)
    places = bars.crossed(table)
    for _ in range(ROUNDS):
        if not places.size:
            break
        h *= CLOSER
        again = difference(dims[places], h)
        # What crossings take falls with the step and round-off rises, so that once that is worse the next one is, too.
        better = again[:, curved.ROUNDING] < table[places, curved.ROUNDING]
        table[places[better]] = again[better]
        places = places[better]
        places = places[bars.crossed(table[places])]
    return table
