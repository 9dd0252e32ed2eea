"""Replays of mistakes: of a block of a gradient or of the output first, which costs little, or of all of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import Block, Problem, gradient


@dataclass
class Replays:
    """The replays of one tensor's gradient, or of the output.

    Attributes
    ----------
    problem : Problem
    tensor : {"input", "weight", "bias", "output"}
    block : Block
        The part that is replayed first.
    right : callable
        Returns all that is right, grouped. It is called where a mistake needs all of it, once.
    pool : Executor
    """

    problem: Problem
    tensor: str
    block: Block
    right: Callable[[], np.ndarray]
    pool: Executor

    def whole(self, variant: Variant) -> np.ndarray:
        """Return the gradient that a mistake makes, grouped."""
        problem = variant.within(variant.before(self.problem))
        return variant.after(variant.gradient(problem, self.tensor, self.pool))

    def of_block(self, variant: Variant) -> np.ndarray:
        """Return the block of the gradient that a mistake makes."""
        if variant.whole and variant.gradient is gradient:
            return self.cut(variant.after(self._right))
        if variant.whole:
            return self.cut(self.whole(variant))
        part = variant.within(variant.before(self.problem).part(self.tensor, self.block))
        if self.tensor == "input" and not (variant.reshapes or part.sources or part.transposed):
            return gradient(part.of_rows(self.block.rows), self.tensor, self.pool)
        return self._rows_of(variant.after(variant.gradient(part, self.tensor, self.pool)))

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Return the block of a grouped gradient."""
        samples, groups, filters, channels, _ = self.block
        transposed = self.problem.transposed
        if self.tensor == "input":
            return self._rows_of(array[samples, groups, filters if transposed else channels])
        if self.tensor == "output":
            return array[samples, groups, channels if transposed else filters]
        if self.tensor == "bias":
            return array[groups, channels if transposed else filters]
        return array[groups, filters, channels]

    def _rows_of(self, array: np.ndarray) -> np.ndarray:
        return array[:, :, :, self.block.rows] if self.tensor == "input" else array

    @cached_property
    def _right(self) -> np.ndarray:
        return self.right()


def grouped_shape(problem: Problem, tensor: str) -> Shape:
    """Return the shape of a grouped gradient."""
    if tensor == "weight":
        return problem.w.shape
    if tensor == "bias":
        return problem.v.shape[1:3]
    if tensor == "output":
        return problem.v.shape
    return (*problem.x.shape[:3], *problem.inside)
