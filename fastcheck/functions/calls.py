"""How a function is called with one entry after another moved: one by one, in compiled code, or in stacks of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.arrays import as_array
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import LONGEST_VALUE, brief
from fastcheck.common.precision import U
from fastcheck.functions.state import ROUNDINGS, Arrays

STACK_BYTES = 2**23
"""Largest size of a stack of points with the outputs there; a function needs several times that for what lies between.
Stacks of hundreds of points, or of points of a million entries, gain nothing from more."""

VERIFIED = 2.0**-3
"""Relative perturbation of the points with which a function is shown to be vectorised."""

POINTS = 3
"""Number of these points."""

AT_ONCE = f"for {POINTS} points at once"

SAME = 2.0**-10
"""Largest difference between a value in a stack and the same alone, as a fraction of the values' spread: rounding of
float32 at most. Where points of a stack reach one another's values, these differ by about the spread."""


def one_by_one(
    loss: Callable[[Any], Any],
    params: Any,
    flat: np.ndarray,
    dims: np.ndarray,
    points: np.ndarray,
    read: Callable[[Any], float],
) -> np.ndarray:
    """Call a loss with one entry after another moved, and do nothing but that in between.

    Parameters
    ----------
    loss : callable
        Called as loss(params).
    params : object
    flat : float64 array
        Flat view of the array of params that is moved; it is restored.
    dims : int64 array, shape (n,)
    points : float64 array, shape (k, n)
        Values of each entry.
    read : callable
        Returns the number that the loss returned, where this is no float.

    Returns
    -------
    float64 array, shape (k, n)
        nan where the loss raises.
    """
    values, usual = [], (float, np.float64)
    for dim, there in zip(dims.tolist(), points.T.tolist(), strict=True):
        here = flat[dim]
        for point in there:
            flat[dim] = point
            try:
                value = loss(params)
            except Exception:
                value = math.nan
            values.append(value if type(value) in usual else read(value))
        flat[dim] = here
    return np.array(values, np.float64).reshape(points.shape[::-1]).T


def compiled_loop(loss: Any) -> Callable[..., np.ndarray] | None:
    """Return the compiled loop around a loss that Numba compiles; None for any other loss, without importing Numba."""
    if not type(loss).__module__.startswith("numba."):
        return None
    from fastcheck_kernels import calls  # imports Numba, which made the loss

    return calls.loop(loss) if calls.is_compiled(loss) else None


class Stacked:
    """A function of stacks: of arrays with a leading axis, along which lie points.

    Parameters
    ----------
    params : dict of str to float64 array
        The start point.
    shape : tuple of int
        Of a value; without axes where it is a number.
    size : int
        Number of entries that the function takes and returns for a point.
    evaluate : callable
        Takes a stack, and a function that returns words for its place; returns values along a leading axis. It raises
        a FastcheckError where the function returns what it may not.
    refuse_changes : callable
        Takes a stack of the start point after a call, and refuses any other.
    """

    def __init__(
        self,
        params: Arrays,
        shape: Shape,
        size: int,
        evaluate: Callable[[Arrays, Callable[[], str]], np.ndarray],
        refuse_changes: Callable[[Arrays], None],
    ) -> None:
        self._params, self._shape, self._evaluate, self._refuse_changes = params, shape, evaluate, refuse_changes
        self._most = STACK_BYTES // (8 * size)

    def moved(
        self, name: str, dims: np.ndarray, points: np.ndarray, where: Callable[[], str]
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Evaluate with one entry after another moved to k other values, in few calls.

        Yields
        ------
        slice, float64 array of shape (n, k, ...)
            Some of the dims, and the values of each. They are nan where the function raises.
        """
        count = max(1, self._most // len(points))
        for start in range(0, len(dims), count):
            part = slice(start, min(start + count, len(dims)))
            stacked = np.repeat(dims[part], len(points)), points[:, part].T.reshape(-1)
            values = self._values(name, *stacked, where)
            yield part, values.reshape(part.stop - start, len(points), *values.shape[1:])

    def verify(self, alone: Callable[[Arrays], np.ndarray], function: str, noise: float) -> None:
        """Check that a stack of different points gives what each of them gives alone.

        Parameters
        ----------
        alone : callable
            Evaluates one point.
        function : str
            Its name, for messages.
        noise : float
            By how much a value may differ from call to call.
        """
        for far in (VERIFIED, VERIFIED**4):  # a function may have no values far from the point
            points = list(self._around(far))
            stack = {name: np.stack([point[name] for point in points]) for name in self._params}
            singles = np.stack([alone(point) for point in points])
            if not np.isfinite(singles).all():
                continue
            try:
                together = self._evaluate(stack, lambda: AT_ONCE)
            except FastcheckError:
                raise
            except Exception as error:
                raise raised_by(function, error, AT_ONCE) from error
            spread, size = float(np.ptp(singles, axis=0).max()), float(np.abs(singles).max())
            if not np.abs(together - singles).max() <= max(SAME * spread, ROUNDINGS * U * size, noise):
                raise FastcheckError(
                    f"vectorized is True, but {function} returns other values {AT_ONCE} than for each alone: "
                    "expected a function that keeps the points of the leading axis apart"
                )
            return

    def _around(self, far: float) -> Iterator[Arrays]:
        rng = np.random.default_rng(POINTS)
        for _ in range(POINTS):
            yield {name: array * (1 + far * rng.uniform(-1, 1, array.shape)) for name, array in self._params.items()}

    def _values(self, name: str, dims: np.ndarray, points: np.ndarray, where: Callable[[], str]) -> np.ndarray:
        """Evaluate a stack in each point of which one entry is moved; where it raises, halve it."""
        count = len(dims)
        stack = {other: np.repeat(array[None], count, axis=0) for other, array in self._params.items()}
        entries, which = stack[name].reshape(count, -1), (np.arange(count), dims)
        entries[which] = points
        try:
            values = self._evaluate(stack, where)
        except FastcheckError:
            raise
        except Exception:
            if count == 1:
                return np.full((1, *self._shape), math.nan)
            halves = slice(count // 2), slice(count // 2, count)
            return np.concatenate([self._values(name, dims[half], points[half], where) for half in halves])
        entries[which] = self._params[name].reshape(-1)[dims]
        self._refuse_changes(stack)
        return values


def numbers(returned: Any, count: int, where: Callable[[], str]) -> np.ndarray:
    """Return the numbers that a vectorised loss returned for so many points."""
    array = as_array("loss", returned) if hasattr(returned, "__array__") else None
    if array is None or array.shape != (count,) or array.dtype.kind not in "fiu":
        what = brief(repr(returned), LONGEST_VALUE) if array is None else f"an array of shape {array.shape}"
        raise FastcheckError(
            f"loss returns {what} {where()}: expected shape ({count},), a number for each point of the leading axis, "
            "as vectorized=True says"
        )
    return array.astype(np.float64)
