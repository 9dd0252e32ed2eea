"""A convolution along the lines of `fastcheck.engine.directions`: two forward passes a line, with rigorous bars.

A convolution is linear in each operand, as evaluator ``delta`` assumes too. So the outputs' derivative along a line is
conv(moves of x, w) + conv(x, moves of w) + moves of b: forward passes, without truncation. The loss is then differenced
at z - h d and z + h d for each output, as everywhere (`fastcheck_kernels.curved`); trying other steps takes no pass.
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
from fastcheck.engine.directions import Direction, Line, Quotient
from fastcheck.engine.magnitudes import rms
from fastcheck.engine.random_signs import Arrays
from fastcheck.engine.sharing import share, thread_ranges
from fastcheck_kernels import conv, curved

START = {"vjp": 0, "square": 0, "relu": -20, "tanh": -17}
"""Step at which the search for the one with the least bar begins, as a power of two."""

FARTHEST = 256
"""Largest step as a power of two, and its inverse the smallest: where outputs vanish, larger ones look better yet."""

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
        Of the plain case.
    output, magnitude : float64 arrays
        The forward result of the scaled operands, and the sums of the sizes of its terms.
    pool : Executor

    Attributes
    ----------
    calls : int
        Forward passes.
    """

    spare, rigorous = 0, True  # each line has a step of its own

    def __init__(
        self, case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray, pool: Executor
    ) -> None:
        self.params: Mapping[str, np.ndarray] = {name: case.operand(name) for name in case.grads}
        self._plain, case = case.plain, case.plain.case
        self._case, self._scaled, self._output, self._pool, self.calls = case, scaled, output, pool, 0
        planes = math.prod(output.shape[:2])
        self._magnitude = magnitude.reshape(planes, -1).max(axis=1)
        self._model = np.max([loss_model(case, scaled, name, chain=0) for name in case.grads], axis=0)
        self._filters = np.abs(scaled.weight).reshape(len(scaled.weight), -1).sum(axis=1)
        self._largest = float(np.abs(scaled.input).max())
        sizes, square = np.abs(scaled.grad_output), case.loss == "square"
        self._pull = (sizes * np.abs(output) if square else sizes).reshape(planes, -1).sum(axis=1)
        self._bend = sizes.reshape(planes, -1).sum(axis=1) * square

    @property
    def usable(self) -> bool:
        """Whether derivatives in units of the case's own operands are within float64's range."""
        return all(abs(exponent) <= MOST_EXPONENT for exponent in self._scaled.exponents.values())

    def size(self, name: str) -> float:
        """Return the root mean square of a tensor's non-zero entries; of a bias of zeros, that of the outputs."""
        outputs = float(np.ldexp(rms(self._output), self._scaled.exponents["bias"])) if name == "bias" else 0.0
        return rms(self.params[name]) or outputs or 1.0

    def label(self, name: str) -> str:
        """Return the tensor's name."""
        return name

    def choose_step(self, lines: Sequence[Line]) -> None:
        """Choose nothing: each line has a step of its own."""

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line."""
        return self._best(line.moves)

    def searched(self, line: Line) -> Quotient:
        """Difference along a line, whose step is its own anyway."""
        return self._best(line.moves)

    def part(self, moves: Arrays, like: Direction) -> Quotient:
        """Difference along a line on which a part of the entries move."""
        return self._best(moves)

    @np.errstate(over="ignore", invalid="ignore")
    def _best(self, moves: Arrays) -> Quotient:
        """Difference along a line with the step that has the least bar."""
        along, exponent = self._along(moves), START[self._case.loss]
        best = self._quotient(*along, exponent)
        for stride in (STRIDE, -STRIDE) if self._case.loss != "vjp" else ():
            while abs(exponent + stride) <= FARTHEST:
                other = self._quotient(*along, exponent + stride)
                if not other.bar < best.bar:
                    break
                best, exponent = other, exponent + stride
        return best

    def _along(self, moves: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs' derivative along a line, and a bound on the sizes of its terms in each plane."""
        scaled, geometry = self._scaled, self._case.geometry
        own = {name: self._plain.moved(name, np.ldexp(move, -scaled.exponents[name])) for name, move in moves.items()}
        nothing = np.zeros(len(scaled.weight))
        along = np.zeros(self._output.shape)
        if "input" in own:
            along += passes.convolve(geometry, own["input"], scaled.weight, nothing, self._pool)
        if "weight" in own:
            along += passes.convolve(geometry, scaled.input, own["weight"], nothing, self._pool)
        along += own.get("bias", nothing).reshape(-1, *(1,) * geometry.rank)
        self.calls += ("input" in own) + ("weight" in own)
        x, w, b = (float(np.abs(own[name]).max()) if name in own else 0.0 for name in ("input", "weight", "bias"))
        return along, np.tile(x * self._filters + geometry.terms * w * self._largest + b, len(along))

    def _quotient(self, along: np.ndarray, sizes: np.ndarray, exponent: int) -> Quotient:
        """Difference the loss plane by plane with a step."""
        case, scaled, h = self._case, self._scaled, math.ldexp(1.0, exponent)
        outputs = self._output + h * along, self._output - h * along, self._output, scaled.grad_output
        planes = [array.reshape(len(sizes), -1) for array in outputs]
        table = np.empty((len(sizes), curved.COLUMNS))
        parts, known = thread_ranges(len(table), along.size), self._magnitude
        share(self._pool, lambda r: curved.planes(*planes, known, 2 * h, self._model, r[0], r[1], table), parts)
        columns = curved.NUMERIC, curved.ROUNDING, curved.TRUNCATION, curved.ABSOLUTE
        numeric, rounding, truncation, absolute = (math.fsum(table[:, column]) for column in columns)
        chain = 3 + roundings(case.geometry.terms, conv.TAPS)
        passed = chain * U * float(np.vdot(self._pull + h * sizes * self._bend, sizes))
        bar = rounding + abs(truncation) + SUMS * U * absolute + passed
        name = next(iter(self.params))
        loss = scaled.exponents[name] + scaled.exponent_of(name, case.loss)
        numeric, bar = float(np.ldexp(numeric, loss)), float(np.ldexp(bar, loss))
        usable = math.isfinite(numeric) and math.isfinite(bar)
        return Quotient(numeric, bar, h) if usable else Quotient(math.nan, math.inf, h)
