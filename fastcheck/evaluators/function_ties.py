"""Kinks that several entries share, such as a tied maximum: is the gradient a subgradient of all of them together?

One entry at a time, anything between the one-sided slopes is a subgradient. Together, Clarke's generalised gradient is
the convex hull of the gradients nearby, so that along any direction d the gradient promises no more than the largest
slope of the loss near the point, and no less than the smallest (F. H. Clarke, Optimization and Nonsmooth Analysis,
1983, proposition 2.1.2). Winners of a tie that all get the whole slope, or all none, promise another one along what
they differ by from the central differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastcheck import health
from fastcheck.black_box import NOISES
from fastcheck.cases.function import FunctionCase
from fastcheck.health import HealthFinding

GROUPS = 32
"""Groups of entries that are looked at: all, halves, quarters, and so on."""

NEARBY = 16
"""Points around the given one whose slopes count."""

APART = 8.0
"""Steps that these lie away."""

CURVED = 4 * APART
"""Times the change of the slopes at the point from one step to two that those nearby may differ by."""

EXACT = 1e-9
"""Part of the promise that does not count: what the gradient's own rounding may be."""


class Kinked(NamedTuple):
    """An entry at a kink: its tensor, flat index, the step that showed it and the central difference with it."""

    tensor: str
    dim: int
    step: float
    central: float


def examined(case: FunctionCase, kinked: Sequence[Kinked], noise: float, seed: int) -> HealthFinding | None:
    """Return what is wrong with the gradient at the kinks that entries share, None where nothing is.

    Parameters
    ----------
    case : FunctionCase
    kinked : sequence of Kinked
        In ascending order.
    noise : float
        Standard deviation of a value of the loss.
    seed : int
        Of the points nearby.
    """
    rng = np.random.default_rng([seed, len(kinked)])
    for group in _groups(kinked):
        line = _Line(case, group)
        if not math.isfinite(line.promise):
            continue
        slopes, bend = line.at_the_point()
        slack = NOISES * 2 * noise + CURVED * bend + EXACT * abs(line.promise)
        if min(slopes) - slack <= line.promise <= max(slopes) + slack:
            continue
        slopes = [*slopes, *line.nearby(rng)]
        if not min(slopes) - slack <= line.promise <= max(slopes) + slack:
            names = [f"{case.label(one.tensor)}{list(case.index(one.tensor, one.dim))}" for one in group]
            return health.no_subgradient(names, line.promise, min(slopes), max(slopes))
    return None


def _groups(kinked: Sequence[Kinked]) -> Iterator[Sequence[Kinked]]:
    """Yield all, halves, quarters, ... of two and more."""
    left, size = GROUPS, len(kinked)
    while size >= 2 and left > 0:
        starts = range(0, len(kinked) - 1, size)[:left]
        yield from (group for start in starts if len(group := kinked[start : start + size]) > 1)
        left -= len(starts)
        size = (size + 1) // 2 if size > 2 else 1


class _Line:
    """The loss along a line on which no entry moves by more than its step, the unit.

    Attributes
    ----------
    promise : float
        Slope that the gradient promises along the line.
    """

    def __init__(self, case: FunctionCase, group: Sequence[Kinked]) -> None:
        self._case, self._group = case, group
        slopes = np.array([float(case.grads[one.tensor].reshape(-1)[one.dim]) for one in group])
        self._steps = np.array([one.step for one in group])
        with np.errstate(all="ignore"):
            along = (slopes - [one.central for one in group]) * self._steps
            self._along = along / np.abs(along).max()
            self.promise = float(slopes @ (self._along * self._steps))

    def at_the_point(self) -> tuple[list[float], float]:
        """Return both one-sided slopes, and by how much they change when the step is doubled."""
        here = self._case.start
        near, far = (
            [side * (self._value(side * step * self._along) - here) / step for side in (-1.0, 1.0)]
            for step in (1.0, 2.0)
        )
        return near, max(abs(one - other) for one, other in zip(near, far, strict=True))

    def nearby(self, rng: np.random.Generator) -> list[float]:
        """Return slopes at points around the given one."""
        found = []
        for _ in range(NEARBY):
            there = APART * rng.uniform(0.5, 1.0, len(self._group)) * rng.choice([-1.0, 1.0], len(self._group))
            found.append(self._value(there + self._along / 2) - self._value(there - self._along / 2))
        return found

    def _value(self, move: np.ndarray) -> float:
        arrays = self._case.copies()
        for one, by in zip(self._group, move * self._steps, strict=True):
            arrays[one.tensor].reshape(-1)[one.dim] += by
        return self._case.value(arrays, lambda: "where entries at a kink are moved together")
