"""One step for the entries of a tensor: two values each, with a bar that a few of them show to be right.

The step balances round-off against truncation for pilots, which were searched by themselves. With it, a two-sided
difference errs by its round-off and by what the pilots' truncation allows. An entry whose gradient agrees within that
bar is done; any other one is searched by itself, so that this bar never decides against a gradient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.functions.case import SMALL_ENTRY
from fastcheck.functions.entry import LEAST, EntryDifferencer, Tensor
from fastcheck.functions.levels import Levels, exponents_of
from fastcheck.functions.step_search import Search, exponent_of

MARGIN = 4 / 3
"""Factor on the pilots' median |D(2h) - D(h)|, which is three times the error of a smooth function's D(h)."""

MOST = -14
"""Largest step, as a power of two relative to an entry's reach: few kinks lie nearer."""

SHARP = 2.0**-23
"""Largest bar, as a fraction of the tensor's slopes, with which an entry is done: what a difference with the cube root
of the unit round-off as its step can do, for a function that varies on the scale of its argument."""

SHARP_VALUE = 1e-4
"""The same as a fraction of the entry's own derivative."""


class Shared(NamedTuple):
    """What differences with the shared step gave, entry by entry.

    Attributes
    ----------
    numeric, roundoff, truncation : float64 array
        The parts of the bar leave out the rounding of the gradient.
    slopes : float64 array
        What the bar is compared with.
    done : bool array
        Whether the entry needs no search.
    """

    numeric: np.ndarray
    roundoff: np.ndarray
    truncation: np.ndarray
    slopes: np.ndarray
    done: np.ndarray


class SharedStep:
    """The step that entries share.

    Parameters
    ----------
    tensor : Tensor
    pilots : sequence of (EntryDifferencer, Search)
    typical : int
        The pilots' typical step, as a power of two relative to an entry's reach.
    """

    def __init__(self, tensor: Tensor, pilots: Sequence[tuple[EntryDifferencer, Search]], typical: int) -> None:
        self._tensor, self._case = tensor, tensor.case
        self._analytic = tensor.case.grads[tensor.name].reshape(-1)
        round_offs, bends = [], []
        for entry, search in pilots:
            exponent = typical + exponent_of(entry.reach)
            near, far = search.level(exponent), search.level(exponent + 1)
            if near is not None and far is not None:
                round_offs.append(near.roundoff * entry.reach)
                bends.append(abs(far.central - near.central) * entry.reach)
        bend, round_off = (statistics.median([one for one in some if one] or [0.0]) for some in (bends, round_offs))
        self._exponent, self._truncation = typical, MARGIN * bend if bends else math.inf
        if 0 < self._truncation < math.inf and round_off:
            # Round-off grows as 1 / h, truncation as h^2: their sum is least where one is twice the other.
            self._lower(math.ceil((math.log2(2 * self._truncation) - math.log2(round_off)) / 3))
        self._lower(max(0, self._exponent - MOST))

    @np.errstate(all="ignore")
    def difference(self, dims: np.ndarray) -> Shared:
        """Difference entries, with two calls each."""
        x = self._tensor.values[dims]
        own, reach = np.abs(x), np.maximum(np.abs(x), self._tensor.size)
        exponents = self._exponent + exponents_of(reach)
        within = (exponents >= exponents_of(np.spacing(own)) + 2) & (exponents <= exponents_of(own) - 2)
        steps = np.ldexp(1.0, exponents)
        points = np.array([x + steps, x - steps])
        changes, noise = self._changes(dims, points)
        levels = Levels.of(x, points, changes, noise, np.ones(len(dims)))
        numeric, roundoff, truncation = levels.central[0], levels.roundoff[0], self._truncation / reach
        slope = np.abs(numeric) + np.abs(levels.jump[0]) / 2
        promised = self._case.promised
        slopes = np.maximum(promised / reach if promised else np.maximum(self._case.magnitude / reach, slope), slope)
        bar, analytic = roundoff + truncation, self._analytic[dims].astype(np.float64)
        sharp = (bar <= SHARP_VALUE * np.abs(numeric)) | ((slope == 0) & (analytic == 0))
        agrees = np.abs(analytic - numeric) <= bar + self._tensor.errors[dims]
        usual = within & (own >= SMALL_ENTRY * self._tensor.size)
        return Shared(numeric, roundoff, truncation, slopes, usual & sharp & (bar <= SHARP * slopes) & agrees)

    def _changes(self, dims: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the changes of the loss at two other values of each entry, and their standard deviation."""
        values, noise = self._case.moved(self._tensor.arrays(), self._tensor.name, dims, points, self._tensor.noises)
        largest = np.maximum(np.abs(values).max(0), abs(self._case.start))
        return values - self._case.start, np.maximum(np.maximum(noise, LEAST), U / 2 * largest)

    def _lower(self, powers: int) -> None:
        """Take a smaller step, by so many powers of two."""
        self._exponent -= powers
        self._truncation *= 4.0**-powers
