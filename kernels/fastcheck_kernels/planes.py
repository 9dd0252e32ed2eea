"""Activations as flat planes, in which every tap of a convolution is one constant offset.

A plane holds one channel (or one of its phases, for a stride): samples, depth slices, rows and columns one after
another at fixed pitches, with zeros between them that stand for the padding. See `fastcheck.convolutions.lowering`.
"""

from __future__ import annotations

from ._jit import kernel

PITCH, LEAD, STRIDE, COUNT = 0, 3, 4, 7
"""Places in a layout, int64 of shape (10,): pitches in depth slices, rows and columns; zeros before the first entry;
strides; entries taken at most along each axis."""

SQUARES, FOURTHS, NONZERO, LARGEST = range(4)
"""Columns of `power_sums`."""


@kernel()
def _scaled_row(source, jump, scale, target):
    """Set target[i] = scale * source[i * jump]."""
    if jump == 1:
        for i in range(target.size):
            target[i] = scale * source[i]
    else:
        for i in range(target.size):
            target[i] = scale * source[i * jump]


@kernel()
def pack(source, layout, phases, scale, lo, hi, planes):
    """Write channels lo <= c < hi of an activation, times ``scale``, as planes.

    Parameters
    ----------
    source : float64 array, shape (N, C, D, H, W)
    layout : int64 array, shape (10,)
    phases : int64 array, shape (F, 3)
        Where along each axis a phase begins.
    scale : float
    lo, hi : int
    planes : float64 array, shape (C, F, size)
        Filled with zeros between and around the entries.
    """
    samples = source.shape[0]
    rows_in_slice, columns_in_row = layout[PITCH + 1], layout[PITCH + 2]
    for c in range(lo, hi):
        for f in range(phases.shape[0]):
            plane = planes[c, f]
            plane.fill(0.0)
            first = phases[f, 2]
            jump = layout[STRIDE + 2]
            count = min(layout[COUNT + 2], (source.shape[4] - first + jump - 1) // jump)
            for n in range(samples):
                for d in range(layout[COUNT]):
                    z = d * layout[STRIDE] + phases[f, 0]
                    if z >= source.shape[2]:
                        break
                    for h in range(layout[COUNT + 1]):
                        y = h * layout[STRIDE + 1] + phases[f, 1]
                        if y >= source.shape[3]:
                            break
                        row = (n * layout[PITCH] + d) * rows_in_slice + h
                        start = layout[LEAD] + row * columns_in_row
                        if count > 0:
                            _scaled_row(source[n, c, z, y, first:], jump, scale, plane[start : start + count])


@kernel()
def transpose(source, target):
    """Write the transpose of a matrix, by squares of 16: NumPy takes three times as long."""
    for r0 in range(0, source.shape[0], 16):
        r1 = min(r0 + 16, source.shape[0])
        for c0 in range(0, source.shape[1], 16):
            for c in range(c0, min(c0 + 16, source.shape[1])):
                line = target[c]
                for r in range(r0, r1):
                    line[r] = source[r, c]


@kernel("reassoc", "contract")
def power_sums(values, lo, hi, out):
    """Write the sums of squares and of fourth powers, the number of non-zeros and the largest size of rows lo to hi.

    ``values`` is float64 of shape (R, P), ``out`` of shape (R, 4).
    """
    for r in range(lo, hi):
        row = values[r]
        squares, fourths, nonzero, largest = 0.0, 0.0, 0.0, 0.0
        for i in range(row.size):
            square = row[i] * row[i]
            squares += square
            fourths += square * square
            nonzero += 1.0 if row[i] != 0.0 else 0.0
            largest = max(largest, abs(row[i]))
        out[r, SQUARES], out[r, FOURTHS], out[r, NONZERO], out[r, LARGEST] = squares, fourths, nonzero, largest


@kernel("reassoc", "contract")
def product_sums(z, v, lo, hi, out):
    """Write the sum and the largest of |v z| of rows lo to hi; arrays of shape (R, P), ``out`` of shape (R, 2)."""
    for r in range(lo, hi):
        total, largest = 0.0, 0.0
        line_z, line_v = z[r], v[r]
        for i in range(line_z.size):
            product = abs(line_v[i] * line_z[i])
            total += product
            largest = max(largest, product)
        out[r, 0], out[r, 1] = total, largest


@kernel("contract")
def channel_sums(z, v, lo, hi, out):
    """Add up over channels, for every position: v^2, v^4, non-zeros of v, and |v z|.

    ``z`` and ``v`` are float64 of shape (B, C, P); of each lo <= b < hi the sums go to ``out``, of shape (B, 4, P).
    """
    for b in range(lo, hi):
        squares, fourths, nonzero, products = out[b, 0], out[b, 1], out[b, 2], out[b, 3]
        out[b].fill(0.0)
        for c in range(z.shape[1]):
            line_z, line_v = z[b, c], v[b, c]
            for i in range(line_z.size):
                square = line_v[i] * line_v[i]
                squares[i] += square
                fourths[i] += square * square
                nonzero[i] += 1.0 if line_v[i] != 0.0 else 0.0
                products[i] += abs(line_v[i] * line_z[i])
