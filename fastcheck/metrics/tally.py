"""Metrics of a tensor that can be merged: threads, machines and resumed runs all use the same operation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

MOST_DIGITS = 16
"""Digits counted where two numbers agree entirely: more than double precision has."""

BINS = 4 * MOST_DIGITS + 1
"""Number of quarter-digit bins in the histogram; the last one holds entire agreement."""

WORST = 10
"""Number of worst dimensions that a report lists."""


class Finding(NamedTuple):
    """One dimension: flat index, analytic and numeric value, error bar (nan where unknown), and severity, its rank.

    ``inconclusive`` is whether it lies inside a bar too wide to judge by.
    """

    dim: int
    analytic: float
    numeric: float
    error_bar: float
    severity: float
    inconclusive: bool = False


class ScaledSum(NamedTuple):
    """A sum of squares, ``value * 4 ** exponent``, which neither overflows nor underflows."""

    value: float
    exponent: int


@dataclass(frozen=True)
class Tally:
    """Metrics of some dimensions of a tensor.

    Attributes
    ----------
    dims : int
        Number of dimensions folded in.
    unresolved, sign_mismatches, beyond, non_finite : int
        Numbers of dimensions whose values do not exceed the error bar; resolved ones of opposite sign; ones outside the
        error bar; ones whose analytic value is nan or infinite (counted as outside too).
    max_ratio, max_ratio_resolved : float
        The largest |a - n| / max(|a|, |n|), over all and over resolved dimensions.
    histogram : tuple of int
        Resolved dimensions by quarter digits of agreement.
    differences, sums : tuple of ScaledSum
        Sums of (a - n)^2 and of (a + n)^2, one for each block. They are added up exactly, so their order is irrelevant.
    first_beyond : int or None
        The lowest flat index outside the error bar.
    worst : tuple of Finding
        The most severe dimensions, the worst first.
    least : Finding or None
        The resolved dimension that agrees in the fewest digits.
    kinks, excluded : int
        Numbers of dimensions whose differences cross a kink, and of those left out for it (not among ``dims``).
    inconclusive, subgradients : int
        Numbers of dimensions inside bars too wide to judge by, and of those inside only because of a kink at the point.
    widest : Finding or None
        The dimension inside a bar too wide to judge by whose bar is the widest.
    hidden : int
        Number of unresolved dimensions whose analytic value is not zero.
    at_kink : int
        Number of unresolved dimensions at a kink in the point itself. Their bars span its slopes, so their values may
        be far from zero.
    automatic : int
        Number of dimensions at a kink in the point itself whose analytic value is that of automatic differentiation,
        and not a slope of the loss.
    """

    dims: int = 0
    unresolved: int = 0
    sign_mismatches: int = 0
    beyond: int = 0
    non_finite: int = 0
    max_ratio: float = 0.0
    max_ratio_resolved: float = 0.0
    histogram: tuple[int, ...] = (0,) * BINS
    differences: tuple[ScaledSum, ...] = field(default=())
    sums: tuple[ScaledSum, ...] = field(default=())
    first_beyond: int | None = None
    worst: tuple[Finding, ...] = ()
    least: Finding | None = None
    kinks: int = 0
    excluded: int = 0
    inconclusive: int = 0
    subgradients: int = 0
    widest: Finding | None = None
    hidden: int = 0
    at_kink: int = 0
    automatic: int = 0

    def compact(self) -> Tally:
        """Return the same tally with as few sums as possible, equal to those of all blocks to the last bit."""
        return replace(self, differences=_compact(self.differences), sums=_compact(self.sums))

    @property
    def typical(self) -> float:
        """The root mean square of (a + n) / 2."""
        total, exponent = _norm(self.sums)
        with np.errstate(over="ignore", under="ignore"):
            return float(np.ldexp(total / 2 / math.sqrt(max(self.dims, 1)), exponent))

    @property
    def vanishes(self) -> bool:
        """Whether every value is exactly zero, analytic and numeric."""
        return _norm(self.sums)[0] == 0 == _norm(self.differences)[0]

    @property
    def norm_ratio(self) -> float:
        """The norm of a - n over the norm of a + n, 0 where both are all zero."""
        difference, difference_exponent = _norm(self.differences)
        total, total_exponent = _norm(self.sums)
        if difference == 0 and total == 0:
            return 0.0
        if total == 0:
            return math.inf
        ratio = difference / total
        shift = difference_exponent - total_exponent
        with np.errstate(over="ignore", under="ignore"):
            return float(np.ldexp(ratio, shift))

    @property
    def min_digits(self) -> float | None:
        """The digits of the resolved dimension that agrees least, None where nothing is resolved."""
        return float(digits(np.array(self.max_ratio_resolved))) if sum(self.histogram) else None

    @property
    def median_digits(self) -> float | None:
        """The lower edge of the quarter-digit bin that holds the median, None where nothing is resolved."""
        resolved = sum(self.histogram)
        if not resolved:
            return None
        return int(np.searchsorted(np.cumsum(self.histogram), (resolved + 1) // 2)) / 4


def exactly(values: Iterable[float]) -> tuple[float, ...]:
    """Return few numbers with exactly the same sum as the values, by Shewchuk (1997), "Adaptive Precision".

    Values that are not finite, or whose sum overflows, are returned unchanged.
    """
    given, partials = tuple(values), list[float]()
    for value in given:
        kept = []
        for other in partials:
            larger, smaller = (value, other) if abs(value) >= abs(other) else (other, value)
            value = larger + smaller
            if low := smaller - (value - larger):
                kept.append(low)
        partials = [*kept, value] if value else kept
    return tuple(partials) if all(map(math.isfinite, partials)) else given


def _compact(sums: tuple[ScaledSum, ...]) -> tuple[ScaledSum, ...]:
    """Replace the sums of each exponent by few numbers with the same total."""
    ordered = sorted(sums, key=lambda entry: entry.exponent)
    groups = groupby(ordered, key=lambda entry: entry.exponent)
    return tuple(
        ScaledSum(value, exponent)
        for exponent, entries in groups
        for value in exactly(entry.value for entry in entries)
    )


def digits(ratio: np.ndarray) -> np.ndarray:
    """Return -log10 of a relative difference, between 0 and `MOST_DIGITS`."""
    with np.errstate(divide="ignore"):
        clipped: np.ndarray = np.clip(-np.log10(ratio), 0.0, MOST_DIGITS)
    return clipped


def relative_difference(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Return |a - n| / max(|a|, |n|): 0 where both are 0, infinity where either is not finite."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        larger = np.maximum(np.abs(analytic), np.abs(numeric))
        # Where the difference itself would overflow, divide before subtracting.
        huge = larger > 1e300
        plain = np.abs(analytic - numeric) / np.where(larger > 0, larger, 1.0)
        ratio = np.where(huge, np.abs(analytic / larger - numeric / larger), plain)
    return np.where(np.isfinite(larger), ratio, np.inf)


def relative_difference_of(analytic: float, numeric: float) -> float:
    """Return the same for one pair, to the last bit: an array of one entry takes as long as one of a thousand."""
    larger = max(abs(analytic), abs(numeric))
    if not (math.isfinite(analytic) and math.isfinite(numeric)):
        return math.inf
    if larger > 1e300:
        return abs(analytic / larger - numeric / larger)
    return abs(analytic - numeric) / larger if larger else 0.0


def fold(
    dims: np.ndarray,
    analytic: np.ndarray,
    numeric: np.ndarray,
    error_bar: np.ndarray | None,
    inconclusive: np.ndarray | None = None,
) -> Tally:
    """Fold one block into a tally.

    Parameters
    ----------
    dims : int64 array
        Flat indices, ascending.
    analytic, numeric : float64 arrays
    error_bar : float64 array or None
        None where only the two arrays are known. Then every dimension except exact zeros counts as resolved, none as
        outside, and severity is \\|a - n\\| itself.
    inconclusive : bool array, optional
        Whether each dimension lies inside a bar too wide to judge by.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        difference = np.abs(analytic - numeric)
        larger = np.maximum(np.abs(analytic), np.abs(numeric))
        finite = np.isfinite(analytic) & np.isfinite(numeric)
        ratio = relative_difference(analytic, numeric)
        if error_bar is None:
            resolved = larger > 0
            beyond = np.zeros(len(dims), dtype=bool)
            severity = np.where(finite, difference, np.inf)
        else:
            resolved = ~(larger <= error_bar)
            beyond = ~(difference <= error_bar) | ~finite
            severity = np.where(beyond & (error_bar == 0), np.inf, difference / np.where(error_bar > 0, error_bar, 1.0))
            severity = np.where(finite, severity, np.inf)
        # By signs alone, since a product of small numbers underflows.
        opposite = resolved & (np.sign(analytic) * np.sign(numeric) < 0)
    bars = np.full(len(dims), np.nan) if error_bar is None else error_bar
    bins = (digits(ratio[resolved]) * 4).astype(np.int64)
    difference_sum, total_sum = _squares(analytic, numeric)
    inconclusive = np.zeros(len(dims), dtype=bool) if inconclusive is None else inconclusive
    lowest = [int(np.argmax(np.where(resolved, ratio, -1.0)))] if resolved.any() else []
    wide = widest(inconclusive, dims, bars)
    columns = (dims, analytic, numeric, bars, severity, inconclusive)
    return Tally(
        dims=len(dims),
        unresolved=int(np.count_nonzero(~resolved)),
        sign_mismatches=int(np.count_nonzero(opposite)),
        beyond=int(np.count_nonzero(beyond)),
        non_finite=int(np.count_nonzero(~np.isfinite(analytic))),
        max_ratio=float(ratio.max(initial=0.0)),
        max_ratio_resolved=float(ratio[resolved].max(initial=0.0)),
        histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
        differences=(difference_sum,),
        sums=(total_sum,),
        first_beyond=int(dims[beyond][0]) if beyond.any() else None,
        worst=findings(np.lexsort((dims, -severity))[:WORST], *columns),
        least=next(iter(findings(lowest, *columns)), None),
        inconclusive=int(np.count_nonzero(inconclusive)),
        widest=None if wide is None else findings([wide], *columns)[0],
        hidden=int(np.count_nonzero(~resolved & (analytic != 0))),
    )


def merge(tallies: Iterable[Tally]) -> Tally:
    """Merge tallies; the result does not depend on their order."""
    parts = list(tallies)
    if not parts:
        return Tally()
    firsts = [part.first_beyond for part in parts if part.first_beyond is not None]
    return Tally(
        dims=sum(part.dims for part in parts),
        unresolved=sum(part.unresolved for part in parts),
        sign_mismatches=sum(part.sign_mismatches for part in parts),
        beyond=sum(part.beyond for part in parts),
        non_finite=sum(part.non_finite for part in parts),
        max_ratio=max(part.max_ratio for part in parts),
        max_ratio_resolved=max(part.max_ratio_resolved for part in parts),
        histogram=tuple(np.sum([part.histogram for part in parts], axis=0).tolist()),
        differences=tuple(entry for part in parts for entry in part.differences),
        sums=tuple(entry for part in parts for entry in part.sums),
        first_beyond=min(firsts, default=None),
        least=least(part.least for part in parts),
        kinks=sum(part.kinks for part in parts),
        excluded=sum(part.excluded for part in parts),
        inconclusive=sum(part.inconclusive for part in parts),
        subgradients=sum(part.subgradients for part in parts),
        widest=widest_of(part.widest for part in parts),
        hidden=sum(part.hidden for part in parts),
        at_kink=sum(part.at_kink for part in parts),
        automatic=sum(part.automatic for part in parts),
        worst=most_severe(finding for part in parts for finding in part.worst),
    )


def most_severe(candidates: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the `WORST` most severe findings; of equally severe ones, the lowest flat index comes first."""
    return tuple(heapq.nsmallest(WORST, candidates, key=lambda finding: (-finding.severity, finding.dim)))


def least(candidates: Iterable[Finding | None]) -> Finding | None:
    """Return the finding that agrees in the fewest digits."""

    def rank(finding: Finding) -> tuple[float, int]:
        return -relative_difference_of(finding.analytic, finding.numeric), finding.dim

    return min((finding for finding in candidates if finding is not None), key=rank, default=None)


def widest_of(candidates: Iterable[Finding | None]) -> Finding | None:
    """Return the finding with the widest bar."""
    present = (finding for finding in candidates if finding is not None)
    return max(present, key=lambda finding: (finding.error_bar, -finding.dim), default=None)


def findings(rows: Iterable[int], *columns: np.ndarray) -> tuple[Finding, ...]:
    """Return the findings in some rows of columns: dims, analytic, numeric, bars, severities and inconclusive."""
    return tuple(Finding(*(column[row].item() for column in columns)) for row in rows)


def widest(inconclusive: np.ndarray, dims: np.ndarray, bars: np.ndarray) -> int | None:
    """Return the row of the inconclusive dimension with the widest bar."""
    rows = np.flatnonzero(inconclusive)
    return int(rows[np.lexsort((dims[rows], -bars[rows]))[0]]) if len(rows) else None


def _squares(analytic: np.ndarray, numeric: np.ndarray) -> tuple[ScaledSum, ScaledSum]:
    """Return the sums of (a - n)^2 and (a + n)^2."""
    with np.errstate(over="ignore", invalid="ignore"):
        largest = max(np.abs(analytic).max(initial=0.0), np.abs(numeric).max(initial=0.0))
        if largest == 0:
            return ScaledSum(0.0, 0), ScaledSum(0.0, 0)  # a long dot product would wake BLAS's threads for nothing
        shift = 8 if 1e300 < largest < math.inf else 0  # so that a + n itself does not overflow
        a, n = (np.ldexp(analytic, -shift), np.ldexp(numeric, -shift)) if shift else (analytic, numeric)
        return _sum_of_squares(a - n, shift), _sum_of_squares(a + n, shift)


def _sum_of_squares(values: np.ndarray, shift: int) -> ScaledSum:
    """Return the sum of squares of values * 2^shift, scaled only where squares would overflow or underflow."""
    # With `dot`, as in numpy.linalg.norm, two arrays of a single block give NumPy's own norms to the last bit.
    plain = float(np.dot(values, values))
    if 1e-280 < plain < math.inf or math.isnan(plain):
        return ScaledSum(plain, shift)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or math.isinf(largest):
        return ScaledSum(largest, 0)
    exponent = math.frexp(largest)[1]
    scaled = np.ldexp(values, -exponent)
    return ScaledSum(float(np.dot(scaled, scaled)), exponent + shift)


def _norm(sums: tuple[ScaledSum, ...]) -> tuple[float, int]:
    """Return the root of a sum of squares, value * 2^exponent, as (value, exponent)."""
    nonzero = [entry for entry in sums if entry.value != 0]
    if any(not math.isfinite(entry.value) for entry in nonzero):
        return (math.nan if any(math.isnan(entry.value) for entry in nonzero) else math.inf), 0
    if not nonzero:
        return 0.0, 0
    top = max(entry.exponent for entry in nonzero)
    return math.sqrt(math.fsum(math.ldexp(entry.value, 2 * (entry.exponent - top)) for entry in nonzero)), top
