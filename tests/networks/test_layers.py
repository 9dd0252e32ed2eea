"""Geometries of a network's layers: shapes, values and gradients of any that PyTorch takes are PyTorch's."""

import network_examples
import numpy as np
import pytest
import torch
import torch_network
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

import fastcheck
from fastcheck import FastcheckError
from fastcheck.networks.case import Point
from fastcheck.networks.layers import (
    PADDING_MODES,
    AvgPool,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GroupNorm,
    InstanceNorm,
    MaxPool,
    PReLU,
)
from fastcheck.networks.network import Network
from fastcheck.networks.passes import Passes, lanes

pytestmark = pytest.mark.jit


@st.composite
def pools(draw):
    """Pools of one to three axes with everything that they take, and the map that they pool."""
    rank = draw(st.integers(1, 3))
    kernel, stride, padding, sizes = [], [], [], []
    for _ in range(rank):
        k = draw(st.integers(1, 4))
        kernel.append(k)
        stride.append(draw(st.integers(1, 5)))
        padding.append(draw(st.integers(0, k // 2)))
        sizes.append(draw(st.integers(1, 7)))
    ceil_mode = draw(st.booleans())
    if draw(st.booleans()):
        dilation = tuple(draw(st.integers(1, 3)) for _ in range(rank))
        return MaxPool(tuple(kernel), tuple(stride), tuple(padding), dilation, ceil_mode), (2, *sizes)
    return AvgPool(tuple(kernel), tuple(stride), tuple(padding), draw(st.booleans()), ceil_mode), (2, *sizes)


@settings(max_examples=examples(200), deadline=None)
@given(pools())
def test_any_pool_is_pytorchs(pool):
    layer, shape = pool
    x = torch.tensor(np.random.default_rng(0).standard_normal((2, *shape)))
    try:
        wanted = torch_network.LAYERS[layer.kind](layer, [x], {}, None)
    except RuntimeError as error:  # no window is left; but averages in three axes leave padding out of account
        if "smaller than kernel size" not in str(error):
            with pytest.raises(FastcheckError):
                layer.shape(shape)
        return
    if torch.isinf(wanted).any():  # the maximum of nothing
        with pytest.raises(FastcheckError, match="nothing but padding"):
            layer.shape(shape)
        return
    _assert_pytorchs(layer, x.numpy())


def _assert_pytorchs(layer, x):
    """Compare a layer's results, their gradient with respect to its input, and those of its parameters."""
    network, rng = Network([layer, Flatten(), Dense(1)], "squared_error", reduction="sum"), np.random.default_rng(1)
    params, y = network_examples.parameters(network, x.shape[1:], rng), rng.standard_normal((len(x), 1))
    passes = Passes(Point.of(network, params, x, y))
    gradient = passes.named(passes.gradient())
    tensors = {name: torch.tensor(params[name], requires_grad=True) for name in gradient}
    given_x = torch.tensor(x, requires_grad=True)
    output = torch_network.activations(network, params | tensors, given_x)[1]
    value = torch_network.objective(network, params | tensors, given_x, y)
    wanted = torch.autograd.grad(value, [given_x, *tensors.values()])
    (chunk,) = passes.chunks
    np.testing.assert_allclose(passes.row(chunk, -2), output.detach().numpy(), rtol=1e-12, atol=1e-13)
    found = [lanes(passes, chunk, chunk.cotangents, 0).transpose(2, 0, 1), *gradient.values()]
    for one, right in zip(found, wanted, strict=True):
        right = right.numpy()
        np.testing.assert_allclose(one.reshape(right.shape), right, rtol=1e-11, atol=1e-12 * np.abs(right).max())


@st.composite
def convolutions(draw):
    """Convolutions with any padding mode, and transposed ones with output padding; and the map that they take."""
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 9 if rank < 3 else 2))
    axes = [
        {
            "kernel_size": draw(st.integers(1, 3)),
            "stride": draw(st.integers(1, 3)),
            "dilation": draw(st.integers(1, 3)),
            "padding": (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
            "output_padding": draw(st.integers(0, 2)),
            "size": draw(st.integers(1, 5)),
        }
        for _ in range(rank)
    ]
    geometry = {name: tuple(axis[name] for axis in axes) for name in axes[0]}
    shape, more = (channels, *geometry.pop("size")), geometry.pop("output_padding")
    options = {"groups": groups, "bias": draw(st.booleans()), **geometry}
    if draw(st.booleans()):
        return ConvTranspose(filters, output_padding=more, **options), shape
    return Conv(filters, padding_mode=draw(st.sampled_from(PADDING_MODES)), **options), shape


@settings(max_examples=examples(300), deadline=None)
@given(convolutions())
def test_any_convolution_is_pytorchs(convolution):
    layer, shape = convolution
    x = torch.tensor(np.random.default_rng(0).standard_normal((2, *shape)))
    weight = (shape[0], layer.out_channels // layer.groups) if layer.kind == "conv_transpose" else None
    weight = weight or (layer.out_channels, shape[0] // layer.groups)
    tensors = {"weight": torch.ones(*weight, *layer.kernel_size, dtype=x.dtype)}
    try:
        wanted = torch_network.LAYERS[layer.kind](layer, [x], tensors, None)
    except RuntimeError:  # nothing is left, or padding asks for more than there is
        wanted = x[:0]
    if not wanted.numel():
        with pytest.raises(FastcheckError):
            layer.shape(shape)
        return
    assert layer.shape(shape) == tuple(wanted.shape[1:])
    _assert_pytorchs(layer, x.numpy())


REFUSALS = {
    "an unknown padding mode": (
        Conv(2, 3, padding_mode="mirror"),
        r"padding_mode is 'mirror': expected zeros, reflect, replicate, circular",
    ),
    "more than can be reflected": (
        Conv(2, 3, padding=4, padding_mode="reflect"),
        r"padding is 4: padding_mode 'reflect' takes at most 3 from an axis of 4",
    ),
    "more than goes around": (
        Conv(2, 3, padding=((0, 5), (1, 1)), padding_mode="circular"),
        r"padding_mode 'circular' takes at most 4 from an axis of 4",
    ),
    "padding of a transposed convolution in a word": (
        ConvTranspose(2, 3, padding="same"),
        r"padding is 'same': expected integers, for a transposed convolution",
    ),
    "output padding of a whole stride": (
        ConvTranspose(2, 3, stride=2, output_padding=2),
        r"output_padding is 2: expected less than stride or dilation",
    ),
    "padding of all the output": (
        ConvTranspose(2, 3, padding=3),
        r"padding is 3: it leaves nothing of the output, of shape \(0, 0\)",
    ),
    "groups of other channels": (ConvTranspose(3, 3, groups=2), r"groups is 2: it must divide the 3 out_channels"),
    "other channels than declared": (ConvTranspose(2, 3, in_channels=3), r"it got 4 channels: expected 3"),
    "slopes of other channels": (PReLU(3), r"num_parameters is 3: expected 1, or 4, one for each channel"),
    "groups that do not divide": (GroupNorm(3), r"num_groups is 3: it must divide the 4 channels"),
    "a flag that is none": (GroupNorm(2, affine="no"), r"affine is 'no': expected True or False"),
}


@pytest.mark.parametrize(("layer", "told"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_layer_cannot_take_is_refused(layer, told):
    with pytest.raises(FastcheckError, match=told):
        Network([layer]).shapes((4, 4, 4))


def test_instances_of_one_pixel_are_refused():
    with pytest.raises(FastcheckError, match=r"it got \(4, 1\): expected more than one pixel"):
        Network([InstanceNorm()]).shapes((4, 1))


NEW = [name for name in network_examples.CASES if name.startswith(("conv_transpose", "conv_padding", "embedding"))]


@pytest.mark.parametrize("name", NEW)
def test_float32_through_transposed_and_padded_convolutions_is_right(name):
    for seed in range(3):
        network, params, x, y, _ = network_examples.CASES[name](seed)
        params, x = ({key: _single(array) for key, array in params.items()}, _single(x))
        grads = torch_network.gradients(network, params, x, y, dtype=torch.float32)[1]
        report = fastcheck.check_network(network, params, grads, x, y, dims="all", threads=1)
        assert report.passed, report.summary()
        kernel = next(key for key, array in grads.items() if not key.startswith("conv1"))
        wrong = {**grads, kernel: np.float32(1.01) * grads[kernel]}
        assert fastcheck.check_network(network, params, wrong, x, y, dims="all", threads=1).verdict == "fail"


def _single(array):
    return array.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", NEW)
def test_full_and_network_find_the_same(name):
    network, params, x, y, masks = network_examples.CASES[name](2)
    grads = torch_network.gradients(network, params, x, y, masks)[1]
    fast, full = (
        fastcheck.check_network(network, params, grads, x, y, dims="all", evaluator=way, keep=True, threads=1)
        for way in ("network", "full")
    )
    for tensor, there in full.tensors.items():
        here = fast.tensors[tensor]
        assert (np.abs(here.numeric - there.numeric) <= here.error_bar + there.error_bar).all()


def test_one_wrong_weight_of_a_transposed_convolution_is_named():
    """Where kernels have the entries in another order than the tensor."""
    network, params, x, y, _ = network_examples.CASES["conv_transpose_wide"](0)
    grads = torch_network.gradients(network, params, x, y)[1]
    index = (2, 7, 1, 0)
    grads["conv_transpose1.weight"][index] *= 1 + 1e-6
    for evaluator in ("network", "full"):
        report = fastcheck.check_network(network, params, grads, x, y, dims="all", evaluator=evaluator)
        tensor = report.tensors["conv_transpose1.weight"]
        assert (tensor.beyond_error_bar, tensor.worst[0].index) == (1, index)
    few = dict.fromkeys(grads, 1)
    grads["conv_transpose1.weight"][index] *= 2
    found = fastcheck.check_network(network, params, grads, x, y, dims=few)
    assert found.verdict == "fail"
    assert str(list(index)) in str(found)
