"""Forward and backward passes of the unperturbed network: cached results, and the reference gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.networks.case import Arrays, Point
from fastcheck.networks.network import LOSSES
from fastcheck.networks.program import Program
from fastcheck_kernels import columns, network, tile, vjp

CHUNK = 16
"""Largest number of data points that go through a network together, where no layer needs all of them."""

Net = tuple[np.ndarray, ...]

Hook = Callable[["Chunk", int], None]
"""Called with a chunk and the number of a row whose results, or cotangents, are complete."""


def _nothing(chunk: Chunk, row: int) -> None:
    """Leave a row unchanged."""


def lowered(point: Point) -> Program:
    """Return a network lowered for the inputs of a point."""
    return Program(point.network, point.shape, point.buffers, tuple(point.masks), tile.CHANNELS, tile.VECTOR)


def vector(program: Program, params: Arrays) -> np.ndarray:
    """Return all parameters as one vector."""
    flat = np.empty(program.params_size)
    for name, tensor in program.tensors.items():
        tensor.put(flat, params[name])
    return flat


def pieces(point: Point) -> list[np.ndarray]:
    """Cut the data points into chunks: powers of two, which fill lanes well; or one, where a layer mixes all points."""
    total = np.arange(len(point.x))
    if any(layer.kind == "batch_norm" and not getattr(layer, "frozen", False) for layer in point.network.layers):
        return [total]
    chunks, at = [], 0
    while at < len(total):
        size = min(CHUNK, 1 << ((len(total) - at).bit_length() - 1))
        chunks.append(total[at : at + size])
        at += size
    return chunks


def sizes(point: Point) -> list[tuple[int, int]]:
    """Return the numbers of data points and of cache lanes of every chunk."""
    return [(len(chosen), math.lcm(len(chosen), tile.LANES)) for chosen in pieces(point)]


def cache_bytes(program: Program, point: Point) -> int:
    """Return the bytes of all layers' results, for all data points."""
    return 8 * program.slots()[2] * sum(period for _, period in sizes(point))


@dataclass
class Chunk:
    """Some data points, and the unperturbed network's results for them.

    Attributes
    ----------
    net : tuple of arrays
        Described in `fastcheck_kernels.columns`.
    number : int
        Position among the chunks.
    points, period : int
        Numbers of data points and of cache lanes; the lanes repeat the data points.
    targets : float64 array, (rows, period), flat
    cached, cotangents : float64 arrays
        Every row's output, and the objective's gradient with respect to it (empty before the backward pass).
    known, seeds : float64 arrays
        Probabilities and cotangents of the output.
    losses : float64 array
        Loss of every data point.
    """

    net: Net
    number: int
    points: int
    period: int
    targets: np.ndarray
    cached: np.ndarray
    known: np.ndarray
    seeds: np.ndarray
    losses: np.ndarray
    cotangents: np.ndarray

    @property
    def size(self) -> tuple[int, int, int, int]:
        """The caches' lanes, as the kernels' ``size``."""
        return self.points, self.period, self.period, 0


class Passes:
    """A network at a point: forward passes with all results cached, and backward passes on request.

    Parameters
    ----------
    point : Point
    program : Program, optional
        The lowered network, if it exists already.
    params : float64 array, optional
        Parameters in place of the point's, as one vector.
    after : callable, optional
        May change the results of every row in the forward pass.
    """

    def __init__(
        self,
        point: Point,
        program: Program | None = None,
        params: np.ndarray | None = None,
        after: Hook = _nothing,
    ) -> None:
        self.point = point
        self.program = lowered(point) if program is None else program
        self.params = vector(self.program, point.params) if params is None else params
        self.packed = np.zeros(self.program.packed_size)
        self.kind = LOSSES.index(point.network.loss)
        self.weight = 1.0 / len(point.x) if point.network.reduction == "mean" else 1.0
        chunks = zip(pieces(point), sizes(point), strict=True)
        self.chunks = [self._chunk(number, chosen, *size) for number, (chosen, size) in enumerate(chunks)]
        self.pack()
        for chunk in self.chunks:
            self.forward(chunk, after)

    def loss(self) -> float:
        """Return the data points' loss, without regularisation."""
        try:
            return self.weight * math.fsum(value for chunk in self.chunks for value in chunk.losses.tolist())
        except OverflowError:
            return math.inf

    def outputs(self) -> np.ndarray:
        """Return the network's output, (N, entries)."""
        return np.concatenate([self.row(chunk, -1) for chunk in self.chunks])

    def row(self, chunk: Chunk, row: int) -> np.ndarray:
        """Return a row's output for the data points of a chunk, (points, entries)."""
        node, at = self.program.nodes[row], self.program.slots()[0][row] * chunk.period
        lanes = chunk.cached[at : at + node.entries * chunk.period].reshape(node.entries, chunk.period)
        return lanes[:, : chunk.points].T

    def gradient(self, before: Hook = _nothing) -> np.ndarray:
        """Return the reference gradient of the data points' loss, as one vector, and cache the cotangents.

        ``before`` may change the cotangents of every row's results.
        """
        total = np.zeros(self.program.params_size)
        for chunk in self.chunks:
            grads = np.zeros(self.program.params_size)
            self.backward(chunk, grads, before)
            total += grads
        return total

    def named(self, flat: np.ndarray) -> Arrays:
        """Return the tensors, by name, of a vector laid out as the parameters."""
        return {name: tensor.of(flat).reshape(tensor.shape) for name, tensor in self.program.tensors.items()}

    def pack(self) -> None:
        """Pack all weights for the kernels, after they changed."""
        for row, node in enumerate(self.program.nodes):
            if node.kind == "conv":
                for transposed in (False, True):
                    network.pack(self.chunks[0].net, row, transposed)

    def forward(self, chunk: Chunk, after: Hook = _nothing) -> None:
        """Evaluate the network for a chunk, from its input on."""
        arguments = (chunk.net, chunk.cached, self.places(chunk), chunk.size, np.empty(0), chunk.targets)
        loss = (self.kind, self.point.network.margin, chunk.known, chunk.seeds)
        network.forward(*arguments, loss, chunk.losses, lambda row: after(chunk, row))

    def score(self, chunk: Chunk, margin: float) -> None:
        """Write every data point's loss, and the output's cotangents, from the cached output."""
        loss = (self.kind, margin, chunk.known, chunk.seeds)
        network.score(chunk.net, chunk.cached, chunk.size, chunk.targets, loss, chunk.losses)

    def backward(self, chunk: Chunk, grads: np.ndarray, before: Hook = _nothing) -> None:
        """Write the gradient of a chunk's weighted losses, and cache the chunk's cotangents."""
        chunk.cotangents = np.zeros_like(chunk.cached)
        last = self.program.nodes[-1]
        at = self.program.slots()[0][-1] * chunk.period
        chunk.cotangents[at : at + last.entries * chunk.period] = self.weight * chunk.seeds
        arguments = (chunk.net, chunk.cached, chunk.cotangents, self.places(chunk), chunk.size, grads)
        vjp.backward(*arguments, lambda row: before(chunk, row))
        for tensor in self.program.tensors.values():
            tensor.gather(grads)

    def places(self, chunk: Chunk) -> np.ndarray:
        table = chunk.net[0]
        pitch = table[:, columns.PIXELS] * chunk.period
        return np.ascontiguousarray(np.stack([table[:, columns.CACHED], pitch], axis=1))

    def _chunk(self, number: int, chosen: np.ndarray, count: int, period: int) -> Chunk:
        """Lay out the lanes of some data points."""
        program = self.program
        shown = chosen[np.arange(period) % count]
        masks = {name: factors[shown] for name, factors in self.point.masks.items()}
        table, reals = program.table(period, masks)
        cached = np.zeros(program.slots()[2] * period)
        inputs = self.point.x.reshape(len(self.point.x), -1)[shown].T
        cached[: inputs.size] = inputs.reshape(-1)
        rows = program.nodes[-1].entries * period
        return Chunk(
            (table, program.starts, program.spots, program.lookup, reals, self.params, self.packed),
            number,
            count,
            period,
            np.ascontiguousarray(self.point.targets[shown].T).reshape(-1),
            cached,
            np.zeros(rows),
            np.zeros(rows),
            np.zeros(count),
            np.zeros(0),
        )


def row_of(passes: Passes, chunk: Chunk, array: np.ndarray, row: int, normalised: bool = False) -> np.ndarray:
    """Return a row's lanes in an array laid out as the cache, or the lanes of its normalised input."""
    node, (results, inputs, _) = passes.program.nodes[row], passes.program.slots()
    at = (inputs if normalised else results)[row] * chunk.period
    shape = (node.columns["channels"], node.columns["pixels"], chunk.period)
    return array[at : at + math.prod(shape)].reshape(shape)


def lanes(passes: Passes, chunk: Chunk, array: np.ndarray, row: int) -> np.ndarray:
    """Return a row's entries in an array laid out as the cache, without repeats: (channels, pixels, points)."""
    return row_of(passes, chunk, array, row)[:, :, : chunk.points]


def refuse_non_finite(passes: Passes) -> None:
    """Check that the loss is finite at the point itself.

    Raises
    ------
    FastcheckError
        If it is not; the message names the first layer whose output is not finite.
    """
    if math.isfinite(passes.loss()):
        return
    for row in range(1, len(passes.program.nodes)):
        if not all(np.isfinite(passes.row(chunk, row)).all() for chunk in passes.chunks):
            name = passes.program.layer_name(row)
            raise FastcheckError(
                f"loss is {passes.loss()} at the given parameters: the first values that are not finite come from "
                f"layer {name!r}; expected a finite loss"
            )
    raise FastcheckError(f"loss is {passes.loss()} at the given parameters: expected a finite loss")
