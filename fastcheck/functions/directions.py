"""A loss of arrays along the lines of `fastcheck.engine.directions`, with steps that are searched for.

A few pilots show the step and the stencil with the least bar. All directions take them: two values each, or four. The
part of their bars for truncation and kinks is the pilots'. Where a direction contradicts the gradient, a search of its
own decides.
"""

from __future__ import annotations

import functools
import math
import operator
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

SMOOTH = {3: 2 / 3, 5: 2 / 15}
"""Factors on the pilots' truncation and kinks in all bars, by points of the stencil. A smooth function errs by a third,
or a fifteenth, of what twice the step changes; a direction that bends more than twice as much as all pilots, or crosses
a kink, contradicts a right gradient, and is then searched."""

STENCILS = {3: (1.0,), 5: (4 / 3, -1 / 3)}
"""Weights of the two-sided differences with steps h and 2h, by points of the stencil."""

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
        self._step, self._shared = START, _Bar(5, 0.0, 0.0)
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

        The first direction's is searched. Where the others err by more with it, all of them take smaller ones.
        """
        self.near.noise = self._measured_noise(lines[0].moves)
        self._pilots = {line.number: self._loss_line(line).search() for line in lines}
        searches = list(self._pilots.values())
        first = searches[0].best(START, 2 * ROUNDS)
        start = START if first is None else exponent_of(first.step)
        start = _climbed(start, 1, functools.partial(_common_bar, searches[:1]))
        bars = functools.cache(functools.partial(_common_bar, searches))
        self._step = _climbed(start, -1, bars)
        self._shared = bars(self._step)

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step and stencil."""
        pilot = self._pilots.pop(line.number, None)
        level: Callable[[int], Level | None] = self._loss_line(line).level if pilot is None else pilot.level
        exponents = range(self._step, self._step + len(STENCILS[self._shared.points]))
        levels = [one for one in map(level, exponents) if one is not None]
        step = math.ldexp(1.0, self._step)
        if len(levels) < len(exponents):
            return Quotient(math.nan, math.inf, step, searched=False)
        bar = _independent([one.roundoff for one in levels]) + self._shared.rest
        return Quotient(_quotient([one.central for one in levels]), bar, step, searched=False)

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
        """Difference with a direction's step, and its bar; by five points where it chose the stencil itself."""
        points = 5 if like.searched else self._shared.points
        steps = [math.ldexp(like.step, power) for power in range(len(STENCILS[points]))]
        centrals = [(self.near.value(moves, by) - self.near.value(moves, -by)) / (2 * by) for by in steps]
        return Quotient(_quotient(centrals), like.bar, like.step)

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
    """A bar for several directions by a stencil of so many points, and the part of it that is not round-off."""

    points: int
    whole: float
    rest: float

    def may_fall(self, stride: int) -> bool:
        """Return whether another step may have less: half the step has twice the round-off."""
        return stride > 0 or not self.rest <= self.whole / 2


def _climbed(exponent: int, stride: int, bar: Callable[[int], _Bar]) -> int:
    """Return the last of the steps, from one on, that have less and less of a bar."""
    here = bar(exponent)
    while here.may_fall(stride):
        there = bar(exponent + stride)
        if not there.whole < here.whole:
            break
        exponent, here = exponent + stride, there
    return exponent


def _common_bar(searches: list[Search], exponent: int) -> _Bar:
    """Return the bar of quotients with one step, by the stencil with the smaller one."""
    return min((_stencil_bar(searches, exponent, points) for points in STENCILS), key=lambda bar: bar.whole)


def _stencil_bar(searches: list[Search], exponent: int, points: int) -> _Bar:
    rests, round_offs = [], []
    for search in searches:
        levels = [search.level(exponent + power) for power in range(len(STENCILS[points]))]
        estimates = [one for one in search.at(exponent) if one.order == points - 1]
        if not estimates:
            return _Bar(points, math.inf, math.inf)
        rests.append(SMOOTH[points] * (estimates[0].truncation + estimates[0].kink))
        round_offs.append(_independent([one.roundoff for one in levels if one is not None]))
    rest = max(rests)
    return _Bar(points, max(round_offs) + rest, rest)


def _quotient(centrals: Sequence[float]) -> float:
    """Return the quotient of a stencil from two-sided differences with steps h and, for five points, 2h."""
    return math.fsum(map(operator.mul, STENCILS[2 * len(centrals) + 1], centrals))


def _independent(roundoffs: Sequence[float]) -> float:
    """Return the round-off of a stencil's quotient, where the values' errors are at random.

    A difference's own round-off is the bound on two errors that add up.
    """
    return math.hypot(*map(operator.mul, STENCILS[2 * len(roundoffs) + 1], roundoffs)) / math.sqrt(2)
