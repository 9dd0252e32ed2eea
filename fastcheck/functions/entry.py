"""One entry of a user's parameters, moved by itself: the loss there, steps and sizes."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import U
from fastcheck.functions import ecnoise as noises
from fastcheck.functions.case import SMALL, FunctionCase
from fastcheck.functions.noise import LOSS_SAMPLES, LOSS_SPACINGS
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES, Estimate, Level, Search, exponent_of

LEAST = 2.0**-1074
"""No loss is known better: float64's smallest number."""

OWN_SIZE = 2.0**20
"""Steps that an entry's own size is thought to be, where its value may be small by accident."""


@dataclass(frozen=True)
class Tensor:
    """What entries of a tensor have in common.

    Attributes
    ----------
    case : FunctionCase
    name : str
    noise : float
        What rounding does to the loss where the tensor is moved, a standard deviation.
    errors : float64 array
        What rounding does to the analytic gradient, flat.
    stencil : "auto", 3 or 5
    size : float
        That of a typical entry.
    """

    case: FunctionCase
    name: str
    noise: float
    errors: np.ndarray
    stencil: Literal["auto", 3, 5]
    size: float
    _private: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    @property
    def values(self) -> np.ndarray:
        """The parameters, flat."""
        return self.case.params[self.name].reshape(-1)

    def arrays(self) -> Arrays:
        """Return arrays of this thread's own."""
        if not hasattr(self._private, "arrays"):
            self._private.arrays = self.case.copies()
        arrays: Arrays = self._private.arrays
        return arrays


class EntryDifferencer:
    """One entry.

    Parameters
    ----------
    tensor : Tensor
    dim : int
        Its flat index.

    Attributes
    ----------
    small : bool
        Whether it may have a size of its own, far below the others'.
    reach : float
        How far it may be thought to move: by its own size, or that of a typical one.
    """

    def __init__(self, tensor: Tensor, dim: int) -> None:
        self._tensor, self._case, self._dim = tensor, tensor.case, dim
        self._x = float(tensor.values[dim])
        self._analytic = float(tensor.case.grads[tensor.name].reshape(-1)[dim])
        self._error = float(tensor.errors[dim])
        self.small = abs(self._x) < SMALL * tensor.size
        self.reach = max(tensor.size, abs(self._x))
        self._raised: FastcheckError | None = None

    def outside(self, found: Estimate) -> bool:
        """Tell whether the analytic value lies outside the error bar."""
        return abs(self._analytic - found.numeric) > found.bar + self._error

    def slope(self, found: Estimate) -> float:
        """Return the slope that an error bar is measured by: one above `WIDE` of it tells little.

        It is the one by which a move of the entry by its own size changes the loss as much as the gradient promises
        for any entry. Where it promises nothing, the slopes that were seen stand in; 0 where the loss never moved.
        """
        reach = self.reach
        if self.small and (not self._analytic or found.bar < abs(self._analytic)):
            # The step that was found shows which size it moves at, if its bar is no larger than what it has to show.
            reach = min(reach, max(abs(self._x), found.step * OWN_SIZE))
        promised = self._case.promised
        return promised / reach if promised else max(abs(self._case.start) / reach, found.slope)

    def own_size(self) -> float:
        """Return the size of the entry itself, of a zero that of the others."""
        return abs(self._x) or self.reach

    def other_size(self) -> float | None:
        """Return the size that a small entry may have, if not the others'.

        A zero's is guessed from its gradient: a move by it changes the loss as much as moves of others do.
        """
        own, slope = abs(self._x), abs(self._analytic)
        if not own and 0 < slope < math.inf:
            own = self._case.promised / slope
        return own if self.small and LEAST < own < self.reach * SMALL else None

    def search(self, noise: float | None = None) -> Search:
        """Return the search for its step; ``noise`` is that of the tensor by default."""
        least = max(exponent_of(float(np.spacing(abs(self._x)))) + 2, -1000)
        # It is not moved beyond zero, where a domain may end, unless its size may be an accident.
        room = self.reach if self.small else abs(self._x)
        noise = self._tensor.noise if noise is None else noise
        most = max(least, exponent_of(room) - 2)
        return Search(lambda exponent: self._level(math.ldexp(1.0, exponent), noise), self._tensor.stencil, least, most)

    def with_step(self, step: float) -> Estimate | None:
        """Estimate with a given step."""

        def level(exponent: int) -> Level | None:
            return self._level(math.ldexp(step, exponent), self._tensor.noise)

        return Search(level, self._tensor.stencil, 0, 0).best(0, rounds=1)

    def own_noise(self) -> float:
        """Return the noise of the loss where this entry alone moves, next to the point.

        Other entries' kinks, which look like noise where all are moved, are not met.
        """
        unit = LOSS_SPACINGS[0] * self.own_size()

        def seen(side: float) -> float:
            def sample(distance: float) -> np.ndarray:
                return np.array(self._moved(side * distance))

            return float(noises.measured(sample, LOSS_SAMPLES, [unit]))

        largest = max(seen(1.0), seen(-1.0))
        least = max(U * abs(self._case.start), self._case.accuracy / NOISES, LEAST)
        return min(self._tensor.noise, max(largest, least)) if largest > 0 else self._tensor.noise

    def not_finite(self, step: float, given: bool) -> FastcheckError:
        """Return why it cannot be differenced; ``step`` was given, or is where the search began."""
        raised = self._raised
        cause = "" if raised is None else f"; {raised}"
        if given:
            message = (
                f"step is {step!r}: the loss is not finite with {self._place()} moved by one, two or four of them; "
                f"expected a smaller step, or step='auto'{cause}"
            )
        else:
            message = (
                f"loss is not finite around {self._place()}: no step from {step!r} downwards gives finite values on "
                f"both sides{cause}"
            )
        found = FastcheckError(message)
        found.__cause__ = None if raised is None else raised.__cause__
        return found

    def _level(self, step: float, noise: float) -> Level | None:
        before, after = self._moved(-step), self._moved(step)
        return Level.of(step, (self._x - step, self._x, self._x + step), (before, self._case.start, after), noise)

    def _moved(self, by: float) -> float:
        """Evaluate the loss with the entry moved, and restore it."""
        arrays = self._tensor.arrays()
        flat = arrays[self._tensor.name].reshape(-1)
        flat[self._dim] = self._x + by
        try:
            value, raised = self._case.attempt(arrays, lambda: f"with {self._place()} moved by {by!r}")
            self._raised = self._raised or raised
            return value
        finally:
            flat[self._dim] = self._x

    def _place(self) -> str:
        index = self._case.index(self._tensor.name, self._dim)
        return f"{self._case.label(self._tensor.name)} at index {list(index)}"
