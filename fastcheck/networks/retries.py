"""Other steps for dimensions of a network that one step does not settle: at kinks, in tails, outside their bars.

A block keeps a *level* for each of its dimensions: the step that its row comes from is ``step * CLOSER**level``.
Negative levels are larger steps. A given step is never replaced, but other steps still show how much truncation and
round-off it has.
"""

from __future__ import annotations

import numpy as np

from fastcheck.networks.analytic import AnalyticTensor
from fastcheck.networks.differenced import DifferencedBlock
from fastcheck.networks.differencer import TensorDifferencer

CLOSER = 0.25
"""Ratio of the next smaller step to a step."""

ROUNDS = 4
"""Largest number of steps to try at a kink, the first included."""

DEEPEST = 6
"""Largest number of smaller steps to try where a dimension bends on the scale of a step."""

LARGER = 4
"""Largest number of larger steps to try where round-off hides a value."""

FAR = 12
"""Largest number of far smaller steps, by factors of 16, to try where a value contradicts the reference gradient."""

WAS, LEFT = 1.5 / (1 - CLOSER**2), 3 * CLOSER**2 / (1 - CLOSER**2)
"""Truncation with the larger of two steps, and with the smaller one, in units of the change of n between them. For
exact h^2 these are 1 / (1 - CLOSER^2) and CLOSER^2 / (1 - CLOSER^2); the margins are 1.5 and 3."""

BENT = 4.0
"""Truncation of one-sided slopes, in units of their change to the smaller step. For exact h this is 4 / 3; the margin
is 3."""

SECOND_OPINIONS = (0.83, 0.71, 0.59, 0.47)
"""Further steps for a dimension near its bar, relative to its own."""

NEAR = 10.0
"""Largest distance of the analytic value, in bars, at which a dimension counts as near its bar."""

SPREAD = 3.0
"""Least round-off of such a dimension, in units of the largest change of n at these steps."""


class Retries:
    """Differences dimensions of one tensor with as many steps as each of them needs.

    Parameters
    ----------
    analytic : AnalyticTensor
    differencer : TensorDifferencer
    searching : bool
        Whether a value may come from another step than the first: the step was left to fastcheck.
    """

    def __init__(self, analytic: AnalyticTensor, differencer: TensorDifferencer, searching: bool) -> None:
        self._analytic, self._searching = analytic, searching
        self._step, self._with_step = differencer.step, differencer.with_step

    def settled(self, dims: np.ndarray) -> DifferencedBlock:
        """Difference dimensions: away from kinks where a smaller step gets there, and with their truncation."""
        block, levels = self._with_step(dims, self._step), np.zeros(len(dims), np.int64)
        for level in range(1, ROUNDS if self._searching else 1):
            crossing = np.flatnonzero(block.crossed > block.roundoff)
            if not len(crossing):
                break
            better = block.take(crossing, self._with_step(dims[crossing], self._step * CLOSER**level))
            levels[better] = level
        if self._searching:
            self._enlarge(dims, block, levels)
        self._bend(dims, np.flatnonzero(block.at_point), block, levels)
        if self._searching:
            self._reconcile(dims, block, levels)
        outside = self._analytic.outside(dims, block) & ~block.at_point
        for level in np.unique(levels[outside]).tolist():
            self._doubt(dims, np.flatnonzero(outside & (levels == level)), level, block, levels)
        self._flip(dims, block)
        block.truncation += self._analytic.contradicted(dims, block)
        return block

    def _reconcile(self, dims: np.ndarray, block: DifferencedBlock, levels: np.ndarray) -> None:
        """Difference dimensions that contradict the reference gradient with far smaller steps."""
        rows = np.flatnonzero(self._analytic.contradicted(dims, block))
        before, agreed = block.numeric[rows], np.zeros(len(rows), bool)
        for level in range(2, 2 * FAR, 2):
            if not len(rows):
                return
            smaller = self._with_step(dims[rows], self._step * CLOSER**level)
            change, before = np.abs(smaller.numeric - before), smaller.numeric
            smaller.truncation = CLOSER**2 * change
            agreeing = self._analytic.contradicted(dims[rows], smaller) == 0
            better = agreeing & (~agreed | (smaller.bar < block.bar[rows]))
            block.put(rows[better], smaller.of(better))
            levels[rows[better]] = level
            agreed |= agreeing
            rest = ~agreed | (better & (smaller.truncation > smaller.roundoff))
            rows, before, agreed = rows[rest], before[rest], agreed[rest]

    def _enlarge(self, dims: np.ndarray, block: DifferencedBlock, levels: np.ndarray) -> None:
        """Difference dimensions whose values round-off hides with larger steps: units in their tails hardly bend."""
        before = block.numeric.copy()
        for level in range(-1, -1 - LARGER, -1):
            hidden = self._analytic.hidden(dims, block)
            rows = np.flatnonzero(hidden & ~block.at_point & (levels == level + 1))
            if not len(rows):
                break
            larger = self._with_step(dims[rows], self._step * CLOSER**level)
            larger.truncation = WAS * np.abs(larger.numeric - before[rows])
            before[rows] = larger.numeric
            levels[block.take(rows, larger)] = level

    def _bend(self, dims: np.ndarray, rows: np.ndarray, block: DifferencedBlock, levels: np.ndarray) -> None:
        """Difference rows at a kink in the point with smaller steps as well, which show how the one-sided slopes bend.

        Truncation of one-sided slopes falls as h: the smaller step keeps a third of their change, and the larger one
        had four thirds of it.
        """
        while len(rows):
            curved = []
            for level in np.unique(levels[rows]).tolist():
                here = rows[levels[rows] == level]
                closer = self._with_step(dims[here], self._step * CLOSER ** (level + 1))
                bend = [np.abs(getattr(closer, side) - getattr(block, side)[here]) for side in ("right", "left")]
                if not self._searching:
                    block.truncation[here] = BENT * np.maximum(*bend)
                    continue
                closer.truncation = np.maximum(*bend)
                block.put(here, closer)
                levels[here] = level + 1
                curved.append(here[(closer.truncation > closer.roundoff) & (level < DEEPEST)])
            rows = np.concatenate([rows[:0], *curved])

    def _doubt(
        self, dims: np.ndarray, rows: np.ndarray, level: int, block: DifferencedBlock, levels: np.ndarray
    ) -> None:
        """Measure the truncation of rows that would fail with one step, from a larger and a smaller step.

        Truncation falls as h^2. The larger step shows it best, unless that step crosses a kink, or is so large that
        terms of h^4 cancel those of h^2: a change at the smaller step beyond its round-off is then the truncation.
        Where truncation is most of the bar, the smaller step has the better value.
        """
        h = self._step * CLOSER**level
        here, n = dims[rows], block.numeric[rows]
        larger, smaller = self._with_step(here, h / CLOSER), self._with_step(here, h * CLOSER)
        smooth = larger.crossed + larger.jump <= block.crossed[rows] + block.jump[rows] + larger.roundoff
        change, before = np.abs(smaller.numeric - n), np.abs(larger.numeric - n)
        by_larger = np.maximum(LEFT * before, WAS * (change - smaller.roundoff))
        block.truncation[rows] = np.where(smooth, by_larger, WAS * change + smaller.roundoff)
        smaller.truncation = np.maximum(LEFT * change, np.where(smooth, LEFT * CLOSER**2 * before, 0.0))
        curved = (block.truncation[rows] > block.roundoff[rows] + self._analytic.errors[here]) & self._searching
        better = block.take(rows[curved], smaller.of(curved))
        levels[better] = level + 1
        self._doubt_roundoff(dims, rows, block, levels)
        if level < DEEPEST and len(better):
            self._doubt(dims, better, level + 1, block, levels)

    def _doubt_roundoff(self, dims: np.ndarray, rows: np.ndarray, block: DifferencedBlock, levels: np.ndarray) -> None:
        """Measure the round-off of rows near their bars, from their scatter over a few more steps."""
        bars, distance = self._analytic.bars(dims, block), self._analytic.distance(dims, block)[rows]
        close = rows[(distance > bars[rows]) & (distance <= NEAR * bars[rows])]
        for level in np.unique(levels[close]).tolist():
            near = close[levels[close] == level]
            steps = [self._step * CLOSER**level * part for part in SECOND_OPINIONS]
            changes = [np.abs(self._with_step(dims[near], h).numeric - block.numeric[near]) for h in steps]
            block.roundoff[near] = np.maximum(block.roundoff[near], SPREAD * np.max(changes, axis=0))

    def _flip(self, dims: np.ndarray, block: DifferencedBlock) -> None:
        """Widen dimensions outside their bars by the effect of units whose piece rounding decides.

        Both pieces are equally right. At a kink in the point, the jump grows until it covers the slopes of both.
        """
        outside = self._analytic.outside(dims, block)
        least, most = (np.where(outside, bound[dims], 0.0) for bound in self._analytic.flips)
        middle, half = (block.right + block.left) / 2, np.abs(block.right - block.left) / 2
        value = self._analytic.reference[dims]
        reach = np.maximum(np.abs(value + least - middle), np.abs(value + most - middle))
        block.jump += np.where(block.at_point & (least < most), np.maximum(reach - half, 0.0), 0.0)
        block.crossed += np.where(block.at_point, 0.0, np.maximum(-least, most))
