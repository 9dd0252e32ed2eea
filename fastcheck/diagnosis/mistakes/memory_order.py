"""Memory that is written in one order of axes and read in another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.diagnosis.mistakes.variant import Variant, Variants
from fastcheck.diagnosis.problem import SPACE, Problem


def unswapped_channels(problem: Problem) -> Variants:
    """Read the kernel's memory as if its channel axes had been exchanged."""
    groups, filters, channels, *taps = problem.w.shape
    if min(filters, channels) > 1:
        yield Variant(
            before=lambda p: replace(p, w=p.w.reshape(groups, channels, filters, *taps).swapaxes(1, 2)),
        )
        yield Variant(
            "nor is it flipped",
            lambda p: replace(p, w=np.flip(p.w, p.axes).reshape(groups, channels, filters, *taps).swapaxes(1, 2)),
        )


def kernel_memory(problem: Problem) -> Variants:
    """Read the kernel's memory in other orders of axes."""
    groups, filters, channels, *taps = problem.w.shape
    if min(channels, math.prod(taps)) > 1:
        yield Variant(
            "as filters, taps, channels",
            lambda p: replace(p, w=np.moveaxis(p.w.reshape(groups, filters, *taps, channels), -1, 2)),
        )
    if filters > 1 and math.prod(taps) * channels > 1 and groups == 1:
        yield Variant(
            "as taps, channels, filters",
            lambda p: replace(p, w=np.moveaxis(p.w.reshape(1, *taps, channels, filters), (-1, -2), (1, 2))),
        )


def kernel_orders(problem: Problem) -> Variants:
    """Read the kernel's memory in any other order of axes."""
    groups, filters, channels, *taps = problem.w.shape
    if min(filters, channels) > 1:
        yield Variant(
            "as channels, filters, taps",
            lambda p: replace(p, w=p.w.reshape(groups, channels, filters, *taps).swapaxes(1, 2)),
        )
    yield from kernel_memory(problem)


def stored_weight_gradient(problem: Problem) -> Variants:
    """Store the weight gradient in the memory of another order of axes."""
    groups, filters, channels, *taps = shape = problem.w.shape
    if min(filters, channels) > 1:
        yield Variant("as channels, filters, taps", after=lambda g: g.swapaxes(1, 2).reshape(shape), whole=True)
        if filters != channels:
            yield Variant(
                "filters and channels are exchanged",
                after=lambda g: g.reshape(groups, channels, filters, *taps).swapaxes(1, 2),
                whole=True,
            )
    if channels > 1 and math.prod(taps) > 1:
        yield Variant("as filters, taps, channels", after=lambda g: np.moveaxis(g, 2, -1).reshape(shape), whole=True)
        yield Variant(
            "filters, taps, channels are taken for filters, channels, taps",
            after=lambda g: np.moveaxis(g.reshape(groups, filters, *taps, channels), -1, 2),
            whole=True,
        )
    if groups == 1 and filters > 1 and channels * math.prod(taps) > 1:
        yield Variant(
            "as taps, channels, filters", after=lambda g: np.moveaxis(g, (1, 2), (-1, -2)).reshape(shape), whole=True
        )


def mixed_samples(problem: Problem) -> Variants:
    """Flatten samples and space of an operand in one order, and read them in another."""
    if len(problem.v) == 1:
        return
    for name, words in (("v", "cotangent"), ("x", "input")):
        for detail, change in _FLATTENED.items():
            yield Variant(
                f"in the {words}, {detail}",
                lambda p, name=name, change=change: p.having(**{name: change(getattr(p, name))}),  # type: ignore[misc]
            )


def _samples_as_channels(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return array.reshape(groups, channels, samples, *space).transpose(2, 0, 1, *range(SPACE, array.ndim))


def _samples_last(array: np.ndarray) -> np.ndarray:
    """Flatten channels first, samples last; read samples before space."""
    samples, groups, channels, *space = array.shape
    return np.moveaxis(np.moveaxis(array, 0, -1).reshape(groups, channels, samples, *space), 2, 0)


def _samples_first(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return np.moveaxis(np.moveaxis(array, 0, 2).reshape(groups, channels, *space, samples), -1, 0)


_FLATTENED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "which is reshaped to (channels, -1) without a transposition": _samples_as_channels,
    "which is flattened with the samples last": _samples_last,
    "which is flattened with the samples first": _samples_first,
    "which is transposed to channels first and read as samples first": lambda array: np.moveaxis(array, 0, 2).reshape(
        array.shape
    ),
}


def mixed_layouts(problem: Problem) -> Variants:
    """Read the memory of an operand channels-last, or the other way round."""
    for name, words in (("v", "cotangent"), ("x", "input")):
        channels, space = math.prod(getattr(problem, name).shape[1:3]), math.prod(getattr(problem, name).shape[3:])
        if min(channels, space) > 1:
            for detail, change in _LAYOUTS.items():
                yield Variant(
                    f"the {words} {detail}",
                    lambda p, name=name, change=change: p.having(**{name: change(getattr(p, name))}),  # type: ignore[misc]
                )


def _read_last(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    whole = array.reshape(samples, *space, groups * channels)
    return np.moveaxis(whole, -1, 1).reshape(array.shape)


def _written_last(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return np.moveaxis(array.reshape(samples, groups * channels, *space), 1, -1).reshape(array.shape)


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "is read as NHWC": _read_last,
    "is written as NHWC and read as NCHW": _written_last,
}


def gradient_layouts(problem: Problem) -> Variants:
    """Return the input gradient channels-last, or the other way round."""
    yield from _relaid(problem.x.shape)


def output_layouts(problem: Problem) -> Variants:
    """Return the output channels-last, or the other way round, or with samples and space in another order."""
    shape = problem.v.shape
    yield from _relaid(shape)
    if shape[0] > 1:
        for detail, change in _FLATTENED.items():
            yield Variant(f"it {detail.removeprefix('which ')}", after=change, whole=True)


def _relaid(shape: Shape) -> Variants:
    if min(math.prod(shape[1:3]), math.prod(shape[3:])) > 1:
        for detail, change in _LAYOUTS.items():
            yield Variant(f"it {detail}", after=change, whole=True)
