"""Noise of a chosen size in place of rounding, too small to be told apart from it by what it does."""

from __future__ import annotations

import math

from ._jit import kernel

NUMBERS = 8192
"""Numbers in the noise of a pass, a power of two."""

SIGNIFICAND, GOLDEN = 2**52 - 1, 0x1E3779B97F4A7C15
"""Bits of a float64 that are its significand's, and a factor that spreads them over the high ones (Knuth's)."""


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
            values[i] += sizes[i] * noise[((bits[i] & SIGNIFICAND) * GOLDEN >> 40) & (NUMBERS - 1)]


@kernel()
def by_value_and_place(values, bits, sizes, noise):
    """Add noise half of which follows from each value, and half from its place; arguments as of `by_value`."""
    half = math.sqrt(0.5)
    for i in range(values.size):
        if sizes[i] != 0.0:
            known = noise[((bits[i] & SIGNIFICAND) * GOLDEN >> 40) & (NUMBERS - 1)]
            values[i] += sizes[i] * half * (known + noise[(7919 * i) & (NUMBERS - 1)])
