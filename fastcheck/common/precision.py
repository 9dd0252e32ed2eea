"""Precisions: the effects of rounding in the types in which gradients are computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

U = 2.0**-53
"""Unit round-off of float64."""

WIDE = 1e-2
"""A bar that is a larger fraction of its value cannot tell right from wrong: the max ratio's own rule of thumb."""

WIDE_TYPES = 64
"""Roundings of the gradient's own type that a bar may take nevertheless: that type can do no better."""

UNITS = {"float64": U, "float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit round-off of a number, by precision."""

SMALLEST = {
    "float64": 2.0**-1074,
    "float32": 2.0**-149,
    "tf32": 2.0**-149,
    "float16": 2.0**-24,
    "bfloat16": 2.0**-133,
}
"""The smallest number above zero, by precision: the spacing of all numbers near zero."""

PRECISIONS = tuple(UNITS)
"""The precisions in which an analytic pass can compute."""

ACCUMULATOR = {"float64": U, "float32": 2.0**-24, "tf32": 2.0**-24, "float16": 2.0**-24, "bfloat16": 2.0**-24}
"""Unit round-off of sums, by precision."""

RESULT = {"float64": 0.0, "float32": 0.0, "tf32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit round-off of a result that is stored in fewer bits than its sum, by precision; 0 where it is not."""

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
class Precision:
    """The arithmetic that computed an analytic array.

    Attributes
    ----------
    name : str
        One of `PRECISIONS`.
    rounded_operands : int
        Number of factors of a product (of two), or of operands of an output, that were rounded to this precision first.
    result : float
        Unit round-off of rounding a finished sum to a narrower type; 0 where there is none.
    """

    name: str
    rounded_operands: int
    result: float = 0.0

    @classmethod
    def of(cls, dtype: np.dtype, declared: str | None, factors: Iterable[np.ndarray]) -> Precision:
        """Derive a precision from an analytic array's dtype and the arrays that it was computed from."""
        name = declared or dtype.newbyteorder("=").name
        stored = _STORAGE[dtype.itemsize] if dtype.itemsize < _WIDTH[name] else 0.0
        rounded = sum(not fits_bits(factor, _BITS[name]) for factor in factors)
        return cls(name, rounded, max(RESULT[name], stored))

    @property
    def accumulator(self) -> float:
        """Unit round-off of sums."""
        return ACCUMULATOR[self.name]

    @property
    def kept(self) -> float:
        """Unit round-off of values stored between operations, where these are narrower than sums; else 0."""
        return RESULT[self.name]

    @property
    def operand(self) -> float:
        """Relative error of a product that the rounding of its factors causes."""
        unit = {"tf32": 2.0**-11}.get(self.name, RESULT[self.name] or self.accumulator)
        return self.rounded_operands * unit * (1 + unit)

    @property
    def least_normal(self) -> float:
        """The smallest normal number: a product below it may be flushed to zero."""
        return _LEAST_NORMAL[self.name]

    @property
    def least_result(self) -> float:
        """The most that a finished sum may lose to underflow."""
        return _RESULT_UNDERFLOW[self.name]

    @property
    def tiny(self) -> float:
        """Fraction of T1 below which a term may vanish in the sum."""
        return 8 * self.accumulator


def fits_bits(values: np.ndarray, bits: int) -> bool:
    """Whether every value has a significand of at most ``bits`` bits."""
    if bits >= 53:
        return True
    significand = np.ldexp(np.frexp(values)[0], bits)
    return bool((significand == np.rint(significand)).all())


_FEWER_BITS = {"bfloat16": 4, "float16": 8, "float32": 18}
"""Bits that numbers of a type need more than, to be told from counts and from a narrower type's."""


def narrow_type(values: np.ndarray, precision: str) -> str:
    """Return the type, narrower than a precision, that all finite values of an array fit; empty where there is none.

    Numbers of fewer bits, such as counts, are of no type in particular.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    for name, fewer in _FEWER_BITS.items():
        if UNITS[name] > UNITS[precision] and fits_bits(finite, _BITS[name]) and not fits_bits(finite, fewer):
            return name
    return ""
