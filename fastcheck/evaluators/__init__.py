"""Ways to difference. Each takes flat indices of one tensor and returns `Differences`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Differences(NamedTuple):
    """What an evaluator found for some dimensions, arrays of one length.

    Attributes
    ----------
    numeric : float64 array
        Two-sided difference quotients.
    error_bar : float64 array
        Bounds on \\|analytic - numeric\\| that arithmetic alone can explain.
    """

    numeric: np.ndarray
    error_bar: np.ndarray


class Evaluator(Protocol):
    """One tensor of a case, ready to be differenced from any thread."""

    step: float

    def __call__(self, dims: np.ndarray) -> Differences:
        """Difference the dimensions of these flat indices."""
        ...
