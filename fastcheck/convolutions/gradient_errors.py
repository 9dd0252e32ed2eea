"""Bounds on the rounding of every entry of an analytic gradient, without differencing any.

They are the analytic part of the error bars (`fastcheck.convolutions.error_bars`), whose sums over a dimension's terms
v * phi'(z) * x are found for all dimensions at once: each is a backward pass over the sizes of the factors.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from fastcheck.convolutions import passes
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.error_bars import FACTORS, bars_of, loss_model
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine.magnitudes import rms
from fastcheck.engine.random_signs import Arrays
from fastcheck_kernels import curved
from fastcheck_kernels import error_bars as rows

BENT = 0.77
"""The largest second derivative of tanh."""


BINS = (1 / 8, 1.0, 8.0)
"""Edges of bins of one factor, relative to those that make both factors of a term equally small."""


@np.errstate(over="ignore", invalid="ignore")
def gradient_errors(
    case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray, pool: Executor
) -> Arrays:
    """Return bounds on the rounding of every gradient, shaped as the tensors.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
        Of the plain case.
    output, magnitude : float64 arrays
        The forward result of the scaled operands, and the sums of the sizes of its terms.
    pool : Executor
    """
    return {name: _Sums(case, scaled, name, pool).errors(output, magnitude) for name in case.grads}


class _Sums:
    """Sums over the terms of every dimension of one tensor."""

    def __init__(self, case: ConvCase, scaled: ScaledOperands, name: str, pool: Executor) -> None:
        self._plain, case = case.plain, case.plain.case
        self._case, self._scaled, self._name, self._pool = case, scaled, name, pool
        factor = FACTORS[name]
        self._factor = np.ones(1) if factor is None else np.abs(getattr(scaled, factor))

    def errors(self, output: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
        case, scaled, name = self._case, self._scaled, self._name
        model = loss_model(case, scaled, name, chain=1)
        v = np.abs(scaled.grad_output)
        slopes, off = _slopes(case.loss, output, magnitude, model)
        terms = v * slopes
        shape, bars = case.grads[name].shape, bars_of(case, scaled, name, chain=1)
        if name in self._plain.entries:  # gradients of copies, each rounded, are added
            bars = replace(bars, partials=bars.partials * int(self._plain.entries[name].copies.max()))
        sums = np.zeros((6, math.prod(shape)))
        sums[rows.ABSOLUTE] = absolute = self._of(terms, self._factor)
        sums[rows.SQUARES] = self._of(np.square(terms), np.square(self._factor))
        sums[rows.TERMS] = self._of(_nonzero(terms), _nonzero(self._factor))
        sums[rows.ABSORBED_TERMS] = np.minimum(
            self._small(terms, model[curved.TINY] * absolute.max()), sums[rows.TERMS]
        )
        sums[rows.ABSORBED] = np.inf
        if case.loss != "vjp":
            least = model[curved.LEAST_COTANGENT] * _nonzero(v) * (case.loss != "relu")
            sums[rows.ROUNDING] = self._of(v * off + least, self._factor)
        # A right gradient is no larger than the sum of the sizes of its terms, and a wrong one needs no wider bar.
        given = np.nan_to_num(np.abs(case.grads[name].reshape(-1).astype(np.float64)))
        numeric = np.minimum(np.ldexp(given, -scaled.exponent_of(name, case.loss)), absolute)
        return bars(numeric, sums)[0].reshape(shape)

    def _of(self, v: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Return the sums of products of a function of the cotangent with one of the factor."""
        x, w = self._scaled.input, self._scaled.weight
        x, w = (factor, w) if self._name == "weight" else (x, factor) if self._name == "input" else (x, w)
        sums = passes.backward(self._case.geometry, x, w, v, self._pool, (self._name,))
        return self._plain.summed(self._name, sums[self._name]).reshape(-1)

    def _small(self, terms: np.ndarray, limit: float) -> np.ndarray:
        """Bound how many terms of each dimension are below a limit, by bins of one factor."""
        even = math.sqrt((rms(terms) or 1.0) / (rms(self._factor) or 1.0))
        edges = [math.sqrt(limit) * even * bin for bin in BINS]
        small = np.zeros(self._case.grads[self._name].size)
        for low, high in itertools.pairwise([0.0, *edges, math.inf]):
            some = _nonzero(terms) * ((terms >= low) & (terms < high))
            others = _nonzero(self._factor) * (self._factor * low < limit)
            if some.any() and others.any():
                small += self._of(some, others)
        return small


def _nonzero(values: np.ndarray) -> np.ndarray:
    return (values > 0).astype(np.float64)


def _slopes(loss: str, z: np.ndarray, magnitude: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return \\|phi'(z)\\|, and by how much the analytic pass's phi' may be off (see `curved.row`)."""
    unknown = model[curved.OUTPUT] * magnitude + model[curved.LEAST_OUTPUT]
    rounded, kept = 4 * model[curved.ACCUMULATOR], model[curved.TYPE]
    if loss == "vjp":
        return np.ones(z.shape), np.zeros(z.shape)
    if loss == "relu":  # which side of the kink a unit is on belongs to the differences
        on = (z > -unknown).astype(np.float64)
        return on, rounded * on
    if loss == "square":
        return np.abs(z), (rounded + 2 * kept) * np.abs(z) + unknown
    size = np.abs(np.tanh(z))
    slope = 1 - np.square(size) + 4 * curved.U
    bend = np.minimum(BENT, 2 * size * slope + BENT * unknown)
    typed = np.minimum(kept * (2 * size * np.minimum(size, 0.5) + np.minimum(np.square(size), 0.5)), 1.5 * slope)
    return slope, rounded + bend * unknown + kept * (bend * np.abs(z) + 2 * slope) + typed
