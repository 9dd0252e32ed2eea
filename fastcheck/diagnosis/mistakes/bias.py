"""Bias gradients that are averaged, or summed over the wrong axes."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from functools import partial

import numpy as np

from fastcheck.diagnosis.mistakes.variant import NAMES, Variant, Variants
from fastcheck.diagnosis.problem import SPACE, Problem


def averaged_bias(problem: Problem) -> Variants:
    """Divide the bias gradient by what it was summed over."""
    samples, positions = len(problem.v), math.prod(problem.v.shape[SPACE:])
    counts = {
        f"over the {samples} samples": samples,
        f"over the {positions} output positions": positions,
        f"over all {samples * positions} samples and positions": samples * positions,
    }
    for words, count in counts.items():
        if count > 1:
            yield Variant(words, after=lambda g, count=count: g / count)  # type: ignore[misc]


def bias_axes(problem: Problem) -> Variants:
    """Sum over other axes than the channels', where one of these has as many entries."""
    flat_shape = (problem.v.shape[0], math.prod(problem.v.shape[1:3]), *problem.v.shape[3:])
    names = ("samples", "channels", *NAMES[problem.rank])
    for axis, size in enumerate(flat_shape):
        if axis != 1 and size == flat_shape[1] > 1:
            left = f"one entry is left for each of the {names[axis]}"
            yield Variant(left, gradient=partial(_kept_axis, axis=axis), whole=True)


def _kept_axis(problem: Problem, tensor: str, pool: Executor, axis: int) -> np.ndarray:
    samples, groups, channels, *space = problem.v.shape
    whole = problem.v.reshape(samples, groups * channels, *space)
    return whole.sum(axis=tuple(one for one in range(whole.ndim) if one != axis)).reshape(groups, channels)
