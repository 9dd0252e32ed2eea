"""A layer as a backward pass meets it, and what a mistake hands back in place of the right cotangents and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.networks.layers import Layer
from fastcheck.networks.passes import Passes, lanes, row_of
from fastcheck.networks.program import Node


class Carried(NamedTuple):
    """What a mistake makes of a layer's backward pass.

    Attributes
    ----------
    inputs : tuple of arrays or None
        What is handed back to each input; None, or a missing entry, where that is right.
    grads : mapping of str to array
        Gradients of this layer's "weight" and "bias", where they are wrong.
    """

    inputs: tuple[np.ndarray | None, ...] = ()
    grads: Mapping[str, np.ndarray] = {}


@dataclass
class Row:
    """One row of a network's table, with all data points. Activations are (channels, pixels, points).

    Attributes
    ----------
    passes : Passes
        The right forward pass.
    number : int
    cotangents : sequence of float64 arrays
        One for each chunk, laid out as its cache; complete at this row.
    right : tuple of arrays
        What is rightly handed back to each input.
    grads : dict of str to array
        The right gradients of this use of the "weight" and "bias", flat.
    """

    passes: Passes
    number: int
    cotangents: Sequence[np.ndarray]
    right: tuple[np.ndarray, ...] = ()
    grads: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def node(self) -> Node:
        """The row's columns."""
        return self.passes.program.nodes[self.number]

    @property
    def layer(self) -> Layer:
        """The layer that it belongs to."""
        return self.passes.point.network.layers[self.node.layer]

    @property
    def sources(self) -> tuple[int, ...]:
        """The rows that it takes."""
        return sources_of(self.node)

    @property
    def is_last_of_layer(self) -> bool:
        """Whether no later row belongs to the same layer; sums of several inputs have several rows."""
        return all(node.layer != self.node.layer for node in self.passes.program.nodes[self.number + 1 :])

    @cached_property
    def v(self) -> np.ndarray:
        """The cotangent of its output."""
        chunks = zip(self.passes.chunks, self.cotangents, strict=True)
        return np.concatenate([lanes(self.passes, chunk, array, self.number) for chunk, array in chunks], axis=2)

    @cached_property
    def x(self) -> np.ndarray:
        """Its first input."""
        return self.values(self.sources[0])

    @cached_property
    def output(self) -> np.ndarray:
        """Its output."""
        return self.values(self.number)

    @cached_property
    def unit(self) -> np.ndarray:
        """The normalised input of a normalisation."""
        every = self.passes.chunks
        return np.concatenate(
            [row_of(self.passes, one, one.cached, self.number, True)[:, :, : one.points] for one in every], axis=2
        )

    def values(self, row: int) -> np.ndarray:
        """Return the output of any row."""
        return np.concatenate([lanes(self.passes, chunk, chunk.cached, row) for chunk in self.passes.chunks], axis=2)

    def shape_of(self, row: int) -> Shape:
        """Return the shape of a row's output for one data point."""
        return self.passes.program.nodes[row].shape

    def parameter(self, tensor: str) -> np.ndarray | None:
        """Return the layer's weight or bias; None without one."""
        return self.passes.point.params.get(f"{self.layer.owner}.{tensor}") if self.has(tensor) else None

    def has(self, tensor: str) -> bool:
        """Return whether the row uses a weight or a bias."""
        return self.node.columns[tensor] >= 0

    @property
    def use(self) -> tuple[int, int]:
        """Which of the uses of its parameters this is, in forward order, and how many there are."""
        tensor = self.passes.program.tensors.get(f"{self.layer.owner}.weight")
        positions = sorted(tensor.starts) if tensor else [self.node.layer]
        return positions.index(self.node.layer), len(positions)


Carry = Callable[[Row], Carried | None]
"""A mistaken backward pass of one row; returns None where it is no mistake there."""


def sources_of(node: Node) -> tuple[int, ...]:
    """Return the rows that a row takes."""
    return tuple(source for source in (node.columns["a"], node.columns["b"]) if source >= 0)


def back(array: np.ndarray) -> Carried:
    """Return what hands an array back to the only input, and is right otherwise."""
    return Carried((array,))
