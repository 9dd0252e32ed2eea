"""Local errors of a network's operations: what rounding adds to every result and every cotangent, where it is computed.

They are standard deviations, about, in units of the round-off of a stored number. What an operation makes of errors in
its operands is none of its local error.

An error is *shared* where all entries of a normalisation's group have the same: that of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastcheck.common.precision import ACCUMULATOR, UNITS
from fastcheck.networks.passes import Chunk, Passes, row_of
from fastcheck.networks.program import Node

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715

SIGNS = ("relu", "leaky_relu", "elu")
"""Kinds of rows with a kink at zero."""

NOTHING = 0.2
"""Part of a round-off up to which slopes in a gelu's tail may be taken for zero, as PyTorch's in float32 below -6.5."""

ERF = 2.5
"""Round-offs by which a vectorised erf errs: PyTorch's gelu in float32 is off by up to 15 of them at z = 3.3."""

NORMS = ("batch_norm", "frozen_norm", "layer_norm")
"""Kinds of rows that normalise."""


@dataclass
class LocalErrors:
    """Local errors of the results and cotangents of a chunk.

    Attributes
    ----------
    results, cotangents : float64 arrays
        Laid out as the chunk's ``cached``: those of normalised inputs are there as well.
    shared_results, shared_inputs, shared_cotangents : dict of int to array
        Errors that all entries of a group have in common, by row: those of a normalisation's results, of its normalised
        inputs, and, by the row that it takes, of the cotangents that it hands on. They broadcast to (channels, pixels,
        lanes).
    """

    results: np.ndarray
    cotangents: np.ndarray
    shared_results: dict[int, np.ndarray] = field(default_factory=dict)
    shared_inputs: dict[int, np.ndarray] = field(default_factory=dict)
    shared_cotangents: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, passes: Passes, chunk: Chunk, precision: str) -> LocalErrors:
        """Find those of a chunk in some precision, after a backward pass."""
        found = cls(np.zeros_like(chunk.cached), np.zeros_like(chunk.cached))
        for place in range(1, len(passes.program.nodes)):
            _RowErrors(passes, chunk, place, precision).add_to(found)
        _seeds(passes, chunk, sums_of(precision), found)
        return found


def sums_of(precision: str) -> float:
    """Return the round-off of the arithmetic inside an operation, as a part of that of a stored number.

    It is one in float64 and float32, and far less where float16 is stored and float32 computed with.
    """
    return ACCUMULATOR[precision] / UNITS[precision]


class _RowErrors:
    """One row of a chunk: its input and output, and the cotangents of both."""

    def __init__(self, passes: Passes, chunk: Chunk, place: int, precision: str) -> None:
        self._passes, self._chunk, self._place, self._precision = passes, chunk, place, precision
        self._node, self._sums = passes.program.nodes[place], sums_of(precision)

    def add_to(self, errors: LocalErrors) -> None:
        """Add the local errors of the row's results, and of the cotangents that it hands to its inputs."""
        kind, node = self._node.kind, self._node
        out = row_of(self._passes, self._chunk, errors.results, self._place)
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
        elif kind in ("add", "dropout"):
            out[:] = np.abs(self._values("cached"))
        if kind in ("avg_pool", "max_pool", "dropout"):
            back[0][:] = np.hypot(back[0], np.abs(self._values("cotangents", node.columns["a"])))

    def _values(self, name: str, place: int | None = None, normalised: bool = False) -> np.ndarray:
        row = self._place if place is None else place
        return row_of(self._passes, self._chunk, getattr(self._chunk, name), row, normalised)

    def _sources(self) -> list[int]:
        return [source for source in (self._node.columns["a"], self._node.columns["b"]) if source >= 0]

    def _summed(self, values: np.ndarray, terms: int) -> np.ndarray:
        """Return the error of sums of so many terms, which may be larger than what is left of them."""
        size = np.abs(values)
        typical = np.sqrt((values * values).mean(axis=(1, 2), keepdims=True))
        # What is exactly zero is a sum of zeros, or of terms that any order cancels.
        found: np.ndarray = np.hypot(size, self._sums * math.sqrt(terms) * np.maximum(size, typical)) * (size > 0)
        return found

    def _activation(self, out: np.ndarray, back: np.ndarray) -> None:
        z, result = self._values("cached", self._node.columns["a"]), self._values("cached")
        v, into = self._values("cotangents"), self._values("cotangents", self._node.columns["a"])
        inner, real = ACCUMULATOR[self._precision], float(self._node.reals[0])
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            value, slope, stored = ACTIVATIONS[self._node.kind](z, real, inner)
            out[:] = (np.abs(result) + self._sums * (value + np.abs(result))) * (result != 0)  # which is exact
            slope = self._sums * slope + stored * _left(_rest(self._node.kind, z), UNITS[self._precision])
        back[:] = np.hypot(back, np.nan_to_num(slope) * np.abs(v) + np.abs(into))

    def _norm(self, errors: LocalErrors) -> None:
        """Add those of a normalisation, whose means and products with them err alike in a whole group."""
        passes, chunk, place, node = self._passes, self._chunk, self._place, self._node
        axes = {"batch_norm": (1, 2), "layer_norm": (0, 1)}.get(node.kind)
        x, unit = self._values("cached", node.columns["a"]), self._values("cached", place, normalised=True)
        mean, inverse = _statistics(node, x, axes)
        weight = self._weight()
        # Means and 1 / sigma are stored.
        shared = (1 + self._sums) * np.abs(mean) * inverse
        own = self._sums * (inverse * (np.abs(x) + np.abs(mean)) + np.abs(unit)) + np.abs(unit)
        row_of(passes, chunk, errors.results, place, normalised=True)[:] = own
        row_of(passes, chunk, errors.results, place)[:] = np.abs(weight) * own + np.abs(self._values("cached"))
        v = weight * self._values("cotangents")
        back = row_of(passes, chunk, errors.cotangents, node.columns["a"])
        into = np.abs(self._values("cotangents", node.columns["a"]))
        if axes is None:
            back[:] = np.hypot(back, into + self._sums * inverse * np.abs(v))
            return
        total, product = (v.mean(axis=axes, keepdims=True), (v * unit).mean(axis=axes, keepdims=True))
        parts = 2 * np.abs(v) + np.abs(total) + np.abs(unit * product)
        back[:] = np.hypot(back, into + inverse * (self._sums * parts + 2 * np.abs(unit * product)))
        errors.shared_inputs[place] = shared
        errors.shared_results[place] = np.abs(weight) * shared
        typical = np.sqrt((v * v).mean(axis=axes, keepdims=True))
        errors.shared_cotangents[node.columns["a"]] = self._sums * inverse * (np.abs(total) + typical)

    def _weight(self) -> np.ndarray:
        """Return the factors of a normalisation's channels or entries."""
        columns = self._node.columns
        count = columns["channels"] * (columns["pixels"] if self._node.kind == "layer_norm" else 1)
        return self._passes.params[columns["weight"] : columns["weight"] + count].reshape(columns["channels"], -1, 1)


def _statistics(node: Node, x: np.ndarray, axes: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and 1 / sqrt(variance + eps) of a normalisation's groups."""
    if axes is None:
        channels = node.columns["channels"]
        mean, inverse = node.reals[1 : 1 + channels], node.reals[1 + channels : 1 + 2 * channels]
        return mean[:, None, None], inverse[:, None, None]
    mean = x.mean(axis=axes, keepdims=True)
    return mean, 1.0 / np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + node.reals[0])


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
    found: np.ndarray = np.where(z >= 0, 1.0, e) / (1.0 + e)
    return found


def _left(rest: np.ndarray, unit: float) -> np.ndarray:
    """Return by what part of a round-off 1 - a number errs that is ``rest``.

    Where the number itself is rounded to one, nothing is left of it, and that is no error.
    """
    found: np.ndarray = np.minimum(1.0, 4 * rest / unit)
    return found


def _nothing(slope: np.ndarray, unit: float) -> np.ndarray:
    """Return the error of code that takes a slope far below a round-off for zero, as vectorised exp and erf do."""
    found: np.ndarray = np.minimum(NOTHING, np.abs(slope) / unit)
    return found


def _rest(kind: str, z: np.ndarray) -> np.ndarray:
    """Return 1 - |result| of a tanh, and 1 - result of a sigmoid."""
    return 2 * _sigmoid(-2 * np.abs(z)) if kind == "tanh" else _sigmoid(-z)


def _normal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal density, and about what its distribution has below z: never less, and at most twice that."""
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return density, np.where(z < 0, density / np.maximum(np.abs(z), 0.8), 0.5)


Parts = tuple["np.ndarray | float", "np.ndarray | float", "np.ndarray | float"]


def _gelu(z: np.ndarray, real: float, unit: float) -> Parts:
    density, tail = _normal(z)
    sides = ERF * _left(2 * tail, unit)  # 1 + erf
    return np.abs(z) * sides, sides + np.abs(z) * density * (3 + z * z) + _nothing(z * density, unit), 0.0


def _gelu_tanh(z: np.ndarray, real: float, unit: float) -> Parts:
    inner = GELU_SCALE * (z + GELU_CUBE * z**3)
    sides = _left(2 * _sigmoid(2 * inner), unit)  # 1 + tanh
    steepness = 4 * _sigmoid(2 * inner) * _sigmoid(-2 * inner)  # 1 - tanh^2
    steep = np.abs(z) * GELU_SCALE * (1 + 3 * GELU_CUBE * z * z)
    slope = sides + steep * (2 * _left(steepness, unit) + steepness * (2 + 4 * np.abs(inner)))
    slope += _nothing(steep * steepness, unit)
    return np.abs(z) * (sides + 2 * steepness * np.abs(inner)), slope, 0.0


def _silu(z: np.ndarray, real: float, unit: float) -> Parts:
    s, rest = _sigmoid(z), _sigmoid(-z)
    return np.abs(z) * s, 3 * s + np.abs(z) * s * (3 * rest + _left(rest, unit)), 0.0


def _elu(z: np.ndarray, real: float, unit: float) -> Parts:
    small = real * np.exp(np.minimum(z, 0.0))
    # Where the slope is computed from the result, it is a difference of numbers as large as alpha.
    return 0.0, np.where(z > 0, 0.0, real + 2 * small), 0.0


def _tanh(z: np.ndarray, real: float, unit: float) -> Parts:
    t = np.tanh(z)
    return np.abs(t), 2 * t * t * _left(_rest("tanh", z), unit) + (1 - t * t), 2 * t * t


def _sigmoid_parts(z: np.ndarray, real: float, unit: float) -> Parts:
    s, rest = _sigmoid(z), _sigmoid(-z)
    return s, 2 * s * (_left(rest, unit) + rest), s


def _softplus(z: np.ndarray, real: float, unit: float) -> Parts:
    s = _sigmoid(real * z)
    return np.abs(z) * s, s * (2 + np.abs(real * z) * _sigmoid(-real * z)), 0.0


ACTIVATIONS: dict[str, Callable[[np.ndarray, float, float], Parts]] = {
    "leaky_relu": lambda z, real, unit: (0.0, np.where(z > 0, 0.0, real), 0.0),
    "elu": _elu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "tanh": _tanh,
    "sigmoid": _sigmoid_parts,
    "softplus": _softplus,
}
"""Errors that arithmetic inside an activation leaves in its result, beside that of the result's size, and in its slope;
and what the rounding of the stored result leaves in a slope that is computed from it. They are functions of z, the
activation's number, and the round-off of that arithmetic."""
