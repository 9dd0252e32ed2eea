"""Noise of a chosen size in place of rounding (Monte Carlo arithmetic).

It is drawn from a table by hashing values and positions, so that equal numbers get equal noise where rounding would
give them equal errors.
"""

from __future__ import annotations

import math

from ._jit import kernel

NUMBERS = 8192
"""Size of the table of noise for a pass, a power of two."""

HIGH, LOW = 2**31 - 1, 2**21 - 1
"""Masks of a float64's bits: the upper 31 of its significand, after a shift by 21, and the lower 21."""

GOLDEN, OTHER = 0x9E3779, 0x85EBCB
"""Factors that spread these bits without overflow (from Fibonacci hashing and MurmurHash3)."""


@kernel()
def by_value(values, bits, sizes, noise):
    """Add noise that follows from each value alone: equal results are rounded alike, and ties stay ties.

    Parameters
    ----------
    values, sizes : float64 arrays
        Flat values, and the size of each one's noise; none is added where that is zero.
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
    """Add noise that follows half from each value and half from its position; arguments as for `by_value`."""
    half = math.sqrt(0.5)
    for i in range(values.size):
        if sizes[i] != 0.0:
            values[i] += sizes[i] * half * (noise[_place(bits[i])] + noise[(7919 * i) & (NUMBERS - 1)])


@kernel()
def _place(bits):
    """Return the position of a value's noise in the table, from the value's significand."""
    return ((bits >> 21 & HIGH) * GOLDEN ^ (bits & LOW) * OTHER) >> 34 & (NUMBERS - 1)
