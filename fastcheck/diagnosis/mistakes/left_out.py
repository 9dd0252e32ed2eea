"""Terms and entries that are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.diagnosis.mistakes.variant import Variant, Variants, along, masked, subsets
from fastcheck.diagnosis.problem import SPACE, Problem


def one_group(problem: Problem) -> Variants:
    """Leave all groups but one without a gradient."""
    groups = len(problem.w)
    for kept, detail in ((0, "the first"), (groups - 1, "the last")) if groups > 1 else ():
        yield Variant(
            f"only {detail} has one",
            before=lambda p, kept=kept: p.having(v=masked(p.v, 1, slice(kept, kept + 1))),  # type: ignore[misc]
        )


def one_sample(problem: Problem) -> Variants:
    """Count a single sample."""
    samples = len(problem.v)
    for kept, detail in ((0, "only the first"), (samples - 1, "only the last")) if samples > 1 else ():
        cut = slice(kept, kept + 1)
        yield Variant(detail, before=lambda p, cut=cut: replace(p, big=p.big[cut], small=p.small[cut]))  # type: ignore[misc]
    if samples > 1:
        yield Variant("all but the last", before=lambda p: replace(p, big=p.big[:-1], small=p.small[:-1]))
        yield Variant("all but the first", before=lambda p: replace(p, big=p.big[1:], small=p.small[1:]))


def one_filter(problem: Problem) -> Variants:
    """Count a single filter in an input gradient."""
    count = problem.v.shape[2]
    axis = problem.filters_axis
    for kept, detail in ((-1, "only the last"), (0, "only the first")) if count > 1 else ():
        cut = slice(kept, kept + 1 or None)
        yield Variant(
            detail,
            lambda p, cut=cut: p.having(v=p.v[:, :, cut], w=p.w[(slice(None),) * axis + (cut,)]),  # type: ignore[misc]
        )


def one_position(problem: Problem) -> Variants:
    """Count the windows of one position, row or column alone: assigned where they should be added."""
    for axes in subsets(problem, lambda axis: problem.v.shape[SPACE + axis] > 1):
        words = "" if len(axes) == problem.rank else f" {along(problem, axes)}"
        yield Variant(f"only the last position{words} counts", within=partial(_last_only, axes=axes))
    if len(problem.v) > 1 and math.prod(problem.v.shape[SPACE:]) > 1:
        yield Variant(
            "only the last position of the last sample counts",
            lambda p: p.having(v=masked(p.v, 0, slice(-1, None))),  # the input gradient of other samples is zero
            partial(_last_only, axes=tuple(range(problem.rank))),
        )


def _last_only(problem: Problem, axes: Iterable[int]) -> Problem:
    v = problem.v
    for axis in axes:
        v = masked(v, SPACE + axis, slice(-1, None))
    return problem.having(v=v)


def dropped_positions(problem: Problem) -> Variants:
    """Leave out the first or last row or column of the outputs."""
    sizes = problem.v.shape[SPACE:]
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        for which, kept in (("last", slice(None, -1)), ("first", slice(1, None))):
            yield Variant(
                f"the {which} position {along(problem, axes) or 'along each axis'}",
                within=partial(_kept_positions, axes=axes, kept=kept),
            )
    inside = [_interior(problem, axis) for axis in range(problem.rank)]
    if not problem.transposed and any(cut != slice(0, size) for cut, size in zip(inside, sizes, strict=True)):
        yield Variant("those whose windows meet the padding", within=lambda p: _inner(p, inside))


def _kept_positions(problem: Problem, axes: Iterable[int], kept: slice) -> Problem:
    v = problem.v
    for axis in axes:
        v = masked(v, SPACE + axis, kept)
    return problem.having(v=v)


def _interior(problem: Problem, axis: int) -> slice:
    """Return the windows along an axis that meet no padding."""
    stride, low, size = problem.stride[axis], problem.low[axis], problem.big.shape[SPACE + axis]
    reach = problem.dilation[axis] * (problem.taps[axis] - 1)
    windows = range(problem.small.shape[SPACE + axis])
    inside = [one for one in windows if low <= one * stride < size + low - reach]
    return slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)


def _inner(problem: Problem, inside: Iterable[slice]) -> Problem:
    v = problem.v
    for axis, kept in enumerate(inside, SPACE):
        v = masked(v, axis, kept)
    return problem.having(v=v)


def unwritten_entries(problem: Problem) -> Variants:
    """Leave rows or columns of the input gradient zero."""
    yield from _unwritten(problem, problem.inside)


def unwritten_outputs(problem: Problem) -> Variants:
    """Leave rows or columns of the output zero."""
    yield from _unwritten(problem, problem.v.shape[SPACE:])


def _unwritten(problem: Problem, sizes: Shape) -> Variants:
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        words = along(problem, axes) or "along each axis"
        for count in range(1, 4):
            if any(sizes[axis] <= count for axis in axes):
                continue
            number = f"{count} positions" if count > 1 else "position"
            for which, kept in (("last", slice(None, -count)), ("first", slice(count, None))):
                yield Variant(f"the {which} {number} {words}", after=partial(_cut, axes=axes, kept=kept))
            if all(sizes[axis] > 2 * count for axis in axes):
                kept = slice(count, -count)
                yield Variant(f"the first and last {number} {words}", after=partial(_cut, axes=axes, kept=kept))


def _cut(gradient: np.ndarray, axes: Iterable[int], kept: slice) -> np.ndarray:
    for axis in axes:
        gradient = masked(gradient, SPACE + axis, kept)
    return gradient


def unwritten_samples(problem: Problem) -> Variants:
    """Leave the outputs of samples, or of groups, zero."""
    for axis, name in ((0, "sample"), (1, "group")):
        size = problem.v.shape[axis]
        kept = {"only the first": slice(1), "only the last": slice(size - 1, None)}
        if size > 2:
            kept |= {"all but the last": slice(size - 1), "all but the first": slice(1, None)}
        for words, part in kept.items() if size > 1 else ():
            yield Variant(f"{words} {name}", after=partial(masked, axis=axis, kept=part), whole=True)


def one_channel(problem: Problem) -> Variants:
    """Count a single channel of the input: assigned where it should be added."""
    size = problem.x.shape[2]
    for which, kept in (("last", slice(size - 1, None)), ("first", slice(1))) if size > 1 else ():
        yield Variant(f"only the {which} counts", lambda p, kept=kept: p.having(x=masked(p.x, 2, kept)))  # type: ignore[misc]
    if size > 2:
        for which, kept in (("last", slice(size - 1)), ("first", slice(1, None))):
            yield Variant(f"the {which} is left out", lambda p, kept=kept: p.having(x=masked(p.x, 2, kept)))  # type: ignore[misc]


def some_taps(problem: Problem) -> Variants:
    """Count one tap alone, or leave out the first or last along an axis."""
    several = [axis for axis in range(problem.rank) if problem.taps[axis] > 1]
    for which, kept in (("last", slice(-1, None)), ("first", slice(1))) if several else ():
        yield Variant(f"only the {which} tap counts", partial(_with_taps, axes=several, kept=kept))
    for axis in several:
        for which, kept in (("last", slice(-1)), ("first", slice(1, None))):
            words = f"the {which} tap is left out {along(problem, [axis])}".rstrip()
            yield Variant(words, partial(_with_taps, axes=(axis,), kept=kept))


def _with_taps(problem: Problem, axes: Iterable[int], kept: slice) -> Problem:
    w = problem.w
    for axis in axes:
        w = masked(w, SPACE + axis, kept)
    return replace(problem, w=w)
