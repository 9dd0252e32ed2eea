"""Evaluators ``network`` and ``full`` of a network: its tensors differenced at +h and -h, block by block."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastcheck.engine.differences import Chosen, Differences, indices, refuse_overflow
from fastcheck.networks.analytic import AnalyticTensor
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.differencer import TensorDifferencer
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.full import Full
from fastcheck.networks.partial import PartialEvaluation, work
from fastcheck.networks.retries import Retries

BLOCK_WORK = 1e7
"""Multiply-adds in a block: about a millisecond."""


class NetworkEvaluator:
    """Differences one tensor of a network.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    tables : PartialEvaluation or Full
        Evaluates perturbed losses: what a dimension changes, or the whole network.
    name : str
        The tensor.
    step : float or "auto"
        With "auto", a dimension that crosses a kink is differenced with smaller steps as well.
    seed : int
        Random seed for the pilots.

    Attributes
    ----------
    step : float
    """

    def __init__(
        self,
        case: NetworkCase,
        baseline: Baseline,
        tables: PartialEvaluation | Full,
        name: str,
        step: float | Literal["auto"],
        seed: int,
    ) -> None:
        self._case, self._tables, self._name, self._program = case, tables, name, baseline.passes.program
        differencer = TensorDifferencer(case, baseline, tables, name, step, seed)
        self._analytic = AnalyticTensor(case, baseline, name)
        self._retries = Retries(self._analytic, differencer, searching=step == "auto")
        self.step = differencer.step

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of about `BLOCK_WORK`."""
        cost = work(self._program, self._name, len(self._case.point.x), self._tables.kind)
        return blocks_of(dims, cost, self._tables.group, self._tables.dims_per_pass)

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        settled = self._retries.settled(dims)
        automatic = self._analytic.widen_for_choices(dims, settled)
        bars = self._analytic.bars(dims, settled)
        refuse_overflow(settled.numeric, dims, self._name, self._case.grads[self._name].shape)
        return Differences(
            dims,
            settled.numeric,
            bars,
            kinks=settled.kinks,
            jump=settled.jump,
            too_wide=self._analytic.are_too_wide(dims, bars - settled.jump),
            harmless=np.where(settled.crossed + settled.jump > 0, 0, settled.kinks),
            automatic=automatic,
        )

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, by differencing them again."""
        settled = self._retries.settled(dims)
        return {
            "round-off": settled.roundoff,
            "truncation": settled.truncation,
            "kinks": settled.crossed + settled.jump,
            "gradient": self._analytic.errors[dims],
        }


def blocks_of(dims: Chosen, cost: int, group: int, dims_per_pass: int) -> list[Chosen]:
    """Cut dimensions that each cost so many multiply-adds into blocks of about `BLOCK_WORK`.

    A block consists of whole groups, dimensions that perturb the same channel, where one takes less than that.
    Otherwise it fills the lanes of a pass, even where that takes more: fewer dimensions would take as long.
    """
    size = max(dims_per_pass, min(4096, int(BLOCK_WORK / cost)))
    unit = group if group <= size else dims_per_pass
    size = size // unit * unit
    return [dims[start : start + size] for start in range(0, len(dims), size)]
