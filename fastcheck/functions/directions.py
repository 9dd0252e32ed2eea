"""Directions: all dimensions of a function at once, with a limit of detection and a chance of missing.

With s random signs over all dimensions and sigma a weight for each tensor, the derivative of the loss along sigma * s
must equal the sum of sigma_i s_i a_i within a bar. **A gradient with any entry off by more than 2 bar / sigma is missed
by one direction with a chance of at most 1/2, whatever the other entries' errors are**: given all other signs, the two
values that the sum of errors can take are 2 sigma |error| > 4 bar apart, so that at most one of them lies within
2 bar of zero; outside, the quotient's own error, at most one bar, cannot hide it. k directions with independent signs
miss it with a chance of at most 2^-k. Uniform weights in [0, 1) have no such bound.

The tensors' weights are balanced (`random_signs.Weights`), so that the limit of detection, relative to a tensor's
typical gradient, is alike for all. The gradient only sets weights; `GUARDS` further directions move every tensor in
proportion to its own size.

A few pilots show the step with the least bar. All directions take it, by the five-point stencil: four values each. The
part of their bars for truncation and kinks is the pilots'. Where a direction contradicts the gradient, a search of its
own decides.

Rounding of the analytic gradient is bounded entry by entry, and the signs are drawn after it was computed: by
Hoeffding's inequality its sum exceeds `LIKELY` times the root of the sum of squares with a chance of 2 exp(-32).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.precision import U
from fastcheck.engine.magnitudes import rms
from fastcheck.functions import ecnoise, opinions, random_signs
from fastcheck.functions.along import Line, Surroundings
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.noise import LOSS_SAMPLES, LOSS_SPACINGS
from fastcheck.functions.random_signs import Weights
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES, Estimate, Level, Search, exponent_of
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding

COUNT = 20
"""Directions by default: they miss an error above the limit with a chance of 2^-20, about one in a million."""

SPARE = 4
"""Directions beyond those that the limit of detection counts: the ones with the widest bars, where kinks crowd. Bars
depend on the loss and not on the gradient's errors, so the choice favours none."""

GUARDS = 2
"""Further directions, which move every tensor in proportion to its own size."""

LIKELY = 8.0
"""Root sums of squares that a sum with random signs stays within, but for a chance of 2 exp(-32)."""

SUMS = 32.0
"""Round-offs by which the analytic sum may be off, in units of the root of the sum of its terms' squares."""

UNDERFLOW = 1e-290
"""Losses whose values and changes are smaller, or larger than its inverse, show nothing."""

PILOTS = 3
"""Directions that search for the step."""

SMOOTH = 2 / 15
"""Factor on the pilots' truncation and kinks in all bars. A smooth function errs by a fifteenth of what twice the step
changes; a direction that bends more than twice as much as all pilots, or crosses a kink, contradicts a right gradient,
and is then searched."""

START = -13
"""Start of the first pilot's search, as a power of two: about the cube root of the unit round-off."""

ROUNDS = 6
"""Steps to try for the first pilot, and for a direction that contradicts the gradient."""

FEW = 3
"""Directions that contradict the gradient with a search of their own before the others' searches are spared. Fewer
decide nothing where no wrong entry is found: a bar may be small."""


class Direction(NamedTuple):
    """What one direction gave.

    Attributes
    ----------
    number : int
        Seeds its signs.
    weights : dict of str to float
        Move of each tensor's entries.
    numeric, analytic, bar : float
        The derivative along it, by differences and from the gradient, and the bound on their difference.
    step : float
    at_kink : bool
        Whether the point itself lies at a kink, where any subgradient may be right.
    finite : bool
        Whether any step gave finite values.
    searched : bool
        Whether its step is its own.
    """

    number: int
    weights: dict[str, float]
    numeric: float
    analytic: float
    bar: float
    step: float
    at_kink: bool = False
    finite: bool = True
    searched: bool = True

    @property
    def fails(self) -> bool:
        """Whether the gradient contradicts the differences."""
        return self.finite and not self.at_kink and not abs(self.numeric - self.analytic) <= self.bar


@dataclass
class Directions:
    """Directions over all dimensions of a case.

    Parameters
    ----------
    case : FunctionCase
    errors : mapping of str to float64 array
        Bounds on the rounding of the analytic gradient (`fastcheck.functions.noise.of_gradient`).
    seed, count : int
    check : callable
        Called before every direction; may raise, after Ctrl-C.
    mapped : callable
        Maps a function over numbers, perhaps in parallel: ``map``, or that of an executor.

    Attributes
    ----------
    done : list of Direction
        The balanced directions.
    guards : list of Direction
    named : dict of str to list of int
        Flat indices of entries that a search for the error ended at.
    near : Surroundings
    contradicting : int
        Number of directions that contradict the gradient as it was given.
    explained : bool
        Whether the entries found explain all of what the directions see.
    trusted : bool
        Whether entries that the directions point to are wrong by themselves, too.
    """

    case: FunctionCase
    errors: Mapping[str, np.ndarray]
    seed: int
    count: int
    check: Callable[[], None]
    mapped: Callable[[Callable[[int], Direction], range], Iterable[Direction]] = map
    done: list[Direction] = field(default_factory=list)
    guards: list[Direction] = field(default_factory=list)
    named: dict[str, list[int]] = field(default_factory=dict)
    contradicting: int = 0
    explained: bool = False
    trusted: bool = True

    def __post_init__(self) -> None:
        self.near = Surroundings(self.case)
        self.gradient: Arrays = {}
        self._squares: dict[str, tuple[float, float]] = {}
        self._step, self._common = START, 0.0

    def run(self) -> None:
        """Difference all directions."""
        self.gradient = {name: _finite(grad) for name, grad in self.case.grads.items()}
        self._squares = {name: self._squares_of(name, slice(None)) for name in self.gradient}
        if not UNDERFLOW < max(abs(self.case.start), self.case.promised) < 1 / UNDERFLOW:
            return  # differences of such a loss have few digits, or overflow
        weights, total = Weights(self.case, self.gradient), self.count + SPARE
        self.near.noise = self._measured_noise(weights.balanced)
        lines = [self._line(number, weights.balanced) for number in range(min(PILOTS, total))]
        searches = self._choose_step(lines)
        pilots = [
            self._judged(number, weights.balanced, lines[number], search.level)
            for number, search in enumerate(searches)
        ]
        rest, beyond = range(len(pilots), total), range(total, total + GUARDS)
        self.done = [*pilots, *self.mapped(lambda number: self._differenced(number, weights.balanced), rest)]
        self.guards = list(self.mapped(lambda number: self._differenced(number, weights.own), beyond))
        self.settle()
        self.contradicting = len(self.failing)

    def finish(self) -> None:
        """Check that the loss left its arguments as they were."""
        self.near.refuse_changes()

    @property
    def failing(self) -> list[Direction]:
        """The directions that contradict the gradient, the one furthest outside its bar first."""
        failing = [one for one in (*self.done, *self.guards) if one.fails]
        return sorted(failing, key=lambda one: -_excess(one))

    @property
    def counted(self) -> list[Direction]:
        """The directions that the limit of detection and the chance of missing speak of: those with the least bars."""
        usable = [one for one in self.done if one.finite and not one.at_kink]
        return sorted(usable, key=lambda one: one.bar)[: self.count]

    def settle(self) -> None:
        """Search for a step of its own for each direction that fails, until a few of them fail nevertheless."""
        for one in self.failing:
            if sum(other.searched for other in self.failing) >= FEW:
                return
            if not one.searched:
                self._replace(one, self._searched(one.number, one.weights))

    def limits(self) -> dict[str, float]:
        """Return each tensor's limit of detection: the error of an entry that the directions do not miss."""
        counted = self.counted
        return {
            name: 2 * max((one.bar / one.weights[name] for one in counted), default=math.inf)
            for name in self.case.params
        }

    @property
    def chance(self) -> float:
        """The chance of missing an error above the limit."""
        return 2.0 ** -len(self.counted)

    def described(self) -> dict[str, object]:
        """Return the directions as a report keeps them."""
        limits = self.limits()
        typical = {name: rms(self.gradient[name]) for name in limits}
        relative = {name: limits[name] / typical[name] if typical[name] else math.inf for name in limits}
        return {
            "count": len(self.counted),
            "guards": len(self.done) + len(self.guards) - len(self.counted),
            "dims": sum(array.size for array in self.case.params.values()),
            "calls": self.near.calls,
            "failing": self.contradicting,
            "chance_of_missing": self.chance if self.trusted else 1.0,
            "limit_of_detection": limits,
            "relative_limit": relative,
            "named": {name: list(dims) for name, dims in self.named.items()},
        }

    def finding(self, failed: bool) -> HealthFinding | None:
        """Return what the directions say of the gradient; None where they agree with it.

        It decides the verdict, unless the check has ``failed`` already, by entries that were differenced one by one.
        """
        if not self.contradicting:
            return None
        if not self.trusted:
            return health.directions_distrusted()
        total = sum(array.size for array in self.case.params.values())
        places = [
            f"{self.case.label(name)}{list(index_of(dim, self.case.params[name].shape))}"
            for name, dims in self.named.items()
            for dim in dims
        ]
        count = len(self.done) + len(self.guards)
        finding = health.directions_disagree(
            self.contradicting, count, total, places, tuple(self.named), self.explained
        )
        if failed:
            return finding._replace(verdict=None, advice="")
        decides = self.named or self.contradicting >= FEW
        return finding if decides else finding._replace(verdict="inconclusive")

    def error(self, weights: Mapping[str, float], only: Mapping[str, slice] | None = None) -> float:
        """Bound the error of the analytic sum over all entries, or over some."""
        parts = self._squares if only is None else {name: self._squares_of(name, part) for name, part in only.items()}
        errors = sum(weights[name] ** 2 * own for name, (own, _) in parts.items())
        values = sum(weights[name] ** 2 * own for name, (_, own) in parts.items())
        return LIKELY * math.sqrt(errors) + SUMS * U * math.sqrt(values)

    def patch(self, name: str, dim: int, value: float, slack: float) -> None:
        """Put another value, known within some slack, in place of one entry of the gradient, and judge all again."""
        change = value - float(self.gradient[name].reshape(-1)[dim])
        self.gradient[name] = self.gradient[name].copy()
        self.gradient[name].reshape(-1)[dim] = value
        self._squares[name] = self._squares_of(name, slice(None))
        for one in (*self.done, *self.guards):
            weight = one.weights[name]
            analytic = one.analytic + weight * self._sign(one.number, name, dim) * change
            self._replace(one, one._replace(analytic=analytic, bar=one.bar + weight * slack))
        self.settle()

    def line(self, moves: Arrays, analytic: float, error: float) -> Line:
        """Return the loss along a line."""
        return Line(self.near, moves, analytic, error)

    def best(self, line: Line) -> Estimate | None:
        """Search for the step along a line; return the estimate after second opinions, None without finite values."""
        search = line.search()
        estimate = search.best(self._step, ROUNDS)
        return estimate and opinions.decided(line, search, estimate, False)

    # One direction

    def _choose_step(self, lines: list[Line]) -> list[Search]:
        """Choose the step with the least bar for a few directions, and what it holds beside round-off.

        The first direction is searched; from its step, those with less and less of a bar for all of them are tried.
        """
        searches = [line.search() for line in lines]
        first = searches[0].best(START, 2 * ROUNDS)
        bars = functools.cache(functools.partial(_common_bar, searches))
        self._step = START if first is None else exponent_of(first.step)
        for stride in (1, -1):
            while bars(self._step + stride).whole < bars(self._step).whole:
                self._step += stride
        self._common = bars(self._step).rest
        return searches

    def _differenced(self, number: int, weights: dict[str, float]) -> Direction:
        """Difference a direction with the chosen step."""
        self.check()
        line = self._line(number, weights)
        return self._judged(number, weights, line, line.level)

    def _judged(
        self, number: int, weights: dict[str, float], line: Line, level: Callable[[int], Level | None]
    ) -> Direction:
        near, far, step = level(self._step), level(self._step + 1), math.ldexp(1.0, self._step)
        if near is None or far is None:
            return Direction(number, weights, math.nan, line.analytic, math.inf, step, searched=False)
        bar = _independent(near, far) + self._common + line.error
        numeric = (4 * near.central - far.central) / 3
        return Direction(number, weights, numeric, line.analytic, bar, step, searched=False)

    def _searched(self, number: int, weights: dict[str, float]) -> Direction:
        """Difference a direction with a step of its own."""
        self.check()
        line = self._line(number, weights)
        estimate = self.best(line)
        if estimate is None:
            step = math.ldexp(1.0, self._step)
            return Direction(number, weights, math.nan, line.analytic, math.inf, step, finite=False)
        at_kink, bar = estimate.jump > estimate.bar / 2, estimate.bar + line.error
        return Direction(number, weights, estimate.numeric, line.analytic, bar, estimate.step, at_kink)

    def _line(self, number: int, weights: dict[str, float]) -> Line:
        moves = random_signs.moves(self.case, self.seed, number, weights)
        analytic = math.fsum(float(np.vdot(self.gradient[name], move)) for name, move in moves.items())
        return self.line(moves, analytic, self.error(weights))

    def _replace(self, one: Direction, other: Direction) -> None:
        for several in (self.done, self.guards):
            several[:] = [other if each is one else each for each in several]

    def _sign(self, number: int, name: str, dim: int) -> int:
        position = list(self.case.params).index(name)
        return int(random_signs.signs(self.seed, number, position, self.case.params[name].size)[dim])

    def _squares_of(self, name: str, part: slice) -> tuple[float, float]:
        """Return the sums of squares of a gradient's errors and values, over part of it."""
        errors, values = self.errors[name].reshape(-1)[part], self.gradient[name].reshape(-1)[part]
        return float(errors @ errors), float(values @ values)

    # Noise

    def _measured_noise(self, weights: dict[str, float]) -> float:
        moves = random_signs.moves(self.case, self.seed, 0, weights)

        def sample(distance: float) -> np.ndarray:
            return np.array(self.near.value(moves, distance))

        measured = float(ecnoise.measured(sample, LOSS_SAMPLES, LOSS_SPACINGS, more=1))
        levels = [self.case.scatter, self.case.accuracy / NOISES, U / 2 * abs(self.case.start), 5e-324]
        levels += [] if math.isnan(measured) else [measured]
        return math.hypot(max(levels), self._rounding_of_moves())

    def _rounding_of_moves(self) -> float:
        """Return the effect on the loss of rounding x + h d to float64: entries err by up to half a spacing each."""
        squares = 0.0
        for name, array in self.case.params.items():
            spread = np.spacing(np.abs(array)) * self.gradient[name]
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


def _excess(one: Direction) -> float:
    """Return by how many bars a direction is off."""
    apart = abs(one.numeric - one.analytic)
    return math.inf if math.isnan(apart) else apart / max(one.bar, 5e-324)


def _finite(grad: np.ndarray) -> np.ndarray:
    """Return a gradient in float64, with zeros for what is not finite and fails anyway."""
    values = grad.astype(np.float64)
    return np.where(np.isfinite(values), values, 0.0)
