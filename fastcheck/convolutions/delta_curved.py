"""The evaluator ``delta`` for losses that are not linear in the outputs.

A dimension moves its outputs as in `delta_weight` and `delta_input`, but phi has to be applied to both sides, and what
the error bar needs is summed for every dimension: there are no norms that would bound it.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Literal

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.closer import closer
from fastcheck.convolutions.delta_input import InputPlanes
from fastcheck.convolutions.delta_weight import WeightPlanes
from fastcheck.convolutions.error_bars import bars_of, loss_model
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import Step
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck_kernels import curved

BLOCK_DIMS = 4096
"""Most dimensions in a block."""

BLOCK_WORK = 2**22
"""Moved outputs after which a block ends."""


class CurvedDelta:
    """Difference one tensor of a convolution under a curved loss by moving the outputs that it has.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
        Of that case.
    tensor : {"input", "weight", "bias"}
    output, magnitude : float64 arrays
        The forward result, and the sums of the sizes of its terms.
    step : float or "auto"
    pool : Executor
    """

    def __init__(
        self,
        case: ConvCase,
        scaled: ScaledOperands,
        tensor: str,
        output: np.ndarray,
        magnitude: np.ndarray,
        step: float | Literal["auto"],
        pool: Executor,
    ) -> None:
        self._tensor, self._shape = tensor, case.geometry.shape_of(tensor)
        self._step = Step.of(scaled, tensor, output, step, case.loss)
        self.step = self._step.nominal
        self._searching = step == "auto"
        self._bars = bars_of(case, scaled, tensor, chain=1)
        self._model = loss_model(case, scaled, tensor, chain=0)
        self._work = max(1, case.geometry.products_per_dimension(tensor) // case.geometry.terms)
        arrays = (output, scaled.grad_output, magnitude)
        self._planes: WeightPlanes | InputPlanes
        if tensor == "input":
            self._planes = InputPlanes.of(case.geometry, scaled, arrays, pool)
        else:
            self._planes = WeightPlanes.of(case.geometry, scaled, tensor, arrays, pool)
        self(range(0))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of at most `BLOCK_DIMS`, fewer where a dimension moves many outputs."""
        size = int(np.clip(BLOCK_WORK // self._work, 1, BLOCK_DIMS))
        return [dims[start : start + size] for start in range(0, len(dims), size)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        return self._bars.differences(dims, self._table(dims), self._tensor, self._shape)

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        return self._bars.bar_components(self._table(dims))

    def _table(self, dims: np.ndarray) -> np.ndarray:
        h = self._step.scaled
        return closer(self._once, dims, h, self._bars) if self._searching else self._once(dims, h)

    def _once(self, dims: np.ndarray, h: float) -> np.ndarray:
        table = np.empty((len(dims), curved.COLUMNS))
        self._planes.fill(dims, h, self._model, table)
        return table
