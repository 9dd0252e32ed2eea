"""Noise of a chosen size on a layer's results, in place of rounding, too small to be told apart from itself."""

from __future__ import annotations

import math

from ._jit import kernel


@kernel()
def shake(values, first, pitch, channels, length, amplitude, noise):
    """Add noise to the channels of a layer, in proportion to their root mean squares.

    What an entry is given follows from its value alone, and zero stays zero: rounding errs alike where the same is
    computed, so that ties stay ties.

    Parameters
    ----------
    values : float64 array
        Channel c is values[first + c * pitch :][:length].
    amplitude : float
        As a part of the root mean square.
    noise : float64 array
        Numbers of variance one.
    """
    for c in range(channels):
        line = values[first + c * pitch : first + c * pitch + length]
        total = 0.0
        for i in range(length):
            total += line[i] * line[i]
        size = amplitude * math.sqrt(total / length)
        for i in range(length):
            if line[i] != 0.0:
                significand = int(math.frexp(abs(line[i]))[0] * 9007199254740992.0)
                line[i] += size * noise[significand % noise.size]


@kernel()
def shake_seeds(seeds, known, amplitude, noise):
    """Add noise to the cotangents of the output, in proportion to what they are differences of."""
    for i in range(seeds.size):
        size = amplitude * (abs(known[i]) + abs(seeds[i]))
        seeds[i] += size * noise[(7919 * i) % noise.size]
