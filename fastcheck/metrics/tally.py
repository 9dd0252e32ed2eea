"""Metrics of a tensor that merge: threads, machines and resumed runs are all the same operation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

MOST_DIGITS = 16
"""More decimal digits than double precision has: where two numbers agree entirely, this many are counted."""

BINS = 4 * MOST_DIGITS + 1
"""Quarter-digit bins of the histogram; the last one holds entire agreement."""

WORST = 10
"""Dimensions that a report lists."""


class Finding(NamedTuple):
    """One dimension: its flat index, analytic and numeric value, error bar (nan where unknown) and rank.

    ``undecided`` tells that it lies inside a bar too wide to judge by.
    """

    dim: int
    analytic: float
    numeric: float
    error_bar: float
    severity: float
    undecided: bool = False


class ScaledSum(NamedTuple):
    """The number ``value * 4 ** exponent``: a sum of squares that neither overflows nor underflows."""

    value: float
    exponent: int


@dataclass(frozen=True)
class Tally:
    """What is known of some dimensions of a tensor.

    Attributes
    ----------
    dims : int
        Dimensions folded in.
    unresolved, sign_mismatches, beyond, non_finite : int
        Dimensions whose values do not exceed the error bar; resolved ones of opposite sign; ones outside the error
        bar; ones whose analytic value is nan or infinite (counted as outside too).
    max_ratio, max_ratio_resolved : float
        The largest |a - n| / max(|a|, |n|), over all and over resolved dimensions.
    histogram : tuple of int
        Resolved dimensions by quarter digits of agreement.
    differences, sums : tuple of ScaledSum
        Sums of (a - n)^2 and of (a + n)^2, one for each block: they are finished exactly, in any order.
    first_beyond : int or None
        The lowest flat index outside the error bar.
    worst : tuple of Finding
        The most severe first.
    least : Finding or None
        The resolved dimension that agrees in the fewest digits.
    kinks, excluded : int
        Dimensions whose differences cross a kink, and ones left out for it (not among ``dims``).
    undecided, subgradients : int
        Dimensions inside bars too wide to judge by, and ones that lie inside for a kink at the point itself.
    widest : Finding or None
        The undecided dimension with the widest bar.
    hidden : int
        Unresolved dimensions whose analytic value is not zero.
    at_kink : int
        Unresolved dimensions at a kink in the point itself, whose slopes their bars hold: they may be far from zero.
    automatic : int
        Dimensions at a kink in the point itself that have what automatic differentiation makes of it, which no slope of
        the loss is.
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
    undecided: int = 0
    subgradients: int = 0
    widest: Finding | None = None
    hidden: int = 0
    at_kink: int = 0
    automatic: int = 0

    def compact(self) -> Tally:
        """Return the same with sums as few numbers: those over many blocks, to the last bit."""
        return replace(self, differences=_compact(self.differences), sums=_compact(self.sums))

    @property
    def typical(self) -> float:
        """Root mean square of (a + n) / 2."""
        total, exponent = _norm(self.sums)
        with np.errstate(over="ignore", under="ignore"):
            return float(np.ldexp(total / 2 / math.sqrt(max(self.dims, 1)), exponent))

    @property
    def vanishes(self) -> bool:
        """Whether every value is exactly zero, analytic and numeric."""
        return _norm(self.sums)[0] == 0 == _norm(self.differences)[0]

    @property
    def norm_ratio(self) -> float:
        """Norm of a - n over norm of a + n, 0 where both are all zero."""
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
        """Digits of the resolved dimension that agrees least, None where nothing is resolved."""
        return float(digits(np.array(self.max_ratio_resolved))) if sum(self.histogram) else None

    @property
    def median_digits(self) -> float | None:
        """Lower edge of the quarter-digit bin that holds the median, None where nothing is resolved."""
        resolved = sum(self.histogram)
        if not resolved:
            return None
        return int(np.searchsorted(np.cumsum(self.histogram), (resolved + 1) // 2)) / 4


def exactly(values: Iterable[float]) -> tuple[float, ...]:
    """Return few numbers whose sum is exactly that of the values, by Shewchuk (1997), "Adaptive Precision".

    Values that are not finite, or overflow together, are returned as they are.
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
    """Return few numbers for every exponent."""
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
        found: np.ndarray = np.clip(-np.log10(ratio), 0.0, MOST_DIGITS)
    return found


def relative_difference(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Return |a - n| / max(|a|, |n|): 0 where both are 0, infinity where either is not finite."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        larger = np.maximum(np.abs(analytic), np.abs(numeric))
        # Divided before subtracted, where the difference itself overflows.
        far = larger > 1e300
        plain = np.abs(analytic - numeric) / np.where(larger > 0, larger, 1.0)
        ratio = np.where(far, np.abs(analytic / larger - numeric / larger), plain)
    found: np.ndarray = np.where(np.isfinite(larger), ratio, np.inf)
    return found


def relative_difference_of(analytic: float, numeric: float) -> float:
    """Return the same of one pair, to the last bit: an array of one would take as long as one of a thousand."""
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
    undecided: np.ndarray | None = None,
) -> Tally:
    """Make the tally of one block.

    Parameters
    ----------
    dims : int64 array
        Flat indices, ascending.
    analytic, numeric : float64 arrays
    error_bar : float64 array or None
        None where only the two arrays are known: then every dimension but exact zeros counts as resolved, none as
        outside, and severity is \\|a - n\\| itself.
    undecided : bool array, optional
        Dimensions inside bars too wide to judge by.
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
        # The sign alone, since a product of small numbers underflows.
        opposite = resolved & (np.sign(analytic) * np.sign(numeric) < 0)
    bars = np.full(len(dims), np.nan) if error_bar is None else error_bar
    bins = (digits(ratio[resolved]) * 4).astype(np.int64)
    difference_sum, total_sum = _squares(analytic, numeric)
    undecided = np.zeros(len(dims), dtype=bool) if undecided is None else undecided
    lowest = [int(np.argmax(np.where(resolved, ratio, -1.0)))] if resolved.any() else []
    wide = widest(undecided, dims, bars)
    columns = (dims, analytic, numeric, bars, severity, undecided)
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
        undecided=int(np.count_nonzero(undecided)),
        widest=None if wide is None else findings([wide], *columns)[0],
        hidden=int(np.count_nonzero(~resolved & (analytic != 0))),
    )


def merge(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies; the result does not depend on their order."""
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
        undecided=sum(part.undecided for part in parts),
        subgradients=sum(part.subgradients for part in parts),
        widest=widest_of(part.widest for part in parts),
        hidden=sum(part.hidden for part in parts),
        at_kink=sum(part.at_kink for part in parts),
        automatic=sum(part.automatic for part in parts),
        worst=most_severe(finding for part in parts for finding in part.worst),
    )


def most_severe(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the most severe findings, the lowest dimension first of equals."""
    return tuple(heapq.nsmallest(WORST, found, key=lambda finding: (-finding.severity, finding.dim)))


def least(found: Iterable[Finding | None]) -> Finding | None:
    """Return the finding that agrees in the fewest digits."""

    def rank(finding: Finding) -> tuple[float, int]:
        return -relative_difference_of(finding.analytic, finding.numeric), finding.dim

    return min((finding for finding in found if finding is not None), key=rank, default=None)


def widest_of(found: Iterable[Finding | None]) -> Finding | None:
    """Return the finding with the widest bar."""
    present = (finding for finding in found if finding is not None)
    return max(present, key=lambda finding: (finding.error_bar, -finding.dim), default=None)


def findings(places: Iterable[int], *columns: np.ndarray) -> tuple[Finding, ...]:
    """Return the findings at some places of arrays: dims, analytic, numeric, bars, severities and undecided."""
    return tuple(Finding(*(column[place].item() for column in columns)) for place in places)


def widest(undecided: np.ndarray, dims: np.ndarray, bars: np.ndarray) -> int | None:
    """Return the place of the undecided dimension with the widest bar."""
    places = np.flatnonzero(undecided)
    return int(places[np.lexsort((dims[places], -bars[places]))[0]]) if len(places) else None


def _squares(analytic: np.ndarray, numeric: np.ndarray) -> tuple[ScaledSum, ScaledSum]:
    """Return the sums of (a - n)^2 and (a + n)^2."""
    with np.errstate(over="ignore", invalid="ignore"):
        largest = max(np.abs(analytic).max(initial=0.0), np.abs(numeric).max(initial=0.0))
        if largest == 0:
            return ScaledSum(0.0, 0), ScaledSum(0.0, 0)  # a dot product of many would wake BLAS's threads
        shift = 8 if 1e300 < largest < math.inf else 0  # keeps a + n itself from overflowing
        a, n = (np.ldexp(analytic, -shift), np.ldexp(numeric, -shift)) if shift else (analytic, numeric)
        return _sum_of_squares(a - n, shift), _sum_of_squares(a + n, shift)


def _sum_of_squares(values: np.ndarray, shift: int) -> ScaledSum:
    """Sum squares of values * 2^shift, scaled only where squares would overflow or underflow."""
    # `dot`, as in numpy.linalg.norm, so that two arrays in one block give NumPy's own norms to the last bit.
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
    """Return the root of a sum of squares as (value, exponent): value * 2^exponent."""
    parts = [entry for entry in sums if entry.value != 0]
    if any(not math.isfinite(entry.value) for entry in parts):
        return (math.nan if any(math.isnan(entry.value) for entry in parts) else math.inf), 0
    if not parts:
        return 0.0, 0
    top = max(entry.exponent for entry in parts)
    return math.sqrt(math.fsum(math.ldexp(entry.value, 2 * (entry.exponent - top)) for entry in parts)), top
