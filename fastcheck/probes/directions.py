"""The start point, and the points around it: random signs over all entries, weighted tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import UNITS
from fastcheck.engine.magnitudes import rms
from fastcheck.functions.state import Arrays
from fastcheck.probes.manifest import FACTORS, Point

STEPS = {"float64": (2.0**-12, 2.0**-22), "float32": (2.0**-6, 2.0**-9)}
"""Steps by the coarsest type of the tensors: the first for smooth functions, the second for those with kinks."""

BOTTOM = {"float64": -41, "float32": -12}
"""Exponent of a step near the bottom of what the type resolves, by type."""

ABOVE_BOTTOM = 3
"""Powers of two by which the bottom lies below the smallest step at least."""

SPACINGS = {
    "float64": (2.0**-46, 2.0**-30, 2.0**-22, 2.0**-13),
    "float32": (2.0**-21, 2.0**-17, 2.0**-13, 2.0**-10),
}
"""Spacings at which noise is measured: tens of roundings of the type, and then far more, for what rounds its inputs."""

BALANCE = 8.0
"""Largest factor by which a gradient makes a tensor move more than its own size does."""

ROUNDINGS = 8
"""Roundings of an entry that its smallest move takes at least: a move of fewer is not along the direction."""


def sizes(params: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the root mean square of each tensor's non-zero entries; without any, that of all tensors, else 1."""
    own = {name: rms(array) for name, array in params.items()}
    every = rms(np.array(list(own.values()))) or 1.0
    return {name: size or every for name, size in own.items()}


def weights(params: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray] | None) -> dict[str, float]:
    """Return the move of each tensor's entries: its size, or one that a gradient balances.

    Then all tensors contribute alike to the sum of a direction, and the limit of detection, relative to a typical entry
    of the gradient, is alike for all.
    """
    own = sizes(params)
    if grads is None:
        return own
    promises = {name: size * float(np.linalg.norm(np.nan_to_num(grads[name]))) for name, size in own.items()}
    usual = rms(np.array(list(promises.values())))
    if not 0 < usual < math.inf:
        return own
    return {name: size * min(BALANCE, math.sqrt(usual / max(promises[name], 1e-300))) for name, size in own.items()}


class Lines:
    """Points along directions from a start point.

    Parameters
    ----------
    params : mapping of str to float64 or float32 array
    moves : mapping of str to float
        Weights of the tensors.
    seed : int
    """

    def __init__(self, params: Mapping[str, np.ndarray], moves: Mapping[str, float], seed: int) -> None:
        self._params, self._moves, self._seed = params, moves, seed
        self._own = sizes(params)
        self._latest: dict[str, tuple[int, np.ndarray]] = {}

    def at(self, point: Point, name: str) -> np.ndarray:
        """Return a tensor at a point, in its own type."""
        start = self._params[name]
        if not point.by:
            return start
        moved: np.ndarray = start + point.by * self._along(point.direction, name)
        return moved.astype(start.dtype)

    def usable(self, steps: tuple[float, ...]) -> tuple[float, ...]:
        """Return the steps that are not lost in the rounding of any entry; if all are, the first is refused."""
        kept = tuple(step for step in steps if self._lost(step) is None)
        if not kept:
            self._refuse_lost(steps[0])
        return kept

    def bottom(self, steps: tuple[float, ...]) -> float:
        """Return the step near the bottom of the type, far below other steps; 0 where none is left."""
        step = 2.0 ** BOTTOM[min(array.dtype.name for array in self._params.values())]
        usable = step <= min(steps) / 2**ABOVE_BOTTOM and self._lost(step) is None
        return step if usable else 0.0

    def refuse_overflow(self, step: float) -> None:
        """Refuse a step with which an entry leaves the range of its type.

        Raises
        ------
        FastcheckError
        """
        for name, array in self._params.items():
            with np.errstate(over="ignore"):
                largest = float(np.abs(array).max()) + FACTORS[0] * step * self._moves[name]
            if not largest < float(np.finfo(array.dtype).max):
                raise FastcheckError(
                    f"step is {step:g}: entries of {name} overflow with it; expected a smaller step, or smaller entries"
                )

    def _lost(self, step: float) -> tuple[str, float] | None:
        """Return the tensor in whose rounding a step is lost, and the least step for it; None where it is not."""
        for name, array in self._params.items():
            unit = 2 * UNITS[array.dtype.name]
            least = ROUNDINGS * unit * float(np.abs(array).max()) / self._moves[name]
            if step < least:
                return name, least
        return None

    def _refuse_lost(self, step: float) -> None:
        lost = self._lost(step)
        assert lost is not None
        name, least = lost
        raise FastcheckError(
            f"step is {step:g}: it is lost in the rounding of the largest entry of {name} to "
            f"{self._params[name].dtype.name}; expected at least 2^{math.ceil(math.log2(least))}"
        )

    def _along(self, direction: int, name: str) -> np.ndarray:
        """Return a direction: weighted signs; where noise is measured, between half of each entry and all of it."""
        if name in self._latest and self._latest[name][0] == direction:
            return self._latest[name][1]
        array, position = self._params[name], list(self._params).index(name)
        rng = np.random.default_rng([self._seed, direction + 1, position])
        signs = 2.0 * rng.integers(0, 2, array.shape, dtype=np.int8) - 1.0
        if direction >= 0:
            along = self._moves[name] * signs
        else:
            lengths = np.abs(array.astype(np.float64)) if array.any() else self._own[name]
            along = signs * lengths * rng.uniform(0.5, 1.0, array.shape)
        self._latest[name] = direction, along
        return along


def drawn(shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, seed: int) -> Arrays:
    """Return cotangents of outputs: random signs, and sizes between a half and three halves; 1 for a single number."""
    rng = np.random.default_rng([seed, len(shapes)])
    made = {}
    for name, shape in shapes.items():
        single = math.prod(shape) == 1
        values = np.ones(shape) if single else rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        made[name] = values.astype(dtype)
    return made
