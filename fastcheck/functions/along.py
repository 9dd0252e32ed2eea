"""The loss along a line on which many entries move at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import Estimate, Level, Search


class LossOfArrays(Protocol):
    """A loss of arrays near a point.

    Attributes
    ----------
    params : mapping of str to float64 array
        The point.
    start : float
        The loss there.
    scatter : float
        Least standard deviation of its values.
    accuracy : float
        Declared bound on the error of a value; 0 without one.
    promised : float
        The largest change of the loss that the gradient promises when an entry moves by its own size.
    """

    start: float
    scatter: float
    accuracy: float

    @property
    def params(self) -> Mapping[str, np.ndarray]: ...

    @property
    def promised(self) -> float: ...

    def size(self, name: str) -> float:
        """Return the typical size of a tensor's entries."""
        ...

    def label(self, name: str) -> str:
        """Return the user's name for a tensor."""
        ...

    def copies(self) -> Arrays:
        """Return private copies of params, which may be changed."""
        ...

    def value(self, arrays: Arrays, where: Callable[[], str]) -> float:
        """Evaluate the loss near the point, from any thread; nan where it has no value."""
        ...


LEAST, MOST = -60, 6
"""Smallest and largest step, as powers of two."""


class Surroundings:
    """The loss near the point, evaluated in arrays that each thread keeps.

    Parameters
    ----------
    case : LossOfArrays

    Attributes
    ----------
    calls : int
        Calls of the loss.
    noise : float
        Standard deviation of the loss's rounding, and of the moved entries', where everything moves.
    """

    def __init__(self, case: LossOfArrays) -> None:
        self.case, self.calls, self.noise = case, 0, 0.0
        self._lock, self._own, self._every = threading.Lock(), threading.local(), list[tuple[Arrays, set[str]]]()

    def value(self, moves: Mapping[str, np.ndarray], by: float) -> float:
        """Evaluate the loss at the point moved by so many times the moves; tensors without moves stay."""
        arrays, moved = self._arrays()
        _restore(self.case, arrays, moved - moves.keys())
        with np.errstate(over="ignore", invalid="ignore"):
            for name, move in moves.items():
                np.multiply(move, by, out=arrays[name])
                arrays[name] += self.case.params[name]
        moved.clear()
        moved.update(moves)
        return self.case.value(arrays, lambda: f"with {len(moves)} of params moved by {by:g} of their size")

    def restored(self) -> Iterator[Arrays]:
        """Yield all arrays that the loss was given, with what was moved put back."""
        for arrays, moved in self._every:
            _restore(self.case, arrays, moved)
            yield arrays
        self._every.clear()
        self._own = threading.local()

    def _arrays(self) -> tuple[Arrays, set[str]]:
        with self._lock:
            self.calls += 1
        if not hasattr(self._own, "kept"):
            self._own.kept = self.case.copies(), set()
            self._every.append(self._own.kept)
        kept: tuple[Arrays, set[str]] = self._own.kept
        return kept


class LossLine:
    """The loss along one line, differenced as an entry is.

    Parameters
    ----------
    near : Surroundings
    moves : mapping of str to float64 array
        Move of each entry for a step of 1.
    analytic, error : float
        The derivative that the gradient gives, and the bound on its rounding.
    """

    def __init__(self, near: Surroundings, moves: Mapping[str, np.ndarray], analytic: float, error: float) -> None:
        self._near, self._moves, self.analytic, self.error = near, moves, analytic, error

    def outside(self, estimate: Estimate) -> bool:
        """Return whether the analytic value lies outside the error bar."""
        return abs(self.analytic - estimate.numeric) > estimate.bar + self.error

    def own_size(self) -> float:
        """Return the size on which steps are measured."""
        return 1.0

    def own_noise(self) -> float:
        """Return the noise of the loss next to the point."""
        return self._near.noise

    def search(self, noise: float | None = None) -> Search:
        """Return the search for the step."""
        noise = self._near.noise if noise is None else noise
        return Search(lambda exponent: self.level(exponent, noise), "auto", LEAST, MOST)

    def level(self, exponent: int, noise: float | None = None) -> Level | None:
        """Difference with a step that is a power of two; None where the loss is not finite."""
        step = math.ldexp(1.0, exponent)
        before, after = (self._near.value(self._moves, side) for side in (-step, step))
        noise = self._near.noise if noise is None else noise
        return Level.of(step, (-step, 0.0, step), (before, self._near.case.start, after), noise)


def _restore(case: LossOfArrays, arrays: Arrays, names: set[str]) -> None:
    for name in names:
        arrays[name][...] = case.params[name]
