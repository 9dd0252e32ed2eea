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
    TYPE,  # unit round-off of what it keeps between operations, where that is narrower than its sums; else 0
    LEAST_OUTPUT,  # what an output may lose to that type's underflow
    LEAST_COTANGENT,  # and the output's cotangent, v * phi'(z)
) = range(8)
MODEL = 8

(
    NUMERIC,  # sum of v * (phi(z+) - phi(z-)) / width
    ABSOLUTE,  # sum of the |terms|: T1 of the error bar
    SQUARES,  # sum of their squares: T2 squared
    TERMS,  # how many of them are not zero
    ABSORBED,  # sum of the |terms| so small beside T1 that an accumulator absorbs them
    ABSORBED_TERMS,  # how many those are
    ROUNDING,  # what the differences may err by, truncation aside
    TRUNCATION,  # by how much and in which direction truncation takes them
    LOCAL,  # what the analytic pass's slopes phi'(z) may err by
    TYPED,  # part of that through the rounding of its type, were all of it of one sign
    WIDENING,  # part of the rounding through kinks that are crossed
    JUMP,  # part of that through kinks at the point itself
    RIGHT,  # what outputs exactly at a kink add to the slope to the right
    LEFT,  # and to the left
    KINKS,  # how many outputs cross one
) = range(15)
COLUMNS = 15
"""Columns of what is known of a dimension; width is 2h, or the realised (entry + h) - (entry - h)."""

SPREAD = 3.0
"""Five standard deviations, and more, of a sum of independent errors that are known to be no larger than so much each.
"""

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


@kernel()
def no_cells(model):
    """Return a cell for each significand of the analytic pass's narrow type, all empty; one where it has none."""
    return np.zeros(int(0.5 / model[TYPE]) + 1 if model[TYPE] > 0.0 else 1)


@kernel()
def _cell(value, kept):
    """Return the cell of a value: that of the number to which its type rounds it."""
    return int(max(math.frexp(abs(value))[0] - 0.5, 0.0) / kept + 0.5)


@kernel("contract")
def _tanh(high, low, after, before, kept):
    """Return of tanh between two outputs what `row` asks for.

    Bounds on |phi'| and |phi''|, on the rounding of phi and its fifth derivative's part of the difference, the third
    derivative, and how far off phi' is through the rounding of a type.
    """
    spread, largest, most = abs(high - low), max(abs(high), abs(low)), max(abs(after), abs(before))
    least = min(abs(after), abs(before)) if (high > 0.0) == (low > 0.0) else 0.0
    slope = 1.0 - least * least + 4.0 * U
    # The libraries' tanh errs by up to 2.8 roundings, and beyond 1 by one (found in 2e6 values a binade).
    error = 2.0 * U * (1.0 if largest > 1.0 else min(3.0 * most, 1.75))
    # The third derivative is -2 (1 - t^2) (1 - 3 t^2), the fifth at most 16.
    error += 0.1 * spread * spread * spread * spread * spread
    middle = 0.5 * (after + before)
    square = middle * middle
    third = -2.0 * (1.0 - square) * (1.0 - 3.0 * square)
    # A type rounds t and t^2 to within half its spacing, and to one where the slope is less than that.
    rounded = min(kept * (2.0 * most * min(most, 0.5) + min(most * most, 0.5)), 1.5 * slope) + kept * slope
    return slope, min(0.77, 2.0 * most * slope), error, third, rounded


@kernel("contract")
def row(plus, minus, z, v, magnitude, width, model, scratch, cells, out):
    """Add a line of outputs to the sums of a dimension, which `close` finishes.

    Parameters
    ----------
    plus, minus, z : float64 arrays
        The outputs at +h, at -h and at the point itself.
    v, magnitude : float64 arrays
        The cotangent, and the sums of the sizes of the outputs' terms.
    width : float
    model : float64 array, shape (MODEL,)
    scratch : float64 array, shape (2 or more, size or more)
        Its first row receives the terms.
    cells : float64 array
        What the rounding of a narrow type may add, by `_cell`.
    out : float64 array, shape (COLUMNS,)
    """
    loss, chain, kept = int(model[LOSS]), model[CHAIN], model[TYPE]
    accumulator, unknown, least_output = model[ACCUMULATOR], model[OUTPUT], model[LEAST_OUTPUT]
    after, before = scratch[0], scratch[1]
    _apply(loss, plus, after)
    _apply(loss, minus, before)
    numeric = absolute = squares = terms = rounding = truncation = local = widening = jump = right = left = kinks = 0.0
    for i in range(plus.size):
        high, low = plus[i], minus[i]
        spread, largest = abs(high - low), max(abs(high), abs(low))
        size = abs(v[i]) / abs(width)
        # Bounds on |phi'| and |phi''| between the two and on the rounding of phi; phi' itself, and its own rounding.
        slope, bend, error, derivative, rounded = 1.0, 0.0, 0.0, 1.0, 0.0
        if loss == SQUARE:
            slope, bend, error, derivative = largest, 1.0, 2.0 * U * largest * largest, abs(z[i])
        elif loss == TANH:
            slope, bend, error, third, rounded = _tanh(high, low, after[i], before[i], kept)
            truncation += v[i] / width * third / 24.0 * (high - low) * (high - low) * (high - low)
        moved = 2.0 * U * (chain * (magnitude[i] + spread) if chain > 0.0 else largest + spread)
        error += slope * moved + U * abs(after[i] - before[i])
        # How far off the analytic pass's output may be, and, by a few roundings, its phi': of one, where it is 1 - t^2.
        output = unknown * magnitude[i] + least_output
        local += size * (4.0 * accumulator * derivative + bend * output) * spread
        if kept > 0.0 and loss != RELU:  # whose phi' no type rounds
            product = slope if loss == TANH else derivative
            typed = size * (kept * (bend * abs(z[i]) + product) + rounded) * spread
            local += model[LEAST_COTANGENT] * spread / abs(width) if v[i] != 0.0 else 0.0
            out[TYPED] += typed
            cells[_cell(after[i] if loss == TANH else z[i], kept)] += typed
        if loss == RELU:
            middle, half = abs(z[i]), 0.5 * spread
            at_it = middle <= output
            exactly = v[i] * (high - low) / width if magnitude[i] == 0.0 else 0.0  # in whatever order it is summed
            right += exactly if high > low else 0.0
            left += 0.0 if high > low else exactly
            reach = half + min(middle, half) if at_it else max(half - middle, 0.0)
            crossed = 0.0 if magnitude[i] == 0.0 else reach
            error += crossed
            widening += size * crossed
            jump += size * crossed if at_it else 0.0
            kinks += 1.0 if ((high > 0.0) != (low > 0.0)) & (v[i] != 0.0) else 0.0
        term = v[i] * (after[i] - before[i]) / width
        after[i] = term
        numeric += term
        absolute += abs(term)
        squares += term * term
        terms += 1.0 if term != 0.0 else 0.0
        rounding += size * error + (UNDERFLOW if v[i] != 0.0 else 0.0)
    out[NUMERIC] += numeric
    out[ABSOLUTE] += absolute
    out[SQUARES] += squares
    out[TERMS] += terms
    out[ROUNDING] += rounding
    out[TRUNCATION] += truncation
    out[LOCAL] += local
    out[WIDENING] += widening
    out[JUMP] += jump
    out[RIGHT] += right
    out[LEFT] += left
    out[KINKS] += kinks


@kernel()
def close(terms, model, cells, out):
    """Finish the sums of a dimension, whose terms are given, and empty the cells for the next one.

    Within a cell a type's rounding may go with any signs of the terms, and from cell to cell it is random. Outputs
    exactly at a kink make an interval: the loss's slope to the right has those that a move to the right makes positive,
    its slope to the left has the others, and a backward pass takes a part of both.
    """
    out[ABSORBED], out[ABSORBED_TERMS] = absorbed(terms, model[TINY] * out[ABSOLUTE])
    if model[TYPE] > 0.0:
        squares = 0.0
        for i in range(cells.size):
            squares += cells[i] * cells[i]
            cells[i] = 0.0
        out[LOCAL] += min(out[TYPED], SPREAD * math.sqrt(squares))
    jump = 0.5 * (abs(out[RIGHT]) + abs(out[LEFT]))
    out[ROUNDING] += jump
    out[WIDENING] += jump
    out[JUMP] += jump


@kernel()
def along_positions(z, v, magnitude, factors, offsets, layout, dims, h, model, out):
    """Difference weights or biases, whose moves lie along positions: see `delta.reduce`.

    Parameters
    ----------
    z, v, magnitude, factors : float64 arrays
        Planes, flat; a move is h times a factor.
    offsets : uint64 array
    layout : int64 array, shape (3,)
    dims : int64 array
        Flat indices: filter by filter, each with as many as there are offsets.
    h : float
    model : float64 array, shape (MODEL,)
    out : float64 array, shape (len(dims), COLUMNS)
    """
    positions, filters, step = layout
    scratch, moved, cells = np.empty((2, positions)), np.empty((2, positions)), no_cells(model)
    out[:] = 0.0
    for k in range(dims.size):
        c, j = dims[k] // offsets.size, dims[k] % offsets.size
        start, base = c * positions, c // filters * step + np.int64(offsets[j])
        for i in range(positions):
            move = h * factors[base + i]
            moved[0, i], moved[1, i] = z[start + i] + move, z[start + i] - move
        here = slice(start, start + positions)
        row(moved[0], moved[1], z[here], v[here], magnitude[here], 2.0 * h, model, scratch, cells, out[k])
        close(scratch[0], model, cells, out[k])


@kernel()
def along_terms(z, v, magnitude, starts, factors, begins, terms, h, model, out):
    """Difference inputs, each of which is met through the same filters and taps: see `delta.spread`.

    With begins of shape (2, dimensions), dimension i moves the outputs starts + begins[1, i] by h times
    factors[begins[0, i] + terms].
    """
    scratch, moved, cells = np.empty((2, terms.size)), np.empty((2, terms.size)), no_cells(model)
    seen = np.empty((3, terms.size))
    out[:] = 0.0
    for i in range(begins.shape[1]):
        for k in range(terms.size):
            place, move = starts[k] + begins[1, i], h * factors[begins[0, i] + terms[k]]
            moved[0, k], moved[1, k] = z[place] + move, z[place] - move
            seen[0, k], seen[1, k], seen[2, k] = z[place], v[place], magnitude[place]
        row(moved[0], moved[1], seen[0], seen[1], seen[2], 2.0 * h, model, scratch, cells, out[i])
        close(scratch[0], model, cells, out[i])


@kernel()
def outputs(plus, minus, z, v, magnitude, width, model, out):
    """Difference some outputs, all of one dimension: see `row`."""
    scratch, cells = np.empty((2, plus.size)), no_cells(model)
    out.fill(0.0)
    row(plus, minus, z, v, magnitude, width, model, scratch, cells, out)
    close(scratch[0], model, cells, out)


@kernel()
def planes(plus, minus, z, v, sizes, width, model, lo, hi, out):
    """Difference whole planes of outputs, of shape (R, P): row lo <= r < hi has terms of size ``sizes[r]``."""
    scratch, magnitude, cells = np.empty((2, plus.shape[1])), np.empty(plus.shape[1]), no_cells(model)
    for r in range(lo, hi):
        out[r].fill(0.0)
        magnitude.fill(sizes[r])
        row(plus[r], minus[r], z[r], v[r], magnitude, width, model, scratch, cells, out[r])
        close(scratch[0], model, cells, out[r])
