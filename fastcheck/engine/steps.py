"""Steps: which ones an operand can take."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.common.errors import FastcheckError

MOST_EXPONENT = 1000
"""Automatic steps lie between 2^-1000 and 2^1000."""


def within(exponent: int, most: int = MOST_EXPONENT) -> int:
    """Return the exponent of a step that can be halved, doubled and added a few times in float64."""
    return max(-most, min(exponent, most))


def refuse_unusable(step: float, operand: np.ndarray, name: str) -> None:
    """Refuse a step that does not change every entry of an operand.

    Raises
    ------
    FastcheckError
        If it is lost in the largest entry, or overflows with it.
    """
    largest = float(np.abs(operand).max())
    if largest + step == largest or largest - step == largest:
        raise FastcheckError(
            f"step is {step!r}: adding it does not change the largest entry of {name}, {largest!r}; "
            f"the smallest usable step is {float(np.spacing(largest))!r}"
        )
    if not math.isfinite(largest + 2 * step):
        raise FastcheckError(f"step is {step!r}: too large beside the largest entry of {name}, {largest!r}")


def is_usable(step: float, operand: np.ndarray, name: str) -> bool:
    """Return whether a step changes every entry of an operand."""
    try:
        refuse_unusable(step, operand, name)
    except FastcheckError:
        return False
    return True
