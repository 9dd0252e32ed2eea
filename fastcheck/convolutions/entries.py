"""Where the entries of a transposed convolution's operands are in the plain convolution with the same outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry


@dataclass(frozen=True)
class Entries:
    """Where the entries of an operand went.

    Attributes
    ----------
    sources : int64 array, shaped as the plain convolution's operand
        Flat indices of the entries that are there; -1 for zeros.
    shape : tuple of int
        Of the operand itself.
    """

    sources: np.ndarray
    shape: Shape

    @cached_property
    def places(self) -> np.ndarray:
        """Where in the plain operand, flat, each entry is."""
        flat = self.sources.reshape(-1)
        filled = np.flatnonzero(flat >= 0)
        places = np.empty(len(filled), dtype=np.int64)
        places[flat[filled]] = filled
        return places

    def moved(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the operand's shape with its entries in their places, and zeros elsewhere."""
        plain = np.zeros(self.sources.shape, dtype=array.dtype)
        plain.reshape(-1)[self.places] = array.reshape(-1)
        return plain

    def back(self, plain: np.ndarray) -> np.ndarray:
        """Return, of an array of the plain operand's shape, what belongs to each entry."""
        return plain.reshape(-1)[self.places].reshape(self.shape)


def entries_of(geometry: ConvGeometry) -> dict[str, Entries]:
    """Return where the entries of a geometry's operands are in its plain form; nothing of those that stay."""
    if not geometry.transposed:
        return {}
    return {"input": _spaced(geometry), "weight": _flipped(geometry)}


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
