"""The derivative along every direction of probes, with an error bar, from what a program returned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import UNITS, U
from fastcheck.engine.directions import LIKELY, SUMS, norm
from fastcheck.engine.magnitudes import rms
from fastcheck.functions import ecnoise
from fastcheck.functions.noise import NOISES, SHARED, SHARED_HALF, UNMEASURED, unit_of_values
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES as NOISES_OF_VALUES
from fastcheck.functions.step_search import Estimate, Level, Search, better
from fastcheck.probes.evaluated import Evaluated
from fastcheck.probes.manifest import FACTORS, SAMPLES, Manifest


class Derivative(NamedTuple):
    """What one direction gave.

    Attributes
    ----------
    direction : int
    numeric, analytic, bar : float
        The derivative along it, by differences and from the gradient, and the bound on their difference.
    step : float
    at_kink : bool
        Whether the point itself lies at a kink, where any subgradient may be right.
    estimate : Estimate or None
        None where no step gave finite values.
    """

    direction: int
    numeric: float
    analytic: float
    bar: float
    step: float
    at_kink: bool
    estimate: Estimate | None

    @property
    def usable(self) -> bool:
        """Whether it can contradict a gradient."""
        return self.estimate is not None and not self.at_kink

    @property
    def fails(self) -> bool:
        """Whether the gradient contradicts the differences."""
        return self.usable and not abs(self.numeric - self.analytic) <= self.bar


@dataclass(frozen=True)
class Differencer:
    """Differences of values along the directions of probes.

    Parameters
    ----------
    manifest : Manifest
    evaluated : Evaluated
    errors : float64 array, shape (directions,)
        Bounds on the rounding of the analytic derivative along each direction.
    """

    manifest: Manifest
    evaluated: Evaluated
    errors: np.ndarray

    @property
    def scatter(self) -> float:
        """Standard deviation of the values at the start point."""
        return float(np.std(self.evaluated.values[self.evaluated.starts], ddof=1))

    def noise(self) -> float:
        """Return the standard deviation of a value's rounding."""
        e = self.evaluated
        samples = {
            point.by: value for point, value in zip(e.points, self._smooth(), strict=True) if point.direction < 0
        }

        def sample(distance: float) -> np.ndarray:
            return np.array(samples[distance])

        measured = float(ecnoise.measured(sample, SAMPLES, self.manifest.plan.spacings, more=1))
        declared = e.bound / NOISES_OF_VALUES
        return max(self.scatter, e.rounding, declared, 5e-324, 0.0 if math.isnan(measured) else measured)

    def derivatives(self) -> list[Derivative]:
        """Return the derivatives along all directions."""
        corrected, noise = self._corrected(), self.noise()
        return [self._derivative(direction, corrected, noise) for direction in range(self.manifest.plan.total)]

    def _smooth(self) -> np.ndarray:
        """Return the values where noise is measured without what the rounding of the points themselves changes."""
        e = self.evaluated
        last = max((p.by for p in e.points if p.direction < 0), default=1.0)
        slope = next((s / last for p, s in zip(e.points, e.promised, strict=True) if p == (-1, last)), 0.0)
        return e.values - _known(e.promised - slope * np.array([point.by for point in e.points]))

    def _corrected(self) -> dict[tuple[int, float], float]:
        """Return the value at every multiple of every direction, as it would be had the points not been rounded."""
        e = self.evaluated
        along = np.array([point.by * slope for point, slope in zip(e.points, self._slopes(), strict=True)])
        values = e.values - _known(e.promised - along)
        pairs = zip(e.points, values.tolist(), strict=True)
        return {point: value for point, value in pairs if point.direction >= 0 and point.by}

    def _slopes(self) -> np.ndarray:
        """Return the analytic derivative along the direction of every point."""
        return self.evaluated.along.sum(1)[[point.direction for point in self.evaluated.points]]

    def _derivative(self, direction: int, values: dict[tuple[int, float], float], noise: float) -> Derivative:
        analytic = float(self.evaluated.along[direction].sum())
        best: Estimate | None = None
        for step in self.manifest.plan.steps:
            levels = {
                power: self._level(direction, math.ldexp(step, power), values, noise)
                for power, _ in enumerate(sorted(FACTORS))
            }
            # The unreachable power below makes the search count this step as one of several.
            for one in Search(levels.get, "auto", -1, 0).at(0):
                best = better(best, one)
        if best is None:
            return Derivative(direction, math.nan, analytic, math.inf, self.manifest.plan.steps[0], False, None)
        best = self._doubted(direction, best, values, noise)
        bar = best.bar + float(self.errors[direction])
        return Derivative(direction, best.numeric, analytic, bar, best.step, best.jump > best.bar / 2, best)

    def _doubted(
        self, direction: int, best: Estimate, values: dict[tuple[int, float], float], noise: float
    ) -> Estimate:
        """Return an estimate whose bar covers what the step near the bottom shows, if that contradicts it.

        Then the program varies on a scale far below the steps, which see it from afar alone.
        """
        bottom = self.manifest.plan.bottom
        level = self._level(direction, bottom, values, noise) if bottom else None
        if level is None or not level.contradicts(best):
            return best
        return best._replace(doubt=abs(level.central - best.numeric) + abs(level.jump) / 2 + level.roundoff)

    def _level(self, direction: int, step: float, values: dict[tuple[int, float], float], noise: float) -> Level | None:
        before, after = values[direction, -step], values[direction, step]
        noise = math.hypot(noise, self._second_order(direction, step, values))
        return Level.of(step, (-step, 0.0, step), (before, 0.0, after), noise, self.evaluated.magnitude)

    def _second_order(self, direction: int, step: float, values: dict[tuple[int, float], float]) -> float:
        """Return the noise that uneven points leave: the second-order change, times their unevenness."""
        alike = self.manifest.plan.alike(direction)
        seconds = [values[other, step] + values[other, -step] for other in alike]
        finite = [one for one in seconds if math.isfinite(one)]
        typical = math.sqrt(sum(one * one for one in finite) / len(finite)) if finite else 0.0
        return typical * self._unevenness[step]

    @property
    def _unevenness(self) -> dict[float, float]:
        found: dict[float, float] = {}
        for point, uneven in zip(self.evaluated.points, self.evaluated.uneven, strict=True):
            if point.direction >= 0:
                found[point.by] = max(found.get(point.by, 0.0), float(uneven))
        return found


def _known(rounded: np.ndarray) -> np.ndarray:
    """Return what the rounding of points changes; 0 where a gradient overflows."""
    return np.where(np.isfinite(rounded), rounded, 0.0)


def errors_of(grads: Arrays, precisions: dict[str, str], sizes: dict[str, float]) -> Arrays:
    """Return bounds on the rounding of every entry of a gradient, of which the type alone is known.

    As in `fastcheck.functions.noise`: any intermediate result may be rounded to it.
    """
    promised = max(float(np.abs(grad).max()) * sizes[name] for name, grad in grads.items())
    found = {}
    for name, grad in grads.items():
        unit = max(UNITS[precisions[name]], unit_of_values(grad))
        half = unit > UNITS["float32"]
        typical = rms(grad)
        shared = (SHARED_HALF if half else SHARED) * promised / sizes[name]
        found[name] = NOISES * UNMEASURED * unit * np.maximum(np.maximum(np.abs(grad), typical), shared)
    return found


def errors_along(manifest: Manifest, grads: Arrays, errors: Arrays, moves: np.ndarray) -> np.ndarray:
    """Bound the rounding of the analytic derivative along each direction (`fastcheck.engine.directions`)."""
    bounds = np.zeros(manifest.plan.total)
    for position, tensor in enumerate(manifest.tensors):
        bound = LIKELY * norm(errors[tensor.name]) + SUMS * U * norm(grads[tensor.name])
        bounds = np.hypot(bounds, moves[:, position] * bound)
    return bounds
