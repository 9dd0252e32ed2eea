"""The evaluator ``delta`` for inputs, whose moves are constant along the outputs' positions."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.error_bars import bars_of
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.lowering import InputLowering, InputPhase
from fastcheck.convolutions.packing import packed
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import BLOCK_DIMS, BLOCK_WORK, Step
from fastcheck.engine.differences import Chosen, Differences
from fastcheck.engine.sharing import share, thread_ranges
from fastcheck_kernels import bounds, curved, delta, planes

POSITIONS = 512
"""Positions that lie side by side in a block: four rows of sums, and the outputs that they read, fit a small cache."""

LEAST_BOUNDED_FILTERS = 4
"""Least number of filters in a group for which the bars' sums are bounded. With fewer they are summed exactly: bounds
would be as much work, and wider."""


class InputTile(NamedTuple):
    """A rectangle of one phase of the input: channels lo <= c < hi, positions left <= p < right."""

    phase: int
    lo: int
    hi: int
    left: int
    right: int


@dataclass(frozen=True)
class _Phase:
    """The inputs of one phase, lowered.

    Attributes
    ----------
    live, dims : int64 arrays
        Positions that are inputs, not gaps, and their flat indices in channel 0 of their sample.
    starts, terms : uint64 arrays, shape (K,)
        Of each filter of the first group and tap: where position 0 meets it, and its place among the moves.
    """

    live: np.ndarray
    dims: np.ndarray
    starts: np.ndarray
    terms: np.ndarray


class InputDelta:
    """Difference the input of a convolution by moving the outputs that it has.

    An input moves each output that sees it by h times a weight: through each filter and tap by the same amount at all
    positions. `delta.spread` has positions side by side.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
        Of that case.
    output : float64 array
        The forward result of the scaled operands.
    step : float or "auto"
    pool : Executor
    alone : bool array, shaped as a channel of the input; optional
        Which positions to difference: none of the others is asked for.
    """

    def __init__(
        self,
        case: ConvCase,
        scaled: ScaledOperands,
        output: np.ndarray,
        step: float | Literal["auto"],
        pool: Executor,
        alone: np.ndarray | None = None,
    ) -> None:
        self._geometry = geometry = case.geometry
        self._step = Step.of(scaled, "input", output, step)
        self.step = self._step.nominal
        self._bars = bars_of(case, scaled, "input", chain=1)
        lowering = InputLowering.of(geometry)
        self._group = geometry.weight_shape[0] // geometry.groups
        self._channels = geometry.weight_shape[1]
        self._size = lowering.size
        self._z, self._v = (_packed(geometry.lift(array), lowering, pool) for array in (output, scaled.grad_output))
        self._factors = scaled.weight.reshape(-1)
        self._moves = self._factors * self._step.scaled
        self._phases = [_lowered(geometry, lowering, phase, alone) for phase in lowering.phases]
        self._positions = lowering.planes.positions
        self._bounds = None
        if self._group >= LEAST_BOUNDED_FILTERS:
            self._bounds = _Bounds.of(self._z, self._v, geometry, self._phases, self._factors, self._positions, pool)
        self(InputTile(0, 0, 0, 0, 0))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def blocks(self, dims: Chosen) -> list[InputTile] | list[np.ndarray]:
        """Cut all dimensions into rectangles, inserted zeros left out, or a sample into runs."""
        terms = max(1, max(len(phase.terms) for phase in self._phases))
        size = int(np.clip(BLOCK_WORK // terms, 1, BLOCK_DIMS))
        inputs = self._geometry.input_shape[1] * sum(len(phase.live) for phase in self._phases)
        if not isinstance(dims, range) and len(dims) < inputs:
            return [dims[start : start + size] for start in range(0, len(dims), size)]
        span = min(POSITIONS, self._positions)
        rows = max(4, size // span)
        # Bounds belong to a group.
        unit = self._channels if self._bounds is not None else self._geometry.input_shape[1]
        tiles = []
        for number, phase in enumerate(self._phases):
            # Positions are cut where inputs are, so that no block is without any.
            edges = [*np.searchsorted(phase.live, np.arange(0, self._positions, span)).tolist(), len(phase.live)]
            spans = [(int(phase.live[a]), int(phase.live[b - 1]) + 1) for a, b in itertools.pairwise(edges) if a < b]
            tiles += [
                InputTile(number, lo, min(lo + rows, first + unit), left, right)
                for first in range(0, self._geometry.input_shape[1], unit)
                for lo in range(first, first + unit, rows)
                for left, right in spans
            ]
        return tiles

    def __call__(self, block: InputTile | np.ndarray) -> Differences:
        """Difference the dimensions of a block."""
        if isinstance(block, InputTile):
            dims, numeric, sums = self._tile(block)
        else:
            dims = np.asarray(block, dtype=np.int64)
            numeric, sums = self._one_by_one(dims)
        bar, too_wide = self._bars(numeric, np.ascontiguousarray(sums))
        numeric = self._bars.rescaled(numeric, dims, "input", self._geometry.input_shape)
        return Differences(dims, numeric, bar, too_wide=too_wide)

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        return self._bars.linear_components(*self._one_by_one(dims))

    def _one_by_one(self, dims: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the quotients of single dimensions, and their bars' sums."""
        parts = [self._tile(tile) for tile in self._tiles(dims)]
        return np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts], axis=1)

    def _tiles(self, dims: np.ndarray) -> list[InputTile]:
        """Return a tile for each of some flat indices."""
        phase_numbers, channels, positions = _located(self._geometry, self._phases, dims)
        located = zip(phase_numbers.tolist(), channels.tolist(), positions.tolist(), strict=True)
        return [
            InputTile(number, channel, channel + 1, position, position + 1) for number, channel, position in located
        ]

    def _tile(self, tile: InputTile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the flat indices, quotients and sums of a tile."""
        phase = self._phases[tile.phase]
        channels = np.arange(tile.lo, tile.hi)
        rows, offsets = _rows(self._geometry, self._size, channels, np.array(tile.left))
        shape = (tile.hi - tile.lo, tile.right - tile.left)
        out = np.empty(shape)
        delta.spread(self._z, self._v, phase.starts, self._moves, rows, offsets, phase.terms, self._step.quotient, out)
        a, b = (bisect_left(phase.live, edge) for edge in (tile.left, tile.right))
        live = phase.live[a:b]
        columns = live - tile.left
        dims, numeric = np.empty(shape[0] * len(live), dtype=np.int64), np.empty(shape[0] * len(live))
        plane = math.prod(self._geometry.input_shape[2:])
        bounds.gather(out, columns, phase.dims[a:b], tile.lo, plane, dims, numeric)
        if self._bounds is not None:
            return dims, numeric, self._bounds.sums(tile, live, self._step.quotient)
        sums = np.empty((6, *shape))
        tiny, quotient = self._bars.precision.tiny, self._step.quotient
        delta.weigh(self._z, self._v, phase.starts, self._factors, rows, offsets, phase.terms, tiny, quotient, sums)
        return dims, numeric, sums[..., columns].reshape(6, -1)


def _located(
    geometry: ConvGeometry, phases: list[_Phase], dims: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the phase, the channel and the position of flat indices of the input."""
    plane = math.prod(geometry.input_shape[2:])
    channels = dims % (plane * geometry.input_shape[1]) // plane
    rest = dims - channels * plane
    phase_numbers, positions = np.empty_like(dims), np.empty_like(dims)
    for number, phase in enumerate(phases):
        if not len(phase.dims):
            continue
        order = np.minimum(np.searchsorted(phase.dims, rest), len(phase.dims) - 1)
        here = phase.dims[order] == rest
        phase_numbers[here], positions[here] = number, phase.live[order[here]]
    return phase_numbers, channels, positions


def _rows(
    geometry: ConvGeometry, size: int, channels: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where among the moves, and among the planes, the dimensions of channels at positions begin."""
    group, inside = geometry.weight_shape[0] // geometry.groups, geometry.weight_shape[1]
    filters = channels // inside * group
    rows = (filters * inside + channels % inside) * math.prod(geometry.weight_shape[2:])
    return rows.astype(np.uint64), (filters * size + positions).astype(np.uint64)


class InputPlanes(NamedTuple):
    """Outputs, cotangent and magnitudes as planes, and how inputs move the outputs for a step of one."""

    arrays: list[np.ndarray]
    factors: np.ndarray
    phases: list[_Phase]
    geometry: ConvGeometry
    size: int

    @classmethod
    def of(
        cls,
        geometry: ConvGeometry,
        scaled: ScaledOperands,
        arrays: tuple[np.ndarray, ...],
        pool: Executor,
    ) -> InputPlanes:
        """Pack (output, grad_output, magnitude)."""
        lowering = InputLowering.of(geometry)
        planes_of = [_packed(geometry.lift(array), lowering, pool) for array in arrays]
        phases = [_lowered(geometry, lowering, phase) for phase in lowering.phases]
        return cls(planes_of, scaled.weight.reshape(-1), phases, geometry, lowering.size)

    def fill(self, dims: np.ndarray, h: float, model: np.ndarray, table: np.ndarray) -> None:
        """Difference dimensions into a table of `fastcheck_kernels.curved`'s columns."""
        phase_numbers, channels, positions = _located(self.geometry, self.phases, dims)
        begins = np.stack(_rows(self.geometry, self.size, channels, positions))
        for number, phase in enumerate(self.phases):
            here = np.flatnonzero(phase_numbers == number)
            part = np.empty((len(here), curved.COLUMNS))
            curved.along_terms(
                *self.arrays,
                phase.starts,
                self.factors,
                np.ascontiguousarray(begins[:, here]),
                phase.terms,
                h,
                model,
                part,
            )
            table[here] = part


@dataclass(frozen=True)
class _Bounds:
    """Norms whose products bound the bars' sums.

    By Cauchy and Schwarz the sum of |v w| over filters and taps is at most the norm of the v that an input meets times
    the norm of the w that it is multiplied with; likewise for squares with fourth powers.

    Attributes
    ----------
    met : list of float64 arrays, shape (groups, 4, positions)
        For each phase, at each position: norms of v, and the sum of |v z|, as `bounds.of_inputs` takes them.
    weights : list of float64 arrays, shape (3, channels)
        For each phase, of each channel: norms of w.
    channels : int
        In a group.
    """

    met: list[np.ndarray]
    weights: list[np.ndarray]
    channels: int

    @classmethod
    def of(
        cls,
        z: np.ndarray,
        v: np.ndarray,
        geometry: ConvGeometry,
        phases: list[_Phase],
        weight: np.ndarray,
        positions: int,
        pool: Executor,
    ) -> _Bounds:
        groups, size = geometry.groups, len(z) // geometry.weight_shape[0]
        filters, channels = geometry.weight_shape[0] // groups, geometry.weight_shape[1]
        taps = math.prod(geometry.weight_shape[2:])
        sums = np.empty((groups, 4, size))
        blocks = [a.reshape(groups, filters, size) for a in (z, v)]
        share(pool, lambda r: planes.channel_sums(*blocks, r[0], r[1], sums), thread_ranges(groups, len(z)))
        matrix = weight.reshape(groups, filters, channels, taps)
        met, weights = [], []
        for phase in phases:
            here = np.zeros((groups, 4, positions))
            chosen = phase.terms[phase.terms < taps].astype(np.int64)  # those of filter 0
            for start in phase.starts[: len(chosen)].astype(np.int64).tolist():
                here += sums[:, :, start : start + positions]
            np.sqrt(here[:, :2], out=here[:, :2])
            met.append(here)
            w = matrix[..., chosen]
            squares = w * w
            weights.append(
                np.stack(
                    [
                        np.sqrt(squares.sum(axis=(1, 3))),
                        np.sqrt((squares * squares).sum(axis=(1, 3))),
                        (w != 0).sum(axis=(1, 3)),
                    ]
                ).reshape(3, -1)
            )
        return cls(met, weights, channels)

    def sums(self, tile: InputTile, live: np.ndarray, quotient: float) -> np.ndarray:
        """Return `bars`' sums for a tile, gaps left out."""
        met, weights = self.met[tile.phase][tile.lo // self.channels], self.weights[tile.phase]
        sums = np.empty((6, tile.hi - tile.lo, len(live)))
        bounds.of_inputs(met, weights, live, tile.lo, 2 * U * quotient, sums)
        return sums.reshape(6, -1)


def _packed(source: np.ndarray, lowering: InputLowering, pool: Executor) -> np.ndarray:
    layout, splits, steps = lowering.planes, lowering.splits, lowering.steps
    return packed(source, layout, layout.counts, pool, lead=layout.lead, size=layout.size, phases=splits, strides=steps)


def _lowered(
    geometry: ConvGeometry, lowering: InputLowering, phase: InputPhase, alone: np.ndarray | None = None
) -> _Phase:
    layout = lowering.planes
    n, d, h, w = np.ogrid[tuple(slice(count) for count in (layout.samples, *phase.lanes))]
    live = ((n * layout.pitches[0] + d) * layout.pitches[1] + h) * layout.pitches[2] + w
    _, channels, depth, height, width = geometry.lift(np.empty(geometry.input_shape, dtype=bool)).shape
    z, y, x = (s * i + r for s, i, r in zip(lowering.strides, (d, h, w), phase.first, strict=True))
    dims = ((n * channels * depth + z) * height + y) * width + x
    if alone is not None:
        kept = np.broadcast_to(alone.reshape(depth, height, width)[z, y, x], dims.shape)
        live, dims = live[kept], dims[kept]
    filters = np.arange(geometry.weight_shape[0] // geometry.groups)[:, None]
    taps, shifts = phase.taps[None, :, 0], phase.taps[None, :, 1]
    kernel = math.prod(geometry.weight_shape[2:])
    terms = filters * geometry.weight_shape[1] * kernel + taps
    starts = filters * lowering.size + shifts
    return _Phase(
        live.reshape(-1), dims.reshape(-1), starts.reshape(-1).astype(np.uint64), terms.reshape(-1).astype(np.uint64)
    )
