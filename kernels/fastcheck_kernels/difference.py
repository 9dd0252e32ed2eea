"""Two-sided differences of the convolution itself, one perturbed entry at a time."""

from __future__ import annotations

import numpy as np

from ._jit import kernel
from .conv import COUNT, DILATION, GROUPS, LOW, PADDING, STEP, STRIDE, _split, _valid, forward

INPUT, WEIGHT, BIAS = 0, 1, 2
"""Values of ``slot``: the operand that is perturbed."""

(
    NUMERIC,  # (sum of v * (z+ - z-)) / width
    ABSOLUTE,  # sum of |v * (z+ - z-)| / width: T1 of the error bar
    SQUARES,  # sum of (v * (z+ - z-) / width)^2: T2 squared
    TERMS,  # how many of those terms are not zero
    ABSORBED,  # sum of the |terms| so small beside T1 that an accumulator absorbs them
    ABSORBED_TERMS,  # how many those are
    MAGNITUDE,  # (sum of |v| * magnitude) / width over the affected outputs
) = range(7)
COLUMNS = 7
"""Columns of what `perturb` returns for a dimension; width is the realised (entry + h) - (entry - h)."""


@kernel()
def _outputs_of_input(position, axis, taps, geom, count, region):
    """Restrict one spatial axis of the region to the outputs that see an input position."""
    low, high, step, found = 0, 0, 1, 0
    for t in range(taps - 1, -1, -1):
        reach = position + geom[PADDING + axis] - t * geom[DILATION + axis]
        output = reach // geom[STRIDE + axis]
        if reach % geom[STRIDE + axis] == 0 and 0 <= output < count:
            if found == 0:
                low = output
            else:
                step = output - high  # constant: the taps that fit lie on a lattice
            high = output
            found += 1
    region[2 + axis, LOW], region[2 + axis, COUNT], region[2 + axis, STEP] = low, found, step


@kernel()
def affected(slot, dim, shapes, geom, region):
    """Write to ``region`` the outputs that depend on one entry of one operand.

    ``shapes`` is int64 of shape (3, 5): those of input, weight and output. A count may be zero.
    """
    for axis in range(5):
        region[axis, LOW], region[axis, COUNT], region[axis, STEP] = 0, shapes[2, axis], 1
    filters = shapes[2, 1] // geom[GROUPS]
    if slot == INPUT:
        rest, y, x = _split(dim, shapes[0, 3], shapes[0, 4])
        rest, c, z = _split(rest, shapes[0, 1], shapes[0, 2])
        region[0, LOW], region[0, COUNT] = rest, 1
        region[1, LOW], region[1, COUNT] = c // shapes[1, 1] * filters, filters
        _outputs_of_input(z, 0, shapes[1, 2], geom, shapes[2, 2], region)
        _outputs_of_input(y, 1, shapes[1, 3], geom, shapes[2, 3], region)
        _outputs_of_input(x, 2, shapes[1, 4], geom, shapes[2, 4], region)
    elif slot == WEIGHT:
        rest = dim
        for axis in range(2, -1, -1):
            tap = rest % shapes[1, 2 + axis]
            rest //= shapes[1, 2 + axis]
            first = tap * geom[DILATION + axis] - geom[PADDING + axis]
            lo, hi = _valid(first, geom[STRIDE + axis], shapes[0, 2 + axis], shapes[2, 2 + axis])
            region[2 + axis, LOW], region[2 + axis, COUNT] = lo, hi - lo
        region[1, LOW], region[1, COUNT] = rest // shapes[1, 1], 1
    else:
        region[1, LOW], region[1, COUNT] = dim, 1


@kernel("reassoc", "contract")
def _fold_line(plus, minus, v, offset, step, width):
    """Replace ``plus`` by the terms v * (plus - minus) / width and return their sums."""
    numeric, absolute, squares, terms = 0.0, 0.0, 0.0, 0
    for i in range(plus.size):
        term = v[offset + i * step] * (plus[i] - minus[i])
        plus[i] = term / width
        numeric += term
        absolute += abs(term)
        squares += plus[i] * plus[i]
        terms += term != 0.0
    return numeric, absolute, squares, terms


@kernel("reassoc", "contract")
def _weigh_line(v, magnitude, offset, step, count):
    """Return the sum of |v| * magnitude along a line."""
    total = 0.0
    for i in range(count):
        total += abs(v[offset + i * step]) * magnitude[offset + i * step]
    return total


@kernel("reassoc")
def _absorbed(terms, limit):
    """Return the sum and the number of the non-zero |terms| below a limit."""
    total, count = 0.0, 0
    for i in range(terms.size):
        size = abs(terms[i])
        if 0.0 < size < limit:
            total += size
            count += 1
    return total, count


@kernel()
def _line(region, n, c, d, h, shape):
    """Return where in a flat output a line of a region begins."""
    plane = (region[0, LOW] + n) * shape[1] + region[1, LOW] + c
    deep = plane * shape[2] + region[2, LOW] + d * region[2, STEP]
    return (deep * shape[3] + region[3, LOW] + h * region[3, STEP]) * shape[4] + region[4, LOW]


@kernel()
def _weigh(region, v, magnitude):
    """Return the sum of |v| * magnitude over a region."""
    flat_v, flat_magnitude = v.reshape(v.size), magnitude.reshape(magnitude.size)
    total = 0.0
    for n in range(region[0, COUNT]):
        for c in range(region[1, COUNT]):
            for d in range(region[2, COUNT]):
                for h in range(region[3, COUNT]):
                    offset = _line(region, n, c, d, h, v.shape)
                    total += _weigh_line(flat_v, flat_magnitude, offset, region[4, STEP], region[4, COUNT])
    return total


@kernel()
def _fold(region, plus, minus, v, width, tiny, out):
    """Fold the difference of two evaluations of a region into one row of `perturb`'s table."""
    out.fill(0.0)
    run = region[4, COUNT]
    flat_v = v.reshape(v.size)
    flat_plus, flat_minus = plus.reshape(plus.size), minus.reshape(minus.size)
    done = 0
    for n in range(region[0, COUNT]):
        for c in range(region[1, COUNT]):
            for d in range(region[2, COUNT]):
                for h in range(region[3, COUNT]):
                    offset = _line(region, n, c, d, h, v.shape)
                    after, before = flat_plus[done : done + run], flat_minus[done : done + run]
                    numeric, absolute, squares, terms = _fold_line(
                        after, before, flat_v, offset, region[4, STEP], width
                    )
                    out[NUMERIC] += numeric
                    out[ABSOLUTE] += absolute
                    out[SQUARES] += squares
                    out[TERMS] += terms
                    done += run
    out[NUMERIC] /= width
    out[ABSOLUTE] /= abs(width)
    out[ABSORBED], out[ABSORBED_TERMS] = _absorbed(flat_plus[:done], tiny * out[ABSOLUTE])


@kernel()
def perturb(slot, whole, dims, h, operands, geom, v, magnitude, tiny, out):
    """Difference a convolution with respect to entries of one operand by evaluating it at +h and -h.

    The loss is sum(v * z), and its differences are summed output by output, so that the round-off is that of the
    affected outputs and not that of the whole loss.

    Parameters
    ----------
    slot : int
        `INPUT`, `WEIGHT` or `BIAS`.
    whole : bool
        Evaluate every output, instead of those that the geometry says are affected.
    dims : int64 array
        Flat indices into that operand.
    h : float
        The step. An entry so large that it would not change is moved by the least power of two times h that does.
    operands : tuple of float64 arrays
        Input, weight and bias as `conv.forward` takes them. The perturbed entry is written and restored from its
        saved value, so each thread needs a copy of that operand of its own.
    geom : int64 array, shape (10,)
        See `conv`.
    v, magnitude : float64 arrays, shaped as the output
        The cotangent, and a bound on every partial sum of an output (sum of |x w| and |b|).
    tiny : float
        Terms below this fraction of the sum of |terms| are counted as absorbed.
    out : float64 array, shape (len(dims), COLUMNS)
        The table to fill.
    """
    x, w, b = operands
    shapes = np.empty((3, 5), np.int64)
    for axis in range(5):
        shapes[0, axis], shapes[1, axis], shapes[2, axis] = x.shape[axis], w.shape[axis], v.shape[axis]
    if slot == INPUT:
        entries = x.reshape(x.size)
    elif slot == WEIGHT:
        entries = w.reshape(w.size)
    else:
        entries = b.reshape(b.size)
    region = np.empty((5, 3), np.int64)
    most = 0
    for dim in dims:
        affected(slot, dim, shapes, geom, region)
        size = region[0, COUNT] * region[1, COUNT] * region[2, COUNT] * region[3, COUNT] * region[4, COUNT]
        most = max(most, v.size if whole else size)
    scratch = np.empty((2, most))
    for i in range(dims.size):
        dim = dims[i]
        affected(slot, dim, shapes, geom, region)
        weight = _weigh(region, v, magnitude)
        if whole:
            for axis in range(5):
                region[axis, LOW], region[axis, COUNT], region[axis, STEP] = 0, shapes[2, axis], 1
        pixels = region[2, COUNT] * region[3, COUNT] * region[4, COUNT]
        size = region[0, COUNT] * region[1, COUNT] * pixels
        plus = scratch[0, :size].reshape(region[0, COUNT], region[1, COUNT], pixels)
        minus = scratch[1, :size].reshape(region[0, COUNT], region[1, COUNT], pixels)
        saved = entries[dim]
        move = h
        while saved + move == saved or saved - move == saved:
            move *= 2.0  # an entry so large that the step would be lost in it
        high, low = saved + move, saved - move
        if size > 0:
            entries[dim] = high
            forward(x, w, b, geom, region, plus)
            entries[dim] = low
            forward(x, w, b, geom, region, minus)
            entries[dim] = saved
        _fold(region, plus, minus, v, high - low, tiny, out[i])
        out[i, MAGNITUDE] = weight / (high - low)
