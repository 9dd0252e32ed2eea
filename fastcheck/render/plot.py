"""Sweeps as pictures, by matplotlib."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from fastcheck.common.errors import FastcheckError
from fastcheck.render.curves import SHOWN, CurveLine, lines
from fastcheck.render.escape import harmless
from fastcheck.sweeps.report import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("svg", "png")

_GUIDES = {"h^2": ("0.6", "--"), "1/h": ("0.6", ":"), "error bar": ("tab:red", "-")}
"""Colour and style of what is not an error."""


def picture_format(path: str | os.PathLike[str]) -> str:
    """Return the format that a picture's name asks for.

    Raises
    ------
    FastcheckError
        If the name ends in neither ``.svg`` nor ``.png``, or matplotlib is not installed or does not start.
    """
    ending = os.path.splitext(path)[1].lower().removeprefix(".")
    if ending not in FORMATS:
        raise FastcheckError(f"plot is {str(path)!r}: expected a name that ends in .svg or .png")
    try:
        import matplotlib.figure  # noqa: F401, whether it is there
    except ImportError:
        raise FastcheckError('plots as files need matplotlib: pip install "fastcheck[plot]"') from None
    except (
        Exception
    ) as error:  # it reads settings of its own, such as MPLBACKEND, and ends with one that it does not know
        raise FastcheckError(f"plots as files need matplotlib, which does not start: {error}") from None
    return ending


def picture(sweep: Sweep, ending: str) -> bytes:
    """Return a picture of a sweep as the bytes of an SVG or PNG file: error against step, a panel a tensor."""
    import matplotlib
    from matplotlib.figure import Figure

    sweep = harmless(sweep)
    tensors = list(sweep.order)
    # Neither ids nor a date that would make the same sweep another file; a dollar in a name is no formula.
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
