"""Error bars of dimensions, and their tally, in a pass each: in NumPy they took longer than the differences."""

from __future__ import annotations

import math

import numpy as np

from ._jit import kernel

(ABSOLUTE, SQUARES, TERMS, ABSORBED, ABSORBED_TERMS, ROUNDING) = range(6)
"""Rows of ``sums``: see `curved` for what they are."""

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
    WIDE,  # the part of what terms add up to that a bar may be
    TYPICAL,  # what the terms of a typical dimension of the tensor add up to
) = range(14)
CONSTANTS = 14

U = 2.0**-53

SMALLEST = 1e-290
"""Bars below it are those of products that underflow; operands are scaled so that typical ones do not."""


@kernel("contract")
def _fixed(sums, lo, model, lost, least, fixed):
    """Work out what bars owe to the differences' rounding, to absorbed terms, to rounded factors and to underflow."""
    chain, accumulator, rounded, operand = model[CHAIN], model[ACCUMULATOR], model[RESULT], model[OPERAND]
    t1s, counts, rounding = sums[ABSOLUTE], sums[TERMS], sums[ROUNDING]
    absorbed_sizes, absorbed_counts = sums[ABSORBED], sums[ABSORBED_TERMS]
    for i in range(fixed.size):
        t1 = t1s[lo + i]
        differences = rounding[lo + i] + U * (chain + 4.0) * t1
        absorbed = min(absorbed_sizes[lo + i], 4.0 * accumulator * absorbed_counts[lo + i] * t1)
        fixed[i] = differences + (1.0 + rounded) * (absorbed + operand * t1) + (lost * counts[lo + i] + least)


@kernel("contract")
def _accumulated(sums, lo, model, cap, base, root):
    """Work out what they owe to the analytic pass's sums: at most cap, else base + root * |numeric|."""
    accumulator, unit = model[ACCUMULATOR], (1.0 + model[RESULT]) * model[UNIT]
    product, larger = model[V_ALIKE] * model[X_ALIKE], max(model[V_ALIKE], model[X_ALIKE])
    crowded, peaked = model[CROWDED] > 0.0, model[PEAKED] > 0.0
    t1s, squares, counts = sums[ABSOLUTE], sums[SQUARES], sums[TERMS]
    for i in range(cap.size):
        t1, square, n = t1s[lo + i], squares[lo + i], counts[lo + i]
        t2, root_n = math.sqrt(square), math.sqrt(n)
        linear = n * t1
        mild = min(0.5 * linear, 8.0 * n * accumulator * max(linear, n * root_n * t2))
        alike = (product > 4.0 * n) | (larger >= 0.5 * n) | crowded | (peaked & (n * square >= 16.0 * t1 * t1))
        cap[i] = unit * linear
        base[i] = unit * (root_n * (1.75 * t2 + 0.75 * t1) + (0.5 * linear if alike else mild))
        root[i] = unit * 1.75 * root_n


@kernel("contract")
def _rounded(numeric, sums, repeat, model, out):
    """Add what bars owe to partial sums that the analytic pass rounds to a narrower type."""
    rounded, partials = model[RESULT] * (1.0 + 2.0 * model[RESULT]), model[PARTIALS]
    for i in range(sums.shape[1]):
        t1 = sums[ABSOLUTE, i]
        random = 1.75 * math.sqrt(sums[SQUARES, i]) + 0.75 * t1
        for k in range(i * repeat, (i + 1) * repeat):
            size = abs(numeric[k])
            out[k] += rounded * (size + min(partials * t1, math.sqrt(partials) * (random + 1.75 * size)))


@kernel("contract")
def _mark_wide(bar, numeric, sums, repeat, share, tensor, lost, least, wide):
    """Mark bars that exceed a share of T2, what so many terms of any sign add up to; return how many there are.

    Where a dimension's own terms are few or small, what is typical of the tensor stands in, and where they have one
    sign, what they do add up to.

    What underflow takes is left aside: it is nothing beside the numbers that the gradient's type can hold.
    """
    marked = 0
    t1s, squares, counts = sums[ABSOLUTE], sums[SQUARES], sums[TERMS]
    for i in range(bar.size // repeat):
        n = counts[i]
        # The root of the mean of squares is no less than the mean, which does not underflow.
        typical = max(tensor, math.sqrt(squares[i]), t1s[i] / math.sqrt(max(n, 1.0)))
        flushed = (lost * n + least) + SMALLEST
        for k in range(i * repeat, (i + 1) * repeat):
            limit = share * max(typical, abs(numeric[k])) + flushed
            wide[k] = (bar[k] > limit) & (typical > 0.0)  # where every term is zero, nothing has to be told apart
            marked += wide[k]
    return marked


@kernel("contract")
def bars(numeric, sums, repeat, model, exponent, out, wide):
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
    wide : bool array, shape (pairs * repeat,)
        Whether a bar is too wide: see `fastcheck.evaluators.Differences`.

    Returns
    -------
    int
        How many are.
    """
    pairs = sums.shape[1]
    most = max(1, min(pairs, 512))
    scratch = np.empty((4, most))
    # Products that underflow in the analytic pass do so at its own scale, and may be flushed to zero. The result, and
    # each of its partial sums, is rounded to within half the least number.
    dropped = 0.5 * (1.0 + model[PARTIALS]) * model[LEAST]
    lost, least = (2.2 * model[UNDERFLOW], dropped) if exponent == 0 else (0.0, 0.0)
    for lo in range(0, pairs, most):
        count = min(most, pairs - lo)
        fixed, cap, base, root = scratch[0, :count], scratch[1, :count], scratch[2, :count], scratch[3, :count]
        _fixed(sums, lo, model, lost, least, fixed)
        _accumulated(sums, lo, model, cap, base, root)
        found, values = out[lo * repeat : (lo + count) * repeat], numeric[lo * repeat : (lo + count) * repeat]
        if repeat == 1:
            for i in range(count):
                size = abs(values[i])
                found[i] = fixed[i] + U * 3.0 * size + min(cap[i], base[i] + root[i] * size)
            continue
        for i in range(count):
            start, most_of, least_of, growth = fixed[i], cap[i], base[i], root[i]
            for k in range(i * repeat, (i + 1) * repeat):
                size = abs(values[k])
                found[k] = start + U * 3.0 * size + min(most_of, least_of + growth * size)
    if model[RESULT] > 0.0:
        _rounded(numeric, sums, repeat, model, out)
    marked = _mark_wide(out, numeric, sums, repeat, model[WIDE], model[TYPICAL], lost, least, wide)
    if exponent != 0:
        for i in range(pairs):
            n = sums[TERMS, i]
            for k in range(i * repeat, (i + 1) * repeat):
                scaled = math.ldexp(out[k] + 4.0 * n * 5e-324, exponent)
                out[k] = scaled + 2.2 * n * model[UNDERFLOW] + dropped
    return marked


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
