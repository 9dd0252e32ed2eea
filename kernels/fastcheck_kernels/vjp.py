"""The reference backward pass of a network: cotangents of all layers' results, and the gradient of all parameters.

Arrays are those of `fastcheck_kernels.columns`. ``cotangents`` has the layout of ``cached``. All lanes are carried,
since they are copies of the data points; gradients add up each data point once.
"""

from __future__ import annotations

import numpy as np

from . import columns, layers, tile
from ._jit import kernel

CHANNELWISE = (layers.BATCH_NORM, layers.FROZEN_NORM)
MIXING = (layers.LAYER_NORM, layers.GROUP_NORM)
"""Kinds of normalisations: of each channel by itself, and of several channels of a data point."""


def backward(net, cached, cotangents, places, size, grads, before) -> None:
    """Carry the output's cotangents, which are there already, back to all layers; the others are zero.

    Layer by layer from Python, as `fastcheck_kernels.network.forward`.

    Parameters
    ----------
    net, cached, places, size
        As of `fastcheck_kernels.network.forward`.
    cotangents : float64 array
    grads : float64 array
        Laid out as the parameters, zero at first.
    before : callable
        Called with the number of each layer when its results' cotangents are complete.
    """
    for node in range(len(net[0]) - 1, 0, -1):
        before(node)
        carry(net, node, cached, cotangents, places, size, grads)


def carry(net, node, cached, cotangents, places, size, grads) -> None:
    """Carry the cotangents of one layer's results, which are complete, back to its inputs and its parameters.

    The arguments are those of `backward`. To the cotangents of the inputs it adds; it writes the gradients, but for
    those of an embedding and a prelu, to which it adds as well.
    """
    # All of them, so that none is left to be compiled for the first network that needs it.
    for kernels in (_conv_parameters, _conv_input, _norm, _mixing_norm, _softmax, _prelu, _embedding, _rest):
        kernels(net, node, cached, cotangents, places, size, grads)


@kernel("reassoc", "contract")
def _dot(x, v):
    total = 0.0
    for i in range(x.size):
        total += x[i] * v[i]
    return total


@kernel()
def _conv_parameters(net, node, cached, cotangents, places, size, grads):
    table, lookup = net[0], net[3]
    row, source = table[node], table[node, columns.A]
    if row[columns.KIND] != layers.CONV:
        return
    points, period, pixels, taps = size[0], size[1], row[columns.PIXELS], row[columns.TAPS]
    source_pixels = table[source, columns.PIXELS]
    for f in range(row[columns.CHANNELS]):
        v_at = row[columns.CACHED] + f * pixels * period
        if row[columns.BIAS] >= 0:
            total = 0.0
            for p in range(pixels):
                for n in range(points):
                    total += cotangents[v_at + p * period + n]
            grads[row[columns.BIAS] + f] = total
        first = f // row[columns.FILTERS] * row[columns.PER_GROUP]
        for k in range(row[columns.PER_GROUP] * taps):
            x_at = table[source, columns.CACHED] + (first + k // taps) * source_pixels * period
            total = 0.0
            for p in range(pixels):
                pixel = lookup[row[columns.LOOKUP] + k % taps * pixels + p]
                if pixel >= 0:
                    x = tile.cut(cached, x_at + pixel * period, points)
                    total += _dot(x, tile.cut(cotangents, v_at + p * period, points))
            grads[row[columns.WEIGHT] + f * row[columns.PER_GROUP] * taps + k] = total


@kernel()
def _conv_input(net, node, cached, cotangents, places, size, grads):
    """Add the transposed convolution of the cotangents. Filters that do not exist have weights of zero."""
    table, starts, spots, packed = net[0], net[1], net[2], net[6]
    row, a = table[node], table[node, columns.A]
    if row[columns.KIND] != layers.CONV:
        return
    filters, channels, taps, lanes = row[columns.FILTERS], row[columns.PER_GROUP], row[columns.TAPS], size[2]
    pixels = table[a, columns.PIXELS]
    here = starts[row[columns.BACK] : row[columns.BACK] + pixels + 1]
    group_size = (channels + tile.CHANNELS - 1) // tile.CHANNELS * tile.CHANNELS * filters * taps
    for g in range(row[columns.CHANNELS] // filters):
        at, to = places[node, 0] + g * filters * places[node, 1], places[a, 0] + g * channels * places[a, 1]
        weights = row[columns.BACK_PACKED] + g * group_size
        shape = (at, places[node, 1], filters, weights, filters * taps * tile.CHANNELS, taps)
        shape_out = (to, places[a, 1], channels, pixels, lanes)
        start = (to, places[a, 1], lanes, lanes)
        layers.multiply(cotangents, packed, cotangents, cotangents, spots, here, (*shape, *shape_out), start)


@kernel()
def _norm(net, node, cached, cotangents, places, size, grads):
    """Add the VJP of a batch normalisation (Ioffe and Szegedy 2015), or of one with frozen statistics."""
    table, reals, params = net[0], net[4], net[5]
    row, source, kind = table[node], table[node, columns.A], table[node, columns.KIND]
    if kind not in CHANNELWISE:
        return
    points, lanes, pixels, channels = size[0], size[2], row[columns.PIXELS], row[columns.CHANNELS]
    length, eps = pixels * lanes, reals[row[columns.REAL]]
    mean, inverse = np.empty(lanes), np.empty(lanes)
    sums, products = np.zeros(lanes), np.zeros(lanes)
    x_at, at = table[source, columns.CACHED], row[columns.CACHED]
    for c in range(channels):
        x = tile.cut(cached, x_at + c * length, length)
        unit = tile.cut(cached, row[columns.EXTRA] + c * length, length)
        v = tile.cut(cotangents, at + c * length, length)
        _norm_parameters(row, kind, c, unit, v, (points, lanes), grads)
        weight = params[row[columns.WEIGHT] + c]
        layers.put(0.0, sums)
        layers.put(0.0, products)
        if kind == layers.BATCH_NORM:
            layers.batch_moments(x, lanes, points, eps, mean, inverse)
            for p in range(pixels):
                _moments(weight, tile.cut(unit, p * lanes, lanes), tile.cut(v, p * lanes, lanes), sums, products)
            layers._average(sums, points, pixels * points)
            layers._average(products, points, pixels * points)
        else:
            layers.put(reals[row[columns.REAL] + 1 + channels + c], inverse)
        out = tile.cut(cotangents, x_at + c * length, length)
        for p in range(pixels):
            parts = (
                tile.cut(unit, p * lanes, lanes),
                tile.cut(v, p * lanes, lanes),
                tile.cut(out, p * lanes, lanes),
            )
            _centred(weight, parts, sums, products, inverse)


@kernel()
def _mixing_norm(net, node, cached, cotangents, places, size, grads):
    """Add the VJP of a layer normalisation (Ba, Kiros and Hinton 2016) or a group normalisation (Wu and He 2018)."""
    table, reals = net[0], net[4]
    row, source, kind = table[node], table[node, columns.A], table[node, columns.KIND]
    if kind not in MIXING:
        return
    lanes, pixels = size[2], row[columns.PIXELS]
    length, eps = pixels * lanes, reals[row[columns.REAL]]
    mean, inverse = np.empty(lanes), np.empty(lanes)
    sums, products = np.zeros(lanes), np.zeros(lanes)
    together = row[columns.PER_GROUP] if kind == layers.GROUP_NORM else row[columns.CHANNELS]
    for first in range(0, row[columns.CHANNELS], together):
        x_at = table[source, columns.CACHED] + first * length
        layers.layer_moments(cached, (x_at, length), together, pixels, lanes, eps, mean, inverse)
        layers.put(0.0, sums)
        layers.put(0.0, products)
        for c in range(first, first + together):
            unit = tile.cut(cached, row[columns.EXTRA] + c * length, length)
            v = tile.cut(cotangents, row[columns.CACHED] + c * length, length)
            if row[columns.WEIGHT] >= 0:
                _norm_parameters(row, kind, c, unit, v, (size[0], lanes), grads)
            for p in range(pixels):
                parts = tile.cut(unit, p * lanes, lanes), tile.cut(v, p * lanes, lanes)
                _moments(_factor(row, net[5], c, p), parts[0], parts[1], sums, products)
        for lane in range(lanes):
            sums[lane] /= together * pixels
            products[lane] /= together * pixels
        for i in range(first * pixels, (first + together) * pixels):
            parts = (
                tile.cut(cached, row[columns.EXTRA] + i * lanes, lanes),
                tile.cut(cotangents, row[columns.CACHED] + i * lanes, lanes),
                tile.cut(cotangents, table[source, columns.CACHED] + i * lanes, lanes),
            )
            _centred(_factor(row, net[5], i // pixels, i % pixels), parts, sums, products, inverse)


@kernel()
def _factor(row, params, c, p):
    """Return the weight of a normalisation's channel or entry; 1 without any."""
    if row[columns.WEIGHT] < 0:
        return 1.0
    return params[row[columns.WEIGHT] + (c * row[columns.PIXELS] + p if row[columns.KIND] == layers.LAYER_NORM else c)]


@kernel()
def _softmax(net, node, cached, cotangents, places, size, grads):
    """Add the VJP of a softmax: s (v - sum(s v)), pixel by pixel."""
    table = net[0]
    row, source = table[node], table[node, columns.A]
    if row[columns.KIND] != layers.SOFTMAX:
        return
    lanes, pixels = size[2], row[columns.PIXELS]
    total = np.empty(lanes)
    for p in range(pixels):
        layers.put(0.0, total)
        for again in range(2):
            for c in range(row[columns.CHANNELS]):
                at = (c * pixels + p) * lanes
                s = tile.cut(cached, row[columns.CACHED] + at, lanes)
                v = tile.cut(cotangents, row[columns.CACHED] + at, lanes)
                out = tile.cut(cotangents, table[source, columns.CACHED] + at, lanes)
                for lane in range(lanes):
                    if again:
                        out[lane] += s[lane] * (v[lane] - total[lane])
                    else:
                        total[lane] += s[lane] * v[lane]


@kernel()
def _embedding(net, node, cached, cotangents, places, size, grads):
    """Add up the cotangents of every row of a table, wherever it is taken."""
    table = net[0]
    row, source = table[node], table[node, columns.A]
    if row[columns.KIND] != layers.EMBEDDING:
        return
    points, lanes = size[0], size[2]
    for c in range(row[columns.CHANNELS]):
        entry = row[columns.WEIGHT] + c * row[columns.PER_GROUP]
        for p in range(row[columns.PIXELS]):
            for n in range(p * lanes, p * lanes + points):
                v = cotangents[row[columns.CACHED] + c * row[columns.PIXELS] * lanes + n]
                grads[entry + int(cached[table[source, columns.CACHED] + n])] += v


@kernel()
def _prelu(net, node, cached, cotangents, places, size, grads):
    """Add the VJP of a relu with a learned slope for negative numbers (He et al. 2015)."""
    table, params = net[0], net[5]
    row, source = table[node], table[node, columns.A]
    if row[columns.KIND] != layers.PRELU:
        return
    points, lanes, length = size[0], size[2], row[columns.PIXELS] * size[2]
    for c in range(row[columns.CHANNELS]):
        x = tile.cut(cached, table[source, columns.CACHED] + c * length, length)
        v = tile.cut(cotangents, row[columns.CACHED] + c * length, length)
        out = tile.cut(cotangents, table[source, columns.CACHED] + c * length, length)
        entry = row[columns.WEIGHT] + c * row[columns.TAPS]
        for i in range(length):
            out[i] += layers.slope(layers.LEAKY_RELU, params[entry], x[i]) * v[i]
            if i % lanes < points:
                grads[entry] += min(x[i], 0.0) * v[i]


@kernel()
def _moments(weight, unit, v, sums, products):
    for lane in range(v.size):
        sums[lane] += weight * v[lane]
        products[lane] += weight * v[lane] * unit[lane]


@kernel()
def _centred(weight, parts, sums, products, inverse):
    unit, v, out = parts
    for lane in range(v.size):
        out[lane] += inverse[lane] * (weight * v[lane] - sums[lane] - unit[lane] * products[lane])


@kernel()
def _norm_parameters(row, kind, c, unit, v, size, grads):
    points, lanes = size
    pixels = v.size // lanes
    scale, shift = 0.0, 0.0
    for p in range(pixels):
        for n in range(p * lanes, p * lanes + points):
            scale += v[n] * unit[n]
            shift += v[n]
        if kind == layers.LAYER_NORM:
            grads[row[columns.WEIGHT] + c * pixels + p], grads[row[columns.BIAS] + c * pixels + p] = (
                scale,
                shift,
            )
            scale, shift = 0.0, 0.0
    if kind != layers.LAYER_NORM:
        grads[row[columns.WEIGHT] + c], grads[row[columns.BIAS] + c] = scale, shift


@kernel()
def _rest(net, node, cached, cotangents, places, size, grads):
    """Add the VJP of any other layer; none of them has parameters."""
    table, reals = net[0], net[4]
    row, source = table[node], table[node, columns.A]
    kind, lanes, length = row[columns.KIND], size[2], row[columns.PIXELS] * size[2]
    if kind == layers.CONV or kind in CHANNELWISE or kind in MIXING:
        return
    if kind == layers.SOFTMAX or kind == layers.PRELU or kind == layers.EMBEDDING:
        return
    if kind == layers.ADD or kind == layers.CONCAT:
        _split(table, node, cotangents, lanes)
        return
    source_length = table[source, columns.PIXELS] * lanes
    for c in range(row[columns.CHANNELS]):
        v = tile.cut(cotangents, row[columns.CACHED] + c * length, length)
        if kind == layers.FLATTEN:
            at = table[source, columns.CACHED] + c * lanes
            _add(v, tile.cut(cotangents, at, lanes))
            continue
        at = table[source, columns.CACHED] + c * source_length
        x, out = tile.cut(cached, at, source_length), tile.cut(cotangents, at, source_length)
        if kind == layers.MAX_POOL or kind == layers.AVG_POOL:
            _pool(net, node, x, v, lanes, out)
        elif kind == layers.DROPOUT:
            factors = tile.cut(reals, row[columns.REAL] + c * length, length)
            for i in range(length):
                out[i] += factors[i] * v[i]
        else:
            for i in range(length):
                out[i] += layers.slope(kind, reals[row[columns.REAL]], x[i]) * v[i]


@kernel()
def _add(source, target):
    for i in range(target.size):
        target[i] += source[i]


@kernel()
def _split(table, node, cotangents, lanes):
    """Hand the cotangents of a sum to both inputs, those of a concatenation to the one they came from."""
    row = table[node]
    length = row[columns.PIXELS] * lanes
    for part in range(2):
        source = row[columns.A] if part == 0 else row[columns.B]
        shift = row[columns.TAPS] if part == 1 and row[columns.KIND] == layers.CONCAT else 0
        size = table[source, columns.CHANNELS] * length
        at, to = row[columns.CACHED] + shift * length, table[source, columns.CACHED]
        _add(tile.cut(cotangents, at, size), tile.cut(cotangents, to, size))


@kernel()
def _pool(net, node, x, v, lanes, out):
    """Add the VJP of a pooling layer's channel: to the first winner of each window, or its shares."""
    starts, spots, reals = net[1], net[2], net[4]
    row = net[0][node]
    here = starts[row[columns.STARTS] : row[columns.STARTS] + row[columns.PIXELS] + 1]
    for p in range(row[columns.PIXELS]):
        for lane in range(lanes):
            best = spots[here[p], 0]
            for j in range(here[p], here[p + 1]):
                pixel = spots[j, 0]
                if row[columns.KIND] == layers.AVG_POOL:
                    out[pixel * lanes + lane] += reals[row[columns.REAL] + p] * v[p * lanes + lane]
                elif x[pixel * lanes + lane] > x[best * lanes + lane]:
                    best = pixel
            if row[columns.KIND] == layers.MAX_POOL:
                out[best * lanes + lane] += v[p * lanes + lane]
