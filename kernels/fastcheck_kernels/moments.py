"""What the terms of a network's gradient add up to in size: for the error bars of sums that somebody else computed."""

from __future__ import annotations

from . import columns, layers
from ._jit import kernel


@kernel()
def moments(net, tensor, cached, cotangents, points, period, out):
    """Add the sums of |t|, of t^2 and the number of the terms t != 0 of every entry's gradient.

    Parameters
    ----------
    net, cached, cotangents
        As of `fastcheck_kernels.columns`, after a backward pass.
    tensor : tuple of int
        (layer, whether it is the bias).
    points, period : int
    out : float64 array, shape (entries, 3)
    """
    table, lookup = net[0], net[3]
    node, bias = tensor
    row = table[node]
    pixels, whole = row[columns.PIXELS], row[columns.KIND] == layers.LAYER_NORM
    for c in range(row[columns.CHANNELS]):
        v_at = row[columns.CACHED] + c * pixels * period
        if row[columns.KIND] == layers.CONV and not bias:
            _conv(table, lookup, row, c, v_at, cached, cotangents, points, period, out)
            continue
        if row[columns.KIND] == layers.PRELU:
            _prelu(table, row, c, v_at, cached, cotangents, points, period, out)
            continue
        if row[columns.KIND] == layers.EMBEDDING:
            _embedding(table, row, c, v_at, cached, cotangents, points, period, out)
            continue
        for p in range(pixels):
            entry = c * pixels + p if whole else c
            for n in range(points):
                term = abs(cotangents[v_at + p * period + n])
                if not bias:
                    term *= abs(cached[row[columns.EXTRA] + (c * pixels + p) * period + n])
                _fold(out, entry, term)


@kernel()
def _conv(table, lookup, row, c, v_at, cached, cotangents, points, period, out):
    source, pixels, taps = row[columns.A], row[columns.PIXELS], row[columns.TAPS]
    first = c // row[columns.FILTERS] * row[columns.PER_GROUP]
    for k in range(row[columns.PER_GROUP] * taps):
        x_at = table[source, columns.CACHED] + (first + k // taps) * table[source, columns.PIXELS] * period
        for p in range(pixels):
            pixel = lookup[row[columns.LOOKUP] + k % taps * pixels + p]
            if pixel < 0:
                continue
            for n in range(points):
                term = abs(cached[x_at + pixel * period + n] * cotangents[v_at + p * period + n])
                _fold(out, c * row[columns.PER_GROUP] * taps + k, term)


@kernel()
def _prelu(table, row, c, v_at, cached, cotangents, points, period, out):
    x_at = table[row[columns.A], columns.CACHED] + c * row[columns.PIXELS] * period
    for p in range(row[columns.PIXELS]):
        for n in range(p * period, p * period + points):
            _fold(out, c * row[columns.TAPS], abs(min(cached[x_at + n], 0.0) * cotangents[v_at + n]))


@kernel()
def _embedding(table, row, c, v_at, cached, cotangents, points, period, out):
    numbers = table[row[columns.A], columns.CACHED]
    for p in range(row[columns.PIXELS]):
        for n in range(p * period, p * period + points):
            _fold(out, c * row[columns.PER_GROUP] + int(cached[numbers + n]), abs(cotangents[v_at + n]))


@kernel()
def _fold(out, entry, term):
    out[entry, 0] += term
    out[entry, 1] += term * term
    out[entry, 2] += 1.0 if term != 0.0 else 0.0
