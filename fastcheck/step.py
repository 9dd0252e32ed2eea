"""The step, and what arithmetic alone can explain: one model for both, for a loss linear in the operand.

With u = 2^-53, a dimension's terms t = v * x (cotangent times the operand that the dimension multiplies), T1 the sum
of |t|, T2 the root of the sum of t^2 and n the number of non-zero terms, the error bar is R + A:

R, the differences' own rounding, is rigorous. Every partial sum of an output is at most M + |d| in size, where M is
the sum of its |products| and d the perturbation, so that z+ and z- err by at most roundings * u * (M + |d|) each
(Higham, Accuracy and Stability of Numerical Algorithms, section 4.2, for the blocked sum of the kernels).

A, the accumulation of the analytic pass, follows Higham and Mary's square-root law (SIAM J. Sci. Comput. 41, 2019)
wherever the data let roundings cancel, and the linear worst case in the measure that they do not: see `_drift`.
Its constants are empirical; tests/test_error_bars.py searches for a correct gradient outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastcheck.errors import FastcheckError

U = 2.0**-53
"""Unit round-off of float64."""

_ACCUMULATOR = {"float64": U, "float32": 2.0**-24, "tf32": 2.0**-24, "float16": 2.0**-24, "bfloat16": 2.0**-24}
_RESULT = {"float64": 0.0, "float32": 0.0, "tf32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_LEAST_NORMAL = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "tf32": 2.0**-126,
    "float16": 2.0**-126,
    "bfloat16": 2.0**-126,
}
_WIDTH = {"float64": 8, "float32": 4, "tf32": 2, "float16": 2, "bfloat16": 2}
_BITS = {"float64": 53, "float32": 24, "tf32": 11, "float16": 11, "bfloat16": 8}
_STORAGE = {8: 0.0, 4: 2.0**-24, 2: 2.0**-11}
_RESULT_UNDERFLOW = {"float64": 0.0, "float32": 0.0, "tf32": 0.0, "float16": 2.0**-24, "bfloat16": 2.0**-133}


@dataclass(frozen=True)
class Sums:
    """Sums over the terms of each dimension, arrays of one length.

    Attributes
    ----------
    numeric : the difference quotient
    absolute : T1
    squares : T2 squared
    terms : n
    absorbed, absorbed_terms : the sum and number of the |terms| below `Precision.tiny` times T1
    magnitude : the sum of |v| * M over the affected outputs, divided by the width of the difference (2h)
    """

    numeric: np.ndarray
    absolute: np.ndarray
    squares: np.ndarray
    terms: np.ndarray
    absorbed: np.ndarray
    absorbed_terms: np.ndarray
    magnitude: np.ndarray


@dataclass(frozen=True)
class Precision:
    """How an analytic array was computed.

    Attributes
    ----------
    name : str
        One of `fastcheck.cases.conv.PRECISIONS`.
    rounded_operands : int
        How many of the two factors of a product were rounded to this precision first (0 to 2).
    result : float
        Unit round-off of the rounding of a finished sum to a narrower type, 0 without one.
    """

    name: str
    rounded_operands: int
    result: float = 0.0

    @classmethod
    def of(cls, dtype: np.dtype, declared: str | None, factors: Iterable[np.ndarray]) -> Precision:
        """Read a precision off an analytic array's dtype and the two arrays that it was computed from."""
        name = declared or dtype.newbyteorder("=").name
        stored = _STORAGE[dtype.itemsize] if dtype.itemsize < _WIDTH[name] else 0.0
        rounded = sum(not _representable(factor, _BITS[name]) for factor in factors)
        return cls(name, rounded, max(_RESULT[name], stored))

    @property
    def accumulator(self) -> float:
        """Unit round-off of its sums."""
        return _ACCUMULATOR[self.name]

    @property
    def operand(self) -> float:
        """Relative error of a product through the rounding of its factors."""
        unit = {"tf32": 2.0**-11}.get(self.name, _RESULT[self.name] or self.accumulator)
        return self.rounded_operands * unit * (1 + unit)

    @property
    def tiny(self) -> float:
        """Fraction of T1 below which a term may vanish in the sum."""
        return 8 * self.accumulator


def _representable(values: np.ndarray, bits: int) -> bool:
    """Tell whether every value has a significand of so many bits."""
    if bits >= 53:
        return True
    significand = np.ldexp(np.frexp(values)[0], bits)
    return bool((significand == np.rint(significand)).all())


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
        """Count equal and close magnitudes of an array."""
        sizes = np.sort(np.abs(values[values != 0]), axis=None)
        if not sizes.size:
            return cls(0, 0)
        start = np.flatnonzero(np.concatenate(([True], sizes[1:] != sizes[:-1])))
        multiplicity = int(np.diff(np.append(start, sizes.size)).max())
        distinct = sizes[start]
        crowd = int((np.searchsorted(sizes, distinct * (1 + window), side="right") - start).max())
        return cls(multiplicity, crowd)

    @classmethod
    def none(cls) -> Structure:
        """Describe a factor of one, which multiplies without changing anything."""
        return cls(1, 1)


def window(terms: int, precision: Precision) -> float:
    """Return the relative window in which magnitudes count as alike, for sums of so many terms."""
    return terms * precision.accumulator / 16


def roundings(terms: int, block: int) -> int:
    """Return how many roundings a product meets in a sum of inner sums of ``block`` terms, the bias included."""
    return min(terms, block) + math.ceil(terms / block)


def automatic(magnitude: np.ndarray, factor: np.ndarray | None) -> float:
    """Return the step for a loss that is linear in the operand, where truncation is no concern.

    It moves a typical output by about its own size, so that the rounding of the outputs is small beside the move
    and the move no larger than what it is added to.

    Parameters
    ----------
    magnitude : array
        Bounds on the sizes of the outputs' partial sums.
    factor : array or None
        What the operand multiplies; None stands for one (a bias).
    """
    size = _rms(magnitude)
    scale = 1.0 if factor is None else _rms(factor)
    if size == 0 or scale == 0:
        return 1.0
    return math.ldexp(1.0, round(math.log2(size) - math.log2(scale)))


def _rms(values: np.ndarray) -> float:
    """Return the root mean square of the non-zero entries, without overflow."""
    nonzero = np.abs(values[values != 0])
    if not nonzero.size:
        return 0.0
    largest = float(nonzero.max())
    return largest * math.sqrt(float(np.mean((nonzero / largest) ** 2)))


def positive(name: str, value: object) -> float:
    """Return a positive finite number as a float, unchanged; refuse anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise FastcheckError(f"{name} is {value!r}: expected a positive finite number")
    return float(value)


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


def error_bar(
    sums: Sums,
    chain: int,
    precision: Precision,
    v: Structure,
    x: Structure,
    most: int,
    partials: int = 1,
    exponent: int = 0,
) -> np.ndarray:
    """Return a bound on |analytic - numeric| that arithmetic alone can explain, for each dimension.

    Parameters
    ----------
    sums : Sums
    chain : int
        Roundings that a product meets in the forward pass: see `roundings`.
    precision : Precision
        Of the analytic pass.
    v, x : Structure
        Of the cotangent and of the operand's factor.
    most : int
        The largest number of terms of a dimension of the tensor; the structures' window belongs to it.
    partials : int
        How many partial results the analytic pass may round to its result type before it adds them (samples for a
        weight, taps for an input, as gemm-based implementations do).
    exponent : int
        The bar is that of the sums times 2^exponent.
    """
    t1, n = sums.absolute, sums.terms
    size = np.abs(sums.numeric)
    t2 = np.sqrt(sums.squares)
    # Differences: two evaluations, the subtraction, the products, the division by the realised width.
    differences = U * (2 * chain * sums.magnitude + (chain + 4) * t1 + 3 * size)
    unit = math.hypot(precision.accumulator, U)
    phi = _drift(n, t1, t2, precision, v, x, most)
    random = 1.75 * (t2 + size) + 0.75 * t1
    absorbed = np.minimum(sums.absorbed, 4 * precision.accumulator * sums.absorbed_terms * t1)
    sums_in = np.minimum(n * t1, np.sqrt(n) * random + phi * n * t1) * unit + absorbed + precision.operand * t1
    rounded = precision.result
    results = rounded * (1 + 2 * rounded) * (size + np.minimum(partials * t1, math.sqrt(partials) * random))
    bar = differences + (1 + rounded) * sums_in + results + 4 * n * 2.0**-1074
    # Products that underflow in the analytic pass do so at its own scale, and may be flushed to zero.
    underflow = 2.2 * n * _LEAST_NORMAL[precision.name] + _RESULT_UNDERFLOW[precision.name]
    scaled: np.ndarray = np.ldexp(bar, exponent) + underflow
    return scaled


def _drift(
    n: np.ndarray, t1: np.ndarray, t2: np.ndarray, precision: Precision, v: Structure, x: Structure, most: int
) -> np.ndarray:
    """Return the fraction of the linear worst case that roundings of one direction may reach, 0 to one half."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        skew = np.where(t1 > 0, t2 / t1, 0.0)
        mild = np.minimum(0.5, 8 * n * precision.accumulator * np.maximum(1.0, np.sqrt(n) * skew))
        alike = (v.multiplicity * x.multiplicity > 4 * n) | (max(v.multiplicity, x.multiplicity) >= n / 2)
        crowded = v.crowd * x.crowd > float(most) ** 2 / 1024
        peaked = (precision.name != "float64") & (n * skew**2 >= 16)
    return np.where(alike | crowded | peaked, 0.5, mild)


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
    underflow = (terms + 1) * _LEAST_NORMAL[precision.name] + _RESULT_UNDERFLOW[precision.name]
    bar: np.ndarray = (1 + precision.result) * (sums + precision.operand * magnitude) + rounding + underflow
    return bar
