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
    """

    shape: Shape
    starts: dict[int, int]

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
        return vector[self.copies[0]]

    def put(self, vector: np.ndarray, values: np.ndarray) -> None:
        """Write a tensor to a vector, for all layers that use it."""
        for copy in self.copies:
            vector[copy] = values.reshape(-1)

    def move(self, vector: np.ndarray, dims: np.ndarray, by: np.ndarray) -> None:
        """Move some entries of a vector, for all layers that use them."""
        for copy in self.copies:
            vector[copy.start + dims] += by

    def gather(self, vector: np.ndarray) -> None:
        """Add what all copies have of a gradient to the first, and leave nothing in the others."""
        first, *others = self.copies
        for copy in others:
            vector[first] += vector[copy]
            vector[copy] = 0.0


def laid_out(network: Network, input_shape: Shape) -> dict[str, Tensor]:
    """Return a network's tensors by name: first those of all layers, one after another, then the copies."""
    shapes = network.parameter_shapes(input_shape)
    starts: dict[str, dict[int, int]] = {name: {} for name in shapes}
    used = list(enumerate(network.used(input_shape)))
    at = 0
    for again in (False, True):
        for position, names in used:
            for name in names:
                if bool(starts[name]) == again and position not in starts[name]:
                    starts[name][position] = at
                    at += math.prod(shapes[name])
    return {name: Tensor(shapes[name], starts[name]) for name in shapes}
