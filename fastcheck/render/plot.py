"""Sweeps as pictures, drawn by matplotlib."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from fastcheck.common.drawing import require_matplotlib
from fastcheck.common.errors import FastcheckError
from fastcheck.render.curves import SHOWN, CurveLine, lines
from fastcheck.render.escape import escaped
from fastcheck.sweeps.report import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("svg", "png")

_GUIDES = {"h^2": ("0.6", "--"), "1/h": ("0.6", ":"), "error bar": ("tab:red", "-")}
"""Colour and style of each line other than the errors."""


def picture_format(path: str | os.PathLike[str]) -> str:
    """Return the format given by the extension of a picture's name.

    Raises
    ------
    FastcheckError
        If the name ends in neither ``.svg`` nor ``.png``, or matplotlib is not installed or cannot be loaded.
    """
    ending = os.path.splitext(path)[1].lower().removeprefix(".")
    if ending not in FORMATS:
        raise FastcheckError(f"plot is {str(path)!r}: expected a name that ends in .svg or .png")
    require_matplotlib("saving a plot")
    return ending


def picture(sweep: Sweep, ending: str) -> bytes:
    """Return a picture of a sweep as the bytes of an SVG or PNG file: error against step, one panel per tensor."""
    import matplotlib
    from matplotlib.figure import Figure

    sweep = escaped(sweep)
    tensors = list(sweep.order)
    # Fixed ids and no date, so that equal sweeps give equal files; a dollar sign in a name starts no formula.
    with matplotlib.rc_context({"svg.hashsalt": "fastcheck", "text.parse_math": False}):
        figure = Figure(figsize=(5.5 * len(tensors), 4.5), layout="constrained")
        for axes, tensor in zip(figure.subplots(1, len(tensors), squeeze=False)[0], tensors, strict=True):
            _draw(axes, sweep, tensor)
        stream = io.BytesIO()
        metadata = {"Date": None} if ending == "svg" else None
        figure.savefig(stream, format=ending, metadata=metadata, dpi=150)
    return stream.getvalue()


def _draw(axes: Axes, sweep: Sweep, tensor: str) -> None:
    curves = sweep.of(tensor)[:SHOWN]
    for curve in curves:
        label = f"{list(curve.index)}: {curve.reading}"
        _plot(axes, CurveLine(label, curve.steps, curve.errors), marker="o", markersize=3, linewidth=0.8)
    for line in lines(curves[0]):
        colour, style = _GUIDES[line.name]
        _plot(axes, line, color=colour, linestyle=style, linewidth=1.2, zorder=1)
    axes.set(xscale="log", yscale="log", title=tensor, xlabel="step h", ylabel="|n(h) - analytic|")
    axes.legend(fontsize="small")


def _plot(axes: Axes, line: CurveLine, **style: object) -> None:
    shown = [(h, size) for h, size in zip(line.steps, line.sizes, strict=True) if 0 < size < float("inf")]
    axes.plot([h for h, _ in shown], [size for _, size in shown], label=line.name, **style)  # type: ignore[arg-type]
