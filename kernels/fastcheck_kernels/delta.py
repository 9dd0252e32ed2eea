"""Two-sided differences of a convolution's outputs, moved by +d and -d from where they are.

The outputs z are kept, and a dimension moves each output by d, the step times the one operand that it multiplies
there. What is summed is v * ((z + d) - (z - d)), with the rounding of both sides: never v * 2d. Planes make every tap
an offset (see `planes`), so that each loop below is one long contiguous one. `reassoc` may reorder sums, and does not
fold the difference (tests/convolutions/test_delta.py differences with d far below an ulp of z, which must give zero).

Arrays are flat, and offsets are unsigned: with slices, or with indices that might be negative, half the time of a
short loop goes into finding out where it begins (14-wide maps: 5.2 against 7.2 G elements/s).
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel

CHUNK = 1024
"""Positions that `reduce` takes at a time, so that z, v and d stay in the L1 cache."""

U = 2.0**-53

TERMS = 64
"""Terms that `spread` takes at a time, for the same reason."""


@kernel("reassoc", "contract")
def _dot_nine(z, v, d, start, o, size):
    """Return nine sums of v * ((z + d) - (z - d)), with z and v from ``start`` on and d from nine offsets on."""
    o0, o1, o2, o3, o4, o5, o6, o7, o8 = o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7], o[8]
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        a, b = z[start + i], v[start + i]
        s0 += b * ((a + d[o0 + i]) - (a - d[o0 + i]))
        s1 += b * ((a + d[o1 + i]) - (a - d[o1 + i]))
        s2 += b * ((a + d[o2 + i]) - (a - d[o2 + i]))
        s3 += b * ((a + d[o3 + i]) - (a - d[o3 + i]))
        s4 += b * ((a + d[o4 + i]) - (a - d[o4 + i]))
        s5 += b * ((a + d[o5 + i]) - (a - d[o5 + i]))
        s6 += b * ((a + d[o6 + i]) - (a - d[o6 + i]))
        s7 += b * ((a + d[o7 + i]) - (a - d[o7 + i]))
        s8 += b * ((a + d[o8 + i]) - (a - d[o8 + i]))
    return s0, s1, s2, s3, s4, s5, s6, s7, s8


@kernel("reassoc", "contract")
def _dot_one(z, v, d, start, offset, size):
    """Return the sum of v * ((z + d) - (z - d))."""
    total = 0.0
    for i in range(size):
        total += v[start + i] * ((z[start + i] + d[offset + i]) - (z[start + i] - d[offset + i]))
    return total


@kernel()
def reduce(z, v, d, offsets, layout, tile, scale, out):
    """Difference dimensions whose moves d lie along positions: a rectangle of weights, or biases.

    Parameters
    ----------
    z, v : float64 arrays
        Outputs and cotangent, one plane a filter, flat.
    d : float64 array
        Moves, flat.
    offsets : uint64 array
        Of each column (input channel and tap) into ``d``.
    layout : int64 array, shape (3,)
        Positions in a plane, filters in a group, and by how much a group's offsets are further on.
    tile : int64 array, shape (4,)
        The dimensions: filters lo, hi and columns lo, hi.
    scale : float
        By which every sum is multiplied (1 / 2h).
    out : float64 array, shape (filters, columns)
    """
    positions, filters, step = layout
    first, last, left, right = tile
    row = np.empty(9, np.uint64)
    out[:] = 0.0
    for p in range(0, positions, CHUNK):
        size = np.uint64(min(CHUNK, positions - p))
        for c in range(first, last):
            start, base = np.uint64(c * positions + p), np.uint64(c // filters * step + p)
            sums = out[c - first]
            j = left
            while right - j >= 9:
                for k in range(9):
                    row[k] = base + offsets[j + k]
                s0, s1, s2, s3, s4, s5, s6, s7, s8 = _dot_nine(z, v, d, start, row, size)
                sums[j - left] += s0
                sums[j - left + 1] += s1
                sums[j - left + 2] += s2
                sums[j - left + 3] += s3
                sums[j - left + 4] += s4
                sums[j - left + 5] += s5
                sums[j - left + 6] += s6
                sums[j - left + 7] += s7
                sums[j - left + 8] += s8
                j += 9
            while j < right:
                sums[j - left] += _dot_one(z, v, d, start, base + offsets[j], size)
                j += 1
    _multiply_by(scale, out)


@kernel()
def _multiply_by(scale, out):
    for r in range(out.shape[0]):
        line = out[r]
        for i in range(line.size):
            line[i] *= scale


@kernel("contract")
def _spread_four(z, v, s0, s1, c, out, place, lanes):
    """Add two terms to four rows of ``out``: c[r, k] moves z of term k for row r."""
    c00, c01, c10, c11 = c[0, 0], c[0, 1], c[1, 0], c[1, 1]
    c20, c21, c30, c31 = c[2, 0], c[2, 1], c[3, 0], c[3, 1]
    r0, r1 = place, place + lanes
    r2, r3 = r1 + lanes, r1 + lanes + lanes
    for i in range(lanes):
        x, y, p, q = z[s0 + i], z[s1 + i], v[s0 + i], v[s1 + i]
        out[r0 + i] = (out[r0 + i] + p * ((x + c00) - (x - c00))) + q * ((y + c01) - (y - c01))
        out[r1 + i] = (out[r1 + i] + p * ((x + c10) - (x - c10))) + q * ((y + c11) - (y - c11))
        out[r2 + i] = (out[r2 + i] + p * ((x + c20) - (x - c20))) + q * ((y + c21) - (y - c21))
        out[r3 + i] = (out[r3 + i] + p * ((x + c30) - (x - c30))) + q * ((y + c31) - (y - c31))


@kernel("contract")
def _spread_one(z, v, s0, s1, s2, c, out, place, lanes):
    """Add three terms to one row of ``out``."""
    c0, c1, c2 = c[0, 0], c[0, 1], c[0, 2]
    for i in range(lanes):
        x, y, w = z[s0 + i], z[s1 + i], z[s2 + i]
        total = out[place + i] + v[s0 + i] * ((x + c0) - (x - c0))
        total += v[s1 + i] * ((y + c1) - (y - c1)) + v[s2 + i] * ((w + c2) - (w - c2))
        out[place + i] = total


@kernel()
def spread(z, v, starts, moves, rows, places, terms, scale, out):
    """Difference dimensions whose moves are constant along a line of outputs.

    The dimension of row r and lane i is the sum over terms k of v * ((z + c) - (z - c)) at starts[k] + places[r] + i,
    with c = moves[rows[r] + terms[k]]. For inputs lanes are positions, and terms are filters and taps; for weights of
    narrow maps lanes are filters, and terms are positions.

    Parameters
    ----------
    z, v : float64 arrays
        Outputs and cotangent, flat.
    starts, terms : uint64 arrays, shape (K,)
    moves : float64 array
    rows, places : uint64 arrays, shape (R,)
        Rows of equal places are taken four at a time.
    scale : float
    out : float64 array, shape (R, lanes)
    """
    lanes = np.uint64(out.shape[1])
    flat = out.reshape(out.size)
    c = np.zeros((4, 3))
    out[:] = 0.0
    for k0 in range(0, terms.size, TERMS):
        k1 = min(k0 + TERMS, terms.size)
        r = 0
        while r < rows.size:
            place, away = np.uint64(r) * lanes, places[r]
            if rows.size - r < 4 or places[r + 3] != away:
                for k in range(k0, k1, 3):
                    second, third = min(k + 1, k1 - 1), min(k + 2, k1 - 1)
                    c[0, 0] = moves[rows[r] + terms[k]]
                    c[0, 1] = moves[rows[r] + terms[second]] if k + 1 < k1 else 0.0
                    c[0, 2] = moves[rows[r] + terms[third]] if k + 2 < k1 else 0.0
                    s0, s1, s2 = starts[k] + away, starts[second] + away, starts[third] + away
                    _spread_one(z, v, s0, s1, s2, c, flat, place, lanes)
                r += 1
                continue
            for k in range(k0, k1, 2):
                other = min(k + 1, k1 - 1)  # a term left over is paired with itself, unmoved
                for i in range(4):
                    c[i, 0] = moves[rows[r + i] + terms[k]]
                    c[i, 1] = moves[rows[r + i] + terms[other]] if other > k else 0.0
                _spread_four(z, v, starts[k] + away, starts[other] + away, c, flat, place, lanes)
            r += 4
    _multiply_by(scale, out)


@kernel("contract")
def _weigh_term(z, v, start, c, weight, out, place, lanes, columns):
    """Add the sizes of one term to one row of the sums."""
    a, b = place, place + columns
    n, m = b + columns, place + columns * np.uint64(5)
    moves = 1.0 if c != 0.0 else 0.0
    for i in range(lanes):
        size = abs(v[start + i] * c)
        out[a + i] += size
        out[b + i] += size * size
        out[n + i] += moves if v[start + i] != 0.0 else 0.0
        out[m + i] += abs(v[start + i] * z[start + i]) * weight


@kernel()
def _absorb_term(v, start, c, tiny, out, place, lanes, columns):
    """Add one term to what is absorbed, where it is small beside the sum of all."""
    total, absorbed, count = place, place + columns * np.uint64(3), place + columns * np.uint64(4)
    for i in range(lanes):
        size = abs(v[start + i] * c)
        small = (size > 0.0) & (size < tiny * out[total + i])
        out[absorbed + i] += size if small else 0.0
        out[count + i] += 1.0 if small else 0.0


@kernel()
def weigh(z, v, starts, factors, rows, places, terms, tiny, scale, out):
    """Sum the sizes of the terms that `spread` differences: what the error bars need, exactly.

    Parameters
    ----------
    z, v, starts, rows, places, terms : as `spread` takes them
    factors : float64 array
        Its moves before they were multiplied by the step.
    tiny : float
        Terms below this fraction of the sum of |terms| are counted as absorbed.
    scale : float
        1 / 2h.
    out : float64 array, shape (6, R, lanes)
        The rows that `error_bars.bars` takes: sum of |terms|, of their squares, their number, the sum and the number of
        absorbed ones, what rounding z + d and z - d amounts to.
    """
    lanes, columns = np.uint64(out.shape[2]), np.uint64(out.shape[1] * out.shape[2])
    flat = out.reshape(out.size)
    out[:] = 0.0
    for r in range(rows.size):
        place = np.uint64(r) * lanes
        for k in range(terms.size):
            c = factors[rows[r] + terms[k]]
            _weigh_term(z, v, starts[k] + places[r], c, 2.0 * U * scale, flat, place, lanes, columns)
        for k in range(terms.size):
            c = factors[rows[r] + terms[k]]
            _absorb_term(v, starts[k] + places[r], c, tiny, flat, place, lanes, columns)
