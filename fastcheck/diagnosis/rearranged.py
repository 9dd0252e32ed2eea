"""Rearrangements of a tensor's entries: axes in another order, flipped, rolled or shifted, memory read otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape

_Move = Callable[[np.ndarray], np.ndarray]
"""Takes indices, flat or along one axis; returns where they go."""

_MOST_ORDERS = 5
"""Axes longer than one of which all orders are tried; of more, pairs alone are exchanged."""

_FARTHEST = 2048
"""The farthest roll that is tried."""


class Rearrangement(NamedTuple):
    """Where the entries of a tensor may have gone.

    Attributes
    ----------
    words : str
        What the gradient then is: "flipped along axis 2".
    advice : str
    places : callable
        Takes flat indices of entries; returns the flat indices where they have gone. For an entry that is lost it is
        -1 - p, where p is a place that none has taken, which therefore holds zero.
    """

    words: str
    advice: str
    places: _Move


_AXES = "look at a transpose, permute or einsum of this gradient, and at the order in which axes are summed"
_MEMORY = "look for a reshape or view that should be a transpose, or for row-major memory read as column-major"
_HEADS = (
    "look at where heads or groups are split off or joined: a reshape alone mixes them, a transpose belongs beside it"
)
_FLIP = "look for a kernel that is rotated in one pass only, or for a loop that runs backwards"
_SHIFT = "look for an index that is off by so much, or for padding on the other side"


def rearrangements(shape: Shape) -> list[Rearrangement]:
    """Return the rearrangements of a tensor of this shape that programs bring about, the likeliest first."""
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    return [
        *_orders(shape, wide),
        *_splits(shape, wide),
        *_flips(shape, wide),
        *_turns(shape, wide),
        *_rolls(shape, wide),
    ]


def likeliest(shape: Shape) -> list[Rearrangement]:
    """Return those of other orders of axes, flips, and rolls by one."""
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    return [*_orders(shape, wide), *_flips(shape, wide), *_turns(shape, wide), *_rolls(shape, wide, farthest=1)]


def _orders(shape: Shape, wide: list[int]) -> Iterator[Rearrangement]:
    """Yield other orders of the axes: of the array, and of memory that is then read in the array's own order."""
    for order in _permutations(wide, len(shape)):
        turned, code = tuple(shape[axis] for axis in order), f".transpose{_listed(order)}"
        if turned == shape:
            yield Rearrangement(f"has its axes in another order: right{code}", _AXES, _transposed(shape, order))
            continue
        back = _listed(tuple(order.index(axis) for axis in range(len(shape))))
        other = "is its own memory in another order of axes: right"
        yield Rearrangement(f"{other}{code}.reshape{_listed(shape)}", _MEMORY, _transposed(shape, order))
        words = f"{other}.reshape{_listed(turned)}.transpose{back}"
        yield Rearrangement(words, _MEMORY, _reread(shape, order))


def _splits(shape: Shape, wide: list[int]) -> Iterator[Rearrangement]:
    """Yield an axis that is cut in two, as into heads, one part of which changed places with its neighbour."""
    for axis in wide:
        for heads in range(2, shape[axis]):
            if shape[axis] % heads == 0:
                cut = (*shape[:axis], heads, shape[axis] // heads, *shape[axis + 1 :])
                yield from _mixed(shape, cut, axis)


def _mixed(shape: Shape, cut: Shape, axis: int) -> Iterator[Rearrangement]:
    """Yield the two parts of an axis exchanged, and each with the axis beside it."""
    for one in (axis - 1, axis, axis + 1):
        if one < 0 or one + 1 >= len(cut) or cut[one] == 1 or cut[one + 1] == 1:
            continue
        order = (*range(one), one + 1, one, *range(one + 2, len(cut)))
        other = tuple(cut[place] for place in order)
        swap = f".transpose{_listed(order)}"
        mixed = "has the parts of an axis, such as heads, mixed with the axis beside it: right"
        words = f"{mixed}.reshape{_listed(cut)}{swap}.reshape{_listed(shape)}"
        yield Rearrangement(words, _HEADS, _transposed(cut, order))
        if other != cut:
            words = f"{mixed}.reshape{_listed(other)}{swap}.reshape{_listed(shape)}"
            yield Rearrangement(words, _HEADS, _transposed(other, order))


def _permutations(wide: list[int], rank: int) -> Iterator[Shape]:
    """Yield orders of all axes in which some that are longer than one have changed places."""
    if len(wide) <= _MOST_ORDERS:
        changes = list(itertools.permutations(wide))[1:]
    else:
        changes = [_exchanged(wide, *pair) for pair in itertools.combinations(range(len(wide)), 2)]
    for change in changes:
        order = list(range(rank))
        for axis, other in zip(wide, change, strict=True):
            order[axis] = other
        yield tuple(order)


def _exchanged(wide: list[int], one: int, other: int) -> tuple[int, ...]:
    changed = list(wide)
    changed[one], changed[other] = wide[other], wide[one]
    return tuple(changed)


def _listed(numbers: Shape) -> str:
    return str(tuple(map(int, numbers)))


def _transposed(shape: Shape, order: Shape) -> _Move:
    """Return where entries go when axes are put into an order."""

    def places(dims: np.ndarray) -> np.ndarray:
        index = np.unravel_index(dims, shape)
        return np.ravel_multi_index([index[axis] for axis in order], [shape[axis] for axis in order])

    return places


def _reread(shape: Shape, order: Shape) -> _Move:
    """Return where entries go when the memory is read as an array with axes in an order, and these are put back."""

    def places(dims: np.ndarray) -> np.ndarray:
        index = np.unravel_index(dims, [shape[axis] for axis in order])
        return np.ravel_multi_index([index[order.index(axis)] for axis in range(len(shape))], shape)

    return places


def _moved(shape: Shape, moves: Mapping[int, _Move]) -> _Move:
    """Return where entries go when their indices along some axes change; lost where one leaves the array."""

    def places(dims: np.ndarray) -> np.ndarray:
        moved, empty, lost = dims.copy(), dims.copy(), np.zeros(len(dims), dtype=bool)
        for axis, move in moves.items():
            stride = math.prod(shape[axis + 1 :])
            index = dims // stride % shape[axis]
            to = move(index)
            lost |= (to < 0) | (to >= shape[axis])
            moved += (to - index) * stride
            empty += (shape[axis] - 1 - 2 * index) * stride  # where a shift loses entries, it opens the other end
        return np.where(lost, -1 - empty, moved)

    return places


def _mirrored(size: int) -> _Move:
    return lambda index: size - 1 - index


def _shifted(k: int) -> _Move:
    return lambda index: index + k


def _rolled(k: int, size: int) -> _Move:
    return lambda index: (index + k) % size


def _after(second: _Move, first: _Move) -> _Move:
    return lambda dims: second(first(dims))


def _flips(shape: Shape, wide: list[int]) -> Iterator[Rearrangement]:
    for count in range(1, len(wide) + 1):
        for axes in itertools.combinations(wide, count):
            moves = {axis: _mirrored(shape[axis]) for axis in axes}
            yield Rearrangement(f"is flipped along {_axes(axes)}", _FLIP, _moved(shape, moves))


def _axes(axes: tuple[int, ...]) -> str:
    """Return the words for some axes."""
    if len(axes) == 1:
        return f"axis {axes[0]}"
    return f"axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"


def _turns(shape: Shape, wide: list[int]) -> Iterator[Rearrangement]:
    """Yield turns of the last two axes by 90 degrees."""
    rank = len(shape)
    if len(wide) < 2 or wide[-2:] != [rank - 2, rank - 1] or shape[-1] != shape[-2]:
        return
    across = _transposed(shape, (*range(rank - 2), rank - 1, rank - 2))
    for axis, words in ((rank - 2, "to the left"), (rank - 1, "to the right")):
        turned = f"is turned by 90 degrees {words}, over the last two axes"
        yield Rearrangement(turned, _FLIP, _after(_moved(shape, {axis: _mirrored(shape[axis])}), across))


def _rolls(shape: Shape, wide: list[int], farthest: int = _FARTHEST) -> Iterator[Rearrangement]:
    """Yield rolls and shifts along one axis, near ones first. Along an axis of two, a roll is a flip."""
    for distance in range(1, farthest + 1):
        for axis in (axis for axis in wide if distance < shape[axis]):
            for k in (distance, -distance):
                shift = _moved(shape, {axis: _shifted(k)})
                yield Rearrangement(f"is shifted by {k} along axis {axis}, with zeros behind it", _SHIFT, shift)
                if 2 * distance < shape[axis] or (2 * distance == shape[axis] > 2 and k > 0):
                    roll = _moved(shape, {axis: _rolled(k, shape[axis])})
                    yield Rearrangement(f"is rolled by {k} along axis {axis}", _SHIFT, roll)
