"""How many wrong dimensions a sample would have met."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

MISSED = 0.05
"""The chance of meeting none of so many wrong dimensions is to be no larger than this."""


def chance_of_none(total: int, drawn: int, wrong: int) -> float:
    """Return the chance that a sample has none of some wrong dimensions.

    It is C(total - wrong, drawn) / C(total, drawn), the hypergeometric distribution's, for draws without replacement
    that are all equally likely. A stratified sample is spread more evenly, and meets what shares an index sooner.

    Parameters
    ----------
    total, drawn, wrong : int
        Dimensions of a tensor, those of them that are checked, and those that are wrong.
    """
    fewer, more = sorted((drawn, wrong))
    if fewer + more > total:
        return 0.0
    # The same product for either order: of the smaller number of factors.
    return math.exp(float(np.log1p(-more / (total - np.arange(fewer))).sum()))


def least_met(total: int, drawn: int) -> int:
    """Return how many wrong dimensions a sample misses altogether with a chance of `MISSED` at most.

    Parameters
    ----------
    total, drawn : int
        Dimensions of a tensor, and those of them that are checked, at least one.
    """
    # (1 - wrong / total)^drawn is larger than the chance of none.
    most = min(total - drawn + 1, math.ceil(-math.log(MISSED) * total / drawn))
    limit = MISSED * (1 + 1e-9)  # chances that are equal to it are rounded to either side
    return 1 + bisect_left(range(1, most), True, key=lambda wrong: chance_of_none(total, drawn, wrong) <= limit)


def reach(total: int, drawn: int, name: str = "") -> str:
    """Say how many wrong dimensions a sample would have shown, `least_met`; of the tensor with this name."""
    of = f" of {name}" if name else ""
    certain = f"{100 * (1 - MISSED):.0f} %"
    return f"had {least_met(total, drawn):,} or more{of} been wrong, {certain} of samples would have met one"
