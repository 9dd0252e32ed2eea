"""Evaluators that run a convolution's own forward kernel again: ``full`` and ``local``."""

from __future__ import annotations

import threading
from typing import Literal

import numpy as np

from fastcheck.cases.conv import TENSORS, ConvCase
from fastcheck.evaluators import Differences
from fastcheck.step import Precision, Structure, Sums, automatic, error_bar, roundings, usable, window
from fastcheck_kernels import conv, difference

NAMES = ("full", "local")

_SLOTS = {"input": difference.INPUT, "weight": difference.WEIGHT, "bias": difference.BIAS}
_FACTORS = {"input": "weight", "weight": "input", "bias": None}


class Reevaluation:
    """Difference one tensor of a convolution by evaluating its forward kernel at +h and at -h.

    Parameters
    ----------
    name : {"full", "local"}
        ``full`` evaluates every output and assumes nothing; ``local`` evaluates the outputs that the geometry says
        are affected.
    case : ConvCase
    tensor : {"input", "weight", "bias"}
    magnitude : float64 array
        Sum of the sizes of each output's terms: `fastcheck.cases.forward.magnitude`.
    step : float or "auto"
    """

    def __init__(
        self, name: str, case: ConvCase, tensor: str, magnitude: np.ndarray, step: float | Literal["auto"]
    ) -> None:
        geometry = case.geometry
        factor = _FACTORS[tensor]
        factor_values = None if factor is None else case.operand(factor)
        self.step = (
            automatic(magnitude, factor_values) if step == "auto" else usable(step, case.operand(tensor), tensor)
        )
        self._whole = name == "full"
        self._slot = _SLOTS[tensor]
        self._operands = (geometry.lift(case.input), geometry.lift(case.weight), case.bias)
        self._vector = geometry.vector()
        self._cotangent = geometry.lift(case.grad_output)
        self._magnitude = geometry.lift(magnitude)
        dtypes = [case.dtypes["grad_output"], *([] if factor is None else [case.dtypes[factor]])]
        self._precision = Precision.of(case.grads[tensor].dtype, case.precision, tuple(dtypes))
        self._chain = 1 + roundings(geometry.terms, conv.TAPS)
        self._most = _most_terms(case, tensor)
        alike = window(self._most, self._precision)
        self._v = Structure.of(case.grad_output, alike)
        self._x = Structure.none() if factor_values is None else Structure.of(factor_values, alike)
        self._private = threading.local()
        self._sums(np.empty(0, dtype=np.int64))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def __call__(self, dims: np.ndarray) -> Differences:
        """Difference the dimensions of these flat indices."""
        sums = self._sums(dims)
        return Differences(sums.numeric, error_bar(sums, self._chain, self._precision, self._v, self._x, self._most))

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
            self.step,
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
