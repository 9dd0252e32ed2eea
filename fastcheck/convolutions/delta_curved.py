"""The evaluator ``delta`` for losses that are not linear in the outputs.

A dimension moves its outputs as in `delta_weight` and `delta_input`, but phi has to be applied to both sides, and what
the error bar needs is summed for every dimension: there are no norms that would bound it.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Literal

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.delta_input import InputPlanes
from fastcheck.convolutions.delta_weight import WeightPlanes
from fastcheck.convolutions.error_bars import bars_of, loss_model
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import Step
from fastcheck.convolutions.table_evaluator import TableEvaluator
from fastcheck_kernels import curved


class CurvedDelta(TableEvaluator):
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

    BLOCK_WORK = 2**22
    """Moved outputs after which a block ends."""

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
        scaled_step = Step.of(scaled, tensor, output, step, case.loss)
        self.step = scaled_step.nominal
        self._model = loss_model(case, scaled, tensor, chain=0)
        arrays = (output, scaled.grad_output, magnitude)
        self._planes: WeightPlanes | InputPlanes
        if tensor == "input":
            self._planes = InputPlanes.of(case.geometry, scaled, arrays, pool)
        else:
            self._planes = WeightPlanes.of(case.geometry, scaled, tensor, arrays, pool)
        super().__init__(
            tensor,
            case.geometry.shape_of(tensor),
            bars_of(case, scaled, tensor, chain=1),
            h=scaled_step.scaled,
            searching=step == "auto",
            work=case.geometry.products_per_dimension(tensor) // case.geometry.terms,
        )

    def with_step(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of dimensions, differenced with one step of the scaled operands."""
        table = np.empty((len(dims), curved.COLUMNS))
        self._planes.fill(dims, h, self._model, table)
        return table
