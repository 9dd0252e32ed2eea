"""Noise of a chosen size in place of rounding, too small to be told apart from it by what it does."""

from __future__ import annotations

import math

from ._jit import kernel

NUMBERS = 8192
"""Numbers in the noise of a pass, a power of two."""

HIGH, LOW = 2**31 - 1, 2**21 - 1
"""The upper bits of a float64's significand, behind the others, and these."""

GOLDEN, OTHER = 0x9E3779, 0x85EBCB
"""Factors that spread them, so small that nothing overflows (as of Fibonacci hashing and of MurmurHash3)."""


@kernel()
def by_value(values, bits, sizes, noise):
    """Add noise that follows from each value alone: rounding errs alike where the same is computed, and ties stay ties.

    Parameters
    ----------
    values, sizes : float64 arrays
        Flat, and how much noise an entry is given; none where that is zero.
    bits : int64 array
        The same memory as ``values``.
    noise : float64 array
        `NUMBERS` numbers of variance one.
    """
    for i in range(values.size):
        if sizes[i] != 0.0:
            values[i] += sizes[i] * noise[_place(bits[i])]


@kernel()
def by_value_and_place(values, bits, sizes, noise):
    """Add noise half of which follows from each value, and half from its place; arguments as of `by_value`."""
    half = math.sqrt(0.5)
    for i in range(values.size):
        if sizes[i] != 0.0:
            values[i] += sizes[i] * half * (noise[_place(bits[i])] + noise[(7919 * i) & (NUMBERS - 1)])


@kernel()
def _place(bits):
    """Return where the noise of a value stands, by its significand."""
    return ((bits >> 21 & HIGH) * GOLDEN ^ (bits & LOW) * OTHER) >> 34 & (NUMBERS - 1)
