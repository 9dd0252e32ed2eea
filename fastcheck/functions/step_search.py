"""The step and the error bar of a black box, one model for both.

A two-sided difference D(h) of f errs by truncation, about h^2 f'''/6, and by the noise of two values, at most
`NOISES` * noise / h. With f at the point and at three steps h, 2h and 4h, that is six values beside the first, the bar
is the sum of three parts, each measured:

- round-off: noise is the standard deviation of a value (`ecnoise`), and not less than half of its rounding.
- truncation: |D(2h) - D(h)|, three times what the difference of a smooth function errs by. For the five-point stencil
  P(h) = (4 D(h) - D(2h)) / 3, which errs by h^4, it is |P(2h) - P(h)|, fifteen times what that one errs by.
- kink: half of the jump between the one-sided slopes, J(h), extrapolated to h = 0. Of a smooth function next to
  nothing is left: 2 J(h) - J(2h) is of order h^3, and the next extrapolation, for five points, of order h^5.

Truncation and kink together are at least what a single kink in slope can do, wherever it lies, to D as to P
(tests/functions/test_step_search.py): the differences see a part of its jump, and the slopes the rest. Several kinks
can hide each other. What is small beside its neighbours, and should not be, counts for nothing (`_measured`,
`_cancelled`), and the parts are multiplied (`ROUGH`) where the smallest bar is searched for.

A safe multiple of the truncation costs little, since the balanced bar grows with its cube root (fifth root).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from fastcheck.common.precision import WIDE, U

NOISES = 8.0
"""Standard deviations of noise that a value may be off by (lambda). Two values of independent noise make a difference
that exceeds them once in 10^28 checks; what it is for is an estimate of the noise that is too small by a factor of
three, as one in some hundred is, and noise that repeats itself instead of being independent."""

ROUNDS = 6
"""Steps tried for a dimension."""

LAST_ROUND = 12
"""Steps tried where a kink or truncation still makes the bar wide, and smaller ones are left."""

CLEAR = 2.0
"""Times the round-off that a kink must be to be told from it: the noise of the extrapolated jump is a third of that."""

NOISY_JUMP = 5.0
"""Times the round-off that the noise of six values and that at the point can make of half a jump, at most."""

ROUGH = 4.0
"""Times truncation and kink in the bar where the step is searched for. Several kinks may hide each other at one step,
and a search for the smallest bar takes the steps at which they do. A smooth function loses a factor of two by it."""

SWAMPED = 2.0**20
"""Times the value at the point that the moved ones are where a step is far too large for its entry."""

NEARLY = 16.0
"""Times smaller that an extrapolation has to leave an error to be believed: of kinks it takes that much away by chance
once in so many cases."""


class Level(NamedTuple):
    """One step, two-sided.

    Attributes
    ----------
    step : float
    central : float
        Difference quotient over the realised steps.
    jump : float
        Right slope minus left slope.
    roundoff : float
        What the quotient may be off by through the rounding of the values and of the steps.
    growth : float
        How many times as large as the value at the point the moved values are.
    """

    step: float
    central: float
    jump: float
    roundoff: float
    growth: float = 1.0

    @classmethod
    def of(
        cls, step: float, places: tuple[float, float, float], values: tuple[float, float, float], noise: float
    ) -> Level | None:
        """Difference three values, at the places x - h, x and x + h as they were realised.

        Returns None where a value, or what follows from it, is not finite.
        """
        (low, middle, high), (before, here, after) = places, values
        right, left = (after - here) / (high - middle), (here - before) / (middle - low)
        central, jump = (after - before) / (high - low), right - left
        uneven = abs((high - middle) - (middle - low)) / (high - low)
        moved = max(abs(before), abs(after))
        noisy = max(noise, U / 2 * max(moved, abs(here)))
        growth = moved / abs(here) if here else 1.0
        found = cls(step, central, jump, NOISES * noisy * 2 / (high - low) + abs(jump) * uneven, growth)
        return found if all(map(math.isfinite, (*values, central, jump, found.roundoff))) else None

    def contradicts(self, other: Estimate) -> bool:
        """Tell whether this cannot be the loss that another estimate is of, with a larger step.

        Either its derivative is another one, or the slopes to both sides are further apart than with that step.
        """
        bent = max(0.0, other.slope - abs(other.numeric))
        apart, jump = abs(self.central - other.numeric), abs(self.jump) / 2
        return apart > self.roundoff + other.bar or jump > 2 * self.roundoff + other.bar + bent


class Estimate(NamedTuple):
    """A derivative and the parts of its error bar.

    Attributes
    ----------
    numeric : float
    roundoff, truncation, kink : float
        The parts of the error, as measured.
    step : float
    order : int
        Of the truncation error in the step: 2, or 4 of the five-point stencil.
    kinked : bool
        Whether the jump is clear of the noise and does not vanish with the step.
    jump : float
        Half of the interval between the one-sided slopes where the kink is at the point itself, else 0.
    slope : float
        The larger of the two one-sided slopes in size.
    safety : float
        Times truncation and kink in the bar; the jump is measured as well as anything.
    doubt : float
        Part of the bar that another step's contradicting quotient asks for.
    growth : float
        As of the nearest `Level`.
    convex : bool
        Whether the right slope is the larger one.
    """

    numeric: float
    roundoff: float
    truncation: float
    kink: float
    step: float
    order: int
    kinked: bool
    jump: float
    slope: float
    safety: float = 1.0
    doubt: float = 0.0
    growth: float = 1.0
    convex: bool = False

    @property
    def widening(self) -> float:
        """The kink's part of the bar."""
        return self.safety * (self.kink - self.jump) + self.jump

    @property
    def bar(self) -> float:
        """A bound on the error."""
        return self.roundoff + self.safety * self.truncation + self.widening + self.doubt

    def agrees(self, other: Estimate) -> bool:
        """Tell whether both may be right, about the derivative and about a kink, if one of them has met any."""
        noisy = NOISY_JUMP * (self.roundoff + other.roundoff) + self.truncation + other.truncation
        kinks = not (self.kinked or other.kinked) or abs(self.kink - other.kink) <= noisy
        return abs(self.numeric - other.numeric) <= self.bar + other.bar and kinks

    def doubted(self, other: Estimate) -> Estimate:
        """Return this estimate with a bar that holds another one's as well."""
        return self._replace(doubt=self.doubt + abs(self.numeric - other.numeric) + other.bar)

    def shift(self) -> int:
        """Return by which power of two another step would balance the parts better: 0 where they are balanced.

        Truncation that is hidden by round-off asks for a larger step, of unknown size: 1. A jump that the noise can
        explain counts for nothing: that of the value at the point is the same for all dimensions.
        """
        if self.growth > SWAMPED:  # the round-off is that of the moved values, which grow with the step's square
            return -min(_FAR, round(math.log2(self.growth) / 2)) if self.growth < math.inf else -_FAR
        explained = self.truncation + self.kink * (self.kink > CLEAR * self.roundoff)
        if explained <= self.roundoff / 2:
            return int(self.roundoff > 0)
        if not self.roundoff:
            return -_FAR
        return min(0, round((math.log2(self.roundoff) - math.log2(explained)) / (self.order + 1)))


_FAR = 16
"""Powers of two by which the step falls where nothing tells how far."""


def estimate(near: Level, middle: Level, far: Level, points: int) -> Estimate:
    """Estimate from levels of steps h, 2h and 4h with the three-point or the five-point stencil."""
    first, second = 2 * near.jump - middle.jump, 2 * middle.jump - far.jump
    fine, coarse = abs(middle.central - near.central), abs(far.central - middle.central)
    if points == 3:
        numeric, roundoff = near.central, near.roundoff
        truncation = _measured(fine, coarse, 4, roundoff)
        jump = _measured(abs(first), abs(second), 8, NOISY_JUMP * roundoff)
    else:
        numeric = (4 * near.central - middle.central) / 3
        roundoff = (4 * near.roundoff + middle.roundoff) / 3
        truncation = _cancelled(abs((4 * middle.central - far.central) / 3 - numeric), fine)
        jump = _cancelled(abs((8 * first - second) / 7), abs(first))
    # A smooth function's is eight times smaller at half the step.
    kinked = abs(first) / 2 > CLEAR * near.roundoff and abs(first) > abs(second) / 2
    # Of a kink at the distance t it changes with t / h, as the truncation does, but faster.
    there = kinked and abs(first - second) <= 4 * CLEAR * near.roundoff + 2 * truncation
    if kinked:  # the two sides may bend differently, which errs by h, and bends the jump's extrapolation
        truncation = 2 * truncation + abs(first - second) / 2
    slope = abs(near.central) + abs(near.jump) / 2
    return Estimate(
        numeric,
        roundoff,
        truncation,
        jump / 2,
        near.step,
        points - 1,
        kinked,
        jump / 2 * there,
        slope,
        growth=near.growth,
        convex=first > 0,
    )


def _measured(fine: float, coarse: float, decay: int, noise: float) -> float:
    """Return what is left of an error at a step, given that and the one at twice the step, ``decay`` times as large.

    Where it is much smaller it is so by chance.
    """
    return max(fine, coarse / decay) if coarse <= 2 * decay * max(fine, noise) else coarse


def _cancelled(rest: float, whole: float) -> float:
    """Return what an extrapolation leaves of an error: nothing less than the whole unless it takes nearly all away."""
    return rest if rest <= whole / NEARLY else max(rest, whole)


def better(one: Estimate | None, other: Estimate) -> Estimate:
    """Return the estimate with the smaller bar; of two that contradict each other, the one with the smaller step."""
    if one is None:
        return other
    if one.agrees(other):
        return min(one, other, key=lambda found: found.bar)
    return min(one, other, key=lambda found: found.step)


def _is_wide(found: Estimate | None) -> bool:
    return found is None or found.bar > WIDE * abs(found.numeric)


class Search:
    """The search for the step of one dimension, among powers of two times a unit.

    Parameters
    ----------
    level : callable
        Takes an exponent and returns the `Level` of that step, None where the function is not finite there. It is
        called at most once for an exponent.
    stencil : "auto", 3 or 5
        With "auto" whichever has the smaller bar.
    least, most : int
        Bounds on exponents.
    """

    def __init__(
        self, level: Callable[[int], Level | None], stencil: Literal["auto", 3, 5], least: int, most: int
    ) -> None:
        self._level, self._least, self._most = level, least, most
        self._points = (3, 5) if stencil == "auto" else (int(stencil),)
        self._known: dict[int, Level | None] = {}

    def level(self, exponent: int) -> Level | None:
        """Difference with one step, the smallest possible one where it is smaller still."""
        exponent = max(self._least, exponent)
        if exponent not in self._known:
            self._known[exponent] = self._level(exponent)
        return self._known[exponent]

    def at(self, exponent: int) -> list[Estimate]:
        """Estimate with one step, by every stencil in turn; none where the function is not finite there."""
        levels = []
        for k in range(exponent, exponent + 3):
            level = self.level(k)
            if level is None:
                return []
            levels.append(level)
        near, middle, far = levels
        safety = ROUGH if self._least < self._most else 1.0
        found = [estimate(near, middle, far, points)._replace(safety=safety) for points in self._points]
        return [one for one in found if math.isfinite(one.numeric) and math.isfinite(one.bar)]

    def best(self, start: int, rounds: int = ROUNDS, most: int | None = None) -> Estimate | None:
        """Walk from a step towards a better one; None where the function is finite at no step that was tried.

        Steps that are dominated by round-off bound the search from below, steps that are dominated by truncation,
        reach a kink, leave the domain or contradict smaller ones from above. ``most`` is a bound of this walk alone.
        """
        most = self._most if most is None else max(self._least, min(self._most, most))
        best: Estimate | None = None
        low, high = self._least - 1, most + 1
        exponent, stride = min(max(start, self._least), most), 1
        for tried in itertools.count(1):
            found = self.at(exponent)
            shift = self._shift(found)
            if shift > 0 and best is not None and not best.agrees(found[-1]):
                shift = -1
            for one in found:
                best = better(best, one)
            if shift == 0:
                break
            low, high = (exponent, high) if shift > 0 else (low, exponent)
            if shift > 0 or not found:  # how far is not known
                shift, stride = shift * stride, 2 * stride
            # Smaller steps still narrow a wide bar; larger ones of a loss that rounds may never end.
            allowed = LAST_ROUND if shift < 0 and _is_wide(best) else rounds
            if high - low < 2 or tried >= allowed:
                break
            exponent = min(max(exponent + shift, low + 1), high - 1)
        return best

    @staticmethod
    def _shift(found: list[Estimate]) -> int:
        """Return by which power of two to move: as five points ask for, which need larger steps than three."""
        if not found:
            return -4
        if not found[0].agrees(found[-1]):  # the step is too large for one of them
            return min(one.shift() for one in found)
        return found[-1].shift()

    def closer(self, found: Estimate, powers: int) -> list[Estimate]:
        """Estimate with a step smaller than that of what was found by so many powers of two, by every stencil."""
        return self.at(max(self._least, exponent_of(found.step) - powers))


def exponent_of(value: float) -> int:
    """Return the exponent of the largest power of two that is no larger."""
    return math.frexp(value)[1] - 1
