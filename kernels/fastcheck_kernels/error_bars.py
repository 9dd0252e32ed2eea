"""Error bars of dimensions, in one pass: in NumPy they took longer than the differences."""

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
    WIDE,  # largest bar that can be judged by, as a fraction of what the terms add up to
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
    """Write a bound on |analytic - numeric| that arithmetic alone can explain: see `fastcheck.convolutions.error_bars`.

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
        Whether a bar is too wide: see `fastcheck.engine.differences.Differences`.

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
