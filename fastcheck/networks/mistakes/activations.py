"""Wrong slopes of activations, and masks of dropout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastcheck.networks.layers import ELU, Dropout, LeakyReLU, Softplus
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back

Slope = Callable[[Row], np.ndarray]
"""Takes a row; returns the factor of every entry of its cotangent."""


def sloped(slope: Slope) -> Carry:
    """Return the mistake whose slope is another one."""

    def carry(row: Row) -> Carried:
        with np.errstate(over="ignore"):
            return back(row.v * slope(row))

    return carry


def one(row: Row) -> np.ndarray:
    """Return the slope of code that passes the cotangent on as it is."""
    return np.ones_like(row.v)


def mask(row: Row) -> np.ndarray:
    """Return the slope of a relu."""
    return (row.x > 0).astype(np.float64)


def mask_inverted(row: Row) -> np.ndarray:
    """Return a relu's slope on the wrong side."""
    return (row.x <= 0).astype(np.float64)


def mask_of_cotangent(row: Row) -> np.ndarray:
    """Return the mask of positive cotangents."""
    return (row.v > 0).astype(np.float64)


def mask_of_both(row: Row) -> np.ndarray:
    """Return the mask of positive cotangents where the input is positive too."""
    return mask(row) * mask_of_cotangent(row)


def mask_of_another_sample(row: Row) -> np.ndarray:
    """Return the mask of the data point before."""
    return np.roll(mask(row), 1, axis=2)


def mask_of_first_sample(row: Row) -> np.ndarray:
    """Return the mask of the first data point, for all."""
    return np.broadcast_to(mask(row)[:, :, :1], row.v.shape)


def mask_of_before(row: Row) -> Carried | None:
    """Use the input of an earlier layer of the same shape for the mask."""
    before = _before(row)
    return None if before is None else back(row.v * (row.values(before) > 0))


def _before(row: Row) -> int | None:
    """Return the nearest row before the input whose output has the same entries."""
    nodes, size = row.passes.program.nodes, row.x.shape[:2]
    alike = (at for at in range(row.sources[0] - 1, -1, -1) if nodes[at].kind not in ("relu", "input"))
    return next((at for at in alike if (nodes[at].columns["channels"], nodes[at].columns["pixels"]) == size), None)


def own_slope(row: Row) -> np.ndarray:
    """Return the right slope, from what is handed back; where the cotangent is zero, so is the product."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(row.right[0] / row.v, posinf=0.0, neginf=0.0)


def slope_twice(row: Row) -> np.ndarray:
    """Return the square of the right slope."""
    return own_slope(row) ** 2


def values(row: Row) -> np.ndarray:
    """Return the activation itself, in place of its slope."""
    return row.output


def over_input(row: Row) -> np.ndarray:
    """Return f(x) / x: what is left of x g(x) where g is held constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(row.x == 0, 0.5, row.output / row.x)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return the logistic function."""
    size = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, size) / (1.0 + size)


def sigmoid_of_output(row: Row) -> np.ndarray:
    """Return s (1 - s) with s the sigmoid of the output: applied twice."""
    s = sigmoid(row.output)
    return s * (1 - s)


def complement(row: Row) -> np.ndarray:
    """Return 1 - y."""
    return 1 - row.output


def tanh_of_output(row: Row) -> np.ndarray:
    """Return 1 - tanh(y)^2: tanh applied twice."""
    return 1 - np.tanh(row.output) ** 2


def one_minus_square_of_input(row: Row) -> np.ndarray:
    """Return 1 - x^2: the formula for the output, used with the input."""
    return 1 - row.x**2


def of_input_as_output(row: Row) -> np.ndarray:
    """Return x (1 - x): the sigmoid's formula for the output, used with the input."""
    return row.x * (1 - row.x)


def opposite_square(row: Row) -> np.ndarray:
    """Return 1 + y^2."""
    return 1 + row.output**2


def exact_gelu(row: Row) -> np.ndarray:
    """Return the slope of the exact gelu."""
    z = row.x
    return _normal(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _normal(z: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * (1 + erf(z * math.sqrt(0.5))))


def gelu_without_density(row: Row) -> np.ndarray:
    """Return the distribution function alone."""
    return _normal(row.x)


def gelu_by_sigmoid(row: Row) -> np.ndarray:
    """Return the slope of x sigmoid(1.702 x)."""
    s = sigmoid(1.702 * row.x)
    return s + 1.702 * row.x * s * (1 - s)


def tanh_gelu(row: Row) -> np.ndarray:
    """Return the slope of the gelu's form with tanh."""
    return _tanh_gelu(row, inner=True)


def tanh_gelu_without_inner(row: Row) -> np.ndarray:
    """Return that slope without the derivative of the tanh's argument."""
    return _tanh_gelu(row, inner=False)


def _tanh_gelu(row: Row, inner: bool) -> np.ndarray:
    z, c, k = row.x, math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(c * (z + k * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (c * (1 + 3 * k * z * z) if inner else 1.0)


def negative_slope_everywhere(row: Row) -> np.ndarray:
    """Return the negative side's slope on the positive side, and 1 on the negative one."""
    assert isinstance(row.layer, LeakyReLU)
    return np.where(row.x > 0, row.layer.negative_slope, 1.0)


def elu_without_alpha(row: Row) -> np.ndarray:
    """Return exp(x), without alpha."""
    return np.where(row.x > 0, 1.0, np.exp(np.minimum(row.x, 0)))


def elu_of_output(row: Row) -> np.ndarray:
    """Return y + 1 where y + alpha is right."""
    return np.where(row.x > 0, 1.0, row.output + 1.0)


def elu_by_output(row: Row) -> np.ndarray:
    """Return alpha exp(y)."""
    assert isinstance(row.layer, ELU)
    return np.where(row.x > 0, 1.0, row.layer.alpha * np.exp(row.output))


def softplus_without_beta(row: Row) -> np.ndarray:
    """Return sigmoid(x), without beta."""
    return sigmoid(row.x)


def softplus_times_beta(row: Row) -> np.ndarray:
    """Return beta sigmoid(beta x)."""
    assert isinstance(row.layer, Softplus)
    return row.layer.beta * sigmoid(row.layer.beta * row.x)


def silu_of_sigmoid(row: Row) -> np.ndarray:
    """Return s (1 - s), the sigmoid's own slope."""
    s = sigmoid(row.x)
    return s * (1 - s)


def silu_without_sigmoid(row: Row) -> np.ndarray:
    """Return x s (1 - s), without the first term."""
    s = sigmoid(row.x)
    return row.x * s * (1 - s)


def _kept(row: Row) -> np.ndarray:
    """Return the mask of a dropout: 1 where an entry was kept."""
    factors = row.passes.point.masks[str(row.layer.name)]
    return (factors.T.reshape(row.v.shape) > 0).astype(np.float64)


def dropout_mask_only(row: Row) -> np.ndarray:
    """Return the mask without its scale."""
    return _kept(row)


def dropout_scale_only(row: Row) -> np.ndarray:
    """Return the scale without the mask."""
    assert isinstance(row.layer, Dropout)
    return np.full_like(row.v, 1 / (1 - row.layer.p))


def dropout_scale_inverted(row: Row) -> np.ndarray:
    """Return the mask times 1 - p, where it is divided by that."""
    assert isinstance(row.layer, Dropout)
    return _kept(row) * (1 - row.layer.p)


def dropout_scale_by_p(row: Row) -> np.ndarray:
    """Return the mask divided by p."""
    assert isinstance(row.layer, Dropout)
    return _kept(row) / row.layer.p if row.layer.p else one(row)


def dropout_dropped(row: Row) -> np.ndarray:
    """Return the scale where entries were dropped."""
    assert isinstance(row.layer, Dropout)
    return (1 - _kept(row)) / (1 - row.layer.p)


def dropout_of_another_sample(row: Row) -> np.ndarray:
    """Return the mask of the data point before."""
    assert isinstance(row.layer, Dropout)
    return np.roll(_kept(row), 1, axis=2) / (1 - row.layer.p)
