"""The audit of evaluator ``network``: a few dimensions, and one direction over all, again by whole forward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np

from fastcheck.common.precision import U
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.engine.shard_results import AuditRecord, audit_record
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.differencer import automatic
from fastcheck.networks.error_bars import SAFETY, Baseline
from fastcheck.networks.full import Full
from fastcheck.networks.network import Penalty
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.networks.penalty import difference as penalty_difference
from fastcheck_kernels import columns, direction

DIMS, FEWEST = 32, 4
"""Largest and smallest number of dimensions to difference again."""

SHORTER = tuple(16.0**-times for times in range(1, 6))
"""Shorter steps, relative to the first, to try in turn where whole passes contradict the differences. Each is assumed
to leave a sixteenth of the truncation before it; where truncation is of order h^2, it leaves a sixteenth of that."""

WORK = 5e8
"""Multiply-adds that whole forward passes for these dimensions may take: a few tenths of a second."""


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
        As requested.
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

    def note(self, differences: Differences) -> AuditRecord:
        """Return the sums over a block that the audit needs."""
        sums = direction.along(differences.dims, self._seed, differences.numeric, differences.error_bar)
        return audit_record(differences.dims[:0], differences.numeric[:0], differences.error_bar[:0], sums)

    def result(self, noted: AuditRecord, pool: Executor) -> dict[str, Any]:
        """Difference again and compare; return the audit's part of a tensor's report."""
        full = Full(self._baseline.passes, self._tensor, self._baseline.roundoff.loss)
        disagreeing = self._cached("again", lambda: int(np.count_nonzero(self._again(full, pool))))
        directional = self._directional(full, noted)
        apart = not abs(directional["difference"]) <= directional["error_bar"]
        return {"dims": len(self._dims), "direction": directional, "disagreements": disagreeing + apart}

    def _cached(self, what: str, find: Callable[[], Any]) -> Any:
        """Return the result of an earlier phase, whose differences are the same; compute it without one."""
        return self._baseline.cached((what, self._tensor, self._step, self._seed), find)

    def _again(self, full: Full, pool: Executor) -> np.ndarray:
        """Return which dimensions disagree with whole forward passes at the first step and at all shorter ones.

        Beyond the scale on which the loss bends, the effect of crossings is no longer known to first order.
        """
        outside = np.ones(len(self._dims), bool)
        for part in (1.0, *SHORTER):
            left = np.flatnonzero(outside)
            if len(left):
                outside[left] = self._apart(self._dims[left], self._step * part, full, pool)
        return outside

    def _apart(self, dims: np.ndarray, h: float, full: Full, pool: Executor) -> np.ndarray:
        """Return which dimensions disagree with whole forward passes at one step."""
        again = np.concatenate(list(pool.map(lambda some: full.numeric(some, h), np.array_split(dims, 2))))
        table = PartialEvaluation(self._baseline.passes, self._tensor)(dims, h)
        apart = np.abs(again - table[:, columns.NUMERIC]) / (2 * h)
        # Rounding may put a unit on the other side of its kink, which changes at most that crossing's widening.
        return ~(apart <= (SAFETY * self._noise(full) + table[:, columns.WIDENING]) / h)

    def _noise(self, full: Full) -> float:
        """Return the standard deviation of the rounding of both evaluations, times h."""
        return 2 * math.hypot(self._baseline.roundoff.evaluated, full.noise)

    def _directional(self, full: Full, noted: AuditRecord) -> dict[str, float]:
        """Compare the sum of direction * numeric with the derivative along that direction, by one forward pair.

        Where they differ, the reason may be the pair's truncation: shorter steps have less of it.
        """
        best = self._along(full, noted, self._step, 0.0)
        for part in SHORTER:
            if abs(best["difference"]) <= best["error_bar"]:
                break
            shorter = self._along(full, noted, self._step * part, best["full"])
            best = min(best, shorter, key=lambda one: abs(one["difference"]) / one["error_bar"])
        return best

    def _along(self, full: Full, noted: AuditRecord, step: float, before: float) -> dict[str, float]:
        """Compare by one forward pair; ``before`` is the derivative from a longer step, 0 without one."""
        values = self._baseline.passes.point.params[self._tensor].reshape(-1)
        signs, dims = np.zeros(len(values)), indices(self._chosen)
        direction.move(dims, self._seed, 1.0, signs)
        signs = signs[dims]
        # All entries move at once, and their effects add up like a random walk.
        h = step * 2.0 ** -round(math.log2(math.sqrt(len(dims))))
        right, left = self._cached(f"along {step / self._step}", lambda: full.along(dims, signs, h))
        quotient = float((right + left).sum()) / (2 * h)
        penalty, *unsure = penalty_difference(
            self._case.penalties.get(self._tensor, Penalty()), values[dims], self._step
        )
        quotient += float(signs @ penalty)
        total, size, bars = map(math.fsum, (noted.along, noted.size, noted.bars))
        # Kinks and curvature show in the difference of one-sided slopes, data point by data point.
        uneven = float(np.abs(right - left).sum()) / h
        moves = 2 * U * float(np.abs(values).max()) / h * size  # the rounding of the entries' own moves
        # The dimensions may have been differenced with smaller steps, which cross fewer kinks of the penalty.
        bars += float(sum(part.sum() for part in unsure[:3]))
        if before:
            bars += max(SHORTER) * abs(quotient - before)
        bar = bars + uneven + moves + SAFETY * self._noise(full) / h
        return {"delta": total, "full": quotient, "difference": total - quotient, "error_bar": bar}


def _cost(baseline: Baseline) -> int:
    """Return the approximate multiply-adds of two forward passes over all data points."""
    total = 0
    for node in baseline.passes.program.nodes:
        total += node.entries * max(1, node.columns["per_group"] * node.columns["taps"])
    return 2 * total * len(baseline.passes.point.x)
