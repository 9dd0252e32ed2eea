"""Padding that is missing, of another mode or on the wrong side, and arrays that are shifted."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import PADDING_MODES, Sides
from fastcheck.diagnosis.mistakes.variant import Variant, Variants, along, masked, only, put, subsets
from fastcheck.diagnosis.problem import SPACE, Problem, gradient, in_space, padded


def missing_padding(problem: Problem) -> Variants:
    """Take no notice of the padding: the border of the padded gradient is not cropped."""
    if problem.sources:
        yield Variant(within=_unpadded)
    cropped = [axis for axis in range(problem.rank) if problem.low[axis]]
    for axes in subsets(problem, cropped.__contains__):
        low = put(problem.low, axes, lambda _: 0)
        yield Variant(only(problem, axes, cropped.__contains__), within=partial(replace, low=low))


def wrong_side(problem: Problem) -> Variants:
    """Pad or crop on the wrong side."""
    low, high = problem.low, problem.high
    both = tuple(map(sum, zip(low, high, strict=True)))
    found = {"all of it before each axis": both, "what belongs after an axis comes before it": high}
    for detail, believed in found.items():
        if believed != low:
            yield Variant(detail, within=partial(replace, low=believed))


def padding_off_by_one(problem: Problem) -> Variants:
    """Pad or crop by one more or one less."""
    for axes in subsets(problem):
        for more in (1, -1):
            low = put(problem.low, axes, lambda axis, more=more: problem.low[axis] + more)  # type: ignore[misc]
            words = f"one {'more' if more > 0 else 'less'} than the padding"
            yield Variant(f"{words} {along(problem, axes)}".rstrip(), within=partial(replace, low=low))


def full_padding(problem: Problem) -> Variants:
    """Use the kernel's extent less the padding for the padding, or twice the padding."""
    reach = tuple(d * (k - 1) for d, k in zip(problem.dilation, problem.taps, strict=True))
    less = tuple(r - low for r, low in zip(reach, problem.low, strict=True))
    twice = tuple(2 * low for low in problem.low)
    for detail, low in (("the kernel's size less one less the padding is used", less), ("it is cropped twice", twice)):
        if low != problem.low:
            yield Variant(detail, within=partial(replace, low=low))


def misplaced_remainder(problem: Problem) -> Variants:
    """Put the rows that no window meets before the others."""
    extents = [d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.taps, strict=True)]
    sizes = zip(problem.big.shape[SPACE:], problem.low, problem.high, extents, problem.stride, strict=True)
    rest = [(size + low + high - extent) % stride for size, low, high, extent, stride in sizes]
    for share, detail in ((1, "all of them come first"), (2, "half of them come first")):
        low = tuple(low - one // share for low, one in zip(problem.low, rest, strict=True))
        if low != problem.low:
            yield Variant(detail, within=partial(replace, low=low))


def shifted(problem: Problem) -> Variants:
    """Shift the gradient in space, with zeros or with what leaves the other side."""
    reach = range(-3, 4) if problem.rank < 3 else range(-2, 3)
    moves = [move for move in itertools.product(reach, repeat=problem.rank) if any(move)]
    for move in sorted(moves, key=lambda one: sum(map(abs, one))):
        low = tuple(old - one for old, one in zip(problem.low, move, strict=True))
        yield Variant(f"by {_moved(move)}", within=partial(replace, low=low))


def _moved(move: Shape) -> str:
    return str(move[0]) if len(move) == 1 else f"({', '.join(map(str, move))})"


def rolled(problem: Problem) -> Variants:
    """Shift the cotangent around its borders."""
    sizes = problem.v.shape[SPACE:]
    for axis, size in enumerate(sizes):
        for move in (1, -1) if size > 1 else ():
            yield Variant(
                f"by {move} {along(problem, [axis])}".rstrip(),
                within=lambda p, axis=axis, move=move: p.having(v=np.roll(p.v, move, SPACE + axis)),  # type: ignore[misc]
            )


def dropped_copies(problem: Problem) -> Variants:
    """Take the copies that a padding mode pads with for zeros."""
    if problem.sources:
        yield Variant(gradient=_with_zeros)


def other_padding(problem: Problem) -> Variants:
    """Pad with copies of the input's entries where the layer pads with zeros."""
    sides = tuple(zip(problem.low, problem.high, strict=True))
    if problem.sources or problem.transposed or not any(map(any, sides)) or min(map(min, sides)) < 0:
        return
    for mode in PADDING_MODES[1:]:
        if all(max(pair) < size for pair, size in zip(sides, problem.big.shape[SPACE:], strict=True)):
            yield Variant(f"{mode} padding", within=partial(_padded_as, sides=sides, mode=mode))


def other_mode(problem: Problem) -> Variants:
    """Pad in another mode than the layer's."""
    if problem.transposed:
        return
    x, sides = _without_padding(problem)
    if not any(map(any, sides)) or min(map(min, sides)) < 0:
        return
    if problem.sources:
        yield Variant("padding_mode 'zeros'", within=_of_zeros, advice=_GIVE_MODE.format("zeros"))
    for mode, spare in {"reflect": 1, "replicate": -max(map(max, sides)), "circular": 0}.items():
        if all(max(pair) + spare <= size for pair, size in zip(sides, x.shape[SPACE:], strict=True)):
            yield Variant(
                f"padding_mode {mode!r}",
                within=partial(_padded_anew, sides=sides, mode=mode),
                advice=_GIVE_MODE.format(mode),
            )


_GIVE_MODE = "give padding_mode='{}', or pad otherwise in the forward pass"


def _without_padding(problem: Problem) -> tuple[np.ndarray, Sides]:
    """Return the input as it was before a padding mode copied entries of it, and the padding."""
    if not problem.sources:
        return problem.big, tuple(zip(problem.low, problem.high, strict=True))
    inside = tuple(map(_inside, problem.sources))
    sizes = zip(inside, problem.big.shape[SPACE:], strict=True)
    return problem.big[in_space(inside)], tuple((part.start, size - part.stop) for part, size in sizes)


def _of_zeros(problem: Problem) -> Problem:
    x, sides = _without_padding(problem)
    return replace(problem, big=x, sources=(), low=tuple(low for low, _ in sides))


def _padded_anew(problem: Problem, sides: Sides, mode: str) -> Problem:
    return _padded_as(replace(problem, big=_without_padding(problem)[0], sources=()), sides, mode)


def tensorflows_same(problem: Problem) -> Variants:
    """Pad as TensorFlow's "SAME" does: with a stride, more after the input than before it."""
    axes = zip(problem.inside, problem.v.shape[SPACE:], problem.stride, problem.dilation, problem.taps, strict=True)
    pads = [((out - 1) * s + d * (k - 1) + 1 - n, out == -(-n // s)) for n, out, s, d, k in axes]
    if problem.transposed or problem.sources or not all(fits for _, fits in pads):
        return
    sides = tuple((total // 2, total - total // 2) for total in (max(0, one) for one, _ in pads))
    low = tuple(one for one, _ in sides)
    if low != problem.low:
        yield Variant(str(sides), within=partial(replace, low=low), advice=f"give padding={sides}")


def _padded_as(problem: Problem, sides: Sides, mode: str) -> Problem:
    big, sources = padded(problem.big, sides, mode)
    return replace(problem, big=big, sources=sources, low=(0,) * problem.rank)


def _with_zeros(problem: Problem, tensor: str, pool: Executor) -> np.ndarray:
    inside = tuple(map(_inside, problem.sources))
    if tensor == "input":
        return gradient(replace(problem, sources=()), tensor, pool)[in_space(inside)]
    big = problem.big
    for axis, kept in enumerate(inside, SPACE):
        big = masked(big, axis, kept)
    return gradient(replace(problem, big=big), tensor, pool)


def _unpadded(problem: Problem) -> Problem:
    """Return the problem of an input without its copies, whose first entry the first window begins with."""
    return replace(problem, big=problem.big[in_space(map(_inside, problem.sources))], sources=())


def _inside(sources: np.ndarray) -> slice:
    """Return where a padded axis holds what was padded: the entries in order."""
    size = int(sources.max()) + 1
    whole = np.arange(size)
    start = next(i for i in range(len(sources) - size + 1) if (sources[i : i + size] == whole).all())
    return slice(start, start + size)
