"""The protocols of evaluators and audits. An evaluator takes a block of dimensions and returns `Differences`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastcheck.common.arguments import Shape, index_of
from fastcheck.common.errors import FastcheckError
from fastcheck.engine.shard_results import AuditRecord

Chosen = np.ndarray | range
"""Flat indices of a tensor in ascending order; a range stands for all of them."""


def indices(chosen: Chosen) -> np.ndarray:
    """Return flat indices as an int64 array."""
    if isinstance(chosen, range):  # np.asarray would read it number by number
        return np.arange(chosen.start, chosen.stop, chosen.step, dtype=np.int64)
    return np.asarray(chosen, dtype=np.int64)


class Differences(NamedTuple):
    """An evaluator's result for a block of dimensions: arrays of equal length.

    Attributes
    ----------
    dims : int64 array
        Flat indices.
    numeric : float64 array
        Two-sided difference quotients.
    error_bar : float64 array
        Bounds on \\|analytic - numeric\\| that arithmetic alone can explain.
    kinks : int64 array or None
        Number of kinks crossed between -h and +h; None where the loss has none.
    jump : float64 array or None
        Part of the error bar due to a kink at the point itself: half of the interval between the one-sided slopes.
        An analytic value anywhere in that interval is a subgradient.
    too_wide : bool array or None
        Whether the error bar is too wide: it exceeds `fastcheck.common.precision.WIDE` of the sum of the magnitudes of
        the dimension's terms, so it says something only where the value itself is as large. None where no bar is.
    harmless : int64 array or None
        Number of crossed kinks that change nothing: pooling windows whose equal entries move together.
    automatic : bool array or None
        Whether the analytic value is that of automatic differentiation at a kink, and outside the loss's one-sided
        slopes; the jump was widened to include it. None where no value is.
    """

    dims: np.ndarray
    numeric: np.ndarray
    error_bar: np.ndarray
    kinks: np.ndarray | None = None
    jump: np.ndarray | None = None
    too_wide: np.ndarray | None = None
    harmless: np.ndarray | None = None
    automatic: np.ndarray | None = None

    def without_kinks(self) -> Differences:
        """Return the differences without the dimensions that cross a kink."""
        if self.kinks is None:
            return self
        smooth = self.kinks == 0
        return Differences._make(None if array is None else array[smooth] for array in self)

    def put(self, positions: np.ndarray, other: Differences) -> None:
        """Write other differences of the dimensions at some positions in place of these."""
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None and theirs is not None:
                mine[positions] = theirs


class Evaluator(Protocol):
    """One tensor of a case, ready to be differenced from any thread.

    Attributes
    ----------
    step : float
        The nominal step.
    """

    step: float

    def blocks(self, dims: Chosen) -> Sequence[Any]:
        """Cut dimensions into blocks. They depend on the case alone."""
        ...

    def __call__(self, block: Any) -> Differences:
        """Difference the dimensions of a block."""
        ...

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of some dimensions, in ascending order, into their parts by name.

        The parts are "round-off" and "truncation" of the differences, what the "kinks" they cross can change, and the
        rounding of the "gradient" itself.
        """
        ...


class Auditing(Protocol):
    """The audit of an evaluator that takes a shortcut, for one tensor."""

    def note(self, differences: Differences) -> AuditRecord:
        """Return what the audit needs of a block."""
        ...

    def result(self, noted: AuditRecord, pool: Executor) -> dict[str, Any]:
        """Difference again, compare, and return the audit's part of a tensor's report."""
        ...


class DerivativeOverflow(FastcheckError):
    """A derivative overflows float64: that by the entry ``dim``, flat, of a tensor of this shape."""

    def __init__(self, tensor: str, dim: int, shape: Shape) -> None:
        index = list(index_of(dim, shape))
        super().__init__(f"the derivative by {tensor} at index {index} overflows float64: scale the case")
        self.tensor, self.dim = tensor, dim


def refuse_overflow(numeric: np.ndarray, dims: np.ndarray, tensor: str, shape: Shape) -> None:
    """Refuse quotients of which one overflows float64.

    Raises
    ------
    DerivativeOverflow
        Naming the tensor and the index of the first.
    """
    finite = np.isfinite(numeric)
    if not finite.all():
        raise DerivativeOverflow(tensor, int(dims[np.argmin(finite)]), shape)
