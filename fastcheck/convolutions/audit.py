"""The audit of a shortcut: a few dimensions are differenced again by ``local``, and a direction over all by ``full``.

Neither uses the shortcut's lowering: both run the forward kernel, which indexes its operands directly.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from typing import Any, Literal

import numpy as np

from fastcheck.common.precision import U
from fastcheck.convolutions import passes
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.copies_evaluators import CopiesReevaluation
from fastcheck.convolutions.error_bars import FACTORS, loss_model, roundings
from fastcheck.convolutions.reevaluation import Reevaluation
from fastcheck.convolutions.relabelled import relabelled
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import automatic
from fastcheck.engine import sampling
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.engine.shard_results import AuditRecord, audit_record
from fastcheck.engine.sharing import share, thread_ranges, worth
from fastcheck_kernels import conv, curved, direction

DIMS = 32
"""Number of dimensions that are differenced again."""

PIECES = 4
"""Parts into which these are cut at most: filters that are perturbed together share what is gathered of the input."""


class Audit:
    """The audit of one tensor.

    Parameters
    ----------
    case : ConvCase
    scaled : ScaledOperands
        Of the plain case.
    output : float64 array
        The forward result of the scaled operands.
    tensor : str
    chosen : Chosen
        The dimensions that are checked.
    step : float or "auto"
        The step that was asked for.
    seed : int
    """

    def __init__(
        self,
        case: ConvCase,
        scaled: ScaledOperands,
        output: np.ndarray,
        tensor: str,
        chosen: Chosen,
        step: float | Literal["auto"],
        seed: int,
    ) -> None:
        self._plain, self._case = case.plain, case.plain.case
        self._scaled, self._tensor, self._chosen, self._step = scaled, tensor, chosen, step
        self._output = output
        # With several samples, the dimensions in a block of the input are not in ascending order.
        rearranged = tensor in self._plain.entries
        self._ascending = not rearranged and (tensor != "input" or case.geometry.input_shape[0] == 1)
        self._seed = int(np.random.default_rng([seed, len(chosen)]).integers(2**31))
        rng = np.random.default_rng([seed, DIMS])
        if isinstance(chosen, range):
            count = min(DIMS, len(chosen))
            self._dims = np.asarray(sampling.stratified(case.geometry.shape_of(tensor), count, rng))
        else:
            self._dims = np.sort(rng.choice(chosen, min(DIMS, len(chosen)), replace=False))

    def note(self, differences: Differences) -> AuditRecord:
        """Return the audited dimensions of a block, and the block's sums along the direction."""
        dims, numeric, error_bar = differences.dims, differences.numeric, differences.error_bar
        if self._ascending:
            rows = np.minimum(np.searchsorted(dims, self._dims), len(dims) - 1)
            audited = rows[dims[rows] == self._dims]
        else:
            audited = np.flatnonzero(np.isin(dims, self._dims, assume_unique=True))
        sums = direction.along(dims, self._seed, numeric, error_bar)
        return audit_record(dims[audited], numeric[audited], error_bar[audited], sums)

    @np.errstate(over="ignore", invalid="ignore")
    def result(self, noted: AuditRecord, pool: Executor) -> dict[str, Any]:
        """Difference again, compare, and return the audit's part of a tensor's report."""
        dims, numeric, bars = np.array(noted.dims, np.int64), np.array(noted.numeric), np.array(noted.error_bar)
        disagreeing = int(np.count_nonzero(self._disagree(dims, numeric, bars, pool)))
        along = self._directional(noted, pool)
        apart = abs(along["difference"]) > along["error_bar"]  # false where one of them overflows
        return {"dims": len(dims), "direction": along, "disagreements": disagreeing + apart}

    def _disagree(self, dims: np.ndarray, numeric: np.ndarray, bars: np.ndarray, pool: Executor) -> np.ndarray:
        """Whether each dimension, in ascending order, is beyond both error bars when ``local`` differences it again."""
        magnitude, size = _crude_magnitude(self._case, self._scaled), _crude_size(self._case, self._scaled)
        arrays = magnitude, self._output
        local = Reevaluation("local", self._case, self._scaled, self._tensor, *arrays, self._step, size)

        def of_copies() -> CopiesReevaluation:
            return CopiesReevaluation("local", self._plain, self._scaled, *arrays, self._step, size)

        work = len(dims) * self._case.geometry.products_per_dimension(self._tensor)
        user = relabelled(local, self._plain, self._tensor, of_copies)
        pieces = np.array_split(np.sort(dims), min(PIECES, worth(work)))
        parts = list(pool.map(user, [block for piece in pieces for block in user.blocks(piece)]))
        again, allowed, found = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("numeric", "error_bar", "dims")
        )
        order, mine = np.argsort(found), np.argsort(dims)
        return np.abs(again[order] - numeric[mine]) > allowed[order] + bars[mine]

    def _directional(self, noted: AuditRecord, pool: Executor) -> dict[str, float]:
        """Compare the sum of direction * numeric with the derivative along the direction, by one pair of forwards."""
        geometry, scaled = self._case.geometry, self._scaled
        factor = FACTORS[self._tensor]
        exponent = scaled.exponent_of(self._tensor, self._case.loss)
        terms = 1 if factor is None else geometry.terms
        h = automatic(_crude_size(self._case, scaled), None if factor is None else scaled.rms(factor), self._case.loss)
        h *= 2.0 ** -round(math.log2(math.sqrt(terms)))
        arrays = {"input": scaled.input, "weight": scaled.weight, "bias": scaled.bias}
        largest = float(np.abs(arrays[self._tensor]).max())
        table = self._table(self._moved(arrays, h, pool), self._moved(arrays, -h, pool), h, pool)
        quotient, rounding, truncation, moved = (
            float(np.ldexp(math.fsum(table[:, column]), exponent))
            for column in (curved.NUMERIC, curved.ROUNDING, curved.TRUNCATION, curved.ABSOLUTE)
        )
        total, size, bars = map(math.fsum, (noted.along, noted.size, noted.bars))
        # Two small parts more: each entry's move is rounded, and so are the sums of many terms.
        bar = bars + rounding + abs(truncation) + 2 * U * ((2 * largest / h + 4) * size + 64 * moved)
        return {"delta": total, "full": quotient, "difference": total - quotient, "error_bar": bar}

    def _table(self, plus: np.ndarray, minus: np.ndarray, h: float, pool: Executor) -> np.ndarray:
        """Difference the loss plane by plane; return a table with the columns of `fastcheck_kernels.curved`."""
        case, scaled = self._case, self._scaled
        samples, filters = case.geometry.output_shape[:2]
        chain = 1 + roundings(case.geometry.terms, conv.TAPS)
        model = loss_model(case, scaled, self._tensor, chain)
        sizes = np.tile(_crude_sizes(case, scaled, self._tensor, h), samples)
        planes = [array.reshape(samples * filters, -1) for array in (plus, minus, self._output, scaled.grad_output)]
        table = np.empty((samples * filters, curved.COLUMNS))
        parts = thread_ranges(len(table), plus.size)
        share(pool, lambda r: curved.planes(*planes, sizes, 2 * h, model, r[0], r[1], table), parts)
        return table

    def _moved(self, arrays: dict[str, np.ndarray], h: float, pool: Executor) -> np.ndarray:
        """Return all outputs with the operand moved along the direction by h."""
        tensor = self._plain.values(self._tensor, arrays[self._tensor]).copy()
        flat = tensor.reshape(-1)
        pieces = [self._chosen[lo:hi] for lo, hi in thread_ranges(len(self._chosen), len(self._chosen))]
        share(pool, lambda part: direction.move(indices(part), self._seed, h, flat), pieces)
        moved = arrays | {self._tensor: self._plain.moved(self._tensor, tensor)}
        return passes.convolve(self._case.geometry, moved["input"], moved["weight"], moved["bias"], pool)


def _crude_sizes(case: ConvCase, scaled: ScaledOperands, tensor: str = "", h: float = 0.0) -> np.ndarray:
    """Bound the sum of the magnitudes of an output's terms, for each filter, with a tensor's entries moved by h."""
    largest, weights = scaled.cached(("sizes",), lambda: (_largest(scaled.input), _row_sums(scaled.weight)))
    if tensor == "input":
        largest += h
    if tensor == "weight":
        weights = weights + h * case.geometry.terms
    return largest * weights + np.abs(scaled.bias) + (h if tensor == "bias" else 0.0)


def _largest(array: np.ndarray) -> float:
    return max(float(array.max()), -float(array.min()))


def _row_sums(weight: np.ndarray) -> np.ndarray:
    return np.abs(weight).reshape(len(weight), -1).sum(axis=1)


def _crude_magnitude(case: ConvCase, scaled: ScaledOperands) -> np.ndarray:
    """Bound the sum of the magnitudes of every output's terms, without the forward pass that a tight bound takes."""
    sizes = _crude_sizes(case, scaled).reshape(1, -1, *(1,) * case.geometry.rank)
    return np.broadcast_to(sizes, case.geometry.output_shape).copy()  # kernels are compiled for writable arrays


def _crude_size(case: ConvCase, scaled: ScaledOperands) -> float:
    """Return the root mean square of these bounds over all outputs, which equals that over the filters."""
    return scaled.rms("crude", _crude_sizes(case, scaled))
