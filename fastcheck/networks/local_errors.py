"""Local errors of a network's operations: the rounding of every result and every cotangent where it is computed.

They are approximate standard deviations, in units of the round-off of a stored number. Errors of an operation's
operands are not part of its local error: passes with noise (`fastcheck.networks.round_off_noise`) carry those on.

An error is *shared* where all entries of a normalisation's group have the same one: the error of their mean. Shared
errors do not average out over the group (test_a_float32_bias_before_a_batch_normalisation in
tests/networks/test_error_bars.py).

The formulas follow common code. In tails, the error comes from the intermediate result that is rounded near 1 (1 + erf
of a gelu, 1 - t^2 of a tanh), not from the tiny final one; far in the tail that is exactly 0 or 1, and nothing is left
to err. test_local_errors_are_those_of_pytorch_in_float32 compares every activation with PyTorch from -12 to 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.precision import ACCUMULATOR, UNITS
from fastcheck.networks.passes import Chunk, Passes, row_of
from fastcheck.networks.program import Node

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715

SIGNS = ("relu", "leaky_relu", "elu", "prelu")
"""Kinds of rows with a kink at zero."""

NOTHING = 0.2
"""Fraction of a round-off up to which code may compute slopes in a gelu's tail as zero, as PyTorch's does in float32
below -6.5."""

ERF = 2.5
"""Error of a vectorised erf in round-offs: PyTorch's gelu in float32 is off by up to 15 of them at z = 3.3."""

NORMS = ("batch_norm", "frozen_norm", "layer_norm", "group_norm")
"""Kinds of rows that normalise."""


@dataclass
class LocalErrors:
    """Local errors of the results and cotangents of a chunk.

    Attributes
    ----------
    results, cotangents : float64 arrays
        Laid out as the chunk's ``cached``, normalised inputs included.
    shared_results, shared_inputs, shared_cotangents : dict of int to array
        Errors that all entries of a group share: of a normalisation's results and of its normalised inputs, by its row;
        and of the cotangents that it passes back, by its input's row. They broadcast to (channels, pixels, lanes).
    """

    results: np.ndarray
    cotangents: np.ndarray
    shared_results: dict[int, np.ndarray] = field(default_factory=dict)
    shared_inputs: dict[int, np.ndarray] = field(default_factory=dict)
    shared_cotangents: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, passes: Passes, chunk: Chunk, precision: str) -> LocalErrors:
        """Return the local errors of a chunk in some precision, after a backward pass."""
        errors = cls(np.zeros_like(chunk.cached), np.zeros_like(chunk.cached))
        for row in range(1, len(passes.program.nodes)):
            _RowErrors(passes, chunk, row, precision).add_to(errors)
        _seeds(passes, chunk, sums_of(precision), errors)
        return errors


def sums_of(precision: str) -> float:
    """Return the round-off of the arithmetic inside an operation, relative to that of a stored number.

    It is 1 in float64 and float32, and far less where float16 is stored but float32 computed.
    """
    return ACCUMULATOR[precision] / UNITS[precision]


class _RowErrors:
    """One row of a chunk: its input and output, and the cotangents of both."""

    def __init__(self, passes: Passes, chunk: Chunk, row: int, precision: str) -> None:
        self._passes, self._chunk, self._row, self._precision = passes, chunk, row, precision
        self._node, self._sums = passes.program.nodes[row], sums_of(precision)

    def add_to(self, errors: LocalErrors) -> None:
        """Add the local errors of the row's results, and of the cotangents that it passes to its inputs."""
        kind, node = self._node.kind, self._node
        out = row_of(self._passes, self._chunk, errors.results, self._row)
        if kind in NORMS:
            self._norm(errors)
            return
        back = [row_of(self._passes, self._chunk, errors.cotangents, source) for source in self._sources()]
        if kind == "conv":
            out[:] = self._summed(self._values("cached"), node.columns["per_group"] * node.columns["taps"] + 1)
            into = self._values("cotangents", node.columns["a"])
            back[0][:] = np.hypot(back[0], self._summed(into, node.columns["filters"] * node.columns["taps"]))
        elif kind == "avg_pool":
            assert node.lookup is not None
            out[:] = self._summed(self._values("cached"), len(node.lookup))
        elif kind in ACTIVATIONS:
            self._activation(out, back[0])
        elif kind == "softmax":
            self._softmax(out, back[0])
        elif kind in ("add", "dropout"):
            out[:] = np.abs(self._values("cached"))
        if kind in ("avg_pool", "max_pool", "dropout"):
            back[0][:] = np.hypot(back[0], np.abs(self._values("cotangents", node.columns["a"])))

    def _values(self, name: str, row: int | None = None, normalised: bool = False) -> np.ndarray:
        row = self._row if row is None else row
        return row_of(self._passes, self._chunk, getattr(self._chunk, name), row, normalised)

    def _sources(self) -> list[int]:
        return [source for source in (self._node.columns["a"], self._node.columns["b"]) if source >= 0]

    def _summed(self, values: np.ndarray, terms: int) -> np.ndarray:
        """Return the errors of sums of so many terms: their partial sums are of typical size even where they cancel."""
        size = np.abs(values)
        typical = np.sqrt((values * values).mean(axis=(1, 2), keepdims=True))
        # A sum that is exactly zero has zero terms only, or terms that cancel in any order.
        return np.hypot(size, self._sums * math.sqrt(terms) * np.maximum(size, typical)) * (size > 0)

    def _activation(self, out: np.ndarray, back: np.ndarray) -> None:
        z, result = self._values("cached", self._node.columns["a"]), self._values("cached")
        v, into = self._values("cotangents"), self._values("cotangents", self._node.columns["a"])
        inner, real = ACCUMULATOR[self._precision], real_of(self._passes, self._row)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            value, slope, stored = ACTIVATIONS[self._node.kind](z, real, inner)
            out[:] = (np.abs(result) + self._sums * (value + np.abs(result))) * (result != 0)  # a zero is exact
            slope = self._sums * slope + stored * _left(_rest(self._node.kind, z), UNITS[self._precision])
        back[:] = np.hypot(back, np.nan_to_num(slope) * np.abs(v) + np.abs(into))

    def _softmax(self, out: np.ndarray, back: np.ndarray) -> None:
        z, s = self._values("cached", self._node.columns["a"]), self._values("cached")
        terms = np.abs(s * self._values("cotangents"))
        into, count = np.abs(self._values("cotangents", self._node.columns["a"])), math.sqrt(len(s))
        # exp of a rounded difference, the sum of all, and the quotient.
        out[:] = s * (1 + self._sums * (2 + count + np.abs(z - z.max(axis=0))))
        back[:] = np.hypot(back, into + self._sums * (terms + count * s * terms.sum(axis=0)))

    def _norm(self, errors: LocalErrors) -> None:
        """Add the errors of a normalisation, whose means and products with them err alike in a whole group."""
        passes, chunk, row, node = self._passes, self._chunk, self._row, self._node
        x, unit = self._values("cached", node.columns["a"]), self._values("cached", row, normalised=True)
        mean, inverse = _statistics(node, x)
        weight = self._weight()
        # The mean and 1 / sigma are stored, so that each is rounded once more.
        shared = (1 + self._sums) * np.abs(mean) * inverse
        own = self._sums * (inverse * (np.abs(x) + np.abs(mean)) + np.abs(unit)) + np.abs(unit)
        row_of(passes, chunk, errors.results, row, normalised=True)[:] = own
        row_of(passes, chunk, errors.results, row)[:] = np.abs(weight) * own + np.abs(self._values("cached"))
        v = weight * self._values("cotangents")
        back = row_of(passes, chunk, errors.cotangents, node.columns["a"])
        into = np.abs(self._values("cotangents", node.columns["a"]))
        if node.kind == "frozen_norm":
            back[:] = np.hypot(back, into + self._sums * inverse * np.abs(v))
            return
        total, product = (_means(node, v), _means(node, v * unit))
        parts = 2 * np.abs(v) + np.abs(total) + np.abs(unit * product)
        back[:] = np.hypot(back, into + inverse * (self._sums * parts + 2 * np.abs(unit * product)))
        one = slice(None, None, node.columns["per_group"] if node.kind == "group_norm" else 1)
        errors.shared_inputs[row] = shared[one]
        errors.shared_results[row] = np.abs(weight) * shared
        typical = np.sqrt(_means(node, v * v))
        errors.shared_cotangents[node.columns["a"]] = (self._sums * inverse * (np.abs(total) + typical))[one]

    def _weight(self) -> np.ndarray:
        """Return the factors of a normalisation's channels or entries."""
        columns = self._node.columns
        if columns["weight"] < 0:
            return np.ones((1, 1, 1))
        count = columns["channels"] * (columns["pixels"] if self._node.kind == "layer_norm" else 1)
        return self._passes.params[columns["weight"] : columns["weight"] + count].reshape(columns["channels"], -1, 1)


def real_of(passes: Passes, row: int) -> Any:
    """Return an activation's number; of a prelu, the slopes of all channels."""
    node = passes.program.nodes[row]
    if node.kind != "prelu":
        return float(node.reals[0])
    count = node.columns["channels"] if node.columns["taps"] else 1
    return passes.params[node.columns["weight"] :][:count].reshape(-1, 1, 1)


def grouped(node: Node, values: np.ndarray) -> np.ndarray:
    """Return values (channels, pixels, lanes) of a normalisation as (groups, entries of a group, lanes).

    The groups are those of the statistics; of a batch normalisation, a group has all lanes, and there are no others.
    """
    if node.kind == "batch_norm":
        return values.reshape(len(values), -1, 1)
    groups = len(values) // node.columns["per_group"] if node.kind == "group_norm" else 1
    return values.reshape(groups, -1, values.shape[2])


def _means(node: Node, values: np.ndarray) -> np.ndarray:
    """Return the means of a normalisation's groups, in a shape that broadcasts to that of the values."""
    means = grouped(node, values).mean(axis=1, keepdims=True)
    return np.repeat(means, node.columns["per_group"], axis=0) if node.kind == "group_norm" else means


def _statistics(node: Node, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and 1 / sqrt(variance + eps) of a normalisation's groups."""
    if node.kind == "frozen_norm":
        channels = node.columns["channels"]
        mean, inverse = node.reals[1 : 1 + channels], node.reals[1 + channels : 1 + 2 * channels]
        return mean[:, None, None], inverse[:, None, None]
    mean = _means(node, x)
    return mean, 1.0 / np.sqrt(_means(node, (x - mean) ** 2) + node.reals[0])


def _seeds(passes: Passes, chunk: Chunk, sums: float, errors: LocalErrors) -> None:
    """Write the local errors of the output's cotangents, which are differences."""
    last = len(passes.program.nodes) - 1
    v = np.abs(row_of(passes, chunk, chunk.cotangents, last))
    known = chunk.known.reshape(v.shape)
    loss = passes.point.network.loss
    if loss == "softmax_cross_entropy":
        with np.errstate(divide="ignore", invalid="ignore"):
            exponent = np.nan_to_num(-np.log(known) * known)
        label = chunk.targets.reshape(-1, chunk.period) == np.arange(len(v))[:, None]
        # A narrow type rounds the probabilities themselves.
        parts = exponent + (1 - sums) * known + sums * (3 * known + label[:, None])
    elif loss == "logistic":
        parts = known + sums * (2 * known + chunk.targets.reshape(v.shape))
    elif loss == "squared_error":
        parts = sums * np.abs(chunk.targets.reshape(v.shape))
    else:
        parts = np.zeros_like(v)
    row_of(passes, chunk, errors.cotangents, last)[:] = v + passes.weight * parts


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z))."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def _left(rest: np.ndarray, unit: float) -> np.ndarray:
    """Return the error, in round-offs, of a difference 1 - x that should be ``rest``.

    It is a whole round-off, unless x is so near to 1 that it is rounded to 1: then nothing is left, and nothing errs.
    """
    return np.minimum(1.0, 4 * rest / unit)


def _nothing(slope: np.ndarray, unit: float) -> np.ndarray:
    """Return the error of code that computes a slope far below a round-off as zero, as vectorised exp and erf do."""
    return np.minimum(NOTHING, np.abs(slope) / unit)


def _rest(kind: str, z: np.ndarray) -> np.ndarray:
    """Return 1 - |result| for a tanh, and 1 - result for a sigmoid."""
    return 2 * _sigmoid(-2 * np.abs(z)) if kind == "tanh" else _sigmoid(-z)


def _normal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal density, and a bound on its integral below z: never too small, at most twice too large."""
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return density, np.where(z < 0, density / np.maximum(np.abs(z), 0.8), 0.5)


ActivationErrors = tuple["np.ndarray | float", "np.ndarray | float", "np.ndarray | float"]


def _gelu(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    density, tail = _normal(z)
    sides = ERF * _left(2 * tail, unit)  # 1 + erf
    return np.abs(z) * sides, sides + np.abs(z) * density * (3 + z * z) + _nothing(z * density, unit), 0.0


def _gelu_tanh(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    inner = GELU_SCALE * (z + GELU_CUBE * z**3)
    sides = _left(2 * _sigmoid(2 * inner), unit)  # 1 + tanh
    steepness = 4 * _sigmoid(2 * inner) * _sigmoid(-2 * inner)  # 1 - tanh^2
    steep = np.abs(z) * GELU_SCALE * (1 + 3 * GELU_CUBE * z * z)
    slope = sides + steep * (2 * _left(steepness, unit) + steepness * (2 + 4 * np.abs(inner)))
    slope += _nothing(steep * steepness, unit)
    return np.abs(z) * (sides + 2 * steepness * np.abs(inner)), slope, 0.0


def _silu(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    s, rest = _sigmoid(z), _sigmoid(-z)
    return np.abs(z) * s, 3 * s + np.abs(z) * s * (3 * rest + _left(rest, unit)), 0.0


def _elu(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    small = real * np.exp(np.minimum(z, 0.0))
    # Code that computes the slope from the result takes a difference of numbers as large as alpha.
    return 0.0, np.where(z > 0, 0.0, real + 2 * small), 0.0


def _tanh(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    t = np.tanh(z)
    return np.abs(t), 2 * t * t * _left(_rest("tanh", z), unit) + (1 - t * t), 2 * t * t


def _sigmoid_parts(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    s, rest = _sigmoid(z), _sigmoid(-z)
    return s, 2 * s * (_left(rest, unit) + rest), s


def _softplus(z: np.ndarray, real: float, unit: float) -> ActivationErrors:
    s = _sigmoid(real * z)
    return np.abs(z) * s, s * (2 + np.abs(real * z) * _sigmoid(-real * z)), 0.0


def _leaky(z: np.ndarray, real: Any, unit: float) -> ActivationErrors:
    return 0.0, np.where(z > 0, 0.0, np.abs(real)), 0.0


ACTIVATIONS: dict[str, Callable[[np.ndarray, Any, float], ActivationErrors]] = {
    "leaky_relu": _leaky,
    "prelu": _leaky,
    "elu": _elu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "tanh": _tanh,
    "sigmoid": _sigmoid_parts,
    "softplus": _softplus,
}
"""Errors from the arithmetic inside an activation: of its result, in excess of a rounding of that result; of its slope;
and of a slope that is computed from the stored, rounded result. They are functions of z, the activation's number and
the round-off of that arithmetic."""
