"""Ways to difference. Each takes blocks of one tensor's dimensions and returns `Differences`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

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
        How many outputs cross a kink between -h and +h; None where the loss has none.
    """

    dims: np.ndarray
    numeric: np.ndarray
    error_bar: np.ndarray
    kinks: np.ndarray | None = None

    def without_kinks(self) -> Differences:
        """Leave out the dimensions that cross one."""
        if self.kinks is None:
            return self
        smooth = self.kinks == 0
        return Differences(self.dims[smooth], self.numeric[smooth], self.error_bar[smooth], self.kinks[smooth])


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
