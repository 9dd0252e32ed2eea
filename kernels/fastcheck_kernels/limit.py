"""The machine's peak rate: the inner loop of `delta.reduce` on data that stay in the L1 cache."""

from __future__ import annotations

import numpy as np

from ._jit import kernel

SUMS = 9
"""Sums that share a load of z and v."""

SHIFTS = 8
"""The offsets move by less than this from one repetition to the next."""


@kernel("reassoc", "contract")
def move(z, v, d, offsets, repeats):
    """Sum v * ((z + d) - (z - d)) from nine offsets into ``d`` on, over and over.

    Offsets differ from one repetition to the next, so that none can be left out. Apart from that this is the loop that
    `delta` runs, written out again: if that one became slower, this one would still tell what the machine can do.

    Parameters
    ----------
    z, v, d : float64 arrays
        ``d`` reaches SHIFTS and the length of ``z`` beyond the last offset.
    offsets : uint64 array, shape (SUMS,)
    repeats : int

    Returns
    -------
    float
        The sum of all.
    """
    total = 0.0
    size = np.uint64(z.size)
    for r in range(repeats):
        away = np.uint64(r % SHIFTS)
        o0, o1, o2 = offsets[0] + away, offsets[1] + away, offsets[2] + away
        o3, o4, o5 = offsets[3] + away, offsets[4] + away, offsets[5] + away
        o6, o7, o8 = offsets[6] + away, offsets[7] + away, offsets[8] + away
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(size):
            a, b = z[i], v[i]
            s0 += b * ((a + d[o0 + i]) - (a - d[o0 + i]))
            s1 += b * ((a + d[o1 + i]) - (a - d[o1 + i]))
            s2 += b * ((a + d[o2 + i]) - (a - d[o2 + i]))
            s3 += b * ((a + d[o3 + i]) - (a - d[o3 + i]))
            s4 += b * ((a + d[o4 + i]) - (a - d[o4 + i]))
            s5 += b * ((a + d[o5 + i]) - (a - d[o5 + i]))
            s6 += b * ((a + d[o6 + i]) - (a - d[o6 + i]))
            s7 += b * ((a + d[o7 + i]) - (a - d[o7 + i]))
            s8 += b * ((a + d[o8 + i]) - (a - d[o8 + i]))
        total += s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8
    return total
