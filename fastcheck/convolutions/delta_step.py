"""What both sides of the evaluator ``delta`` share: the step, and the size of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcheck.convolutions.error_bars import FACTORS
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine.error_model import automatic

BLOCK = 2**14
"""Most dimensions in a block: with 4,096 a block of a 14-wide layer takes no longer than handing it to a thread."""

BLOCK_WORK = 2**25
"""Moved outputs after which a block ends, about four milliseconds: enough blocks for all threads."""


@dataclass(frozen=True)
class Step:
    """A step of the case's own operand, and of the scaled one.

    Attributes
    ----------
    nominal, scaled : float
    quotient : float
        1 / 2h: moves are formed as h times the factor, so that the nominal step is what divides.
    """

    nominal: float
    scaled: float
    quotient: float

    @classmethod
    def of(
        cls, scaled: ScaledOperands, tensor: str, output: np.ndarray, step: float | Literal["auto"], loss: str = "vjp"
    ) -> Step:
        """Take the step as given, or one that moves a typical output by about twice its size.

        ``output`` is the forward result of the scaled operands.
        """
        own = scaled.exponents[tensor]
        factor = FACTORS[tensor]
        if step == "auto":
            here = automatic(scaled.rms("output", output), None if factor is None else scaled.rms(factor), loss)
            here *= 2 if loss == "vjp" else 1
        else:
            here = scaled.step_of(tensor, step)
        with np.errstate(over="ignore"):
            return cls(float(np.ldexp(here, own)), here, 0.5 / here)
