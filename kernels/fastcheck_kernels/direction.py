"""A direction of +1 and -1 over the dimensions of a tensor, given by a hash of their indices alone."""

from __future__ import annotations

from ._jit import kernel

_WORD = 0xFFFFFFFF
_ODD = 0x45D9F3B


@kernel()
def _sign(dim, seed):
    """Return +1.0 or -1.0: a multiplicative hash of 32 bits, twice."""
    x = (dim ^ (dim >> 32) ^ seed) & _WORD
    x = (((x >> 16) ^ x) * _ODD) & _WORD
    x = (((x >> 16) ^ x) * _ODD) & _WORD
    return 1.0 - 2.0 * ((x >> 16) & 1)


@kernel()
def move(dims, seed, h, entries):
    """Add h times the direction to the entries of these flat indices."""
    for i in range(dims.size):
        entries[dims[i]] += h * _sign(dims[i], seed)


@kernel("reassoc", "contract")
def along(dims, seed, numeric, bar):
    """Return the sums of direction * numeric, of |numeric| and of the error bars."""
    total, size, bars = 0.0, 0.0, 0.0
    for i in range(dims.size):
        total += _sign(dims[i], seed) * numeric[i]
        size += abs(numeric[i])
        bars += bar[i]
    return total, size, bars
