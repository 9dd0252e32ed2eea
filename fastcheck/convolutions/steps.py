"""Steps of convolutions, and the size of the blocks that the evaluator ``delta`` takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcheck.convolutions.error_bars import FACTORS
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine.steps import within

BLOCK_DIMS = 2**14
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


def automatic(size: float, factor: float | None, loss: str = "vjp") -> float:
    """Return a power of two as the step.

    Where a central difference has no truncation error (phi(z) = z and z^2 / 2) it moves a typical output by about its
    own size: the rounding of the outputs is small beside the move, and the move no larger than what it is added to.
    Across the kink of a relu it moves by 2^-17 of that, so that few outputs cross. For tanh it moves by 2^-17, where
    rounding and truncation, u and the move's square, are about as large.

    Parameters
    ----------
    size : float
        `rms` of the outputs, or of bounds on the sizes of their partial sums.
    factor : float or None
        `rms` of what the operand multiplies; None stands for one (a bias).
    loss : str
        One of `fastcheck.convolutions.case.LOSSES`.
    """
    size = 2.0**-17 if loss == "tanh" else size * {"vjp": 1.0, "square": 0.5, "relu": 2.0**-17}[loss]
    scale = 1.0 if factor is None else factor
    if size == 0 or scale == 0:
        return 1.0
    return math.ldexp(1.0, within(round(math.log2(size) - math.log2(scale))))
