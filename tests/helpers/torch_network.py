"""Whole networks by PyTorch's own definitions, as a second opinion on values and on gradients."""

import warnings
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from naive_network import kernel, per_axis, pool_stride, sides, tensors_of
from onednn import without_onednn

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def activations(network, params, x, masks=None, replaced=None):
    """Return the outputs of all layers.

    Arrays may be tensors or NumPy's. ``replaced`` has other functions for some kinds of layer, losses or "penalty",
    with the arguments of those in `LAYERS` and `LOSSES`, or of `penalty`.
    """
    functions = {**LAYERS, **(replaced or {})}
    x, params = torch.as_tensor(x), tensors(params)
    found = []
    for layer, taken in zip(network.layers, network.sources, strict=True):
        inputs = [x if place < 0 else found[place] for place in taken]
        mask = (masks or {}).get(layer.name)
        mask = None if mask is None else torch.as_tensor(mask).to(x.dtype)
        found.append(functions[layer.kind](layer, inputs, tensors_of(params, layer), mask))
    return found


def objective(network, params, x, y, masks=None, regularised=True, replaced=None):
    """Return the objective, a tensor without axes."""
    replaced, params = replaced or {}, tensors(params)
    output = activations(network, params, x, masks, replaced)[-1]
    losses = replaced.get(network.loss, LOSSES[network.loss])(network, output, torch.as_tensor(y))
    value = losses.mean() if network.reduction == "mean" else losses.sum()
    return value + replaced.get("penalty", penalty)(network, params) if regularised else value


def gradients(network, params, x, y, masks=None, regularised=True, dtype=torch.float64, replaced=None):
    """Return the objective and its gradient with respect to everything that is learnt, computed in a dtype.

    NumPy has no bfloat16: gradients in it are float32 arrays.
    """
    params = {name: torch.tensor(array, dtype=dtype) for name, array in params.items()}
    learnt = {name: params[name].requires_grad_() for name in network.parameter_shapes(np.shape(x)[1:])}
    with nullcontext() if dtype in (torch.float64, torch.float32) else without_onednn():
        value = objective(network, params, torch.tensor(x, dtype=dtype), y, masks, regularised, replaced)
        found = torch.autograd.grad(value, list(learnt.values()), materialize_grads=True, allow_unused=True)
    found = [grad.float() if dtype == torch.bfloat16 else grad for grad in found]
    return value.item(), {name: grad.numpy() for name, grad in zip(learnt, found, strict=True)}


def penalty(network, params):
    """Return the regularisation."""
    penalties = network.penalties(list(params))
    terms = [p.l2 / 2 * params[name].square().sum() + p.l1 * params[name].abs().sum() for name, p in penalties.items()]
    return sum(terms, torch.zeros(()))


def padded(x, pads, value=0.0, mode="constant"):
    """Return an input with its padding, one pair (low, high) for each spatial axis."""
    return F.pad(x, [side for pair in reversed(pads) for side in pair], mode, value if mode == "constant" else None)


def tensors(params):
    """Return parameters as tensors."""
    return {name: torch.as_tensor(array) for name, array in params.items()}


def _at_least_single(x):
    """Return a tensor in single precision where it was in half, in which PyTorch lacks some functions."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _conv(layer, inputs, tensors, mask):
    (x,) = inputs
    rank = x.ndim - 2
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = padded(x, sides(layer, rank), mode=layer.padding_mode), 0
    elif not isinstance(padding, str):
        x, padding = padded(x, sides(layer, rank)), 0
    geometry = {"stride": per_axis(layer.stride, rank), "dilation": per_axis(layer.dilation, rank)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        return CONV[rank](x, tensors["weight"], tensors.get("bias"), padding=padding, groups=layer.groups, **geometry)


def _conv_transpose(layer, inputs, tensors, mask):
    """PyTorch cuts off the same padding on both sides; any other is cut off here."""
    (x,), rank, pads = inputs, inputs[0].ndim - 2, sides(layer, inputs[0].ndim - 2)
    geometry = {name: per_axis(getattr(layer, name), rank) for name in ("stride", "dilation", "output_padding")}
    same = [min(pair) for pair in pads]
    weights = tensors["weight"], tensors.get("bias")
    out = CONV_TRANSPOSE[rank](x, *weights, padding=same, groups=layer.groups, **geometry)
    axes = zip(out.shape[2:], pads, same, strict=True)
    return out[(..., *(slice(low - cut, max(0, size - (high - cut))) for size, (low, high), cut in axes))]


def _max_pool(layer, inputs, tensors, mask):
    (x,) = inputs
    rank = x.ndim - 2
    pads, windows = sides(layer, rank), {"stride": pool_stride(layer, rank), "dilation": per_axis(layer.dilation, rank)}
    options = windows | {"ceil_mode": layer.ceil_mode}
    if all(low == high for low, high in pads):
        return MAX_POOL[rank](x, kernel(layer, rank), padding=[low for low, _ in pads], **options)
    return _beginning_before_the_end(
        layer, x, MAX_POOL[rank](padded(x, pads, -torch.inf), kernel(layer, rank), **options)
    )


def _avg_pool(layer, inputs, tensors, mask):
    (x,) = inputs
    rank = x.ndim - 2
    pool, windows, pads = AVG_POOL[rank], (kernel(layer, rank), pool_stride(layer, rank)), sides(layer, rank)
    wide, ceil = _at_least_single(x), {"ceil_mode": layer.ceil_mode}
    if all(low == high for low, high in pads):
        options = {"padding": [low for low, _ in pads], "count_include_pad": layer.count_include_pad}
        return pool(wide, *windows, **options, **ceil).to(x.dtype)
    found = pool(padded(wide, pads), *windows, **ceil)
    if not layer.count_include_pad:
        found = found / pool(padded(torch.ones_like(wide), pads), *windows, **ceil)
    return _beginning_before_the_end(layer, x, found.to(x.dtype))


def _beginning_before_the_end(layer, x, pooled):
    """Return what a padded map was pooled to without windows that begin in the padding after the map.

    PyTorch pads both sides alike, so that a map with other padding is padded first. Then it takes that padding for a
    part of the map, in which a window may begin.
    """
    rank = x.ndim - 2
    axes = zip(x.shape[2:], pooled.shape[2:], pool_stride(layer, rank), sides(layer, rank), strict=True)
    counts = [min(count, -(-(size + low) // s)) for size, count, s, (low, _) in axes]
    return pooled[(..., *map(slice, counts))]


def _batch_norm(layer, inputs, tensors, mask):
    running = tensors.get("running_mean"), tensors.get("running_var")
    return F.batch_norm(
        inputs[0], *running, tensors["weight"], tensors["bias"], training=not layer.frozen, eps=layer.eps
    )


def _layer_norm(layer, inputs, tensors, mask):
    return F.layer_norm(inputs[0], inputs[0].shape[1:], tensors["weight"], tensors["bias"], eps=layer.eps)


def _group_norm(layer, inputs, tensors, mask):
    return F.group_norm(inputs[0], layer.num_groups, tensors.get("weight"), tensors.get("bias"), eps=layer.eps)


def _instance_norm(layer, inputs, tensors, mask):
    return F.instance_norm(inputs[0], weight=tensors.get("weight"), bias=tensors.get("bias"), eps=layer.eps)


def _elementwise(function):
    return lambda layer, inputs, tensors, mask: function(layer, inputs[0])


LAYERS = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "embedding": lambda layer, inputs, tensors, mask: F.embedding(inputs[0].long(), tensors["weight"]).movedim(-1, 1),
    "dense": lambda layer, inputs, tensors, mask: F.linear(inputs[0], tensors["weight"], tensors.get("bias")),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda layer, inputs, tensors, mask: inputs[0].flatten(2).mean(2),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "dropout": lambda layer, inputs, tensors, mask: inputs[0] if mask is None else inputs[0] * mask / (1 - layer.p),
    "flatten": lambda layer, inputs, tensors, mask: inputs[0].flatten(1),
    "relu": _elementwise(lambda layer, z: F.relu(z)),
    "leaky_relu": _elementwise(lambda layer, z: F.leaky_relu(z, layer.negative_slope)),
    "prelu": lambda layer, inputs, tensors, mask: F.prelu(inputs[0], tensors["weight"]),
    "softmax": _elementwise(lambda layer, z: F.softmax(z, 1)),
    "elu": _elementwise(lambda layer, z: F.elu(z, layer.alpha)),
    "gelu": _elementwise(lambda layer, z: F.gelu(z, approximate=layer.approximate)),
    "silu": _elementwise(lambda layer, z: F.silu(z)),
    "tanh": _elementwise(lambda layer, z: torch.tanh(z)),
    "sigmoid": _elementwise(lambda layer, z: torch.sigmoid(z)),
    # Above PyTorch's own threshold of 20 it is off by 2e-9.
    "softplus": _elementwise(lambda layer, z: F.softplus(z, layer.beta, threshold=40)),
    "add": lambda layer, inputs, tensors, mask: sum(inputs[1:], inputs[0]),
    "concat": lambda layer, inputs, tensors, mask: torch.cat(list(inputs), 1),
}
"""For every kind of layer the output for (layer, inputs, its own tensors, mask)."""


def _softmax_cross_entropy(network, output, y):
    return F.cross_entropy(output.flatten(1), y.long(), reduction="none")


def _squared_error(network, output, y):
    return F.mse_loss(output, y.to(output.dtype), reduction="none").flatten(1).sum(1) / 2


def _multiclass_hinge(network, output, y):
    # PyTorch's is divided by the number of classes.
    output = _at_least_single(output.flatten(1))
    return output.shape[1] * F.multi_margin_loss(output, y.long(), margin=network.margin, reduction="none")


def _logistic(network, output, y):
    losses = F.binary_cross_entropy_with_logits(output, y.to(output.dtype), reduction="none")
    return losses.flatten(1).sum(1)


LOSSES = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squared_error": _squared_error,
    "multiclass_hinge": _multiclass_hinge,
    "logistic": _logistic,
}
"""For every loss those of all data points, for (network, output, targets)."""
