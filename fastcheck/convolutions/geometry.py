"""The geometry of a convolution: the meaning of its arguments, and the shapes that they allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape, integer, per_axis, scalar, sequence
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import quoted

_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution's shapes, and its parameters with one entry for each spatial axis.

    Build it with `ConvGeometry.of`, which checks them.

    Attributes
    ----------
    input_shape, weight_shape, output_shape : tuple of int
        (N, C_in, spatial...), (C_out, C_in / groups, taps...) and (N, C_out, spatial...).
    stride, dilation : tuple of int
    padding : tuple of (int, int)
        Numbers of zeros before and after the input.
    groups : int
    """

    input_shape: Shape
    weight_shape: Shape
    output_shape: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    groups: int

    @classmethod
    def of(
        cls,
        input_shape: Shape,
        weight_shape: Shape,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
    ) -> ConvGeometry:
        """Check the arguments of a convolution and work out its output shape.

        Parameters
        ----------
        input_shape, weight_shape : tuple of int
        stride, dilation : int or sequence of int
        padding : int, sequence of int, sequence of (low, high), "same" or "valid"
        groups : int

        Raises
        ------
        FastcheckError
            If an argument has the wrong form, or the shapes do not fit together.
        """
        rank = len(input_shape) - 2
        if rank not in _AXES:
            raise FastcheckError(
                f"input has shape {input_shape}: expected 3, 4 or 5 axes (N, C, and one to three spatial axes)"
            )
        if len(weight_shape) != rank + 2:
            raise FastcheckError(
                f"weight has shape {weight_shape}: expected {rank + 2} axes, as many as input {input_shape}"
            )
        for name, shape in (("input", input_shape), ("weight", weight_shape)):
            if 0 in shape:
                raise FastcheckError(f"{name} is empty: it has shape {shape}")
        strides = per_axis("stride", stride, rank, least=1)
        dilations = per_axis("dilation", dilation, rank, least=1)
        groups = integer("groups", groups, least=1)
        extents = tuple(d * (k - 1) + 1 for d, k in zip(dilations, weight_shape[2:], strict=True))
        sides = paddings(padding, strides, extents)
        _check_channels(input_shape, weight_shape, groups)
        output = []
        for axis, name in enumerate(_AXES[rank]):
            room = input_shape[2 + axis] + sum(sides[axis]) - extents[axis]
            if room < 0:
                raise FastcheckError(
                    f"weight is larger than the padded input along {name} (axis {2 + axis}): "
                    f"the dilated kernel spans {extents[axis]}, the padded input {room + extents[axis]}"
                )
            output.append(room // strides[axis] + 1)
        output_shape = (input_shape[0], weight_shape[0], *output)
        return cls(input_shape, weight_shape, output_shape, strides, sides, dilations, groups)

    @property
    def rank(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.stride)

    @property
    def terms(self) -> int:
        """Number of products in one output."""
        return math.prod(self.weight_shape[1:])

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes of an activation."""
        return ("sample", "channel", *_AXES[self.rank])

    def shape_of(self, name: str) -> Shape:
        """Return the shape of ``"input"``, ``"weight"`` or ``"bias"``."""
        return {"input": self.input_shape, "weight": self.weight_shape, "bias": self.weight_shape[:1]}[name]

    def described(self) -> dict[str, Any]:
        """Return shapes and parameters by name, as reports show them."""
        return {
            "input": self.input_shape,
            "weight": self.weight_shape,
            "output": self.output_shape,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def vector(self) -> np.ndarray:
        """Return the geometry in the form that `fastcheck_kernels.conv` takes: int64 of shape (11,)."""
        missing = 3 - self.rank
        low = tuple(lo for lo, _ in self.padding)
        return np.array(
            [*(1,) * missing, *self.stride, *(0,) * missing, *low, *(1,) * missing, *self.dilation, self.groups, 0],
            dtype=np.int64,
        )

    def lift(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an activation or a weight with three spatial axes, the missing ones of size one in front."""
        return array.reshape(*array.shape[:2], *(1,) * (3 - self.rank), *array.shape[2:])

    def products_per_dimension(self, name: str) -> int:
        """Return the most multiply-adds of one forward pass over the outputs that a dimension can affect."""
        outputs = math.prod(self.output_shape)
        if name == "input":
            reach = math.prod(
                min(o, math.ceil(k / s))
                for o, k, s in zip(self.output_shape[2:], self.weight_shape[2:], self.stride, strict=True)
            )
            return self.weight_shape[0] // self.groups * reach * self.terms
        return outputs // self.weight_shape[0] * self.terms


def _check_channels(input_shape: Shape, weight_shape: Shape, groups: int) -> None:
    for name, count in (
        ("input channels (input axis 1)", input_shape[1]),
        ("filters (weight axis 0)", weight_shape[0]),
    ):
        if count % groups:
            raise FastcheckError(f"groups is {groups}: it must divide the {count} {name}")
    if weight_shape[1] * groups != input_shape[1]:
        raise FastcheckError(
            f"weight has shape {weight_shape}: axis 1 is {weight_shape[1]}, expected {input_shape[1] // groups} "
            f"({input_shape[1]} input channels in {groups} group{'s' * (groups > 1)})"
        )


def paddings(value: Any, strides: Shape, extents: Shape) -> tuple[tuple[int, int], ...]:
    """Return the zeros before and after each axis.

    Parameters
    ----------
    value : int, sequence of int, sequence of (low, high), "same" or "valid"
        The words in either case, as TensorFlow has them.
    strides, extents : tuple of int
        Strides, and the sizes of the dilated kernel.

    Raises
    ------
    FastcheckError
        If the value is none of these, or is "same" with a stride.
    """
    value, rank = scalar(value), len(strides)
    if isinstance(value, str):
        if value.lower() == "valid":
            return ((0, 0),) * rank
        if value.lower() != "same":
            raise FastcheckError(f"padding is {quoted(str(value))}: expected integers, 'same' or 'valid'")
        if any(s != 1 for s in strides):
            raise FastcheckError(
                f"padding is {str(value)!r} with stride {strides}: 'same' needs a stride of 1; expected the zeros of "
                "each side, such as ((0, 1), (0, 1))"
            )
        return tuple(((e - 1) // 2, e - 1 - (e - 1) // 2) for e in extents)
    entries = sequence(value)
    if entries is None:
        entries = [value] * rank
    if len(entries) != rank:
        raise FastcheckError(
            f"padding is {quoted(value)}: expected one integer, {rank} integers or {rank} pairs (low, high), "
            "one for each spatial axis"
        )
    return tuple(_side_pair(entry) for entry in entries)


def _side_pair(entry: Any) -> tuple[int, int]:
    sides = sequence(entry)
    if sides is None:
        both = integer("padding", scalar(entry), least=0)
        return both, both
    if len(sides) != 2:
        raise FastcheckError(f"padding has the entry {quoted(entry)}: expected an integer or a pair (low, high)")
    return integer("padding", sides[0], least=0), integer("padding", sides[1], least=0)
