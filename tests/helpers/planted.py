"""Wrong gradients that people really write: each takes a layer and its arrays and returns wrong VJPs by name."""

import naive
import numpy as np

backward = naive.backward
"""What every mistake begins with; benchmarks, which need it a million times, put
`layer_examples.torch_backward` here."""


def _backward(layer, x, w, v, **believed):
    geometry = {**layer.arguments, **believed}
    return backward(x, w, v, **geometry)


def nothing(layer, x, w, v):
    """The right gradient."""
    return _backward(layer, x, w, v)


def forgets_the_stride(layer, x, w, v):
    return _backward(layer, x, w, v, stride=(1,) * len(layer.stride))


def forgets_the_dilation(layer, x, w, v):
    return _backward(layer, x, w, v, dilation=(1,) * len(layer.dilation))


def pads_one_too_many(layer, x, w, v):
    return _backward(layer, x, w, v, padding=tuple((low + 1, high) for low, high in layer.padding))


def flips_the_kernel(layer, x, w, v):
    spatial = tuple(range(2, w.ndim))
    right = _backward(layer, x, w, v)
    wrong = _backward(layer, x, np.flip(w, spatial), v)
    return {**right, "input": wrong["input"]}


def flips_the_weight_gradient(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "weight": np.flip(right["weight"], tuple(range(2, w.ndim))).copy()}


def transposes_the_taps(layer, x, w, v):
    right = _backward(layer, x, w, v)
    axes = (0, 1, *reversed(range(2, w.ndim)))
    return {**right, "weight": np.ascontiguousarray(right["weight"].transpose(axes))}


def sums_one_sample_only(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "weight": _backward(layer, x[:1], w, v[:1])["weight"]}


def averages_over_the_batch(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "weight": right["weight"] / len(x), "bias": right["bias"] / len(x)}


def drops_the_last_column(layer, x, w, v):
    cut = v.copy()
    cut[..., -1] = 0
    return {**_backward(layer, x, w, v), "weight": _backward(layer, x, w, cut)["weight"]}


def forgets_the_border_of_the_input(layer, x, w, v):
    right = _backward(layer, x, w, v)
    inner = right["input"].copy()
    inner[..., :2] = 0
    return {**right, "input": inner}


def bias_of_the_wrong_filter(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "bias": np.roll(right["bias"], 1)}


def bias_forgets_one_output(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "bias": right["bias"] - v[(0, slice(None), *(0,) * (v.ndim - 2))]}


def bias_of_one_sample_only(layer, x, w, v):
    return {**_backward(layer, x, w, v), "bias": _backward(layer, x[:1], w, v[:1])["bias"]}


def swaps_two_filters(layer, x, w, v):
    right = _backward(layer, x, w, v)
    weight = right["weight"].copy()
    weight[[0, 1]] = weight[[1, 0]]
    return {**right, "weight": weight}


def counts_twice(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "weight": 2 * right["weight"]}


def has_the_wrong_sign(layer, x, w, v):
    right = _backward(layer, x, w, v)
    return {**right, "input": -right["input"]}


def wrong_sign_of_a_filter(layer, x, w, v):
    right = _backward(layer, x, w, v)
    weight = right["weight"].copy()
    weight[-1] *= -1
    return {**right, "weight": weight}


def flips_one_sign(layer, x, w, v):
    right = _backward(layer, x, w, v)
    weight = right["weight"].copy()
    weight[(1, 0, *(1,) * (w.ndim - 2))] *= -1
    return {**right, "weight": weight}


def is_wrong_in_the_tenth_digit(layer, x, w, v):
    right = _backward(layer, x, w, v)
    weight = right["weight"].copy()
    weight[(1, 0, *(1,) * (w.ndim - 2))] *= 1 + 1e-10
    return {**right, "weight": weight}


def mixes_up_the_groups(layer, x, w, v):
    channels = np.arange(x.shape[1]).reshape(layer.groups, -1)[::-1].ravel()
    right = _backward(layer, x, w, v)
    return {**right, "weight": _backward(layer, x[:, channels], w, v)["weight"]}


MISTAKES = {
    forgets_the_stride: {"weight", "input"},
    forgets_the_dilation: {"weight", "input"},
    pads_one_too_many: {"weight", "input"},
    flips_the_kernel: {"input"},
    flips_the_weight_gradient: {"weight"},
    transposes_the_taps: {"weight"},
    sums_one_sample_only: {"weight"},
    averages_over_the_batch: {"weight", "bias"},
    drops_the_last_column: {"weight"},
    forgets_the_border_of_the_input: {"input"},
    bias_of_the_wrong_filter: {"bias"},
    bias_forgets_one_output: {"bias"},
    bias_of_one_sample_only: {"bias"},
    swaps_two_filters: {"weight"},
    counts_twice: {"weight"},
    has_the_wrong_sign: {"input"},
    wrong_sign_of_a_filter: {"weight"},
    flips_one_sign: {"weight"},
    is_wrong_in_the_tenth_digit: {"weight"},
    mixes_up_the_groups: {"weight"},
}
"""Each mistake with the tensors whose gradient it makes wrong; the others stay right."""
