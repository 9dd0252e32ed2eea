"""Cross-correlation of one to three spatial axes and its VJPs, by direct indexing.

Every array is float64 and C-contiguous, with three spatial axes (missing ones have size one):

- ``x`` is (N, C_in, D, H, W), ``w`` is (C_out, C_in / groups, kD, kH, kW), ``b`` is (C_out,).
- ``geom`` is int64 of shape (11,): stride, low padding and dilation (three each, in D, H, W order), groups, and the
  channel of ``x`` that is the first of group 0 (0, unless ``x`` or ``w`` is a part of a layer's).
- ``region`` is int64 of shape (5, 3): low, count and step of the outputs concerned along N, C_out, D, H, W
  (the step of N and C_out is one). Results over a region are dense in the region's own coordinates.

All four kernels read their operands in *panels*: a tile of the (taps x pixels) matrix whose column is the input
patch that one output pixel sees, zero where it sees padding. A panel is small enough for the L1 and L2 caches, and
a product with it is four output channels times four taps at a time, each over one contiguous run of pixels.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel

STRIDE, PADDING, DILATION, GROUPS, FIRST = 0, 3, 6, 9, 10
LOW, COUNT, STEP = 0, 1, 2

PIXELS = 256
"""Output pixels in a panel."""

TAPS = 64
"""Taps in a panel, also the length of the inner sums: see `roundings`."""


@kernel()
def _split(flat, second, third):
    """Split a flat index into three, the last two of the given sizes."""
    rest = flat // third
    return rest // second, rest % second, flat - rest * third


@kernel()
def _valid(first, jump, size, count):
    """Return lo, hi: the range of i in [0, count) where first + i * jump lies in [0, size)."""
    lo, hi = 0, count
    if first < 0:
        lo = min(count, (-first + jump - 1) // jump)
    if first + (count - 1) * jump >= size:  # divisions only where a border is met: they cost as much as a row
        hi = 0 if first >= size else (size - first + jump - 1) // jump
    return lo, max(lo, hi)


@kernel()
def _panel_width(pixels):
    """Return how many pixels a panel takes, so that panels are about equally full."""
    panels = (pixels + PIXELS - 1) // PIXELS
    return (pixels + panels - 1) // panels


@kernel()
def _source(geom, region, axis, position, tap):
    """Input coordinate that a tap meets at a region's output position along one spatial axis."""
    output = region[2 + axis, LOW] + position * region[2 + axis, STEP]
    return output * geom[STRIDE + axis] - geom[PADDING + axis] + tap * geom[DILATION + axis]


@kernel()
def _next_row(od, oh, rows):
    """Return the place where the next row of a region begins."""
    if oh + 1 < rows:
        return od, oh + 1, 0
    return od + 1, 0, 0


@kernel()
def _copy(source, jump, target):
    """Copy every jump-th entry. Of slices, whose indices the compiler knows to be positive: 2.5 times as fast."""
    if jump == 1:
        for i in range(target.size):
            target[i] = source[i]
    elif jump == 2:
        for i in range(target.size):
            target[i] = source[2 * i]
    else:
        for i in range(target.size):
            target[i] = source[i * jump]


@kernel()
def _move(x, place, span, kernel_shape, geom, region, panel, back):
    """Fill panel[k, p] with the input that tap k0 + k meets at the region's output pixel p0 + p, 0 for padding.

    With ``back``, its transpose: add the panel to those inputs. ``place`` is (sample, first channel), ``span`` is
    (k0, taps, p0, pixels).
    """
    depth, height, width = x.shape[2:]
    kd, kh, kw = kernel_shape
    k0, taps, p0, pixels = span
    rows, columns = region[3, COUNT], region[4, COUNT]
    jump = region[4, STEP] * geom[STRIDE + 2]
    for k in range(taps):
        c, td, rest = _split(k0 + k, kd, kh * kw)
        th, tw = rest // kw, rest % kw
        line = panel[k]
        done = 0
        od, oh, ow = _split(p0, rows, columns)
        while done < pixels:
            run = min(columns - ow, pixels - done)
            iz = _source(geom, region, 0, od, td)
            iy = _source(geom, region, 1, oh, th)
            lo, hi = 0, 0
            if 0 <= iz < depth and 0 <= iy < height:
                ix = _source(geom, region, 2, ow, tw)
                lo, hi = _valid(ix, jump, width, run)
                row = x[place[0], place[1] + c, iz, iy]
                if lo < hi and back:
                    _add_spread(line[done + lo : done + hi], row[ix + lo * jump :], jump)
                elif lo < hi:
                    _copy(row[ix + lo * jump :], jump, line[done + lo : done + hi])
            if not back:
                for i in range(done, done + lo):
                    line[i] = 0.0
                for i in range(done + hi, done + run):
                    line[i] = 0.0
            done += run
            od, oh, ow = _next_row(od, oh, rows)


@kernel()
def _add_spread(source, target, jump):
    """Add a line to every jump-th entry of another."""
    for i in range(source.size):
        target[i * jump] += source[i]


@kernel()
def _add(source, target):
    """Add the first entries of one line to another."""
    for i in range(target.size):
        target[i] += source[i]


@kernel("contract")
def _multiply(a, rows, terms, panel, pixels, out):
    """Set out[r, p] = sum over k of a[r, k] * panel[k, p] for r < rows, where rows is 1 or 4.

    ``terms`` is rounded up to a multiple of four: the entries of ``a`` beyond it must be zero and the lines of
    ``panel`` finite. The sum runs over k in order, so that a result does not depend on how pixels are cut.
    """
    for r in range(rows):
        line = out[r]
        for p in range(pixels):
            line[p] = 0.0
    o0 = out[0]
    for k in range(0, terms, 4):
        x0, x1, x2, x3 = panel[k], panel[k + 1], panel[k + 2], panel[k + 3]
        a00, a01, a02, a03 = a[0, k], a[0, k + 1], a[0, k + 2], a[0, k + 3]
        if rows == 1:
            for p in range(pixels):
                o0[p] = (((o0[p] + a00 * x0[p]) + a01 * x1[p]) + a02 * x2[p]) + a03 * x3[p]
            continue
        o1, o2, o3 = out[1], out[2], out[3]
        a10, a11, a12, a13 = a[1, k], a[1, k + 1], a[1, k + 2], a[1, k + 3]
        a20, a21, a22, a23 = a[2, k], a[2, k + 1], a[2, k + 2], a[2, k + 3]
        a30, a31, a32, a33 = a[3, k], a[3, k + 1], a[3, k + 2], a[3, k + 3]
        for p in range(pixels):
            o0[p] = (((o0[p] + a00 * x0[p]) + a01 * x1[p]) + a02 * x2[p]) + a03 * x3[p]
            o1[p] = (((o1[p] + a10 * x0[p]) + a11 * x1[p]) + a12 * x2[p]) + a13 * x3[p]
            o2[p] = (((o2[p] + a20 * x0[p]) + a21 * x1[p]) + a22 * x2[p]) + a23 * x3[p]
            o3[p] = (((o3[p] + a30 * x0[p]) + a31 * x1[p]) + a32 * x2[p]) + a33 * x3[p]


@kernel()
def _load(matrix, r0, rows, k0, terms, a):
    """Copy matrix[r0 : r0 + rows, k0 : k0 + terms] into a, with zeros up to the next multiple of four terms."""
    for r in range(rows):
        for k in range(terms):
            a[r, k] = matrix[r0 + r, k0 + k]
        for k in range(terms, (terms + 3) // 4 * 4):
            a[r, k] = 0.0


@kernel()
def forward(x, w, b, geom, region, out):
    """Write the outputs of a region into ``out``, of shape (n, channels, pixels)."""
    taps_in_all = w.shape[1] * w.shape[2] * w.shape[3] * w.shape[4]
    matrix = w.reshape(w.shape[0], taps_in_all)
    filters = w.shape[0] // geom[GROUPS]
    pixels_in_all = region[2, COUNT] * region[3, COUNT] * region[4, COUNT]
    width = _panel_width(pixels_in_all)
    panel = np.zeros((TAPS, width))
    tile = np.empty((4, width))
    a = np.zeros((4, TAPS))
    first, last = region[1, LOW], region[1, LOW] + region[1, COUNT]
    for sample in range(region[0, COUNT]):
        for g in range(first // filters, (last - 1) // filters + 1):
            c_low, c_high = max(first, g * filters), min(last, (g + 1) * filters)
            for p0 in range(0, pixels_in_all, width):
                pixels = min(width, pixels_in_all - p0)
                for c in range(c_low, c_high):
                    out[sample, c - first, p0 : p0 + pixels].fill(b[c])
                for k0 in range(0, taps_in_all, TAPS):
                    taps = min(TAPS, taps_in_all - k0)
                    place, span = (region[0, LOW] + sample, geom[FIRST] + g * w.shape[1]), (k0, taps, p0, pixels)
                    _move(x, place, span, w.shape[2:], geom, region, panel, False)
                    c = c_low
                    while c < c_high:
                        rows = 4 if c + 4 <= c_high else 1
                        _load(matrix, c, rows, k0, taps, a)
                        _multiply(a, rows, taps, panel, pixels, tile)
                        for r in range(rows):
                            _add(tile[r], out[sample, c - first + r, p0 : p0 + pixels])
                        c += rows


@kernel()
def adjoint(v, w, geom, lo, hi, out):
    """Add the input VJP of cotangent ``v``, of shape (N, C_out, oD, oH, oW), to ``out``, shaped as the input.

    Only the (sample, input channel) pairs of flat index lo <= i < hi are written, so that threads can share ``out``.
    """
    samples, channels = out.shape[:2]
    per_group, filters = w.shape[1], w.shape[0] // geom[GROUPS]
    kernel_shape = w.shape[2:]
    taps = kernel_shape[0] * kernel_shape[1] * kernel_shape[2]
    matrix = w.reshape(w.shape[0], per_group * taps)
    pixels_in_all = v.shape[2] * v.shape[3] * v.shape[4]
    lines = v.reshape(samples, v.shape[1], pixels_in_all)
    region = np.ones((5, 3), np.int64)
    for axis in range(5):
        region[axis, LOW], region[axis, COUNT] = 0, v.shape[axis]
    width = _panel_width(pixels_in_all)
    panel = np.zeros((TAPS, width))
    total = np.empty((TAPS, width))
    tile = np.empty((4, width))
    a = np.zeros((4, TAPS))
    for i in range(lo, hi):
        n, c = i // channels, i % channels
        g, c_in_group = c // per_group, c % per_group
        for p0 in range(0, pixels_in_all, width):
            pixels = min(width, pixels_in_all - p0)
            for t0 in range(0, taps, TAPS):
                rows_here = min(TAPS, taps - t0)
                total.fill(0.0)
                for f0 in range(0, filters, TAPS):
                    terms = min(TAPS, filters - f0)
                    for f in range(terms):
                        _copy(lines[n, g * filters + f0 + f, p0 : p0 + pixels], 1, panel[f, :pixels])
                    for r0 in range(0, rows_here, 4):
                        rows = min(4, rows_here - r0)
                        _load_transposed(matrix, g * filters + f0, terms, c_in_group * taps + t0 + r0, rows, a)
                        _multiply(a, 4, terms, panel, pixels, tile)
                        for r in range(rows):
                            _add(tile[r], total[r0 + r, :pixels])
                place, span = (n, g * per_group), (c_in_group * taps + t0, rows_here, p0, pixels)
                _move(out, place, span, kernel_shape, geom, region, total, True)


@kernel()
def _load_transposed(matrix, f0, terms, k0, rows, a):
    """Copy the transpose of matrix[f0 : f0 + terms, k0 : k0 + rows] into a, zero elsewhere up to four rows."""
    for r in range(4):
        for f in range((terms + 3) // 4 * 4):
            a[r, f] = matrix[f0 + f, k0 + r] if r < rows and f < terms else 0.0


@kernel("reassoc", "contract")
def _dots(v0, v1, v2, v3, line):
    """Return the inner products of four cotangent lines with one panel line."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for p in range(line.size):
        s0 += v0[p] * line[p]
        s1 += v1[p] * line[p]
        s2 += v2[p] * line[p]
        s3 += v3[p] * line[p]
    return s0, s1, s2, s3


@kernel()
def weight_vjp(x, v, geom, lo, hi, out):
    """Write the weight VJP of cotangent ``v``, of shape (N, C_out, oD, oH, oW), to filters lo <= c < hi of ``out``."""
    per_group, filters = out.shape[1], out.shape[0] // geom[GROUPS]
    kernel_shape = out.shape[2:]
    taps_in_all = per_group * kernel_shape[0] * kernel_shape[1] * kernel_shape[2]
    matrix = out.reshape(out.shape[0], taps_in_all)
    for c in range(lo, hi):
        matrix[c].fill(0.0)
    pixels_in_all = v.shape[2] * v.shape[3] * v.shape[4]
    lines = v.reshape(v.shape[0], v.shape[1], pixels_in_all)
    region = np.ones((5, 3), np.int64)
    for axis in range(5):
        region[axis, LOW], region[axis, COUNT] = 0, v.shape[axis]
    width = _panel_width(pixels_in_all)
    panel = np.empty((TAPS, width))
    for n in range(v.shape[0]):
        for g in range(lo // filters, (hi - 1) // filters + 1):
            c_low, c_high = max(lo, g * filters), min(hi, (g + 1) * filters)
            for p0 in range(0, pixels_in_all, width):
                p1 = min(p0 + width, pixels_in_all)
                for k0 in range(0, taps_in_all, TAPS):
                    taps = min(TAPS, taps_in_all - k0)
                    place, span = (n, g * per_group), (k0, taps, p0, p1 - p0)
                    _move(x, place, span, kernel_shape, geom, region, panel, False)
                    for c in range(c_low, c_high, 4):
                        # Beyond the last filter the last one is read again and its sum left unused.
                        c1, c2, c3 = min(c + 1, c_high - 1), min(c + 2, c_high - 1), min(c + 3, c_high - 1)
                        v0, v1, v2, v3 = (
                            lines[n, c, p0:p1],
                            lines[n, c1, p0:p1],
                            lines[n, c2, p0:p1],
                            lines[n, c3, p0:p1],
                        )
                        for k in range(taps):
                            s0, s1, s2, s3 = _dots(v0, v1, v2, v3, panel[k, : p1 - p0])
                            matrix[c, k0 + k] += s0
                            if c1 > c:
                                matrix[c1, k0 + k] += s1
                            if c2 > c1:
                                matrix[c2, k0 + k] += s2
                            if c3 > c2:
                                matrix[c3, k0 + k] += s3
