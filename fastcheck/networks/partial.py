"""Evaluator ``network``: perturbed losses by partial evaluation, of only what a parameter changes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from fastcheck.common.machine import OVERHEAD
from fastcheck.networks import program
from fastcheck.networks.case import Point
from fastcheck.networks.passes import Passes, cache_bytes, sizes
from fastcheck_kernels import columns, network


class PartialEvaluation:
    """Tables of `fastcheck_kernels.network.difference` for one tensor.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    name : str
        The tensor.

    Attributes
    ----------
    kind : str
        Name of the evaluator.
    noise : float
        Standard deviation that evaluating the loss itself adds to its differences: 0, since the kernel computes the
        differences directly.
    group : int
        Number of dimensions that perturb the same channel, and can be evaluated in one pass.
    dims_per_pass : int
        Number of these that fill the lanes: fewer take as long.
    """

    kind = "network"
    noise = 0.0

    def __init__(self, passes: Passes, name: str) -> None:
        self._passes, self._name = passes, name
        self._tensor = passes.program.node_of(name)
        entries = passes.point.params[name].size
        alike = {chunk.points: chunk for chunk in passes.chunks}
        known = {
            count: _Layout(passes.program, count, chunk.period, self._tensor[0], entries)
            for count, chunk in alike.items()
        }
        self._layouts = [known[chunk.points] for chunk in passes.chunks]
        self._private = threading.local()
        self.group = max(1, entries // passes.program.nodes[self._tensor[0]].columns["channels"])
        self.dims_per_pass = max(layout.copies for layout in self._layouts)

    def __call__(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return a row for each dimension, summed over the data points: float64 (dimensions, `columns.FOUND`)."""
        passes, (arena, spare) = self._passes, self._rooms()
        places = passes.program.tensors[self._name].places(dims)
        order = np.argsort(places)
        places = np.ascontiguousarray(places[order])
        total = np.zeros((len(dims), columns.FOUND))
        loss = (passes.kind, passes.point.network.margin, passes.weight)
        for chunk, layout in zip(passes.chunks, self._layouts, strict=True):
            table = np.empty_like(total)
            work = (arena, layout.places, spare)
            size = (chunk.points, chunk.period, layout.lanes, layout.lanes // 2)
            state = (chunk.net, chunk.cached, chunk.cotangents, chunk.known, chunk.targets)
            network.difference(state, work, self._tensor, places, h, size, loss, table)
            total[order] += table
        return total

    def _rooms(self) -> tuple[np.ndarray, np.ndarray]:
        """Return this thread's own arena and spare room."""
        if not hasattr(self._private, "rooms"):
            sizes = (max(getattr(layout, name) for layout in self._layouts) for name in ("arena", "spare"))
            self._private.rooms = tuple(_aligned(size) for size in sizes)
        return self._private.rooms


@dataclass
class _Layout:
    """Lanes for a chunk, the number of copies on each side of them, and the layout of rows in a thread's arena."""

    lanes: int
    copies: int
    places: np.ndarray
    arena: int
    spare: int

    def __init__(self, lowered: program.Program, points: int, period: int, node: int, entries: int) -> None:
        per_channel = max(1, entries // lowered.nodes[node].columns["channels"])
        self.lanes = program.lanes(lowered, node, points, period, per_channel)
        self.copies = self.lanes // 2 // points
        self.places, self.arena = program.arena(lowered, node, self.lanes)
        self.spare = max(other.entries for other in lowered.nodes) * self.lanes


def _aligned(size: int) -> np.ndarray:
    """Return an array that is aligned to a cache line."""
    raw = np.zeros(size + 8)
    shift = -raw.ctypes.data // 8 % 8
    return raw[shift : shift + size]


def thread_bytes(lowered: program.Program, point: Point) -> int:
    """Return the bytes of a thread's rooms for the tensor that needs the most."""
    layouts = [
        _Layout(lowered, points, period, lowered.node_of(name)[0], array.size)
        for name, array in point.params.items()
        for points, period in set(sizes(point))
    ]
    return 8 * max(layout.arena + layout.spare for layout in layouts)


def needed_bytes(lowered: program.Program, point: Point, threads: int) -> int:
    """Return a bound on the bytes that checking a network takes, its arguments aside.

    Results and cotangents of all layers are kept, and once more while noise is added, together with their local errors
    and the noise's effect on results. Every thread has its own rooms, and its own results for the audit. Each parameter
    takes a dozen numbers.
    """
    caches = (9 + 2 * threads) * cache_bytes(lowered, point)
    return caches + threads * thread_bytes(lowered, point) + 12 * 8 * lowered.params_size + OVERHEAD


def work(lowered: program.Program, name: str, points: int, evaluator: str = PartialEvaluation.kind) -> int:
    """Return the approximate multiply-adds for a dimension of a tensor, both signs and all data points together.

    With ``full``, every dimension takes as many as one of the first tensor, which changes everything.
    """
    first, _ = lowered.node_of(next(iter(lowered.tensors)) if evaluator == "full" else name)
    perturbed = program.perturbed(lowered, first)
    total = 0
    for row, count in perturbed.items():
        node = lowered.nodes[row]
        total += 8 * count
        if node.kind == "conv" and row != first:
            source = node.columns["a"]
            share = perturbed.get(source, 0) / lowered.nodes[source].entries
            total += int(share * count * node.columns["per_group"] * node.columns["taps"])
    return total * 2 * points
