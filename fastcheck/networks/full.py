"""Evaluator ``full``: the whole network again with one parameter perturbed, and the units that cross their kinks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.networks.local_errors import SIGNS, real_of
from fastcheck.networks.passes import Chunk, Passes, lanes
from fastcheck_kernels import columns


class Crossing(NamedTuple):
    """A unit on opposite sides of its kink at -h and +h, or a pooling window with different winners.

    Attributes
    ----------
    layer : str
        "loss" for a term of the hinge.
    kind : {"sign", "winner", "hinge"}
    unit : tuple of int
        Data point, channel and position in the map; for the hinge, data point and class.
    minus, at, plus : float or tuple
        What decides at -h, at the point and at +h: the number whose sign counts, or the winners' positions in the
        input's map.
    amount : float
        Bound on the crossing's effect on the loss's difference.
    """

    layer: str
    kind: str
    unit: tuple[int, ...]
    minus: Any
    at: Any
    plus: Any
    amount: float


@dataclass
class _Kinks:
    """Kinks of one row of a chunk, or of its loss: arrays over the units.

    Attributes
    ----------
    row : int
        -1 for the loss.
    kind : str
    crossed : bool array
    amount : float64 array
        Bounds on the effect of crossing.
    at_point : bool array
    decides : sequence of arrays
        What decides at -h, at the point and at +h.
    """

    row: int
    kind: str
    crossed: np.ndarray
    amount: np.ndarray
    at_point: np.ndarray
    decides: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def changed(self) -> np.ndarray:
        """Units whose sign or winners differ: those that cross, without ties that remain ties."""
        low, _, high = self.decides
        return self.crossed & (low != high).any(axis=1) if self.kind == "winner" else self.crossed


class Full:
    """Tables like those of `fastcheck.networks.partial.PartialEvaluation`, by two whole forward passes per dimension.

    Numeric values use nothing that was cached from the unperturbed network. Kinks are found by comparing all units.

    Parameters
    ----------
    passes : Passes
    name : str
        The tensor.
    noise : float
        Standard deviation of the rounding of the loss itself: `fastcheck.networks.error_bars.RoundOff.loss`.
    """

    kind = "full"
    group = dims_per_pass = 1

    def __init__(self, passes: Passes, name: str, noise: float) -> None:
        self._passes, self._tensor, self.noise = passes, passes.program.tensors[name], noise
        self._values = passes.point.params[name].reshape(-1)
        self._private = threading.local()

    def __call__(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return a row for each dimension, summed over the data points: float64 (dimensions, `columns.FOUND`)."""
        table = np.zeros((len(dims), columns.FOUND))
        for row, dim in zip(table, dims.tolist(), strict=True):
            plus, minus = self._both(dim, h)
            right, left = self._scale(dim, h) * np.array(self._sides(plus, minus))
            row[columns.NUMERIC], row[columns.RIGHT], row[columns.LEFT] = (
                (right + left).sum(),
                right.sum(),
                left.sum(),
            )
            for _, kinks in self._kinks(plus, minus):
                row[columns.KINKS] += np.count_nonzero(kinks.crossed)
                row[columns.WIDENING] += kinks.amount[kinks.crossed].sum()
                row[columns.JUMP] += kinks.amount[kinks.crossed & kinks.at_point].sum()
                row[columns.HERE] += np.count_nonzero(kinks.crossed & kinks.at_point)
        return table

    def numeric(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the two-sided differences alone, without a comparison of units."""
        differences = []
        for dim in dims.tolist():
            right, left = self.along(np.array([dim]), np.ones(1), h)
            differences.append(self._scale(dim, h) * (right + left).sum())
        return np.array(differences)

    def along(self, dims: np.ndarray, direction: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Return how much every data point's weighted loss rises from the point to +h, and from -h to the point."""
        plus, minus = (self._perturbed(dims, by * direction, whole=False) for by in (h, -h))
        return self._sides(plus, minus)

    def crossings(self, dim: int, h: float) -> list[Crossing]:
        """Return every unit that crosses a kink between -h and +h of a dimension, without ties that remain ties."""
        return [
            self._crossing(kinks, unit, first)
            for first, kinks in self._kinks(*self._both(dim, h))
            for unit in zip(*(axis.tolist() for axis in np.nonzero(kinks.changed)), strict=True)
        ]

    def _both(self, dim: int, h: float) -> tuple[list[Chunk], list[Chunk]]:
        plus, minus = (self._perturbed(np.array([dim]), np.array([by])) for by in (h, -h))
        return plus, minus

    def _sides(self, plus: list[Chunk], minus: list[Chunk]) -> tuple[np.ndarray, np.ndarray]:
        before, base, after = (
            np.concatenate([chunk.losses for chunk in chunks]) for chunks in (minus, self._passes.chunks, plus)
        )
        return self._passes.weight * (after - base), self._passes.weight * (base - before)

    def _scale(self, dim: int, h: float) -> float:
        """Return 2h divided by the distance that the entry really moves: the table's differences are divided by 2h."""
        value = float(self._values[dim])
        return 2 * h / ((value + h) - (value - h))

    def _perturbed(self, dims: np.ndarray, by: np.ndarray, *, whole: bool = True) -> list[Chunk]:
        """Evaluate with some entries perturbed, then restore them; keep all results, or the losses alone."""
        own = self._own()
        self._tensor.move(own.params, dims, by)
        try:
            own.pack()
            for chunk in own.chunks:
                own.forward(chunk)
            return [
                replace(chunk, cached=chunk.cached.copy() if whole else chunk.cached, losses=chunk.losses.copy())
                for chunk in own.chunks
            ]
        finally:
            own.params[:] = self._passes.params

    def _own(self) -> Passes:
        """Return this thread's own copy of everything that a forward pass writes to."""
        if not hasattr(self._private, "own"):
            self._private.own = Passes(self._passes.point, self._passes.program)
        return self._private.own

    def _kinks(self, plus: list[Chunk], minus: list[Chunk]) -> Iterator[tuple[int, _Kinks]]:
        """Yield the kinks of every row that has any, each with the first data point of its chunk."""
        passes, first = self._passes, 0
        for chunks in zip(minus, passes.chunks, plus, strict=True):
            for row, node in enumerate(passes.program.nodes):
                if node.kind in SIGNS:
                    yield first, self._signs(row, chunks)
                elif node.kind == "max_pool":
                    yield first, self._winners(row, chunks)
            if passes.point.network.loss == "multiclass_hinge":
                yield first, self._hinge(chunks, first)
            first += chunks[1].points

    def _signs(self, row: int, chunks: tuple[Chunk, ...]) -> _Kinks:
        node = self._passes.program.nodes[row]
        low, at, high = (lanes(self._passes, chunk, chunk.cached, node.columns["a"]) for chunk in chunks)
        slopes = np.abs(lanes(self._passes, chunks[1], chunks[1].cotangents, row))
        real = real_of(self._passes, row)
        amount = _excess(node.kind, real, at, low) + _excess(node.kind, real, at, high)
        at_point = _at_point(low, at, high) & (amount > 0)
        return _Kinks(row, "sign", (high > 0) != (low > 0), amount * slopes, at_point, (low, at, high))

    def _winners(self, row: int, chunks: tuple[Chunk, ...]) -> _Kinks:
        node = self._passes.program.nodes[row]
        assert node.lookup is not None
        seen = [_windows(lanes(self._passes, chunk, chunk.cached, node.columns["a"]), node.lookup) for chunk in chunks]
        tops = [values.max(axis=1) for values in seen]
        low, at, high = (values == top[:, None] for values, top in zip(seen, tops, strict=True))
        leader = at.argmax(axis=1)[:, None]
        amount = sum(
            top - np.take_along_axis(values, leader, 1)[:, 0] for top, values in list(zip(tops, seen, strict=True))[::2]
        )
        crossed = (low != high).any(axis=1) | ((low.sum(axis=1) > 1) & (tops[0] != tops[2]))
        slopes = np.abs(lanes(self._passes, chunks[1], chunks[1].cotangents, row))
        at_point = (at.sum(axis=1) > 1) & (amount > 0)
        return _Kinks(row, "winner", crossed, amount * slopes, at_point, (low, at, high))

    def _hinge(self, chunks: tuple[Chunk, ...], first: int) -> _Kinks:
        passes = self._passes
        labels = passes.point.targets[first : first + chunks[1].points].astype(np.int64)
        terms = []
        for chunk in chunks:
            output = passes.row(chunk, -1)
            term = output - np.take_along_axis(output, labels, 1) + passes.point.network.margin
            np.put_along_axis(term, labels, 0.0, 1)
            terms.append(term)
        low, at, high = terms
        amount = (_excess("relu", 0.0, at, low) + _excess("relu", 0.0, at, high)) * passes.weight
        return _Kinks(-1, "hinge", (high > 0) != (low > 0), amount, _at_point(low, at, high), (low, at, high))

    def _crossing(self, kinks: _Kinks, unit: tuple[int, ...], first: int) -> Crossing:
        """Describe one unit."""
        lowered = self._passes.program
        if kinks.kind == "hinge":
            n, k = unit
            low, at, high = (float(array[unit]) for array in kinks.decides)
            return Crossing("loss", "hinge", (first + n, k), low, at, high, float(kinks.amount[unit]))
        c, p, n = unit
        node = lowered.nodes[kinks.row]
        decides: list[Any] = [float(array[unit]) for array in kinks.decides if array.ndim == 3]
        if node.lookup is not None:
            won = [node.lookup[array[c, :, p, n], p].tolist() for array in kinks.decides]
            decides = [tuple(self._pixel(node.columns["a"], pixel) for pixel in pixels) for pixels in won]
        where = (first + n, c, *self._pixel(kinks.row, p))
        low, at, high = decides
        return Crossing(lowered.layer_name(kinks.row), kinks.kind, where, low, at, high, float(kinks.amount[unit]))

    def _pixel(self, row: int, pixel: int) -> tuple[int, ...]:
        """Return the multi-index of a pixel in a row's map."""
        return index_of(pixel, self._passes.program.nodes[row].shape[1:])


def _excess(kind: str, real: Any, at: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the distance at z between an activation and the continuation of its piece at the point."""
    if kind == "relu":
        size = np.abs(z)
    elif kind in ("leaky_relu", "prelu"):
        size = np.abs((1 - real) * z)
    else:
        with np.errstate(over="ignore"):
            size = np.abs(z - real * np.expm1(z))
    return np.where((at > 0) == (z > 0), 0.0, size)


def _at_point(low: np.ndarray, at: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.abs(at) <= columns.AT_POINT * np.abs(high - low)


def _windows(values: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Return the entries of every window, -inf for padding: (channels, taps, pixels, points)."""
    return np.where(lookup[None, :, :, None] >= 0, values[:, lookup], -np.inf)
