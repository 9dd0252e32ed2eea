"""Layers of a network, on arrays of lanes.

An activation is (channels, pixels, lanes), flat, lanes last. A lane is one data point of one perturbed copy of the
network, so that every loop's vector direction is lanes, whatever the layer's geometry. Pixels run over all spatial
axes. Tables of ``spots`` list which of them meet: for output pixel p, rows ``starts[p] : starts[p + 1]`` are (input
pixel, tap).

A *place* is (offset of channel 0, pitch of channels). A channel range is lo <= c < hi: a perturbation changes few
channels at first, and nothing is computed for the others.

Cached activations of the unperturbed network have ``period`` lanes, a multiple of the data points and of eight: lane l
of any array holds data point l mod period, mod the number of data points.
"""

from __future__ import annotations

import math

import numpy as np

from . import tile
from ._jit import kernel

(
    INPUT,
    CONV,
    MAX_POOL,
    AVG_POOL,
    BATCH_NORM,
    FROZEN_NORM,
    LAYER_NORM,
    DROPOUT,
    FLATTEN,
    RELU,
    LEAKY_RELU,
    ELU,
    GELU,
    GELU_TANH,
    SILU,
    TANH,
    SIGMOID,
    SOFTPLUS,
    ADD,
    CONCAT,
    GROUP_NORM,
    SOFTMAX,
    PRELU,
    EMBEDDING,
) = range(24)
"""Kinds of layers. A dense layer is a convolution whose kernel covers the map; global pooling is an average."""

ROOT_HALF = math.sqrt(0.5)
GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
"""Constants of the gelu and of its tanh form (Hendrycks and Gimpel 2016)."""


@kernel()
def copy(source, target):
    """Copy as many entries as the target has. An assigned slice would take half a second more to compile."""
    for i in range(target.size):
        target[i] = source[i]


@kernel()
def put(value, target):
    """Write one value everywhere."""
    for i in range(target.size):
        target[i] = value


@kernel()
def fill(cached, target, place, span, lanes, period):
    """Copy cached channels to all lanes. ``span`` is (offset of the cached node, lo, hi, pixels)."""
    at, lo, hi, pixels = span
    for c in range(lo, hi):
        for p in range(pixels):
            source = tile.cut(cached, at + (c * pixels + p) * period, period)
            start = place[0] + c * place[1] + p * lanes
            for first in range(start, start + lanes, period):
                piece = tile.cut(target, first, period)
                for q in range(period):
                    piece[q] = source[q]


@kernel()
def add_cached(cached, target, place, span, lanes, period):
    """Add cached channels to all lanes; the arguments are those of `fill`."""
    at, lo, hi, pixels = span
    for c in range(lo, hi):
        for p in range(pixels):
            source = tile.cut(cached, at + (c * pixels + p) * period, period)
            start = place[0] + c * place[1] + p * lanes
            for first in range(start, start + lanes, period):
                piece = tile.cut(target, first, period)
                for q in range(period):
                    piece[q] += source[q]


@kernel()
def moves(cached, source, place, span, lanes, period, out):
    """Write the changes of channels from the cached ones to ``out``: from lo on, with a pixel between channels."""
    at, lo, hi, pixels = span
    for c in range(lo, hi):
        for p in range(pixels):
            known = tile.cut(cached, at + (c * pixels + p) * period, period)
            start = place[0] + c * place[1] + p * lanes
            to = ((c - lo) * (pixels + 1) + p) * lanes
            for first in range(0, lanes, period):
                piece = tile.cut(source, start + first, period)
                moved = tile.cut(out, to + first, period)
                for q in range(period):
                    moved[q] = piece[q] - known[q]


@kernel()
def multiply(source, packed, init, target, spots, starts, shape, start):
    """Multiply lanes of one group's input channels with packed weights, by tiles.

    Parameters
    ----------
    source, packed, init, target : float64 arrays
        Flat.
    spots, starts : int64 arrays
        The layer's own.
    shape : tuple of int
        (source offset, source pitch, input channels, packed offset, entries of a tile's filters, taps, target offset,
        target pitch, filters, output pixels, lanes).
    start : tuple of int
        (offset, pitch, pixel step, period): entry l of an output's initial values is
        init[offset + filter * pitch + pixel * step + l mod period].
    """
    at, pitch, channels, packed_at, filter_size, taps, to, to_pitch, filters, pixels, lanes = shape
    init_at, init_pitch, init_step, period = start
    most = 0
    for p in range(pixels):  # more than there are taps where padding repeats a pixel
        most = max(most, starts[p + 1] - starts[p])
    meets = np.empty((channels * most, 2), np.int64)
    for p in range(pixels):
        count = 0
        for c in range(channels):
            for j in range(starts[p], starts[p + 1]):
                meets[count, 0] = c * pitch + spots[j, 0] * lanes
                meets[count, 1] = (c * taps + spots[j, 1]) * tile.CHANNELS
                count += 1
        known = init_at + p * init_step
        shown = 0
        for lane in range(0, lanes, tile.LANES):
            second = shown + tile.VECTOR if shown + tile.VECTOR < period else 0
            # Filters in the inner loop: the lanes that were read stay in the cache, and weights are read in order.
            for first in range(0, filters, tile.CHANNELS):
                span = (
                    to + first * to_pitch + p * lanes + lane,
                    to_pitch,
                    known + first * init_pitch + shown,
                    known + first * init_pitch + second,
                    init_pitch,
                    at + lane,
                    packed_at + first // tile.CHANNELS * filter_size,
                    count,
                )
                tile.multiply(target, init, source, packed, meets, span)
            shown = shown + tile.LANES if shown + tile.LANES < period else 0


@kernel("contract")
def accumulate(source, weights, target, spots, starts, shape):
    """Add products as `multiply` does, but filter by filter, for groups with too few filters to fill a tile.

    ``shape`` is (source offset, source pitch, input channels, first weight, weights of a filter, taps, target
    offset, target pitch, filters, output pixels, lanes).
    """
    at, pitch, channels, first, filter_size, taps, to, to_pitch, filters, pixels, lanes = shape
    for f in range(filters):
        for p in range(pixels):
            out = tile.cut(target, to + f * to_pitch + p * lanes, lanes)
            for c in range(channels):
                for j in range(starts[p], starts[p + 1]):
                    weight = weights[first + f * filter_size + c * taps + spots[j, 1]]
                    x_at = at + c * pitch + spots[j, 0] * lanes
                    x = tile.cut(source, x_at, lanes)
                    for lane in range(lanes):
                        out[lane] += weight * x[lane]


@kernel()
def max_pool(source, target, spots, starts, lanes):
    """Write the largest entry of every window of one channel."""
    for p in range(starts.size - 1):
        out = tile.cut(target, p * lanes, lanes)
        copy(source[spots[starts[p], 0] * lanes :], out)
        for j in range(starts[p] + 1, starts[p + 1]):
            x = source[spots[j, 0] * lanes : (spots[j, 0] + 1) * lanes]
            # Adding zero keeps LLVM from storing under a mask, which takes ten times as long on some machines.
            for lane in range(lanes):
                out[lane] = max(out[lane], x[lane]) + 0.0


@kernel()
def avg_pool(source, target, spots, starts, shares, lanes):
    """Write the averages of the windows of one channel; ``shares`` are the inverses of the windows' sizes."""
    for p in range(starts.size - 1):
        out = tile.cut(target, p * lanes, lanes)
        put(0.0, out)
        for j in range(starts[p], starts[p + 1]):
            x = source[spots[j, 0] * lanes : (spots[j, 0] + 1) * lanes]
            for lane in range(lanes):
                out[lane] += x[lane]
        for lane in range(lanes):
            out[lane] *= shares[p]


@kernel()
def batch_moments(source, lanes, points, eps, mean, inverse):
    """Write the mean and 1 / sqrt(variance + eps) of one channel for every lane, over pixels and data points."""
    pixels = source.size // lanes
    _sum_pixels(source, lanes, mean)
    _average(mean, points, pixels * points)
    put(0.0, inverse)
    for p in range(pixels):
        x = tile.cut(source, p * lanes, lanes)
        for lane in range(lanes):
            inverse[lane] += (x[lane] - mean[lane]) * (x[lane] - mean[lane])
    _average(inverse, points, pixels * points)
    for lane in range(lanes):
        inverse[lane] = 1.0 / math.sqrt(inverse[lane] + eps)


@kernel()
def _sum_pixels(source, lanes, total):
    put(0.0, total)
    for p in range(source.size // lanes):
        x = tile.cut(source, p * lanes, lanes)
        for lane in range(lanes):
            total[lane] += x[lane]


@kernel()
def _average(values, points, count):
    """Replace the lanes of each copy of the network by their sum over data points, divided by ``count``."""
    for first in range(0, values.size, points):
        total = 0.0
        for n in range(points):
            total += values[first + n]
        for n in range(points):
            values[first + n] = total / count


@kernel()
def layer_moments(source, place, channels, pixels, lanes, eps, mean, inverse):
    """Write the mean and 1 / sqrt(variance + eps) over all channels and pixels for every lane."""
    put(0.0, mean)
    put(0.0, inverse)
    for c in range(channels):
        for p in range(pixels):
            start = place[0] + c * place[1] + p * lanes
            x = tile.cut(source, start, lanes)
            for lane in range(lanes):
                mean[lane] += x[lane]
    for lane in range(lanes):
        mean[lane] /= channels * pixels
    for c in range(channels):
        for p in range(pixels):
            start = place[0] + c * place[1] + p * lanes
            x = tile.cut(source, start, lanes)
            for lane in range(lanes):
                inverse[lane] += (x[lane] - mean[lane]) * (x[lane] - mean[lane])
    for lane in range(lanes):
        inverse[lane] = 1.0 / math.sqrt(inverse[lane] / (channels * pixels) + eps)


@kernel()
def embed(source, at, weights, shape, target, place, lanes):
    """Write the entries of a table's rows that integers name; ``shape`` is (first weight, rows, channels, pixels)."""
    first, rows, channels, pixels = shape
    for c in range(channels):
        for i in range(pixels * lanes):
            target[place[0] + c * place[1] + i] = weights[first + c * rows + int(source[at + i])]


@kernel()
def softmax(source, place, target, target_place, channels, pixels, lanes):
    """Write exp(z) / sum(exp(z)) over all channels, pixel by pixel."""
    top, total = np.empty(lanes), np.empty(lanes)
    for p in range(pixels):
        put(-np.inf, top)
        put(0.0, total)
        for c in range(channels):
            z = tile.cut(source, place[0] + c * place[1] + p * lanes, lanes)
            for lane in range(lanes):
                top[lane] = max(top[lane], z[lane])
        for c in range(channels):
            z = tile.cut(source, place[0] + c * place[1] + p * lanes, lanes)
            out = tile.cut(target, target_place[0] + c * target_place[1] + p * lanes, lanes)
            for lane in range(lanes):
                out[lane] = math.exp(z[lane] - top[lane])
                total[lane] += out[lane]
        for c in range(channels):
            out = tile.cut(target, target_place[0] + c * target_place[1] + p * lanes, lanes)
            for lane in range(lanes):
                out[lane] /= total[lane]


@kernel()
def normalise(source, target, lanes, mean, inverse):
    """Subtract the mean and scale, pixel by pixel."""
    for p in range(source.size // lanes):
        x, out = tile.cut(source, p * lanes, lanes), tile.cut(target, p * lanes, lanes)
        for lane in range(lanes):
            out[lane] = (x[lane] - mean[lane]) * inverse[lane]


@kernel()
def scale(target, weight, bias):
    """Multiply by a weight and add a bias."""
    for i in range(target.size):
        target[i] = weight * target[i] + bias


@kernel()
def mask(source, target, factors, lanes, period):
    """Multiply one channel by factors of ``period`` lanes."""
    for p in range(source.size // lanes):
        factor = tile.cut(factors, p * period, period)
        for first in range(p * lanes, (p + 1) * lanes, period):
            x, out = tile.cut(source, first, period), tile.cut(target, first, period)
            for q in range(period):
                out[q] = x[q] * factor[q]


@kernel()
def activate(kind, real, z, out):
    """Apply an activation to one channel. ``real`` is its slope, alpha or beta."""
    if kind == RELU:
        for i in range(z.size):
            out[i] = max(z[i], 0.0)
    elif kind == LEAKY_RELU:
        for i in range(z.size):
            out[i] = z[i] if z[i] > 0.0 else real * z[i]
    elif kind == ELU:
        for i in range(z.size):
            out[i] = z[i] if z[i] > 0.0 else real * math.expm1(z[i])
    elif kind == GELU:
        for i in range(z.size):
            out[i] = 0.5 * z[i] * (1.0 + math.erf(z[i] * ROOT_HALF))
    elif kind == GELU_TANH:
        for i in range(z.size):
            out[i] = 0.5 * z[i] * (1.0 + math.tanh(GELU_SCALE * (z[i] + GELU_CUBE * z[i] * z[i] * z[i])))
    elif kind == SILU:
        for i in range(z.size):
            out[i] = z[i] * sigmoid(z[i])
    elif kind == TANH:
        for i in range(z.size):
            out[i] = math.tanh(z[i])
    elif kind == SIGMOID:
        for i in range(z.size):
            out[i] = sigmoid(z[i])
    else:
        for i in range(z.size):
            out[i] = softplus(real * z[i]) / real


@kernel()
def sigmoid(z):
    """Return 1 / (1 + exp(-z)) without overflow."""
    e = math.exp(-abs(z))
    return 1.0 / (1.0 + e) if z >= 0 else e / (1.0 + e)


@kernel()
def softplus(z):
    """Return log(1 + exp(z)) without overflow."""
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@kernel()
def slope(kind, real, z):
    """Return the derivative of an activation; at a kink, the left piece's, as PyTorch does."""
    if kind == RELU:
        return 1.0 if z > 0.0 else 0.0
    if kind == LEAKY_RELU:
        return 1.0 if z > 0.0 else real
    if kind == ELU:
        return 1.0 if z > 0.0 else real * math.exp(z)
    if kind == GELU:
        return 0.5 * (1.0 + math.erf(z * ROOT_HALF)) + z * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    if kind == GELU_TANH:
        t = math.tanh(GELU_SCALE * (z + GELU_CUBE * z * z * z))
        return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * z * z)
    if kind == SILU:
        s = sigmoid(z)
        return s + z * s * (1.0 - s)
    if kind == TANH:
        t = math.tanh(z)
        return 1.0 - t * t
    if kind == SIGMOID:
        s = sigmoid(z)
        return s * (1.0 - s)
    return sigmoid(real * z)


@kernel()
def excess(kind, real, at, z):
    """Return the distance at z between an activation and the continuation of the piece that holds at ``at``."""
    if (at > 0.0) == (z > 0.0):
        return 0.0
    if kind == RELU:
        return abs(z)
    if kind == LEAKY_RELU:
        return abs((1.0 - real) * z)
    return abs(z - real * math.expm1(z))


@kernel()
def crossings(z, lanes):
    """Count entries of one channel that are positive in only one half of the lanes."""
    half, count = lanes // 2, 0
    for p in range(z.size // lanes):
        plus, minus = tile.cut(z, p * lanes, half), tile.cut(z, p * lanes + half, half)
        for lane in range(half):
            count += (plus[lane] > 0.0) != (minus[lane] > 0.0)
    return count


@kernel()
def other_winners(source, largest, window, p, lanes):
    """Count lanes of a pooling window whose winners differ between the halves, or tie while the window's value changes.

    ``window`` has the input pixels of output pixel p. Only whether the count is 0 matters: every winner after the first
    counts as a tie.
    """
    half, others, ties = lanes // 2, 0, 0
    top, bottom = tile.cut(largest, p * lanes, half), tile.cut(largest, p * lanes + half, half)
    for lane in range(half):
        ties -= top[lane] != bottom[lane]
    for j in range(window.size):
        at = window[j] * lanes
        plus, minus = tile.cut(source, at, half), tile.cut(source, at + half, half)
        for lane in range(half):
            wins = plus[lane] == top[lane]
            others += wins != (minus[lane] == bottom[lane])
            ties += wins & (top[lane] != bottom[lane])
    return others if others else ties
