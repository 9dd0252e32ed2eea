"""Descriptions of the layers of a `fastcheck.Network`. They hold only numbers and names, and compile nothing.

Shapes here are those of one data point: (channels, spatial axes...), or (features,) without spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fastcheck.common import arguments
from fastcheck.common.arguments import Shape, integer
from fastcheck.common.errors import FastcheckError
from fastcheck.convolutions.geometry import ConvGeometry, paddings

Extent = int | tuple[int, ...]
"""An integer, or one for each spatial axis."""

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
"""Values of ``padding_mode``, as in PyTorch."""

PADDING_MODES: tuple[str, ...] = get_args(PaddingMode)

Sides = tuple[tuple[int, int], ...]
"""Padding before and after each spatial axis."""


LARGEST = 1e300
"""Upper bound on every number of a layer."""


@dataclass(frozen=True)
class Layer:
    """The base of all layers.

    Attributes
    ----------
    name : str, optional
        By default the kind and a number: "conv1".
    input : str, optional
        Name of the layer whose output this one takes; by default the layer before it. ``"x"`` is the network's input.
    shares : str, optional
        Name of an earlier layer of the same kind whose parameters this one uses; it has none of its own.
    """

    kind: ClassVar[str]
    name: str | None = field(default=None, kw_only=True)
    input: str | None = field(default=None, kw_only=True)
    shares: str | None = field(default=None, kw_only=True)

    def named(self, name: str) -> Layer:
        """Return the layer with a name."""
        return replace(self, name=name)

    @property
    def owner(self) -> str:
        """Name of the layer that its parameters belong to."""
        return str(self.shares or self.name)

    def others(self) -> tuple[str, ...]:
        """Return the names of the layers that it takes besides its input."""
        return ()

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the output.

        Raises
        ------
        FastcheckError
            If the layer cannot take these inputs.
        """
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the parameters, for an input of some shape."""
        return {}

    def buffers(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the other arrays that the layer needs, which have no gradient."""
        return {}

    def order(self, tensor: str, shape: Shape) -> np.ndarray | None:
        """Return where kernels, which go filter by filter, have a parameter's entries; None for their own order."""
        return None


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution (cross-correlation) of one to three spatial axes; arguments as in `fastcheck.ConvCase`.

    ``padding_mode`` says what is in the padding: zeros, the map reflected at its edges, its last pixels repeated, or
    the map's other end.

    Parameters ``weight`` of shape (out_channels, in_channels / groups, taps...) and, unless ``bias=False``, ``bias``.
    """

    kind: ClassVar[str] = "conv"
    out_channels: int
    kernel_size: Extent
    stride: Extent = 1
    padding: Any = 0
    dilation: Extent = 1
    groups: int = 1
    bias: bool = True
    in_channels: int | None = None
    padding_mode: PaddingMode = "zeros"

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the convolution's geometry for one data point."""
        _spatial(shape)
        filters = integer("out_channels", self.out_channels, least=1)
        kernel = _extents("kernel_size", self.kernel_size, len(shape) - 1)
        groups = integer("groups", self.groups, least=1)
        _expected("in_channels", self.in_channels, shape[0], "channels")
        if shape[0] % groups:
            raise FastcheckError(f"groups is {groups}: it must divide the {shape[0]} input channels")
        geometry = ConvGeometry.of(
            (1, *shape),
            (filters, shape[0] // groups, *kernel),
            stride=_plain(self.stride),
            padding=_plain(self.padding),
            dilation=_plain(self.dilation),
            groups=groups,
        )
        self._refuse_padding(geometry)
        return geometry

    def _refuse_padding(self, geometry: ConvGeometry) -> None:
        """Refuse more padding than a map has pixels to fill it with."""
        if self.padding_mode not in PADDING_MODES:
            raise FastcheckError(f"padding_mode is {self.padding_mode!r}: expected {', '.join(PADDING_MODES)}")
        beyond = {"reflect": 1, "circular": 0}.get(self.padding_mode)
        for size, sides in zip(geometry.input_shape[2:], geometry.padding, strict=True):
            if beyond is not None and max(sides) > size - beyond:
                raise FastcheckError(
                    f"padding is {self.padding!r}: padding_mode {self.padding_mode!r} takes at most {size - beyond} "
                    f"from an axis of {size}"
                )

    def shape(self, *inputs: Shape) -> Shape:
        _flag("bias", self.bias)
        return self.geometry(inputs[0]).output_shape[1:]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        weight = self.geometry(shape).weight_shape
        return {"weight": weight} | ({"bias": weight[:1]} if self.bias else {})


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """A transposed convolution of one to three spatial axes: the adjoint of a convolution with these arguments.

    Parameters ``weight`` of shape (in_channels, out_channels / groups, taps...) and, unless ``bias=False``, ``bias``.
    An axis of n pixels becomes one of (n - 1) * stride + dilation * (kernel_size - 1) + 1 + output_padding, less the
    padding of both sides.
    """

    kind: ClassVar[str] = "conv_transpose"
    out_channels: int
    kernel_size: Extent
    stride: Extent = 1
    padding: Any = 0
    output_padding: Extent = 0
    dilation: Extent = 1
    groups: int = 1
    bias: bool = True
    in_channels: int | None = None

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the geometry of the convolution whose adjoint it is, which takes its output for one data point."""
        _spatial(shape)
        channels, groups = integer("out_channels", self.out_channels, least=1), integer("groups", self.groups, least=1)
        _expected("in_channels", self.in_channels, shape[0], "channels")
        for count, what in ((shape[0], "input channels"), (channels, "out_channels")):
            if count % groups:
                raise FastcheckError(f"groups is {groups}: it must divide the {count} {what}")
        rank = len(shape) - 1
        kernel, stride = _extents("kernel_size", self.kernel_size, rank), _extents("stride", self.stride, rank)
        dilation = _extents("dilation", self.dilation, rank)
        sides, more = self._sides(stride, _spans(kernel, dilation)), self._output_padding(stride, dilation)
        axes = zip(shape[1:], stride, _spans(kernel, dilation), more, sides, strict=True)
        sizes = [(size - 1) * s + span + extra - low - high for size, s, span, extra, (low, high) in axes]
        if min(sizes) < 1:
            raise FastcheckError(f"padding is {self.padding!r}: it leaves nothing of the output, of shape {(*sizes,)}")
        return ConvGeometry(
            (1, channels, *sizes),
            (shape[0], channels // groups, *kernel),
            (1, *shape),
            stride,
            sides,
            dilation,
            groups,
        )

    def _sides(self, stride: Shape, spans: Shape) -> Sides:
        if isinstance(self.padding, str):
            raise FastcheckError(f"padding is {self.padding!r}: expected integers, for a transposed convolution")
        return paddings(_plain(self.padding), stride, spans)

    def _output_padding(self, stride: Shape, dilation: Shape) -> Shape:
        more = arguments.per_axis("output_padding", _plain(self.output_padding), len(stride), least=0)
        if any(extra >= max(s, d) for extra, s, d in zip(more, stride, dilation, strict=True)):
            raise FastcheckError(f"output_padding is {self.output_padding!r}: expected less than stride or dilation")
        return more

    def shape(self, *inputs: Shape) -> Shape:
        _flag("bias", self.bias)
        return self.geometry(inputs[0]).input_shape[1:]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        geometry = self.geometry(shape)
        return {"weight": geometry.weight_shape} | ({"bias": geometry.input_shape[1:2]} if self.bias else {})

    def order(self, tensor: str, shape: Shape) -> np.ndarray | None:
        if tensor == "bias":
            return None
        inputs, outputs, *taps = self.geometry(shape).weight_shape
        groups, per_group = self.groups, inputs // self.groups
        filters = np.arange(inputs * outputs * math.prod(taps)).reshape(groups, outputs, per_group, -1)
        return filters.swapaxes(1, 2).reshape(-1)


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of which each integer of the network's input names a row.

    The output has the entries of a row as its channels, and the axes of a data point as its spatial axes: PyTorch's,
    with the last axis moved before those of the data point. Parameter ``weight`` of shape (num_embeddings,
    embedding_dim).
    """

    kind: ClassVar[str] = "embedding"
    num_embeddings: int
    embedding_dim: int

    def shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) > 3:
            raise FastcheckError(f"it got {inputs[0]}: expected one to three axes of integers")
        return (integer("embedding_dim", self.embedding_dim, least=1), *inputs[0])

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": (integer("num_embeddings", self.num_embeddings, least=1), self.shape(shape)[0])}

    def order(self, tensor: str, shape: Shape) -> np.ndarray | None:
        rows, channels = self.parameters(shape)["weight"]
        return np.arange(rows * channels).reshape(channels, rows).T.reshape(-1)


@dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer: weight (out_features, in_features) and, unless ``bias=False``, bias."""

    kind: ClassVar[str] = "dense"
    out_features: int
    bias: bool = True
    in_features: int | None = None

    def shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) != 1:
            raise FastcheckError(f"it got {inputs[0]}: expected features without spatial axes (a Flatten before it)")
        _flag("bias", self.bias)
        _expected("in_features", self.in_features, inputs[0][0], "features")
        return (integer("out_features", self.out_features, least=1),)

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        features = self.shape(shape)
        return {"weight": (*features, *shape)} | ({"bias": features} if self.bias else {})


@dataclass(frozen=True)
class _Pool(Layer):
    kernel_size: Extent
    stride: Extent | None = None
    padding: Any = 0
    dilation: ClassVar[Extent] = 1
    ceil_mode: ClassVar[bool] = False

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the geometry of the windows on one channel; the stride is the kernel's size by default.

        With ``ceil_mode``, its padding is as wide as the last windows are beyond the map.
        """
        windows = self._windows(shape, self._rounded(shape))
        if not all(_all_see(windows, axis) for axis in range(windows.rank)):
            raise FastcheckError(f"a window sees nothing but padding of the {shape[1:]} map: expected less dilation")
        return windows

    def shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][0], *self.geometry(inputs[0]).output_shape[2:])

    def _windows(self, shape: Shape, padding: Any) -> ConvGeometry:
        kernel, stride, dilation = self._steps(shape)
        return ConvGeometry.of((1, 1, *shape[1:]), (1, 1, *kernel), stride=stride, padding=padding, dilation=dilation)

    def _steps(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Return the kernel's size, the stride and the dilation, with one entry for each axis."""
        _spatial(shape)
        rank = len(shape) - 1
        kernel = _extents("kernel_size", self.kernel_size, rank)
        stride = kernel if self.stride is None else _extents("stride", self.stride, rank)
        return kernel, stride, _extents("dilation", self.dilation, rank)

    def _declared(self, shape: Shape) -> Sides:
        """Return the padding of every axis as it was given."""
        kernel, stride, dilation = self._steps(shape)
        sides = paddings(_plain(self.padding), stride, _spans(kernel, dilation))
        if any(2 * max(pair) > taps for pair, taps in zip(sides, kernel, strict=True)):
            raise FastcheckError(f"padding is {self.padding!r}: expected at most half of kernel_size {kernel}")
        return sides

    def _rounded(self, shape: Shape) -> Sides:
        """Return the padding of every axis that makes the last windows whole."""
        _flag("ceil_mode", self.ceil_mode)
        kernel, stride, dilation = self._steps(shape)
        axes = zip(shape[1:], self._declared(shape), stride, _spans(kernel, dilation), strict=True)
        return tuple((pair[0], _up(size, pair, s, span) if self.ceil_mode else pair[1]) for size, pair, s, span in axes)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest entry of every window; of several equal ones, the first gets the gradient.

    With ``ceil_mode``, the last window may reach beyond the padding, unless it begins there.
    """

    kind: ClassVar[str] = "max_pool"
    dilation: Extent = 1  # type: ignore[misc]
    ceil_mode: bool = False  # type: ignore[misc]


@dataclass(frozen=True)
class AvgPool(_Pool):
    """The average of every window, padding included unless ``count_include_pad=False``.

    With ``ceil_mode``, the last window may reach beyond the padding, unless it begins there; what lies beyond is never
    counted.
    """

    kind: ClassVar[str] = "avg_pool"
    count_include_pad: bool = True
    ceil_mode: bool = False  # type: ignore[misc]

    def counted(self, shape: Shape) -> ConvGeometry:
        """Return the geometry of the windows on what an average counts: the map, with or without its padding."""
        _flag("count_include_pad", self.count_include_pad)
        if not self.count_include_pad:
            return self.geometry(shape)
        declared = self._declared(shape)
        padded = (1, *(size + low + high for size, (low, high) in zip(shape[1:], declared, strict=True)))
        beyond = [(0, whole - high) for (_, whole), (_, high) in zip(self._rounded(shape), declared, strict=True)]
        return self._windows(padded, beyond)

    def shape(self, *inputs: Shape) -> Shape:
        self.counted(inputs[0])
        return super().shape(*inputs)


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The average of every channel, of shape (channels,)."""

    kind: ClassVar[str] = "global_avg_pool"

    def shape(self, *inputs: Shape) -> Shape:
        _spatial(inputs[0])
        return inputs[0][:1]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation with a weight and a bias for each channel (Ioffe and Szegedy 2015).

    The statistics are the batch's (with the variance divided by the number of entries). If ``frozen``, they are
    ``running_mean`` and ``running_var``, given along with the parameters and without a gradient.
    """

    kind: ClassVar[str] = "batch_norm"
    eps: float = 1e-5
    frozen: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        _positive("eps", self.eps)
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape[:1], "bias": shape[:1]}

    def buffers(self, shape: Shape) -> dict[str, Shape]:
        return {"running_mean": shape[:1], "running_var": shape[:1]} if self.frozen else {}


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalisation of each data point over all its axes, with a weight and a bias for each entry."""

    kind: ClassVar[str] = "layer_norm"
    eps: float = 1e-5

    def shape(self, *inputs: Shape) -> Shape:
        _positive("eps", self.eps)
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape, "bias": shape}


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalisation of each data point by groups of channels, with a weight and a bias for each channel if ``affine``.

    A group's statistics are those of all its channels and pixels (Wu and He 2018).
    """

    kind: ClassVar[str] = "group_norm"
    num_groups: int
    eps: float = 1e-5
    affine: bool = True

    def group_count(self, shape: Shape) -> int:
        """Return the number of groups."""
        groups = integer("num_groups", self.num_groups, least=1)
        if shape[0] % groups:
            raise FastcheckError(f"num_groups is {groups}: it must divide the {shape[0]} channels")
        return groups

    def shape(self, *inputs: Shape) -> Shape:
        _positive("eps", self.eps)
        _flag("affine", self.affine)
        self.group_count(inputs[0])
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape[:1], "bias": shape[:1]} if self.affine else {}


@dataclass(frozen=True)
class InstanceNorm(Layer):
    """Normalisation of each channel of each data point, with a weight and a bias for each channel if ``affine``."""

    kind: ClassVar[str] = "instance_norm"
    eps: float = 1e-5
    affine: bool = False

    def group_count(self, shape: Shape) -> int:
        """Return the number of channels: each is a group by itself."""
        return shape[0]

    def shape(self, *inputs: Shape) -> Shape:
        _positive("eps", self.eps)
        _flag("affine", self.affine)
        _spatial(inputs[0])
        if math.prod(inputs[0][1:]) == 1:
            raise FastcheckError(f"it got {inputs[0]}: expected more than one pixel, of which a variance can be taken")
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape[:1], "bias": shape[:1]} if self.affine else {}


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(z) / sum(exp(z)) over features, or over the channels of each pixel."""

    kind: ClassVar[str] = "softmax"


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout. It is off unless the check is given the analytic pass's mask; then it multiplies by mask / (1 - p)."""

    kind: ClassVar[str] = "dropout"
    p: float = 0.5

    def shape(self, *inputs: Shape) -> Shape:
        if not _is_finite(self.p) or not 0 <= self.p < 1:
            raise FastcheckError(f"p is {self.p!r}: expected a number of at least 0 and below 1")
        return inputs[0]


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries of a data point along one axis, channel by channel."""

    kind: ClassVar[str] = "flatten"

    def shape(self, *inputs: Shape) -> Shape:
        return (math.prod(inputs[0]),)


@dataclass(frozen=True)
class ReLU(Layer):
    """max(z, 0)."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """z where z is positive, else negative_slope * z."""

    kind: ClassVar[str] = "leaky_relu"
    negative_slope: float = 0.01

    def shape(self, *inputs: Shape) -> Shape:
        _finite("negative_slope", self.negative_slope)
        return inputs[0]


@dataclass(frozen=True)
class PReLU(Layer):
    """z where z is positive, else weight * z: one learned slope, or one for each channel (He et al. 2015)."""

    kind: ClassVar[str] = "prelu"
    num_parameters: int = 1

    def shape(self, *inputs: Shape) -> Shape:
        slopes, channels = integer("num_parameters", self.num_parameters, least=1), inputs[0][0]
        if slopes not in (1, channels):
            raise FastcheckError(f"num_parameters is {slopes}: expected 1, or {channels}, one for each channel")
        return inputs[0]

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": (integer("num_parameters", self.num_parameters, least=1),)}


@dataclass(frozen=True)
class ELU(Layer):
    """z where z is positive, else alpha * (exp(z) - 1)."""

    kind: ClassVar[str] = "elu"
    alpha: float = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        _finite("alpha", self.alpha)
        return inputs[0]


@dataclass(frozen=True)
class GELU(Layer):
    """z * Phi(z), Phi the normal distribution function, or its approximation by tanh (Hendrycks and Gimpel 2016)."""

    kind: ClassVar[str] = "gelu"
    approximate: Literal["none", "tanh"] = "none"

    def shape(self, *inputs: Shape) -> Shape:
        if self.approximate not in ("none", "tanh"):
            raise FastcheckError(f"approximate is {self.approximate!r}: expected 'none' or 'tanh'")
        return inputs[0]


@dataclass(frozen=True)
class SiLU(Layer):
    """z / (1 + exp(-z))."""

    kind: ClassVar[str] = "silu"


@dataclass(frozen=True)
class Tanh(Layer):
    """tanh(z)."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Sigmoid(Layer):
    """1 / (1 + exp(-z))."""

    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Softplus(Layer):
    """log(1 + exp(beta * z)) / beta."""

    kind: ClassVar[str] = "softplus"
    beta: float = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        _positive("beta", self.beta)
        return inputs[0]


@dataclass(frozen=True)
class Add(Layer):
    """A residual connection: its input plus the outputs of other layers, given by name."""

    kind: ClassVar[str] = "add"
    other: str | tuple[str, ...] = ()

    def others(self) -> tuple[str, ...]:
        return _names(self.other)

    def shape(self, *inputs: Shape) -> Shape:
        for name, shape in zip(self.others(), inputs[1:], strict=True):
            if shape != inputs[0]:
                raise FastcheckError(f"it got {shape} from {name!r}: expected {inputs[0]}, the shape of its input")
        return inputs[0]


@dataclass(frozen=True)
class Concat(Layer):
    """The channels of its input, followed by those of other layers, given by name."""

    kind: ClassVar[str] = "concat"
    other: str | tuple[str, ...] = ()

    def others(self) -> tuple[str, ...]:
        return _names(self.other)

    def shape(self, *inputs: Shape) -> Shape:
        for name, shape in zip(self.others(), inputs[1:], strict=True):
            if shape[1:] != inputs[0][1:]:
                expected = ", ".join(["any", *map(str, inputs[0][1:])])
                raise FastcheckError(f"it got {shape} from {name!r}: expected ({expected}), beside {inputs[0]}")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])


KINDS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        *(Conv, ConvTranspose, Dense, Embedding, MaxPool, AvgPool, GlobalAvgPool),
        *(BatchNorm, LayerNorm, GroupNorm, InstanceNorm, Dropout, Flatten),
        *(ReLU, LeakyReLU, PReLU, ELU, GELU, SiLU, Tanh, Sigmoid, Softplus, Softmax, Add, Concat),
    )
}
"""Every kind of layer, by its name in files."""


def _names(other: Any) -> tuple[str, ...]:
    names = (other,) if isinstance(other, str) else other
    if not isinstance(names, (tuple, list)) or not names or not all(isinstance(name, str) for name in names):
        raise FastcheckError(f"other is {other!r}: expected the name of another layer, or several")
    return tuple(names)


def _spatial(shape: Shape) -> None:
    if not 2 <= len(shape) <= 4:
        raise FastcheckError(f"it got {shape}: expected channels and one to three spatial axes")


def _expected(name: str, declared: int | None, got: int, what: str) -> None:
    if declared is not None and integer(name, declared, least=1) != got:
        raise FastcheckError(f"it got {got} {what}: expected {declared}, its {name}")


def _spans(kernel: Shape, dilation: Shape) -> Shape:
    """Return the extents of a dilated kernel."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def _up(size: int, sides: tuple[int, int], stride: int, span: int) -> int:
    """Return the padding after an axis with which the last window is whole, as PyTorch rounds up.

    A window counts if it reaches beyond the padding by less than a stride, and begins in the map or before it.
    """
    low, high = sides
    count = 1 - (span - size - low - high) // stride
    if (count - 1) * stride >= size + low:
        count -= 1
    return max(high, (count - 1) * stride + span - size - low)


def _all_see(windows: ConvGeometry, axis: int) -> bool:
    """Return whether every window covers an entry of the map along an axis."""
    size, (low, _) = windows.input_shape[2 + axis], windows.padding[axis]
    first = windows.stride[axis] * np.arange(windows.output_shape[2 + axis])[:, None] - low
    seen = first + windows.dilation[axis] * np.arange(windows.weight_shape[2 + axis])
    return bool(((seen >= 0) & (seen < size)).any(axis=1).all())


def _positive(name: str, value: Any) -> None:
    if not _is_finite(value) or value <= 0:
        raise FastcheckError(f"{name} is {value!r}: expected a positive finite number")


def _finite(name: str, value: Any) -> None:
    if not _is_finite(value):
        raise FastcheckError(f"{name} is {value!r}: expected a finite number")


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and abs(value) < LARGEST


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise FastcheckError(f"{name} is {value!r}: expected True or False")


def _extents(name: str, value: Any, rank: int) -> Shape:
    return arguments.per_axis(name, _plain(value), rank, least=1)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
