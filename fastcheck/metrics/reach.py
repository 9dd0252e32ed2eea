"""The number of wrong dimensions that a sample would not have missed."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

MISSED = 0.05
"""Largest chance with which a sample may miss all wrong dimensions."""


def chance_of_none(total: int, drawn: int, wrong: int) -> float:
    """Return the chance that a sample includes none of the wrong dimensions.

    It is C(total - wrong, drawn) / C(total, drawn), from the hypergeometric distribution, where all samples without
    replacement are equally likely. A stratified sample is spread more evenly, and finds mistakes that share an index
    sooner.

    Parameters
    ----------
    total, drawn, wrong : int
        Numbers of dimensions: of the tensor, of the sample, and of those that are wrong.
    """
    fewer, more = sorted((drawn, wrong))
    if fewer + more > total:
        return 0.0
    # Drawn and wrong may be exchanged: take the product with fewer factors.
    return math.exp(float(np.log1p(-more / (total - np.arange(fewer))).sum()))


def least_met(total: int, drawn: int) -> int:
    """Return the least number of wrong dimensions that a sample misses altogether with a chance of at most `MISSED`.

    Parameters
    ----------
    total, drawn : int
        Numbers of dimensions: of the tensor, and of the sample, at least one.
    """
    # (1 - wrong / total)^drawn is an upper bound of the chance, so the answer is no larger than where it is MISSED.
    most = min(total - drawn + 1, math.ceil(-math.log(MISSED) * total / drawn))
    limit = MISSED * (1 + 1e-9)  # a chance equal to MISSED may be rounded to either side
    return 1 + bisect_left(range(1, most), True, key=lambda wrong: chance_of_none(total, drawn, wrong) <= limit)


def reach(total: int, drawn: int, name: str = "") -> str:
    """Return `least_met` in words, for the tensor of this name."""
    of = f" of {name}" if name else ""
    share = f"{100 * (1 - MISSED):.0f} %"
    return f"had {least_met(total, drawn):,} or more{of} been wrong, {share} of samples would have included one"
