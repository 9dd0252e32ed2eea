"""Strides and dilations that are missing, exchanged, or those of another axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from fastcheck.diagnosis.mistakes.variant import Variant, Variants, along, only, put, subsets
from fastcheck.diagnosis.problem import SPACE, Problem


def missing_stride(problem: Problem) -> Variants:
    """Walk with a stride of one: the cotangent is not dilated."""
    strided = [axis for axis in range(problem.rank) if problem.stride[axis] > 1]
    for axes in subsets(problem, strided.__contains__):
        believed = put(problem.stride, axes, lambda _: 1)
        detail = only(problem, axes, strided.__contains__)
        yield Variant(detail, within=partial(replace, stride=believed))
        if any(problem.low[axis] for axis in axes):
            low = put(problem.low, axes, lambda _: 0)
            yield Variant(
                f"{detail}{', ' * bool(detail)}and neither is the padding there",
                within=partial(replace, stride=believed, low=low),
            )


def repeated_cotangent(problem: Problem) -> Variants:
    """Repeat entries of the cotangent in place of putting zeros between them."""
    if max(problem.stride) > 1 and not problem.transposed:
        yield Variant(within=_repeated)


def repeated_input(problem: Problem) -> Variants:
    """Repeat entries of a transposed convolution's input in place of putting zeros between them."""
    if max(problem.stride) > 1 and problem.transposed:
        yield Variant(within=_repeated)


def _repeated(problem: Problem) -> Problem:
    small = problem.small
    for axis, times in enumerate(problem.stride, SPACE):
        small = np.repeat(small, times, axis)
    return replace(problem, small=small, stride=(1,) * problem.rank)


def exchanged_strides(problem: Problem) -> Variants:
    """Use the stride for the dilation and the dilation for the stride."""
    if problem.stride != problem.dilation:
        yield Variant(within=lambda p: replace(p, stride=p.dilation, dilation=p.stride))


def missing_dilation(problem: Problem) -> Variants:
    """Walk along adjacent taps."""
    dilated = [axis for axis in range(problem.rank) if problem.dilation[axis] > 1]
    for axes in subsets(problem, dilated.__contains__):
        believed = put(problem.dilation, axes, lambda _: 1)
        yield Variant(only(problem, axes, dilated.__contains__), within=partial(replace, dilation=believed))


def missing_both(problem: Problem) -> Variants:
    """Walk with neither stride nor dilation."""
    ones = (1,) * problem.rank
    if max(problem.stride) > 1 and max(problem.dilation) > 1:
        yield Variant(within=partial(replace, stride=ones, dilation=ones))


def mixed_axes(problem: Problem) -> Variants:
    """Use the parameters of one spatial axis for another."""
    names = {"stride": problem.stride, "padding": problem.low, "dilation": problem.dilation}
    differing = {name: values for name, values in names.items() if len(set(values)) > 1}
    if len(differing) > 1:
        yield Variant("in all arguments", within=lambda p: _reversed(p, differing))
    for name, values in differing.items():
        yield Variant(f"in the {name}", within=lambda p, name=name: _reversed(p, [name]))  # type: ignore[misc]
        for axis in range(problem.rank):
            one = {"padding": "low"}.get(name, name), (values[axis],) * problem.rank
            yield Variant(
                f"the {name} {along(problem, [axis])} is used for all axes",
                within=lambda p, one=one: replace(p, **dict([one])),  # type: ignore[misc]
            )


def _reversed(problem: Problem, names: Iterable[str]) -> Problem:
    keys = [{"padding": "low"}.get(name, name) for name in names]
    return replace(problem, **{key: getattr(problem, key)[::-1] for key in keys})
