"""The step and the error bar for a black box: one model for both.

A two-sided difference D(h) of f errs by truncation, about h^2 f'''/6, and by the noise of two values, at most
`NOISES` * noise / h. From f at the point and at three steps h, 2h and 4h (six values beside the first), the bar is the
sum of three parts, each measured:

- round-off: noise is the standard deviation of a value (`ecnoise`), and at least half of its rounding.
- truncation: |D(2h) - D(h)|, three times the error of a smooth function's difference. For the five-point stencil
  P(h) = (4 D(h) - D(2h)) / 3, whose error is of order h^4, it is |P(2h) - P(h)|, fifteen times that error.
- kink: half of the jump J(h) between the one-sided slopes, extrapolated to h = 0. For a smooth function nearly nothing
  remains: 2 J(h) - J(2h) is of order h^3, and the next extrapolation, for five points, of order h^5.

Truncation and kink together bound the effect of a single kink in slope on D and on P, wherever the kink lies
(tests/functions/test_step_search.py): the differences see a part of its jump, and the slopes see the rest. Several
kinks can hide each other. A part that is suspiciously small beside its neighbours is therefore replaced (`_measured`,
`_cancelled`), and the parts are multiplied (`ROUGH`) where a search picks the smallest bar.

A safe multiple of the truncation costs little, since the balanced bar grows with its cube root (fifth root).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from fastcheck.common.precision import WIDE, U

NOISES = 8.0
"""Standard deviations of noise by which a value may be off (lambda). The difference of two values with independent
noise exceeds them once in 10^28 checks. The margin is for noise estimates that are too small by a factor of three, as
about one in a hundred is, and for noise that repeats itself instead of being independent."""

ROUNDS = 6
"""Steps to try for a dimension."""

LAST_ROUND = 12
"""Steps to try where a kink or truncation still makes the bar too wide, and smaller steps are left."""

CLEAR = 2.0
"""Multiple of the round-off from which a kink is distinguished from it: the noise of the extrapolated jump is a third
of that."""

NOISY_JUMP = 5.0
"""Bound, in multiples of the round-off, on half of a jump that the noise of all seven values can make."""

ROUGH = 4.0
"""Factor on truncation and kink in the bar where the step is searched for. Several kinks may hide each other at one
step, and a search for the smallest bar picks just those steps. It costs a smooth function a factor of two."""

SWAMPED = 2.0**20
"""Ratio of the perturbed values to the value at the point from which a step is far too large for its entry."""

NEARLY = 16.0
"""Factor by which an extrapolation must reduce an error to be trusted: on kinks it does so by chance once in as many
cases."""


class Level(NamedTuple):
    """Differences with one step, to both sides.

    Attributes
    ----------
    step : float
    central : float
        Difference quotient over the realised steps.
    jump : float
        Right slope minus left slope.
    roundoff : float
        Bound on the quotient's error from the rounding of the values and of the steps.
    growth : float
        Ratio of the larger perturbed value to the value at the point.
    """

    step: float
    central: float
    jump: float
    roundoff: float
    growth: float = 1.0

    @classmethod
    def of(
        cls,
        step: float,
        points: tuple[float, float, float],
        values: tuple[float, float, float],
        noise: float,
        size: float | None = None,
    ) -> Level | None:
        """Difference three values, at the realised points x - h, x and x + h.

        Returns None where a value, or a result from it, is not finite. ``size`` is that of the function at x, where
        its value there is a difference; by default, the value's.
        """
        (low, middle, high), (before, here, after) = points, values
        right, left = (after - here) / (high - middle), (here - before) / (middle - low)
        central, jump = (after - before) / (high - low), right - left
        uneven = abs((high - middle) - (middle - low)) / (high - low)
        perturbed = max(abs(before), abs(after))
        noisy = max(noise, U / 2 * max(perturbed, abs(here)))
        size = abs(here) if size is None else size
        growth = perturbed / size if size else 1.0
        level = cls(step, central, jump, NOISES * noisy * 2 / (high - low) + abs(jump) * uneven, growth)
        return level if all(map(math.isfinite, (*values, central, jump, level.roundoff))) else None

    def contradicts(self, other: Estimate) -> bool:
        """Return whether this step contradicts an estimate with a larger one.

        Either the derivatives differ, or the slopes to both sides are further apart here than with the larger step.
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
        Order of the truncation error in the step: 2, or 4 for the five-point stencil.
    kinked : bool
        Whether the jump is clear of the noise and does not vanish with the step.
    jump : float
        Half of the interval between the one-sided slopes where the kink is at the point itself, else 0.
    slope : float
        The larger magnitude of the two one-sided slopes.
    safety : float
        Factor on truncation and kink in the bar; the jump needs none, since it is measured directly.
    doubt : float
        Part of the bar that covers a contradicting quotient of another step.
    growth : float
        Growth of the nearest `Level`.
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
        """The part of the bar for the kink."""
        return self.safety * (self.kink - self.jump) + self.jump

    @property
    def bar(self) -> float:
        """Bound on the error."""
        return self.roundoff + self.safety * self.truncation + self.widening + self.doubt

    def agrees(self, other: Estimate) -> bool:
        """Return whether both estimates may be right about the derivative, and about a kink if either crosses one."""
        noisy = NOISY_JUMP * (self.roundoff + other.roundoff) + self.truncation + other.truncation
        kinks = not (self.kinked or other.kinked) or abs(self.kink - other.kink) <= noisy
        return abs(self.numeric - other.numeric) <= self.bar + other.bar and kinks

    def doubted(self, other: Estimate) -> Estimate:
        """Return this estimate with a bar that also covers another estimate's."""
        return self._replace(doubt=self.doubt + abs(self.numeric - other.numeric) + other.bar)

    def shift(self) -> int:
        """Return the power of two by which to change the step to balance the parts: 0 where they are balanced.

        Where round-off hides the truncation, the step should grow by an unknown factor: 1. A jump that noise can
        explain is ignored: the noise of the value at the point is the same for all dimensions.
        """
        if self.growth > SWAMPED:  # the round-off is that of the perturbed values, which grow with the step's square
            return -min(_FAR, round(math.log2(self.growth) / 2)) if self.growth < math.inf else -_FAR
        explained = self.truncation + self.kink * (self.kink > CLEAR * self.roundoff)
        if explained <= self.roundoff / 2:
            return int(self.roundoff > 0)
        if not self.roundoff:
            return -_FAR
        return min(0, round((math.log2(self.roundoff) - math.log2(explained)) / (self.order + 1)))


_FAR = 16
"""Powers of two by which the step falls where nothing shows how far it should."""


def estimate(near: Level, middle: Level, far: Level, points: int) -> Estimate:
    """Return an estimate from levels with steps h, 2h and 4h, by the three-point or the five-point stencil."""
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
    # The extrapolated jump of a smooth function is eight times smaller at half the step.
    kinked = abs(first) / 2 > CLEAR * near.roundoff and abs(first) > abs(second) / 2
    # For a kink at the distance t, the jump changes with t / h, as the truncation does, but faster.
    there = kinked and abs(first - second) <= 4 * CLEAR * near.roundoff + 2 * truncation
    if kinked:  # the sides may curve differently: an error of order h, which also bends the jump's extrapolation
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
    """Return an error at a step from its sizes there and at twice the step, where it should be ``decay`` times larger.

    A size far below what the larger step predicts is small by chance; the larger step's then stands in.
    """
    return max(fine, coarse / decay) if coarse <= 2 * decay * max(fine, noise) else coarse


def _cancelled(rest: float, whole: float) -> float:
    """Return the error that an extrapolation leaves: at least the whole error, unless nearly all of it cancels."""
    return rest if rest <= whole / NEARLY else max(rest, whole)


def better(one: Estimate | None, other: Estimate) -> Estimate:
    """Return the estimate with the smaller bar; of two that contradict each other, the one with the smaller step."""
    if one is None:
        return other
    if one.agrees(other):
        return min(one, other, key=lambda estimate: estimate.bar)
    return min(one, other, key=lambda estimate: estimate.step)


def _is_too_wide(estimate: Estimate | None) -> bool:
    return estimate is None or estimate.bar > WIDE * abs(estimate.numeric)


class Search:
    """The search for the step of one dimension, among powers of two times a unit.

    Parameters
    ----------
    level : callable
        Takes an exponent and returns the `Level` of that step, None where the function is not finite there. It is
        called at most once for each exponent.
    stencil : "auto", 3 or 5
        "auto" picks the stencil with the smaller bar.
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
        """Return the level of one step, or of the smallest possible step if that is larger."""
        exponent = max(self._least, exponent)
        if exponent not in self._known:
            self._known[exponent] = self._level(exponent)
        return self._known[exponent]

    def at(self, exponent: int) -> list[Estimate]:
        """Return the estimates with one step, one for each stencil; none where the function is not finite there."""
        levels = []
        for k in range(exponent, exponent + 3):
            level = self.level(k)
            if level is None:
                return []
            levels.append(level)
        near, middle, far = levels
        safety = ROUGH if self._least < self._most else 1.0
        estimates = [estimate(near, middle, far, points)._replace(safety=safety) for points in self._points]
        return [one for one in estimates if math.isfinite(one.numeric) and math.isfinite(one.bar)]

    def best(self, start: int, rounds: int = ROUNDS, most: int | None = None) -> Estimate | None:
        """Walk from a step towards better ones; return the best estimate, None where no step gave finite values.

        A step dominated by round-off bounds the search from below. A step dominated by truncation, or one that reaches
        a kink, leaves the domain or contradicts smaller ones, bounds it from above. ``most`` applies to this walk only.
        """
        most = self._most if most is None else max(self._least, min(self._most, most))
        best: Estimate | None = None
        low, high = self._least - 1, most + 1
        exponent, stride = min(max(start, self._least), most), 1
        for tried in itertools.count(1):
            estimates = self.at(exponent)
            shift = self._shift(estimates)
            if shift > 0 and best is not None and not best.agrees(estimates[-1]):
                shift = -1
            for one in estimates:
                best = better(best, one)
            if shift == 0:
                break
            low, high = (exponent, high) if shift > 0 else (low, exponent)
            if shift > 0 or not estimates:  # the distance is unknown
                shift, stride = shift * stride, 2 * stride
            # Smaller steps still narrow a wide bar; a walk to larger ones may never end where the loss rounds.
            allowed = LAST_ROUND if shift < 0 and _is_too_wide(best) else rounds
            if high - low < 2 or tried >= allowed:
                break
            exponent = min(max(exponent + shift, low + 1), high - 1)
        return best

    @staticmethod
    def _shift(estimates: list[Estimate]) -> int:
        """Return the power of two by which to change the step: five points decide, since they need larger steps."""
        if not estimates:
            return -4
        if not estimates[0].agrees(estimates[-1]):  # the step is too large for one of them
            return min(one.shift() for one in estimates)
        return estimates[-1].shift()

    def closer(self, estimate: Estimate, powers: int) -> list[Estimate]:
        """Return the estimates of every stencil with a step smaller than the estimate's by some powers of two."""
        return self.at(max(self._least, exponent_of(estimate.step) - powers))


def exponent_of(value: float) -> int:
    """Return the exponent of the largest power of two that does not exceed the value."""
    return math.frexp(value)[1] - 1
