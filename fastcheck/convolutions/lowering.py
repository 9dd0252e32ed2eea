"""A convolution's geometry lowered to planes and offsets.

Along one axis, output o meets input s o + e(t) through tap t, where e(t) = dilation t - padding. Written as
s (o + q) + r with r = e mod s, that is entry o + q of the input's phase r. Seen from the input, entry m of phase r
meets output m + q through tap t, with q = (r - e(t)) / s, wherever q is whole. Where zeros are inserted between inputs,
s = 1, and the input at g m meets output g m - e(t), which is entry m + q of the outputs' phase -e(t) mod g. In each
case, a *lane* i reads *data* at i + shift. Samples, slices, rows and columns lie at common pitches in one flat plane,
so the shifts along all axes add up to one offset.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry

VECTOR = 8
"""Positions are rounded up to a multiple of this, so that vector loops have no remainder."""


@dataclass(frozen=True)
class Planes:
    """The layout of planes.

    Attributes
    ----------
    samples : int
    lanes : tuple of int
        Numbers of lanes along the three axes.
    pitches : tuple of int
        Slices per sample, rows per slice and columns per row, gaps included.
    lead : int
        Zeros before the first entry of the data.
    counts : tuple of int
        Entries of the data along each axis; later ones are never read.
    positions : int
        Positions from the first lane of a plane to its last, gaps included, rounded up to whole vectors.
    size : int
        Length of a plane of data.
    """

    samples: int
    lanes: Shape
    pitches: Shape
    lead: int
    counts: Shape
    positions: int
    size: int

    @classmethod
    def of(cls, samples: int, channels: int, lanes: Shape, data: Shape, shifts: list[list[int]]) -> Planes:
        """Find the least pitches at which every shift reads data or zeros.

        Parameters
        ----------
        samples, channels : int
        lanes, data : tuple of int
            Numbers of lanes, and of entries of the data, along the three axes.
        shifts : list of list of int
            All shifts at which a lane reads, for each axis.

        Raises
        ------
        FastcheckError
            If padding is so wide that the planes of all channels do not fit in memory.
        """
        # Along a row, lanes read up to `low` entries before the data and `high` beyond the last lane: they must find
        # zeros there, never the next row's data. One gap of zeros serves as the padding after a row and before the
        # next, so a pitch has room for all that lanes read (count + high), and for the data with the next row's low
        # zeros (used + low). Rows in slices and slices in samples follow the same rule.
        pitches, counts, lows, highs = [], [], [], []
        for count, available, axis_shifts in zip(lanes, data, shifts, strict=True):
            low, high = max(0, -min(axis_shifts)), max(axis_shifts)
            used = max(0, min(available, count + high))
            pitches.append(max(count, count + high, used + low))
            counts.append(used)
            lows.append(low)
            highs.append(high)
        lead = max(0, _position(pitches, lows))
        positions = _position(pitches, ((samples - 1) * pitches[0] + lanes[0] - 1, lanes[1] - 1, lanes[2] - 1)) + 1
        positions = -(-positions // VECTOR) * VECTOR
        end_of_data = _position(pitches, ((samples - 1) * pitches[0] + counts[0], counts[1], counts[2]))
        size = lead + max(positions + max(0, _position(pitches, highs)), end_of_data)
        machine.refuse_beyond(
            8 * channels * size,
            lambda available: (
                f"padding makes planes of {8 * channels * size:,} bytes, and {available:,} are available: "
                "expected less padding, or the evaluator local"
            ),
        )
        return cls(samples, lanes, tuple(pitches), lead, tuple(counts), positions, size)

    def offset(self, shifts: Shape) -> int:
        """Return the position in a plane of data at which lane 0 reads at these shifts."""
        return self.lead + _position(self.pitches, shifts)

    def layout(self, strides: Shape, counts: Shape, lead: int) -> np.ndarray:
        """Return the description of planes that `fastcheck_kernels.planes.pack` takes."""
        return np.array([*self.pitches, lead, *strides, *counts], dtype=np.int64)

    def live(self) -> np.ndarray:
        """Return the positions of the lanes of all samples, without gaps, in the order of the flat tensor."""
        n, d, h, w = np.ogrid[tuple(slice(count) for count in (self.samples, *self.lanes))]
        positions = ((n * self.pitches[0] + d) * self.pitches[1] + h) * self.pitches[2] + w
        return np.ascontiguousarray(positions.reshape(-1), dtype=np.int64)


def _position(pitches: Sequence[int], shifts: Sequence[int]) -> int:
    """Return the position of (slice, row, column) in a plane."""
    return (shifts[0] * pitches[1] + shifts[1]) * pitches[2] + shifts[2]


@dataclass(frozen=True)
class WeightLowering:
    """The lowering for weights: lanes are outputs, and data are the input's phases.

    Attributes
    ----------
    planes : Planes
    phases : int64 array, shape (F, 3)
        The phases that some tap meets.
    taps : int64 array, shape (taps, 2)
        For each tap, the row of its phase in ``phases`` and its offset within a plane.
    strides : tuple of int
    """

    planes: Planes
    phases: np.ndarray
    taps: np.ndarray
    strides: Shape

    @classmethod
    def of(cls, geometry: ConvGeometry) -> WeightLowering:
        """Lower a geometry for differences by weights."""
        strides, axes = _axes(geometry)
        shifts = [[e // s for e in entries] for s, entries in zip(strides, axes, strict=True)]
        lanes = _lifted(geometry.output_shape[2:])
        data = tuple(-(-size // s) for size, s in zip(_lifted(geometry.input_shape[2:]), strides, strict=True))
        samples, channels = geometry.input_shape[:2]
        planes = Planes.of(samples, channels, lanes, data, shifts)
        return cls(planes, *_split(axes, strides, planes), strides)

    def offsets(self, channels: int) -> np.ndarray:
        """Return the flat offsets of every (channel, tap) into planes of shape (channels, phases, size)."""
        plane = np.arange(channels)[:, None] * len(self.phases) + self.taps[None, :, 0]
        return np.ascontiguousarray((plane * self.planes.size + self.taps[None, :, 1]).reshape(-1))


@dataclass(frozen=True)
class InputPhase:
    """The inputs of one phase.

    Attributes
    ----------
    first : tuple of int
        Index of the phase's first input along each axis.
    lanes : tuple of int
        Number of inputs along each axis.
    taps : int64 array, shape (K, 2)
        The taps that meet the phase, and their offsets into a plane of outputs.
    """

    first: Shape
    lanes: Shape
    taps: np.ndarray


@dataclass(frozen=True)
class InputLowering:
    """The lowering for inputs: lanes are the inputs of one phase, and data are the outputs.

    Attributes
    ----------
    planes : Planes
    phases : tuple of InputPhase
    strides : tuple of int
        Distances between the inputs of a phase.
    splits : int64 array, shape (F, 3)
        The phases of the outputs, each with a plane of its own: where zeros are inserted, those that some tap meets.
    steps : tuple of int
        Distances between the outputs of such a phase.
    """

    planes: Planes
    phases: tuple[InputPhase, ...]
    strides: Shape
    splits: np.ndarray
    steps: Shape

    @property
    def size(self) -> int:
        """Length of a filter's planes."""
        return len(self.splits) * self.planes.size

    @classmethod
    def of(cls, geometry: ConvGeometry) -> InputLowering:
        """Lower a geometry for differences by inputs."""
        if any(every != 1 for every in geometry.spacing):
            return cls._spaced(geometry)
        # A stride s along an axis splits the inputs into phases r = 0..s-1, the indices r, r + s, r + 2 s... All inputs
        # of a phase meet the same taps, those where s divides r - e(t), at the same shifts. So a phase is lanes
        # with one list of offsets, as all outputs are for a weight.
        strides, axes = _axes(geometry)
        sizes = _lifted(geometry.input_shape[2:])
        outlines = []
        for first in itertools.product(*(range(min(s, size)) for s, size in zip(strides, sizes, strict=True))):
            lanes = tuple(-(-(size - r) // s) for size, r, s in zip(sizes, first, strides, strict=True))
            shifts = [
                {t: (r - e) // s for t, e in enumerate(entries) if (r - e) % s == 0}
                for r, entries, s in zip(first, axes, strides, strict=True)
            ]
            outlines.append((first, lanes, shifts))
        # The outputs are packed once, so one layout must do for all phases: the union of their shifts, and the most
        # lanes along each axis. An axis along which no tap meets any input still needs a shift.
        every_shift = [
            sorted({shift for _, _, shifts in outlines for shift in shifts[axis].values()}) or [0] for axis in range(3)
        ]
        most_lanes = tuple(max(lanes[axis] for _, lanes, _ in outlines) for axis in range(3))
        samples, filters = geometry.output_shape[:2]
        planes = Planes.of(samples, filters, most_lanes, _lifted(geometry.output_shape[2:]), every_shift)
        kernel = _lifted(geometry.weight_shape[2:])
        phases = []
        for first, lanes, shifts in outlines:
            # A tap meets the phase where it does so along every axis; where none does, the list is empty.
            taps = [
                (int(np.ravel_multi_index([t for t, _ in chosen], kernel)), planes.offset(tuple(q for _, q in chosen)))
                for chosen in itertools.product(*(axis.items() for axis in shifts))
            ]
            phases.append(InputPhase(first, lanes, np.array(taps, dtype=np.int64).reshape(-1, 2)))
        return cls(planes, tuple(phases), strides, np.zeros((1, 3), dtype=np.int64), (1, 1, 1))

    @classmethod
    def _spaced(cls, geometry: ConvGeometry) -> InputLowering:
        """Lower a geometry with a stride of one, in which only every so many inputs are not inserted zeros."""
        every = _lifted(geometry.spacing)
        reached = [[-e for e in entries] for entries in _axes(geometry)[1]]
        shifts = [[e // s for e in entries] for s, entries in zip(every, reached, strict=True)]
        lanes = tuple(-(-size // s) for size, s in zip(_lifted(geometry.input_shape[2:]), every, strict=True))
        data = tuple(-(-size // s) for size, s in zip(_lifted(geometry.output_shape[2:]), every, strict=True))
        samples, filters = geometry.output_shape[:2]
        planes = Planes.of(samples, filters, lanes, data, shifts)
        splits, taps = _split(reached, every, planes)
        offsets = taps[:, 0] * planes.size + taps[:, 1]
        phase = InputPhase((0, 0, 0), lanes, np.stack([np.arange(len(taps)), offsets], axis=1))
        return cls(planes, (phase,), every, splits, every)


def _split(axes: list[list[int]], strides: Shape, planes: Planes) -> tuple[np.ndarray, np.ndarray]:
    """Return the phases that taps meet, and for each tap the row of its phase and its offset within a plane."""
    rows: dict[Shape, int] = {}  # the row of each phase, in the order in which taps meet them
    taps = []
    for tap in itertools.product(*axes):
        phase = tuple(e % s for e, s in zip(tap, strides, strict=True))
        shift = tuple(e // s for e, s in zip(tap, strides, strict=True))
        taps.append((rows.setdefault(phase, len(rows)), planes.offset(shift)))
    return np.array(list(rows), dtype=np.int64), np.array(taps, dtype=np.int64)


def _lifted(shape: Shape) -> Shape:
    """Return a shape of three axes, the missing ones of size one in front."""
    return (1,) * (3 - len(shape)) + tuple(shape)


def _axes(geometry: ConvGeometry) -> tuple[Shape, list[list[int]]]:
    """Return the strides, and e(t) of every tap along each of three axes."""
    vector = [int(entry) for entry in geometry.vector()]
    strides, padding, dilation = tuple(vector[:3]), vector[3:6], vector[6:9]
    taps = _lifted(geometry.weight_shape[2:])
    return strides, [[d * t - p for t in range(k)] for d, p, k in zip(dilation, padding, taps, strict=True)]
