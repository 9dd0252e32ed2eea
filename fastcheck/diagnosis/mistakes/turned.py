"""Arrays that are flipped, or whose spatial axes are exchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.mistakes.variant import Variant, Variants, only, orders, spatial, subsets
from fastcheck.diagnosis.problem import SPACE, Problem


def flipped_kernel(problem: Problem) -> Variants:
    """Flip the kernel along axes with several taps."""
    for axes in subsets(problem, lambda axis: problem.taps[axis] > 1):
        yield Variant(
            only(problem, axes, lambda axis: problem.taps[axis] > 1),
            lambda p, axes=axes: replace(p, w=np.flip(p.w, spatial(axes))),  # type: ignore[misc]
        )


def turned_kernel(problem: Problem) -> Variants:
    """Exchange spatial axes of the kernel, and turn it by a quarter."""
    for order in orders(problem.taps):
        every = (0, 1, 2, *spatial(order))
        yield Variant("its spatial axes are exchanged", lambda p, every=every: replace(p, w=p.w.transpose(every)))  # type: ignore[misc]
        for axis in order if problem.rank == 2 else ():
            yield Variant(
                "it is turned by 90 degrees",
                lambda p, every=every, axis=axis: replace(p, w=np.flip(p.w.transpose(every), SPACE + axis)),  # type: ignore[misc]
            )


def flipped_cotangent(problem: Problem) -> Variants:
    """Flip the cotangent in space."""
    return _flipped_operand(problem, "v")


def flipped_input(problem: Problem) -> Variants:
    """Flip the input in space."""
    return _flipped_operand(problem, "x")


def _flipped_operand(problem: Problem, name: str) -> Variants:
    sizes = getattr(problem, name).shape[SPACE:]
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        yield Variant(
            only(problem, axes, lambda axis: sizes[axis] > 1),
            within=lambda p, axes=axes: p.having(**{name: np.flip(getattr(p, name), spatial(axes))}),  # type: ignore[misc]
        )


def turned_weight_gradient(problem: Problem) -> Variants:
    """Flip the weight gradient along its taps, or exchange their axes."""
    several = [axis for axis in range(problem.rank) if problem.taps[axis] > 1]
    for axes in subsets(problem, several.__contains__):
        yield Variant(
            f"its taps are flipped {only(problem, axes, several.__contains__)}".rstrip(),
            after=lambda g, axes=axes: np.flip(g, spatial(axes)),  # type: ignore[misc]
        )
    for order in orders(problem.taps):
        yield Variant(
            "its spatial axes are exchanged",
            after=lambda g, order=order: g.transpose(0, 1, 2, *spatial(order)),  # type: ignore[misc]
        )


def turned_maps(problem: Problem) -> Variants:
    """Exchange height and width of an operand."""
    for name, words in (("v", "cotangent"), ("x", "input")):
        for order in orders(getattr(problem, name).shape[SPACE:]):
            yield Variant(
                f"of the {words}",
                within=lambda p, name=name, order=order: p.having(  # type: ignore[misc]
                    **{name: getattr(p, name).transpose(0, 1, 2, *spatial(order))}
                ),
            )
