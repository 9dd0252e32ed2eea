"""Inputs of which padding makes copies: the outputs that all copies of one move together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastcheck.convolutions.entries import Entries
from fastcheck.convolutions.geometry import ConvGeometry


class Moved(NamedTuple):
    """What the copies of an input meet in each plane of outputs.

    Attributes
    ----------
    outputs, taps : int64 arrays, shape (K,)
        For each time that a copy meets a tap: the flat index of the output in its plane, in ascending order, and that
        of the tap.
    starts : int64 array, shape (outputs,)
        Where among these each output begins.
    """

    outputs: np.ndarray
    taps: np.ndarray
    starts: np.ndarray

    @property
    def distinct(self) -> np.ndarray:
        """The outputs, each once."""
        return self.outputs[self.starts]

    def each(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights that are met, one for each time, of kernels of shape (..., taps)."""
        return weights[..., self.taps]

    def summed(self, weights: np.ndarray) -> np.ndarray:
        """Return what an input's move is multiplied by in each output, of kernels of shape (..., taps)."""
        if not self.starts.size:
            return weights[..., :0]
        return np.add.reduceat(self.each(weights), self.starts, axis=-1)


class Copies:
    """The inputs of a padded convolution that have several copies.

    Parameters
    ----------
    geometry : ConvGeometry
        The plain one, over the padded input.
    entries : Entries
        Where inputs are in it.
    """

    def __init__(self, geometry: ConvGeometry, entries: Entries) -> None:
        self.geometry, self.entries = geometry, entries
        self.most = int(entries.copies.max())
        self.plane = math.prod(entries.shape[2:])
        sources = entries.sources[0, 0].reshape(-1)
        self._order = np.argsort(sources, kind="stable")
        self._edges = np.searchsorted(sources[self._order], np.arange(self.plane + 1))
        self._sizes = geometry.input_shape[2:]

    def places(self, position: int) -> np.ndarray:
        """Return the places of an input's copies in a plane of the padded input, given its own place in its plane."""
        return self._order[self._edges[position] : self._edges[position + 1]]

    def groups(self, dims: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the positions of inputs in their planes, each with where it is among the given flat indices."""
        positions = dims % self.plane
        if not len(dims):
            return
        order = np.argsort(positions, kind="stable")
        found, starts = np.unique(positions[order], return_index=True)
        yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)

    def planes(self, dims: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample and the channel of flat indices."""
        samples, channels = np.divmod(dims // self.plane, self.geometry.input_shape[1])
        return samples, channels

    def moved(self, position: int) -> Moved:
        """Return what the copies of the input at a position of its plane meet."""
        met = [self._met(place) for place in self.places(position).tolist()]
        outputs, taps = (np.concatenate(parts) for parts in zip(*met, strict=True))
        order = np.argsort(outputs, kind="stable")
        starts = np.unique(outputs[order], return_index=True)[1]
        return Moved(outputs[order], taps[order], starts)

    def _met(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs and taps that one place of the padded input meets."""
        geometry = self.geometry
        outputs, taps = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        for axis, at in enumerate(np.unravel_index(place, self._sizes)):
            count, k = geometry.output_shape[2 + axis], geometry.weight_shape[2 + axis]
            tap = np.arange(k)
            reach = int(at) - tap * geometry.dilation[axis]
            here = (reach % geometry.stride[axis] == 0) & (reach >= 0) & (reach < count * geometry.stride[axis])
            outputs = (outputs[:, None] * count + reach[here] // geometry.stride[axis]).reshape(-1)
            taps = (taps[:, None] * k + tap[here]).reshape(-1)
        return outputs, taps
