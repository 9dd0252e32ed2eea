"""Biases that are left out, repeated or added over the wrong axes, and their gradients averaged or summed wrongly."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from functools import partial

import numpy as np

from fastcheck.diagnosis.mistakes.variant import NAMES, Variant, Variants
from fastcheck.diagnosis.problem import SPACE, Problem, in_space


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


def missing_bias(problem: Problem) -> Variants:
    """Leave the bias out."""
    if problem.bias.any():
        yield Variant(before=lambda p: p.having(bias=np.zeros_like(p.bias)))


def repeated_bias(problem: Problem) -> Variants:
    """Add the bias several times."""
    channels, taps = problem.w.shape[1 if problem.transposed else 2], math.prod(problem.taps)
    times = {"once for each channel": channels, "once for each tap": taps, "once for each product": channels * taps}
    times = {words: count for words, count in times.items() if count > 2}
    for words, factor in {"twice": 2, **times}.items() if problem.bias.any() else ():
        yield Variant(words, before=lambda p, factor=factor: p.having(bias=factor * p.bias))  # type: ignore[misc]


def subtracted_bias(problem: Problem) -> Variants:
    """Subtract the bias."""
    if problem.bias.any():
        yield Variant(before=lambda p: p.having(bias=-p.bias))


def misplaced_bias(problem: Problem) -> Variants:
    """Add the bias over another axis that has as many entries, or one entry of it everywhere."""
    shape, bias = problem.bias.shape, _entries(problem)
    if len(bias) == 1 or not np.ptp(bias):
        return
    names = {0: "samples", **dict(enumerate(NAMES[problem.rank], SPACE))}
    for axis, name in names.items():
        if shape[axis] == len(bias):
            yield Variant(f"along the {name}", partial(_added_along, axis=axis))
    for which, words in ((0, "first"), (-1, "last")):
        yield Variant(f"the {words} entry is added to all filters", partial(_added_everywhere, which=which))


def _added_along(problem: Problem, axis: int) -> Problem:
    along = _entries(problem).reshape(-1, *(1,) * (problem.bias.ndim - axis - 1))
    return problem.having(bias=np.broadcast_to(along, problem.bias.shape))


def _added_everywhere(problem: Problem, which: int) -> Problem:
    return problem.having(bias=np.broadcast_to(_entries(problem)[which], problem.bias.shape))


def _entries(problem: Problem) -> np.ndarray:
    """Return the bias of each filter, of all groups."""
    return problem.bias[0][in_space((0,) * problem.rank)].reshape(-1)
