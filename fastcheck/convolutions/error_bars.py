"""Error bars of convolutions: what arithmetic alone can explain.

With u = 2^-53, a dimension's terms t = v * x (cotangent times the operand that the dimension multiplies), T1 the sum
of |t|, T2 the root of the sum of t^2 and n the number of non-zero terms, the error bar is R + A:

R, the differences' own rounding, is rigorous. Every partial sum of an output is at most M + |d| in size, where M is
the sum of its |products| and d the perturbation, so that z+ and z- err by at most roundings * u * (M + |d|) each
(Higham, Accuracy and Stability of Numerical Algorithms, section 4.2, for the blocked sum of the kernels).

A, the accumulation of the analytic pass, follows Higham and Mary's square-root law (SIAM J. Sci. Comput. 41, 2019)
wherever the data let roundings cancel, and the linear worst case in the measure that they do not. The formula itself
is `fastcheck_kernels.error_bars.bars`.
Its constants are empirical; tests/convolutions/test_error_bars.py searches for a correct gradient outside.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.precision import WIDE, WIDE_TYPES, Precision, U
from fastcheck.convolutions.case import LOSSES, ConvCase
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.slopes import Typical, slopes
from fastcheck.engine.differences import Differences, refuse_overflow
from fastcheck.engine.magnitudes import Structure, share_of_nonzeros
from fastcheck_kernels import conv, curved
from fastcheck_kernels import error_bars as bar_kernel

FACTORS = {"input": "weight", "weight": "input", "bias": None}
"""The operand that each operand of a convolution is multiplied by."""


LOST = 2.0**-800
"""Loss of a term whose entry is negligible beside the largest, about one: 2^-1074 times its other factors."""

SATURATED = 1 / 8
"""Units of tanh whose slopes are a smaller part of the largest one, in the root mean square, are saturated."""


@dataclass(frozen=True)
class Bars:
    """The constants that the bars of a tensor's dimensions share.

    Attributes
    ----------
    chain : int
        Roundings that a product meets in the forward pass before an output is moved: see `roundings`.
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
    typical : float
        What a dimension's terms typically add up to: a bar far below that is not too wide, however small its own.
    lost : float
        What a quotient may lose to underflow because operands were scaled.
    saturated : bool
        Whether the units that the dimensions move are: their slopes are small, and their rounding is not.
    """

    chain: int
    precision: Precision
    v: Structure
    x: Structure
    most: int
    partials: int = 1
    exponent: int = 0
    typical: float = 0.0
    lost: float = 0.0
    saturated: bool = False

    def __call__(self, numeric: np.ndarray, sums: np.ndarray, repeat: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a bound on \\|analytic - numeric\\| that arithmetic alone can explain, for each dimension.

        Parameters
        ----------
        numeric : float64 array, shape (pairs * repeat,)
            Quotients before they are multiplied by 2^exponent.
        sums : float64 array, shape (6, pairs)
            `fastcheck_kernels.error_bars` names its rows; each entry belongs to ``repeat`` neighbouring dimensions.

        Returns
        -------
        (float64 array, bool array or None)
            The bars, and which of them are too wide to judge by (None where none is).
        """
        return self._computed(numeric, sums, repeat, self._model)

    @np.errstate(over="ignore", invalid="ignore")
    def linear_components(self, numeric: np.ndarray, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Split the bars of a linear loss, which has neither truncation nor kinks."""
        gradient, none = self._gradients_part(numeric, sums), np.zeros(len(numeric))
        whole = self(numeric, np.ascontiguousarray(sums))[0]
        return {"round-off": whole - gradient, "truncation": none, "kinks": none, "gradient": gradient}

    @np.errstate(over="ignore", invalid="ignore")
    def _gradients_part(self, numeric: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Return the part of the bars that the analytic pass's own rounding takes."""
        ours = self._model.copy()
        ours[bar_kernel.UNIT] = U
        for constant in (
            bar_kernel.ACCUMULATOR,
            bar_kernel.OPERAND,
            bar_kernel.RESULT,
            bar_kernel.UNDERFLOW,
            bar_kernel.LEAST,
        ):
            ours[constant] = 0.0
        sums = np.ascontiguousarray(sums)
        return self(numeric, sums)[0] - self._computed(numeric, sums, 1, ours)[0]

    @np.errstate(over="ignore", invalid="ignore")
    def _computed(
        self, numeric: np.ndarray, sums: np.ndarray, repeat: int, model: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.lost:
            sums = sums.copy()
            sums[bar_kernel.ROUNDING] += self.lost
        bars, too_wide = np.empty(numeric.size), np.empty(numeric.size, dtype=np.bool_)
        marked = bar_kernel.bars(numeric, sums, repeat, model, self.exponent, bars, too_wide)
        if not math.isfinite(bars.sum()):  # a finite sum has finite terms
            unknown = ~np.isfinite(bars)
            bars[unknown], too_wide[unknown] = np.inf, True
            marked += np.count_nonzero(unknown)
        return bars, too_wide if marked else None

    @cached_property
    def _model(self) -> np.ndarray:
        precision = self.precision
        model = np.zeros(bar_kernel.CONSTANTS)
        model[bar_kernel.CHAIN] = self.chain
        model[bar_kernel.ACCUMULATOR] = precision.accumulator
        model[bar_kernel.UNIT] = math.hypot(precision.accumulator, U)
        model[bar_kernel.OPERAND] = precision.operand
        model[bar_kernel.RESULT] = precision.result
        model[bar_kernel.PARTIALS] = self.partials
        model[bar_kernel.V_ALIKE] = self.v.multiplicity
        model[bar_kernel.X_ALIKE] = self.x.multiplicity
        model[bar_kernel.CROWDED] = self.v.crowd * self.x.crowd > float(self.most) ** 2 / 1024
        model[bar_kernel.PEAKED] = precision.name != "float64"
        model[bar_kernel.UNDERFLOW] = precision.least_normal
        model[bar_kernel.LEAST] = precision.least_result
        model[bar_kernel.WIDE] = max(WIDE, WIDE_TYPES * precision.result)
        model[bar_kernel.TYPICAL] = self.typical
        return model

    @np.errstate(over="ignore", invalid="ignore")
    def differences(self, dims: np.ndarray, table: np.ndarray, tensor: str, shape: Shape) -> Differences:
        """Return the differences in a table of `fastcheck_kernels.curved`'s columns, with their bars.

        Raises
        ------
        FastcheckError
            If a quotient overflows float64.
        """
        numeric = np.ascontiguousarray(table[:, curved.NUMERIC])
        sums, jump = _sums(table), table[:, curved.JUMP]
        bar, too_wide = self(numeric, sums)
        if too_wide is not None and jump.any():
            # At a kink itself, the interval of subgradients is no lack of precision.
            sums[bar_kernel.ROUNDING] -= jump
            too_wide = self(numeric, sums)[1]
        return Differences(
            dims,
            self.rescaled(numeric, dims, tensor, shape),
            bar,
            table[:, curved.KINKS].astype(np.int64),
            np.ldexp(jump, self.exponent),
            too_wide,
        )

    @np.errstate(over="ignore", invalid="ignore")
    def crossed(self, table: np.ndarray) -> np.ndarray:
        """Return which rows of a table have bars too wide to judge by, mostly for kinks that are crossed."""
        jump = table[:, curved.JUMP]
        crossing = np.flatnonzero(table[:, curved.WIDENING] > jump)
        if not crossing.size:
            return crossing
        sums = _sums(table[crossing])
        sums[bar_kernel.ROUNDING] -= jump[crossing]
        bar, too_wide = self(np.ascontiguousarray(table[crossing, curved.NUMERIC]), sums)
        if too_wide is None:
            return crossing[:0]
        part = np.ldexp(table[crossing, curved.WIDENING] - jump[crossing], self.exponent)
        return crossing[too_wide & (2 * part > bar)]

    @np.errstate(over="ignore", invalid="ignore")
    def bar_components(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """Split the bars of a table into what they are made of."""
        numeric, sums = np.ascontiguousarray(table[:, curved.NUMERIC]), _sums(table)
        known = {
            "truncation": np.ldexp(np.abs(table[:, curved.TRUNCATION]), self.exponent),
            "kinks": np.ldexp(table[:, curved.WIDENING], self.exponent),
            "gradient": self._gradients_part(numeric, sums) + np.ldexp(table[:, curved.LOCAL], self.exponent),
        }
        return {"round-off": self(numeric, sums)[0] - sum(known.values()), **known}

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
        with np.errstate(over="ignore", invalid="ignore"):  # a finite sum has finite terms
            total = float(numeric.sum())
        if not math.isfinite(total):
            refuse_overflow(numeric, dims, tensor, shape)
        return numeric


def _sums(table: np.ndarray) -> np.ndarray:
    """Return the rows that `error_bars.bars` takes."""
    sums = np.ascontiguousarray(table[:, curved.ABSOLUTE : curved.TRUNCATION].T)
    sums[bar_kernel.ROUNDING] += np.abs(table[:, curved.TRUNCATION]) + table[:, curved.LOCAL]
    return sums


def bars_of(case: ConvCase, scaled: ScaledOperands, tensor: str, chain: int) -> Bars:
    """Describe the bars of one tensor of a case, whose quotients are those of the scaled operands.

    Those of a curved loss are what `prepare_curved_bars` found.
    """

    def linear() -> Bars:
        assert case.loss == "vjp"
        factor = FACTORS[tensor]
        size = _typical_size(scaled, "grad_output") * (1.0 if factor is None else _typical_size(scaled, factor))
        moved = case.geometry.products_per_dimension(tensor) // case.geometry.terms
        return _bars(case, scaled, tensor, scaled.grad_output, math.sqrt(max(1, moved)) * size)

    known: Bars = scaled.cached(("bars", tensor), linear)
    return replace(known, chain=chain)


def prepare_curved_bars(case: ConvCase, scaled: ScaledOperands, output: np.ndarray, pool: Executor) -> None:
    """Find what the bars of a curved loss depend on: the cotangent of the outputs, at the point.

    ``output`` is the forward result of the scaled operands.
    """
    v = scaled.grad_output * slopes(case.loss, output)

    def bent(tensor: str) -> Bars:
        typical = Typical(case.geometry, scaled, tensor, pool)
        bars = _bars(case, scaled, tensor, v, typical(v))
        saturated = case.loss == "tanh" and bars.typical < SATURATED * typical(scaled.grad_output)
        return replace(bars, saturated=saturated)

    for tensor in case.grads:
        scaled.cached(("bars", tensor), partial(bent, tensor))


def _bars(case: ConvCase, scaled: ScaledOperands, tensor: str, v: np.ndarray, typical: float) -> Bars:
    """Describe the bars of sums of products with a cotangent of the outputs."""
    geometry, factor, precision = case.geometry, FACTORS[tensor], precision_of(case, tensor)
    most = geometry.most_terms(tensor)
    alike = window(most, precision)
    return Bars(
        chain=1,
        precision=precision,
        v=Structure.of(v, alike),
        x=Structure.none() if factor is None else Structure.of(getattr(scaled, factor), alike),
        most=most,
        partials=math.prod(geometry.weight_shape[2:]) if tensor == "input" else geometry.input_shape[0],
        exponent=scaled.exponent_of(tensor, case.loss),
        lost=most * LOST * _beyond_one(scaled, factor) if any(scaled.exponents.values()) else 0.0,
        typical=typical,
    )


def _beyond_one(scaled: ScaledOperands, factor: str | None) -> float:
    """Return the largest entry of an operand, or one: under tanh a factor may be as large as it was given."""
    return 1.0 if factor is None else max(1.0, float(np.abs(getattr(scaled, factor)).max()))


def _typical_size(scaled: ScaledOperands, name: str) -> float:
    """Return about the root mean square of all entries of an operand, zeros among them."""
    share: float = scaled.cached(("share", name), lambda: share_of_nonzeros(getattr(scaled, name)))
    return scaled.rms(name) * math.sqrt(share)


def precision_of(case: ConvCase, tensor: str) -> Precision:
    """Read how a gradient was computed off it and what it was computed from."""
    factor = FACTORS[tensor]
    factors = [case.grad_output, *([] if factor is None else [case.operand(factor)])]
    return Precision.of(case.grads[tensor].dtype, case.declared_precision(f"grad_{tensor}"), factors)


_LOSSES = {"vjp": curved.VJP, "square": curved.SQUARE, "relu": curved.RELU, "tanh": curved.TANH}
assert tuple(_LOSSES) == LOSSES


def loss_model(case: ConvCase, scaled: ScaledOperands, tensor: str, chain: int) -> np.ndarray:
    """Describe a case's loss, and how far outputs may be known, to `fastcheck_kernels.curved`.

    An output of K terms errs by (K's blocks) u in our forward pass, and in the analytic one, of unit round-off u_a and
    any order, by about 2.5 sqrt(K) u_a (the square-root law) and the rounding of its operands,
    in units of the sum of the sizes of its terms.
    """
    terms, dtype, declared = case.geometry.terms, case.grads[tensor].dtype, case.declared_precision(f"grad_{tensor}")
    operands = (case.input, case.weight, case.bias)
    precision: Precision = scaled.cached(
        ("precision", dtype.name, str(declared)), lambda: Precision.of(dtype, declared, operands)
    )
    ours = 1 + roundings(terms, conv.TAPS)
    model = np.zeros(curved.MODEL)
    model[curved.LOSS] = _LOSSES[case.loss]
    model[curved.CHAIN] = chain
    model[curved.OUTPUT] = ours * U + 2.5 * math.sqrt(case.geometry.met) * precision.accumulator + precision.operand
    model[curved.TYPE] = precision.kept
    model[curved.LEAST_OUTPUT] = math.ldexp(precision.least_result, -scaled.exponents["bias"])
    model[curved.LEAST_COTANGENT] = math.ldexp(precision.least_result, -scaled.exponent_of("bias", case.loss))
    model[curved.ACCUMULATOR] = precision.accumulator
    model[curved.TINY] = precision.tiny
    return model


def window(terms: int, precision: Precision) -> float:
    """Return the relative window in which magnitudes count as alike, for sums of so many terms."""
    return terms * precision.accumulator / 16


def roundings(terms: int, block: int) -> int:
    """Return how many roundings a product meets in a sum of inner sums of ``block`` terms, the bias included."""
    return min(terms, block) + math.ceil(terms / block)


def forward_bar(output: np.ndarray, magnitude: np.ndarray, terms: int, precision: Precision) -> np.ndarray:
    """Return a bound on |declared - computed| for every output: the worst case of both sums, in any order.

    Parameters
    ----------
    output, magnitude : float64 arrays
        The computed outputs, and the sums of the sizes of their terms.
    terms : int
        Products in an output.
    precision : Precision
        Of the declared output.
    """
    sums = (terms + 2) * (precision.accumulator + U) * magnitude
    rounding = (precision.result + precision.accumulator) * np.abs(output)
    underflow = (terms + 1) * precision.least_normal + precision.least_result
    return (1 + precision.result) * (sums + precision.operand * magnitude) + rounding + underflow
