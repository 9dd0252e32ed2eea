"""Kinks that several entries share, such as a tied maximum: whether the gradient is right for all of them together.

For one entry alone, anything between the one-sided slopes is a subgradient. But a tie remains a tie where its winners
move alike. Along that line the loss has no kink, and every subgradient promises the same slope: the loss's own, as for
any smooth function. A gradient that gives every winner the whole slope, or none to any, promises another one.
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
"""Largest number of groups of entries to examine: all, halves, quarters, and so on."""

SMOOTH = 1e-3
"""Largest kink along a line, as a fraction of the entries' own kinks, with which the loss counts as smooth there."""

ALONE = 0.1
"""Relative tolerance for the kink that an entry adds, by which a kink is recognised as the entry's own."""

CURVED = 4.0
"""Allowed error of the slope, in multiples of its change from one step to two."""

EXACT = 1e-9
"""Allowed error relative to the promised change: room for the gradient's own rounding."""


class Kinked(NamedTuple):
    """An entry at a kink whose analytic value is a subgradient.

    Attributes
    ----------
    tensor : str
    dim : int
        Its flat index.
    step : float
        The step that showed the kink.
    central, jump : float
        The central difference with that step, and half the difference of the one-sided slopes.
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
    """Return the finding that the gradient is wrong at kinks that entries share; None where it is right.

    Parameters
    ----------
    case : FunctionCase
    kinked : sequence of Kinked
        In ascending order.
    noise : float
        Standard deviation of a value of the loss.
    """
    # Convex and concave kinks together can cancel, which is not a tie.
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
    """Yield signs with which the winners of a tie may move together.

    First all move the same way. Then each moves with the sign of its slope's excess over the central difference: this
    is for a maximum of entries with factors of both signs, whose winners all get too much or all too little.
    """
    yield np.ones(len(group))
    beyond = np.array([float(case.grads[one.tensor].reshape(-1)[one.dim]) - one.central for one in group])
    if (beyond < 0).any():
        yield np.where(beyond < 0, -1.0, 1.0)


def _sharing(case: FunctionCase, kinked: Sequence[Kinked]) -> Sequence[Kinked]:
    """Return the entries that share their kink. An entry has its own if, left out, it takes just that kink away."""
    if len(kinked) < 2:
        return kinked
    lines = [_Line(case, kinked, signs) for signs in _signs(case, kinked)]
    return [one for i, one in enumerate(kinked) if not all(line.is_alone(i) for line in lines)]


def _groups(kinked: Sequence[Kinked]) -> Iterator[Sequence[Kinked]]:
    """Yield all entries, then halves, quarters, ..., in groups of at least two."""
    left, size = GROUPS, len(kinked)
    while size >= 2 and left > 0:
        starts = range(0, len(kinked) - 1, size)[:left]
        yield from (group for start in starts if len(group := kinked[start : start + size]) > 1)
        left -= len(starts)
        size = (size + 1) // 2 if size > 2 else 1


class _Line:
    """The loss along a line on which every entry, taken alone, makes the same kink.

    Attributes
    ----------
    promise, change : float
        Change of the loss in a step, as the gradient promises it and as measured. No entry moves by more than its own
        step.
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

    def is_alone(self, position: int) -> bool:
        """Return whether the kink along the line shrinks by exactly one entry's kink where that entry stays behind."""
        moves = self._moves.copy()
        self._moves[position] = 0.0
        before, after = self._sides(1.0)
        self._moves = moves
        missing = self._near[1] - self._near[0] - (after - before)
        return abs(abs(missing) - 2 * self._kink) <= 2 * ALONE * self._kink and missing * self._sign > 0

    def smooth(self, noise: float) -> bool:
        """Return whether the loss has no kink along the line, though each entry alone has one clear of the noise."""
        kinks = self._kink * len(self._group)
        near, far = self._near[1] - self._near[0], self._far[1] - self._far[0]
        bend = abs(far - 2 * near)  # zero for a kink, and twice the contribution of curvature to ``near``
        return bool(NOISES * noise < SMOOTH * kinks and abs(near) <= SMOOTH * kinks + bend)

    def is_wrong(self, noise: float) -> bool:
        """Return whether the gradient promises another change than the loss makes."""
        bend = abs(self.change - sum(self._far) / 4)
        slack = NOISES * noise + CURVED * bend + SMOOTH * self._kink + EXACT * abs(self.promise)
        return abs(self.promise - self.change) > slack

    def _sides(self, steps: float) -> tuple[float, float]:
        """Return how the loss rises from so many steps to the left up to the point, and from there to the right."""
        here = self._case.start
        return here - self._value(-steps), self._value(steps) - here

    def _value(self, steps: float) -> float:
        arrays = self._case.copies()
        for one, by in zip(self._group, steps * self._moves, strict=True):
            arrays[one.tensor].reshape(-1)[one.dim] += by
        return self._case.value(arrays, lambda: "where entries at a kink are perturbed together")
