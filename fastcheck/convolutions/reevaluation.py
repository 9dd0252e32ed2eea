"""Evaluators that run a convolution's own forward kernel again: ``full`` and ``local``."""

from __future__ import annotations

import math
import threading
from typing import Literal

import numpy as np

from fastcheck.convolutions.case import TENSORS, ConvCase
from fastcheck.convolutions.error_bars import FACTORS, bars_of, loss_model, roundings
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import automatic
from fastcheck.convolutions.table_evaluator import TableEvaluator
from fastcheck.engine.magnitudes import rms
from fastcheck_kernels import conv, curved, difference

_SLOTS = {"input": difference.INPUT, "weight": difference.WEIGHT, "bias": difference.BIAS}


class Reevaluation(TableEvaluator):
    """Difference one tensor of a convolution by evaluating its forward kernel at +h and at -h.

    Parameters
    ----------
    name : {"full", "local"}
        ``full`` evaluates every output, so that its numeric values assume nothing; ``local`` evaluates the outputs
        that the geometry says are affected.
    case : ConvCase
    scaled : ScaledOperands
        Of that case.
    tensor : {"input", "weight", "bias"}
    magnitude : float64 array
        Sum of the sizes of each output's terms, of the scaled operands: `fastcheck.convolutions.passes.magnitude`.
    output : float64 array or None
        The forward result of the scaled operands, which a curved loss asks for.
    step : float or "auto"
    size : float, optional
        `fastcheck.engine.magnitudes.rms` of ``magnitude``, where it is known.
    """

    BLOCK_WORK = 2**27
    """Multiply-adds after which a block ends: about a tenth of a second, so that Ctrl-C and progress need not wait.
    It depends on the case alone, as everything does that decides how sums are grouped."""

    def __init__(
        self,
        name: str,
        case: ConvCase,
        scaled: ScaledOperands,
        tensor: str,
        magnitude: np.ndarray,
        output: np.ndarray | None,
        step: float | Literal["auto"],
        size: float | None = None,
    ) -> None:
        geometry = case.geometry
        h, self.step = step_of(case, scaled, tensor, magnitude, step, size)
        self._whole = name == "full"
        self._slot = _SLOTS[tensor]
        self._operands = (geometry.lift(scaled.input), geometry.lift(scaled.weight), scaled.bias)
        self._vector = geometry.vector()
        v = scaled.grad_output
        self._seen = tuple(geometry.lift(array) for array in (v if output is None else output, v, magnitude))
        bars = bars_of(case, scaled, tensor, chain=1 + roundings(geometry.terms, conv.TAPS))
        self._model = loss_model(case, scaled, tensor, chain=bars.chain)
        self._private = threading.local()
        whole = math.prod(geometry.output_shape) * geometry.terms
        work = whole if self._whole else geometry.products_per_dimension(tensor)
        super().__init__(tensor, geometry.shape_of(tensor), bars, h=h, searching=step == "auto", work=work)

    def with_step(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of dimensions, differenced with one step of the scaled operands."""
        operands = self._operands
        if self._whole:
            # `perturb` writes to the operand that it perturbs: a copy for each thread, the others shared.
            if not hasattr(self._private, "operands"):
                self._private.operands = tuple(
                    array.copy() if slot == self._slot else array for slot, array in enumerate(self._operands)
                )
            operands = self._private.operands
        table = np.empty((len(dims), curved.COLUMNS))
        difference.perturb(
            self._slot,
            self._whole,
            dims,
            h,
            operands,
            self._vector,
            self._seen,
            self._model,
            table,
        )
        return table


def step_of(
    case: ConvCase,
    scaled: ScaledOperands,
    tensor: str,
    magnitude: np.ndarray,
    step: float | Literal["auto"],
    size: float | None = None,
) -> tuple[float, float]:
    """Return the step of the scaled operand, and that of the case's own; arguments as in `Reevaluation`."""
    factor = FACTORS[tensor]
    if step == "auto":
        size = rms(magnitude) if size is None else size
        h = automatic(size, None if factor is None else scaled.rms(factor), case.loss)
    else:
        h = scaled.step_of(tensor, step)
    with np.errstate(over="ignore"):  # a bias whose outputs are beyond float64 is moved by as much
        return h, float(np.ldexp(h, scaled.exponents[tensor]))


assert tuple(_SLOTS) == TENSORS
