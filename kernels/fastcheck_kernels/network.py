"""A network's forward pass, and the losses of perturbed copies of it.

``net`` and ``size`` are described in `fastcheck_kernels.columns`. ``arena`` holds the perturbed outputs of rows, each
at its place of ``places`` (`fastcheck_kernels.layers`).
"""

from __future__ import annotations

import numba
import numpy as np

from . import layers, losses, network_kinks, tile
from ._jit import kernel
from .columns import (
    BACK_PACKED,
    BIAS,
    CACHED,
    CHANNELS,
    EXTRA,
    FILTERS,
    FOUND,
    INIT,
    KIND,
    LEFT,
    LOOKUP,
    NUMERIC,
    OWNER,
    PACKED,
    PER_GROUP,
    PIXELS,
    REAL,
    RIGHT,
    STARTS,
    TAPS,
    WEIGHT,
    A,
    B,
)

FEW = 4
"""Largest number of filters in a group for which tiles, mostly empty, are slower than `layers.accumulate`."""


def pack(net, node, transposed) -> None:
    """Pack the weights and initial values of a layer, for all its groups."""
    row, params, packed = net[0][node], net[5], net[6]
    filters, channels, taps = row[FILTERS], row[PER_GROUP], row[TAPS]
    groups = row[CHANNELS] // filters
    count = groups * filters * channels * taps
    weights = params[row[WEIGHT] : row[WEIGHT] + count].reshape(groups, filters, channels, taps)
    if transposed:
        weights = weights.swapaxes(1, 2)
    tiles = -(-weights.shape[1] // tile.CHANNELS)
    padded = np.zeros((groups, tiles * tile.CHANNELS, *weights.shape[2:]))
    padded[:, : weights.shape[1]] = weights
    first = row[BACK_PACKED] if transposed else row[PACKED]
    packed[first : first + padded.size] = np.moveaxis(padded.reshape(groups, tiles, tile.CHANNELS, -1), 2, 3).ravel()
    bias = params[row[BIAS] : row[BIAS] + row[CHANNELS]] if row[BIAS] >= 0 else np.zeros(row[CHANNELS])
    packed[row[INIT] : row[INIT] + row[CHANNELS] * tile.VECTOR] = np.repeat(bias, tile.VECTOR)


@kernel()
def _reach(row, low, high):
    """Return the range of a layer's channels that the perturbed channels of its inputs can change.

    ``low`` and ``high`` are the ranges of all rows; at least one of the inputs' ranges is not empty.
    """
    a, b = row[A], row[B]
    first, last = low[a], high[a]
    if row[KIND] == layers.CONV:
        return first // row[PER_GROUP] * row[FILTERS], ((last - 1) // row[PER_GROUP] + 1) * row[FILTERS]
    if row[KIND] == layers.LAYER_NORM or row[KIND] == layers.SOFTMAX or row[KIND] == layers.EMBEDDING:
        return 0, row[CHANNELS]
    if row[KIND] == layers.GROUP_NORM:
        return first // row[PER_GROUP] * row[PER_GROUP], ((last - 1) // row[PER_GROUP] + 1) * row[PER_GROUP]
    if row[KIND] == layers.FLATTEN:
        return first * row[TAPS], last * row[TAPS]
    if row[KIND] == layers.ADD:
        if first >= last:
            return low[b], high[b]
        if low[b] < high[b]:
            return min(first, low[b]), max(last, high[b])
    if row[KIND] == layers.CONCAT and low[b] < high[b]:
        return (first if first < last else row[TAPS] + low[b]), row[TAPS] + high[b]
    return first, last


@kernel()
def _moved(row, low, high):
    """Return whether any input of a layer is perturbed."""
    return low[row[A]] < high[row[A]] or (row[B] >= 0 and low[row[B]] < high[row[B]])


@kernel()
def _complete(row, node, first, last, cached, arena, places, low, high, size):
    """Extend the range of a layer's perturbed channels to first <= c < last, with cached values in the others."""
    at, pixels, place = row[CACHED], row[PIXELS], (places[node, 0], places[node, 1])
    begin, end = low[node], high[node]
    if begin >= end:
        begin, end = first, first
    low[node], high[node] = min(begin, first), max(end, last)
    layers.fill(cached, arena, place, (at, low[node], begin, pixels), size[2], size[1])
    layers.fill(cached, arena, place, (at, end, high[node], pixels), size[2], size[1])


@kernel()
def _convolve(net, node, cached, arena, places, low, high, size, spare):
    """Evaluate a convolution, group by group.

    Where all channels of a group's input are perturbed, the group is evaluated whole. Otherwise the convolution of the
    perturbed channels' changes is added to its cached output: a convolution is linear.
    """
    table, starts, spots, _, _, params, packed = net
    row, a = table[node], table[node, A]
    lanes, period, channels, filters, taps = size[2], size[1], row[PER_GROUP], row[FILTERS], row[TAPS]
    here = starts[row[STARTS] : row[STARTS] + row[PIXELS] + 1]
    source_pixels = table[a, PIXELS]
    tiles = (filters + tile.CHANNELS - 1) // tile.CHANNELS
    group_size = tiles * tile.CHANNELS * channels * taps
    for g in range(low[node] // filters, high[node] // filters):
        first, last = max(low[a], g * channels), min(high[a], (g + 1) * channels)
        to = places[node, 0] + g * filters * places[node, 1]
        whole = last - first == channels
        source, at, pitch = arena, places[a, 0] + first * places[a, 1], places[a, 1]
        if not whole:
            span = (table[a, CACHED], first, last, source_pixels)
            layers.moves(cached, arena, (places[a, 0], places[a, 1]), span, lanes, period, spare)
            source, at, pitch = spare, 0, (source_pixels + 1) * lanes
        if filters <= FEW:
            _begin(row, cached, arena, params, (to, places[node, 1]), g * filters, whole, size)
            weight = row[WEIGHT] + (g * filters * channels + first - g * channels) * taps
            shape = (at, pitch, last - first, weight, channels * taps)
            shape_out = (taps, to, places[node, 1], filters, row[PIXELS], lanes)
            layers.accumulate(source, params, arena, spots, here, (*shape, *shape_out))
            continue
        weights = row[PACKED] + g * group_size + (first - g * channels) * taps * tile.CHANNELS
        shape = (at, pitch, last - first, weights, channels * taps * tile.CHANNELS)
        shape_out = (taps, to, places[node, 1], filters, row[PIXELS], lanes)
        if whole:
            start = (row[INIT] + g * filters * tile.VECTOR, tile.VECTOR, np.int64(0), np.int64(tile.VECTOR))
            layers.multiply(source, packed, packed, arena, spots, here, (*shape, *shape_out), start)
        else:
            begin = row[CACHED] + g * filters * row[PIXELS] * period
            start = (begin, row[PIXELS] * period, period, period)
            layers.multiply(source, packed, cached, arena, spots, here, (*shape, *shape_out), start)


@kernel()
def _begin(row, cached, arena, params, place, first, whole, size):
    """Write the initial values of a group's sums: biases, or the cached outputs."""
    for f in range(row[FILTERS]):
        c = first + f
        if whole:
            at = place[0] + f * place[1]
            bias = params[row[BIAS] + c] if row[BIAS] >= 0 else 0.0
            layers.put(bias, tile.cut(arena, at, row[PIXELS] * size[2]))
        else:
            shifted = (place[0] - first * place[1], place[1])
            layers.fill(cached, arena, shifted, (row[CACHED], c, c + 1, row[PIXELS]), size[2], size[1])


@kernel()
def _normalise(net, node, arena, places, low, high, size, cached, spare):
    """Evaluate a normalisation. Keep its normalised input where that is needed: in a forward pass in ``cached``.

    With halves, that of a layer which shares its parameters is left in ``spare`` for `_perturb`.
    """
    table, _, _, _, reals, params, _ = net
    row, a = table[node], table[node, A]
    lanes, pixels, eps = size[2], row[PIXELS], reals[row[REAL]]
    mean, inverse = np.empty(lanes), np.empty(lanes)
    if row[KIND] == layers.LAYER_NORM:
        place = (places[a, 0], places[a, 1])
        layers.layer_moments(arena, place, row[CHANNELS], pixels, lanes, eps, mean, inverse)
    for c in range(low[node], high[node]):
        if row[KIND] == layers.GROUP_NORM and c % row[PER_GROUP] == 0:
            place = (places[a, 0] + c * places[a, 1], places[a, 1])
            layers.layer_moments(arena, place, row[PER_GROUP], pixels, lanes, eps, mean, inverse)
        source, target = _line(arena, places, a, c, pixels * lanes), _line(arena, places, node, c, pixels * lanes)
        if row[KIND] == layers.BATCH_NORM:
            layers.batch_moments(source, lanes, size[0], eps, mean, inverse)
        elif row[KIND] == layers.FROZEN_NORM:
            layers.put(reals[row[REAL] + 1 + c], mean)
            layers.put(reals[row[REAL] + 1 + row[CHANNELS] + c], inverse)
        layers.normalise(source, target, lanes, mean, inverse)
        if size[3] == 0:
            layers.copy(target, tile.cut(cached, row[EXTRA] + c * pixels * lanes, pixels * lanes))
        elif row[OWNER] >= 0 and row[OWNER] != node:
            layers.copy(target, tile.cut(spare, c * pixels * lanes, pixels * lanes))
        if row[WEIGHT] < 0:
            continue
        if row[KIND] != layers.LAYER_NORM:
            layers.scale(target, params[row[WEIGHT] + c], params[row[BIAS] + c])
            continue
        for p in range(pixels):
            at = c * pixels + p
            piece = tile.cut(target, p * lanes, lanes)
            layers.scale(piece, params[row[WEIGHT] + at], params[row[BIAS] + at])


@kernel()
def _line(arena, places, node, channel, length):
    """Return all lanes of a channel."""
    start = places[node, 0] + channel * places[node, 1]
    return tile.cut(arena, start, length)


@kernel()
def _combine(net, node, cached, arena, places, low, high, size):
    """Evaluate a sum or a concatenation of perturbed channels, with cached ones elsewhere."""
    table = net[0]
    row, lanes = table[node], size[2]
    for part in range(2):
        source = row[A] if part == 0 else row[B]
        shift = row[TAPS] if part == 1 and row[KIND] == layers.CONCAT else 0
        fresh = row[KIND] == layers.CONCAT or part == 0
        for c in range(low[node], high[node]):
            own = c - shift
            if not 0 <= own < table[source, CHANNELS]:
                continue
            target = _line(arena, places, node, c, row[PIXELS] * lanes)
            span = (table[source, CACHED], own, own + 1, row[PIXELS])
            place = (places[node, 0] + shift * places[node, 1], places[node, 1])
            if low[source] <= own < high[source]:
                line = _line(arena, places, source, own, row[PIXELS] * lanes)
                if fresh:
                    layers.copy(line, target)
                else:
                    for i in range(target.size):
                        target[i] += line[i]
            elif fresh:
                layers.fill(cached, arena, place, span, lanes, size[1])
            else:
                layers.add_cached(cached, arena, place, span, lanes, size[1])


@kernel()
def _channelwise(net, node, cached, cotangents, arena, places, low, high, size, found):
    """Evaluate the perturbed channels of a layer one by one, and note kinks where the lanes have two halves."""
    table, starts, spots, reals, params = net[0], net[1], net[2], net[4], net[5]
    row, a = table[node], table[node, A]
    kind, lanes = row[KIND], size[2]
    here = starts[row[STARTS] : row[STARTS] + row[PIXELS] + 1]
    for c in range(low[node], high[node]):
        target = _line(arena, places, node, c, row[PIXELS] * lanes)
        if kind == layers.FLATTEN:
            start = places[a, 0] + c // row[TAPS] * places[a, 1] + c % row[TAPS] * lanes
            if start != places[node, 0] + c * places[node, 1]:
                layers.copy(tile.cut(arena, start, lanes), target)
            continue
        source = _line(arena, places, a, c, table[a, PIXELS] * lanes)
        if kind == layers.MAX_POOL:
            layers.max_pool(source, target, spots, here, lanes)
        elif kind == layers.AVG_POOL:
            layers.avg_pool(source, target, spots, here, tile.cut(reals, row[REAL], row[PIXELS]), lanes)
        elif kind == layers.DROPOUT:
            factors = row[REAL] + c * row[PIXELS] * size[1]
            layers.mask(source, target, tile.cut(reals, factors, row[PIXELS] * size[1]), lanes, size[1])
        elif kind == layers.PRELU:
            layers.activate(layers.LEAKY_RELU, params[row[WEIGHT] + c * row[TAPS]], source, target)
        else:
            layers.activate(kind, reals[row[REAL]], source, target)
        if size[3] > 0:
            if kind == layers.MAX_POOL:
                network_kinks.note_winners(net, node, c, cached, cotangents, source, target, size, found)
            elif (
                kind in (layers.RELU, layers.LEAKY_RELU, layers.ELU, layers.PRELU)
                and layers.crossings(source, lanes) > 0
            ):
                network_kinks.note_signs(net, node, c, cached, cotangents, source, size, found)


def _evaluate(net, node, known, arena, places, low, high, size, spare, found):
    """Evaluate the channels of a layer that its perturbed inputs change."""
    cached, cotangents = known
    table = net[0]
    row, a = table[node], table[node, A]
    kind = row[KIND]
    # Moves of more than half of the channels cost more than the whole convolution; others need all that they mix.
    if kind == layers.CONV and 2 * (high[a] - low[a]) > table[a, CHANNELS]:
        _complete(table[a], a, 0, table[a, CHANNELS], cached, arena, places, low, high, size)
    low[node], high[node] = _reach(row, low, high)
    if kind == layers.LAYER_NORM or kind == layers.GROUP_NORM or kind == layers.SOFTMAX:
        _complete(table[a], a, low[node], high[node], cached, arena, places, low, high, size)
    if kind == layers.CONV:
        _convolve(net, node, cached, arena, places, low, high, size, spare)
    elif kind == layers.EMBEDDING:
        shape, own = (row[WEIGHT], row[PER_GROUP], row[CHANNELS], row[PIXELS]), (places[node, 0], places[node, 1])
        layers.embed(arena, places[a, 0], net[5], shape, arena, own, size[2])
    elif kind == layers.SOFTMAX:
        place, own = (places[a, 0], places[a, 1]), (places[node, 0], places[node, 1])
        layers.softmax(arena, place, arena, own, row[CHANNELS], row[PIXELS], size[2])
    elif kind in (layers.BATCH_NORM, layers.FROZEN_NORM, layers.LAYER_NORM, layers.GROUP_NORM):
        _normalise(net, node, arena, places, low, high, size, cached, spare)
    elif kind in (layers.ADD, layers.CONCAT):
        _combine(net, node, cached, arena, places, low, high, size)
    else:
        _channelwise(net, node, cached, cotangents, arena, places, low, high, size, found)


_inlined = numba.njit(inline="always")(_evaluate)
"""`_evaluate` as a part of the kernel that calls it: a kernel of its own would compile all layers once more."""


def forward(net, cached, places, size, spare, targets, loss, out, after) -> None:
    """Evaluate all layers into ``cached``, which holds the input's lanes already, and every data point's loss.

    The loop over layers is Python, so that the layers are compiled once.

    Parameters
    ----------
    net, cached, places, size, spare
        As above; there are ``period`` lanes, without halves.
    targets : float64 array
    loss : tuple
        (kind, margin, probabilities and cotangents of the output's rows).
    out : float64 array
        The loss of each data point.
    after : callable
        Called with the number of each layer once that is evaluated.
    """
    table = net[0]
    nodes = len(table)
    low, high, found = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.zeros((0, FOUND))
    high[0] = table[0, CHANNELS]
    for node in range(1, nodes):
        _evaluate(net, node, (cached, cached), cached, places, low, high, size, spare, found)
        after(node)
    score(net, cached, size, targets, loss, out)


def score(net, cached, size, targets, loss, out) -> None:
    """Write every data point's loss, and the cotangents of the output; the arguments are those of `forward`."""
    kind, margin, known, seeds = loss
    last = net[0][-1]
    rows = last[CHANNELS] * last[PIXELS]
    z = cached[last[CACHED] : last[CACHED] + rows * size[1]]
    losses.values(kind, z, targets, float(margin), rows, size[1], size[0], known, seeds, out)


@kernel()
def _perturb(net, cached, arena, spare, places, tensor, channel, dims, step, low, high, size):
    """Perturb a channel of a layer that some dimensions are about, one copy for each: by plus or minus h times x.

    x is the operand that the dimension multiplies (of a prelu, its negative part; of a table's row, 1 where it is taken
    and else 0): of the unperturbed network
    (``cached``), or in a layer which shares its parameters with one before it, of the perturbed copy. ``tensor`` is
    (layer, whether it is the bias). Copies without a dimension are not perturbed.
    """
    table, lookup = net[0], net[3]
    node, bias = tensor
    row, a = table[node], table[node, A]
    points, period, lanes, half = size
    pixels, taps = row[PIXELS], row[TAPS]
    conv, whole, prelu = row[KIND] == layers.CONV, row[KIND] == layers.LAYER_NORM, row[KIND] == layers.PRELU
    direct = conv or prelu
    for b in range(min(half // points, len(dims))):
        k = dims[b] - channel * _width(row, bias) if not prelu else 0
        if row[KIND] == layers.EMBEDDING:
            at = places[node, 0] + channel * places[node, 1] + b * points
            _perturb_named(cached, table[a, CACHED], arena, (at, pixels, half), k, step, size)
            continue
        # The operand's channel: cached, or perturbed in the arena, or a normalised input in the spare room.
        source, x = channel, cached
        first, second, pitch = row[EXTRA] + channel * pixels * period, np.int64(0), period
        if conv and not bias:
            source = channel // row[FILTERS] * row[PER_GROUP] + k // taps
        if direct:
            first = table[a, CACHED] + source * table[a, PIXELS] * period
        if low[a] <= source < high[a] or (whole and low[a] < high[a]):
            x, second, pitch = arena if direct else spare, half, lanes
            first = b * points + (places[a, 0] + source * places[a, 1] if direct else channel * pixels * lanes)
        met = row[LOOKUP] + k % taps * pixels if conv and not bias else 0
        for p in range(pixels):
            if whole and k != p:
                continue
            at = places[node, 0] + channel * places[node, 1] + p * lanes + b * points
            plus, minus = tile.cut(arena, at, points), tile.cut(arena, at + half, points)
            if bias:
                for n in range(points):
                    plus[n] += step
                    minus[n] -= step
                continue
            pixel = lookup[met + p] if conv else p
            if pixel >= 0:  # not in padding
                up = tile.cut(x, first + pixel * pitch, points)
                down = tile.cut(x, first + second + pixel * pitch, points)
                for n in range(points):
                    plus[n] += step * (min(up[n], 0.0) if prelu else up[n])
                    minus[n] -= step * (min(down[n], 0.0) if prelu else down[n])


@kernel()
def _perturb_named(cached, numbers, arena, place, k, step, size):
    """Perturb the pixels of a copy's channel that take row k of a table. Their numbers are never perturbed."""
    points, period, lanes, _ = size
    at, pixels, half = place
    for p in range(pixels):
        for n in range(points):
            if int(cached[numbers + p * period + n]) == k:
                arena[at + p * lanes + n] += step
                arena[at + p * lanes + half + n] -= step


@kernel()
def _width(row, bias):
    """Return how many dimensions of a tensor perturb the same channel."""
    if row[KIND] == layers.LAYER_NORM:
        return row[PIXELS]
    return row[PER_GROUP] * row[TAPS] if not bias and row[KIND] in (layers.CONV, layers.EMBEDDING) else 1


@kernel()
def difference(state, work, tensor, dims, step, size, loss, out):
    """Difference the loss at some dimensions of a tensor, in ascending order.

    A dimension perturbs a single channel of its layer, so that dimensions of the same channel share a pass: each is one
    copy of the network at +h, in the first half of the lanes, and one at -h, in the second. From that channel on,
    ``low`` and ``high`` hold the range of perturbed channels of every row. Rows without perturbed inputs are skipped;
    of the others only the channels in range are evaluated, since everything else is cached. Losses are never subtracted
    from one another: their changes are computed from the outputs' changes (`losses.changes`;
    test_a_loss_moves_without_cancelling in tests/networks/test_error_bars.py), and +h's change less -h's is the
    difference. The network enters by arrays alone, so that a new one compiles nothing.

    A layer that shares the tensor is perturbed like the tensor's own, once its inputs are evaluated.

    test_full_and_network_find_the_same in tests/networks/test_proofs.py compares this kernel with whole forward passes;
    bench/test_network_speed.py measures it beside PyTorch.

    Parameters
    ----------
    state : tuple
        (net, cached, cotangents, known, targets): the network as above, its unperturbed results, the gradient of the
        loss (summed or averaged) with respect to them, probabilities of the output, and targets.
    work : tuple of arrays
        The thread's own arena, places of the rows in it, and spare room.
    tensor : tuple of int
        (layer, whether it is the bias).
    dims : int64 array
    step : float
    size : tuple of int
        As above; its lanes are the most that a pass takes.
    loss : tuple
        (kind, margin, weight of a data point).
    out : float64 array
        (dimensions, `FOUND`).
    """
    net, cached, cotangents, known, targets = state
    table = net[0]
    arena, widest, spare = work
    node, bias, nodes, last = tensor[0], tensor[1], len(table), len(table) - 1
    points, period, most, _ = size
    copies, width = most // 2 // points, _width(table[node], bias)
    pixels, rows = table[last, PIXELS], table[last, CHANNELS] * table[last, PIXELS]
    low, high, places = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.empty_like(widest)
    moved, lanes = np.empty(most), 0
    logits = cached[table[last, CACHED] : table[last, CACHED] + rows * period]
    wide = losses.widened(loss[0], logits, known, targets, rows, period, most)
    first = 0
    every = table[node, KIND] == layers.PRELU and table[node, TAPS] == 0
    while first < len(dims):
        channel = dims[first] // width
        end = first + 1
        while end < min(len(dims), first + copies) and dims[end] < (channel + 1) * width:
            end += 1
        # Only as many lanes as these copies need. Offsets and pitches in the arena are multiples of the lanes: scaled.
        needed = 2 * (((end - first) * points + period - 1) // period) * period
        if needed != lanes:
            lanes = needed
            for n in range(nodes):
                places[n, 0], places[n, 1] = widest[n, 0] // most * lanes, widest[n, 1] // most * lanes
        half = lanes // 2
        own = (points, period, lanes, half)
        found = out[first:end]
        found[:] = 0.0
        for n in range(nodes):
            low[n], high[n] = 0, 0
        for n in range(node, nodes):
            if n > node and _moved(table[n], low, high):
                _inlined(net, n, (cached, cotangents), arena, places, low, high, own, spare, found)
            if table[n, OWNER] == node and (table[n, BIAS] >= 0 or not bias):
                same = (n, bias)
                for c in range(channel, table[n, CHANNELS] if every else channel + 1):
                    _complete(table[n], n, c, c + 1, cached, arena, places, low, high, own)
                    _perturb(net, cached, arena, spare, places, same, c, dims[first:end], step, low, high, own)
        place = (places[last, 0], places[last, 1])
        span = (low[last] * pixels, high[last] * pixels, rows, pixels, lanes, period)
        losses.changes(loss[0], arena, place, logits, targets, known, loss[1], span, wide, moved)
        if loss[0] == losses.HINGE:
            network_kinks.note_hinge(arena, place, logits, targets, loss, span, own, found)
        for b in range(end - first):
            for n in range(b * points, (b + 1) * points):
                found[b, NUMERIC] += (moved[n] - moved[half + n]) * loss[2]
                found[b, RIGHT] += moved[n] * loss[2]
                found[b, LEFT] -= moved[half + n] * loss[2]
        first = end
