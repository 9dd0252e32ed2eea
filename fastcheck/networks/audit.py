"""The audit of the ``network`` evaluator: a few dimensions, and a direction over all, by whole forward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np

from fastcheck.common.precision import U
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.engine.shard_results import Noted, noted_of
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import SAFETY, Baseline
from fastcheck.networks.evaluator import automatic
from fastcheck.networks.full import Full
from fastcheck.networks.network import Penalty
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.networks.penalty import difference as penalty_difference
from fastcheck_kernels import columns, direction

DIMS = 32
"""Dimensions that are differenced again, at most."""

FEWEST = 4

SHORTER = tuple(16.0**-times for times in range(1, 6))
"""Parts of a step that are tried, one after the other, where whole passes contradict the differences. What each leaves
of truncation is taken to be a sixteenth of what there was; of h^2 it is a sixteenth of that."""

WORK = 5e8
"""Multiply-adds that whole forward passes for them may take: some tenths of a second."""


class NetworkAudit:
    """The audit of one tensor.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    tensor : str
    chosen : Chosen
        The dimensions that are checked.
    step : float or "auto"
        As asked for.
    seed : int
    """

    def __init__(
        self, case: NetworkCase, baseline: Baseline, tensor: str, chosen: Chosen, step: Any, seed: int
    ) -> None:
        self._case, self._baseline, self._tensor, self._chosen = case, baseline, tensor, chosen
        self._step = automatic(baseline.passes, tensor) if step == "auto" else float(step)
        self._seed = int(np.random.default_rng([seed, len(chosen)]).integers(2**31))
        count = max(FEWEST, min(DIMS, int(WORK / _cost(baseline))))
        rng = np.random.default_rng([seed, DIMS])
        self._dims = np.sort(rng.choice(indices(chosen), min(count, len(chosen)), replace=False))

    def note(self, found: Differences) -> Noted:
        """Keep what the audit needs of a block."""
        sums = direction.along(found.dims, self._seed, found.numeric, found.error_bar)
        return noted_of(found.dims[:0], found.numeric[:0], found.error_bar[:0], sums)

    def result(self, noted: Noted, pool: Executor) -> dict[str, Any]:
        """Difference again, and compare: the audit's part of a tensor's report."""
        full = Full(self._baseline.passes, self._tensor, self._baseline.roundoff.loss)
        disagreeing = self._known("again", lambda: int(np.count_nonzero(self._again(full, pool))))
        found = self._directional(full, noted)
        apart = not abs(found["difference"]) <= found["error_bar"]
        return {"dims": len(self._dims), "direction": found, "disagreements": disagreeing + apart}

    def _known(self, what: str, find: Callable[[], Any]) -> Any:
        """Return what an earlier phase found, whose differences are the same."""
        return self._baseline.cached((what, self._tensor, self._step, self._seed), find)

    def _again(self, full: Full, pool: Executor) -> np.ndarray:
        """Tell which dimensions whole forward passes find elsewhere, with the same step and with shorter ones.

        Beyond the scale on which the loss bends, what crossings can change is no longer known.
        """
        outside = np.ones(len(self._dims), bool)
        for part in (1.0, *SHORTER):
            places = np.flatnonzero(outside)
            if len(places):
                outside[places] = self._apart(self._dims[places], self._step * part, full, pool)
        return outside

    def _apart(self, dims: np.ndarray, h: float, full: Full, pool: Executor) -> np.ndarray:
        """Tell which dimensions whole forward passes find elsewhere with one step."""
        again = np.concatenate(list(pool.map(lambda some: full.numeric(some, h), np.array_split(dims, 2))))
        moved = PartialEvaluation(self._baseline.passes, self._tensor)(dims, h)
        apart = np.abs(again - moved[:, columns.NUMERIC]) / (2 * h)
        # Rounding may put a unit on the other side of its kink; that changes a part of what the crossing can change.
        outside: np.ndarray = ~(apart <= (SAFETY * self._noise(full) + moved[:, columns.WIDENING]) / h)
        return outside

    def _noise(self, full: Full) -> float:
        """Return the standard deviation that the rounding of both has, times h."""
        return 2 * math.hypot(self._baseline.roundoff.evaluated, full.noise)

    def _directional(self, full: Full, noted: Noted) -> dict[str, float]:
        """Compare the sum of direction * numeric with the derivative along that direction, by one forward pair.

        Where they differ it may be the pair's truncation, which shorter moves have less of.
        """
        found = self._along(full, noted, self._step, 0.0)
        for part in SHORTER:
            if abs(found["difference"]) <= found["error_bar"]:
                break
            shorter = self._along(full, noted, self._step * part, found["full"])
            found = min(found, shorter, key=lambda one: abs(one["difference"]) / one["error_bar"])
        return found

    def _along(self, full: Full, noted: Noted, step: float, before: float) -> dict[str, float]:
        """Compare by one pair of moves; ``before`` is the derivative that a longer one found, 0 without one."""
        values = self._baseline.passes.point.params[self._tensor].reshape(-1)
        signs, dims = np.zeros(len(values)), indices(self._chosen)
        direction.move(dims, self._seed, 1.0, signs)
        signs = signs[dims]
        # All entries move at once, and what they change adds up like a random walk.
        h = step * 2.0 ** -round(math.log2(math.sqrt(len(dims))))
        right, left = self._known(f"along {step / self._step}", lambda: full.along(dims, signs, h))
        quotient = float((right + left).sum()) / (2 * h)
        penalty, *unsure = penalty_difference(
            self._case.penalties.get(self._tensor, Penalty()), values[dims], self._step
        )
        quotient += float(signs @ penalty)
        total, size, bars = map(math.fsum, (noted.along, noted.size, noted.bars))
        # Kinks and curvature show in how one-sided slopes differ, data point by data point.
        uneven = float(np.abs(right - left).sum()) / h
        moves = 2 * U * float(np.abs(values).max()) / h * size
        # Dimensions may have been differenced with smaller steps, which cross fewer kinks of the penalty.
        bars += float(sum(part.sum() for part in unsure[:3]))
        if before:
            bars += max(SHORTER) * abs(quotient - before)
        bar = bars + uneven + moves + SAFETY * self._noise(full) / h
        return {"delta": total, "full": quotient, "difference": total - quotient, "error_bar": bar}


def _cost(baseline: Baseline) -> int:
    """Return about how many multiply-adds two forward passes of all data points take."""
    total = 0
    for node in baseline.passes.program.nodes:
        total += node.entries * max(1, node.columns["per_group"] * node.columns["taps"])
    return 2 * total * len(baseline.passes.point.x)
