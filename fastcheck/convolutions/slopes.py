"""The slopes of a curved loss at the point, and the typical sum of a dimension's terms there."""

from __future__ import annotations

import math
from concurrent.futures import Executor

import numpy as np

from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.scaling import ScaledOperands

LEAST_SLOPE = 2.0**-200
"""Smallest slope of tanh, which is nowhere flat: far below anything that differences can tell from zero."""


def slopes(loss: str, output: np.ndarray) -> np.ndarray:
    """Return the slopes of a curved loss against which other slopes count as small.

    For tanh, these are its own slopes. For a relu it is one. For z^2 / 2 it is the median of the nonzero slopes: a few
    huge outputs do not make the slopes of all others small.
    """
    if loss == "relu":
        return np.ones(())
    sizes = np.abs(output)
    if loss == "square":
        return np.asarray(np.median(sizes[sizes > 0])) if sizes.any() else np.zeros(())
    decay = np.exp(-2 * sizes)  # 1 - tanh(z)^2 in a form that does not cancel
    return np.maximum(4 * decay / (1 + decay) ** 2, LEAST_SLOPE)


class Typical:
    """The typical sum of the terms of a tensor's dimensions, if their signs are random.

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
        # Summed over all dimensions, the squares of terms are the cotangent's squares times, for each output, the sum
        # of the squares of the factors that it meets: one forward pass with the other operand all ones.
        factor = scaled.input if tensor == "weight" else scaled.weight
        self._largest = float(np.abs(factor).max())
        squares = np.square(factor / (self._largest or 1.0))
        x, w = np.ones(geometry.input_shape), np.ones(geometry.weight_shape)
        x, w = (squares, w) if tensor == "weight" else (x, squares)
        self._met = passes.convolve(geometry, x, w, np.zeros(geometry.weight_shape[0]), pool)

    def __call__(self, cotangent: np.ndarray) -> float:
        """Return the root of the mean over all dimensions of the sum of the squares of their terms."""
        return self._largest * math.sqrt(float(np.sum(np.square(cotangent) * self._met)) / self._dims)
