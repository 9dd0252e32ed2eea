"""Gradients with units on another piece than the point's own: where rounding decides the piece, and at exact kinks.

A unit here is an activation near its kink, a pooling window with nearly equal winners, or a term of the hinge that is
nearly zero. Code that rounds otherwise than the reference may have it on the other side, where the gradient jumps: the
effect does not shrink with the rounding, so that no bound on rounding covers it. It is therefore computed, by adding
*nudges* to the cached results that take units to their other piece, and running the backward pass alone. A nudge
changes a piece and hardly any value (tests/networks/test_error_bars.py compares with perturbed parameters).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastcheck.common.precision import U
from fastcheck.networks.local_errors import SIGNS
from fastcheck.networks.passes import Chunk, Passes, lanes, row_of

POOLS, HINGE = ("max_pool",), ("hinge",)
"""Kinks other than those of `SIGNS`: rows whose winners may be equal, and the loss."""

MOST = 32
"""Largest number of units to flip one by one; more units are flipped in this many groups."""

GROUP_SAFETY = 2.0
"""Margin for groups of units, whose effects may cancel within a group: standard deviations beyond the sums of the
groups' positive and negative effects."""

LEAST = 2.0**-1000
"""Nudge that takes a unit at an exact kink to its other piece."""


def doubted(passes: Passes, sizes: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the most that units whose piece rounding decides may add to the gradient.

    Parameters
    ----------
    passes : Passes
    sizes : sequence of float64 arrays
        Bounds on the rounding of every result, chunk by chunk, laid out as ``cached``.
    seed : int
        Random seed for the grouping of units.
    """
    least, most = np.zeros_like(passes.params), np.zeros_like(passes.params)
    squares = np.zeros_like(passes.params)
    units = [_doubted(passes, chunk, own) for chunk, own in zip(passes.chunks, sizes, strict=True)]
    total = int(sum(np.count_nonzero(nudges) for nudges in units))
    for chunk, nudges in zip(passes.chunks, units, strict=True):
        positions = np.flatnonzero(nudges)
        if not len(positions):
            continue
        order = np.random.default_rng([seed, total]).permutation(positions)
        still = _gradient(passes, chunk, np.zeros_like(chunk.cached))
        for group in np.array_split(order, min(len(order), math.ceil(MOST * len(order) / total))):
            nudge = np.zeros_like(chunk.cached)
            nudge[group] = nudges[group]
            effect = _gradient(passes, chunk, nudge) - still
            least, most = least + np.minimum(effect, 0.0), most + np.maximum(effect, 0.0)
            squares += effect * effect if len(group) > 1 else 0.0
    spread = GROUP_SAFETY * np.sqrt(squares)
    return least - spread, most + spread


def all_flipped(passes: Passes, sizes: Sequence[np.ndarray]) -> Passes | None:
    """Return passes in which all units whose piece rounding decides are on their other piece; None without any.

    A backward pass over them has cotangents where the point's own has none, and its own rounding there.
    """
    units = [_doubted(passes, chunk, own) for chunk, own in zip(passes.chunks, sizes, strict=True)]
    if not any(nudges.any() for nudges in units):
        return None
    flipped = copy.copy(passes)
    flipped.chunks = [_nudged(passes, *pair) for pair in zip(passes.chunks, units, strict=True)]
    return flipped


def choices(passes: Passes, gradient: np.ndarray) -> list[np.ndarray]:
    """Return the gradients that automatic differentiation may compute where kinks lie at the point itself.

    The first has the left piece at every kink and the first of equal winners, as most code does. Then come the right
    pieces, the last winners, the hinge's other piece, and all combinations; then the mean of the first and each other.
    """
    hinge, margin = passes.point.network.loss == "multiclass_hinge", passes.point.network.margin
    kinds = [kind for kind in (SIGNS, POOLS) if any(_beyond(passes, chunk, kind).any() for chunk in passes.chunks)]
    kinds += [HINGE] if hinge else []
    largest = float(np.abs(passes.outputs()).max())
    others = []
    for some in itertools.chain.from_iterable(itertools.combinations(kinds, n) for n in range(1, len(kinds) + 1)):
        beyond = margin + 4 * U * (largest + margin) if HINGE in some else margin
        nudges = [sum((_beyond(passes, chunk, kind) for kind in some), np.zeros(1)) for chunk in passes.chunks]
        pairs = zip(passes.chunks, nudges, strict=True)
        others.append(sum((_gradient(passes, chunk, nudge, beyond) for chunk, nudge in pairs), np.zeros(1)))
    return [gradient, *others, *((gradient + other) / 2 for other in others)]


def terms(passes: Passes, chunk: Chunk, output: np.ndarray) -> np.ndarray:
    """Return the terms of the hinge before they are cut at 0, (classes, lanes); the label's own term is the margin."""
    z = output.reshape(-1, output.shape[2])
    label = chunk.targets[: z.shape[1]].astype(np.int64)[None, :]
    return z - np.take_along_axis(z, label, 0) + passes.point.network.margin


def _gradient(passes: Passes, chunk: Chunk, nudge: np.ndarray, margin: float | None = None) -> np.ndarray:
    """Return the gradient of a chunk from a backward pass over nudged results."""
    gradient = np.zeros_like(passes.params)
    passes.backward(_nudged(passes, chunk, nudge, margin), gradient)
    return gradient


def _nudged(passes: Passes, chunk: Chunk, nudge: np.ndarray, margin: float | None = None) -> Chunk:
    """Return a chunk with nudged results."""
    network = passes.point.network
    own = replace(chunk, cached=chunk.cached + nudge, seeds=chunk.seeds.copy(), losses=chunk.losses.copy())
    if network.loss == "multiclass_hinge":
        passes.score(own, network.margin if margin is None else margin)
    return own


def _doubted(passes: Passes, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
    """Return nudges of the results that decide a unit's piece within their rounding: they flip it."""
    nudge = np.zeros_like(chunk.cached)
    for node in passes.program.nodes:
        source = node.columns["a"]
        if node.kind not in (*SIGNS, "max_pool"):
            continue
        z, size, out = (lanes(passes, chunk, array, source) for array in (chunk.cached, sizes, nudge))
        if node.kind in SIGNS:
            near = (np.abs(z) <= size) & (size > 0)
            out[near] = np.where(z[near] == 0, LEAST, -2 * z[near])
        else:
            assert node.lookup is not None
            _second_winners(z, size, node.lookup, out)
    if passes.point.network.loss == "multiclass_hinge":
        _hinge(passes, chunk, sizes, nudge)
    return nudge


def _second_winners(z: np.ndarray, size: np.ndarray, lookup: np.ndarray, nudge: np.ndarray) -> None:
    """Write nudges that make every entry the winner of its window that rounding may make the largest."""
    inside = lookup[None, :, :, None] >= 0
    values, errors = np.where(inside, z[:, lookup], -np.inf), np.where(inside, size[:, lookup], 0.0)
    top = values.argmax(axis=1)[:, None]
    best, best_error = np.take_along_axis(values, top, 1), np.take_along_axis(errors, top, 1)
    # Entries that are exactly equal come from the same arithmetic, and tie in any code.
    near = (values + errors >= best - best_error) & (values < best)
    for tap, pixels in enumerate(lookup):
        used = pixels >= 0
        gap = best[:, 0, used] - values[:, tap, used] + 8 * U * np.abs(best[:, 0, used]) + LEAST
        nudge[:, pixels[used]] = np.where(near[:, tap, used], gap, nudge[:, pixels[used]])


def _hinge(passes: Passes, chunk: Chunk, sizes: np.ndarray, nudge: np.ndarray) -> None:
    """Write nudges of the outputs whose terms of the hinge are within their rounding of zero."""
    last, margin = len(passes.program.nodes) - 1, passes.point.network.margin
    z, size, out = (lanes(passes, chunk, array, last) for array in (chunk.cached, sizes, nudge))
    z, size, rows = z[:, 0], size[:, 0], np.arange(len(z))[:, None]
    label = chunk.targets[: chunk.points].astype(np.int64)[None, :]
    term = terms(passes, chunk, lanes(passes, chunk, chunk.cached, last))
    rounding = size + np.take_along_axis(size, label, 0)
    near = (np.abs(term) <= rounding) & (rounding > 0) & (rows != label)
    step = np.abs(term) + 8 * U * (np.abs(z) + margin)
    out[:, 0] = np.where(near, np.where(term > 0, -term - step, -term + step), out[:, 0])


def _beyond(passes: Passes, chunk: Chunk, kinds: Sequence[str]) -> np.ndarray:
    """Return nudges that take units at exact kinks to the right piece, and windows to the last of equal winners."""
    nudges = np.zeros_like(chunk.cached)
    for node in passes.program.nodes:
        source = node.columns["a"]
        if node.kind not in kinds:
            continue
        z, nudge = (row_of(passes, chunk, array, source) for array in (chunk.cached, nudges))
        if node.kind in SIGNS:
            nudge[z == 0] = LEAST
        elif node.kind == "max_pool":
            assert node.lookup is not None
            values = np.where(node.lookup[None, :, :, None] >= 0, z[:, node.lookup], -np.inf)
            ties = values == values.max(axis=1, keepdims=True)
            ties &= ties.sum(axis=1, keepdims=True) > 1
            for tap, pixels in enumerate(node.lookup):
                inside = pixels >= 0
                part = nudge[:, pixels[inside]]
                nudge[:, pixels[inside]] = np.where(ties[:, tap, inside], _after(z[:, pixels[inside]], tap), part)
    return nudges


def _after(z: np.ndarray, tap: int) -> np.ndarray:
    """Return a nudge of a few roundings that makes the later of equal entries the larger."""
    return 2 * (tap + 1) * (U * np.abs(z) + LEAST)
