"""The geometry of a convolution: the meaning of its arguments, and the shapes that they allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape, flag, integer, per_axis, scalar, sequence
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import quoted, refuse_unknown

_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
"""What an input is padded with, as PyTorch names it."""

Sides = tuple[tuple[int, int], ...]
"""Numbers of entries before and after each spatial axis."""


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution's shapes, and its parameters with one entry for each spatial axis.

    Build it with `ConvGeometry.of`, which checks them.

    Attributes
    ----------
    input_shape, weight_shape, output_shape : tuple of int
        (N, C_in, spatial...), (C_out, C_in / groups, taps...) and (N, C_out, spatial...). The weight of a transposed
        convolution is (C_in, C_out / groups, taps...).
    stride, dilation : tuple of int
    padding : tuple of (int, int)
        Numbers of entries before and after the input; of outputs that a transposed convolution leaves out.
    groups : int
    transposed : bool
    output_padding : tuple of int
        Numbers of outputs that a transposed convolution has more, at the end of each axis.
    padding_mode : str
        One of `PADDING_MODES`.
    spacing : tuple of int
        Distances between entries of the input that are not inserted zeros: all one, but for `plain`.
    """

    input_shape: Shape
    weight_shape: Shape
    output_shape: Shape
    stride: Shape
    padding: Sides
    dilation: Shape
    groups: int
    transposed: bool = False
    output_padding: Shape = ()
    padding_mode: str = "zeros"
    spacing: Shape = ()

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
        transposed: Any = False,
        output_padding: Any = 0,
        padding_mode: Any = "zeros",
    ) -> ConvGeometry:
        """Check the arguments of a convolution and work out its output shape.

        Parameters
        ----------
        input_shape, weight_shape : tuple of int
        stride, dilation : int or sequence of int
        padding : int, sequence of int, sequence of (low, high), "same" or "valid"
        groups : int
        transposed : bool
        output_padding : int or sequence of int
        padding_mode : str

        Raises
        ------
        FastcheckError
            If an argument has the wrong form, or the shapes do not fit together.
        """
        rank = _rank(input_shape, weight_shape)
        strides = per_axis("stride", stride, rank, least=1)
        dilations = per_axis("dilation", dilation, rank, least=1)
        groups = integer("groups", groups, least=1)
        transposed = flag("transposed", transposed)
        extents = tuple(d * (k - 1) + 1 for d, k in zip(dilations, weight_shape[2:], strict=True))
        sides = paddings(padding, strides, extents, transposed)
        more = _output_paddings(output_padding, strides, dilations, transposed)
        _check_channels(input_shape, weight_shape, groups, transposed)
        mode = _padding_mode(padding_mode, input_shape, sides, transposed)
        if transposed:
            space = _transposed_sizes(input_shape, extents, strides, sides, more)
        else:
            space = _sizes(input_shape, extents, strides, sides)
        output_shape = (input_shape[0], weight_shape[1] * groups if transposed else weight_shape[0], *space)
        parameters = strides, sides, dilations, groups, transposed, more, mode
        return cls(input_shape, weight_shape, output_shape, *parameters, spacing=(1,) * rank)

    @cached_property
    def plain(self) -> ConvGeometry:
        """The convolution that pads with zeros, is not transposed and has the same outputs, of rearranged operands.

        Under another padding mode it is one without padding, over a padded input. A transposed convolution is one with
        a stride of one, over an input with zeros inserted between its entries, with a flipped kernel. Its padding is
        negative where outputs at the border see no input's first or last tap.
        """
        if self.transposed:
            return self._of_transposed
        if self.padding_mode == "zeros" or not any(map(any, self.padding)):
            return self
        sizes = (size + low + high for size, (low, high) in zip(self.input_shape[2:], self.padding, strict=True))
        still = ((0, 0),) * self.rank
        return replace(self, input_shape=(*self.input_shape[:2], *sizes), padding=still, padding_mode="zeros")

    @property
    def _of_transposed(self) -> ConvGeometry:
        per_group, groups = self.input_shape[1] // self.groups, self.groups
        axes = zip(self.input_shape[2:], self.weight_shape[2:], self.stride, self.dilation, strict=True)
        every = [((size - 1) * s + 1, d * (k - 1)) for size, k, s, d in axes]
        sides = zip(every, self.padding, self.output_padding, strict=True)
        return ConvGeometry(
            input_shape=(*self.input_shape[:2], *(size for size, _ in every)),
            weight_shape=(self.weight_shape[1] * groups, per_group, *self.weight_shape[2:]),
            output_shape=self.output_shape,
            stride=(1,) * self.rank,
            padding=tuple((reach - low, reach - high + more) for (_, reach), (low, high), more in sides),
            dilation=self.dilation,
            groups=groups,
            output_padding=(0,) * self.rank,
            spacing=self.stride,
        )

    @property
    def rank(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.stride)

    @property
    def taps(self) -> int:
        """Number of taps of a kernel."""
        return math.prod(self.weight_shape[2:])

    @property
    def filters(self) -> int:
        """Number of output channels."""
        return self.output_shape[1]

    @property
    def terms(self) -> int:
        """Number of products in one output, those with inserted zeros included."""
        return self.input_shape[1] // self.groups * self.taps

    @property
    def met(self) -> int:
        """Number of products in one output, at most, that are not with inserted zeros."""
        axes = zip(self.weight_shape[2:], self.plain.spacing, self.dilation, strict=True)
        return self.input_shape[1] // self.groups * math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in axes)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes of an activation."""
        return ("sample", "channel", *_AXES[self.rank])

    def shape_of(self, name: str) -> Shape:
        """Return the shape of ``"input"``, ``"weight"`` or ``"bias"``."""
        return {"input": self.input_shape, "weight": self.weight_shape, "bias": (self.filters,)}[name]

    def described(self) -> dict[str, Any]:
        """Return shapes and parameters by name, as reports show them."""
        described = {
            "input": self.input_shape,
            "weight": self.weight_shape,
            "output": self.output_shape,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        more: dict[str, Any] = {"padding_mode": self.padding_mode} if self.padding_mode != "zeros" else {}
        more |= {"transposed": True, "output_padding": self.output_padding} if self.transposed else {}
        return described | more

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
            plain = self.plain
            reach = math.prod(
                min(o, math.ceil(k / s))
                for o, k, s in zip(plain.output_shape[2:], plain.weight_shape[2:], plain.stride, strict=True)
            )
            return self.filters // self.groups * reach * self.terms
        return outputs // self.filters * self.terms

    def most_terms(self, name: str) -> int:
        """Return the most terms of a dimension's derivative that are not those of inserted zeros."""
        if name == "weight" and self.plain.spacing != (1,) * self.rank:
            axes = zip(self.plain.input_shape[2:], self.plain.spacing, self.output_shape[2:], strict=True)
            return self.input_shape[0] * math.prod(min(out, -(-size // s)) for size, s, out in axes)
        return max(1, self.products_per_dimension(name) // self.terms)


def _rank(input_shape: Shape, weight_shape: Shape) -> int:
    """Return the number of spatial axes."""
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
    return rank


def _check_channels(input_shape: Shape, weight_shape: Shape, groups: int, transposed: bool) -> None:
    channels = input_shape[1]
    counts = {"input channels (input axis 1)": channels}
    if not transposed:
        counts["filters (weight axis 0)"] = weight_shape[0]
    for name, count in counts.items():
        if count % groups:
            raise FastcheckError(f"groups is {groups}: it must divide the {count} {name}")
    axis, expected, of = (0, channels, "") if transposed else (1, channels // groups, f" in {groups} group")
    if weight_shape[axis] != expected:
        raise FastcheckError(
            f"weight has shape {weight_shape}: axis {axis} is {weight_shape[axis]}, expected {expected} "
            f"({channels} input channels{of}{'s' * (groups > 1 and not transposed)})"
        )


def _sizes(input_shape: Shape, extents: Shape, strides: Shape, sides: Sides) -> Shape:
    """Return the spatial sizes of the outputs of a convolution that is not transposed."""
    sizes = []
    for axis, name in enumerate(_AXES[len(strides)]):
        room = input_shape[2 + axis] + sum(sides[axis]) - extents[axis]
        if room < 0:
            raise FastcheckError(
                f"weight is larger than the padded input along {name} (axis {2 + axis}): "
                f"the dilated kernel spans {extents[axis]}, the padded input {room + extents[axis]}"
            )
        sizes.append(room // strides[axis] + 1)
    return tuple(sizes)


def _transposed_sizes(input_shape: Shape, extents: Shape, strides: Shape, sides: Sides, more: Shape) -> Shape:
    """Return the spatial sizes of the outputs of a transposed convolution."""
    sizes = []
    for axis, name in enumerate(_AXES[len(strides)]):
        full = (input_shape[2 + axis] - 1) * strides[axis] + extents[axis]
        size = full - sum(sides[axis]) + more[axis]
        if size < 1:
            raise FastcheckError(
                f"padding leaves no output along {name} (axis {2 + axis}): a transposed convolution of this input has "
                f"{full} without padding, and padding takes {sum(sides[axis])}"
            )
        sizes.append(size)
    return tuple(sizes)


def _padding_mode(value: Any, input_shape: Shape, sides: Sides, transposed: bool) -> str:
    """Return what the input is padded with, after checking that the input has enough entries for it."""
    mode = scalar(value)
    refuse_unknown("padding_mode", mode, PADDING_MODES)
    if transposed and mode != "zeros":
        raise FastcheckError(
            f"padding_mode is {mode!r}: expected 'zeros', as a transposed convolution pads with nothing"
        )
    for axis, (size, both) in enumerate(zip(input_shape[2:], sides, strict=True), 2):
        most = {"reflect": size - 1, "circular": size}.get(mode, max(both))
        if max(both) > most:
            raise FastcheckError(
                f"padding is {both} along axis {axis}, whose size is {size}: padding_mode {mode!r} has at most {most}"
            )
    return str(mode)


def _output_paddings(value: Any, strides: Shape, dilations: Shape, transposed: bool) -> Shape:
    """Return the outputs that a transposed convolution has more, along each axis."""
    more = per_axis("output_padding", value, len(strides), least=0)
    if any(more) and not transposed:
        raise FastcheckError(
            f"output_padding is {quoted(value)}: only a transposed convolution has one; expected transposed=True too"
        )
    for one, s, d in zip(more, strides, dilations, strict=True):
        if one >= max(s, d) and one:
            raise FastcheckError(
                f"output_padding is {quoted(value)}: expected less than the stride {s} or the dilation {d}"
            )
    return more


def paddings(value: Any, strides: Shape, extents: Shape, transposed: bool = False) -> Sides:
    """Return the padding before and after each axis.

    Parameters
    ----------
    value : int, sequence of int, sequence of (low, high), "same" or "valid"
        The words in either case, as TensorFlow has them.
    strides, extents : tuple of int
        Strides, and the sizes of the dilated kernel.
    transposed : bool

    Raises
    ------
    FastcheckError
        If the value is none of these, or is "same" with a stride or for a transposed convolution.
    """
    value, rank = scalar(value), len(strides)
    if isinstance(value, str):
        if value.lower() == "valid":
            return ((0, 0),) * rank
        if value.lower() != "same":
            raise FastcheckError(f"padding is {quoted(str(value))}: expected integers, 'same' or 'valid'")
        if transposed:
            raise FastcheckError(
                f"padding is {str(value)!r}, which frameworks read in their own ways for a transposed convolution: "
                "expected integers, the outputs that each side leaves out"
            )
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
