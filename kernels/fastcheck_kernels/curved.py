"""Losses that are not linear in the outputs: differences of v * phi(z), and what explains their errors.

For an output z, moved to z+ and z-, with D = |z+ - z-|, the two-sided difference of phi errs by rounding, by
truncation, by kinks that it crosses, and by the outputs themselves, which the analytic pass computed in another order.
Everything below is a bound on one of these; `row` adds them up.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import kernel

VJP, SQUARE, RELU, TANH = range(4)
"""Values of `LOSS`: phi(z) is z, z^2 / 2, max(z, 0) or tanh(z)."""

(
    LOSS,
    CHAIN,  # roundings that a product meets before z+ and z- are known; 0 where they are one rounding away from z
    OUTPUT,  # error of an output, ours and the analytic pass's, in units of the sum of the sizes of its terms
    ACCUMULATOR,  # unit round-off of the analytic pass
    TINY,  # terms below this fraction of the sum of |terms| count as absorbed
) = range(5)
MODEL = 5

(
    NUMERIC,  # sum of v * (phi(z+) - phi(z-)) / width
    ABSOLUTE,  # sum of the |terms|: T1 of the error bar
    SQUARES,  # sum of their squares: T2 squared
    TERMS,  # how many of them are not zero
    ABSORBED,  # sum of the |terms| so small beside T1 that an accumulator absorbs them
    ABSORBED_TERMS,  # how many those are
    ROUNDING,  # what the differences may err by, truncation aside
    TRUNCATION,  # by how much and in which direction truncation takes them
    WIDENING,  # part of that through kinks that are crossed
    JUMP,  # part of that through kinks at the point itself
    KINKS,  # how many outputs cross one
) = range(11)
COLUMNS = 11
"""Columns of what is known of a dimension; width is 2h, or the realised (entry + h) - (entry - h)."""

U = 2.0**-53

UNDERFLOW = 2.0**-1020
"""What the products of a term may lose to underflow, where the term itself vanishes."""


@kernel()
def _apply(loss, z, out):
    """Write phi(z)."""
    if loss == SQUARE:
        for i in range(z.size):
            out[i] = 0.5 * z[i] * z[i]
    elif loss == RELU:
        for i in range(z.size):
            out[i] = max(z[i], 0.0)
    elif loss == TANH:
        for i in range(z.size):
            out[i] = math.tanh(z[i])
    else:
        for i in range(z.size):
            out[i] = z[i]


@kernel("reassoc")
def absorbed(terms, limit):
    """Return the sum and the number of the non-zero |terms| below a limit."""
    total, count = 0.0, 0.0
    for i in range(terms.size):
        size = abs(terms[i])
        small = (size > 0.0) & (size < limit)
        total += size if small else 0.0
        count += 1.0 if small else 0.0
    return total, count


@kernel("contract")
def row(plus, minus, v, magnitude, width, model, scratch, out):
    """Add a line of outputs to the sums of a dimension.

    Parameters
    ----------
    plus, minus : float64 arrays
        The outputs at +h and at -h.
    v, magnitude : float64 arrays
        The cotangent, and the sums of the sizes of the outputs' terms.
    width : float
    model : float64 array, shape (MODEL,)
    scratch : float64 array, shape (2 or more, size or more)
        Its first row receives the terms.
    out : float64 array, shape (COLUMNS,)
    """
    loss, chain = int(model[LOSS]), model[CHAIN]
    after, before = scratch[0], scratch[1]
    _apply(loss, plus, after)
    _apply(loss, minus, before)
    for i in range(plus.size):
        high, low = plus[i], minus[i]
        spread, largest = abs(high - low), max(abs(high), abs(low))
        output = model[OUTPUT] * magnitude[i]
        # Bounds on |phi'| and |phi''| between the two, the rounding of phi itself, and truncation.
        slope, bend, error = 1.0, 0.0, 0.0
        if loss == SQUARE:
            slope, bend, error = largest, 1.0, 2.0 * U * largest * largest
        elif loss == TANH:
            most = max(abs(after[i]), abs(before[i]))
            least = min(abs(after[i]), abs(before[i])) if (high > 0.0) == (low > 0.0) else 0.0
            slope = 1.0 - least * least + 4.0 * U
            # The libraries' tanh errs by up to 2.8 roundings, and beyond 1 by one (found in 2e6 values a binade).
            bend, error = min(0.77, 2.0 * slope), 2.0 * U * (1.0 if largest > 1.0 else min(3.0 * most, 1.75))
            # The third derivative is -2 (1 - t^2) (1 - 3 t^2), the fifth at most 16.
            middle = 0.5 * (after[i] + before[i])
            square = middle * middle
            third = -2.0 * (1.0 - square) * (1.0 - 3.0 * square)
            out[TRUNCATION] += v[i] / width * third / 24.0 * (high - low) * (high - low) * (high - low)
            error += 0.1 * spread * spread * spread * spread * spread
        rounding = 2.0 * U * (chain * (magnitude[i] + spread) if chain > 0.0 else largest + spread)
        # The analytic pass's own phi' is off by a few roundings: of one, where it is 1 - tanh^2.
        derivative = 4.0 * model[ACCUMULATOR] * (1.0 if loss == TANH else slope)
        error += slope * rounding + (derivative + bend * output) * spread
        error += U * abs(after[i] - before[i])
        size = abs(v[i]) / abs(width)
        if loss == RELU:
            middle, half = 0.5 * abs(high + low), 0.5 * spread
            at_it = middle <= output
            crossed = half + min(middle, half) if at_it else max(half - middle, 0.0)
            error += crossed
            out[WIDENING] += size * crossed
            out[JUMP] += size * crossed if at_it else 0.0
            out[KINKS] += 1.0 if (high > 0.0) != (low > 0.0) and v[i] != 0.0 else 0.0
        term = v[i] * (after[i] - before[i]) / width
        after[i] = term
        out[NUMERIC] += term
        out[ABSOLUTE] += abs(term)
        out[SQUARES] += term * term
        out[TERMS] += 1.0 if term != 0.0 else 0.0
        out[ROUNDING] += size * error + (UNDERFLOW if v[i] != 0.0 else 0.0)


@kernel()
def along_positions(z, v, magnitude, moves, offsets, layout, dims, width, model, out):
    """Difference weights or biases, whose moves lie along positions: see `delta.reduce`.

    Parameters
    ----------
    z, v, magnitude, moves : float64 arrays
        Planes, flat.
    offsets : uint64 array
    layout : int64 array, shape (3,)
    dims : int64 array
        Flat indices: filter by filter, each with as many as there are offsets.
    width : float
    model : float64 array, shape (MODEL,)
    out : float64 array, shape (len(dims), COLUMNS)
    """
    positions, filters, step = layout
    scratch, moved = np.empty((2, positions)), np.empty((2, positions))
    out[:] = 0.0
    for k in range(dims.size):
        c, j = dims[k] // offsets.size, dims[k] % offsets.size
        start, base = c * positions, c // filters * step + np.int64(offsets[j])
        for i in range(positions):
            moved[0, i] = z[start + i] + moves[base + i]
            moved[1, i] = z[start + i] - moves[base + i]
        end = start + positions
        row(moved[0], moved[1], v[start:end], magnitude[start:end], width, model, scratch, out[k])
        limit = model[TINY] * out[k, ABSOLUTE]
        out[k, ABSORBED], out[k, ABSORBED_TERMS] = absorbed(scratch[0], limit)


@kernel()
def along_terms(z, v, magnitude, starts, moves, rows, places, terms, width, model, out):
    """Difference inputs, each of which is met through the same filters and taps: see `delta.spread`.

    The dimension i has the moves moves[rows[i] + terms] at the outputs starts + places[i].
    """
    scratch, moved = np.empty((2, terms.size)), np.empty((2, terms.size))
    seen = np.empty((2, terms.size))
    out[:] = 0.0
    for i in range(rows.size):
        for k in range(terms.size):
            place, move = starts[k] + places[i], moves[rows[i] + terms[k]]
            moved[0, k], moved[1, k] = z[place] + move, z[place] - move
            seen[0, k], seen[1, k] = v[place], magnitude[place]
        row(moved[0], moved[1], seen[0], seen[1], width, model, scratch, out[i])
        out[i, ABSORBED], out[i, ABSORBED_TERMS] = absorbed(scratch[0], model[TINY] * out[i, ABSOLUTE])


@kernel()
def planes(plus, minus, v, sizes, width, model, lo, hi, out):
    """Difference whole planes of outputs, of shape (R, P): row lo <= r < hi has terms of size ``sizes[r]``."""
    scratch, magnitude = np.empty((2, plus.shape[1])), np.empty(plus.shape[1])
    for r in range(lo, hi):
        out[r].fill(0.0)
        magnitude.fill(sizes[r])
        row(plus[r], minus[r], v[r], magnitude, width, model, scratch, out[r])
