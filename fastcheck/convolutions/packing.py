"""Activations and weights packed into planes, by a kernel that shares them among threads."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.lowering import Planes
from fastcheck.engine.sharing import share, thread_ranges
from fastcheck_kernels import planes

WHOLE = np.zeros((1, 3), dtype=np.int64)
"""The only phase of an array that no stride splits."""


def packed(
    source: np.ndarray,
    layout: Planes,
    counts: Shape,
    pool: Executor,
    *,
    lead: int = 0,
    size: int,
    phases: np.ndarray = WHOLE,
    strides: Shape = (1, 1, 1),
    scale: float = 1.0,
) -> np.ndarray:
    """Pack every channel of an array into planes, one for each phase.

    Parameters
    ----------
    source : float64 array, shape (N, C, depth, height, width)
    layout : Planes
    counts : tuple of int
        Entries to pack along each axis.
    lead : int
        Zeros before the first entry.
    size : int
        Length of a plane.
    phases : int64 array, shape (F, 3)
    strides : tuple of int
        Distances between the entries of a phase.
    scale : float
        Factor of every entry.

    Returns
    -------
    float64 array, shape (C * F * size,)
    """
    channels = source.shape[1]
    out = np.empty((channels, len(phases), size))
    described = layout.layout(strides, counts, lead)
    ranges = thread_ranges(channels, out.size)
    share(pool, lambda r: planes.pack(source, described, phases, scale, r[0], r[1], out), ranges)
    return out.reshape(-1)
