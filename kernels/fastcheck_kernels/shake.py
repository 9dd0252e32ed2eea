"""Noise of a chosen size in place of rounding, too small to be told apart from it by what it does."""

from __future__ import annotations

import math

from ._jit import kernel


@kernel()
def by_value(values, sizes, noise):
    """Add noise that follows from each value alone: rounding errs alike where the same is computed, and ties stay ties.

    Parameters
    ----------
    values, sizes : float64 arrays
        Flat, and how much noise an entry is given; none where that is zero.
    noise : float64 array
        Numbers of variance one.
    """
    for i in range(values.size):
        if sizes[i] != 0.0:
            values[i] += sizes[i] * noise[_place(values[i], noise.size)]


@kernel()
def by_value_and_place(values, sizes, noise):
    """Add noise half of which follows from each value, and half from its place; arguments as of `by_value`."""
    for i in range(values.size):
        if sizes[i] != 0.0:
            both = noise[_place(values[i], noise.size)] + noise[(7919 * i) % noise.size]
            values[i] += sizes[i] * math.sqrt(0.5) * both


@kernel()
def _place(value, size):
    """Return where the noise of a value stands, by its significand."""
    return int(math.frexp(abs(value))[0] * 9007199254740992.0) % size
