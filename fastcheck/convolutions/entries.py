"""Where the entries of a convolution's operands are in its plain form, which is not transposed and pads with zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry

NUMPYS: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Padding modes by the names that they have in NumPy."""


@dataclass(frozen=True)
class Entries:
    """Where the entries of an operand went.

    Attributes
    ----------
    sources : int64 array, shaped as the plain convolution's operand
        Flat indices of the entries that are there; -1 for zeros. Under a padding mode, some entries are in several
        places.
    shape : tuple of int
        Of the operand itself.
    """

    sources: np.ndarray
    shape: Shape

    @cached_property
    def places(self) -> np.ndarray:
        """Where in the plain operand, flat, each entry is; one of the places of those that have several."""
        flat = self.sources.reshape(-1)
        filled = np.flatnonzero(flat >= 0)
        places = np.empty(len(self.copies), dtype=np.int64)
        places[flat[filled]] = filled
        return places

    @cached_property
    def copies(self) -> np.ndarray:
        """In how many places each entry is."""
        flat = self.sources.reshape(-1)
        return np.bincount(flat[flat >= 0])

    @cached_property
    def alone(self) -> np.ndarray | None:
        """Which spatial positions of the plain operand hold entries without other copies; None where all have none."""
        if (self.copies == 1).all():
            return None
        plane = self.sources[0, 0]
        return np.asarray(self.copies[plane] == 1)

    def moved(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the operand's shape with its entries in their places, and zeros elsewhere."""
        plain = array.reshape(-1)[self.sources]
        plain[self.sources < 0] = 0
        return plain

    def values(self, plain: np.ndarray) -> np.ndarray:
        """Return the array of the operand's shape from which `moved` made one."""
        return plain.reshape(-1)[self.places].reshape(self.shape)

    def summed(self, plain: np.ndarray) -> np.ndarray:
        """Return the sum of what an array of the plain operand's shape holds in the places of each entry."""
        if self.alone is None:
            return self.values(plain)
        return np.bincount(self.sources.reshape(-1), plain.reshape(-1)).reshape(self.shape)


def entries_of(geometry: ConvGeometry) -> dict[str, Entries]:
    """Return where the entries of a geometry's operands are in its plain form; nothing of those that stay."""
    if geometry.plain is geometry:
        return {}
    if geometry.transposed:
        return {"input": _spaced(geometry), "weight": _flipped(geometry)}
    return {"input": _padded(geometry)}


def _padded(geometry: ConvGeometry) -> Entries:
    """Pad the input with copies of its entries."""
    shape, sides = geometry.input_shape, ((0, 0), (0, 0), *geometry.padding)
    every = np.arange(math.prod(shape)).reshape(shape)
    return Entries(np.pad(every, sides, mode=NUMPYS[geometry.padding_mode]), shape)


def _spaced(geometry: ConvGeometry) -> Entries:
    """Insert zeros between the entries of the input."""
    shape, sources = geometry.input_shape, np.full(geometry.plain.input_shape, -1, dtype=np.int64)
    every: tuple[slice, ...] = tuple(slice(None, None, step) for step in (1, 1, *geometry.stride))
    kept = sources[every]
    kept[...] = np.arange(kept.size).reshape(shape)
    return Entries(sources, shape)


def _flipped(geometry: ConvGeometry) -> Entries:
    """Flip the kernel, and exchange its channels in each group."""
    channels, filters, *taps = geometry.weight_shape
    grouped = np.arange(channels * filters * geometry.taps).reshape(geometry.groups, -1, filters, *taps)
    turned = np.flip(grouped.swapaxes(1, 2), tuple(range(3, grouped.ndim)))
    return Entries(np.ascontiguousarray(turned).reshape(geometry.plain.weight_shape), geometry.weight_shape)
