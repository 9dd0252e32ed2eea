"""One way to make a mistake, and what the mistakes share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.naming import listed
from fastcheck.diagnosis.problem import SPACE, Gradient, Problem, gradient

Rearrange = Callable[[Problem], Problem]


NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""The spatial axes in words, by rank."""


def _same(problem: Problem) -> Problem:
    return problem


def _kept(array: np.ndarray) -> np.ndarray:
    return array


@dataclass(frozen=True)
class Variant:
    """One way to make a mistake: four stages, each of which is by default what a right pass does.

    Attributes
    ----------
    detail : str
        What tells it from other variants of its hypothesis; may be empty.
    before : callable
        Rearranges the whole problem: samples, groups and channels too. Views where possible.
    within : callable
        Rearranges space alone, so that it works on a part of the problem.
    gradient : callable
    after : callable
        Rearranges the gradient or the output, in space alone unless ``whole``.
    whole : bool
        Whether ``gradient`` or ``after`` works on the whole only.
    sums : float
        Unit round-off of the sums that the program may have made, where it says less than the mistake.
    slope : callable or None
        Slope of ``after``, where that acts on every entry of an output alone and is not linear.
    advice : str
        Where to look, if that is not what the hypothesis says.
    """

    detail: str = ""
    before: Rearrange = _same
    within: Rearrange = _same
    gradient: Gradient = gradient
    after: Callable[[np.ndarray], np.ndarray] = _kept
    whole: bool = False
    sums: float = 0.0
    slope: Callable[[np.ndarray], np.ndarray] | None = None
    advice: str = ""

    @property
    def reshapes(self) -> bool:
        """Whether the gradient is not that of the operands by the reference pass alone."""
        return self.gradient is not gradient or self.after is not _kept


Variants = Iterator[Variant]


def along(problem: Problem, axes: Iterable[int]) -> str:
    """Return the words for some spatial axes; empty for all."""
    chosen = [NAMES[problem.rank][axis] for axis in axes]
    return "" if len(chosen) == problem.rank else f"along {listed(chosen)}"


def subsets(problem: Problem, counts: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, ...]]:
    """Yield all the spatial axes that count, then fewer of them."""
    axes = [axis for axis in range(problem.rank) if counts(axis)]
    for size in range(len(axes), 0, -1):
        yield from itertools.combinations(axes, size)


def only(problem: Problem, axes: tuple[int, ...], counts: Callable[[int], bool]) -> str:
    """Return the words for axes, where they are not all that count."""
    return "" if len(axes) == sum(map(counts, range(problem.rank))) else f"{along(problem, axes)} only"


def put(values: Shape, axes: Iterable[int], value: Callable[[int], int]) -> Shape:
    chosen = set(axes)
    return tuple(value(axis) if axis in chosen else old for axis, old in enumerate(values))


def spatial(axes: Iterable[int]) -> tuple[int, ...]:
    return tuple(SPACE + axis for axis in axes)


def orders(sizes: Shape) -> Iterator[tuple[int, ...]]:
    """Yield the other orders of axes that leave sizes as they are; axes of size one tell nothing."""
    for order in itertools.permutations(range(len(sizes))):
        moved = [axis for axis, old in enumerate(order) if axis != old]
        if tuple(sizes[axis] for axis in order) == sizes and any(sizes[axis] > 1 for axis in moved):
            yield order


def masked(array: np.ndarray, axis: int, kept: slice) -> np.ndarray:
    """Return an array that is zero but for some entries along an axis."""
    place = (slice(None),) * axis + (kept,)
    masked = np.zeros_like(array)
    masked[place] = array[place]
    return masked
