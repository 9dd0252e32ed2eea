"""A loss of arrays along the lines of `fastcheck.engine.directions`, with steps that are searched for.

A few pilots show the step with the least bar. All directions take it, by the five-point stencil: four values each. The
part of their bars for truncation and kinks is the pilots'. Where a direction contradicts the gradient, a search of its
own decides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.engine.directions import SPARE, Direction, Line, Quotient
from fastcheck.engine.random_signs import Arrays
from fastcheck.functions import ecnoise, opinions
from fastcheck.functions.along import LossLine, LossOfArrays, Surroundings
from fastcheck.functions.noise import LOSS_SAMPLES, LOSS_SPACINGS
from fastcheck.functions.step_search import NOISES, Level, Search, exponent_of

UNDERFLOW = 1e-290
"""Losses whose values and changes are smaller, or larger than its inverse, show nothing."""

SMOOTH = 2 / 15
"""Factor on the pilots' truncation and kinks in all bars. A smooth function errs by a fifteenth of what twice the step
changes; a direction that bends more than twice as much as all pilots, or crosses a kink, contradicts a right gradient,
and is then searched."""

START = -13
"""Start of the first pilot's search, as a power of two: about the cube root of the unit round-off."""

ROUNDS = 6
"""Steps to try for the first pilot, and for a direction that contradicts the gradient."""


class LossLines:
    """A loss of arrays along lines.

    Parameters
    ----------
    case : LossOfArrays
    gradient : mapping of str to float64 array
        Its analytic gradient, finite.

    Attributes
    ----------
    near : Surroundings
    """

    spare, rigorous = SPARE, False

    def __init__(self, case: LossOfArrays, gradient: Mapping[str, np.ndarray]) -> None:
        self._case, self._gradient, self.near = case, gradient, Surroundings(case)
        self._step, self._common = START, 0.0
        self._pilots: dict[int, Search] = {}

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """The point."""
        return self._case.params

    @property
    def calls(self) -> int:
        """Calls of the loss so far."""
        return self.near.calls

    @property
    def usable(self) -> bool:
        """Whether differences of the loss have digits, and do not overflow."""
        return UNDERFLOW < max(abs(self._case.start), self._case.promised) < 1 / UNDERFLOW

    def size(self, name: str) -> float:
        """Return the typical size of a tensor's entries."""
        return self._case.size(name)

    def label(self, name: str) -> str:
        """Return the user's name for a tensor."""
        return self._case.label(name)

    def choose_step(self, lines: Sequence[Line]) -> None:
        """Choose the step with the least bar for a few directions, and what it holds beside round-off.

        The first direction is searched; from its step, those with less and less of a bar for all of them are tried.
        """
        self.near.noise = self._measured_noise(lines[0].moves)
        self._pilots = {line.number: self._loss_line(line).search() for line in lines}
        searches = list(self._pilots.values())
        first = searches[0].best(START, 2 * ROUNDS)
        bars = functools.cache(functools.partial(_common_bar, searches))
        self._step = START if first is None else exponent_of(first.step)
        for stride in (1, -1):
            while bars(self._step + stride).whole < bars(self._step).whole:
                self._step += stride
        self._common = bars(self._step).rest

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step, by four values."""
        pilot = self._pilots.pop(line.number, None)
        level: Callable[[int], Level | None] = self._loss_line(line).level if pilot is None else pilot.level
        near, far, step = level(self._step), level(self._step + 1), math.ldexp(1.0, self._step)
        if near is None or far is None:
            return Quotient(math.nan, math.inf, step, searched=False)
        numeric = (4 * near.central - far.central) / 3
        return Quotient(numeric, _independent(near, far) + self._common, step, searched=False)

    def searched(self, line: Line) -> Quotient:
        """Difference along a line with a step of its own, after second opinions."""
        own = self._loss_line(line)
        search = own.search()
        estimate = search.best(self._step, ROUNDS)
        if estimate is None:
            return Quotient(math.nan, math.inf, math.ldexp(1.0, self._step))
        estimate = opinions.decided(own, search, estimate, False)
        return Quotient(estimate.numeric, estimate.bar, estimate.step, estimate.jump > estimate.bar / 2)

    def part(self, moves: Arrays, like: Direction) -> Quotient:
        """Difference with a direction's step by five points, and its bar: three err by more than that."""
        near, far = (
            (self.near.value(moves, by) - self.near.value(moves, -by)) / (2 * by) for by in (like.step, 2 * like.step)
        )
        return Quotient((4 * near - far) / 3, like.bar, like.step)

    def _loss_line(self, line: Line) -> LossLine:
        return LossLine(self.near, line.moves, line.analytic, line.error)

    # Noise

    def _measured_noise(self, moves: Arrays) -> float:
        def sample(distance: float) -> np.ndarray:
            return np.array(self.near.value(moves, distance))

        measured = float(ecnoise.measured(sample, LOSS_SAMPLES, LOSS_SPACINGS, more=1))
        levels = [self._case.scatter, self._case.accuracy / NOISES, U / 2 * abs(self._case.start), 5e-324]
        levels += [] if math.isnan(measured) else [measured]
        return math.hypot(max(levels), self._rounding_of_moves())

    def _rounding_of_moves(self) -> float:
        """Return the effect on the loss of rounding x + h d to float64: entries err by up to half a spacing each."""
        squares = 0.0
        for name, array in self._case.params.items():
            spread = np.spacing(np.abs(array)) * self._gradient[name]
            squares += float(np.vdot(spread, spread)) / 12
        return math.sqrt(squares)


class _Bar(NamedTuple):
    """A bar for several directions, and the part of it that is not round-off."""

    whole: float
    rest: float


def _common_bar(searches: list[Search], exponent: int) -> _Bar:
    """Return the bar of five-point quotients with one step."""
    rests, round_offs = [], []
    for search in searches:
        estimates, near, far = search.at(exponent), search.level(exponent), search.level(exponent + 1)
        if not estimates or near is None or far is None:
            return _Bar(math.inf, math.inf)
        rests.append(SMOOTH * (estimates[-1].truncation + estimates[-1].kink))
        round_offs.append(_independent(near, far))
    rest = max(rests)
    return _Bar(max(round_offs) + rest, rest)


def _independent(near: Level, far: Level) -> float:
    """Return the round-off of the five-point quotient from levels with steps h and 2h, four values' errors at random.

    A level's own round-off is the bound on two errors that add up.
    """
    return math.hypot(4 * near.roundoff, far.roundoff) / (3 * math.sqrt(2))
