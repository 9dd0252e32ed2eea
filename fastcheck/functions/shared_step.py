"""One step for the entries of a tensor: two values each, with a bar that a few of them show to be right.

The step balances round-off against truncation for pilots, which were searched by themselves. With it, a two-sided
difference errs by its round-off and by what the pilots' truncation allows. An entry whose gradient agrees within that
bar is done; any other one is searched by itself, so that this bar never decides against a gradient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from fastcheck.functions.entry import EntryDifferencer
from fastcheck.functions.step_search import Estimate, Search, exponent_of

MARGIN = 4 / 3
"""Factor on the pilots' median |D(2h) - D(h)|, which is three times the error of a smooth function's D(h)."""

MOST = -14
"""Largest step, as a power of two relative to an entry's reach: few kinks lie nearer."""

SHARP = 2.0**-23
"""Largest bar, as a fraction of the tensor's slopes, with which an entry is done; what a difference with the cube root
of the unit round-off as its step can do, for a function that varies on the scale of its argument."""

SHARP_VALUE = 1e-4
"""The same as a fraction of the entry's own derivative."""


class SharedStep:
    """The step that entries share.

    Parameters
    ----------
    pilots : sequence of (EntryDifferencer, Search)
    typical : int
        The pilots' typical step, as a power of two relative to an entry's reach.
    """

    def __init__(self, pilots: Sequence[tuple[EntryDifferencer, Search]], typical: int) -> None:
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

    def _lower(self, powers: int) -> None:
        """Take a smaller step, by so many powers of two."""
        self._exponent -= powers
        self._truncation *= 4.0**-powers

    def estimate(self, entry: EntryDifferencer) -> Estimate | None:
        """Difference an entry; return None where its own search must decide."""
        exponent = self._exponent + exponent_of(entry.reach)
        if entry.small or not math.isfinite(self._truncation):
            return None
        level = entry.level(exponent)
        if level is None:
            return None
        slope = abs(level.central) + abs(level.jump) / 2
        truncation = self._truncation / entry.reach
        estimate = Estimate(level.central, level.roundoff, truncation, 0.0, level.step, 2, False, 0.0, slope)
        sharp = estimate.bar <= SHARP_VALUE * abs(level.central) or entry.is_zero(estimate)
        sharp = sharp and estimate.bar <= SHARP * entry.slope(estimate)
        return estimate if sharp and not entry.outside(estimate) else None
