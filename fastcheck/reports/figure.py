"""Where the digits are, as a figure drawn by matplotlib. Importing this module imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from fastcheck.common.naming import printable
from fastcheck.metrics.tally import MOST_DIGITS
from fastcheck.reports.axes import Plane
from fastcheck.reports.digit_map import DigitMap

MOST_CELLS = 128
"""Largest number of cells downwards and across: each has two pixels, one of which a border may cover."""

_WRONG, _UNRESOLVED, _UNCHECKED = "tab:red", "0.75", "white"
_PANEL = (4.0, 3.2)
_SQUARE = 8
"""Largest ratio of a picture's sides with which its cells are square."""


class DigitFigure(Figure):
    """A figure that notebooks show even where pyplot is not imported."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def figure_of(maps: Sequence[DigitMap]) -> Figure:
    """Return a figure with a row of pictures for each tensor, and a legend."""
    columns = max(len(one.planes) for one in maps)
    norm, colours = Normalize(0, MOST_DIGITS), _colours()
    with matplotlib.rc_context({"text.parse_math": False}):  # a dollar sign in a name starts no formula
        size = (_PANEL[0] * columns + 1.0, _PANEL[1] * len(maps) + 0.5)
        figure = DigitFigure(figsize=size, layout="constrained")
        panels = figure.subplots(len(maps), columns, squeeze=False)
        for row, one in zip(panels, maps, strict=True):
            for axes in row[len(one.planes) :]:
                axes.set_axis_off()
            for axes, plane in zip(row, one.planes, strict=False):
                _draw(axes, one, plane, colours, norm)
            row[0].set_title(f"{printable(one.name)}: {one.words}", loc="left", fontsize="medium")
        mappable = ScalarMappable(norm, colours)
        figure.colorbar(mappable, ax=panels, label="digits that agree, of the worst entry", shrink=0.8)
        patches = [
            Patch(facecolor=colour, edgecolor="0.5", label=label)
            for label, colour in (("wrong", _WRONG), ("unresolved", _UNRESOLVED), ("not checked", _UNCHECKED))
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize="small")
    return figure


def _colours() -> Colormap:
    return matplotlib.colormaps["viridis_r"].with_extremes(under=_WRONG, over=_UNRESOLVED, bad=_UNCHECKED)


def _draw(axes: Axes, one: DigitMap, plane: Plane, colours: Colormap, norm: Normalize) -> None:
    """Draw one plane, in coordinates that are indices."""
    found = one.binned(plane, MOST_CELLS, MOST_CELLS)
    rows, columns = found.levels.shape
    extent = (-0.5, columns * found.width - 0.5, rows * found.height - 0.5, -0.5)
    slender = max(plane.rows, plane.columns) > _SQUARE * min(plane.rows, plane.columns)
    axes.imshow(
        np.ma.masked_invalid(found.levels),
        cmap=colours,
        norm=norm,
        extent=extent,
        aspect="auto" if slender else "equal",
        interpolation="nearest",
    )
    axes.set(xlim=(-0.5, plane.columns - 0.5), ylim=(plane.rows - 0.5, -0.5))
    axes.set_xlabel(plane.names[-1] if plane.names else "")
    axes.set_ylabel(plane.names[0] if len(plane.names) == 2 else "")
    for axis, count in ((axes.xaxis, plane.columns), (axes.yaxis, plane.rows)):
        axis.set_major_locator(MaxNLocator("auto", integer=True) if count > 1 else NullLocator())
