"""Random signs over all dimensions, and how far each tensor moves with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

Arrays = dict[str, np.ndarray]

EVEN = 3 / 8
"""Power of a tensor's size with which it moves further than one with as large a gradient. With 0, all tensors
contribute alike to the derivative along a direction; with 1/2, the limit of detection is the same for all. The limits
of a transformer and a ResNet were lowest in between (docs/design-notes.md, "Directions")."""

BALANCE = 3 / 4
"""Power of what a tensor's gradient promises by which it moves less: with 1, moves would not depend on the size of the
parameters; with 0, on nothing else."""

RANGE = 2.0**9
"""Largest ratio of two tensors' moves, each relative to the tensor's own size: one whose gradient is zero moves too."""


class Sized(Protocol):
    """Tensors and their sizes."""

    @property
    def params(self) -> Mapping[str, np.ndarray]: ...

    def size(self, name: str) -> float:
        """Return the typical size of a tensor's entries."""
        ...


class Weights:
    """How far the entries of each tensor move along a direction.

    Parameters
    ----------
    case : Sized
    gradient : mapping of str to float64 array
        Sets the weights; it need not be right.

    Attributes
    ----------
    balanced : dict of str to float
        The larger a tensor's gradient, the smaller its move; at most its own size.
    own : dict of str to float
        Moves in proportion to the tensors' own sizes, with which the loss changes as much.
    """

    def __init__(self, case: Sized, gradient: Mapping[str, np.ndarray]) -> None:
        sizes = {name: case.size(name) for name in case.params}
        promises = {name: size * float(np.linalg.norm(gradient[name])) for name, size in sizes.items()}
        if not 0 < max(promises.values()) < math.inf:
            self.balanced = self.own = sizes
            return
        moves = {
            name: (case.params[name].size ** EVEN / promise) ** BALANCE if promise else math.inf
            for name, promise in promises.items()
        }
        most = RANGE * min(moves.values())
        moves = {name: min(move, most) / min(max(moves.values()), most) for name, move in moves.items()}
        self.balanced = {name: sizes[name] * move for name, move in moves.items()}
        alike = math.hypot(*(moves[name] * promise for name, promise in promises.items()))
        alike /= math.hypot(*promises.values())
        self.own = {name: size * alike for name, size in sizes.items()}


def signs(seed: int, number: int, position: int, size: int) -> np.ndarray:
    """Return a direction's signs in the tensor at a position, as int8, flat."""
    drawn = np.random.default_rng([seed, 7919, number, position]).bytes(size // 8 + 1)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=size)
    return bits.view(np.int8) * np.int8(2) - np.int8(1)


def moves(params: Mapping[str, np.ndarray], seed: int, number: int, weights: Mapping[str, float]) -> Arrays:
    """Return a direction's move of every entry."""
    drawn = enumerate(params.items())
    return {
        name: np.multiply(signs(seed, number, position, array.size), weights[name]).reshape(array.shape)
        for position, (name, array) in drawn
    }
