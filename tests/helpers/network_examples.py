"""Small networks for tests, each about one layer, loss or option, with parameters away from their initialisation.

Before the layer that a case is about stands another one with parameters, so that its input's gradient counts as well.
"""

import math

import numpy as np

from fastcheck.networks.layers import (
    ELU,
    GELU,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastcheck.networks.network import Network


def parameters(network, input_shape, rng):
    """Return random parameters and running statistics."""
    found = {}
    for name, shape in network.parameter_shapes(input_shape).items():
        if name.endswith(".bias"):
            found[name] = 0.5 * rng.standard_normal(shape)
        elif name.removesuffix(".weight") in _of(network, "prelu"):
            found[name] = rng.uniform(-0.5, 0.5, shape)
        elif name.removesuffix(".weight") in _of(network, "batch_norm", "layer_norm", "group_norm", "instance_norm"):
            found[name] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        else:
            found[name] = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    for name, shape in network.buffer_shapes(input_shape).items():
        found[name] = rng.uniform(0.5, 2, shape) if name.endswith("var") else 0.5 * rng.standard_normal(shape)
    return found


def targets(network, output_shape, points, rng):
    """Return targets that suit the loss."""
    if network.loss in ("softmax_cross_entropy", "multiclass_hinge"):
        return rng.integers(0, math.prod(output_shape), points)
    if network.loss == "logistic":
        hard, soft = rng.integers(0, 2, (points, *output_shape)), rng.random((points, *output_shape))
        return np.where(rng.random(soft.shape) < 0.5, soft, hard)
    return rng.standard_normal((points, *output_shape))


def masks_of(network, input_shape, points, rng):
    """Return a mask for every dropout."""
    shapes = zip(network.layers, network.shapes(input_shape), strict=True)
    return {
        layer.name: (rng.random((points, *shape)) >= layer.p).astype(np.float64)
        for layer, shape in shapes
        if layer.kind == "dropout"
    }


def _of(network, *kinds):
    return [layer.name for layer in network.layers if layer.kind in kinds]


def _case(layers, shape=(2, 5, 5), points=3, masked=True, **options):
    def make(seed):
        network = Network(layers, **options)
        rng = np.random.default_rng(seed)
        params = parameters(network, shape, rng)
        y = targets(network, network.shapes(shape)[-1], points, rng)
        masks = masks_of(network, shape, points, rng) if masked else {}
        return network, params, rng.standard_normal((points, *shape)), y, masks

    return make


def _maps(*layers, shape=(2, 5, 5), points=3, **options):
    """Layers on maps, after a convolution and before a dense layer."""
    return _case([Conv(2, 2), *layers, Flatten(), Dense(3)], shape, points, **options)


def _features(*layers, points=4, **options):
    """Layers on features, between dense ones."""
    return _case([Dense(4), *layers, Dense(3)], (5,), points, **options)


def _ends(loss, classes=3, points=4, **options):
    """A loss after two dense layers."""
    return _case([Dense(4), Tanh(), Dense(classes)], (5,), points, loss=loss, **options)


_CONV = {
    "conv_1d": _maps(Conv(3, 3), shape=(2, 7)),
    "conv_2d": _maps(Conv(3, (3, 2))),
    "conv_3d": _maps(Conv(2, 2), shape=(2, 3, 4, 3), points=2),
    "conv_stride": _maps(Conv(3, 2, stride=(2, 1), padding=1)),
    "conv_dilation": _maps(Conv(3, 2, dilation=(2, 3))),
    "conv_groups": _case([Conv(4, 2), Conv(6, 2, groups=2), Flatten(), Dense(3)], (2, 4, 4)),
    "conv_depthwise": _case([Conv(3, 2), Conv(6, 2, groups=3), Flatten(), Dense(3)], (2, 4, 4)),
    "conv_padding_per_side": _maps(Conv(2, 3, padding=((0, 2), (1, 0)), stride=2)),
    "conv_padding_same": _maps(Conv(2, (3, 2), padding="same", dilation=(1, 3)), shape=(2, 4, 4), points=2),
    "conv_padding_valid": _maps(Conv(2, 3, padding="valid"), points=5),
    "conv_no_bias": _maps(Conv(3, 2, bias=False, stride=2)),
    "conv_everything": _maps(Conv(4, (3, 2), stride=2, padding=((1, 2), (0, 1)), dilation=(1, 2), groups=2)),
}

_TRANSPOSED = {
    "conv_transpose_1d": _maps(ConvTranspose(3, 3, stride=2, padding=1, output_padding=1), shape=(2, 5)),
    "conv_transpose_2d": _maps(ConvTranspose(3, (3, 2), stride=(2, 1), padding=(1, 0)), shape=(2, 4, 4), points=2),
    "conv_transpose_3d": _maps(ConvTranspose(2, 2, stride=(1, 2, 1)), shape=(2, 3, 3, 3), points=2),
    "conv_transpose_groups": _case(
        [Conv(4, 2), ConvTranspose(6, 2, stride=3, groups=2, bias=False), Tanh(), Flatten(), Dense(3)], (2, 3, 3), 2
    ),
    "conv_transpose_depthwise": _case(
        [Conv(3, 2), ConvTranspose(3, 3, padding=1, groups=3), Flatten(), Dense(3)], (2, 4, 4), 2
    ),
    "conv_transpose_wide": _case([Conv(3, 1), ConvTranspose(10, 2), Tanh(), Flatten(), Dense(3)], (2, 3, 3), 2),
    "conv_transpose_dilation": _maps(
        ConvTranspose(2, 2, stride=2, dilation=(3, 1), output_padding=(2, 1), padding=((1, 0), (0, 1))),
        shape=(2, 4, 3),
        points=2,
    ),
    "conv_transpose_shared": _maps(
        ConvTranspose(2, 3, padding=1, name="up"), Tanh(), ConvTranspose(2, 3, stride=2, shares="up"), points=2
    ),
}

_PADDED = {
    "conv_padding_reflect": _maps(Conv(3, 3, padding=(2, 1), padding_mode="reflect"), shape=(2, 5, 4)),
    "conv_padding_replicate": _maps(Conv(3, 3, stride=2, padding=3, padding_mode="replicate"), shape=(2, 4, 4)),
    "conv_padding_circular": _maps(Conv(2, 2, padding=((2, 1),), dilation=2, padding_mode="circular"), shape=(2, 5)),
    "conv_padding_circular_3d": _maps(
        Conv(2, 2, padding="same", padding_mode="circular"), shape=(2, 3, 3, 3), points=2
    ),
    "conv_padding_reflect_depthwise": _maps(Conv(4, 3, padding=1, groups=2, padding_mode="reflect"), shape=(2, 6)),
    "conv_padding_shared": _maps(
        Conv(2, 3, padding=1, name="f"), Tanh(), Conv(2, 3, padding=1, padding_mode="reflect", shares="f"), points=2
    ),
}


def _words(layers, rows, shape=(5,), points=3, **options):
    """Layers on integers, of which several are the same."""
    make = _case(layers, shape, points, **options)

    def drawn(seed):
        network, params, x, y, masks = make(seed)
        x = np.random.default_rng([seed, rows]).integers(0, rows, x.shape).astype(np.float64)
        x[..., 1] = x[..., 0]
        return network, params, x, y, masks

    return drawn


_WORDS = {
    "embedding": _words([Embedding(6, 3), Tanh(), Flatten(), Dense(3)], 5),
    "embedding_conv": _words([Embedding(7, 4), Conv(3, 2), ReLU(), GlobalAvgPool(), Dense(3)], 7, points=4),
    "embedding_maps": _words([Embedding(4, 2), Conv(2, 2), Tanh(), Flatten(), Dense(3)], 4, (3, 4)),
    "embedding_shared": _words(
        [
            Embedding(5, 3, name="e"),
            Tanh(name="one"),
            Embedding(5, 3, input="x", shares="e"),
            Add("one"),
            Conv(2, 2),
            Flatten(),
            Dense(3),
        ],
        5,
    ),
}

_POOLS = {
    "max_pool": _maps(MaxPool(2)),
    "max_pool_overlapping": _maps(MaxPool(3, stride=1), shape=(2, 6, 5), points=2),
    "max_pool_padded": _maps(MaxPool((3, 2), stride=2, padding=1)),
    "max_pool_dilated": _maps(MaxPool(2, stride=1, dilation=2)),
    "max_pool_1d": _maps(MaxPool(3, stride=2, padding=1), shape=(2, 8)),
    "max_pool_3d": _maps(MaxPool(2, stride=1), shape=(2, 4, 3, 4), points=2),
    "max_pool_ceil": _maps(MaxPool((3, 2), stride=2, padding=(1, 0), ceil_mode=True), shape=(2, 5, 6)),
    "max_pool_ceil_per_side": _maps(MaxPool(3, stride=2, padding=((0, 1),), dilation=2, ceil_mode=True), shape=(2, 9)),
    "avg_pool": _maps(AvgPool(2, stride=1)),
    "avg_pool_padded": _maps(AvgPool(3, stride=2, padding=1)),
    "avg_pool_padding_not_counted": _maps(AvgPool((3, 2), stride=(2, 1), padding=1, count_include_pad=False)),
    "avg_pool_1d": _maps(AvgPool(3, stride=2, padding=1, count_include_pad=False), shape=(2, 8)),
    "avg_pool_ceil": _maps(AvgPool(3, stride=2, padding=1, ceil_mode=True), shape=(2, 5, 7)),
    "avg_pool_ceil_per_side": _maps(AvgPool(4, stride=3, padding=((0, 1), (2, 1)), ceil_mode=True), shape=(2, 7, 9)),
    "avg_pool_ceil_not_counted": _maps(
        AvgPool(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), shape=(2, 5, 7)
    ),
    "avg_pool_3d": _maps(AvgPool((2, 1, 2)), shape=(2, 5, 3, 3), points=2),
    "global_avg_pool": _case([Conv(4, 2), Tanh(), GlobalAvgPool(), Dense(3)], (2, 4, 4)),
    "global_avg_pool_last": _case([Conv(3, 2), GlobalAvgPool()], (2, 4)),
}

_OTHERS = {
    "dense": _case([Dense(4), Dense(4), Dense(3)], (5,)),
    "dense_no_bias": _case([Dense(4, bias=False), Tanh(), Dense(3, bias=False)], (5,)),
    "batch_norm_maps": _maps(BatchNorm(), shape=(2, 4, 4)),
    "batch_norm_features": _features(BatchNorm(eps=0.1), points=5),
    "batch_norm_frozen": _maps(BatchNorm(frozen=True), shape=(2, 4, 4)),
    "batch_norm_frozen_features": _features(BatchNorm(frozen=True)),
    "layer_norm_maps": _maps(LayerNorm(), shape=(2, 4, 4)),
    "layer_norm_features": _features(LayerNorm(eps=0.1)),
    "group_norm_maps": _case([Conv(6, 2), GroupNorm(2), Tanh(), Conv(2, 1), Flatten(), Dense(3)], (2, 4, 4), points=2),
    "group_norm_one": _maps(GroupNorm(1, eps=0.1), shape=(2, 4, 4)),
    "group_norm_features": _features(GroupNorm(2, 0.3), Tanh()),
    "group_norm_plain": _maps(GroupNorm(2, affine=False), Tanh(), shape=(2, 6)),
    "instance_norm": _maps(InstanceNorm(), Tanh(), shape=(2, 4, 4)),
    "instance_norm_affine": _maps(InstanceNorm(1e-3, affine=True), shape=(2, 3, 4, 3)),
    "softmax_features": _features(Softmax()),
    "softmax_maps": _case([Conv(3, 2), Softmax(), Conv(2, 2), Flatten(), Dense(3)], (2, 4, 4), points=2),
    "softmax_last": _case([Dense(4), Tanh(), Dense(3), Softmax()], (5,), loss="squared_error"),
    "dropout_maps": _maps(Dropout(0.4)),
    "dropout_features": _features(Dropout(0.3), points=5),
    "dropout_off": _features(Dropout(0.3), masked=False),
    "flatten": _maps(shape=(2, 4, 3)),
    "flatten_3d": _maps(shape=(2, 3, 4, 3)),
    "add": _maps(Tanh(name="skip"), Conv(2, 3, padding=1), Add("skip"), points=2),
    "add_projection": _case(
        [
            Conv(2, 2),
            Tanh(name="stem"),
            Conv(3, 3, padding=1, stride=2, name="main"),
            Conv(3, 1, stride=2, input="stem", name="projection"),
            Add("main"),
            Flatten(),
            Dense(3),
        ],
    ),
    "add_several": _case([Dense(5, name="a"), Tanh(name="b"), Dense(5), Add(("a", "b", "x")), Dense(3)], (5,)),
    "add_itself": _features(Tanh(name="twice"), Add("twice")),
    "concat": _maps(Tanh(name="skip"), Conv(2, 3, padding=1), Concat("skip"), shape=(2, 4, 4)),
    "concat_several": _case(
        [
            Conv(2, 3, padding=1, name="a"),
            Conv(1, 1, name="b"),
            Conv(3, 1, input="a"),
            Concat(("b", "x", "a")),
            Flatten(),
            Dense(3),
        ],
        (2, 3, 3),
    ),
    "concat_features": _case([Dense(4, name="a"), Tanh(), Concat(("a", "x")), Dense(3)], (5,)),
}

_SHARED = {
    "shared_dense": _features(Tanh(), Dense(4, name="a"), Tanh(), Dense(4, shares="a"), Tanh()),
    "shared_three_times": _case(
        [
            Dense(4, name="f"),
            ReLU(),
            Dense(4, shares="f"),
            ReLU(),
            Dense(4, shares="f"),
            LeakyReLU(0.2),
            Dense(4, bias=False, shares="f"),
            Dense(3),
        ],
        (4,),
        l2=0.1,
    ),
    "shared_conv": _maps(
        Conv(2, 3, padding=1, name="same"), ReLU(), Conv(2, 3, stride=2, shares="same"), shape=(2, 6, 5)
    ),
    "shared_conv_wide": _case(
        [
            Conv(9, 2, name="wide"),
            Tanh(),
            Conv(9, 2, input="x", dilation=(1, 1), shares="wide"),
            Add("tanh1"),
            MaxPool(2),
            Conv(2, 1),
            Flatten(),
            Dense(3),
        ],
        (2, 5, 5),
    ),
    "shared_depthwise": _case(
        [
            *(Conv(2, 1, name="a"), Conv(2, 2, groups=2, padding="same", name="d"), Tanh(), Concat("a", name="four")),
            *(Conv(2, 1, groups=2), Conv(2, 2, groups=2, shares="d"), Flatten(), Dense(3)),
        ],
        (2, 4, 4),
        points=2,
    ),
    "shared_side_by_side": _case(
        [
            *(Dense(4, name="left"), Dense(4, input="x", name="right")),
            *(Dense(5, input="left", name="f"), Tanh(name="a")),
            *(Dense(5, input="right", shares="f"), Tanh(), Add("a"), Dense(3)),
        ],
        (3,),
    ),
    "shared_batch_norm": _features(BatchNorm(name="n"), Tanh(), Dense(4), BatchNorm(shares="n"), Tanh(), points=5),
    "shared_batch_norm_maps": _maps(
        BatchNorm(name="n"), Tanh(), Conv(2, 1, groups=2), BatchNorm(0.3, shares="n"), shape=(2, 4, 4)
    ),
    "shared_batch_norm_frozen": _maps(
        BatchNorm(frozen=True, name="n"), Tanh(), BatchNorm(frozen=True, shares="n"), shape=(2, 4, 4)
    ),
    "shared_group_norm": _case(
        [
            *(Conv(4, 1), GroupNorm(2, 0.3, name="n"), Tanh(), Conv(4, 2), GroupNorm(1, 0.3, shares="n"), Tanh()),
            *(Flatten(), Dense(3)),
        ],
        (2, 3, 3),
    ),
    "shared_instance_norm": _maps(
        InstanceNorm(0.3, affine=True, name="n"), Tanh(), Conv(2, 2), InstanceNorm(0.3, affine=True, shares="n"), Tanh()
    ),
    "shared_prelu": _features(PReLU(name="p"), Dense(4), PReLU(shares="p"), Dense(5), PReLU(shares="p")),
    "shared_prelu_channels": _maps(PReLU(2, name="p"), Conv(2, 2), PReLU(2, shares="p"), Add("conv2")),
    "shared_prelu_side_by_side": _case(
        [
            *(Dense(4, name="left"), PReLU(name="p"), Dense(4, input="x", name="right"), PReLU(shares="p")),
            *(Add("p"), LayerNorm(), Dense(3)),
        ],
        (3,),
    ),
    "shared_layer_norm": _maps(LayerNorm(name="n"), Tanh(), LayerNorm(0.1, shares="n"), shape=(2, 4, 4)),
    "shared_layer_norm_side_by_side": _case(
        [
            *(Dense(4, name="left"), Dense(4, input="x", name="right")),
            *(LayerNorm(input="left", name="n"), LayerNorm(input="right", shares="n"), Add("n"), Tanh(), Dense(3)),
        ],
        (3,),
    ),
}

_ACTIVATIONS = {
    "relu": _features(ReLU()),
    "leaky_relu": _features(LeakyReLU(0.1)),
    "elu": _features(ELU(0.7)),
    "gelu": _features(GELU()),
    "gelu_tanh": _features(GELU("tanh")),
    "silu": _features(SiLU()),
    "tanh": _features(Tanh()),
    "sigmoid": _features(Sigmoid()),
    "softplus": _features(Softplus(2.0)),
    "prelu": _features(PReLU()),
    "prelu_channels": _features(PReLU(4)),
    "prelu_maps": _maps(PReLU(), MaxPool(2), shape=(2, 5, 5)),
    "prelu_maps_channels": _maps(PReLU(2), Conv(2, 2), PReLU(2), shape=(2, 5, 5)),
    "relu_maps": _maps(ReLU(), shape=(2, 4, 4)),
    "gelu_maps": _maps(GELU(), shape=(2, 4, 4)),
}

_LOSSES = {
    "softmax_cross_entropy": _ends("softmax_cross_entropy"),
    "squared_error": _ends("squared_error"),
    "squared_error_maps": _case([Conv(2, 2), Tanh(), Conv(2, 2)], (2, 4, 4), loss="squared_error"),
    "multiclass_hinge": _ends("multiclass_hinge", classes=5, points=5, margin=0.7),
    "logistic": _ends("logistic"),
    "reduction_sum": _ends("softmax_cross_entropy", reduction="sum"),
    "hinge_sum": _ends("multiclass_hinge", reduction="sum"),
    "l2": _ends("softmax_cross_entropy", l2=0.3),
    "l1": _ends("squared_error", l1=0.2, reduction="sum"),
    "l2_l1_groups": _case(
        [Conv(2, 2), BatchNorm(), Flatten(), Dense(3)],
        (2, 3, 3),
        l2={"conv1": 0.3, "dense1.bias": 0.2},
        l1={"dense1": 0.1, "conv1": 0.2, "batch_norm1": 0.3},
    ),
}

_WHOLE = {
    "cnn": _case(
        [
            Conv(3, 3, padding=1),
            ReLU(),
            MaxPool(2),
            Conv(4, 2, padding=1),
            ReLU(),
            MaxPool(2, stride=1),
            Flatten(),
            Dense(5),
            ReLU(),
            Dense(3),
        ],
        (2, 4, 4),
        l2=0.01,
    ),
    "resnet": _case(
        [
            Conv(2, 3, padding=1, bias=False),
            BatchNorm(),
            ReLU(name="stem"),
            Conv(3, 3, stride=2, padding=1, bias=False),
            BatchNorm(),
            ReLU(),
            Conv(3, 3, padding=1, bias=False),
            BatchNorm(name="main"),
            Conv(3, 1, stride=2, bias=False, input="stem"),
            BatchNorm(),
            Add("main"),
            ReLU(),
            GlobalAvgPool(),
            Dense(3),
        ],
        (2, 4, 4),
        points=4,
    ),
}

CASES = {
    **_CONV,
    **_WORDS,
    **_TRANSPOSED,
    **_PADDED,
    **_POOLS,
    **_OTHERS,
    **_SHARED,
    **_ACTIVATIONS,
    **_LOSSES,
    **_WHOLE,
}
"""For every name a function of a seed that returns (network, params, x, y, masks)."""
