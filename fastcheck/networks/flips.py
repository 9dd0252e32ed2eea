"""Gradients with units on another piece than the point's own: where rounding decides which, and at exact kinks.

A unit is an activation at its kink, a pooling window with several winners, or a term of the hinge that is nearly zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastcheck.common.precision import U
from fastcheck.networks.local_errors import SIGNS
from fastcheck.networks.passes import Chunk, Passes, lanes, row_of

POOLS, HINGE = ("max_pool",), ("hinge",)
"""Other kinds of kinks: rows whose winners may be equal, and the loss."""

MOST = 32
"""Units that are flipped one by one; more of them are flipped in as many groups."""

GROUP_SAFETY = 2.0
"""Standard deviations of what groups of units do, beyond the sums of those that add and of those that take off."""

LEAST = 2.0**-1000
"""What moves a unit at an exact kink onto its other piece."""


def doubted(passes: Passes, sizes: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the most that units whose piece rounding decides may add to the gradient.

    Parameters
    ----------
    passes : Passes
    sizes : sequence of float64 arrays
        By how much rounding moves every result, chunk by chunk, laid out as ``cached``.
    seed : int
    """
    least, most = np.zeros_like(passes.params), np.zeros_like(passes.params)
    squares = np.zeros_like(passes.params)
    units = [_doubted(passes, chunk, own) for chunk, own in zip(passes.chunks, sizes, strict=True)]
    total = sum(len(places) for places, _ in units)
    for chunk, (places, moves) in zip(passes.chunks, units, strict=True):
        if not len(places):
            continue
        order = np.random.default_rng([seed, total]).permutation(len(places))
        still = _gradient(passes, chunk, np.zeros_like(chunk.cached))
        for group in np.array_split(order, min(len(order), math.ceil(MOST * len(order) / total))):
            move = np.zeros_like(chunk.cached)
            move[places[group]] = moves[group]
            effect = _gradient(passes, chunk, move) - still
            least, most = least + np.minimum(effect, 0.0), most + np.maximum(effect, 0.0)
            squares += effect * effect if len(group) > 1 else 0.0
    spread = GROUP_SAFETY * np.sqrt(squares)
    return least - spread, most + spread


def choices(passes: Passes, gradient: np.ndarray) -> list[np.ndarray]:
    """Return what automatic differentiation may make of the gradient where kinks lie at the point itself.

    That is the slope of the left piece at every kink and the first of equal winners, as most code has it; the right
    pieces, the last winners, or both; and half of the first and each of these.
    """
    hinge, margin = passes.point.network.loss == "multiclass_hinge", passes.point.network.margin
    kinds = [kind for kind in (SIGNS, POOLS) if any(_beyond(passes, chunk, kind).any() for chunk in passes.chunks)]
    kinds += [HINGE] if hinge else []
    largest = float(np.abs(passes.outputs()).max())
    others = []
    for some in itertools.chain.from_iterable(itertools.combinations(kinds, n) for n in range(1, len(kinds) + 1)):
        beyond = margin + 4 * U * (largest + margin) if HINGE in some else margin
        moves = [sum((_beyond(passes, chunk, kind) for kind in some), np.zeros(1)) for chunk in passes.chunks]
        pairs = zip(passes.chunks, moves, strict=True)
        others.append(sum((_gradient(passes, chunk, move, beyond) for chunk, move in pairs), np.zeros(1)))
    return [gradient, *others, *((gradient + other) / 2 for other in others)]


def terms(passes: Passes, chunk: Chunk, output: np.ndarray) -> np.ndarray:
    """Return the terms of the hinge before they are cut at 0, (classes, lanes); the label's is the margin."""
    z = output.reshape(-1, output.shape[2])
    label = chunk.targets[: z.shape[1]].astype(np.int64)[None, :]
    found: np.ndarray = z - np.take_along_axis(z, label, 0) + passes.point.network.margin
    return found


def _gradient(passes: Passes, chunk: Chunk, move: np.ndarray, margin: float | None = None) -> np.ndarray:
    """Return the gradient of a chunk where what decides between pieces is moved, and nothing else is."""
    network = passes.point.network
    own = replace(chunk, cached=chunk.cached + move, seeds=chunk.seeds.copy(), losses=chunk.losses.copy())
    if network.loss == "multiclass_hinge":
        passes.score(own, network.margin if margin is None else margin)
    found = np.zeros_like(passes.params)
    passes.backward(own, found)
    return found


def _doubted(passes: Passes, chunk: Chunk, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which results decide a unit's piece and are no larger than rounding, and what takes them to the other."""
    move = np.zeros_like(chunk.cached)
    for node in passes.program.nodes:
        source = node.columns["a"]
        if node.kind not in (*SIGNS, "max_pool"):
            continue
        z, size, out = (lanes(passes, chunk, array, source) for array in (chunk.cached, sizes, move))
        if node.kind in SIGNS:
            near = (np.abs(z) <= size) & (size > 0)
            out[near] = np.where(z[near] == 0, LEAST, -2 * z[near])
        else:
            assert node.lookup is not None
            _second_winners(z, size, node.lookup, out)
    if passes.point.network.loss == "multiclass_hinge":
        _hinge(passes, chunk, sizes, move)
    places = np.flatnonzero(move)
    return places, move[places]


def _second_winners(z: np.ndarray, size: np.ndarray, lookup: np.ndarray, move: np.ndarray) -> None:
    """Write moves that make the winner of every window of what rounding may make its largest entry."""
    inside = lookup[None, :, :, None] >= 0
    values, errors = np.where(inside, z[:, lookup], -np.inf), np.where(inside, size[:, lookup], 0.0)
    top = values.argmax(axis=1)[:, None]
    best, best_error = np.take_along_axis(values, top, 1), np.take_along_axis(errors, top, 1)
    # What is exactly equal comes of the same arithmetic, and ties everywhere.
    near = (values + errors >= best - best_error) & (values < best)
    for tap, pixels in enumerate(lookup):
        used = pixels >= 0
        gap = best[:, 0, used] - values[:, tap, used] + 8 * U * np.abs(best[:, 0, used]) + LEAST
        move[:, pixels[used]] = np.where(near[:, tap, used], gap, move[:, pixels[used]])


def _hinge(passes: Passes, chunk: Chunk, sizes: np.ndarray, move: np.ndarray) -> None:
    """Write moves of the outputs whose terms of the hinge are no larger than what rounding makes of them."""
    last, margin = len(passes.program.nodes) - 1, passes.point.network.margin
    z, size, out = (lanes(passes, chunk, array, last) for array in (chunk.cached, sizes, move))
    z, size, rows = z[:, 0], size[:, 0], np.arange(len(z))[:, None]
    label = chunk.targets[: chunk.points].astype(np.int64)[None, :]
    term = terms(passes, chunk, lanes(passes, chunk, chunk.cached, last))
    rounding = size + np.take_along_axis(size, label, 0)
    near = (np.abs(term) <= rounding) & (rounding > 0) & (rows != label)
    step = np.abs(term) + 8 * U * (np.abs(z) + margin)
    out[:, 0] = np.where(near, np.where(term > 0, -term - step, -term + step), out[:, 0])


def _beyond(passes: Passes, chunk: Chunk, kinds: Sequence[str]) -> np.ndarray:
    """Return moves that take units at exact kinks to the right piece, and windows to the last of equal winners."""
    found = np.zeros_like(chunk.cached)
    for node in passes.program.nodes:
        source = node.columns["a"]
        if node.kind not in kinds:
            continue
        z, move = (row_of(passes, chunk, array, source) for array in (chunk.cached, found))
        if node.kind in SIGNS:
            move[z == 0] = LEAST
        elif node.kind == "max_pool":
            assert node.lookup is not None
            values = np.where(node.lookup[None, :, :, None] >= 0, z[:, node.lookup], -np.inf)
            ties = values == values.max(axis=1, keepdims=True)
            ties &= ties.sum(axis=1, keepdims=True) > 1
            for tap, pixels in enumerate(node.lookup):
                inside = pixels >= 0
                part = move[:, pixels[inside]]
                move[:, pixels[inside]] = np.where(ties[:, tap, inside], _after(z[:, pixels[inside]], tap), part)
    return found


def _after(z: np.ndarray, tap: int) -> np.ndarray:
    """Return a move that makes the later of equal entries the larger, by some roundings."""
    found: np.ndarray = 2 * (tap + 1) * (U * np.abs(z) + LEAST)
    return found
