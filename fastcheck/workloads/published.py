"""The conv layers of published networks, with their published names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry


@dataclass(frozen=True)
class ConvLayer:
    """A convolution layer of a network.

    Attributes
    ----------
    name : str
        The published name.
    input_shape : tuple of int
        (C_in, spatial...), without the batch.
    weight_shape : tuple of int
        (C_out, C_in / groups, taps...).
    stride, dilation, groups : int
    padding : int, or pairs (low, high) for each spatial axis
    bias : bool
        Whether the layer has a bias.
    """

    name: str
    input_shape: Shape
    weight_shape: Shape
    stride: int
    padding: int | tuple[tuple[int, int], ...]
    dilation: int
    groups: int
    bias: bool

    def geometry(self, batch: int = 1) -> ConvGeometry:
        """Return the layer's geometry for a batch of samples."""
        return ConvGeometry.of(
            (batch, *self.input_shape),
            self.weight_shape,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    @property
    def output_shape(self) -> Shape:
        """Shape (C_out, spatial...), without the batch."""
        return self.geometry().output_shape[1:]


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network: its source, and its conv layers in the order of the forward pass."""

    source: str
    layers: tuple[ConvLayer, ...]


def _conv(
    name: str,
    shape: Shape,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], ...] = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> ConvLayer:
    """Return a layer for an activation of this shape, with a kernel of equal length along every axis."""
    weight_shape = (filters, shape[0] // groups, *(kernel,) * (len(shape) - 1))
    return ConvLayer(name, shape, weight_shape, stride, padding, dilation, groups, bias)


_unbiased = partial(_conv, bias=False)


def _pooled(shape: Shape, window: Sequence[int], stride: Sequence[int] | None = None, padding: int = 0) -> Shape:
    """Return the shape of an activation after pooling; without a stride, windows lie side by side."""
    sizes = zip(shape[1:], window, stride or window, strict=True)
    return (shape[0], *((size + 2 * padding - taps) // step + 1 for size, taps, step in sizes))


def _alexnet() -> tuple[ConvLayer, ...]:
    conv1 = _conv("conv1", (3, 227, 227), 96, 11, stride=4)
    conv2 = _conv("conv2", _pooled(conv1.output_shape, (3, 3), (2, 2)), 256, 5, padding=2, groups=2)
    conv3 = _conv("conv3", _pooled(conv2.output_shape, (3, 3), (2, 2)), 384, 3, padding=1)
    conv4 = _conv("conv4", conv3.output_shape, 384, 3, padding=1, groups=2)
    conv5 = _conv("conv5", conv4.output_shape, 256, 3, padding=1, groups=2)
    return conv1, conv2, conv3, conv4, conv5


def _blocks(shape: Shape, widths: Sequence[Sequence[int]], name: Callable[[int, int], str]) -> tuple[ConvLayer, ...]:
    """Return blocks of layers with kernels three wide, pooled in between; time is pooled from the second block on."""
    layers = []
    for block, filters in enumerate(widths, 1):
        for number, count in enumerate(filters, 1):
            layers.append(_conv(name(block, number), shape, count, 3, padding=1))
            shape = layers[-1].output_shape
        window = (2,) * (len(shape) - 1)
        shape = _pooled(shape, (1, 2, 2) if block == 1 and len(window) == 3 else window)
    return tuple(layers)


def _vgg16() -> tuple[ConvLayer, ...]:
    widths = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    return _blocks((3, 224, 224), widths, lambda block, number: f"conv{block}_{number}")


def _c3d() -> tuple[ConvLayer, ...]:
    widths = ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)
    return _blocks((3, 16, 112, 112), widths, lambda block, number: f"conv{block}{'ab'[number - 1]}")


def _resnet50() -> tuple[ConvLayer, ...]:
    layers = [_unbiased("conv1", (3, 224, 224), 64, 7, stride=2, padding=3)]
    shape = _pooled(layers[0].output_shape, (3, 3), (2, 2), padding=1)
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            reduce = _unbiased(f"{name}.conv1", shape, width, 1)
            spatial = _unbiased(f"{name}.conv2", reduce.output_shape, width, 3, stride=stride, padding=1)
            expand = _unbiased(f"{name}.conv3", spatial.output_shape, 4 * width, 1)
            layers += [reduce, spatial, expand]
            if block == 0:
                layers.append(_unbiased(f"{name}.downsample.0", shape, 4 * width, 1, stride=stride))
            shape = expand.output_shape
    return tuple(layers)


def _mobilenet_v2() -> tuple[ConvLayer, ...]:
    layers = [_unbiased("features.0.0", (3, 224, 224), 32, 3, stride=2, padding=1)]
    # Expansion t, filters c, number n and stride s of inverted residual blocks, from Table 2 of the paper.
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    blocks = [(t, filters, s if block == 0 else 1) for t, filters, n, s in stages for block in range(n)]
    for number, (expansion, filters, stride) in enumerate(blocks, 1):
        name, depthwise = f"features.{number}.conv", int(expansion > 1)
        hidden = expansion * layers[-1].weight_shape[0]
        if expansion > 1:
            layers.append(_unbiased(f"{name}.0.0", layers[-1].output_shape, hidden, 1))
        shape = layers[-1].output_shape
        layers.append(_unbiased(f"{name}.{depthwise}.0", shape, hidden, 3, stride=stride, padding=1, groups=hidden))
        layers.append(_unbiased(f"{name}.{depthwise + 1}", layers[-1].output_shape, filters, 1))
    layers.append(_unbiased(f"features.{len(blocks) + 1}.0", layers[-1].output_shape, 1280, 1))
    return tuple(layers)


def _convnext_t() -> tuple[ConvLayer, ...]:
    layers = [_conv("downsample_layers.0.0", (3, 224, 224), 96, 4, stride=4)]
    for stage, (blocks, width) in enumerate(((3, 96), (3, 192), (9, 384), (3, 768))):
        if stage:
            layers.append(_conv(f"downsample_layers.{stage}.1", layers[-1].output_shape, width, 2, stride=2))
        shape = layers[-1].output_shape
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            layers.append(_conv(f"{name}.dwconv", shape, width, 7, padding=3, groups=width))
            # The reference code writes these two 1x1 convolutions as linear layers over the channels.
            layers.append(_conv(f"{name}.pwconv1", shape, 4 * width, 1))
            layers.append(_conv(f"{name}.pwconv2", layers[-1].output_shape, width, 1))
    return tuple(layers)


def _audio() -> tuple[ConvLayer, ...]:
    classes, residual, skip, samples = 256, 32, 512, 16_000
    layers = [_conv("causal_layer", (classes, samples), residual, 2, padding=((1, 0),))]
    for number in range(10):
        name, dilation = f"dilated_stack.layer{number}", 2**number
        for gate in ("filter", "gate"):
            layers.append(
                _conv(f"{name}.{gate}", (residual, samples), residual, 2, padding=((dilation, 0),), dilation=dilation)
            )
        layers.append(_conv(f"{name}.dense", (residual, samples), residual, 1))
        layers.append(_conv(f"{name}.skip", (residual, samples), skip, 1))
    layers.append(_conv("postprocessing.postprocess1", (skip, samples), skip, 1))
    layers.append(_conv("postprocessing.postprocess2", (skip, samples), classes, 1))
    return tuple(layers)


NETWORKS = {
    "alexnet": PublishedNetwork(
        "Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012: "
        "both groups, one view of 227x227 pixels (the paper's 224x224 do not give its 55x55 maps)",
        _alexnet(),
    ),
    "vgg16": PublishedNetwork(
        "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015 "
        "(arXiv:1409.1556), configuration D",
        _vgg16(),
    ),
    "resnet50": PublishedNetwork(
        "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385), as arranged "
        "by torchvision (v1.5: the stride is in the 3x3 layer)",
        _resnet50(),
    ),
    "mobilenet_v2": PublishedNetwork(
        "Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018 "
        "(arXiv:1801.04381), named as in torchvision",
        _mobilenet_v2(),
    ),
    "convnext_t": PublishedNetwork(
        "Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, A ConvNet for the 2020s, 2022 (arXiv:2201.03545), named as in "
        "its reference code",
        _convnext_t(),
    ),
    "audio": PublishedNetwork(
        "van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016 (arXiv:1609.03499): one block of ten "
        "dilations, widths and names as in github.com/ibab/tensorflow-wavenet, one second at 16 kHz",
        _audio(),
    ),
    "c3d": PublishedNetwork(
        "Tran, Bourdev, Fergus, Torresani and Paluri, Learning Spatiotemporal Features with 3D Convolutional "
        "Networks, 2015 (arXiv:1412.0767)",
        _c3d(),
    ),
}
"""Published networks by name."""
