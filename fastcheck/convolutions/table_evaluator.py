"""The base of evaluators that fill a table with one step, and again with smaller ones where kinks are crossed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.closer import closer
from fastcheck.convolutions.error_bars import Bars
from fastcheck.engine.differences import Chosen, Differences, indices

BLOCK_DIMS = 4096
"""Most dimensions in a block."""


class TableEvaluator:
    """Base of the evaluators of one tensor whose tables have the columns of `fastcheck_kernels.curved`.

    Parameters
    ----------
    tensor : {"input", "weight", "bias"}
    shape : tuple of int
        Of the tensor.
    bars : Bars
    h : float
        Step of the scaled operands.
    searching : bool
        Whether to try smaller steps.
    work : int
        What one dimension takes, in the unit of `BLOCK_WORK`.
    """

    BLOCK_WORK: ClassVar[int]
    """Work after which a block ends."""

    def __init__(self, tensor: str, shape: Shape, bars: Bars, *, h: float, searching: bool, work: int) -> None:
        self._tensor, self._shape, self._bars = tensor, shape, bars
        self._h, self._searching, self._work = h, searching, work
        self(range(0))  # compiles here, in the caller's thread, where Ctrl-C is heard

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of at most `BLOCK_DIMS`, fewer where a dimension takes much work."""
        size = int(np.clip(self.BLOCK_WORK // max(1, self._work), 1, BLOCK_DIMS))
        return [dims[start : start + size] for start in range(0, len(dims), size)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        return self._bars.differences(dims, self._table(dims), self._tensor, self._shape)

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        return self._bars.bar_components(self._table(dims))

    def with_step(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of dimensions, differenced with one step of the scaled operands."""
        raise NotImplementedError

    def _table(self, dims: np.ndarray) -> np.ndarray:
        return closer(self.with_step, dims, self._h, self._bars) if self._searching else self.with_step(dims, self._h)
