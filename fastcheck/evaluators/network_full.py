"""The whole network again, with one parameter moved: the gold standard, the audit, and which units cross their kinks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastcheck.cases.network_pass import Chunk, Passes
from fastcheck.evaluators.network_bars import lanes
from fastcheck.step import U
from fastcheck_kernels import network

SIGNS = ("relu", "leaky_relu", "elu")
"""Kinds of rows with a kink at zero."""


class Crossing(NamedTuple):
    """A unit on whose other side -h and +h are, or that changes its winner.

    Attributes
    ----------
    layer : str
        "loss" for a term of the hinge.
    kind : {"sign", "winner", "tie", "hinge"}
        A tie is a pooling window with several winners, the same at -h and +h, that moves.
    unit : tuple of int
        Data point, channel and place in the map; of the hinge data point and class.
    minus, at, plus : float or tuple
        What decides, at -h, at the point and at +h: the number whose sign it is, or the winners' places in the input's map.
    amount : float
        How much it changes the loss's difference at most.
    """

    layer: str
    kind: str
    unit: tuple[int, ...]
    minus: Any
    at: Any
    plus: Any
    amount: float

    @property
    def at_point(self) -> bool:
        """Whether the kink lies at the point itself, as far as numbers tell."""
        if isinstance(self.at, tuple):
            return len(self.at) > 1
        return bool(abs(self.at) <= network.AT_POINT * abs(self.plus - self.minus))


@dataclass
class _Own:
    """A thread's own copy of all that a forward pass writes to."""

    passes: Passes
    params: np.ndarray


class Full:
    """Rows like those of `fastcheck.evaluators.network_moved.Moved`, by two whole forward passes for each dimension.

    Nothing that was kept of the unperturbed network is used for the numeric value; kinks are told by comparing all units.
    """

    def __init__(self, passes: Passes, name: str) -> None:
        self._passes, self._name = passes, name
        self._private = threading.local()
        losses = np.concatenate([chunk.losses for chunk in passes.chunks])
        # exp, log and the sum over classes: some eight roundings of numbers as large as the loss.
        self.noise = 8 * U * passes.weight * float(np.sqrt(losses @ losses + len(losses)))
        self.copies = 1

    def __call__(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return a row for each dimension, summed over the data points: float64 (dimensions, `network.FOUND`)."""
        found = np.zeros((len(dims), network.FOUND))
        for row, dim in zip(found, dims.tolist(), strict=True):
            plus, minus = (self._moved(np.array([dim]), np.array([by])) for by in (h, -h))
            entry = self._passes.program.places[self._name].start + dim
            value = self._passes.params[entry]
            # The entry moves by what addition makes of it; the table is one of quotients by 2h.
            scale = 2 * h / ((value + h) - (value - h))
            right, left = self._sides(plus, minus)
            row[network.NUMERIC] = scale * (right + left).sum()
            row[network.RIGHT], row[network.LEFT] = scale * right.sum(), scale * left.sum()
            for crossing in self._crossings(plus, minus):
                row[network.KINKS] += 1
                row[network.WIDENING] += crossing.amount
                row[network.JUMP] += crossing.amount if crossing.at_point else 0.0
        return found

    def along(self, direction: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Return how far every data point's loss moves, weighted, from the point to +h and from -h to it."""
        dims = np.flatnonzero(direction)
        return self._sides(*(self._moved(dims, by * direction[dims]) for by in (h, -h)))

    def crossings(self, dim: int, h: float) -> list[Crossing]:
        """Return every unit that crosses a kink between -h and +h of a dimension."""
        return list(self._crossings(*(self._moved(np.array([dim]), np.array([by])) for by in (h, -h))))

    def _sides(self, plus: list[Chunk], minus: list[Chunk]) -> tuple[np.ndarray, np.ndarray]:
        before, base, after = (
            np.concatenate([chunk.losses for chunk in chunks]) for chunks in (minus, self._passes.chunks, plus)
        )
        return self._passes.weight * (after - base), self._passes.weight * (base - before)

    def _moved(self, dims: np.ndarray, by: np.ndarray) -> list[Chunk]:
        """Evaluate with some entries moved; restore them from what they were."""
        own, place = self._own(), self._passes.program.places[self._name]
        own.params[place.start + dims] += by
        try:
            own.passes.pack()
            for chunk in own.passes.chunks:
                own.passes.forward(chunk)
            return [
                replace(chunk, cached=chunk.cached.copy(), losses=chunk.losses.copy()) for chunk in own.passes.chunks
            ]
        finally:
            own.params[:] = self._passes.params

    def _own(self) -> _Own:
        if not hasattr(self._private, "own"):
            passes = Passes(self._passes.point, self._passes.program)
            self._private.own = _Own(passes, passes.params)
        own: _Own = self._private.own
        return own

    def _crossings(self, plus: list[Chunk], minus: list[Chunk]) -> Iterator[Crossing]:
        passes, first = self._passes, 0
        for after, base, before in zip(plus, passes.chunks, minus, strict=True):
            for place, node in enumerate(passes.program.nodes):
                if node.kind in SIGNS:
                    yield from self._signs(place, after, base, before, first)
                elif node.kind == "max_pool":
                    yield from self._winners(place, after, base, before, first)
            if passes.point.network.loss == "multiclass_hinge":
                yield from self._hinge(after, base, before, first)
            first += base.points

    def _signs(self, place: int, after: Chunk, base: Chunk, before: Chunk, first: int) -> Iterator[Crossing]:
        passes, node = self._passes, self._passes.program.nodes[place]
        source = node.columns["a"]
        high, at, low = (lanes(passes, chunk, chunk.cached, source) for chunk in (after, base, before))
        slopes = lanes(passes, base, base.cotangents, place)
        for unit in zip(*np.nonzero((high > 0) != (low > 0)), strict=True):
            values = [float(array[unit]) for array in (low, at, high)]
            amount = sum(_excess(node.kind, float(node.reals[0]), values[1], value) for value in values[::2])
            yield Crossing(
                passes.program.layer_name(place),
                "sign",
                self._unit(source, unit, first),
                *values,
                amount * abs(float(slopes[unit])),
            )

    def _winners(self, place: int, after: Chunk, base: Chunk, before: Chunk, first: int) -> Iterator[Crossing]:
        passes, node = self._passes, self._passes.program.nodes[place]
        assert node.lookup is not None
        source, window = node.columns["a"], node.lookup
        seen = [_windows(lanes(passes, chunk, chunk.cached, source), window) for chunk in (before, base, after)]
        tops = [values.max(axis=1, keepdims=True) for values in seen]
        won = [values == top for values, top in zip(seen, tops, strict=True)]
        other = (won[0] != won[2]).any(axis=1)
        ties = (won[0].sum(axis=1) > 1) & (tops[0] != tops[2])[:, 0]
        slopes = lanes(passes, base, base.cotangents, place)
        for c, p, n in zip(*np.nonzero(other | ties), strict=True):
            leader = int(np.argmax(won[1][c, :, p, n]))
            amount = sum(float(tops[i][c, 0, p, n] - seen[i][c, leader, p, n]) for i in (0, 2))
            winners = [tuple(int(q) for q in window[won[i][c, :, p, n], p]) for i in range(3)]
            yield Crossing(
                passes.program.layer_name(place),
                "winner" if other[c, p, n] else "tie",
                self._unit(place, (c, p, n), first),
                *(tuple(self._pixel(source, q) for q in places) for places in winners),
                amount * abs(float(slopes[c, p, n])),
            )

    def _hinge(self, after: Chunk, base: Chunk, before: Chunk, first: int) -> Iterator[Crossing]:
        passes = self._passes
        margin = passes.point.network.margin
        outputs = [passes.row(chunk, -1) for chunk in (before, base, after)]
        for n in range(base.points):
            label = int(passes.point.targets[first + n, 0])
            terms = [output[n] - output[n, label] + margin for output in outputs]
            for k in np.flatnonzero((terms[0] > 0) != (terms[2] > 0)).tolist():
                if k != label:
                    values = [float(term[k]) for term in terms]
                    amount = sum(_excess("relu", 0.0, values[1], value) for value in values[::2])
                    yield Crossing("loss", "hinge", (first + n, k), *values, amount * passes.weight)

    def _unit(self, place: int, unit: tuple[int, ...], first: int) -> tuple[int, ...]:
        c, p, n = (int(i) for i in unit)
        return first + n, c, *self._pixel(place, p)

    def _pixel(self, place: int, pixel: int) -> tuple[int, ...]:
        """Return a place in a row's map, axis by axis."""
        spatial = self._passes.program.nodes[place].shape[1:]
        return tuple(int(i) for i in np.unravel_index(pixel, spatial)) if spatial else ()


def _excess(kind: str, real: float, at: float, z: float) -> float:
    """Return how far an activation is from the piece that holds at a point, continued to z."""
    if (at > 0) == (z > 0):
        return 0.0
    if kind == "relu":
        return abs(z)
    return abs((1 - real) * z) if kind == "leaky_relu" else abs(z - real * float(np.expm1(z)))


def _windows(values: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Return the entries of every window, -inf for padding: (channels, taps, pixels, points)."""
    found: np.ndarray = np.where(lookup[None, :, :, None] >= 0, values[:, lookup], -np.inf)
    return found
