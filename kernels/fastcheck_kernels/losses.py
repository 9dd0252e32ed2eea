"""Losses of a network's output: their values, their cotangents, and their changes.

Rows are (channel, pixel) of the output, lanes as in `fastcheck_kernels.layers`. For `SOFTMAX` and `HINGE`, ``targets``
has one row of ``period`` lanes with a class each; otherwise it has a row for each row of the output.

A change is computed from the changes of the outputs, never as a difference of two losses: that would have only the
digits that a small step leaves of a loss's own rounding (test_a_loss_moves_without_cancelling in
tests/networks/test_error_bars.py).
"""

from __future__ import annotations

import math

import numpy as np

from . import tile
from ._jit import kernel
from .layers import sigmoid, softplus

SOFTMAX, SQUARED, HINGE, LOGISTIC = range(4)

NEAR = 1.0 / 16.0
"""Largest change of an output for which `_expm1` and `_log1p` are right to the last bits."""


@kernel("contract")
def _expm1(x):
    """Return exp(x) - 1 for |x| <= NEAR: the next term of the series is below 2^-57 of it."""
    tail = 1.0 / 40320.0 + x * (1.0 / 362880.0)
    tail = 1.0 / 5040.0 + x * tail
    tail = 1.0 / 720.0 + x * tail
    tail = 1.0 / 120.0 + x * tail
    tail = 1.0 / 24.0 + x * tail
    tail = 1.0 / 6.0 + x * tail
    return x + x * (x * (0.5 + x * tail))


@kernel("contract")
def _log1p(x):
    """Return log(1 + x) for |x| <= 1.1 NEAR: twice the artanh of x / (2 + x), whose next term is below 2^-57 of it."""
    t = x / (2.0 + x)
    s = t * t
    tail = 1.0 / 9.0 + s * (1.0 / 11.0)
    tail = 1.0 / 7.0 + s * tail
    tail = 1.0 / 5.0 + s * tail
    tail = 1.0 / 3.0 + s * tail
    return 2.0 * (t + t * (s * tail))


@kernel()
def values(kind, z, targets, margin, rows, period, points, known, seeds, out):
    """Write every data point's loss, and the cotangents of the outputs for a sum over data points.

    ``z``, ``known`` and ``seeds`` are (rows, period), flat. ``known`` receives softmax or sigmoid probabilities.
    """
    for q in range(period):
        total = 0.0
        if kind == SOFTMAX:
            top = z[q]
            for r in range(1, rows):
                top = max(top, z[r * period + q])
            for r in range(rows):
                known[r * period + q] = math.exp(z[r * period + q] - top)
                total += known[r * period + q]
            label = int(targets[q])
            others = 0.0
            for r in range(rows):
                known[r * period + q] /= total
                seeds[r * period + q] = known[r * period + q]
                others += known[r * period + q] if r != label else 0.0
            # Not p - 1, which loses all digits where the label is nearly certain.
            seeds[label * period + q] = -others
            total = math.log(total) + top - z[label * period + q]
        elif kind == HINGE:
            label = int(targets[q])
            seeds[label * period + q] = 0.0
            for r in range(rows):
                if r == label:
                    continue
                term = z[r * period + q] - z[label * period + q] + margin
                seeds[r * period + q] = 1.0 if term > 0.0 else 0.0
                seeds[label * period + q] -= seeds[r * period + q]
                total += max(term, 0.0)
        else:
            for i in range(q, rows * period, period):
                if kind == SQUARED:
                    seeds[i] = z[i] - targets[i]
                    total += 0.5 * seeds[i] * seeds[i]
                else:
                    known[i] = sigmoid(z[i])
                    seeds[i] = (1.0 - targets[i]) * known[i] - targets[i] * sigmoid(-z[i])
                    total += softplus(z[i]) - targets[i] * z[i]
        if q < points:
            out[q] = total


@kernel()
def widened(kind, cached, known, targets, rows, period, lanes):
    """Return what `changes` needs of the cached output, repeated for all lanes: (4, rows, lanes).

    These are the output, probabilities, targets, and ones. A logistic loss is written for the likelier class of its
    target, with the sign of z in the last row: softplus(z) - y z = softplus(-z) + (1 - y) z. Its probabilities are
    those of the other class, and its targets the factors of z.
    """
    wide = np.empty((4, rows, lanes))
    for r in range(rows):
        target = 0 if kind in (SOFTMAX, HINGE) else r * period
        for lane in range(lanes):
            q = lane % period
            wide[0, r, lane], wide[1, r, lane] = cached[r * period + q], known[r * period + q]
            wide[2, r, lane], wide[3, r, lane] = targets[target + q], 1.0
            if kind == LOGISTIC:
                wide[2, r, lane] = -targets[target + q]
                if targets[target + q] > 0.5:
                    wide[1, r, lane], wide[3, r, lane] = sigmoid(-cached[r * period + q]), -1.0
                    wide[2, r, lane] = 1.0 - targets[target + q]
    return wide


@kernel("contract")
def changes(kind, z, place, cached, targets, known, margin, span, wide, out):
    """Write the difference of every lane's loss from the cached one.

    Parameters
    ----------
    kind : int
    z : float64 array
        Lanes of the output, with rows of channels at ``place``.
    cached, known : float64 arrays
        The cached output and its probabilities.
    targets : float64 array
    margin : float
        Margin of the hinge.
    span : tuple of int
        (first and end of the perturbed rows, number of rows, pixels, lanes, period).
    wide : float64 array
        As `widened` returns it, for these lanes or more.
    out : float64 array
    """
    low, high, rows, pixels, lanes, period = span
    for lane in range(lanes):
        out[lane] = 0.0
    if kind == HINGE:
        for lane in range(lanes):
            out[lane] = _hinge_change(z, place, cached, int(targets[lane % period]), margin, span, lane)
        return
    own, far = np.zeros(lanes), 0
    if kind == SOFTMAX:
        _own(z, place, span, wide, own)
    for r in range(low, high):
        start = place[0] + r // pixels * place[1] + r % pixels * lanes
        row, base, chance, target = tile.cut(z, start, lanes), wide[0, r], wide[1, r], wide[2, r]
        if kind == SQUARED:
            for lane in range(lanes):
                d = row[lane] - base[lane]
                out[lane] += 0.5 * d * (d + 2.0 * (base[lane] - target[lane]))
        elif kind == SOFTMAX:
            # Relative to the label's change, so that a label that is nearly certain loses no digits.
            for lane in range(lanes):
                d = row[lane] - base[lane] - own[lane]
                far += not abs(d) <= NEAR
                out[lane] += chance[lane] * _expm1(d) if target[lane] != r else 0.0
        else:
            sign = wide[3, r]
            for lane in range(lanes):
                d = row[lane] - base[lane]
                far += not abs(d) <= NEAR
                out[lane] += _log1p(chance[lane] * _expm1(sign[lane] * d)) + target[lane] * d
    if kind == SOFTMAX and high - low < rows:
        far += _unmoved(span, wide, own, out)
    if far:
        for lane in range(lanes):
            out[lane] = _far(kind, z, place, cached, targets, known, span, wide, lane)
    elif kind == SOFTMAX:
        for lane in range(lanes):
            out[lane] = _log1p(out[lane])


@kernel()
def _own(z, place, span, wide, own):
    """Write the change of the label's output."""
    low, high, _, pixels, lanes, _ = span
    for r in range(low, high):
        start = place[0] + r // pixels * place[1] + r % pixels * lanes
        row, base, label = tile.cut(z, start, lanes), wide[0, r], wide[2, r]
        for lane in range(lanes):
            own[lane] += row[lane] - base[lane] if label[lane] == r else 0.0


@kernel("contract")
def _unmoved(span, wide, own, out):
    """Add the terms of the unperturbed classes, relative to the label's change; return how many lanes changed far."""
    low, high, rows, _, lanes, _ = span
    chance, far = np.zeros(lanes), 0
    for r in range(rows):
        if not low <= r < high:
            for lane in range(lanes):
                chance[lane] += wide[1, r, lane] if wide[2, r, lane] != r else 0.0
    for lane in range(lanes):
        far += not abs(own[lane]) <= NEAR
        out[lane] += chance[lane] * _expm1(-own[lane])
    return far


@kernel()
def _moved(z, place, cached, row, span, lane):
    """Return the change of a row of the output."""
    low, high, _, pixels, lanes, period = span
    if not low <= row < high:
        return 0.0
    start = place[0] + row // pixels * place[1] + row % pixels * lanes
    return z[start + lane] - cached[row * period + lane % period]


@kernel()
def _far(kind, z, place, cached, targets, known, span, wide, lane):
    """Return the difference of one lane's loss from the cached one, however far its outputs change."""
    low, high, rows, _, _, period = span
    q = lane % period
    if kind == LOGISTIC:
        total = 0.0
        for r in range(low, high):
            move, base, sign = _moved(z, place, cached, r, span, lane), cached[r * period + q], wide[3, r, lane]
            total += softplus(sign * (base + move)) - softplus(sign * base) + wide[2, r, lane] * move
        return total
    label = int(targets[q])
    own = _moved(z, place, cached, label, span, lane)
    top, near = 0.0, 0.0
    for r in range(rows):
        move = _moved(z, place, cached, r, span, lane) - own
        top = max(top, move)
        near += known[r * period + q] * math.expm1(min(move, 1.0))
    if top < 1.0 and near > -0.5:
        return math.log1p(near)
    # Classes that had no probability may be the likeliest now.
    top, base = -np.inf, -np.inf
    for r in range(rows):
        base = max(base, cached[r * period + q])
        top = max(top, cached[r * period + q] + _moved(z, place, cached, r, span, lane))
    total, before = 0.0, 0.0
    for r in range(rows):
        before += math.exp(cached[r * period + q] - base)
        total += math.exp(cached[r * period + q] + _moved(z, place, cached, r, span, lane) - top)
    return math.log(total / before) + (top - base) - own


@kernel()
def hinge_term(z, place, cached, label, other, margin, span, lane):
    """Return one class's cached term of the hinge, before it is cut at 0, and the term's change in a lane."""
    q, period = lane % span[5], span[5]
    base = cached[other * period + q] - cached[label * period + q] + margin
    return base, _moved(z, place, cached, other, span, lane) - _moved(z, place, cached, label, span, lane)


@kernel()
def _hinge_change(z, place, cached, label, margin, span, lane):
    """Return the difference of one lane's hinge loss from the cached one."""
    low, high, rows = span[:3]
    total = 0.0
    first, last = (0, rows) if low <= label < high else (low, high)
    for r in range(first, last):
        if r == label:
            continue
        base, move = hinge_term(z, place, cached, label, r, margin, span, lane)
        if (base > 0.0) != (base + move > 0.0):
            total += max(base + move, 0.0) - max(base, 0.0)
        elif base > 0.0:  # the change itself: base + move would be rounded at the size of the margin
            total += move
    return total
