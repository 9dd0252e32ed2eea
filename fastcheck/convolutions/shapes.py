"""The shapes of a case's arrays: whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.convolutions import layout, likely_causes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.likely_causes import DEFAULTS, Shapes

_CHECKED = ("bias", "grad_output", "grad_input", "grad_weight", "grad_bias", "output")


def is_default(name: str, value: Any) -> bool:
    """Whether an argument is what it is where none is given."""
    default = DEFAULTS[name]
    if isinstance(default, str):
        return isinstance(value, str) and value == default
    return isinstance(value, (int, float)) and isinstance(value, bool) == isinstance(default, bool) and value == default


def fitted(
    shapes: Shapes, arguments: Mapping[str, Any], last: bool = False, absent: str = "the default"
) -> ConvGeometry:
    """Work out a geometry, and check that every array fits it.

    Parameters
    ----------
    shapes : mapping of str to Shape
    arguments : mapping
        Those of `DEFAULTS` that were given.
    last : bool
        Whether the arrays are channels-last.
    absent : str
        Words for an argument that was not given.

    Raises
    ------
    FastcheckError
        If they do not fit; where a likely change makes all of them fit, the message names it.
    """
    first = {name: layout.shape_first(name, shape) for name, shape in shapes.items()} if last else shapes
    try:
        return _fitted(first, arguments, " (as N, C, then space)" * last)
    except FastcheckError as error:
        tried = likely_causes.Tried(shapes, first, arguments, last, absent, _fit)
        raise FastcheckError(likely_causes.with_cause(str(error), tried)) from None


def _fitted(shapes: Shapes, arguments: Mapping[str, Any], note: str = "") -> ConvGeometry:
    geometry = ConvGeometry.of(shapes["input"], shapes["weight"], **arguments)
    for name in _CHECKED:
        if name in shapes:
            _refuse_other(name, shapes[name], _expected(geometry, name), geometry, note)
    return geometry


def _expected(geometry: ConvGeometry, name: str) -> Shape:
    return geometry.output_shape if name.endswith("output") else geometry.shape_of(name.removeprefix("grad_"))


def _refuse_other(name: str, shape: Shape, expected: Shape, geometry: ConvGeometry, note: str) -> None:
    if len(shape) != len(expected):
        raise FastcheckError(f"{name} has shape {shape}{note}: expected {len(expected)} axes, {expected}")
    channels = ("channel", "filter") if geometry.transposed else ("filter", "channel")
    names = {"weight": (*channels, *geometry.axis_names[2:]), "bias": ("filter",)}
    axes = names.get(name.removeprefix("grad_"), geometry.axis_names)
    for axis, (got, want) in enumerate(zip(shape, expected, strict=True)):
        if got != want:
            why = f" with {_told(geometry)}" if name.endswith("output") and axis > 1 else ""
            which = f"axis {axis} ({axes[axis]}) is {got}, expected {want} in {expected}{why}"
            raise FastcheckError(f"{name} has shape {shape}{note}: {which}")


def _told(geometry: ConvGeometry) -> str:
    """Return what an output's size comes from: "stride 2, padding 1", "transposed, stride 2, padding 1"."""
    sides = [low if low == high else (low, high) for low, high in geometry.padding]
    values: dict[str, Any] = {"stride": geometry.stride, "padding": sides, "dilation": geometry.dilation}
    if geometry.transposed:
        values["output_padding"] = geometry.output_padding
    words = {name: each[0] if len(set(each)) == 1 else tuple(each) for name, each in values.items()}
    numbers = (f"{name} {value}" for name, value in words.items() if name != "dilation" or value != 1)
    return ", ".join((*("transposed",) * geometry.transposed, *numbers))


def _fit(shapes: Shapes, arguments: Mapping[str, Any]) -> bool:
    try:
        _fitted(shapes, arguments)
    except FastcheckError:
        return False
    return True
