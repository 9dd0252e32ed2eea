"""Sweeps as text: a table, plots of each tensor's curves, and an explanation of each reading."""

from __future__ import annotations

import math

from rich.console import Console
from rich.text import Text

from fastcheck.render.curves import CurveLine, decades, lines
from fastcheck.render.escape import escaped
from fastcheck.render.outline import short_title, width_of, write_lines
from fastcheck.render.page import print_table
from fastcheck.sweeps.curve import Curve
from fastcheck.sweeps.report import Sweep

_HEADINGS = ("dimension", "analytic", "best h", "numeric there", "error there", "order", "slope", "reading")
_WIDE = 120
"""Width that the table needs."""

_MARKERS = "ox+"
"""Markers of a plot's curves; no more curves are drawn."""

_PLOT_WIDTH, _PLOT_HEIGHT = 100, 22

_ASCII = str.maketrans("┌┐└┘─│┤├┬┴┼", "++++-|+++++")
"""Replacements for the plot's frame on terminals without these characters."""

_STYLES = {"coding mistake": "bold red", "kink": "yellow"}


def write_sweep(sweep: Sweep, out: Console, title: str = "") -> None:
    """Print a sweep: a line per dimension, plots of error against step, the meaning of each reading, and medians."""
    sweep = escaped(sweep)
    outline = sweep.outline()
    write_lines(outline.opening(width_of(out), short_title(title)), out)
    print_table(out, _HEADINGS, [_cells(curve) for curve in sweep.curves], wide=_WIDE)
    for tensor in sweep.order:
        out.print(Text(_plotted(sweep.of(tensor), out)), soft_wrap=True)
    for curve in sweep.curves:
        out.print(Text(f"{curve.tensor} {list(curve.index)} ").append(_reading(curve)).append(f": {curve.words}"))
    out.print(sweep.summary())
    write_lines(outline.end(width_of(out)), out)


def _cells(curve: Curve) -> tuple[str | Text, ...]:
    return (
        f"{curve.tensor} {list(curve.index)}",
        f"{curve.analytic:.12g}",
        f"{curve.best_step:.2g}",
        f"{curve.best_numeric:.12g}",
        f"{curve.best_error:.1e}",
        "-" if curve.order is None else f"{curve.order:.2f}",
        "-" if curve.slope is None else f"{curve.slope:.2f}",
        _reading(curve),
    )


def _reading(curve: Curve) -> Text:
    return Text(curve.reading, style=_STYLES.get(curve.reading, "green"))


def _plotted(curves: tuple[Curve, ...], out: Console) -> str:
    """Return a plot of one tensor's first curves, made of characters."""
    import plotext  # imported only when a plot is drawn

    shown = list(zip(_MARKERS, curves, strict=False))
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(min(out.width, _PLOT_WIDTH), _PLOT_HEIGHT)
    plotext.theme("clear")
    guides = [("-" if line.name == "error bar" else ".", line) for line in lines(curves[0])]
    errors = [
        (marker, CurveLine("", curve.steps, curve.errors)) for marker, curve in reversed(shown)
    ]  # drawn last, the first curve is on top
    points = [(marker, decades(line)) for marker, line in guides + errors]
    for marker, (x, y) in points:
        (plotext.scatter if marker in _MARKERS else plotext.plot)(x, y, marker=marker)
    for axis, set_ticks in enumerate((plotext.xticks, plotext.yticks)):
        ticks = _ticks([value for _, point in points for value in point[axis]])
        set_ticks(ticks, [f"1e{k}" for k in ticks])
    text = plotext.uncolorize(plotext.build())
    plotext.clear_figure()
    names = ", ".join(f"{marker} {list(curve.index)}" for marker, curve in shown)
    legend = f"{curves[0].tensor}: |n(h) - analytic| against h. {names}; . guides h^2 and 1/h; - error bar"
    return f"{legend}\n{text if out.encoding.startswith('utf') else text.translate(_ASCII)}"


def _ticks(values: list[float]) -> list[int]:
    """Return the decades within the range of some decimal logarithms, about ten at most."""
    if not values:  # all errors are 0
        return []
    low, high = math.floor(min(values)) + 1, math.floor(max(values))
    return list(range(low, high + 1, max(1, math.ceil((high - low) / 10))))
