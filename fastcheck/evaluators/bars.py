"""The error bar of `fastcheck.step` for many dimensions at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastcheck.cases.conv import LOSSES, ConvCase
from fastcheck.cases.scaling import ScaledOperands
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Differences
from fastcheck.geometry import Shape
from fastcheck.step import Precision, Structure, U, roundings, window
from fastcheck_kernels import conv, curved, judge

FACTORS = {"input": "weight", "weight": "input", "bias": None}
"""What each operand of a convolution is multiplied with."""


@dataclass(frozen=True)
class Bars:
    """What the bars of a tensor's dimensions have in common.

    Attributes
    ----------
    chain : int
        Roundings that a product meets in the forward pass before an output is moved: see `fastcheck.step.roundings`.
    precision : Precision
        Of the analytic pass.
    v, x : Structure
        Of the cotangent and of the operand's factor.
    most : int
        The largest number of terms of a dimension; the structures' window belongs to it.
    partials : int
        How many partial results the analytic pass may round to its result type before it adds them (samples for a
        weight, taps for an input, as gemm-based implementations do).
    exponent : int
        Quotients and bars are multiplied by 2^exponent.
    """

    chain: int
    precision: Precision
    v: Structure
    x: Structure
    most: int
    partials: int = 1
    exponent: int = 0

    def __call__(self, numeric: np.ndarray, sums: np.ndarray, repeat: int = 1) -> np.ndarray:
        """Return a bound on \\|analytic - numeric\\| that arithmetic alone can explain, for each dimension.

        Parameters
        ----------
        numeric : float64 array, shape (pairs * repeat,)
            Quotients before they are multiplied by 2^exponent.
        sums : float64 array, shape (6, pairs)
            `fastcheck_kernels.judge` names its rows; each entry belongs to ``repeat`` neighbouring dimensions.
        """
        found = np.empty(numeric.size)
        judge.bars(numeric, sums, repeat, self._model(), self.exponent, found)
        return found

    def _model(self) -> np.ndarray:
        precision = self.precision
        model = np.zeros(judge.CONSTANTS)
        model[judge.CHAIN] = self.chain
        model[judge.ACCUMULATOR] = precision.accumulator
        model[judge.UNIT] = math.hypot(precision.accumulator, U)
        model[judge.OPERAND] = precision.operand
        model[judge.RESULT] = precision.result
        model[judge.PARTIALS] = self.partials
        model[judge.V_ALIKE] = self.v.multiplicity
        model[judge.X_ALIKE] = self.x.multiplicity
        model[judge.CROWDED] = self.v.crowd * self.x.crowd > float(self.most) ** 2 / 1024
        model[judge.PEAKED] = precision.name != "float64"
        model[judge.UNDERFLOW] = precision.least_normal
        model[judge.LEAST] = precision.least_result
        return model

    def differences(self, dims: np.ndarray, table: np.ndarray, tensor: str, shape: Shape) -> Differences:
        """Judge a table of `fastcheck_kernels.curved`'s columns.

        Raises
        ------
        FastcheckError
            If a quotient overflows float64.
        """
        numeric = np.ascontiguousarray(table[:, curved.NUMERIC])
        sums = np.ascontiguousarray(table[:, curved.NUMERIC + 1 : curved.KINKS].T)
        bar = self(numeric, sums)
        return Differences(
            dims, self.rescaled(numeric, dims, tensor, shape), bar, table[:, curved.KINKS].astype(np.int64)
        )

    def rescaled(self, numeric: np.ndarray, dims: np.ndarray, tensor: str, shape: Shape) -> np.ndarray:
        """Return quotients times 2^exponent.

        Raises
        ------
        FastcheckError
            If one overflows float64.
        """
        if self.exponent:
            with np.errstate(over="ignore"):
                numeric = np.ldexp(numeric, self.exponent)
        finite = np.isfinite(numeric)
        if not finite.all():
            index = [int(i) for i in np.unravel_index(int(dims[np.argmin(finite)]), shape)]
            raise FastcheckError(f"the derivative by {tensor} at index {index} overflows float64: scale the case")
        return numeric


def bars_of(case: ConvCase, scaled: ScaledOperands, tensor: str, chain: int) -> Bars:
    """Describe the bars of one tensor of a case, whose quotients are those of the scaled operands."""
    geometry, factor = case.geometry, FACTORS[tensor]
    factors = [case.grad_output, *([] if factor is None else [case.operand(factor)])]
    precision = Precision.of(case.grads[tensor].dtype, case.precision, factors)
    most = max(1, geometry.products_per_dimension(tensor) // geometry.terms)
    alike = window(most, precision)
    return Bars(
        chain=chain,
        precision=precision,
        v=Structure.of(scaled.grad_output, alike),
        x=Structure.none() if factor is None else Structure.of(getattr(scaled, factor), alike),
        most=most,
        partials=math.prod(geometry.weight_shape[2:]) if tensor == "input" else geometry.input_shape[0],
        exponent=scaled.exponents["grad_output"] + (0 if factor is None else scaled.exponents[factor]),
    )


_LOSSES = {"vjp": curved.VJP, "square": curved.SQUARE, "relu": curved.RELU, "tanh": curved.TANH}
assert tuple(_LOSSES) == LOSSES


def loss_model(case: ConvCase, bars: Bars, chain: int) -> np.ndarray:
    """Describe a case's loss, and how far outputs may be known, to `fastcheck_kernels.curved`.

    An output of K terms errs by (K's blocks) u in our forward pass, and in the analytic one, of unit round-off u_a and
    any order, by about 2.5 sqrt(K) u_a (the square-root law, as in `fastcheck.step`), in units of the sum of the sizes
    of its terms.
    """
    terms = case.geometry.terms
    ours = 1 + roundings(terms, conv.TAPS)
    model = np.zeros(curved.MODEL)
    model[curved.LOSS] = _LOSSES[case.loss]
    model[curved.CHAIN] = chain
    model[curved.OUTPUT] = ours * U + 2.5 * math.sqrt(terms) * bars.precision.accumulator + bars.precision.operand
    model[curved.ACCUMULATOR] = bars.precision.accumulator
    model[curved.TINY] = bars.precision.tiny
    return model
