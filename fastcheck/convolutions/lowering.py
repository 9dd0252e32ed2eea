"""A convolution's geometry lowered to planes and offsets.

Along one axis an output o meets through tap t the input s o + e(t), with e(t) = dilation t - padding. Written
s (o + q) + r with r = e mod s, it is entry o + q of the input's phase r. Seen from the input, entry m of phase r meets
through tap t the output m + q with q = (r - e(t)) / s, where that is whole. Either way a *lane* i reads *data* at
i + shift, and where samples, slices, rows and columns lie at common pitches in one flat plane, the shifts of all axes
are one offset.
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
"""Positions are rounded up to this many, so that vector loops leave nothing over."""


@dataclass(frozen=True)
class Planes:
    """How planes are laid out.

    Attributes
    ----------
    samples : int
    lanes : tuple of int
        Lanes along each of three axes.
    pitches : tuple of int
        Slices to a sample, rows to a slice, columns to a row, gaps included.
    lead : int
        Zeros before the first entry of the data.
    counts : tuple of int
        Entries of the data along each axis; later ones are never read.
    positions : int
        From the first lane of a plane to its last, gaps included, rounded up to whole vectors.
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

        A row's zeros serve as the padding after it and before the next one.

        Raises
        ------
        FastcheckError
            If padding is so wide that the planes of so many channels do not fit in memory.
        """
        pitches, counts, lows, highs = [], [], [], []
        for count, available, reached in zip(lanes, data, shifts, strict=True):
            low, high = max(0, -min(reached)), max(reached)
            used = max(0, min(available, count + high))
            pitches.append(max(count, count + high, used + low))
            counts.append(used)
            lows.append(low)
            highs.append(high)
        lead = max(0, _place(pitches, lows))
        positions = _place(pitches, ((samples - 1) * pitches[0] + lanes[0] - 1, lanes[1] - 1, lanes[2] - 1)) + 1
        positions = -(-positions // VECTOR) * VECTOR
        last = _place(pitches, ((samples - 1) * pitches[0] + counts[0], counts[1], counts[2]))
        size = lead + max(positions + max(0, _place(pitches, highs)), last)
        machine.refuse_beyond(
            8 * channels * size,
            lambda available: (
                f"padding makes planes of {8 * channels * size:,} bytes, and {available:,} are available: "
                "expected less padding, or the evaluator local"
            ),
        )
        return cls(samples, lanes, tuple(pitches), lead, tuple(counts), positions, size)

    def offset(self, shifts: Shape) -> int:
        """Return where in a plane of data lane 0 finds what it meets at these shifts."""
        return self.lead + _place(self.pitches, shifts)

    def layout(self, strides: Shape, counts: Shape, lead: int) -> np.ndarray:
        """Describe planes to `fastcheck_kernels.planes.pack`."""
        return np.array([*self.pitches, lead, *strides, *counts], dtype=np.int64)

    def live(self) -> np.ndarray:
        """Return the positions of the lanes of all samples, gaps left out, in the order of the flat tensor."""
        n, d, h, w = np.ogrid[tuple(slice(count) for count in (self.samples, *self.lanes))]
        place = ((n * self.pitches[0] + d) * self.pitches[1] + h) * self.pitches[2] + w
        return np.ascontiguousarray(place.reshape(-1), dtype=np.int64)


def _place(pitches: Sequence[int], shifts: Sequence[int]) -> int:
    """Return the position of (slice, row, column)."""
    return (shifts[0] * pitches[1] + shifts[1]) * pitches[2] + shifts[2]


@dataclass(frozen=True)
class WeightLowering:
    """Lanes are outputs, data are the input's phases.

    Attributes
    ----------
    planes : Planes
    phases : int64 array, shape (F, 3)
        The phases that some tap meets.
    taps : int64 array, shape (taps, 2)
        Of each tap its phase and its offset within a plane.
    strides : tuple of int
    """

    planes: Planes
    phases: np.ndarray
    taps: np.ndarray
    strides: Shape

    @classmethod
    def of(cls, geometry: ConvGeometry) -> WeightLowering:
        strides, axes = _axes(geometry)
        shifts = [[e // s for e in reach] for s, reach in zip(strides, axes, strict=True)]
        lanes = _lifted(geometry.output_shape[2:])
        data = tuple(-(-size // s) for size, s in zip(_lifted(geometry.input_shape[2:]), strides, strict=True))
        samples, channels = geometry.input_shape[:2]
        planes = Planes.of(samples, channels, lanes, data, shifts)
        places: dict[Shape, int] = {}
        taps = []
        for reach in itertools.product(*axes):
            phase = tuple(e % s for e, s in zip(reach, strides, strict=True))
            shift = tuple(e // s for e, s in zip(reach, strides, strict=True))
            taps.append((places.setdefault(phase, len(places)), planes.offset(shift)))
        return cls(planes, np.array(list(places), dtype=np.int64), np.array(taps, dtype=np.int64), strides)

    def offsets(self, channels: int) -> np.ndarray:
        """Return the offset of every (channel, tap) into planes of shape (channels, phases, size), flat."""
        plane = np.arange(channels)[:, None] * len(self.phases) + self.taps[None, :, 0]
        return np.ascontiguousarray((plane * self.planes.size + self.taps[None, :, 1]).reshape(-1))


@dataclass(frozen=True)
class InputPhase:
    """The inputs of one phase.

    Attributes
    ----------
    first : tuple of int
        Where the phase begins along each axis.
    lanes : tuple of int
        How many inputs it has along each axis.
    taps : int64 array, shape (K, 2)
        The taps that meet it, and their offsets into a plane of outputs.
    """

    first: Shape
    lanes: Shape
    taps: np.ndarray


@dataclass(frozen=True)
class InputLowering:
    """Lanes are inputs of one phase, data are the outputs."""

    planes: Planes
    phases: tuple[InputPhase, ...]
    strides: Shape

    @classmethod
    def of(cls, geometry: ConvGeometry) -> InputLowering:
        strides, axes = _axes(geometry)
        sizes = _lifted(geometry.input_shape[2:])
        found = []
        for first in itertools.product(*(range(min(s, size)) for s, size in zip(strides, sizes, strict=True))):
            lanes = tuple(-(-(size - r) // s) for size, r, s in zip(sizes, first, strides, strict=True))
            shifts = [
                {t: (r - e) // s for t, e in enumerate(reach) if (r - e) % s == 0}
                for r, reach, s in zip(first, axes, strides, strict=True)
            ]
            found.append((first, lanes, shifts))
        every = [
            sorted({shift for _, _, shifts in found for shift in shifts[axis].values()}) or [0] for axis in range(3)
        ]
        most = tuple(max(lanes[axis] for _, lanes, _ in found) for axis in range(3))
        samples, filters = geometry.output_shape[:2]
        planes = Planes.of(samples, filters, most, _lifted(geometry.output_shape[2:]), every)
        kernel = _lifted(geometry.weight_shape[2:])
        phases = []
        for first, lanes, shifts in found:
            taps = [
                (int(np.ravel_multi_index([t for t, _ in chosen], kernel)), planes.offset(tuple(q for _, q in chosen)))
                for chosen in itertools.product(*(axis.items() for axis in shifts))
            ]
            phases.append(InputPhase(first, lanes, np.array(taps, dtype=np.int64).reshape(-1, 2)))
        return cls(planes, tuple(phases), strides)


def _lifted(shape: Shape) -> Shape:
    return (1,) * (3 - len(shape)) + tuple(shape)


def _axes(geometry: ConvGeometry) -> tuple[Shape, list[list[int]]]:
    """Return strides, and for each of three axes what e(t) is for every tap."""
    vector = [int(entry) for entry in geometry.vector()]
    strides, padding, dilation = tuple(vector[:3]), vector[3:6], vector[6:9]
    taps = _lifted(geometry.weight_shape[2:])
    return strides, [[d * t - p for t in range(k)] for d, p, k in zip(dilation, padding, taps, strict=True)]
