"""The slopes of a curved loss at the point, and what the terms of a dimension typically add up to there."""

from __future__ import annotations

import math
from concurrent.futures import Executor

import numpy as np

from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.scaling import ScaledOperands

LEAST_SLOPE = 2.0**-200
"""Of tanh, which is nowhere flat: far below what differences can tell from zero."""


def slopes(loss: str, output: np.ndarray) -> np.ndarray:
    """Return the slopes of a curved loss beside which others are small.

    Those of tanh are its own. Of a relu it is one, and of z^2 / 2 the median of those that are not zero: a few outputs
    that are huge do not make the slopes of all others small.
    """
    if loss == "relu":
        return np.ones(())
    sizes = np.abs(output)
    if loss == "square":
        return np.asarray(np.median(sizes[sizes > 0])) if sizes.any() else np.zeros(())
    rest = np.exp(-2 * sizes)
    found: np.ndarray = np.maximum(4 * rest / (1 + rest) ** 2, LEAST_SLOPE)
    return found


class Typical:
    """What the terms of a tensor's dimensions typically add up to, if their signs are random.

    Parameters
    ----------
    geometry : ConvGeometry
    scaled : ScaledOperands
    tensor : {"input", "weight", "bias"}
    pool : Executor
    """

    def __init__(self, geometry: ConvGeometry, scaled: ScaledOperands, tensor: str, pool: Executor) -> None:
        self._dims = math.prod(geometry.shape_of(tensor))
        self._largest, self._met = 1.0, np.ones(())
        if tensor == "bias":
            return
        factor = scaled.input if tensor == "weight" else scaled.weight
        self._largest = float(np.abs(factor).max())
        squares = np.square(factor / (self._largest or 1.0))
        x, w = np.ones(geometry.input_shape), np.ones(geometry.weight_shape)
        x, w = (squares, w) if tensor == "weight" else (x, squares)
        self._met = passes.convolve(geometry, x, w, np.zeros(geometry.weight_shape[0]), pool)

    def __call__(self, cotangent: np.ndarray) -> float:
        """Return the root of the mean, over all dimensions, of the sum of the squares of their terms."""
        return self._largest * math.sqrt(float(np.sum(np.square(cotangent) * self._met)) / self._dims)
