"""The evaluator ``delta`` for weights and biases, whose moves lie along the outputs' positions."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from typing import Literal, NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.error_bars import bars_of
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.lowering import Planes, WeightLowering
from fastcheck.convolutions.packing import packed
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import BLOCK_DIMS, BLOCK_WORK, Step
from fastcheck.engine.differences import Chosen, Differences
from fastcheck.engine.sharing import share, thread_ranges
from fastcheck_kernels import bounds, curved, delta, planes

LANES = 256
"""Filters that lie side by side where a map is narrow: with 64 the loops are too short (docs/design-notes.md)."""

SPREAD_OVERHEAD, REDUCE_OVERHEAD = 130, 50
"""Lanes and positions that the beginning of a loop costs in each form, measured on maps from 7 to 56 wide."""


class WeightTile(NamedTuple):
    """A rectangle of the weight: filters lo <= f < hi, and columns (channel and tap) left <= j < right."""

    lo: int
    hi: int
    left: int
    right: int


class WeightDelta:
    """Difference the weight, or the bias, of a convolution by moving the outputs that it has.

    A weight moves its filter's outputs by h times the input that its tap meets, a bias by h. There are two forms:
    `delta.reduce` sums along positions; where maps are narrow and filters many, `delta.spread` has filters side by
    side.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
        Of that case.
    tensor : {"weight", "bias"}
    output : float64 array
        The forward result of the scaled operands.
    step : float or "auto"
    pool : Executor
    """

    def __init__(
        self,
        case: ConvCase,
        scaled: ScaledOperands,
        tensor: str,
        output: np.ndarray,
        step: float | Literal["auto"],
        pool: Executor,
    ) -> None:
        self._geometry = geometry = case.geometry
        self._tensor = tensor
        self._step = Step.of(scaled, tensor, output, step)
        self.step = self._step.nominal
        self._bars = bars_of(case, scaled, tensor, chain=1)
        lowering = WeightLowering.of(geometry)
        layout = lowering.planes
        self._filters, self._group = geometry.weight_shape[0], geometry.weight_shape[0] // geometry.groups
        moves = _Moves.of(geometry, scaled, tensor, lowering, self._step.scaled, pool)
        self._taps, self._channels = moves.taps, moves.channels
        self._moves, self._group_step, self._offsets = moves.values, moves.group_step, moves.offsets
        self._norms = _Norms.of(case, scaled, tensor, output, pool)
        live = layout.live()
        self._narrow = tensor == "weight" and _narrow(self._group, layout, len(live))
        z, v = geometry.lift(output), geometry.lift(scaled.grad_output)
        if self._narrow:
            self._terms = live.astype(np.uint64)
            self._z, self._v = (np.ascontiguousarray(a.transpose(0, 2, 3, 4, 1)).reshape(-1) for a in (z, v))
        else:
            self._z, self._v = (_packed_output(a, layout, pool) for a in (z, v))
        self._layout = np.array([layout.positions, self._group, self._group_step], dtype=np.int64)
        self._elements = len(live)
        self(WeightTile(0, 0, 0, 0))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def blocks(self, dims: Chosen) -> list[WeightTile] | list[np.ndarray]:
        """Cut all dimensions into rectangles, or a sample into runs."""
        size = int(np.clip(BLOCK_WORK // self._elements, self._taps, BLOCK_DIMS))
        if not isinstance(dims, range) and len(dims) < math.prod(self._shape):
            return [dims[start : start + size] for start in range(0, len(dims), size)]
        width = self._channels * self._taps
        if self._narrow:
            rows = min(self._group, LANES)
            columns = min(width, max(1, size // rows // self._taps) * self._taps)
        else:
            # Of a row's planes two are read (z and v), of a channel's one: the least traffic is with half as many rows
            # as channels.
            rows = min(self._filters, max(1, round(math.sqrt(size / self._taps / 2))))
            columns = min(width, max(1, size // rows // self._taps) * self._taps)
            rows = min(self._filters, max(1, size // columns))
        # Rectangles stay inside a group where filters lie side by side.
        unit = self._group if self._narrow else self._filters
        return [
            WeightTile(lo, min(lo + rows, first + unit), left, min(left + columns, width))
            for first in range(0, self._filters, unit)
            for lo in range(first, first + unit, rows)
            for left in range(0, width, columns)
        ]

    def __call__(self, block: WeightTile | np.ndarray) -> Differences:
        """Difference the dimensions of a block."""
        width = self._channels * self._taps
        if isinstance(block, WeightTile):
            dims = _rectangle(block, width)
            numeric = self._tile(block).reshape(-1)
            pairs = block._replace(left=block.left // self._taps, right=block.right // self._taps)
            sums = self._sums(_rectangle(pairs, self._channels))
            repeat = self._taps
        else:
            dims = np.asarray(block, dtype=np.int64)
            numeric, sums = self._one_by_one(dims)
            repeat = 1
        bar, too_wide = self._bars(numeric, sums, repeat)
        return Differences(dims, self._bars.rescaled(numeric, dims, self._tensor, self._shape), bar, too_wide=too_wide)

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        return self._bars.linear_components(*self._one_by_one(dims))

    def _one_by_one(self, dims: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the quotients of single dimensions, and their bars' sums."""
        rows, columns = np.divmod(dims, self._channels * self._taps)
        tiles = (WeightTile(f, f + 1, j, j + 1) for f, j in zip(rows.tolist(), columns.tolist(), strict=True))
        numeric = np.array([self._tile(tile)[0, 0] for tile in tiles])
        return numeric, self._sums(dims // self._taps)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._geometry.shape_of(self._tensor)

    def _tile(self, tile: WeightTile) -> np.ndarray:
        if not self._narrow:
            out = np.empty((tile.hi - tile.lo, tile.right - tile.left))
            delta.reduce(
                self._z,
                self._v,
                self._moves,
                self._offsets,
                self._layout,
                np.array(tile, dtype=np.int64),
                self._step.quotient,
                out,
            )
            return out
        out = np.empty((tile.right - tile.left, tile.hi - tile.lo))
        starts = np.arange(self._elements, dtype=np.uint64) * np.uint64(self._filters) + np.uint64(tile.lo)
        first = np.uint64(tile.lo // self._group * self._group_step)
        rows = self._offsets[tile.left : tile.right] + first
        places = np.zeros(len(rows), dtype=np.uint64)
        delta.spread(self._z, self._v, starts, self._moves, rows, places, self._terms, self._step.quotient, out)
        found = np.empty(out.shape[::-1])
        planes.transpose(out, found)
        return found

    def _sums(self, pairs: np.ndarray) -> np.ndarray:
        """Bound the bars' sums for pairs of filters and channels, given by flat indices: shape (6, pairs)."""
        v, x, magnitude = self._norms
        layout = np.array([self._channels, self._group, 0 if self._tensor == "bias" else self._channels])
        sums = np.empty((6, len(pairs)))
        rounding, tiny = 2 * U * self._step.quotient, self._bars.precision.tiny
        bounds.of_weights(v, x, magnitude, pairs, layout, rounding, tiny, sums)
        return sums


def _rectangle(tile: WeightTile, width: int) -> np.ndarray:
    """Return the flat indices of a tile of a table of this width."""
    dims = np.empty((tile.hi - tile.lo) * (tile.right - tile.left), dtype=np.int64)
    bounds.rectangle(*tile, width, dims)
    return dims


class _Moves(NamedTuple):
    """The moves of the outputs: h times the input's planes, or for a bias one plane of h that all filters share."""

    values: np.ndarray
    offsets: np.ndarray
    group_step: int
    channels: int
    taps: int

    @classmethod
    def of(
        cls,
        geometry: ConvGeometry,
        scaled: ScaledOperands,
        tensor: str,
        lowering: WeightLowering,
        h: float,
        pool: Executor,
    ) -> _Moves:
        layout = lowering.planes
        if tensor == "bias":
            return cls(np.full(layout.positions, h), np.zeros(1, dtype=np.uint64), 0, 1, 1)
        channels = geometry.weight_shape[1]
        values = _packed_input(geometry.lift(scaled.input), lowering, h, pool)
        group_step = channels * len(lowering.phases) * layout.size
        offsets = lowering.offsets(channels).astype(np.uint64)
        return cls(values, offsets, group_step, channels, math.prod(geometry.weight_shape[2:]))


class WeightPlanes(NamedTuple):
    """Outputs, cotangent and magnitudes as planes, and how weights or biases move the outputs for a step of one."""

    arrays: list[np.ndarray]
    moves: _Moves
    layout: np.ndarray

    @classmethod
    def of(
        cls,
        geometry: ConvGeometry,
        scaled: ScaledOperands,
        tensor: str,
        arrays: tuple[np.ndarray, ...],
        pool: Executor,
    ) -> WeightPlanes:
        """Pack (output, grad_output, magnitude)."""
        lowering = WeightLowering.of(geometry)
        moves = _Moves.of(geometry, scaled, tensor, lowering, 1.0, pool)
        planes_of = [_packed_output(geometry.lift(array), lowering.planes, pool) for array in arrays]
        group = geometry.weight_shape[0] // geometry.groups
        return cls(planes_of, moves, np.array([lowering.planes.positions, group, moves.group_step], dtype=np.int64))

    def fill(self, dims: np.ndarray, h: float, model: np.ndarray, table: np.ndarray) -> None:
        """Difference dimensions into a table of `fastcheck_kernels.curved`'s columns."""
        moves = self.moves
        curved.along_positions(*self.arrays, moves.values, moves.offsets, self.layout, dims, h, model, table)


class _Norms(NamedTuple):
    """Norms of every sample of the cotangent's filters and of the input's channels, which bound sums of products.

    By Cauchy and Schwarz the sum of |v x| is at most ||v|| ||x||, and that of (v x)^2 at most the root of the sum of
    v^4 times the sum of x^4; sample by sample, where their scales may differ. The arrays are those that
    `bounds.of_weights` takes.
    """

    v: np.ndarray
    x: np.ndarray
    magnitude: np.ndarray

    @classmethod
    def of(cls, case: ConvCase, scaled: ScaledOperands, tensor: str, output: np.ndarray, pool: Executor) -> _Norms:
        samples = case.geometry.input_shape[0]
        v = _powers(scaled.grad_output, pool)
        if tensor == "weight":
            x = _powers(scaled.input, pool)
        else:
            x = np.empty((samples, 1, 4))
            x[:] = math.prod(case.geometry.output_shape[2:])
        products = _products(output, scaled.grad_output, pool)
        return cls(_norms(v), _norms(x), products.sum(axis=0))


def _norms(powers: np.ndarray) -> np.ndarray:
    """Return the norms of `planes.power_sums`: (3, samples, channels)."""
    roots = np.sqrt(powers[..., planes.SQUARES]), np.sqrt(powers[..., planes.FOURTHS])
    return np.stack([*roots, powers[..., planes.NONZERO]])


def _narrow(filters: int, layout: Planes, live: int) -> bool:
    """Tell whether filters side by side make longer loops than positions do."""
    lanes = min(filters, LANES)
    share = live / layout.positions
    return lanes / (lanes + SPREAD_OVERHEAD) > share * layout.positions / (layout.positions + REDUCE_OVERHEAD)


def _packed_input(source: np.ndarray, lowering: WeightLowering, scale: float, pool: Executor) -> np.ndarray:
    layout, phases, strides = lowering.planes, lowering.phases, lowering.strides
    return packed(
        source,
        layout,
        layout.counts,
        pool,
        lead=layout.lead,
        size=layout.size,
        phases=phases,
        strides=strides,
        scale=scale,
    )


def _packed_output(source: np.ndarray, layout: Planes, pool: Executor) -> np.ndarray:
    return packed(source, layout, layout.lanes, pool, size=layout.positions)


def _powers(array: np.ndarray, pool: Executor) -> np.ndarray:
    """Return `planes.power_sums` of every sample and channel: shape (N, C, 4)."""
    rows = array.reshape(array.shape[0] * array.shape[1], -1)
    out = np.empty((len(rows), 4))
    share(pool, lambda r: planes.power_sums(rows, r[0], r[1], out), thread_ranges(len(rows), array.size))
    return out.reshape(*array.shape[:2], 4)


def _products(z: np.ndarray, v: np.ndarray, pool: Executor) -> np.ndarray:
    """Return the sum of |v z| of every sample and filter."""
    rows_z, rows_v = (a.reshape(a.shape[0] * a.shape[1], -1) for a in (z, v))
    out = np.empty((len(rows_z), 2))
    share(pool, lambda r: planes.product_sums(rows_z, rows_v, r[0], r[1], out), thread_ranges(len(rows_z), z.size))
    return out[:, 0].reshape(z.shape[:2])
