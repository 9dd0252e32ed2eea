"""A convolution along the lines of `fastcheck.engine.directions`: two forward passes a line, with rigorous bars.

Every tensor moves at once. The outputs at -h and +h are then z + h^2 e -+ h d, with h^2 e from the moves of the input
and of the weight together: the linear loss has no truncation, and a curved one is differenced around z + h^2 e, whose
slopes differ from those at z by a bound that is added (`_bent`). All else is the audit's: `fastcheck_kernels.curved`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from fastcheck.common.precision import U
from fastcheck.convolutions import passes
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.error_bars import loss_model, roundings
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine.directions import LIKELY, SPARE, Line, Quotient, finite_values, norm
from fastcheck.engine.magnitudes import rms
from fastcheck.engine.random_signs import Arrays
from fastcheck.engine.sharing import share, thread_ranges
from fastcheck_kernels import conv, curved

START = {"vjp": 0, "square": -17, "relu": -17, "tanh": -17}
"""First step to try, as a power of two: by their own size, or by so little that slopes hardly change."""

STRIDE = 3
"""Powers of two between steps that are tried."""

MOST_EXPONENT = 500
"""Operands that are scaled by more may have derivatives that overflow: then there are no directions."""

SUMS = 128.0
"""Round-offs of a sum over a plane of outputs, in units of the sum of the sizes of its terms."""


class ConvLines:
    """A convolution along lines.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
    output, magnitude : float64 arrays
        The forward result of the scaled operands, and the sums of the sizes of its terms.
    pool : Executor

    Attributes
    ----------
    calls : int
        Forward passes.
    """

    def __init__(
        self, case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray, pool: Executor
    ) -> None:
        self._case, self._scaled, self._output, self._pool = case, scaled, output, pool
        self.params: Mapping[str, np.ndarray] = {name: case.operand(name) for name in case.grads}
        self.spare = SPARE if case.loss == "relu" else 0
        self.calls, self._step = 0, START[case.loss]
        self._magnitude = magnitude.reshape(math.prod(output.shape[:2]), -1).max(axis=1)
        self._rows = np.abs(scaled.weight).reshape(len(scaled.weight), -1).sum(axis=1)
        chain = 1 + roundings(case.geometry.terms, conv.TAPS)
        self._model = np.max([loss_model(case, scaled, name, chain) for name in case.grads], axis=0)
        slopes = finite_values(case.grads)
        self._norms = {name: (norm(slopes[name] * self.params[name]), norm(slopes[name])) for name in self.params}

    @property
    def usable(self) -> bool:
        """Whether derivatives in units of the case's own operands are within float64's range."""
        return all(abs(exponent) <= MOST_EXPONENT for exponent in self._scaled.exponents.values())

    def size(self, name: str) -> float:
        """Return the root mean square of a tensor's non-zero entries; of a bias of zeros, that of the outputs."""
        exponent = self._scaled.exponents["bias"]
        return rms(self.params[name]) or (math.ldexp(rms(self._output), exponent) if name == "bias" else 0.0) or 1.0

    def label(self, name: str) -> str:
        """Return the tensor's name."""
        return name

    def choose_step(self, lines: Sequence[Line]) -> None:
        """Choose the step with the least bar for a few directions: with kinks, that of most of them."""
        lines = lines if self._case.loss == "relu" else lines[:1]

        def bar(exponent: int) -> float:
            if exponent not in known:
                known[exponent] = sorted(self._quotient(line.moves, exponent).bar for line in lines)[len(lines) // 2]
            return known[exponent]

        known: dict[int, float] = {}
        for stride in (STRIDE, -STRIDE):
            while bar(self._step + stride) < bar(self._step):
                self._step += stride

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step."""
        return self._quotient(line.moves, self._step)

    def searched(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step: its bar is rigorous, so that no other step can say more."""
        return self.differenced(line)

    def with_step(self, moves: Arrays, step: float) -> float:
        """Return the quotient along a line with a step."""
        return self._quotient(moves, math.frexp(step)[1] - 1).numeric

    @np.errstate(over="ignore", invalid="ignore")
    def _quotient(self, moves: Arrays, exponent: int) -> Quotient:
        h, scaled = math.ldexp(1.0, exponent), self._scaled
        own = {name: np.ldexp(move, -scaled.exponents[name]) for name, move in moves.items()}
        plus, minus = (self._moved(own, by) for by in (h, -h))
        z, bent = self._output, 0.0
        if self._case.loss != "vjp":
            z = minus + (plus - minus) / 2
            bent = _bent(self._case.loss, self._output, z, np.abs(scaled.grad_output * (plus - minus))) / (2 * h)
        table = self._table((plus, minus, z), self._sizes(own, h), h)
        columns = curved.NUMERIC, curved.ROUNDING, curved.TRUNCATION, curved.ABSOLUTE
        numeric, rounding, truncation, absolute = (math.fsum(table[:, column]) for column in columns)
        bar = rounding + abs(truncation) + bent + SUMS * U * absolute
        name = next(iter(self.params))
        loss = scaled.exponents[name] + scaled.exponent_of(name, self._case.loss)
        bar = math.ldexp(bar, loss) + self._rounding_of_moves(moves, h)
        return Quotient(math.ldexp(numeric, loss), bar, h)  # which includes what kinks at the point may change

    def _moved(self, moves: Arrays, h: float) -> np.ndarray:
        """Return all outputs with the operands moved."""
        self.calls += 1
        scaled = self._scaled
        operands = {"input": scaled.input, "weight": scaled.weight, "bias": scaled.bias}
        operands |= {name: operands[name] + h * move for name, move in moves.items()}
        x, w, b = operands.values()
        return passes.convolve(self._case.geometry, x, w, b, self._pool)

    def _sizes(self, moves: Arrays, h: float) -> np.ndarray:
        """Bound the sums of the sizes of an output's terms with the operands moved, for each sample and filter."""
        x, w, b = (
            h * float(np.abs(moves[name]).max()) if name in moves else 0.0 for name in ("input", "weight", "bias")
        )
        largest = self._scaled.cached(("largest",), lambda: float(np.abs(self._scaled.input).max()))
        filters = x * self._rows + self._case.geometry.terms * w * (largest + x) + b
        return self._magnitude + np.tile(filters, len(self._output))

    def _table(self, outputs: tuple[np.ndarray, ...], sizes: np.ndarray, h: float) -> np.ndarray:
        """Difference the loss plane by plane; return a table with the columns of `fastcheck_kernels.curved`."""
        planes = [array.reshape(len(sizes), -1) for array in (*outputs, self._scaled.grad_output)]
        table = np.empty((len(sizes), curved.COLUMNS))
        parts = thread_ranges(len(table), self._output.size)
        share(self._pool, lambda r: curved.planes(*planes, sizes, 2 * h, self._model, r[0], r[1], table), parts)
        return table

    def _rounding_of_moves(self, moves: Arrays, h: float) -> float:
        """Bound the effect of rounding x + h d and x - h d, whose errors change sign with the move."""
        parts = []
        for name, move in moves.items():
            by_values, alone = self._norms[name]
            parts.append(U * (by_values / h + float(np.abs(move).max()) * alone))
        return LIKELY * math.hypot(*parts)


def _bent(loss: str, z: np.ndarray, middle: np.ndarray, sizes: np.ndarray) -> float:
    """Bound what moving from z to the middle between the outputs at -h and +h changes in the loss's slopes.

    ``sizes`` are those of the cotangent times the outputs' moves.
    """
    if loss == "relu":
        changes = ((z > 0) != (middle > 0)).astype(np.float64)
    else:
        changes = np.abs(middle - z) * (1.0 if loss == "square" else 0.77)
    return float(np.vdot(sizes, changes))
