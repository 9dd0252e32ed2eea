"""Geometries of a network's layers: shapes, values and gradients of any that PyTorch takes are PyTorch's."""

import network_examples
import numpy as np
import pytest
import torch
import torch_network
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

from fastcheck import FastcheckError
from fastcheck.networks.case import Point
from fastcheck.networks.layers import AvgPool, Dense, Flatten, MaxPool
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
