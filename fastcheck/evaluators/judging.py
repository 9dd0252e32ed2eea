"""Blocks folded into tallies by a compiled kernel: `fastcheck.tally.fold`, at a twentieth of its time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastcheck import tally
from fastcheck.tally import BINS, WORST, Finding, ScaledSum, Tally
from fastcheck_kernels import judge


def _edges() -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of the digits' bins, and the first bin of every biased exponent."""
    edges = np.append(10.0 ** (-np.arange(BINS) / 4), [-1.0, -1.0])
    exponents = np.arange(2048) - 1023
    first = np.clip(np.floor(-4 * (exponents + 1) * math.log10(2)), 0, BINS - 1)
    return edges, first.astype(np.int64)


_EDGES, _FIRST = _edges()
_LAST = np.iinfo(np.int64).max


class Folded(NamedTuple):
    """A block, folded: the kernel's counts and reals, and the worst dimensions with what is known of them.

    ``first`` is the lowest flat index outside its bar, -1 without one. Where squares overflow or values are not
    finite, NumPy's tally stands in.
    """

    dims: int
    counts: np.ndarray
    reals: np.ndarray
    worst: np.ndarray
    values: np.ndarray
    first: int
    tally: Tally | None


def compile() -> None:
    """Compile the kernel in the caller's thread, where Ctrl-C is heard."""
    one = np.ones(1)
    fold(np.zeros(1, dtype=np.int64), one, one, one)


def fold(dims: np.ndarray, analytic: np.ndarray, numeric: np.ndarray, error_bar: np.ndarray) -> Folded:
    """Fold a block, given by arrays of one length."""
    counts = np.empty(judge.WORST + WORST + BINS, np.int64)
    reals = np.empty(judge.SEVERITY + WORST)
    judge.fold(analytic, numeric, error_bar, _EDGES, _FIRST, WORST, counts, reals)
    exact = None
    if not 1e-200 < reals[judge.DIFFERENCES] + reals[judge.TOTALS] < 1e200:
        order = np.argsort(dims)
        exact = tally.fold(dims[order], analytic[order], numeric[order], error_bar[order])
    places = counts[judge.WORST : judge.WORST + min(WORST, len(dims))]
    first = int(dims[np.abs(analytic - numeric) > error_bar].min(initial=_LAST)) if counts[judge.BEYOND] else -1
    values = np.stack([analytic[places], numeric[places], error_bar[places]])
    return Folded(len(dims), counts, reals, dims[places], values, first, exact)


def merge(folded: list[Folded]) -> Tally:
    """Add up blocks; the result does not depend on their order."""
    plain = [block for block in folded if block.tally is None]
    exact = [block.tally for block in folded if block.tally is not None]
    if plain:
        exact.append(_merged(plain))
    return tally.merge(exact)


def _merged(folded: list[Folded]) -> Tally:
    counts = np.sum([block.counts for block in folded], axis=0)
    reals = np.stack([block.reals for block in folded])
    worst = np.concatenate([block.worst for block in folded])
    severity = np.concatenate([block.reals[judge.SEVERITY :][: len(block.worst)] for block in folded])
    values = np.concatenate([block.values for block in folded], axis=1)
    order = np.lexsort((worst, -severity))[:WORST]
    columns = (worst[order], *values[:, order], severity[order])
    return Tally(
        dims=sum(block.dims for block in folded),
        unresolved=int(counts[judge.UNRESOLVED]),
        sign_mismatches=int(counts[judge.OPPOSITE]),
        beyond=int(counts[judge.BEYOND]),
        max_ratio=float(reals[:, judge.MAX_RATIO].max()),
        max_ratio_resolved=max(0.0, float(reals[:, judge.MAX_RESOLVED].max())),
        histogram=tuple(counts[judge.WORST + WORST :].tolist()),
        differences=tuple(ScaledSum(value, 0) for value in reals[:, judge.DIFFERENCES].tolist()),
        sums=tuple(ScaledSum(value, 0) for value in reals[:, judge.TOTALS].tolist()),
        first_beyond=min((block.first for block in folded if block.first >= 0), default=None),
        worst=tuple(Finding(*row) for row in zip(*(column.tolist() for column in columns), strict=True)),
    )
