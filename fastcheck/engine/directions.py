"""Directions: all dimensions of a case at once, with a limit of detection and a chance of missing.

With s random signs over all dimensions and sigma a weight for each tensor, the derivative of the loss along sigma * s
must equal the sum of sigma_i s_i a_i within a bar. **A gradient with any entry off by more than 2 bar / sigma is missed
by one direction with a chance of at most 1/2, whatever the other entries' errors are**: given all other signs, the two
values that the sum of errors can take are 2 sigma |error| > 4 bar apart, so that at most one of them lies within
2 bar of zero; outside, the quotient's own error, at most one bar, cannot hide it. k directions with independent signs
miss it with a chance of at most 2^-k. Uniform weights in [0, 1) have no such bound.

The tensors' weights are balanced (`random_signs.Weights`), so that the limit of detection, relative to a tensor's
typical gradient, is alike for all. The gradient only sets weights; `GUARDS` further directions move every tensor in
proportion to its own size.

How the loss is differenced along a line is each kind of case's own: `Lines`.

Rounding of the analytic gradient is bounded entry by entry, and the signs are drawn after it was computed: by
Hoeffding's inequality its sum exceeds `LIKELY` times the root of the sum of squares with a chance of 2 exp(-32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.precision import U
from fastcheck.engine import random_signs
from fastcheck.engine.differences import Evaluator
from fastcheck.engine.magnitudes import rms
from fastcheck.engine.random_signs import Arrays, Weights
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

PILOTS = 3
"""Directions by which a step is chosen."""

FEW = 3
"""Directions that contradict the gradient with a search of their own before the others' searches are spared. Fewer
decide nothing where no wrong entry is found: a bar may be small."""


class Line(NamedTuple):
    """A line through the point, and what the gradient says of it.

    Attributes
    ----------
    number : int
        That of the direction; -1 for a line on which a single entry moves.
    moves : dict of str to float64 array
        Move of each entry for a step of 1; tensors without moves stay.
    analytic, error : float
        The derivative along it that the gradient gives, and the bound on its rounding.
    """

    number: int
    moves: Arrays
    analytic: float
    error: float


class Quotient(NamedTuple):
    """The derivative along a line, by differences.

    Attributes
    ----------
    numeric, bar, step : float
        nan and infinity for the first two where no value is finite.
    at_kink : bool
        Whether the point itself lies at a kink, where any subgradient may be right.
    searched : bool
        Whether the step is the line's own, or no other could say more.
    """

    numeric: float
    bar: float
    step: float
    at_kink: bool = False
    searched: bool = True


class Lines(Protocol):
    """A case that can be differenced along lines on which many entries move at once.

    Attributes
    ----------
    params : mapping of str to float64 array
        The tensors with a gradient.
    spare : int
        Directions beyond those that count: `SPARE` where kinks may crowd.
    rigorous : bool
        Whether bars are proved, rather than measured: then an entry that lies within a wide bar of its own does not
        overrule what directions say.
    calls : int
        Calls of the loss so far.
    usable : bool
        Whether the loss is of a size that differences can show.
    """

    spare: int
    rigorous: bool

    @property
    def calls(self) -> int: ...

    @property
    def params(self) -> Mapping[str, np.ndarray]: ...

    @property
    def usable(self) -> bool: ...

    def size(self, name: str) -> float:
        """Return the typical size of a tensor's entries."""
        ...

    def label(self, name: str) -> str:
        """Return the user's name for a tensor."""
        ...

    def choose_step(self, lines: Sequence[Line]) -> None:
        """Choose the step of all directions by a few."""
        ...

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step."""
        ...

    def searched(self, line: Line) -> Quotient:
        """Difference along a line with a step of its own."""
        ...

    def part(self, moves: Arrays, like: Direction) -> Quotient:
        """Difference along a line on which a part of the entries move as they do in a direction."""
        ...


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
    searched: bool = True

    @property
    def finite(self) -> bool:
        """Whether some step gives finite values, as far as is known."""
        return not (self.searched and math.isnan(self.numeric))

    @property
    def fails(self) -> bool:
        """Whether the gradient contradicts the differences."""
        return self.finite and not self.at_kink and not abs(self.numeric - self.analytic) <= self.bar


@dataclass
class Directions:
    """Directions over all dimensions of a case.

    Parameters
    ----------
    lines : Lines
    grads : mapping of str to array
        The analytic gradient.
    errors : mapping of str to float64 array
        Bounds on its rounding, entry by entry.
    seed, count : int
    check : callable
        Called before every direction; may raise, after Ctrl-C.
    mapped : callable
        Maps a function over numbers, perhaps in parallel: ``map``, or that of an executor.
    weighing : mapping of str to float64 array, optional
        A gradient that sets the weights; by default, the analytic one.
    progress : callable
        Called as progress(done, total) after every direction, in this thread.

    Attributes
    ----------
    gradient : dict of str to float64 array
        The analytic gradient, with entries that were found wrong replaced by their numeric values.
    done : list of Direction
        The balanced directions.
    guards : list of Direction
    named : dict of str to list of int
        Flat indices of entries that a search for the error ended at.
    slices : dict of str to tuple
        Where more entries of a tensor are wrong than are named: for each axis, the index at which all lie, or None.
    contradicting : int
        Number of directions that contradict the gradient as it was given.
    explained : bool
        Whether the entries found explain all of what the directions see.
    trusted : bool
        Whether entries that the directions point to are wrong by themselves, too.
    """

    lines: Lines
    grads: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]
    seed: int
    count: int
    check: Callable[[], None]
    mapped: Callable[[Callable[[int], Direction], range], Iterable[Direction]] = map
    weighing: Mapping[str, np.ndarray] | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    done: list[Direction] = field(default_factory=list)
    guards: list[Direction] = field(default_factory=list)
    named: dict[str, list[int]] = field(default_factory=dict)
    slices: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    contradicting: int = 0
    explained: bool = False
    trusted: bool = True

    def __post_init__(self) -> None:
        self.gradient = finite_values(self.grads)
        self._norms = {name: self._norms_of(name, slice(None)) for name in self.gradient}

    def run(self) -> None:
        """Difference all directions."""
        if not self.lines.usable:
            return  # differences of such a loss have few digits, or overflow
        weights = Weights(self.lines, self.gradient if self.weighing is None else self.weighing)
        total = self.count + self.lines.spare
        self.lines.choose_step([self._line(number, weights.balanced) for number in range(min(PILOTS, total))])
        every = range(total + GUARDS)
        for one in self.mapped(lambda k: self._differenced(k, weights.balanced if k < total else weights.own), every):
            (self.done if one.number < total else self.guards).append(one)
            self.progress(one.number + 1, len(every))
        self.settle()
        self.contradicting = len(self.failing)

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
                self.check()
                line = self._line(one.number, one.weights)
                self._replace(one, _judged(line, one.weights, self.lines.searched(line)))

    def limits(self) -> dict[str, float]:
        """Return each tensor's limit of detection: the error of an entry that the directions do not miss."""
        counted = self.counted
        return {
            name: 2 * max((one.bar / one.weights[name] for one in counted), default=math.inf)
            for name in self.lines.params
        }

    @property
    def chance(self) -> float:
        """The chance of missing an error above the limit."""
        return 2.0 ** -len(self.counted)

    def described(self) -> dict[str, Any]:
        """Return the directions as a report keeps them."""
        limits = self.limits()
        typical = {name: rms(self.gradient[name]) for name in limits}
        relative = {name: limits[name] / typical[name] if typical[name] else math.inf for name in limits}
        return {
            "count": len(self.counted),
            "guards": len(self.done) + len(self.guards) - len(self.counted),
            "dims": sum(array.size for array in self.lines.params.values()),
            "calls": self.lines.calls,
            "failing": self.contradicting,
            "chance_of_missing": self.chance if self.trusted else 1.0,
            "limit_of_detection": limits,
            "relative_limit": relative,
            "named": {name: list(dims) for name, dims in self.named.items()},
        }

    def confirm(self, name: str, evaluator: Evaluator, grad: np.ndarray) -> None:
        """Difference the entries of a tensor that the directions point to by themselves; none may be right."""
        if self.lines.rigorous or not self.named.get(name):
            return
        for block in evaluator.blocks(np.array(sorted(self.named[name]), dtype=np.int64)):
            differences = evaluator(block)
            analytic = grad.reshape(-1)[differences.dims].astype(np.float64)
            right = np.abs(analytic - differences.numeric) <= differences.error_bar
            self.trusted = self.trusted and not right.any()

    def finding(self, failed: bool) -> HealthFinding | None:
        """Return what the directions say of the gradient; None where they agree with it.

        It decides the verdict, unless the check has ``failed`` already, by entries that were differenced one by one.
        """
        if not self.contradicting:
            return None
        if not self.trusted:
            return health.directions_distrusted()
        params = self.lines.params
        places = [
            f"{self.lines.label(name)}{list(index_of(dim, params[name].shape))}"
            for name, dims in self.named.items()
            for dim in dims
        ]
        total = sum(array.size for array in params.values())
        count = len(self.done) + len(self.guards)
        parts = [f"{self.lines.label(name)}{_written(index)}" for name, index in self.slices.items()]
        finding = health.directions_disagree(
            self.contradicting, count, total, places, tuple(self.named), self.explained, parts
        )
        if failed:
            return finding._replace(verdict=None, advice="")
        decides = self.named or self.contradicting >= FEW
        return finding if decides else finding._replace(verdict="inconclusive")

    def error(self, weights: Mapping[str, float], only: Mapping[str, slice] | None = None) -> float:
        """Bound the error of the analytic sum over all entries, or over some."""
        parts = self._norms if only is None else {name: self._norms_of(name, part) for name, part in only.items()}
        errors = math.hypot(*(weights[name] * own for name, (own, _) in parts.items()))
        values = math.hypot(*(weights[name] * own for name, (_, own) in parts.items()))
        return LIKELY * errors + SUMS * U * values

    def patch(self, name: str, dim: int, value: float, slack: float) -> None:
        """Put another value, known within some slack, in place of one entry of the gradient, and judge all again."""
        change = value - float(self.gradient[name].reshape(-1)[dim])
        self.gradient[name] = self.gradient[name].copy()
        self.gradient[name].reshape(-1)[dim] = value
        self._norms[name] = self._norms_of(name, slice(None))
        for one in (*self.done, *self.guards):
            weight = one.weights[name]
            analytic = one.analytic + weight * self._sign(one.number, name, dim) * change
            self._replace(one, one._replace(analytic=analytic, bar=one.bar + weight * slack))
        self.settle()

    # One direction

    def _differenced(self, number: int, weights: dict[str, float]) -> Direction:
        """Difference a direction with the chosen step."""
        self.check()
        line = self._line(number, weights)
        return _judged(line, weights, self.lines.differenced(line))

    def _line(self, number: int, weights: dict[str, float]) -> Line:
        moves = random_signs.moves(self.lines.params, self.seed, number, weights)
        # Not a dot product of BLAS, which depends on its threads, and waits for them.
        analytic = math.fsum(float((self.gradient[name] * move).sum()) for name, move in moves.items())
        return Line(number, moves, analytic, self.error(weights))

    def _replace(self, one: Direction, other: Direction) -> None:
        for several in (self.done, self.guards):
            several[:] = [other if each is one else each for each in several]

    def _sign(self, number: int, name: str, dim: int) -> int:
        position = list(self.lines.params).index(name)
        return int(random_signs.signs(self.seed, number, position, self.lines.params[name].size)[dim])

    def _norms_of(self, name: str, part: slice) -> tuple[float, float]:
        """Return the roots of the sums of squares of a gradient's errors and values, over part of it."""
        return norm(self.errors[name].reshape(-1)[part]), norm(self.gradient[name].reshape(-1)[part])


def _judged(line: Line, weights: dict[str, float], found: Quotient) -> Direction:
    bar = found.bar + line.error
    return Direction(line.number, weights, found.numeric, line.analytic, bar, found.step, found.at_kink, found.searched)


def _written(index: tuple[int | None, ...]) -> str:
    """Return an index as Python writes it, such as "[3, :]"."""
    return f"[{', '.join(':' if one is None else str(one) for one in index)}]"


def _excess(one: Direction) -> float:
    """Return by how many bars a direction is off."""
    apart = abs(one.numeric - one.analytic)
    return math.inf if math.isnan(apart) else apart / max(one.bar, 5e-324)


def finite_values(grads: Mapping[str, np.ndarray]) -> Arrays:
    """Return a gradient in float64, with zeros for what is not finite and fails anyway."""
    values = {name: grad.astype(np.float64) for name, grad in grads.items()}
    return {name: np.where(np.isfinite(value), value, 0.0) for name, value in values.items()}


def norm(values: np.ndarray) -> float:
    """Return the root of the sum of squares, without overflow or underflow."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.linalg.norm(values / largest)) if 0 < largest < math.inf else largest
