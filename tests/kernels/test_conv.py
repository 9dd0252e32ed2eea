"""The kernels against plain loops, PyTorch and SciPy."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import naive
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_examples import layer, layers, operands, torch_gradients
from searches import examples

from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck_kernels import conv


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def geometry_of(a_layer):
    return ConvGeometry.of(a_layer.input_shape, a_layer.weight_shape, **a_layer.arguments)


def close(got, expected):
    # A few roundings of the largest entry: any wrong tap or border is off by the size of a whole term.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * max(1.0, np.abs(expected).max()))


@given(a_layer=layers())
def test_against_pytorch(a_layer, pool):
    x, w, b = operands(a_layer)
    out, v, grads = torch_gradients(a_layer, x, w, b)
    geometry = geometry_of(a_layer)
    assert geometry.output_shape == out.shape
    close(passes.convolve(geometry, x, w, b, pool), out)
    ours = passes.backward(geometry, x, w, v, pool)
    for name, expected in grads.items():
        close(ours[name], expected)


@settings(max_examples=examples(60))
@given(a_layer=layers(most=2))
def test_against_plain_loops(a_layer, pool):
    x, w, b = operands(a_layer)
    geometry = geometry_of(a_layer)
    expected = naive.forward(x, w, b, **a_layer.arguments)
    close(passes.convolve(geometry, x, w, b, pool), expected)
    v = np.random.default_rng(1).standard_normal(expected.shape)
    ours = passes.backward(geometry, x, w, v, pool)
    for name, gradient in naive.backward(x, w, v, **a_layer.arguments).items():
        close(ours[name], gradient)


@pytest.mark.parametrize("spatial", [(40,), (9, 33), (5, 6, 7)])
def test_against_scipy(spatial, pool):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 3, *spatial)), rng.standard_normal((2, 3, *(3,) * len(spatial)))
    geometry = ConvGeometry.of(x.shape, w.shape)
    expected = [scipy.signal.correlate(x[0], kernel, mode="valid", method="direct")[0] for kernel in w]
    close(passes.convolve(geometry, x, w, np.zeros(2), pool)[0], np.array(expected))


@pytest.mark.parametrize(
    "a_layer",
    [
        layer((1, 40, 20, 21), (9, 40, 3, 3), padding=1),  # several panels of pixels and of taps
        layer((2, 80, 5, 5), (70, 80, 1, 1)),  # more filters than a panel has lines
        layer((1, 6, 40, 40), (6, 1, 7, 7), padding=3, groups=6),  # depthwise
        layer((1, 2, 2000), (3, 2, 80), stride=4, padding=38),
        layer((1, 2, 600), (2, 2, 2), dilation=256),
        layer((1, 3, 9, 12, 12), (5, 3, 3, 3, 3), stride=2, padding=1),
    ],
)
def test_layers_larger_than_a_panel(a_layer, pool):
    x, w, b = operands(a_layer)
    out, v, grads = torch_gradients(a_layer, x, w, b)
    geometry = geometry_of(a_layer)
    close(passes.convolve(geometry, x, w, b, pool), out)
    ours = passes.backward(geometry, x, w, v, pool)
    for name, expected in grads.items():
        close(ours[name], expected)


@settings(max_examples=examples(100))
@given(a_layer=layers(), data=st.data())
def test_a_region_is_that_part_of_the_whole_to_the_last_bit(a_layer, data, pool):
    x, w, b = operands(a_layer)
    geometry = geometry_of(a_layer)
    whole = geometry.lift(passes.convolve(geometry, x, w, b, pool))
    region = np.ones((5, 3), dtype=np.int64)
    for axis, size in enumerate(whole.shape):
        low = data.draw(st.integers(0, size - 1))
        step = 1 if axis < 2 else data.draw(st.integers(1, 3))
        region[axis] = low, data.draw(st.integers(1, (size - 1 - low) // step + 1)), step
    counts = region[:, conv.COUNT]
    out = np.empty((counts[0], counts[1], counts[2:].prod()))
    conv.forward(geometry.lift(x), geometry.lift(w), b, geometry.vector(), region, out)
    part = whole[tuple(slice(low, low + count * step, step) for low, count, step in region)]
    assert np.array_equal(out.reshape(counts), part)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_is_pytorchs():
    x, w, b = operands(layer((1, 2, 9, 10), (3, 2, 4, 3)))
    geometry = ConvGeometry.of(x.shape, w.shape, padding="same", dilation=(1, 2))
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w, b)), padding="same", dilation=(1, 2))
    with ThreadPoolExecutor(1) as pool:
        close(passes.convolve(geometry, x, w, b, pool), expected.numpy())


def test_a_mistake_shared_by_forward_and_backward_is_caught_by_the_oracle(pool):
    """Padding off by one in both keeps them consistent, so that only an outside oracle can tell."""
    a_layer = layer((1, 2, 6, 6), (3, 2, 3, 3), padding=1)
    x, w, b = operands(a_layer)
    out, v, grads = torch_gradients(a_layer, x, w, b)
    right = geometry_of(a_layer)
    wrong = replace(right, padding=((2, 0), (2, 0)))
    z, ours = passes.convolve(wrong, x, w, b, pool), passes.backward(wrong, x, w, v, pool)
    assert np.vdot(ours["weight"], w) == pytest.approx(np.vdot(v, z - b.reshape(1, -1, 1, 1)), rel=1e-12)
    with pytest.raises(AssertionError):
        close(z, out)
    with pytest.raises(AssertionError):
        close(ours["weight"], grads["weight"])
