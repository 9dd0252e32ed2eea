"""Evaluator ``full`` of a user's function: the whole loss, at every step that a dimension needs."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Literal

import numpy as np

from fastcheck.black_box import ROUNDS, Estimate, Level, Search, better
from fastcheck.cases.function import Arrays, FunctionCase
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Chosen, Differences, indices
from fastcheck.geometry import index_of
from fastcheck.step import WIDE

BLOCK = 32
"""Dimensions in a block: some hundred calls of the loss, after which Ctrl-C and progress are heard."""

PILOTS = 5
"""Dimensions of a tensor that find its typical step, at which the others begin."""

PILOT_ROUNDS = 12
"""Steps tried where no typical one is known."""

PILOT_STEP = -17
"""Where they begin, as a power of two relative to the size of the entries: about the cube root of the unit round-off,
where a difference of a function whose scale is that of its argument is balanced."""


LEAST = 2.0**-1074
"""No loss is known better: float64's smallest number."""


class FunctionEvaluator:
    """Difference one tensor of a function by calling it.

    Parameters
    ----------
    case : FunctionCase
    name : str
        The tensor.
    noise : float
        What rounding does to the loss where it is moved: `fastcheck.evaluators.function_noise.of_loss`.
    errors : float64 array
        What rounding does to its analytic gradient: `fastcheck.evaluators.function_noise.of_gradient`.
    step : float or "auto"
    stencil : "auto", 3 or 5
    seed : int
        Of the pilots.

    Attributes
    ----------
    step : float
        As given, or the median of what the pilots found best.
    """

    def __init__(
        self,
        case: FunctionCase,
        name: str,
        noise: float,
        errors: np.ndarray,
        step: float | Literal["auto"],
        stencil: Literal["auto", 3, 5],
        seed: int,
    ) -> None:
        self._case, self._name, self._stencil = case, name, stencil
        self._values = case.params[name].reshape(-1)
        self._analytic = case.grads[name].reshape(-1).astype(np.float64)
        self._errors = errors.reshape(-1)
        self._size, self._natural = case.size(name), natural_slope(case, name)
        self._private = threading.local()
        self._noise = max(noise, LEAST)
        self._fixed = None if step == "auto" else float(step)
        self._start = PILOT_STEP
        if self._fixed is None:
            self._start = self._typical(np.random.default_rng([seed, len(self._values)]))
        self.step = self._fixed or math.ldexp(1.0, self._start + _exponent(self._size))

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of `BLOCK`."""
        return [dims[start : start + BLOCK] for start in range(0, len(dims), BLOCK)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        found = [self._differenced(dim) for dim in dims.tolist()]
        self._case.refuse_changes(self._arrays(), "loss")
        bars = np.array([entry.bar for entry in found]) + self._errors[dims]
        jumps = np.array([entry.jump for entry in found])
        slopes = np.array([max(self._natural, entry.slope) for entry in found])
        return Differences(
            dims,
            np.array([entry.numeric for entry in found]),
            bars,
            kinks=np.array([entry.kinked for entry in found], dtype=np.int64),
            jump=jumps,
            wide=bars - jumps > WIDE * slopes,
        )

    def parts(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, which are differenced again."""
        found = [self._differenced(dim) for dim in dims.tolist()]
        return {
            "round-off": np.array([entry.roundoff for entry in found]),
            "truncation": np.array([entry.safety * entry.truncation for entry in found]),
            "kinks": np.array([entry.widening for entry in found]),
            "gradient": self._errors[dims],
        }

    def _typical(self, rng: np.random.Generator) -> int:
        """Return the median exponent of the pilots' steps, relative to the size of their entries."""
        count = min(PILOTS, len(self._values))
        found = []
        for dim in rng.choice(len(self._values), count, replace=False).tolist():
            best = self._search(dim).best(self._begin(dim), PILOT_ROUNDS)
            if best is not None:
                found.append(_exponent(best.step) - _exponent(self._reach(dim)))
        return sorted(found)[len(found) // 2] if found else PILOT_STEP

    def _differenced(self, dim: int) -> Estimate:
        """Estimate one derivative."""
        found = self._searched(dim) if self._fixed is None else self._with_fixed_step(dim, self._fixed)
        if found is None:
            raise self._not_finite(dim)
        return found

    def _searched(self, dim: int, rounds: int = ROUNDS) -> Estimate | None:
        """Search for the step. No dimension fails on the word of one: it has to be outside with a smaller one too."""
        search = self._search(dim)
        found = search.best(self._begin(dim), rounds)
        if found is None or not self._outside(dim, found):
            return found
        closer = search.closer(found)
        inside = [other for other in closer if not self._outside(dim, other)]
        return min(inside, key=lambda one: one.bar) if inside else functools.reduce(better, closer, found)

    def _with_fixed_step(self, dim: int, step: float) -> Estimate | None:
        """Take the user's step; where the gradient is outside, the best one tells whether that was to blame."""
        found = Search(self._levels(dim, step), self._stencil, 0, 0).best(0, rounds=1)
        if found is None or not self._outside(dim, found):
            return found
        other = self._searched(dim, PILOT_ROUNDS)
        if other is None or (self._outside(dim, other) and found.agrees(other)):
            return found
        return found.doubted(other)

    def _outside(self, dim: int, found: Estimate) -> bool:
        return abs(float(self._analytic[dim]) - found.numeric) > found.bar + float(self._errors[dim])

    def _reach(self, dim: int) -> float:
        """Return how far an entry may be moved: by its own size, or that of a typical one."""
        return max(self._size, abs(float(self._values[dim])))

    def _begin(self, dim: int) -> int:
        return self._start + _exponent(self._reach(dim))

    def _search(self, dim: int) -> Search:
        x = float(self._values[dim])
        least = max(_exponent(float(np.spacing(abs(x)))) + 2, -1000)
        most = max(least, _exponent(self._reach(dim)) - 2)
        return Search(self._levels(dim, 1.0), self._stencil, least, most)

    def _levels(self, dim: int, unit: float) -> Callable[[int], Level | None]:
        """Return what differences a dimension with a step of a power of two times a unit."""
        x = float(self._values[dim])

        def level(exponent: int) -> Level | None:
            step = math.ldexp(unit, exponent)
            low, high = x - step, x + step
            before, after = self._moved(dim, low, -step), self._moved(dim, high, step)
            return Level.of(step, (low, x, high), (before, self._case.start, after), self._noise)

        return level

    def _moved(self, dim: int, value: float, by: float) -> float:
        """Evaluate the loss with one entry moved, and restore it."""
        arrays = self._arrays()
        flat = arrays[self._name].reshape(-1)
        flat[dim] = value
        try:
            return self._case.value(arrays, lambda: f"with {self._place(dim)} moved by {by!r}")
        finally:
            flat[dim] = self._values[dim]

    def _arrays(self) -> Arrays:
        if not hasattr(self._private, "arrays"):
            self._private.arrays = self._case.copies()
        arrays: Arrays = self._private.arrays
        return arrays

    def _place(self, dim: int) -> str:
        index = index_of(dim, self._case.params[self._name].shape)
        return f"{self._case.label(self._name)} at index {list(index)}"

    def _not_finite(self, dim: int) -> FastcheckError:
        if self._fixed is not None:
            return FastcheckError(
                f"step is {self._fixed!r}: the loss is not finite with {self._place(dim)} moved by one, two or four "
                "of them; expected a smaller step, or step='auto'"
            )
        return FastcheckError(
            f"loss is not finite around {self._place(dim)}: no step from {math.ldexp(1.0, self._begin(dim))!r} "
            "downwards gives finite values on both sides"
        )


def natural_slope(case: FunctionCase, name: str) -> float:
    """Return the slope that a tensor's error bars are measured by: one above `WIDE` of it tells little.

    The largest change of the loss that the analytic gradient promises for any tensor, where an entry moves by the
    tensor's size, per size of this tensor. It depends on the case alone, is as large for a tensor whose own gradient
    vanishes (a bias before a normalisation) as for the others, and scales with the loss and with the parameters. A
    constant in the loss, which hides a gradient in its round-off, does not count. Where all gradients vanish, the
    loss itself stands in.
    """
    changes = [_largest(grad) * case.size(other) for other, grad in case.grads.items()]
    return (max(changes) or abs(case.start)) / case.size(name)


def _largest(grad: np.ndarray) -> float:
    finite = grad[np.isfinite(grad)].astype(np.float64)
    return float(np.abs(finite).max(initial=0.0))


def _exponent(value: float) -> int:
    """Return the exponent of the largest power of two that is no larger."""
    return math.frexp(value)[1] - 1
