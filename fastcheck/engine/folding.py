"""Blocks folded into tallies by a compiled kernel: `fastcheck.metrics.tally.fold`, at a twentieth of its time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import WIDE
from fastcheck.engine.differences import Differences
from fastcheck.engine.shard_results import AuditRecord, ShardResult
from fastcheck.metrics import tally
from fastcheck.metrics.tally import BINS, WORST, Finding, ScaledSum, Tally
from fastcheck.reports.tensor_report import Kept
from fastcheck_kernels import fold as fold_kernel


def _edges() -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of the digits' bins, and the first bin of every biased exponent."""
    edges = np.append(10.0 ** (-np.arange(BINS) / 4), [-1.0, -1.0])
    exponents = np.arange(2048) - 1023
    first = np.clip(np.floor(-4 * (exponents + 1) * math.log10(2)), 0, BINS - 1)
    return edges, first.astype(np.int64)


_EDGES, _FIRST = _edges()

COUNTS = ("subgradients", "automatic", "hidden", "at_kink")
"""Counts of a block that the kernel does not make."""

_LAST = np.iinfo(np.int64).max


class FoldedBlock(NamedTuple):
    """A block, folded: the kernel's counts and reals, and the dimensions that a report lists.

    ``first`` is the lowest flat index outside its bar, -1 without one. Where squares overflow or values are not
    finite, NumPy's tally stands in.
    """

    dims: int
    counts: np.ndarray
    reals: np.ndarray
    worst: tuple[Finding, ...]
    least: Finding | None
    widest: Finding | None
    first: int
    inconclusive: int
    subgradients: int
    automatic: int
    hidden: int
    at_kink: int
    tally: Tally | None
    kinks: int = 0
    excluded: int = 0
    noted: AuditRecord | None = None
    kept: Kept | None = None

    @property
    def reached(self) -> int:
        """Dimensions that were differenced, those left out for a kink among them."""
        return self.dims + self.excluded


def compile_kernels() -> None:
    """Compile the kernel in the caller's thread, where Ctrl-C is heard."""
    one = np.ones(1)
    fold(Differences(np.zeros(1, dtype=np.int64), one, one), one)


@np.errstate(over="ignore", invalid="ignore")
def fold(differences: Differences, analytic: np.ndarray) -> FoldedBlock:
    """Fold a block, whose analytic values are float64, in the order of ``differences.dims``."""
    dims, numeric, error_bar = differences.dims, differences.numeric, differences.error_bar
    counts = np.empty(fold_kernel.WORST + WORST + BINS, np.int64)
    reals = np.empty(fold_kernel.SEVERITY + WORST)
    fold_kernel.fold(analytic, numeric, error_bar, _EDGES, _FIRST, WORST, counts, reals)
    inconclusive = _inconclusive(differences, analytic)
    exact = None
    whole = 1e-200 < reals[fold_kernel.DIFFERENCES] + reals[fold_kernel.TOTALS] < 1e200
    if not whole and (numeric.any() or analytic.any()):
        order = np.argsort(dims)
        masked = None if inconclusive is None else inconclusive[order]
        exact = tally.fold(dims[order], analytic[order], numeric[order], error_bar[order], masked)
    worst = counts[fold_kernel.WORST : fold_kernel.WORST + min(WORST, len(dims))].tolist()
    severity = dict(zip(worst, reals[fold_kernel.SEVERITY :].tolist(), strict=False))
    first = int(dims[np.abs(analytic - numeric) > error_bar].min(initial=_LAST)) if counts[fold_kernel.BEYOND] else -1
    least = int(counts[fold_kernel.LEAST_DIGITS])
    wide = None if inconclusive is None else tally.widest(inconclusive, dims, error_bar)
    positions = {*worst, *([least] if least >= 0 else []), *([] if wide is None else [wide])}
    listed = _findings(positions, (dims, analytic, numeric, error_bar), severity, inconclusive)
    return FoldedBlock(
        len(dims),
        counts,
        reals,
        tuple(listed[position] for position in worst),
        listed.get(least),
        None if wide is None else listed[wide],
        first,
        0 if inconclusive is None else int(np.count_nonzero(inconclusive)),
        _subgradients(differences, analytic),
        0 if differences.automatic is None else int(np.count_nonzero(differences.automatic)),
        _hidden(differences, analytic) if counts[fold_kernel.UNRESOLVED] else 0,
        _at_kink(differences, analytic) if counts[fold_kernel.UNRESOLVED] else 0,
        exact,
    )


def _findings(
    positions: Iterable[int],
    columns: tuple[np.ndarray, ...],
    severity: dict[int, float],
    inconclusive: np.ndarray | None,
) -> dict[int, Finding]:
    """Return the findings at some positions, by position. ``columns`` are dims, analytic, numeric and error bars."""
    dims, analytic, numeric, bars = columns
    return {
        position: Finding(
            dims.item(position),
            analytic.item(position),
            numeric.item(position),
            bars.item(position),
            severity.get(position, 0.0),
            inconclusive is not None and inconclusive.item(position),
        )
        for position in positions
    }


def _inconclusive(differences: Differences, analytic: np.ndarray) -> np.ndarray | None:
    """Mark dimensions inside bars that are wide beside their terms and beside their own values; None without any."""
    if differences.too_wide is None:
        return None
    larger = np.maximum(np.abs(analytic), np.abs(differences.numeric))
    inside = np.abs(analytic - differences.numeric) <= differences.error_bar
    bar = differences.error_bar if differences.jump is None else differences.error_bar - differences.jump
    inconclusive: np.ndarray = differences.too_wide & inside & ~(bar <= WIDE * larger)
    return inconclusive if inconclusive.any() else None


def _subgradients(differences: Differences, analytic: np.ndarray) -> int:
    """Count dimensions that the slopes at a kink in the point itself explain, and nothing else."""
    if differences.jump is None or not differences.jump.any():
        return 0
    difference = np.abs(analytic - differences.numeric)
    explained = (difference <= differences.error_bar) & (difference > differences.error_bar - differences.jump)
    return int(np.count_nonzero(explained if differences.automatic is None else explained & ~differences.automatic))


def _hidden(differences: Differences, analytic: np.ndarray) -> int:
    """Count dimensions whose analytic value is not zero and does not exceed the bar, and neither does the numeric.

    Of a kink at the point the slopes are known, and hide nothing.
    """
    larger = np.maximum(np.abs(analytic), np.abs(differences.numeric))
    bar = differences.error_bar if differences.jump is None else differences.error_bar - differences.jump
    return int(np.count_nonzero((analytic != 0) & (larger <= bar)))


def _at_kink(differences: Differences, analytic: np.ndarray) -> int:
    """Count dimensions at a kink in the point itself whose values do not exceed the bar."""
    if differences.jump is None or not differences.jump.any():
        return 0
    larger = np.maximum(np.abs(analytic), np.abs(differences.numeric))
    return int(np.count_nonzero((differences.jump > 0) & (larger <= differences.error_bar)))


def merge(folded: Sequence[FoldedBlock]) -> Tally:
    """Add up blocks; the result does not depend on their order."""
    plain = [block for block in folded if block.tally is None]
    exact = [block.tally for block in folded if block.tally is not None]
    if plain:
        exact.append(_merged(plain))
    merged = tally.merge(exact)
    known = {name: sum(getattr(block, name) for block in folded) for name in COUNTS}
    return replace(merged, **known)


def joined(blocks: Sequence[FoldedBlock]) -> ShardResult:
    """Make one shard's result of its blocks."""
    noted = [block.noted for block in blocks if block.noted is not None]
    kept = [block.kept for block in blocks if block.kept is not None]
    kinks, excluded = sum(block.kinks for block in blocks), sum(block.excluded for block in blocks)
    return ShardResult(
        replace(merge(blocks), kinks=kinks, excluded=excluded),
        AuditRecord.merged(noted) if noted else None,
        Kept.joined(kept) if kept else None,
    )


def _merged(folded: list[FoldedBlock]) -> Tally:
    counts = np.sum([block.counts for block in folded], axis=0)
    reals = np.stack([block.reals for block in folded])
    return Tally(
        dims=sum(block.dims for block in folded),
        unresolved=int(counts[fold_kernel.UNRESOLVED]),
        sign_mismatches=int(counts[fold_kernel.OPPOSITE]),
        beyond=int(counts[fold_kernel.BEYOND]),
        max_ratio=float(reals[:, fold_kernel.MAX_RATIO].max()),
        max_ratio_resolved=max(0.0, float(reals[:, fold_kernel.MAX_RESOLVED].max())),
        histogram=tuple(counts[fold_kernel.WORST + WORST :].tolist()),
        differences=tuple(ScaledSum(value, 0) for value in reals[:, fold_kernel.DIFFERENCES].tolist()),
        sums=tuple(ScaledSum(value, 0) for value in reals[:, fold_kernel.TOTALS].tolist()),
        first_beyond=min((block.first for block in folded if block.first >= 0), default=None),
        inconclusive=sum(block.inconclusive for block in folded),
        worst=tally.most_severe(finding for block in folded for finding in block.worst),
        least=tally.least(block.least for block in folded),
        widest=tally.widest_of(block.widest for block in folded),
    )
