"""The bases of reports that show themselves: as text, in one line, in a notebook and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastcheck.common.drawing import require_matplotlib
from fastcheck.common.errors import FastcheckError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastcheck.reports.outline import Outline
    from fastcheck.reports.tensor_report import TensorReport


class Readable:
    """Base of what has an outline: its text, its one-line form and its table in a notebook."""

    if TYPE_CHECKING:

        def outline(self) -> Outline: ...

    def __str__(self) -> str:
        return "\n".join(self.outline().lines())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.outline().closing}>"

    def _repr_html_(self) -> str:
        from fastcheck.reports.notebook import html  # imported only in notebooks

        return html(self.outline())


class Plottable:
    """Base of what has tensors: the figure of where their digits are."""

    if TYPE_CHECKING:

        @property
        def tensors(self) -> Mapping[str, TensorReport]: ...
        @property
        def operands(self) -> Mapping[str, Any] | None: ...

    def plot(self) -> Figure:
        """Return a figure of where the digits are: for each tensor, over its axes, the worst entry of each cell.

        A convolution's weight is shown over filters and channels, and over taps, its input over samples and channels,
        and over the image. Tensors that did not pass come first.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it; ``figure.savefig("digits.png")`` saves it.

        Raises
        ------
        FastcheckError
            If the check did not keep its per-dimension arrays, or matplotlib is not installed.
        """
        from fastcheck.reports.digit_map import digit_maps

        maps = digit_maps(self.tensors, self.operands)
        if not maps:
            why = "it keeps no per-dimension arrays: check with keep=True" if self.tensors else "no tensor was checked"
            raise FastcheckError(f"this report cannot be plotted: {why}")
        require_matplotlib("plot()")
        from fastcheck.reports.figure import figure_of  # imports matplotlib

        return figure_of(maps)
