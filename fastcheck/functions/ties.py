"""Kinks that several entries share, such as a tied maximum: is the gradient right for all of them together?

One entry at a time, anything between the one-sided slopes is a subgradient. But a tie stays one where its winners move
alike: along that line the loss has no kink, and every subgradient promises the same slope, that of the loss (it is the
derivative of a smooth function). Winners that all get the whole slope, or all none, promise another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.functions.case import FunctionCase
from fastcheck.functions.step_search import NOISES
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding

GROUPS = 32
"""Groups of entries that are looked at: all, halves, quarters, and so on."""

SMOOTH = 1e-3
"""Part of the entries' own kinks that may be left along a line on which the loss counts as smooth."""

ALONE = 0.1
"""Part of an entry's kink by which what it adds may differ, where the kink is its own."""

CURVED = 4.0
"""Times what the slope changes by from one step to two that it may be off by."""

EXACT = 1e-9
"""Part of the promise that does not count: what the gradient's own rounding may be."""


class Kinked(NamedTuple):
    """An entry at a kink, with a subgradient.

    Attributes
    ----------
    tensor : str
    dim : int
        Its flat index.
    step : float
        The step that showed the kink.
    central, jump : float
        The central difference with it, and half of what the one-sided slopes differ by.
    convex : bool
        Whether the right slope is the larger one.
    """

    tensor: str
    dim: int
    step: float
    central: float
    jump: float
    convex: bool


def examined(case: FunctionCase, kinked: Sequence[Kinked], noise: float) -> HealthFinding | None:
    """Return what is wrong with the gradient at the kinks that entries share, None where nothing is.

    Parameters
    ----------
    case : FunctionCase
    kinked : sequence of Kinked
        In ascending order.
    noise : float
        Standard deviation of a value of the loss.
    """
    # Kinks of both kinds together can cancel, which is no tie.
    kinds = ([one for one in kinked if one.convex is convex] for convex in (True, False))
    wrong = []
    for group in itertools.chain.from_iterable(_groups(_sharing(case, kind)) for kind in kinds):
        lines = (_Line(case, group, signs) for signs in _signs(case, group))
        wrong += [(group, line) for line in lines if line.smooth(noise) and line.is_wrong(noise)]
    if not wrong:
        return None
    group, line = min(wrong, key=lambda one: len(one[0]))
    names = [f"{case.label(one.tensor)}{list(case.index(one.tensor, one.dim))}" for one in group]
    return health.no_subgradient(names, sorted({one.tensor for one in group}), line.promise, line.change)


def _signs(case: FunctionCase, group: Sequence[Kinked]) -> Iterator[np.ndarray]:
    """Yield ways in which winners may move alike: all one way, or each by what its slope is more than the central one.

    The second is for a maximum of entries with factors of both signs, whose winners all get too much or too little.
    """
    yield np.ones(len(group))
    beyond = np.array([float(case.grads[one.tensor].reshape(-1)[one.dim]) - one.central for one in group])
    if (beyond < 0).any():
        yield np.where(beyond < 0, -1.0, 1.0)


def _sharing(case: FunctionCase, kinked: Sequence[Kinked]) -> Sequence[Kinked]:
    """Leave out the entries whose kink is theirs alone: without one, all that is missing is its own kink."""
    if len(kinked) < 2:
        return kinked
    lines = [_Line(case, kinked, signs) for signs in _signs(case, kinked)]
    return [one for i, one in enumerate(kinked) if not all(line.is_alone(i) for line in lines)]


def _groups(kinked: Sequence[Kinked]) -> Iterator[Sequence[Kinked]]:
    """Yield all, halves, quarters, ... of two and more."""
    left, size = GROUPS, len(kinked)
    while size >= 2 and left > 0:
        starts = range(0, len(kinked) - 1, size)[:left]
        yield from (group for start in starts if len(group := kinked[start : start + size]) > 1)
        left -= len(starts)
        size = (size + 1) // 2 if size > 2 else 1


class _Line:
    """The loss along a line on which the kinks of all entries, taken by themselves, are alike.

    Attributes
    ----------
    promise, change : float
        By how much the loss changes in a step, as the gradient promises and as it does. No entry moves by more than
        its own step.
    """

    def __init__(self, case: FunctionCase, group: Sequence[Kinked], signs: np.ndarray) -> None:
        self._case, self._group = case, group
        slopes = np.array([float(case.grads[one.tensor].reshape(-1)[one.dim]) for one in group])
        jumps = np.array([one.jump for one in group])
        self._kink = float((jumps * [one.step for one in group]).min())
        self._moves = signs * (self._kink / jumps)
        self.promise = float(slopes @ self._moves)
        self._sign = 1.0 if group[0].convex else -1.0
        self._near, self._far = self._sides(1.0), self._sides(2.0)
        self.change = sum(self._near) / 2

    def is_alone(self, place: int) -> bool:
        """Tell whether the kink along the line is smaller by just that of one entry where it stays behind."""
        moves = self._moves.copy()
        self._moves[place] = 0.0
        before, after = self._sides(1.0)
        self._moves = moves
        missing = self._near[1] - self._near[0] - (after - before)
        return abs(abs(missing) - 2 * self._kink) <= 2 * ALONE * self._kink and missing * self._sign > 0

    def smooth(self, noise: float) -> bool:
        """Tell whether the loss has no kink here, though each entry has one, and one that stands clear of the noise."""
        kinks = self._kink * len(self._group)
        near, far = self._near[1] - self._near[0], self._far[1] - self._far[0]
        bend = abs(far - 2 * near)  # nothing of a kink, and twice what curvature makes of the first
        return bool(NOISES * noise < SMOOTH * kinks and abs(near) <= SMOOTH * kinks + bend)

    def is_wrong(self, noise: float) -> bool:
        """Tell whether the gradient promises another change than there is."""
        bend = abs(self.change - sum(self._far) / 4)
        slack = NOISES * noise + CURVED * bend + SMOOTH * self._kink + EXACT * abs(self.promise)
        return abs(self.promise - self.change) > slack

    def _sides(self, steps: float) -> tuple[float, float]:
        """Return how the loss changes so many steps to both sides, as it does to the right."""
        here = self._case.start
        return here - self._value(-steps), self._value(steps) - here

    def _value(self, steps: float) -> float:
        arrays = self._case.copies()
        for one, by in zip(self._group, steps * self._moves, strict=True):
            arrays[one.tensor].reshape(-1)[one.dim] += by
        return self._case.value(arrays, lambda: "where entries at a kink are moved together")
