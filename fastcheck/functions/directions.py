"""Directions: all dimensions of a function at once, with a limit of detection and a chance of missing.

With s random signs over all dimensions and sigma a weight for each tensor, the derivative of the loss along sigma * s
must equal the sum of sigma_i s_i a_i within a bar. **A gradient with any entry off by more than 2 bar / sigma is missed
by one direction with a chance of at most 1/2, whatever the other entries' errors are**: given all other signs, the two
values that the sum of errors can take are 2 sigma |error| > 4 bar apart, so that at most one of them lies within
2 bar of zero; outside, the quotient's own error, at most one bar, cannot hide it. k directions with independent signs
miss it with a chance of at most 2^-k. Uniform weights in [0, 1) have no such bound.

The tensors' weights are balanced: sigma = rms(x) / sqrt(promise), where the promise is the change of the loss that the
analytic gradient promises for moving a tensor by its own size. So every tensor contributes alike to the sum, and the
limit of detection, relative to its typical gradient, is alike for all. The gradient only sets weights: a floor moves
tensors whose gradient is zero, and `GUARDS` further directions move every tensor by its own size.

Rounding of the analytic gradient is bounded entry by entry, and the signs are drawn after it was computed: by
Hoeffding's inequality its sum exceeds `LIKELY` times the root of the sum of squares with a chance of 2 exp(-32).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.precision import U
from fastcheck.engine.magnitudes import rms
from fastcheck.functions import ecnoise, opinions
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.noise import LOSS_SAMPLES, LOSS_SPACINGS
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES, Estimate, Level, Search, exponent_of
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding

COUNT = 20
"""Directions by default: they miss an error above the limit with a chance of 2^-20, about one in a million."""

SPARE = 4
"""Directions beyond those that the limit of detection counts: the ones with the widest bars, where kinks crowd. Bars
depend on the loss and not on the gradient's errors, so the choice favours none."""

GUARDS = 4
"""Further directions, which move every tensor by its own size."""

FLOOR = 2.0**-16
"""Least promise of a tensor, as a fraction of the largest: one whose gradient is zero must still be moved."""

LIKELY = 8.0
"""Root sums of squares that a sum with random signs stays within, but for a chance of 2 exp(-32)."""

SUMS = 32.0
"""Round-offs by which the analytic sum may be off, in units of the root of the sum of its terms' squares."""

UNDERFLOW = 1e-290
"""Losses whose values and changes are smaller, or larger than its inverse, show nothing."""

PILOTS = 3
"""Directions that search for the step at which the others start."""

START = -13
"""Start of that search, as a power of two. The cube root of the unit round-off is right for tensors moved by their own
size; balanced ones move by less."""

LEAST, MOST = -50, 6
"""Smallest and largest step, as powers of two."""

ROUNDS = 6
"""Steps to try for a pilot."""

TRIES = 4
"""Times with fresh signs that each half of an index range is tried, where an error is looked for."""

CLEAR = 3.0
"""Bars by which a range must be off for an error to be looked for in it."""

FEW = 3
"""Fewer directions that contradict the gradient decide nothing where no wrong entry is found: a bar may be small."""

NAMED = 8
"""Largest number of wrong entries that are looked for."""


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
    """

    number: int
    weights: dict[str, float]
    numeric: float
    analytic: float
    bar: float
    step: float
    at_kink: bool
    finite: bool = True

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
    calls : int
        Calls of the loss.
    noise : float
        Standard deviation of the loss's rounding where everything moves, and of the moved entries'.
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
    calls: int = 0
    noise: float = 0.0
    contradicting: int = 0
    explained: bool = False
    trusted: bool = True
    _start: int = START
    _gradient: Arrays = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def run(self) -> None:
        """Difference all directions, and look for wrong entries where one fails."""
        self._gradient = {name: _finite(grad) for name, grad in self.case.grads.items()}
        balanced, own = self._balanced(), self._own_sizes()
        if not UNDERFLOW < max(abs(self.case.start), self.case.promised) < 1 / UNDERFLOW:
            return  # differences of such a loss have few digits, or overflow
        self.noise = self._measured_noise(balanced)
        total = self.count + SPARE
        pilots = [self._differenced(number, balanced, ROUNDS) for number in range(min(PILOTS, total))]
        steps = sorted(exponent_of(one.step) for one in pilots if one.finite)
        self._start = steps[len(steps) // 2] if steps else START
        rest = range(len(pilots), total)
        self.done = [*pilots, *self.mapped(lambda number: self._differenced(number, balanced, 1), rest)]
        beyond = range(total, total + GUARDS)
        self.guards = list(self.mapped(lambda number: self._differenced(number, own, 2), beyond))
        self.contradicting = len(self.failing)
        if self.contradicting:
            self._localise()

    @property
    def failing(self) -> list[Direction]:
        """The directions that contradict the gradient, the one furthest outside its bar first."""
        failing = [one for one in (*self.done, *self.guards) if one.fails]
        return sorted(failing, key=lambda one: -abs(one.numeric - one.analytic) / max(one.bar, 5e-324))

    @property
    def counted(self) -> list[Direction]:
        """The directions that the limit of detection and the chance of missing speak of: those with the least bars."""
        usable = [one for one in self.done if one.finite and not one.at_kink]
        return sorted(usable, key=lambda one: one.bar)[: self.count]

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
        typical = {name: rms(self._gradient[name]) for name in limits}
        relative = {name: limits[name] / typical[name] if typical[name] else math.inf for name in limits}
        return {
            "count": len(self.counted),
            "guards": len(self.done) + len(self.guards) - len(self.counted),
            "dims": sum(array.size for array in self.case.params.values()),
            "calls": self.calls,
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

    # One direction

    def _signs(self, number: int) -> Iterator[tuple[str, np.ndarray]]:
        for position, (name, array) in enumerate(self.case.params.items()):
            rng = np.random.default_rng([self.seed, 7919, number, position])
            yield name, 2.0 * rng.integers(0, 2, array.shape, dtype=np.int8) - 1.0

    def _differenced(self, number: int, weights: dict[str, float], rounds: int) -> Direction:
        self.check()
        moves = {name: weights[name] * signs for name, signs in self._signs(number)}
        analytic = math.fsum(float(np.vdot(self._gradient[name], move)) for name, move in moves.items())
        error = self._error(weights)
        line = _Line(self, moves, analytic, error)
        search = line.search()
        estimate = search.best(self._start, rounds)
        if estimate is not None:
            estimate = opinions.decided(line, search, estimate, False)
        if estimate is None:
            return Direction(number, weights, math.nan, analytic, math.inf, 2.0**self._start, False, finite=False)
        at_kink = estimate.jump > estimate.bar / 2
        return Direction(number, weights, estimate.numeric, analytic, estimate.bar + error, estimate.step, at_kink)

    def _error(self, weights: dict[str, float], only: Mapping[str, slice] | None = None) -> float:
        """Bound the error of the analytic sum over all entries, or over some."""
        squares = [0.0, 0.0]
        for name, grad in self._gradient.items():
            part = slice(None) if only is None else only.get(name, slice(0))
            errors, values = self.errors[name].reshape(-1)[part], grad.reshape(-1)[part]
            squares[0] += weights[name] ** 2 * float(errors @ errors)
            squares[1] += weights[name] ** 2 * float(values @ values)
        return LIKELY * math.sqrt(squares[0]) + SUMS * U * math.sqrt(squares[1])

    def value(self, moves: Arrays, by: float) -> float:
        """Evaluate the loss at the point moved by so many times the moves."""
        with self._lock:
            self.calls += 1
        arrays = {name: _moved(array, moves.get(name), by) for name, array in self.case.params.items()}
        return self.case.value(arrays, lambda: f"with all of params moved by {by:g} of their size")

    # Weights and noise

    def _own_sizes(self) -> dict[str, float]:
        return {name: self.case.size(name) for name in self.case.params}

    def _balanced(self) -> dict[str, float]:
        sizes = self._own_sizes()
        promises = {
            name: size * float(np.linalg.norm(self._gradient[name].reshape(-1))) for name, size in sizes.items()
        }
        largest = max(promises.values())
        if not 0 < largest < math.inf:
            return sizes
        # A tensor moves by its own size at most, and by a fraction sqrt(FLOOR) of it at least.
        return {name: size * math.sqrt(FLOOR / max(promises[name] / largest, FLOOR)) for name, size in sizes.items()}

    def _measured_noise(self, weights: dict[str, float]) -> float:
        moves = {name: weights[name] * signs for name, signs in self._signs(0)}

        def sample(distance: float) -> np.ndarray:
            return np.array(self.value(moves, distance))

        measured = float(ecnoise.measured(sample, LOSS_SAMPLES, LOSS_SPACINGS, more=1))
        levels = [self.case.scatter, self.case.accuracy / NOISES, U / 2 * abs(self.case.start), 5e-324]
        levels += [] if math.isnan(measured) else [measured]
        return math.hypot(max(levels), self._rounding_of_moves())

    def _rounding_of_moves(self) -> float:
        """Return the effect on the loss of rounding x + h d to float64: entries err by up to half a spacing each."""
        squares = 0.0
        for name, array in self.case.params.items():
            spread = np.spacing(np.abs(array)) * self._gradient[name]
            squares += float(np.vdot(spread, spread)) / 12
        return math.sqrt(squares)

    # Looking for the error

    def _localise(self) -> None:
        """Find wrong entries by halving, one after another, until the directions agree with what is found."""
        worst = self.failing[0]
        for attempt in range(NAMED):
            found = self._descend(worst, attempt)
            if found is None:
                return
            name, dim = found
            if dim in self.named.get(name, []):
                return
            self.named.setdefault(name, []).append(dim)
            if not self._patch(worst, name, dim):
                self.named[name].remove(dim)
                self.named = {key: dims for key, dims in self.named.items() if dims}
                return
            remaining = self.failing
            if not remaining:
                self.explained = True
                return
            worst = remaining[0]

    def _descend(self, worst: Direction, attempt: int) -> tuple[str, int] | None:
        """Halve the range of all dimensions, with fresh signs each time, down to one entry; None where it gets lost."""
        ends = np.cumsum([array.size for array in self.case.params.values()]).tolist()
        low, high, number = 0, ends[-1], 0
        while high - low > 1:
            self.check()
            middle = next((end for end in ends if low < end < high), (low + high) // 2)
            halves = ((low, middle), (middle, high))
            for _ in range(TRIES):
                number += 1
                chosen = next((half for half in halves if self._off(half, worst, attempt * 4096 + number)), None)
                if chosen is not None:
                    break
            else:
                return None
            low, high = chosen
        names = list(self.case.params)
        position = next(i for i, end in enumerate(ends) if low < end)
        return names[position], low - (ends[position - 1] if position else 0)

    def _off(self, part: tuple[int, int], worst: Direction, number: int) -> bool:
        """Return whether the gradient is clearly off along fresh signs in a range of all dimensions."""
        moves, only, start, analytic = Arrays(), dict[str, slice](), 0, 0.0
        rng = np.random.default_rng([self.seed, 104729, number, *part])
        for name, array in self.case.params.items():
            inside = slice(max(part[0] - start, 0), max(min(part[1] - start, array.size), 0))
            start += array.size
            if inside.stop <= inside.start:
                continue
            flat = np.zeros(array.size)
            count = inside.stop - inside.start
            flat[inside] = worst.weights[name] * (2.0 * rng.integers(0, 2, count, dtype=np.int8) - 1.0)
            moves[name], only[name] = flat.reshape(array.shape), inside
            analytic += float(self._gradient[name].reshape(-1)[inside] @ flat[inside])
        near, far = (
            (self.value(moves, step) - self.value(moves, -step)) / (2 * step) for step in (worst.step, 2 * worst.step)
        )
        # As accurate as the directions' own estimate, whichever its stencil.
        numeric = (4 * near - far) / 3
        return bool(abs(numeric - analytic) > CLEAR * (worst.bar + self._error(worst.weights, only)))

    def _patch(self, worst: Direction, name: str, dim: int) -> bool:
        """Difference an entry; where it is off, put its numeric value in place of the analytic one everywhere."""
        move = np.zeros(self.case.params[name].size)
        move[dim] = worst.weights[name]
        only = {name: slice(dim, dim + 1)}
        analytic = float(self._gradient[name].reshape(-1)[dim])
        line = _Line(
            self,
            {name: move.reshape(self.case.params[name].shape)},
            analytic * worst.weights[name],
            self._error(worst.weights, only),
        )
        search = line.search()
        estimate = search.best(self._start, ROUNDS)
        if estimate is None or not line.outside(opinions.decided(line, search, estimate, False)):
            return False
        numeric = estimate.numeric / worst.weights[name]
        change = numeric - analytic
        self._gradient[name] = self._gradient[name].copy()
        self._gradient[name].reshape(-1)[dim] = numeric
        slack = estimate.bar / worst.weights[name]
        self.done = [self._changed(one, name, dim, change, slack) for one in self.done]
        self.guards = [self._changed(one, name, dim, change, slack) for one in self.guards]
        return True

    def _changed(self, one: Direction, name: str, dim: int, change: float, slack: float) -> Direction:
        """Return a direction as it would be with another gradient at one entry, known within some slack."""
        signs = dict(self._signs(one.number))[name].reshape(-1)
        weight = one.weights[name]
        return one._replace(analytic=one.analytic + weight * float(signs[dim]) * change, bar=one.bar + weight * slack)


class _Line:
    """The loss along one direction, differenced as an entry is."""

    def __init__(self, directions: Directions, moves: Arrays, analytic: float, error: float) -> None:
        self._directions, self._moves, self._analytic, self._error = directions, moves, analytic, error

    def outside(self, estimate: Estimate) -> bool:
        """Return whether the analytic value lies outside the error bar."""
        return abs(self._analytic - estimate.numeric) > estimate.bar + self._error

    def own_size(self) -> float:
        """Return the size on which steps are measured."""
        return 1.0

    def own_noise(self) -> float:
        """Return the noise of the loss next to the point."""
        return self._directions.noise

    def search(self, noise: float | None = None) -> Search:
        """Return the search for the step."""
        noise = self._directions.noise if noise is None else noise
        return Search(lambda exponent: self._level(math.ldexp(1.0, exponent), noise), "auto", LEAST, MOST)

    def _level(self, step: float, noise: float) -> Level | None:
        before, after = (self._directions.value(self._moves, side) for side in (-step, step))
        return Level.of(step, (-step, 0.0, step), (before, self._directions.case.start, after), noise)


def _moved(array: np.ndarray, move: np.ndarray | None, by: float) -> np.ndarray:
    """Return a new array, moved by so many times a move."""
    if move is None:
        return array.copy()
    moved = np.multiply(move, by)
    moved += array
    return moved


def _finite(grad: np.ndarray) -> np.ndarray:
    """Return a gradient in float64, with zeros for what is not finite and fails anyway."""
    values = grad.astype(np.float64)
    return np.where(np.isfinite(values), values, 0.0)
