"""Dimensions folded into counts, sums and a histogram, in one pass: in NumPy it took longer than the differences."""

from __future__ import annotations

import numpy as np

from ._jit import kernel

(UNRESOLVED, OPPOSITE, BEYOND, LEAST_DIGITS, WORST) = range(5)
"""Places in the counts of `fold`: `LEAST_DIGITS` is the place of the resolved dimension that agrees least; from `WORST`
on come the places of the worst dimensions, and then the histogram."""

(MAX_RATIO, MAX_RESOLVED, DIFFERENCES, TOTALS, SEVERITY) = range(5)
"""Places in the reals of `fold`: severities of the worst dimensions begin at `SEVERITY`."""


@kernel("reassoc", "contract")
def _compare(analytic, numeric, bar, ratio, resolved_ratio, counts, reals):
    """Write the ratio of every dimension, once more with -1 for unresolved ones, and add to counts and sums."""
    unresolved, opposite, beyond, differences, totals = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(ratio.size):
        a, n, b = analytic[i], numeric[i], bar[i]
        difference, larger = abs(a - n), max(abs(a), abs(n))
        found = difference / (larger if larger > 0.0 else 1.0)
        ratio[i] = found
        resolved_ratio[i] = found if larger > b else -1.0
        unresolved += 0.0 if larger > b else 1.0
        opposite += 1.0 if (larger > b) & (((a < 0.0) & (n > 0.0)) | ((a > 0.0) & (n < 0.0))) else 0.0
        beyond += 1.0 if difference > b else 0.0
        differences += (a - n) * (a - n)
        totals += (a + n) * (a + n)
    counts[UNRESOLVED] += int(unresolved)
    counts[OPPOSITE] += int(opposite)
    counts[BEYOND] += int(beyond)
    reals[DIFFERENCES] += differences
    reals[TOTALS] += totals


@kernel()
def _largest(bits):
    """Return the bits of the largest of some numbers: they order as integers, negative numbers below all others."""
    largest = bits[0]
    for i in range(bits.size):
        largest = max(largest, bits[i])
    return largest


@kernel()
def _place_of(values, wanted):
    """Return where a value first occurs."""
    for i in range(values.size):
        if values[i] == wanted:
            return i
    return -1


@kernel()
def _bin(ratio, bits, edges, first, histogram):
    """Count digits of agreement in quarter-digit bins: the exponent gives the bin to within two edges."""
    for i in range(ratio.size):
        if ratio[i] >= 0.0:
            place = first[bits[i] >> 52]
            place += ratio[i] <= edges[place + 1]
            place += ratio[i] <= edges[place + 1]
            histogram[place] += 1


@kernel()
def _keep_worst(analytic, numeric, bar, lo, worst, severity):
    """Keep the places of the most severe dimensions, the most severe first and the first of equals."""
    last = worst.size - 1
    for i in range(analytic.size):
        difference = abs(analytic[i] - numeric[i])
        if worst[last] >= 0 and bar[i] > 0.0 and difference <= severity[last] * bar[i]:
            continue
        found = difference / bar[i] if bar[i] > 0.0 else (np.inf if difference > 0.0 else 0.0)
        k = last
        if worst[last] >= 0 and found <= severity[last]:
            continue
        while k > 0 and (worst[k - 1] < 0 or severity[k - 1] < found):
            worst[k], severity[k] = worst[k - 1], severity[k - 1]
            k -= 1
        worst[k], severity[k] = lo + i, found


@kernel()
def fold(analytic, numeric, bar, edges, first, kept, counts, reals):
    """Fold dimensions whose values are all finite into counts, sums, a histogram and the worst.

    Parameters
    ----------
    analytic, numeric, bar : float64 arrays of one length
    edges : float64 array
        Of the histogram's bins, descending, with two entries below zero at the end.
    first : int64 array, shape (2048,)
        The first bin that ratios of a biased exponent can belong to.
    kept : int
        How many of the worst are kept.
    counts : int64 array, shape (WORST + kept + bins,)
    reals : float64 array, shape (SEVERITY + kept,)
        The difference over the bar of the worst among them. Places not taken are -1 in both.
    """
    counts.fill(0)
    reals.fill(0.0)
    worst, histogram, severity = counts[WORST : WORST + kept], counts[WORST + kept :], reals[SEVERITY:]
    worst.fill(-1)
    counts[LEAST_DIGITS] = -1
    severity.fill(-1.0)
    step = max(1, min(analytic.size, 1024))
    scratch, largest = np.empty((2, step)), np.empty(2)
    largest_bits = largest.view(np.int64)
    for lo in range(0, analytic.size, step):
        hi = min(lo + step, analytic.size)
        a, n, b = analytic[lo:hi], numeric[lo:hi], bar[lo:hi]
        every, ratio = scratch[0, : hi - lo], scratch[1, : hi - lo]
        bits = ratio.view(np.int64)
        _compare(a, n, b, every, ratio, counts, reals)
        largest_bits[0], largest_bits[1] = _largest(every.view(np.int64)), _largest(bits)
        reals[MAX_RATIO] = max(reals[MAX_RATIO], largest[0])
        if largest[1] > reals[MAX_RESOLVED] or (largest[1] >= 0.0 and counts[LEAST_DIGITS] < 0):
            reals[MAX_RESOLVED], counts[LEAST_DIGITS] = largest[1], lo + _place_of(ratio, largest[1])
        _bin(ratio, bits, edges, first, histogram)
        _keep_worst(a, n, b, lo, worst, severity)
