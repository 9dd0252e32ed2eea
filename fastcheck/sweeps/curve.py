"""The curve of one dimension: how the error of its difference quotient changes with the step, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.sweeps.interpretation import Reading, read
from fastcheck.sweeps.quotients import examined, order_of, slope_of

LEAST_STEPS = 4
"""Smallest number of steps in a curve."""


@dataclass(frozen=True)
class Curve:
    """One dimension over a range of steps.

    Attributes
    ----------
    tensor : str
    index : tuple of int
    analytic : float
    steps, numeric, errors : tuple of float
        Steps h, the largest first; the quotients n(h) there; \\|n(h) - analytic\\|.
    error_bars : tuple of float or None
        Bounds on the errors that arithmetic alone can explain, where they are known.
    order : float or None
        The power of h with which n(h) converges before round-off takes over, None where it does not.
    slope : float or None
        The power of h with which round-off grows, about -1, None where none shows.
    best_step, best_error : float
        The step at which n(h) wavers least, and the error there.
    reading : {"truncation", "round-off", "coding mistake", "kink", "exact"}
    words : str
        An explanation of the reading, and the next thing to try.
    """

    tensor: str
    index: tuple[int, ...]
    analytic: float
    steps: tuple[float, ...]
    numeric: tuple[float, ...]
    errors: tuple[float, ...]
    error_bars: tuple[float, ...] | None
    order: float | None
    slope: float | None
    best_step: float
    best_error: float
    reading: Reading
    words: str

    def brief(self) -> dict[str, Any]:
        """Return the curve's entry in a report: everything but the curve itself."""
        keys = ("index", "order", "slope", "best_step", "best_error", "reading", "words")
        return {key: value for key, value in asdict(self).items() if key in keys}

    @property
    def best_numeric(self) -> float:
        """The quotient at the best step."""
        return self.numeric[self.steps.index(self.best_step)]


@np.errstate(over="ignore", invalid="ignore")
def analyse(
    steps: Sequence[float] | np.ndarray,
    numeric: Sequence[float] | np.ndarray,
    analytic: float,
    error_bars: Sequence[float] | np.ndarray | None = None,
    *,
    kinks: Sequence[int] | np.ndarray | None = None,
    jumps: Sequence[float] | np.ndarray | None = None,
    tensor: str = "",
    index: tuple[int, ...] = (),
) -> Curve:
    """Return one dimension's curve and its interpretation.

    Parameters
    ----------
    steps : array, shape (m,)
        At least four different positive steps, in any order.
    numeric : array, shape (m,)
        The two-sided quotient at each step.
    analytic : float
        A value that is not finite is a coding mistake.
    error_bars : array, shape (m,), optional
        Bounds on \\|numeric - analytic\\| that arithmetic alone can explain. Without them, a plateau far above the
        wavering of n(h) is a coding mistake: give them where the analytic value has fewer digits than float64.
    kinks : array, shape (m,), optional
        Number of kinks that each difference crosses.
    jumps : array, shape (m,), optional
        Half of the interval between the one-sided slopes at the point itself, 0 without a kink there.
    tensor, index : optional
        Tensor and multi-index of the dimension.

    Returns
    -------
    Curve

    Raises
    ------
    FastcheckError
        If there are too few steps, a step is not positive and finite, or a quotient is not finite.
    """
    h, n = np.array(steps, dtype=np.float64), np.array(numeric, dtype=np.float64)
    _check(h, n)
    down = np.argsort(-h)
    h, n = h[down], n[down]
    bars = None if error_bars is None else np.array(error_bars, dtype=np.float64)[down]
    crossed = np.zeros(h.size) if kinks is None else np.asarray(kinks)[down]
    jump = np.zeros(h.size) if jumps is None else np.asarray(jumps)[down]
    seen = examined(h, n, float(analytic), bars, (crossed > 0) | (jump > 0))
    order, slope = order_of(seen), slope_of(seen)
    reading, words = read(seen, order, slope)
    return Curve(
        tensor=tensor,
        index=tuple(index),
        analytic=float(analytic),
        steps=tuple(h.tolist()),
        numeric=tuple(n.tolist()),
        errors=tuple(seen.errors.tolist()),
        error_bars=None if bars is None else tuple(bars.tolist()),
        order=order,
        slope=slope,
        best_step=float(h[seen.best]),
        best_error=seen.gap,
        reading=reading,
        words=words,
    )


def _check(h: np.ndarray, n: np.ndarray) -> None:
    if h.ndim != 1 or n.shape != h.shape or np.unique(h).size != h.size or h.size < LEAST_STEPS:
        raise FastcheckError(
            f"steps have shape {h.shape} and numeric {n.shape}: expected at least {LEAST_STEPS} different steps, "
            "and a quotient at each"
        )
    if not (np.isfinite(h) & (h > 0)).all():
        raise FastcheckError(f"steps hold {h[~(np.isfinite(h) & (h > 0))][0]}: expected positive finite numbers")
    if not np.isfinite(n).all():
        raise FastcheckError(f"numeric is {n[~np.isfinite(n)][0]} at a step: expected finite numbers")
