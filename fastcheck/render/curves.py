"""Lines that a plot of a curve shows beside its errors, for every kind of plot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcheck.sweeps.curve import Curve

SHOWN = 3
"""Largest number of curves in one plot."""


class CurveLine(NamedTuple):
    """A line of a plot: its name, and sizes by step."""

    name: str
    steps: tuple[float, ...]
    sizes: tuple[float, ...]


def lines(curve: Curve) -> list[CurveLine]:
    """Return the guides h^2 and 1/h, fitted to the changes of n(h), and the error bar if it is known."""
    h, n = np.array(curve.steps), np.array(curve.numeric)
    best = curve.steps.index(curve.best_step)
    guides = []
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.abs(n - n[best])
        noise = float(np.median((away * h)[best + 1 :])) if best + 1 < h.size else 0.0
        bend = float(np.median((away / h**2)[:best])) if curve.order is not None else noise / h[best] ** 3
        parabola, hyperbola = bend * h[: best + 1] ** 2, noise / h[best:]
    if bend > 0 and best > 0:
        guides.append(_line("h^2", h[: best + 1], parabola))
    if noise > 0:
        guides.append(_line("1/h", h[best:], hyperbola))
    if curve.error_bars is not None:
        guides.append(CurveLine("error bar", curve.steps, curve.error_bars))
    return guides


def _line(name: str, steps: np.ndarray, sizes: np.ndarray) -> CurveLine:
    return CurveLine(name, tuple(steps.tolist()), tuple(sizes.tolist()))


def decades(line: CurveLine) -> tuple[list[float], list[float]]:
    """Return the decimal logarithms of a line's points, without points that have none."""
    steps, sizes = np.array(line.steps), np.array(line.sizes)
    drawable = np.isfinite(sizes) & (sizes > 0)
    return np.log10(steps[drawable]).tolist(), np.log10(sizes[drawable]).tolist()
