"""One entry of a user's parameters, perturbed alone: the loss there, its steps and its sizes."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import U
from fastcheck.functions import ecnoise
from fastcheck.functions.case import SMALL_ENTRY, Evaluation, FunctionCase
from fastcheck.functions.noise import LOSS_SAMPLES, LOSS_SPACINGS, Noise
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES, Estimate, Level, Search, exponent_of

LEAST = 2.0**-1074
"""Smallest noise of a loss: float64's smallest number."""

OWN_SIZE = 2.0**20
"""Assumed ratio of an entry's own size to its step, where its value may be small by accident."""


@dataclass(frozen=True)
class Tensor:
    """The state that all entries of a tensor share.

    Attributes
    ----------
    case : FunctionCase
    name : str
    noises : Noise
        The loss's rounding where the tensor is perturbed.
    errors : float64 array
        Bounds on the rounding of the analytic gradient, flat.
    stencil : "auto", 3 or 5
    size : float
        Size of a typical entry.
    """

    case: FunctionCase
    name: str
    noises: Noise
    errors: np.ndarray
    stencil: Literal["auto", 3, 5]
    size: float
    _private: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    @property
    def noise(self) -> float:
        """Standard deviation of the loss's rounding where all of its terms move."""
        return max(self.noises.whole, LEAST)

    @property
    def values(self) -> np.ndarray:
        """The parameters, flat."""
        return self.case.params[self.name].reshape(-1)

    def arrays(self) -> Arrays:
        """Return this thread's own copies of params."""
        if not hasattr(self._private, "arrays"):
            self._private.arrays = self.case.copies()
        return self._private.arrays


class EntryDifferencer:
    """Differences one entry.

    Parameters
    ----------
    tensor : Tensor
    dim : int
        Its flat index.

    Attributes
    ----------
    small : bool
        Whether the entry may have a scale of its own, far below the others'.
    reach : float
        How far the entry can be expected to move: by its own size or that of a typical entry, whichever is larger.
    """

    def __init__(self, tensor: Tensor, dim: int) -> None:
        self._tensor, self._case, self._dim = tensor, tensor.case, dim
        self._x = float(tensor.values[dim])
        self._analytic = float(tensor.case.grads[tensor.name].reshape(-1)[dim])
        self._error = float(tensor.errors[dim])
        self.small = abs(self._x) < SMALL_ENTRY * tensor.size
        self.reach = max(tensor.size, abs(self._x))
        self._raised: FastcheckError | None = None
        self._moving: np.ndarray | None = None

    def outside(self, estimate: Estimate) -> bool:
        """Return whether the analytic value lies outside the error bar."""
        return abs(self._analytic - estimate.numeric) > estimate.bar + self._error

    def slope(self, estimate: Estimate) -> float:
        """Return the slope that an error bar is compared with: a bar above `precision.WIDE` of it is too wide.

        With this slope, a move of the entry by its own size changes the loss as much as the gradient promises for any
        entry. Where the gradient promises nothing, the measured slopes stand in; 0 where the loss never changed.
        """
        reach = self.reach
        if self.small and (not self._analytic or estimate.bar < abs(self._analytic)):
            # The step shows the scale on which the entry moves, if its bar is smaller than the value to be shown.
            reach = min(reach, max(abs(self._x), estimate.step * OWN_SIZE))
        promised = self._case.promised
        return promised / reach if promised else max(self._case.magnitude / reach, estimate.slope)

    def own_size(self) -> float:
        """Return the size of the entry itself; for a zero, that of the others."""
        return abs(self._x) or self.reach

    def other_size(self) -> float | None:
        """Return the scale that a small entry may have instead of the others'; None where it has no other.

        A zero's scale is guessed from its gradient: a move of that size changes the loss as much as other entries do.
        """
        own, slope = abs(self._x), abs(self._analytic)
        if not own and 0 < slope < math.inf:
            own = self._case.promised / slope
        return own if self.small and LEAST < own < self.reach * SMALL_ENTRY else None

    def search(self, noise: float | None = None) -> Search:
        """Return the search for the entry's step; ``noise`` defaults to the tensor's."""
        least, most = self._range()
        noise = self._tensor.noise if noise is None else noise
        return Search(lambda exponent: self._level(math.ldexp(1.0, exponent), noise), self._tensor.stencil, least, most)

    def with_step(self, step: float) -> Estimate | None:
        """Estimate with a given step."""

        def level(exponent: int) -> Level | None:
            return self._level(math.ldexp(step, exponent), self._tensor.noise)

        return Search(level, self._tensor.stencil, 0, 0).best(0, rounds=1)

    def sees_more(self) -> bool:
        """Look for terms of the loss that depend on the entry though rounding hides it; return whether there are any.

        A saturated output never moves, but it is nan where the entry is. Estimates from then on include its rounding.
        """
        if self._moving is None or self._moving.all():
            return False
        terms = self._perturbed(math.nan).terms
        more = np.ones(self._moving.shape, bool) if terms is None else ~np.isfinite(terms) & ~self._moving
        self._moving = self._moving | more
        return bool(more.any())

    def own_noise(self) -> float:
        """Return the noise of the loss next to the point, where this entry alone is perturbed.

        This crosses no kinks of other entries, which look like noise when all entries are perturbed.
        """
        unit = LOSS_SPACINGS[0] * self.own_size()

        def measured(side: float) -> float:
            def sample(distance: float) -> np.ndarray:
                return np.array(self._perturbed(side * distance).value)

            return float(ecnoise.measured(sample, LOSS_SAMPLES, [unit]))

        largest = max(measured(1.0), measured(-1.0))
        least = max(U * self._case.magnitude, self._case.accuracy / NOISES, LEAST)
        return min(self._tensor.noise, max(largest, least)) if largest > 0 else self._tensor.noise

    def not_finite(self, step: float, given: bool) -> FastcheckError:
        """Return why the entry cannot be differenced; ``step`` was ``given``, or is the first step of the search."""
        raised = self._raised
        cause, names = "" if raised is None else f"; {raised}", self._case.names
        if given:
            message = (
                f"step is {step!r}: {names.subject} is not finite with {self._label()} perturbed by one, two or four "
                f"steps; expected a smaller step, or step='auto'{cause}"
            )
        else:
            message = (
                f"{names.function} is not finite around {self._label()}: no step of {step!r} or less gives finite "
                f"values on both sides{cause}"
            )
        refusal = FastcheckError(message)
        refusal.__cause__ = None if raised is None else raised.__cause__
        return refusal

    def _range(self) -> tuple[int, int]:
        """Return the exponents of the smallest step, and of the largest one."""
        least = max(exponent_of(float(np.spacing(abs(self._x)))) + 2, -1000)
        # A step does not pass zero, where a domain may end, unless the entry may be small by accident.
        room = self.reach if self.small else abs(self._x)
        return least, max(least, exponent_of(room) - 2)

    def _level(self, step: float, noise: float) -> Level | None:
        before, after = self._perturbed(-step), self._perturbed(step)
        if before.terms is not None and after.terms is not None:
            moving = self._far_moving() | (before.terms != 0) | (after.terms != 0)
            noise = min(noise, max(self._tensor.noises.of(moving), LEAST))
        points, values = (self._x - step, self._x, self._x + step), (before.value, self._case.start, after.value)
        return Level.of(step, points, values, noise, self._case.magnitude)

    def _far_moving(self) -> np.ndarray:
        """Return which terms of the loss move with the entry by its largest step, where rounding hides none."""
        if self._moving is None:
            terms = self._perturbed(math.copysign(math.ldexp(1.0, self._range()[1]), self._x)).terms
            self._moving = np.ones(self._tensor.noises.each.shape, bool) if terms is None else terms != 0
        return self._moving

    def _perturbed(self, by: float) -> Evaluation:
        """Evaluate the loss with the entry perturbed, then restore it."""
        arrays = self._tensor.arrays()
        flat = arrays[self._tensor.name].reshape(-1)
        flat[self._dim] = self._x + by
        try:
            evaluation = self._case.attempt(arrays, lambda: f"with {self._label()} perturbed by {by!r}")
            self._raised = self._raised or evaluation.raised
            return evaluation
        finally:
            flat[self._dim] = self._x

    def _label(self) -> str:
        index = self._case.index(self._tensor.name, self._dim)
        return f"{self._case.label(self._tensor.name)} at index {list(index)}"
