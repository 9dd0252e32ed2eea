"""Evaluators that run a convolution's own forward kernel again: ``full`` and ``local``."""

from __future__ import annotations

import math
import threading
from typing import Literal

import numpy as np

from fastcheck.cases.conv import TENSORS, ConvCase
from fastcheck.cases.scaling import ScaledOperands
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Differences
from fastcheck.step import Precision, Structure, Sums, automatic, error_bar, roundings, window
from fastcheck_kernels import conv, difference

_SLOTS = {"input": difference.INPUT, "weight": difference.WEIGHT, "bias": difference.BIAS}
_FACTORS = {"input": "weight", "weight": "input", "bias": None}


class Reevaluation:
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
        Sum of the sizes of each output's terms, of the scaled operands: `fastcheck.cases.forward.magnitude`.
    step : float or "auto"
    """

    def __init__(
        self,
        name: str,
        case: ConvCase,
        scaled: ScaledOperands,
        tensor: str,
        magnitude: np.ndarray,
        step: float | Literal["auto"],
    ) -> None:
        geometry = case.geometry
        factor = _FACTORS[tensor]
        factor_values = None if factor is None else getattr(scaled, factor)
        own = scaled.exponents[tensor]
        self._step = automatic(magnitude, factor_values) if step == "auto" else float(np.ldexp(step, -own))
        with np.errstate(over="ignore"):  # a bias whose outputs are beyond float64 is moved by as much
            self.step = float(np.ldexp(self._step, own))
        self._tensor, self._shape = tensor, geometry.shape_of(tensor)
        self._exponent = scaled.exponents["grad_output"] + (0 if factor is None else scaled.exponents[factor])
        self._whole = name == "full"
        self._slot = _SLOTS[tensor]
        self._operands = (geometry.lift(scaled.input), geometry.lift(scaled.weight), scaled.bias)
        self._vector = geometry.vector()
        self._cotangent = geometry.lift(scaled.grad_output)
        self._magnitude = geometry.lift(magnitude)
        factors = [case.grad_output, *([] if factor is None else [case.operand(factor)])]
        self._precision = Precision.of(case.grads[tensor].dtype, case.precision, factors)
        self._partials = math.prod(geometry.weight_shape[2:]) if tensor == "input" else geometry.input_shape[0]
        self._chain = 1 + roundings(geometry.terms, conv.TAPS)
        self._most = _most_terms(case, tensor)
        alike = window(self._most, self._precision)
        self._v = Structure.of(scaled.grad_output, alike)
        self._x = Structure.none() if factor_values is None else Structure.of(factor_values, alike)
        self._private = threading.local()
        self._sums(np.empty(0, dtype=np.int64))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def __call__(self, dims: np.ndarray) -> Differences:
        """Difference the dimensions of these flat indices."""
        sums = self._sums(dims)
        with np.errstate(over="ignore"):
            numeric = np.ldexp(sums.numeric, self._exponent)
        finite = np.isfinite(numeric)
        if not finite.all():
            index = [int(i) for i in np.unravel_index(int(dims[np.argmin(finite)]), self._shape)]
            raise FastcheckError(f"the derivative by {self._tensor} at index {index} overflows float64: scale the case")
        bar = error_bar(
            sums, self._chain, self._precision, self._v, self._x, self._most, self._partials, self._exponent
        )
        return Differences(numeric, bar)

    def _sums(self, dims: np.ndarray) -> Sums:
        if not hasattr(self._private, "operands"):
            # `perturb` writes to the operand that it perturbs: a copy for each thread, the others shared.
            self._private.operands = tuple(
                array.copy() if slot == self._slot else array for slot, array in enumerate(self._operands)
            )
        table = np.empty((len(dims), difference.COLUMNS))
        difference.perturb(
            self._slot,
            self._whole,
            dims,
            self._step,
            self._private.operands,
            self._vector,
            self._cotangent,
            self._magnitude,
            self._precision.tiny,
            table,
        )
        return Sums(
            numeric=table[:, difference.NUMERIC],
            absolute=table[:, difference.ABSOLUTE],
            squares=table[:, difference.SQUARES],
            terms=table[:, difference.TERMS],
            absorbed=table[:, difference.ABSORBED],
            absorbed_terms=table[:, difference.ABSORBED_TERMS],
            magnitude=table[:, difference.MAGNITUDE],
        )


assert tuple(_SLOTS) == TENSORS


def _most_terms(case: ConvCase, tensor: str) -> int:
    """Return the largest number of outputs that one dimension of a tensor can affect."""
    return max(1, case.geometry.products_per_dimension(tensor) // case.geometry.terms)
