"""Where the kernels' vector of parameters has a network's tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.networks.network import Network


@dataclass(frozen=True)
class Tensor:
    """A tensor in the vector of parameters.

    Where layers share it, each has a copy, which kernels read as if it were the layer's own. So the gradient is found
    use by use and then added up, and noise in place of rounding (`fastcheck.networks.round_off_noise`) differs from use
    to use, as rounding does.

    Attributes
    ----------
    shape : tuple of int
    starts : dict of int to int
        Where the copies begin, by the positions of the layers that use it; its own layer is the first.
    order : int64 array or None
        Where in a copy kernels have each entry, since they take all tensors filter by filter; None where that is the
        tensor's own order.
    """

    shape: Shape
    starts: dict[int, int]
    order: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def copies(self) -> list[slice]:
        """Entries of every copy; its own layer's first."""
        return [slice(start, start + self.size) for start in self.starts.values()]

    def of(self, vector: np.ndarray) -> np.ndarray:
        """Return the tensor's entries of a vector, flat."""
        return self.sorted(vector[self.copies[0]])

    def sorted(self, entries: np.ndarray) -> np.ndarray:
        """Return what kernels have of the entries, along the first axis, in the tensor's own order."""
        return entries if self.order is None else entries[self.order]

    def places(self, dims: np.ndarray) -> np.ndarray:
        """Return where in a copy kernels have some entries."""
        return dims if self.order is None else self.order[dims]

    def put(self, vector: np.ndarray, values: np.ndarray) -> None:
        """Write a tensor to a vector, for all layers that use it."""
        for copy in self.copies:
            vector[copy if self.order is None else copy.start + self.order] = values.reshape(-1)

    def move(self, vector: np.ndarray, dims: np.ndarray, by: np.ndarray) -> None:
        """Move some entries of a vector, for all layers that use them."""
        for copy in self.copies:
            vector[copy.start + self.places(dims)] += by

    def gather(self, vector: np.ndarray) -> None:
        """Add what all copies have of a gradient to the first, and leave nothing in the others."""
        first, *others = self.copies
        for copy in others:
            vector[first] += vector[copy]
            vector[copy] = 0.0


def laid_out(network: Network, input_shape: Shape) -> dict[str, Tensor]:
    """Return a network's tensors by name: first those of all layers, one after another, then the copies."""
    tensors: dict[str, Tensor] = {}
    again: list[tuple[int, str]] = []
    at = 0
    for position, (layer, given) in enumerate(network.with_inputs(input_shape)):
        for name, shape in layer.parameters(given).items():
            whole = f"{layer.owner}.{name}"
            if layer.shares is not None:
                again.append((position, whole))
                continue
            tensors[whole] = Tensor(shape, {position: at}, layer.order(name, given))
            at += tensors[whole].size
    for position, name in again:
        tensors[name].starts[position] = at
        at += tensors[name].size
    return tensors
