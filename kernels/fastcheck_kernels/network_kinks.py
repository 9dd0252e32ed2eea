"""Kinks that copies of a network cross between -h and +h: their number, and bounds on their effect on the loss.

``net`` and ``size`` are described in `fastcheck_kernels.columns`.
"""

from __future__ import annotations

import numpy as np

from . import layers, losses
from ._jit import kernel
from .columns import AT_POINT, CACHED, HERE, JUMP, KIND, KINKS, PIXELS, REAL, STARTS, TAPS, WEIGHT, WIDENING, A


@kernel()
def _note(found, copy, amount, at_point):
    """Count a kink of a copy: ``amount`` bounds its effect on the loss, ``at_point`` if it lies at the point itself."""
    if copy < len(found):
        found[copy, KINKS] += 1.0
        found[copy, WIDENING] += amount
        if at_point:
            found[copy, JUMP] += amount
            found[copy, HERE] += 1.0


@kernel()
def note_signs(net, node, c, cached, cotangents, z, size, found):
    """Note the units of an activation's channel whose signs differ between +h and -h."""
    table, reals = net[0], net[4]
    row = table[node]
    points, period, lanes, half = size
    kind, real = row[KIND], reals[row[REAL]]
    if kind == layers.PRELU:
        kind, real = layers.LEAKY_RELU, net[5][row[WEIGHT] + c * row[TAPS]]
    for p in range(row[PIXELS]):
        for lane in range(half):
            plus, minus = z[p * lanes + lane], z[p * lanes + half + lane]
            if (plus > 0.0) != (minus > 0.0):
                unit = (c * row[PIXELS] + p) * period + lane % period
                base = cached[table[row[A], CACHED] + unit]
                amount = layers.excess(kind, real, base, plus) + layers.excess(kind, real, base, minus)
                at_point = abs(base) <= AT_POINT * abs(plus - minus) and amount > 0.0
                _note(found, lane // points, amount * abs(cotangents[row[CACHED] + unit]), at_point)


@kernel()
def note_winners(net, node, c, cached, cotangents, source, largest, size, found):
    """Note the windows of a pooled channel whose winner differs between +h and -h, or ties while its value changes."""
    table, starts, spots = net[0], net[1], net[2]
    row = table[node]
    points, period, lanes, half = size
    base = table[row[A], CACHED] + c * table[row[A], PIXELS] * period
    for p in range(row[PIXELS]):
        window = spots[starts[row[STARTS] + p] : starts[row[STARTS] + p + 1], 0]
        if layers.other_winners(source, largest, window, p, lanes) == 0:
            continue
        for lane in range(half):
            plus, minus = largest[p * lanes + lane], largest[p * lanes + half + lane]
            if not _decided(source, window, plus, minus, lane, lanes):
                winner, gap = _winner(cached, base + lane % period, window, period)
                amount = plus - source[winner * lanes + lane] + minus - source[winner * lanes + half + lane]
                at_point = gap <= AT_POINT * (amount + abs(plus - minus)) and amount > 0.0
                unit = row[CACHED] + (c * row[PIXELS] + p) * period + lane % period
                _note(found, lane // points, amount * abs(cotangents[unit]), at_point)


@kernel()
def _decided(source, window, plus, minus, lane, lanes):
    """Return whether a single entry is a lane's largest on both sides, or its value does not change."""
    winners = 0
    for j in range(len(window)):
        at = window[j] * lanes + lane
        first, second = source[at] == plus, source[at + lanes // 2] == minus
        if first != second:
            return False
        winners += first
    return winners == 1 or plus == minus


@kernel()
def _winner(cached, at, window, period):
    """Return the pixel of the first of a window's largest cached entries, and its lead over the next one."""
    best, gap = 0, np.inf
    for j in range(1, len(window)):
        lead = cached[at + window[j] * period] - cached[at + window[best] * period]
        if lead > 0.0:
            best, gap = j, lead
        else:
            gap = min(gap, -lead)
    return window[best], gap


@kernel()
def note_hinge(z, place, cached, targets, loss, span, size, found):
    """Note the terms of a hinge loss that are positive on one side only."""
    points, period, _, half = size
    low, high, rows = span[:3]
    for lane in range(half):
        label = int(targets[lane % period])
        for r in range(rows):
            if r == label or not (low <= r < high or low <= label < high):
                continue
            base, up = losses.hinge_term(z, place, cached, label, r, loss[1], span, lane)
            _, down = losses.hinge_term(z, place, cached, label, r, loss[1], span, lane + half)
            plus, minus = base + up, base + down
            if (plus > 0.0) != (minus > 0.0):
                amount = layers.excess(layers.RELU, 0.0, base, plus) + layers.excess(layers.RELU, 0.0, base, minus)
                _note(found, lane // points, amount * loss[2], abs(base) <= AT_POINT * abs(plus - minus))
