"""Error bars of dimensions, and their tally, in a pass each: in NumPy they took longer than the differences."""

from __future__ import annotations

import math

import numpy as np

from ._jit import kernel

(ABSOLUTE, SQUARES, TERMS, ABSORBED, ABSORBED_TERMS, MAGNITUDE) = range(6)
"""Rows of ``sums``: see `fastcheck.step.Sums`."""

(
    CHAIN,  # roundings that a product meets in the forward pass
    ACCUMULATOR,  # unit round-off of the analytic pass's sums
    UNIT,  # root of the sum of squares of that and of the differences' own
    OPERAND,  # relative error of a product through the rounding of its factors
    RESULT,  # unit round-off of the rounding of a finished sum
    PARTIALS,  # how many partial sums are rounded like that
    V_ALIKE,  # the largest number of equal magnitudes in the cotangent
    X_ALIKE,  # and in the operand that is multiplied with it
    CROWDED,  # whether magnitudes crowd in both
    PEAKED,  # whether few large terms count as drift
    UNDERFLOW,  # what a product may lose to underflow
    LEAST,  # what a result may lose to underflow
) = range(12)
CONSTANTS = 12

U = 2.0**-53


@kernel("contract")
def _coefficients(sums, lo, model, fixed, cap, base, root, result_cap, result_base):
    """Work out what the bars of some sums do not owe to the numeric value."""
    chain, accumulator, unit = model[CHAIN], model[ACCUMULATOR], model[UNIT]
    rounded = model[RESULT]
    partials, product, larger = model[PARTIALS], model[V_ALIKE] * model[X_ALIKE], max(model[V_ALIKE], model[X_ALIKE])
    t1s, squares, counts = sums[ABSOLUTE], sums[SQUARES], sums[TERMS]
    absorbed_sizes, absorbed_counts, magnitudes = sums[ABSORBED], sums[ABSORBED_TERMS], sums[MAGNITUDE]
    for i in range(fixed.size):
        t1, square, n = t1s[lo + i], squares[lo + i], counts[lo + i]
        t2, root_n = math.sqrt(square), math.sqrt(n)
        linear = n * t1
        mild = min(0.5 * linear, 8.0 * n * accumulator * max(linear, n * root_n * t2))
        alike = (product > 4.0 * n) | (larger >= 0.5 * n)
        drifts = alike | (model[CROWDED] > 0.0) | ((model[PEAKED] > 0.0) & (n * square >= 16.0 * t1 * t1))
        drift = 0.5 * linear if drifts else mild
        random = 1.75 * t2 + 0.75 * t1
        absorbed = min(absorbed_sizes[lo + i], 4.0 * accumulator * absorbed_counts[lo + i] * t1)
        differences = U * (2.0 * chain * magnitudes[lo + i] + (chain + 4.0) * t1)
        fixed[i] = differences + (1.0 + rounded) * (absorbed + model[OPERAND] * t1) + 4.0 * n * 5e-324
        cap[i] = (1.0 + rounded) * unit * linear
        base[i] = (1.0 + rounded) * unit * (root_n * random + drift)
        root[i] = (1.0 + rounded) * unit * 1.75 * root_n
        result_cap[i] = partials * t1
        result_base[i] = math.sqrt(partials) * random


@kernel("contract")
def bars(numeric, sums, repeat, model, exponent, out):
    """Write a bound on |analytic - numeric| that arithmetic alone can explain: see `fastcheck.step`.

    Parameters
    ----------
    numeric : float64 array, shape (pairs * repeat,)
        Difference quotients, before they are multiplied by 2^exponent.
    sums : float64 array, shape (6, pairs)
        Each entry belongs to ``repeat`` dimensions one after another.
    repeat : int
    model : float64 array, shape (CONSTANTS,)
    exponent : int
        The bars are multiplied by 2^exponent.
    out : float64 array, shape (pairs * repeat,)
    """
    pairs = sums.shape[1]
    most = max(1, min(pairs, 512))
    scratch = np.empty((6, most))
    rounded = model[RESULT] * (1.0 + 2.0 * model[RESULT])
    random = math.sqrt(model[PARTIALS]) * 1.75
    for lo in range(0, pairs, most):
        count = min(most, pairs - lo)
        fixed, cap, base, root = scratch[0, :count], scratch[1, :count], scratch[2, :count], scratch[3, :count]
        result_cap, result_base = scratch[4, :count], scratch[5, :count]
        _coefficients(sums, lo, model, fixed, cap, base, root, result_cap, result_base)
        found, values = out[lo * repeat : (lo + count) * repeat], numeric[lo * repeat : (lo + count) * repeat]
        for r in range(repeat):
            for i in range(count):
                size = abs(values[i * repeat + r])
                results = rounded * (size + min(result_cap[i], result_base[i] + random * size))
                found[i * repeat + r] = fixed[i] + U * 3.0 * size + min(cap[i], base[i] + root[i] * size) + results
    if exponent != 0:
        for i in range(out.size):
            out[i] = math.ldexp(out[i], exponent)
    if model[UNDERFLOW] > 0.0:
        counts = sums[TERMS]
        for i in range(pairs):
            least = 2.2 * counts[i] * model[UNDERFLOW] + model[LEAST]
            for r in range(repeat):
                out[i * repeat + r] += least


(UNRESOLVED, OPPOSITE, BEYOND, WORST) = range(4)
"""Places in the counts of `fold`: from `WORST` on the places of the worst dimensions, and then the histogram."""

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
    """Return the place of the largest of numbers given by their bits, which order as integers unless negative."""
    largest = bits[0]
    for i in range(bits.size):
        largest = max(largest, bits[i])
    for i in range(bits.size):
        if bits[i] == largest:
            return i
    return 0


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
        if worst[last] >= 0 and difference <= severity[last] * bar[i]:
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
    severity.fill(-1.0)
    step = max(1, min(analytic.size, 1024))
    scratch = np.empty((2, step))
    for lo in range(0, analytic.size, step):
        hi = min(lo + step, analytic.size)
        a, n, b = analytic[lo:hi], numeric[lo:hi], bar[lo:hi]
        every, ratio = scratch[0, : hi - lo], scratch[1, : hi - lo]
        bits = ratio.view(np.int64)
        _compare(a, n, b, every, ratio, counts, reals)
        reals[MAX_RATIO] = max(reals[MAX_RATIO], every[_largest(every.view(np.int64))])
        reals[MAX_RESOLVED] = max(reals[MAX_RESOLVED], ratio[_largest(bits)])
        _bin(ratio, bits, edges, first, histogram)
        _keep_worst(a, n, b, lo, worst, severity)
