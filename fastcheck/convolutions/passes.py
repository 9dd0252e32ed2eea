"""The forward pass of a convolution across threads, and the reference backward pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from concurrent.futures import Executor

import numpy as np

from fastcheck.convolutions.case import TENSORS, ConvCase
from fastcheck.convolutions.entries import Entries, entries_of
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine.sharing import ranges, share, thread_ranges, worth
from fastcheck_kernels import conv

LEAST_FILTERS = 128
"""Least filters of a piece: with fewer, filling a panel costs as much as its products (bench/test_forward.py)."""


def output(case: ConvCase | ScaledOperands, geometry: ConvGeometry, pool: Executor) -> np.ndarray:
    """Return the convolution's output in float64."""
    return convolve(geometry, case.input, case.weight, case.bias, pool)


def compile_kernels() -> None:
    """Compile the forward kernel in the caller's thread, where Ctrl-C is noticed."""
    one = np.ones((1, 1, 1, 1, 1))
    region = np.array([(0, 1, 1)] * 5, dtype=np.int64)
    conv.forward(one, one, np.ones(1), ConvGeometry.of((1, 1, 1), (1, 1, 1)).vector(), region, np.empty((1, 1, 1)))


def magnitude(case: ConvCase | ScaledOperands, geometry: ConvGeometry, pool: Executor) -> np.ndarray:
    """Return the sum of the magnitudes of each output's terms, sum |w x| + |b|, shaped as the output.

    It bounds every partial sum of the output, in whatever order the terms are added.
    """
    return convolve(geometry, np.abs(case.input), np.abs(case.weight), np.abs(case.bias), pool)


def convolve(
    geometry: ConvGeometry, input: np.ndarray, weight: np.ndarray, bias: np.ndarray, pool: Executor
) -> np.ndarray:
    """Return the outputs of float64 arrays of this geometry; the result does not depend on the pool."""
    if geometry.plain is not geometry:
        _, input, weight = _rearranged(geometry, input, weight)
        return convolve(geometry.plain, input, weight, bias, pool)
    x, w = geometry.lift(input), geometry.lift(weight)
    result = geometry.lift(np.empty(geometry.output_shape))
    vector = geometry.vector()

    def run(region: np.ndarray) -> None:
        target = result[tuple(slice(low, low + count) for low, count in region[:, : conv.STEP].tolist())]
        direct = target.flags.c_contiguous  # the kernel writes contiguous arrays only
        part = target if direct else np.empty(target.shape)
        conv.forward(x, w, bias, vector, region, part.reshape(*part.shape[:2], -1))
        if not direct:
            target[...] = part

    share(pool, run, _regions(result.shape, worth(result.size * geometry.terms)))
    return result.reshape(geometry.output_shape)


def _rearranged(
    geometry: ConvGeometry, input: np.ndarray, weight: np.ndarray
) -> tuple[dict[str, Entries], np.ndarray, np.ndarray]:
    """Return where the entries of operands are in the plain convolution's, and these."""
    entries, arrays = entries_of(geometry), {"input": input, "weight": weight}
    x, w = (entries[name].moved(array) if name in entries else array for name, array in arrays.items())
    return entries, x, w


def _regions(shape: tuple[int, ...], most: int) -> Iterator[np.ndarray]:
    """Cut an output into at most ``most`` regions: by samples, by rows while a piece fills a panel, then by filters."""
    axis = next((a for a in (2, 3, 4) if shape[a] > 1), 4)
    panels = math.prod(shape[2:]) // conv.PIXELS
    sample_pieces = min(shape[0], most)
    row_pieces = max(1, min(shape[axis], panels, most // sample_pieces))
    filter_pieces = max(1, min(shape[1] // LEAST_FILTERS, most // (sample_pieces * row_pieces)))
    whole = np.array([(0, size, 1) for size in shape], dtype=np.int64)
    pieces = itertools.product(
        ranges(shape[0], sample_pieces), ranges(shape[1], filter_pieces), ranges(shape[axis], row_pieces)
    )
    for samples, filters, rows in pieces:
        region = whole.copy()
        for cut, (low, high) in ((0, samples), (1, filters), (axis, rows)):
            region[cut, : conv.STEP] = low, high - low
        yield region


def backward(
    geometry: ConvGeometry,
    input: np.ndarray,
    weight: np.ndarray,
    grad_output: np.ndarray,
    pool: Executor,
    tensors: Collection[str] = TENSORS,
) -> dict[str, np.ndarray]:
    """Compute the reference VJPs of a convolution from contiguous float64 arrays of this geometry.

    Returns
    -------
    dict
        float64 arrays by name, for those of ``"input"``, ``"weight"`` and ``"bias"`` that are in ``tensors``.
    """
    if geometry.plain is not geometry:
        entries, input, weight = _rearranged(geometry, input, weight)
        found = backward(geometry.plain, input, weight, grad_output, pool, tensors)
        return {name: entries[name].summed(grad) if name in entries else grad for name, grad in found.items()}
    vector, work = geometry.vector(), grad_output.size * geometry.terms
    v, x, w = (geometry.lift(array) for array in (grad_output, input, weight))
    grads = {}
    if "input" in tensors:
        grad_input = np.zeros_like(x)
        share(
            pool,
            lambda r: conv.adjoint(v, w, vector, r[0], r[1], grad_input),
            thread_ranges(x.shape[0] * x.shape[1], work),
        )
        grads["input"] = grad_input.reshape(geometry.input_shape)
    if "weight" in tensors:
        grad_weight = np.empty_like(w)
        share(pool, lambda r: conv.weight_vjp(x, v, vector, r[0], r[1], grad_weight), thread_ranges(w.shape[0], work))
        grads["weight"] = grad_weight.reshape(geometry.weight_shape)
    if "bias" in tensors:
        grads["bias"] = v.sum(axis=(0, 2, 3, 4))
    return grads
