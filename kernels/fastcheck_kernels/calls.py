"""A user's compiled loss with one entry after another moved: the loop around its calls."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numba
import numpy as np

LOOPS = 16
"""Losses whose loops are kept: each keeps its loss, and all that this refers to."""

_LOCK = threading.Lock()


def is_compiled(function: Any) -> bool:
    """Return whether Numba compiles a function, for this processor and without Python's objects."""
    dispatcher = isinstance(function, numba.core.dispatcher.Dispatcher)
    return dispatcher and not function.targetoptions.get("forceobj", False)


def loop(loss: Any) -> Any:
    """Return a loop that calls this loss alone; it is compiled once, when it is first called.

    It cannot be cached on disk as kernels are: the loss is part of it, and any function may be part of the loss. It
    holds the GIL where the loss does, and where that runs on several threads, which may not start from several.

    Returns
    -------
    callable
        Takes params (an array, or a tuple of arrays, in C order), a flat view of the one that is moved, flat indices
        of shape (n,) and values of shape (k, n). It returns the loss for each of the values, of shape (k, n), nan where
        it raises, and restores every entry.
    """
    with _LOCK:
        return _loop(loss)


@functools.lru_cache(LOOPS)
def _loop(loss: Any) -> Any:
    options = loss.targetoptions
    nogil = bool(options.get("nogil")) and not options.get("parallel")

    @numba.njit(nogil=nogil, error_model="numpy")
    def moved(params, flat, dims, points):
        values = np.empty(points.shape)
        for column in range(len(dims)):
            here = flat[dims[column]]
            for row in range(len(points)):
                flat[dims[column]] = points[row, column]
                try:
                    values[row, column] = loss(params)
                except Exception:
                    values[row, column] = np.nan
            flat[dims[column]] = here
        return values

    return moved
