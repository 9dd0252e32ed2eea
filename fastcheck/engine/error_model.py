"""The step, and what arithmetic alone can explain: one model for both, for a loss linear in the operand.

With u = 2^-53, a dimension's terms t = v * x (cotangent times the operand that the dimension multiplies), T1 the sum
of |t|, T2 the root of the sum of t^2 and n the number of non-zero terms, the error bar is R + A:

R, the differences' own rounding, is rigorous. Every partial sum of an output is at most M + |d| in size, where M is
the sum of its |products| and d the perturbation, so that z+ and z- err by at most roundings * u * (M + |d|) each
(Higham, Accuracy and Stability of Numerical Algorithms, section 4.2, for the blocked sum of the kernels).

A, the accumulation of the analytic pass, follows Higham and Mary's square-root law (SIAM J. Sci. Comput. 41, 2019)
wherever the data let roundings cancel, and the linear worst case in the measure that they do not. The formula itself
is `fastcheck_kernels.judge.bars`.
Its constants are empirical; tests/convolutions/test_error_bars.py searches for a correct gradient outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import Precision, U

MOST_EXPONENT = 1000
"""Automatic steps lie between 2^-1000 and 2^1000."""

SAMPLE = 2**13
"""Entries of a large array that stand for all of it."""


@dataclass(frozen=True)
class Structure:
    """How alike the non-zero magnitudes of a tensor are: repeated data make roundings add up instead of cancel.

    Attributes
    ----------
    multiplicity : int
        The largest number of equal ones.
    crowd : int
        The largest number within one relative window (`_window`).
    """

    multiplicity: int
    crowd: int

    @classmethod
    def of(cls, values: np.ndarray, window: float) -> Structure:
        """Count equal and close magnitudes of an array.

        A large array is looked at in places spread over it, and as a whole only where those hold many equal magnitudes:
        sorting all took longer than differencing a layer.
        """
        flat = values.reshape(-1)
        if flat.size <= 2 * SAMPLE:
            return cls._counted(flat, window)
        found = cls._counted(_spread(flat), window)
        if found.multiplicity > 3:  # more than chance makes among the 2^24 significands of float32
            return cls._counted(flat, window)
        share = flat.size / SAMPLE
        alike = 1 if found.multiplicity <= 1 else math.ceil(found.multiplicity * share)
        return cls(alike, max(alike, math.ceil(found.crowd * share)))

    @classmethod
    def _counted(cls, values: np.ndarray, window: float) -> Structure:
        sizes = np.sort(np.abs(values))
        sizes = sizes[np.searchsorted(sizes, 0.0, side="right") :]
        if not sizes.size:
            return cls(0, 0)
        crowd = _longest_run(sizes, window)
        return cls(1 if crowd == 1 else _longest_run(sizes, 0.0), crowd)

    @classmethod
    def none(cls) -> Structure:
        """Describe a factor of one, which multiplies without changing anything."""
        return cls(1, 1)


def _spread(flat: np.ndarray) -> np.ndarray:
    """Return `SAMPLE` entries of a larger flat array, in places spread evenly and in step with no row or column."""
    return flat.take(_places(flat.size))


@lru_cache(maxsize=16)
def _places(size: int) -> np.ndarray:
    step = int(size * 0.6180339887) | 1  # multiples of the golden section
    while math.gcd(step, size) > 1:
        step += 2
    return np.arange(SAMPLE) * step % size


def _longest_run(sizes: np.ndarray, window: float) -> int:
    """Return the largest number of ascending sizes within one relative window: doubled, then bisected."""

    def fits(count: int) -> bool:
        return bool((sizes[count - 1 :] <= sizes[: sizes.size - count + 1] * (1 + window)).any())

    low, high = 1, 2
    while high <= sizes.size and fits(high):
        low, high = high, 2 * high
    high = min(high, sizes.size + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def window(terms: int, precision: Precision) -> float:
    """Return the relative window in which magnitudes count as alike, for sums of so many terms."""
    return terms * precision.accumulator / 16


def roundings(terms: int, block: int) -> int:
    """Return how many roundings a product meets in a sum of inner sums of ``block`` terms, the bias included."""
    return min(terms, block) + math.ceil(terms / block)


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


def within(exponent: int, most: int = MOST_EXPONENT) -> int:
    """Return the exponent of a step that can be halved, doubled and added a few times in float64."""
    return max(-most, min(exponent, most))


def rms(values: np.ndarray) -> float:
    """Return about the root mean square of the non-zero entries, without overflow."""
    flat = values.reshape(-1)
    few = _spread(flat) if flat.size > 2 * SAMPLE else flat
    sizes = np.abs(few)
    largest = float(sizes.max(initial=0.0))
    if largest == 0 and few is not flat:
        sizes = np.abs(flat)
        largest = float(sizes.max())
    if largest == 0:
        return 0.0
    sizes /= largest
    return largest * math.sqrt(float(np.square(sizes).sum()) / np.count_nonzero(sizes))


def share_of_nonzeros(values: np.ndarray) -> float:
    """Return about how many of an array's entries are not zero, as a part of all."""
    flat = values.reshape(-1)
    few = _spread(flat) if flat.size > 2 * SAMPLE else flat
    return np.count_nonzero(few) / few.size


def usable(step: float, operand: np.ndarray, name: str) -> None:
    """Check that a step changes every entry of an operand.

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


def forward_bar(output: np.ndarray, magnitude: np.ndarray, terms: int, precision: Precision) -> np.ndarray:
    """Return a bound on |declared - computed| for every output: the worst case of both sums, in any order.

    Parameters
    ----------
    output, magnitude : float64 arrays
        The computed outputs, and the sums of the sizes of their terms.
    terms : int
        Products in an output.
    precision : Precision
        Of the declared output.
    """
    sums = (terms + 2) * (precision.accumulator + U) * magnitude
    rounding = (precision.result + precision.accumulator) * np.abs(output)
    underflow = (terms + 1) * precision.least_normal + precision.least_result
    bar: np.ndarray = (1 + precision.result) * (sums + precision.operand * magnitude) + rounding + underflow
    return bar
