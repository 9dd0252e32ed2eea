"""Two-sided differences of the convolution itself, one perturbed entry at a time."""

from __future__ import annotations

import numpy as np

from ._jit import kernel
from .conv import COUNT, DILATION, FIRST, GROUPS, LOW, PADDING, STEP, STRIDE, _copy, _split, _valid, forward
from .curved import (
    ABSOLUTE,
    ABSORBED,
    ABSORBED_TERMS,
    CHAIN,
    COLUMNS,
    LOSS,
    NUMERIC,
    ROUNDING,
    SQUARES,
    TERMS,
    TINY,
    UNDERFLOW,
    VJP,
    U,
    absorbed,
    close,
    no_cells,
    row,
)

INPUT, WEIGHT, BIAS = 0, 1, 2
"""Values of ``slot``: the operand that is perturbed."""

SHARED = 2**19
"""Outputs that perturbed filters evaluated together may have."""


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
        place = (z, y, x)
        for axis in range(3):
            _outputs_of_input(place[axis], axis, shapes[1, 2 + axis], geom, shapes[2, 2 + axis], region)
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
def _fold(region, plus, minus, seen, width, model, curve, scratch, out):
    """Fold the difference of two evaluations of a region, both flat, into one row of `perturb`'s table."""
    out.fill(0.0)
    run, jump = region[4, COUNT], region[4, STEP]
    z, v, magnitude = seen
    flat_z, flat_v, flat_magnitude = z.reshape(z.size), v.reshape(v.size), magnitude.reshape(magnitude.size)
    if curve is not None:
        cells = no_cells(curve)
    done = 0
    for n in range(region[0, COUNT]):
        for c in range(region[1, COUNT]):
            for d in range(region[2, COUNT]):
                for h in range(region[3, COUNT]):
                    offset = _line(region, n, c, d, h, v.shape)
                    after, before = plus[done : done + run], minus[done : done + run]
                    done += run
                    if curve is None:
                        numeric, absolute, squares, terms = _fold_line(after, before, flat_v, offset, jump, width)
                        out[NUMERIC] += numeric
                        out[ABSOLUTE] += absolute
                        out[SQUARES] += squares
                        out[TERMS] += terms
                    else:
                        for i in range(run):
                            place = offset + i * jump
                            scratch[2, i], scratch[3, i] = flat_z[place], flat_v[place]
                            scratch[4, i] = flat_magnitude[place]
                        here = scratch[2, :run], scratch[3, :run], scratch[4, :run]
                        row(after, before, here[0], here[1], here[2], width, curve, scratch, cells, out)
                        for i in range(run):
                            after[i] = scratch[0, i]
    if curve is None:
        out[NUMERIC] /= width
        out[ABSOLUTE] /= abs(width)
        out[ABSORBED], out[ABSORBED_TERMS] = absorbed(plus[:done], model[TINY] * out[ABSOLUTE])
    else:
        close(plus[:done], curve, cells, out)


@kernel()
def _add_rounding(region, seen, width, model, curve, out):
    """Add what a linear loss's differences may err by: two evaluations of the affected outputs."""
    if curve is None:
        outputs = region[0, COUNT] * region[1, COUNT] * region[2, COUNT] * region[3, COUNT] * region[4, COUNT]
        out[ROUNDING] = 2.0 * U * model[CHAIN] * _weigh(region, seen[1], seen[2]) / abs(width) + UNDERFLOW * outputs


@kernel()
def _gather(region, plus, minus, shape):
    """Copy a region of two flat outputs."""
    run = region[4, COUNT]
    found = np.empty((2, region[0, COUNT] * region[1, COUNT] * region[2, COUNT] * region[3, COUNT] * run))
    done = 0
    for n in range(region[0, COUNT]):
        for c in range(region[1, COUNT]):
            for d in range(region[2, COUNT]):
                for h in range(region[3, COUNT]):
                    offset = _line(region, n, c, d, h, shape)
                    for i in range(run):
                        found[0, done + i] = plus[offset + i * region[4, STEP]]
                        found[1, done + i] = minus[offset + i * region[4, STEP]]
                    done += run
    return found


@kernel()
def _select_all(region, first_axis, shape):
    """Let a region take all outputs along the axes from ``first_axis`` on."""
    for axis in range(first_axis, 5):
        region[axis, LOW], region[axis, COUNT], region[axis, STEP] = 0, shape[axis], 1


@kernel()
def _moved(entry, h):
    """Return entry + h and entry - h, with an h doubled until it moves an entry that is too large for it."""
    move = h
    while entry + move == entry or entry - move == entry:
        move *= 2.0
    return entry + move, entry - move


@kernel()
def _perturb_whole(slot, dims, h, operands, geom, shapes, seen, model, curve, out):
    """Evaluate every output, twice for each dimension."""
    x, w, b = operands
    entries = b.reshape(b.size)
    if slot == INPUT:
        entries = x.reshape(x.size)
    elif slot == WEIGHT:
        entries = w.reshape(w.size)
    region, every = np.empty((5, 3), np.int64), np.empty((5, 3), np.int64)
    _select_all(every, 0, shapes[2])
    pixels, outputs = shapes[2, 2] * shapes[2, 3] * shapes[2, 4], seen[1]
    scratch, line = np.empty((2, shapes[2, 0], shapes[2, 1], pixels)), np.empty((5, shapes[2, 4]))
    errors = np.empty(COLUMNS)
    for i in range(dims.size):
        saved = entries[dims[i]]
        high, low = _moved(saved, h)
        entries[dims[i]] = high
        forward(x, w, b, geom, every, scratch[0])
        entries[dims[i]] = low
        forward(x, w, b, geom, every, scratch[1])
        entries[dims[i]] = saved
        after, before = scratch[0].reshape(outputs.size), scratch[1].reshape(outputs.size)
        # Values take in every output, as if nothing were known of which are affected; what they may err by does not.
        affected(slot, dims[i], shapes, geom, region)
        errors.fill(0.0)
        if curve is not None:
            moved = _gather(region, after, before, outputs.shape)
            _fold(region, moved[0], moved[1], seen, high - low, model, curve, line, out[i])
            for k in range(ROUNDING, COLUMNS):
                errors[k] = out[i, k]
        _fold(every, after, before, seen, high - low, model, curve, line, out[i])
        for k in range(ROUNDING, COLUMNS):
            out[i, k] = errors[k]
        _add_rounding(region, seen, high - low, model, curve, out[i])


@kernel()
def _seen_part(x, n, first, corner, part):
    """Copy a box of some channels of one sample."""
    for c in range(part.shape[1]):
        for i in range(part.shape[2]):
            for j in range(part.shape[3]):
                _copy(x[n, first + c, corner[0] + i, corner[1] + j, corner[2] :], 1, part[0, c, i, j])


@kernel()
def _perturb_input(slot, dims, h, operands, geom, shapes, seen, model, curve, out):
    """Evaluate the outputs that see an input, on a copy of the part of the input that they see."""
    x, w, b = operands
    entries = x.reshape(x.size)
    region = np.empty((5, 3), np.int64)
    corner, size, line = np.empty(3, np.int64), np.empty(3, np.int64), np.empty((5, shapes[2, 4]))
    moved_geom = geom.copy()
    for i in range(dims.size):
        affected(slot, dims[i], shapes, geom, region)
        pixels = region[2, COUNT] * region[3, COUNT] * region[4, COUNT]
        high, low = _moved(entries[dims[i]], h)
        n, group = region[0, LOW], region[1, LOW] // region[1, COUNT]
        for axis in range(3):
            first = region[2 + axis, LOW] * geom[STRIDE + axis] - geom[PADDING + axis]
            last = first + (region[2 + axis, COUNT] - 1) * region[2 + axis, STEP] * geom[STRIDE + axis]
            last += (shapes[1, 2 + axis] - 1) * geom[DILATION + axis]
            corner[axis] = max(0, first)
            size[axis] = max(0, min(shapes[0, 2 + axis], last + 1) - corner[axis])
            moved_geom[PADDING + axis] = geom[PADDING + axis] + corner[axis]
        moved_geom[FIRST] = -group * w.shape[1]
        plus, minus = np.empty((1, region[1, COUNT], pixels)), np.empty((1, region[1, COUNT], pixels))
        region[0, LOW] = 0
        if pixels > 0:
            part = np.empty((1, w.shape[1], size[0], size[1], size[2]))
            _seen_part(x, n, group * w.shape[1], corner, part)
            rest, place_y, place_x = _split(dims[i], shapes[0, 3], shapes[0, 4])
            _, channel, place_z = _split(rest, shapes[0, 1], shapes[0, 2])
            position = (channel % w.shape[1], place_z - corner[0], place_y - corner[1], place_x - corner[2])
            flat = part.reshape(part.size)
            place = ((position[0] * size[0] + position[1]) * size[1] + position[2]) * size[2] + position[3]
            flat[place] = high
            forward(part, w, b, moved_geom, region, plus)
            flat[place] = low
            forward(part, w, b, moved_geom, region, minus)
        region[0, LOW] = n
        after, before = plus.reshape(plus.size), minus.reshape(minus.size)
        _fold(region, after, before, seen, high - low, model, curve, line, out[i])
        _add_rounding(region, seen, high - low, model, curve, out[i])


@kernel()
def _perturb_filters(slot, dims, h, operands, geom, shapes, seen, model, curve, out):
    """Evaluate the outputs of the perturbed filter, for several dimensions at a time.

    The perturbed copies of filters of one group are the filters of a small layer, so that they share what is gathered
    of the input: alone, each would take four times as long.
    """
    x, w, b = operands
    samples, pixels = shapes[2, 0], shapes[2, 2] * shapes[2, 3] * shapes[2, 4]
    filters = shapes[2, 1] // geom[GROUPS]
    taps = w.shape[1] * w.shape[2] * w.shape[3] * w.shape[4]
    most = max(1, min(8, SHARED // (samples * pixels)))
    copies = np.empty((2 * most, w.shape[1], w.shape[2], w.shape[3], w.shape[4]))
    entries, moved = w.reshape(w.shape[0], taps), copies.reshape(2 * most, taps)
    biases = np.empty(2 * most)
    values = np.empty((2 * most, samples * pixels))
    one, line = np.empty((1, 2 * most, pixels)), np.empty((5, shapes[2, 4]))
    region, part = np.empty((5, 3), np.int64), geom.copy()
    part[GROUPS] = 1
    i = 0
    while i < dims.size:
        group = (dims[i] if slot == BIAS else dims[i] // taps) // filters
        count = 0
        while count < most and i + count < dims.size:
            dim = dims[i + count]
            c = dim if slot == BIAS else dim // taps
            if c // filters != group:
                break
            for sign in range(2):
                _copy(entries[c], 1, moved[2 * count + sign])
                biases[2 * count + sign] = b[c]
            if slot == BIAS:
                biases[2 * count], biases[2 * count + 1] = _moved(b[c], h)
            else:
                k = dim - c * taps
                moved[2 * count, k], moved[2 * count + 1, k] = _moved(entries[c, k], h)
            count += 1
        part[FIRST] = group * w.shape[1]
        _select_all(region, 2, shapes[2])
        region[1, LOW], region[1, COUNT], region[1, STEP] = 0, 2 * count, 1
        for n in range(samples):
            region[0, LOW], region[0, COUNT], region[0, STEP] = n, 1, 1
            forward(x, copies, biases, part, region, one)
            for r in range(2 * count):
                _copy(one[0, r], 1, values[r, n * pixels : (n + 1) * pixels])
        region[0, LOW], region[0, COUNT], region[1, COUNT] = 0, samples, 1
        for j in range(count):
            dim = dims[i + j]
            c = dim if slot == BIAS else dim // taps
            width = biases[2 * j] - biases[2 * j + 1]
            if slot == WEIGHT:
                k = dim - c * taps
                width = moved[2 * j, k] - moved[2 * j + 1, k]
            _select_all(region, 2, shapes[2])
            region[1, LOW] = c
            _fold(region, values[2 * j], values[2 * j + 1], seen, width, model, curve, line, out[i + j])
            affected(slot, dim, shapes, geom, region)
            _add_rounding(region, seen, width, model, curve, out[i + j])
        i += count


def perturb(
    slot: int,
    whole: bool,
    dims: np.ndarray,
    h: float,
    operands: tuple[np.ndarray, ...],
    geom: np.ndarray,
    seen: tuple[np.ndarray, ...],
    model: np.ndarray,
    out: np.ndarray,
) -> None:
    """Difference a convolution with respect to entries of one operand by evaluating it at +h and -h.

    Of its three kernels only the one that is needed is compiled.

    The loss is sum(v * phi(z)), and its differences are summed output by output, so that the round-off is that of the
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
        Input, weight and bias as `conv.forward` takes them. With ``whole`` the perturbed entry is written and
        restored from its saved value, so that each thread needs a copy of that operand of its own.
    geom : int64 array, shape (11,)
        See `conv`.
    seen : tuple of float64 arrays, shaped as the output
        The output (of a curved loss; else any array), the cotangent, and a bound on every partial sum of an output
        (sum of |x w| and |b|).
    model : float64 array, shape (curved.MODEL,)
        The loss, and what its error bar is made of.
    out : float64 array, shape (len(dims), curved.COLUMNS)
        The table to fill.
    """
    x, w, _ = operands
    shapes = np.array([x.shape, w.shape, seen[1].shape], dtype=np.int64)
    evaluate = _perturb_whole if whole else _perturb_input if slot == INPUT else _perturb_filters
    # None is a type of its own, so that code for curved losses is compiled where one is differenced.
    curve = None if model[LOSS] == VJP else model
    evaluate(slot, dims, h, operands, geom, shapes, seen, model, curve, out)
