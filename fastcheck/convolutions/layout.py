"""The order of axes of a convolution's arrays: channels first, as they are kept here, or last."""

from __future__ import annotations

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import refuse_unknown

LAYOUTS = ("NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NDHWC")
"""Names of layouts. The first two stand for any number of spatial axes, the others for one and for three."""

_EVERY_RANK = LAYOUTS[:2]

KERNELS = ("weight", "grad_weight")
"""Arrays of shape (C_out, C_in / groups, taps...); channels-last, (taps..., C_in / groups, C_out)."""

ACTIVATIONS = ("input", "output", "grad_output", "grad_input")
"""Arrays of shape (N, channels, spatial...); channels-last, (N, spatial..., channels)."""


def channels_last(layout: str, axes: int) -> bool:
    """Whether a layout has channels last.

    Parameters
    ----------
    layout : str
        One of `LAYOUTS`.
    axes : int
        Number of axes of the input.

    Raises
    ------
    FastcheckError
        If the layout is unknown, or is for another number of axes.
    """
    refuse_unknown("layout", layout, LAYOUTS)
    if layout not in _EVERY_RANK and len(layout) != axes:
        raise FastcheckError(f"layout is {layout!r}, and input has {axes} axes: expected {len(layout)} axes, or NHWC")
    return layout.endswith("C")


def order(name: str, axes: int) -> Shape:
    """Return the axes of a channels-last array in the order that makes it channels-first."""
    if name in KERNELS:
        return (axes - 1, axes - 2, *range(axes - 2))
    return (0, axes - 1, *range(1, axes - 1)) if name in ACTIVATIONS else tuple(range(axes))


def shape_first(name: str, shape: Shape) -> Shape:
    """Return the channels-first shape of a channels-last array; other arrays keep theirs."""
    return tuple(shape[axis] for axis in order(name, len(shape))) if len(shape) > 2 else shape


def array_first(name: str, array: np.ndarray) -> np.ndarray:
    """Return a channels-first view of a channels-last array; other arrays are returned unchanged."""
    return array.transpose(order(name, array.ndim)) if array.ndim > 2 else array
