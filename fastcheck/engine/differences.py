"""Ways to difference. Each takes blocks of one tensor's dimensions and returns `Differences`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastcheck.engine.shard_results import Noted

Chosen = np.ndarray | range
"""Flat indices of a tensor in ascending order; a range stands for all of them."""


def indices(chosen: Chosen) -> np.ndarray:
    """Return flat indices as an int64 array."""
    if isinstance(chosen, range):  # which NumPy would read number by number
        return np.arange(chosen.start, chosen.stop, chosen.step, dtype=np.int64)
    return np.asarray(chosen, dtype=np.int64)


class Differences(NamedTuple):
    """What an evaluator found for a block of dimensions, arrays of one length.

    Attributes
    ----------
    dims : int64 array
        Their flat indices.
    numeric : float64 array
        Two-sided difference quotients.
    error_bar : float64 array
        Bounds on \\|analytic - numeric\\| that arithmetic alone can explain.
    kinks : int64 array or None
        How many kinks are crossed between -h and +h; None where the loss has none.
    jump : float64 array or None
        Part of the error bar that a kink at the point itself takes: half of the interval between one-sided slopes,
        anywhere in which an analytic value is a subgradient.
    wide : bool array or None
        Whether the error bar exceeds `fastcheck.common.precision.WIDE` of what the dimension's terms add up to in
        size: then it can be told from zero only where the values themselves are as large. None where no bar does.
    harmless : int64 array or None
        How many of the kinks change nothing: pooling windows whose equal entries move together.
    automatic : bool array or None
        Where the analytic value is what automatic differentiation makes of a kink at the point, and not between the
        loss's one-sided slopes: the jump was widened for it. None where none is.
    """

    dims: np.ndarray
    numeric: np.ndarray
    error_bar: np.ndarray
    kinks: np.ndarray | None = None
    jump: np.ndarray | None = None
    wide: np.ndarray | None = None
    harmless: np.ndarray | None = None
    automatic: np.ndarray | None = None

    def without_kinks(self) -> Differences:
        """Leave out the dimensions that cross one."""
        if self.kinks is None:
            return self
        smooth = self.kinks == 0
        return Differences._make(None if array is None else array[smooth] for array in self)


class Evaluator(Protocol):
    """One tensor of a case, ready to be differenced from any thread.

    Attributes
    ----------
    step : float
        The nominal step.
    """

    step: float

    def blocks(self, dims: Chosen) -> Sequence[Any]:
        """Cut dimensions into blocks, which depend on the case alone."""
        ...

    def __call__(self, block: Any) -> Differences:
        """Difference the dimensions of a block."""
        ...

    def parts(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of some dimensions, in ascending order, into their parts by name.

        "round-off" and "truncation" of the differences, what "kinks" they cross can change, and the rounding of the
        "gradient" itself.
        """
        ...


class Auditing(Protocol):
    """The audit of an evaluator that takes a shortcut, for one tensor."""

    def note(self, found: Differences) -> Noted:
        """Keep what the audit needs of a block."""
        ...

    def result(self, noted: Noted, pool: Executor) -> dict[str, Any]:
        """Difference again, and compare: the audit's part of a tensor's report."""
        ...
