"""Wrong backward passes of networks that people really write.

Each mistake is written as the function whose gradient the mistaken code returns: `Tensor.detach` holds constant what
the mistake forgets. Values stay right, so that a wrong layer's gradient meets right ones before and after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torch_network
from naive_network import kernel, per_axis, pool_stride, sides
from torch_network import LAYERS, LOSSES, padded

MISTAKES: dict[str, Mistake] = {}
"""By name: the case of `network_examples.CASES` that must show it, the function of it that returns wrong gradients, and
what is wrong in it: a kind of layer, a loss or "penalty"."""


class Mistake(NamedTuple):
    """``gradients(network, params, x, y, masks, dtype=...)`` has the names and shapes of the right ones."""

    case: str
    gradients: Callable
    kind: str


class _Mistaken(torch.autograd.Function):
    """The values of one function and the gradient of another."""

    @staticmethod
    def forward(ctx, right, wrong, *tensors):
        ctx.wrong = wrong
        ctx.save_for_backward(*tensors)
        return right(*tensors)

    @staticmethod
    def backward(ctx, cotangent):
        needed = ctx.needs_input_grad[2:]
        tensors = [tensor.detach().requires_grad_(need) for tensor, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            value = ctx.wrong(*tensors)
        if not value.requires_grad:
            return None, None, *(None for _ in tensors)
        learnt = [tensor for tensor in tensors if tensor.requires_grad]
        found = iter(torch.autograd.grad(value, learnt, cotangent, allow_unused=True))
        return None, None, *(next(found) if need else None for need in needed)


def _layer(kind, wrong):
    def forward(layer, inputs, tensors, mask):
        def taking(function):
            def call(*arrays):
                own = dict(zip(tensors, arrays[len(inputs) :], strict=True))
                return function(layer, arrays[: len(inputs)], own, mask)

            return call

        return _Mistaken.apply(taking(LAYERS[kind]), taking(wrong), *inputs, *tensors.values())

    return forward


def _loss(name, wrong):
    def losses(network, output, y):
        return _Mistaken.apply(lambda z: LOSSES[name](network, z, y), lambda z: wrong(network, z, y), output)

    return losses


def _penalty(name, wrong):
    def penalty(network, params):
        def taking(function):
            return lambda *arrays: function(network, dict(zip(params, arrays, strict=True)))

        return _Mistaken.apply(taking(torch_network.penalty), taking(wrong), *params.values())

    return penalty


def planted(kind, wrong):
    """Return the right function of a kind of layer, of a loss or of "penalty" with the gradient of a wrong one."""
    plant = _layer if kind in LAYERS else _loss if kind in LOSSES else _penalty
    return plant(kind, wrong)


def mistake(kind, case):
    """Enter a function among the mistakes, for a kind of layer, a loss or "penalty"."""

    def enter(wrong):
        replaced = {kind: planted(kind, wrong)}

        def gradients(network, params, x, y, masks=None, dtype=torch.float64):
            return torch_network.gradients(network, params, x, y, masks, dtype=dtype, replaced=replaced)[1]

        MISTAKES[wrong.__name__] = Mistake(case, gradients, kind)
        return wrong

    return enter


@mistake("conv", "conv_stride")
def conv_forgets_the_stride(layer, inputs, tensors, mask):
    right = LAYERS["conv"](layer, inputs, tensors, mask)
    dense = LAYERS["conv"](replace(layer, stride=1), inputs, tensors, mask)
    return dense[(..., *(slice(size) for size in right.shape[2:]))]


@mistake("conv", "conv_dilation")
def conv_forgets_the_dilation(layer, inputs, tensors, mask):
    right = LAYERS["conv"](layer, inputs, tensors, mask)
    tight = LAYERS["conv"](replace(layer, dilation=1), inputs, tensors, mask)
    return tight[(..., *(slice(size) for size in right.shape[2:]))]


@mistake("conv", "conv_padding_per_side")
def conv_swaps_the_sides_of_its_padding(layer, inputs, tensors, mask):
    swapped = tuple((high, low) for low, high in sides(layer, inputs[0].ndim - 2))
    return LAYERS["conv"](replace(layer, padding=swapped), inputs, tensors, mask)


@mistake("conv", "conv_2d")
def conv_flips_the_kernel(layer, inputs, tensors, mask):
    (x,), weight = inputs, tensors["weight"]
    flipped = {"weight": weight.detach().flip(*range(2, x.ndim))}
    for_input = LAYERS["conv"](layer, [x], flipped, mask)
    return for_input + LAYERS["conv"](layer, [x.detach()], tensors, mask)


@mistake("conv", "conv_groups")
def conv_mixes_up_the_groups(layer, inputs, tensors, mask):
    (x,) = inputs
    return LAYERS["conv"](layer, [x.roll(x.shape[1] // layer.groups, 1)], tensors, mask)


@mistake("conv", "conv_depthwise")
def conv_takes_the_first_channel_only(layer, inputs, tensors, mask):
    (x,) = inputs
    kept = torch.cat([x[:, :1], x[:, 1:].detach()], 1)
    return LAYERS["conv"](layer, [kept], tensors, mask)


@mistake("conv", "conv_1d")
def conv_bias_of_one_sample_only(layer, inputs, tensors, mask):
    out = LAYERS["conv"](layer, inputs, tensors, mask)
    fixed = LAYERS["conv"](layer, inputs, {**tensors, "bias": tensors["bias"].detach()}, mask)
    return torch.cat([out[:1], fixed[1:]])


@mistake("conv", "conv_3d")
def conv_averages_over_the_batch(layer, inputs, tensors, mask):
    (x,) = inputs
    for_input = LAYERS["conv"](layer, [x], {name: tensor.detach() for name, tensor in tensors.items()}, mask)
    return for_input + LAYERS["conv"](layer, [x.detach()], tensors, mask) / len(x)


@mistake("conv", "shared_conv")
def conv_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    """The gradient that is left is that of the first use, since backward passes go back to it last."""
    return LAYERS["conv"](layer, inputs, _held_if_shared(layer, tensors), mask)


def _held_if_shared(layer, tensors):
    return _held(tensors) if layer.shares else tensors


@mistake("dense", "shared_three_times")
def dense_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["dense"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("dense", "shared_side_by_side")
def dense_counts_a_shared_weight_twice(layer, inputs, tensors, mask):
    twice = {name: 2 * tensor - tensor.detach() for name, tensor in tensors.items()}
    return LAYERS["dense"](layer, inputs, twice if layer.shares else tensors, mask)


@mistake("conv", "conv_padding_reflect")
def conv_leaves_its_padding_to_zeros(layer, inputs, tensors, mask):
    return LAYERS["conv"](replace(layer, padding_mode="zeros"), inputs, tensors, mask)


@mistake("conv", "conv_padding_replicate")
def conv_forgets_what_the_padding_takes_from_the_map(layer, inputs, tensors, mask):
    """The weight's gradient is right. The input's misses the pixels of the padding, which are copies of others."""
    for_input = LAYERS["conv"](replace(layer, padding_mode="zeros"), inputs, _held(tensors), mask)
    return for_input + LAYERS["conv"](layer, [inputs[0].detach()], tensors, mask)


@mistake("conv", "conv_padding_circular")
def conv_repeats_the_edge_where_it_should_go_around(layer, inputs, tensors, mask):
    other = replace(layer, padding_mode="replicate") if layer.padding_mode == "circular" else layer
    return LAYERS["conv"](other, inputs, tensors, mask)


def _held(tensors):
    return {name: tensor.detach() for name, tensor in tensors.items()}


@mistake("conv_transpose", "conv_transpose_2d")
def conv_transpose_flips_the_kernel(layer, inputs, tensors, mask):
    (x,), rank = inputs, inputs[0].ndim - 2
    flipped = {**_held(tensors), "weight": tensors["weight"].detach().flip(*range(2, 2 + rank))}
    for_input = LAYERS["conv_transpose"](layer, [x], flipped, mask)
    return for_input + LAYERS["conv_transpose"](layer, [x.detach()], tensors, mask)


@mistake("conv_transpose", "conv_transpose_wide")
def conv_transpose_takes_the_weight_for_a_convolutions(layer, inputs, tensors, mask):
    """Reads (in, out, taps) as (out, in, taps) without moving an entry."""
    weight = tensors["weight"]
    other = weight.reshape(weight.shape[1], weight.shape[0], *weight.shape[2:]).swapaxes(0, 1)
    return LAYERS["conv_transpose"](layer, inputs, {**tensors, "weight": other}, mask)


@mistake("conv_transpose", "conv_transpose_groups")
def conv_transpose_mixes_up_the_groups(layer, inputs, tensors, mask):
    (x,) = inputs
    return LAYERS["conv_transpose"](layer, [x.roll(x.shape[1] // layer.groups, 1)], tensors, mask)


@mistake("conv_transpose", "conv_transpose_1d")
def conv_transpose_forgets_the_output_padding(layer, inputs, tensors, mask):
    """The last pixels have no gradient, though the bias and a tap reach them."""
    right = LAYERS["conv_transpose"](layer, inputs, tensors, mask)
    more = per_axis(layer.output_padding, inputs[0].ndim - 2)
    kept = right[(..., *(slice(size - extra) for size, extra in zip(right.shape[2:], more, strict=True)))]
    return padded(kept, [(0, extra) for extra in more])


@mistake("conv_transpose", "conv_transpose_shared")
def conv_transpose_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["conv_transpose"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("embedding", "embedding")
def embedding_keeps_the_last_use_of_a_row(layer, inputs, tensors, mask):
    """Assigns to a row's gradient where it should add."""
    (x,) = inputs
    out, flat = LAYERS["embedding"](layer, inputs, tensors, mask), inputs[0].reshape(-1)
    later = (flat[:, None] == flat[None]).triu(1).any(-1)
    return out * ~later.reshape(x.shape)[:, None]


@mistake("embedding", "embedding_maps")
def embedding_averages_over_the_uses_of_a_row(layer, inputs, tensors, mask):
    (x,) = inputs
    counts = (x.reshape(-1)[:, None] == x.reshape(-1)[None]).sum(-1).reshape(x.shape)
    return LAYERS["embedding"](layer, inputs, tensors, mask) / counts[:, None]


@mistake("embedding", "embedding_shared")
def embedding_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["embedding"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("dense", "dense")
def dense_uses_the_weight_as_it_is(layer, inputs, tensors, mask):
    """Returns v @ W.T where v @ W is right; only a square weight lets it."""
    (x,), weight = inputs, tensors["weight"]
    square = weight.shape[0] == weight.shape[1]
    for_input = F.linear(x, weight.detach().T if square else weight.detach())
    return for_input + F.linear(x.detach(), weight, tensors.get("bias"))


@mistake("dense", "dense_no_bias")
def dense_takes_one_sample_only(layer, inputs, tensors, mask):
    (x,), fixed = inputs, {name: tensor.detach() for name, tensor in tensors.items()}
    return torch.cat([LAYERS["dense"](layer, [x[:1]], tensors, mask), LAYERS["dense"](layer, [x[1:]], fixed, mask)])


@mistake("dense", "dense")
def dense_forgets_the_bias(layer, inputs, tensors, mask):
    return F.linear(inputs[0], tensors["weight"])


def _windows(layer, x, fill):
    """Return the entries of all windows of a pooling in one axis more, the last."""
    rank = x.ndim - 2
    x = padded(x, _reached(layer, x), fill)
    taps, strides, dilations = kernel(layer, rank), pool_stride(layer, rank), per_axis(layer.dilation, rank)
    for axis, (k, s, d) in enumerate(zip(taps, strides, dilations, strict=True), 2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    return x.flatten(-rank)


def _reached(layer, x):
    """Return the padding of a pooling, with all that its last windows reach."""
    rank = x.ndim - 2
    counts = LAYERS[layer.kind](layer, [x.detach()], {}, None).shape[2:]
    geometry = (kernel(layer, rank), pool_stride(layer, rank), per_axis(layer.dilation, rank), sides(layer, rank))
    axes = zip(x.shape[2:], counts, *geometry, strict=True)
    return [(low, max(high, (n - 1) * s + d * (k - 1) + 1 - size - low)) for size, n, k, s, d, (low, high) in axes]


@mistake("max_pool", "max_pool")
def max_pool_takes_the_first_of_the_window(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], -math.inf)[..., 0]


@mistake("max_pool", "max_pool_padded")
def max_pool_takes_the_last_of_the_window(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], -math.inf)[..., -1]


@mistake("max_pool", "max_pool_3d")
def max_pool_spreads_over_the_window(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], 0.0).mean(-1)


@mistake("max_pool", "max_pool_1d")
def max_pool_takes_the_smallest(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], math.inf).amin(-1)


@mistake("max_pool", "max_pool_dilated")
def max_pool_takes_the_second(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], -math.inf).sort(-1).values[..., -2]


@mistake("max_pool", "max_pool_overlapping")
def max_pool_overwrites_where_windows_overlap(layer, inputs, tensors, mask):
    """Assigns a window's cotangent to its winner where it should add, so that the last window has it."""
    out, winners = F.max_pool2d(inputs[0], layer.kernel_size, layer.stride, return_indices=True)
    flat = winners.flatten(2)
    later = (flat[..., :, None] == flat[..., None, :]).triu(1).any(-1)
    return out * ~later.reshape(out.shape)


@mistake("max_pool", "max_pool_ceil")
def max_pool_forgets_windows_beyond_the_map(layer, inputs, tensors, mask):
    return _rounded_down(layer, inputs, mask)


@mistake("avg_pool", "avg_pool_ceil_not_counted")
def avg_pool_forgets_windows_beyond_the_map(layer, inputs, tensors, mask):
    return _rounded_down(layer, inputs, mask)


def _rounded_down(layer, inputs, mask):
    """Return what is pooled, with windows that reach beyond the padding held constant."""
    (x,), rank = inputs, inputs[0].ndim - 2
    pooled = LAYERS[layer.kind](layer, inputs, {}, mask)
    geometry = (kernel(layer, rank), pool_stride(layer, rank), per_axis(layer.dilation, rank), sides(layer, rank))
    inside = torch.zeros_like(pooled)
    axes = zip(x.shape[2:], *geometry, strict=True)
    counts = [max(0, (size + low + high - d * (k - 1) - 1) // s + 1) for size, k, s, d, (low, high) in axes]
    inside[(..., *map(slice, counts))] = 1
    return torch.where(inside > 0, pooled, pooled.detach())


@mistake("avg_pool", "avg_pool_ceil")
def avg_pool_counts_what_lies_beyond_the_padding(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], 0.0).mean(-1)


@mistake("avg_pool", "avg_pool_padded")
def avg_pool_leaves_padding_out(layer, inputs, tensors, mask):
    return LAYERS["avg_pool"](replace(layer, count_include_pad=False), inputs, tensors, mask)


@mistake("avg_pool", "avg_pool_padding_not_counted")
def avg_pool_counts_padding(layer, inputs, tensors, mask):
    return LAYERS["avg_pool"](replace(layer, count_include_pad=True), inputs, tensors, mask)


@mistake("avg_pool", "avg_pool")
def avg_pool_forgets_the_division(layer, inputs, tensors, mask):
    return _windows(layer, inputs[0], 0.0).sum(-1)


@mistake("global_avg_pool", "global_avg_pool")
def global_avg_pool_forgets_the_division(layer, inputs, tensors, mask):
    return inputs[0].flatten(2).sum(2)


def _normalised(x, mean, var, layer, tensors):
    axes = (1, -1, *(1,) * (x.ndim - 2))
    weight, bias = (tensors[name].reshape(axes) for name in ("weight", "bias"))
    return weight * (x - mean) / (var + layer.eps).sqrt() + bias


def _batch_moments(x, correction=0):
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=correction)


@mistake("batch_norm", "batch_norm_maps")
def batch_norm_holds_its_statistics_constant(layer, inputs, tensors, mask):
    (x,) = inputs
    mean, var = _batch_moments(x.detach())
    return _normalised(x, mean, var, layer, tensors)


@mistake("batch_norm", "batch_norm_features")
def batch_norm_holds_its_variance_constant(layer, inputs, tensors, mask):
    (x,) = inputs
    mean, var = _batch_moments(x)
    return _normalised(x, mean, var.detach(), layer, tensors)


@mistake("batch_norm", "resnet")
def batch_norm_divides_by_one_less(layer, inputs, tensors, mask):
    (x,) = inputs
    return _normalised(x, *_batch_moments(x, correction=1), layer, tensors)


@mistake("batch_norm", "batch_norm_maps")
def batch_norm_forgets_the_weight(layer, inputs, tensors, mask):
    """Its input's gradient misses the factor; the weight's is right."""
    (x,) = inputs
    one = {"weight": torch.ones_like(tensors["weight"]), "bias": torch.zeros_like(tensors["bias"])}
    for_input = LAYERS["batch_norm"](layer, [x], one, mask)
    return for_input + LAYERS["batch_norm"](layer, [x.detach()], tensors, mask)


@mistake("batch_norm", "batch_norm_frozen")
def batch_norm_frozen_uses_the_batch(layer, inputs, tensors, mask):
    return LAYERS["batch_norm"](replace(layer, frozen=False), inputs, _learnt(tensors), mask)


@mistake("batch_norm", "batch_norm_frozen_features")
def batch_norm_frozen_forgets_the_mean(layer, inputs, tensors, mask):
    (x,) = inputs
    var = tensors["running_var"].reshape(1, -1, *(1,) * (x.ndim - 2))
    return _normalised(x, 0.0, var, layer, tensors)


def _learnt(tensors):
    return {name: tensors[name] for name in ("weight", "bias")}


def _layer_moments(x):
    axes = tuple(range(1, x.ndim))
    return x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=0)


def _layer_normalised(x, mean, var, layer, tensors):
    return tensors["weight"] * (x - mean) / (var + layer.eps).sqrt() + tensors["bias"]


@mistake("batch_norm", "shared_batch_norm")
def batch_norm_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["batch_norm"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("layer_norm", "shared_layer_norm")
def layer_norm_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["layer_norm"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("layer_norm", "layer_norm_maps")
def layer_norm_forgets_the_mean_term(layer, inputs, tensors, mask):
    (x,) = inputs
    mean, var = _layer_moments(x)
    return _layer_normalised(x, mean.detach(), var, layer, tensors)


@mistake("layer_norm", "layer_norm_features")
def layer_norm_holds_its_variance_constant(layer, inputs, tensors, mask):
    (x,) = inputs
    mean, var = _layer_moments(x)
    return _layer_normalised(x, mean, var.detach(), layer, tensors)


@mistake("layer_norm", "layer_norm_features")
def layer_norm_forgets_eps(layer, inputs, tensors, mask):
    (x,) = inputs
    return _layer_normalised(x, *_layer_moments(x), replace(layer, eps=0.0), tensors)


def _by_groups(x, groups, layer, tensors, hold=()):
    """Return groups of channels normalised by their statistics, of which some may be held constant."""
    parts = x.unflatten(1, (groups, -1))
    axes = tuple(range(2, parts.ndim))
    moments = {"mean": parts.mean(axes, keepdim=True), "var": parts.var(axes, keepdim=True, correction=0)}
    mean, var = (moment.detach() if name in hold else moment for name, moment in moments.items())
    unit = ((parts - mean) / (var + layer.eps).sqrt()).flatten(1, 2)
    if not tensors:
        return unit
    weight, bias = (tensors[name].reshape(-1, *(1,) * (x.ndim - 2)) for name in ("weight", "bias"))
    return weight * unit + bias


@mistake("group_norm", "group_norm_maps")
def group_norm_holds_its_variance_constant(layer, inputs, tensors, mask):
    return _by_groups(inputs[0], layer.num_groups, layer, tensors, ("var",))


@mistake("group_norm", "group_norm_plain")
def group_norm_holds_its_statistics_constant(layer, inputs, tensors, mask):
    return _by_groups(inputs[0], layer.num_groups, layer, tensors, ("mean", "var"))


@mistake("group_norm", "group_norm_maps")
def group_norm_takes_all_channels_for_one_group(layer, inputs, tensors, mask):
    return _by_groups(inputs[0], 1, layer, tensors)


@mistake("group_norm", "shared_group_norm")
def group_norm_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["group_norm"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("instance_norm", "instance_norm")
def instance_norm_holds_its_mean_constant(layer, inputs, tensors, mask):
    return _by_groups(inputs[0], inputs[0].shape[1], layer, tensors, ("mean",))


@mistake("instance_norm", "instance_norm_affine")
def instance_norm_takes_statistics_of_the_batch(layer, inputs, tensors, mask):
    ones = torch.ones(inputs[0].shape[1], dtype=inputs[0].dtype)
    return _normalised(inputs[0], *_batch_moments(inputs[0]), layer, tensors or {"weight": ones, "bias": 0 * ones})


@mistake("softmax", "softmax_features")
def softmax_forgets_the_other_entries(layer, inputs, tensors, mask):
    """Its Jacobian's diagonal, s (1 - s), is all that is left."""
    s = torch.softmax(inputs[0], 1).detach()
    return s * (1 - s) * inputs[0]


@mistake("softmax", "softmax_maps")
def softmax_sums_over_pixels(layer, inputs, tensors, mask):
    """Or over samples, where there are no pixels."""
    (x,) = inputs
    return x.flatten(2).softmax(2).reshape(x.shape) if x.ndim > 2 else x.softmax(0)


@mistake("softmax", "softmax_last")
def softmax_holds_its_sum_constant(layer, inputs, tensors, mask):
    return inputs[0].exp() / inputs[0].exp().sum(1, keepdim=True).detach()


@mistake("dropout", "dropout_maps")
def dropout_forgets_the_scale(layer, inputs, tensors, mask):
    return inputs[0] * mask


@mistake("dropout", "dropout_features")
def dropout_passes_everything(layer, inputs, tensors, mask):
    return inputs[0] / (1 - layer.p)


@mistake("flatten", "flatten")
def flatten_puts_channels_last(layer, inputs, tensors, mask):
    return inputs[0].movedim(1, -1).flatten(1)


@mistake("flatten", "flatten_3d")
def flatten_reverses_the_axes(layer, inputs, tensors, mask):
    x = inputs[0]
    return x.permute(0, *reversed(range(1, x.ndim))).flatten(1)


@mistake("relu", "relu")
def relu_passes_everything(layer, inputs, tensors, mask):
    return inputs[0].clone()


@mistake("relu", "relu_maps")
def relu_uses_another_sample(layer, inputs, tensors, mask):
    return inputs[0] * (inputs[0].roll(1, 0) > 0)


@mistake("leaky_relu", "leaky_relu")
def leaky_relu_has_slope_one(layer, inputs, tensors, mask):
    return inputs[0].clone()


@mistake("leaky_relu", "leaky_relu")
def leaky_relu_has_no_slope(layer, inputs, tensors, mask):
    return F.relu(inputs[0])


@mistake("prelu", "prelu")
def prelu_takes_one_sample_only(layer, inputs, tensors, mask):
    (x,), held = inputs, {"weight": tensors["weight"].detach()}
    return torch.cat([LAYERS["prelu"](layer, [x[:1]], tensors, mask), LAYERS["prelu"](layer, [x[1:]], held, mask)])


@mistake("prelu", "prelu_maps_channels")
def prelu_adds_up_positive_entries_too(layer, inputs, tensors, mask):
    (x,), weight = inputs, tensors["weight"].reshape(-1, *(1,) * (inputs[0].ndim - 2))
    return LAYERS["prelu"](layer, inputs, {"weight": tensors["weight"].detach()}, mask) + weight * x.detach()


@mistake("prelu", "prelu_channels")
def prelu_forgets_the_slope_of_its_input(layer, inputs, tensors, mask):
    return LAYERS["prelu"](layer, [inputs[0].detach()], tensors, mask) + F.relu(inputs[0])


@mistake("prelu", "shared_prelu")
def prelu_overwrites_the_gradient_of_an_earlier_use(layer, inputs, tensors, mask):
    return LAYERS["prelu"](layer, inputs, _held_if_shared(layer, tensors), mask)


@mistake("elu", "elu")
def elu_forgets_alpha(layer, inputs, tensors, mask):
    return F.elu(inputs[0], 1.0)


@mistake("gelu", "gelu")
def gelu_uses_the_form_with_tanh(layer, inputs, tensors, mask):
    return F.gelu(inputs[0], approximate="tanh")


@mistake("gelu", "gelu_tanh")
def gelu_uses_the_exact_form(layer, inputs, tensors, mask):
    return F.gelu(inputs[0])


@mistake("gelu", "gelu_maps")
def gelu_forgets_the_density(layer, inputs, tensors, mask):
    (z,) = inputs
    return z * torch.special.ndtr(z.detach())


@mistake("silu", "silu")
def silu_forgets_the_second_term(layer, inputs, tensors, mask):
    return inputs[0] * torch.sigmoid(inputs[0].detach())


@mistake("tanh", "tanh")
def tanh_forgets_the_square(layer, inputs, tensors, mask):
    return inputs[0] * (1 - torch.tanh(inputs[0].detach()))


@mistake("sigmoid", "sigmoid")
def sigmoid_forgets_a_factor(layer, inputs, tensors, mask):
    return inputs[0] * torch.sigmoid(inputs[0].detach())


@mistake("softplus", "softplus")
def softplus_forgets_beta(layer, inputs, tensors, mask):
    return F.softplus(inputs[0])


@mistake("softplus", "softplus")
def softplus_keeps_beta_as_a_factor(layer, inputs, tensors, mask):
    return layer.beta * LAYERS["softplus"](layer, inputs, tensors, mask)


@mistake("add", "add")
def add_drops_the_residual(layer, inputs, tensors, mask):
    return inputs[0].clone()


@mistake("add", "add_projection")
def add_drops_the_main_branch(layer, inputs, tensors, mask):
    return inputs[0].clone()


@mistake("add", "add_several")
def add_averages(layer, inputs, tensors, mask):
    return sum(inputs[1:], inputs[0]) / len(inputs)


@mistake("concat", "concat")
def concat_swaps_its_branches(layer, inputs, tensors, mask):
    return torch.cat(list(reversed(inputs)), 1)


@mistake("concat", "concat_several")
def concat_drops_the_last_branch(layer, inputs, tensors, mask):
    return torch.cat([*inputs[:-1], inputs[-1].detach()], 1)


@mistake("softmax_cross_entropy", "softmax_cross_entropy")
def softmax_cross_entropy_forgets_the_target(network, output, y):
    return output.logsumexp(1)


@mistake("softmax_cross_entropy", "cnn")
def softmax_cross_entropy_forgets_the_mean(network, output, y):
    return len(output) * LOSSES["softmax_cross_entropy"](network, output, y)


@mistake("softmax_cross_entropy", "reduction_sum")
def softmax_cross_entropy_averages(network, output, y):
    return LOSSES["softmax_cross_entropy"](network, output, y) / len(output)


@mistake("softmax_cross_entropy", "softmax_cross_entropy")
def softmax_cross_entropy_shifts_the_targets(network, output, y):
    return LOSSES["softmax_cross_entropy"](network, output, (y + 1) % output.shape[1])


@mistake("squared_error", "squared_error")
def squared_error_forgets_the_half(network, output, y):
    return 2 * LOSSES["squared_error"](network, output, y)


@mistake("squared_error", "squared_error_maps")
def squared_error_averages_over_entries(network, output, y):
    return LOSSES["squared_error"](network, output, y) / output[0].numel()


@mistake("multiclass_hinge", "multiclass_hinge")
def multiclass_hinge_forgets_the_true_class(network, output, y):
    true = output.detach().gather(1, y[:, None])
    return (output - true + network.margin).clamp(min=0).sum(1) - _own(network, output, y)


def _own(network, output, y):
    """The term of the true class with itself, which the sum leaves out."""
    own = output.gather(1, y[:, None])
    return (own - own.detach() + network.margin)[:, 0]


@mistake("multiclass_hinge", "multiclass_hinge")
def multiclass_hinge_counts_the_true_class_once(network, output, y):
    """Takes one off the true class where it should take one for each class beyond the margin."""
    true = output.gather(1, y[:, None])
    terms = output - true.detach() + network.margin
    beyond = (terms > 0).sum(1) > 1
    return terms.clamp(min=0).sum(1) - _own(network, output, y) - beyond * true[:, 0]


@mistake("multiclass_hinge", "hinge_sum")
def multiclass_hinge_forgets_the_margin(network, output, y):
    true = output.gather(1, y[:, None])
    return (output - true).clamp(min=0).sum(1)


@mistake("logistic", "logistic")
def logistic_adds_the_target(network, output, y):
    return (F.softplus(output) + y * output).sum(1)


@mistake("logistic", "logistic")
def logistic_has_the_wrong_sign(network, output, y):
    return -LOSSES["logistic"](network, output, y)


def _regularised(network, params, l2, l1):
    penalties = network.penalties(list(params))
    terms = [l2(p.l2, params[name]).sum() + l1(p.l1, params[name]).sum() for name, p in penalties.items()]
    return sum(terms, torch.zeros(()))


def _half_square(strength, w):
    return strength / 2 * w.square()


def _size(strength, w):
    return strength * w.abs()


@mistake("penalty", "l2")
def l2_is_omitted(network, params):
    return _regularised(network, params, lambda strength, w: 0 * w, _size)


@mistake("penalty", "l2")
def l2_is_doubled(network, params):
    return _regularised(network, params, lambda strength, w: strength * w.square(), _size)


@mistake("penalty", "l2")
def l2_reaches_the_biases(network, params):
    strength = network.penalties(list(params))["dense1.weight"].l2
    return sum(_half_square(strength, w).sum() for w in params.values())


@mistake("penalty", "l2_l1_groups")
def l2_is_the_same_for_every_group(network, params):
    return _regularised(network, params, lambda strength, w: 0.2 / 2 * w.square(), _size)


@mistake("penalty", "l1")
def l1_is_omitted(network, params):
    return _regularised(network, params, _half_square, lambda strength, w: 0 * w)


@mistake("penalty", "l2_l1_groups")
def l1_forgets_the_sign(network, params):
    return _regularised(network, params, _half_square, lambda strength, w: strength * w)
