"""The oracle of whole networks: layers, losses and differences in plain loops. Imports nothing of fastcheck."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import naive
import numpy as np

KINKED = ("relu", "leaky_relu", "elu", "prelu")
"""Activations that are another function on each side of zero."""


@dataclass(frozen=True)
class Crossing:
    """A unit that is on another side of a kink at -h than at +h.

    ``unit`` is (n, c, spatial...) of the layer's output, or (n, class) of a hinge, whose ``layer`` is the loss's name.
    For the kind "sign", ``minus``, ``at`` and ``plus`` are the argument of the kink at -h, 0 and +h. For "winner" they
    are all positions (n, c, spatial...) of the pooling's input that are the largest of the window, in ascending order.
    """

    layer: str
    unit: tuple[int, ...]
    kind: str
    minus: Any
    at: Any
    plus: Any


def activations(network, params, x, masks=None):
    """Return the outputs of all layers, each of shape (N, ...)."""
    found = []
    for layer, taken in zip(network.layers, network.sources, strict=True):
        inputs = [_source(x, found, place) for place in taken]
        found.append(LAYERS[layer.kind](layer, inputs, tensors_of(params, layer), (masks or {}).get(layer.name)))
    return found


def data_losses(network, output, y):
    """Return the loss of every data point."""
    return [LOSSES[network.loss](network, _entries(output[n]), y[n]) for n in range(len(output))]


def penalty(network, params):
    """Return the regularisation."""
    penalties = network.penalties(list(params))
    return math.fsum(_penalised(penalties[name], float(w)) for name in penalties for w in params[name].flat)


def objective(network, params, x, y, masks=None, regularised=True):
    """Return the loss over all data points, and the regularisation."""
    losses = data_losses(network, activations(network, params, x, masks)[-1], y)
    return _weight(network, x) * math.fsum(losses) + (penalty(network, params) if regularised else 0.0)


def derivative(network, params, x, y, tensor, index, step, masks=None, regularised=True):
    """Return the two-sided difference quotient of the objective at an index (a tuple, or flat) of a tensor."""
    place = _place(params[tensor].shape, index)
    low, high = moved(params, tensor, index, -step), moved(params, tensor, index, step)
    below, above = (data_losses(network, activations(network, p, x, masks)[-1], y) for p in (low, high))
    change = _weight(network, x) * math.fsum(b - a for a, b in zip(below, above, strict=True))
    left, right = float(low[tensor][place]), float(high[tensor][place])
    if regularised and (found := network.penalties(list(params)).get(tensor)):
        change += _penalised(found, right) - _penalised(found, left)
    return change / (right - left)


def smooth(network):
    """Tell whether nothing in a network has a kink."""
    return network.loss != "multiclass_hinge" and not any(
        layer.kind in (*KINKED, "max_pool") for layer in network.layers
    )


def crossings(network, params, x, tensor, index, step, masks=None, y=None):
    """Return every kink that lies between -h and +h, layer by layer, the loss last. A hinge needs ``y``."""
    sides = [activations(network, moved(params, tensor, index, by), x, masks) for by in (-step, 0.0, step)]
    found = []
    for layer, taken in zip(network.layers, network.sources, strict=True):
        inputs = [_source(x, side, taken[0]) for side in sides]
        if layer.kind in KINKED:
            found += _signs(layer.name, inputs)
        elif layer.kind == "max_pool":
            found += _other_winners(layer, inputs)
    if network.loss == "multiclass_hinge":
        if y is None:
            raise ValueError("y is missing: which terms a hinge has depends on it")
        found += _signs(network.loss, [_hinge_terms(network, side[-1], y) for side in sides])
    return found


def moved(params, tensor, index, by):
    """Return the parameters with one entry moved."""
    array = params[tensor].copy()
    array[_place(array.shape, index)] += by
    return {**params, tensor: array}


def tensors_of(params, layer):
    """Return a layer's arrays by the last part of their names: its own, or those of the layer that it shares."""
    found = {}
    for name, array in params.items():
        owner, _, tensor = name.rpartition(".")
        if owner == (layer.shares or layer.name) and (tensor != "bias" or getattr(layer, "bias", True)):
            found[tensor] = array
    return found


def per_axis(value, rank):
    """Return one integer for each spatial axis."""
    return (int(value),) * rank if np.ndim(value) == 0 else tuple(int(v) for v in value)


def sides(layer, rank):
    """Return a layer's padding as one pair (low, high) for each spatial axis."""
    padding = layer.padding
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(per_axis(layer.dilation, rank), kernel(layer, rank), strict=True)]
        return tuple((span // 2, span - span // 2) for span in spans)
    entries = [padding] * rank if np.ndim(padding) == 0 else list(padding)
    return tuple(per_axis(entry, 2) for entry in entries)


def kernel(layer, rank):
    """Return the taps along each spatial axis."""
    return per_axis(layer.kernel_size, rank)


def pool_stride(layer, rank):
    """Return the stride of a pooling, which is its kernel's size unless told."""
    return kernel(layer, rank) if layer.stride is None else per_axis(layer.stride, rank)


def _source(x, found, place):
    return x if place < 0 else found[place]


def _place(shape, index):
    return tuple(index) if isinstance(index, tuple) else np.unravel_index(index, shape)


def _entries(array):
    return [float(z) for z in np.ravel(array)]


def _weight(network, x):
    return 1 / len(x) if network.reduction == "mean" else 1.0


def _penalised(penalty, w):
    return penalty.l2 / 2 * w * w + penalty.l1 * abs(w)


def _conv(layer, inputs, tensors, mask):
    (x,) = inputs
    rank = x.ndim - 2
    stride, dilation = per_axis(layer.stride, rank), per_axis(layer.dilation, rank)
    bias = tensors.get("bias", np.zeros(layer.out_channels))
    if layer.padding_mode != "zeros":
        wide = _padded(x, sides(layer, rank), layer.padding_mode)
        return naive.forward(wide, tensors["weight"], bias, stride, ((0, 0),) * rank, dilation, layer.groups)
    return naive.forward(x, tensors["weight"], bias, stride, sides(layer, rank), dilation, layer.groups)


def _padded(x, pads, mode):
    """Return a map with padding that is filled from its own pixels, one by one."""
    size = [low + n + high for n, (low, high) in zip(x.shape[2:], pads, strict=True)]
    out = np.zeros((*x.shape[:2], *size))
    for n, c, *place in np.ndindex(*out.shape):
        source = []
        for i, (low, _), count in zip(place, pads, x.shape[2:], strict=True):
            at = i - low
            if mode == "reflect":
                at = -at if at < 0 else 2 * (count - 1) - at if at >= count else at
            elif mode == "replicate":
                at = min(max(at, 0), count - 1)
            else:
                at = at + count if at < 0 else at - count if at >= count else at
            source.append(at)
        out[(n, c, *place)] = x[(n, c, *source)]
    return out


def _conv_transpose(layer, inputs, tensors, mask):
    """Every entry of the input adds the kernel, times itself, to the output; what falls on padding is cut off."""
    (x,), weight, rank = inputs, tensors["weight"], inputs[0].ndim - 2
    stride, dilation = per_axis(layer.stride, rank), per_axis(layer.dilation, rank)
    more, pads = per_axis(layer.output_padding, rank), sides(layer, rank)
    axes = zip(x.shape[2:], stride, dilation, weight.shape[2:], more, pads, strict=True)
    size = [(n - 1) * s + d * (k - 1) + 1 + extra - low - high for n, s, d, k, extra, (low, high) in axes]
    out = np.zeros((len(x), layer.out_channels, *size))
    per_group = x.shape[1] // layer.groups
    for n, i, *place in np.ndindex(*x.shape):
        for o, *tap in np.ndindex(*weight.shape[1:]):
            parts = zip(place, tap, stride, dilation, pads, strict=True)
            target = [p * s + t * d - low for p, t, s, d, (low, _) in parts]
            if all(0 <= at < count for at, count in zip(target, size, strict=True)):
                out[(n, i // per_group * weight.shape[1] + o, *target)] += weight[(i, o, *tap)] * x[(n, i, *place)]
    return out + tensors.get("bias", np.zeros(layer.out_channels)).reshape(1, -1, *(1,) * rank)


def _embedding(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros((len(x), layer.embedding_dim, *x.shape[1:]))
    for n, *place in np.ndindex(*x.shape):
        for c in range(layer.embedding_dim):
            out[(n, c, *place)] = tensors["weight"][int(x[(n, *place)]), c]
    return out


def _dense(layer, inputs, tensors, mask):
    (x,), weight = inputs, tensors["weight"]
    out = np.zeros((len(x), len(weight)))
    for n, o in np.ndindex(*out.shape):
        out[n, o] = math.fsum(weight[o, i] * x[n, i] for i in range(x.shape[1]))
        if "bias" in tensors:
            out[n, o] += tensors["bias"][o]
    return out


def _windows(layer, spatial, padded=False):
    """Yield every output position of a pooling with the input positions of its window, padding left out or not."""
    rank = len(spatial)
    taps, stride, dilation = kernel(layer, rank), pool_stride(layer, rank), per_axis(layer.dilation, rank)
    axes = []
    for size, k, s, d, (low, high) in zip(spatial, taps, stride, dilation, sides(layer, rank), strict=True):
        first, end = (-low, size + high) if padded else (0, size)
        starts = [start for start in range(-low, size + high, s) if start + d * (k - 1) < size + high]
        following = -low + s * len(starts)
        # The next window may reach beyond the padding, by less than a stride; but it may not begin there.
        if layer.ceil_mode and following < size and following + d * (k - 1) < size + high - 1 + s:
            starts.append(following)
        axes.append([[i for i in range(start, start + d * k, d) if first <= i < end] for start in starts])
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        yield place, list(itertools.product(*(axis[o] for axis, o in zip(axes, place, strict=True))))


def _pooled(layer, x, reduce):
    """Return what a function makes of the entries of every window, and of how many it counts."""
    windows = list(_windows(layer, x.shape[2:]))
    counts = [len(window) for _, window in _windows(layer, x.shape[2:], getattr(layer, "count_include_pad", False))]
    size = [o + 1 for o in windows[-1][0]]
    out = np.zeros((*x.shape[:2], *size))
    for n, c in np.ndindex(*x.shape[:2]):
        for (place, window), count in zip(windows, counts, strict=True):
            out[(n, c, *place)] = reduce([float(x[(n, c, *i)]) for i in window], count)
    return out


def _max_pool(layer, inputs, tensors, mask):
    return _pooled(layer, inputs[0], lambda entries, count: max(entries, default=-math.inf))


def _avg_pool(layer, inputs, tensors, mask):
    return _pooled(layer, inputs[0], lambda entries, count: math.fsum(entries) / count)


def _global_avg_pool(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros(x.shape[:2])
    for n, c in np.ndindex(*out.shape):
        out[n, c] = math.fsum(_entries(x[n, c])) / x[n, c].size
    return out


def _moments(values):
    entries = _entries(values)
    mean = math.fsum(entries) / len(entries)
    return mean, math.fsum((z - mean) ** 2 for z in entries) / len(entries)


def _batch_norm(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros(x.shape)
    for c in range(x.shape[1]):
        mean, var = _moments(x[:, c])
        if layer.frozen:
            mean, var = tensors["running_mean"][c], tensors["running_var"][c]
        for n, *place in np.ndindex(len(x), *x.shape[2:]):
            scaled = (x[(n, c, *place)] - mean) / math.sqrt(var + layer.eps)
            out[(n, c, *place)] = tensors["weight"][c] * scaled + tensors["bias"][c]
    return out


def _layer_norm(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros(x.shape)
    for n in range(len(x)):
        mean, var = _moments(x[n])
        for place in np.ndindex(*x.shape[1:]):
            scaled = (x[(n, *place)] - mean) / math.sqrt(var + layer.eps)
            out[(n, *place)] = tensors["weight"][place] * scaled + tensors["bias"][place]
    return out


def _by_groups(x, groups, eps, tensors):
    """Return every data point's groups of channels, normalised."""
    out, together = np.zeros(x.shape), x.shape[1] // groups
    for n, c in np.ndindex(*x.shape[:2]):
        first = c // together * together
        mean, var = _moments(x[n, first : first + together])
        for place in np.ndindex(*x.shape[2:]):
            scaled = (x[(n, c, *place)] - mean) / math.sqrt(var + eps)
            out[(n, c, *place)] = tensors["weight"][c] * scaled + tensors["bias"][c] if tensors else scaled
    return out


def _softmax(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros(x.shape)
    for n, *place in np.ndindex(len(x), *x.shape[2:]):
        z = [float(x[(n, c, *place)]) for c in range(x.shape[1])]
        exps = [math.exp(entry - max(z)) for entry in z]
        for c, e in enumerate(exps):
            out[(n, c, *place)] = e / math.fsum(exps)
    return out


def _prelu(layer, inputs, tensors, mask):
    (x,), slopes = inputs, tensors["weight"]
    out = np.zeros(x.shape)
    for n, c, *place in np.ndindex(*x.shape):
        z = x[(n, c, *place)]
        out[(n, c, *place)] = z if z > 0 else slopes[c % len(slopes)] * z
    return out


def _dropout(layer, inputs, tensors, mask):
    (x,) = inputs
    out = x.copy()
    for place in np.ndindex(*x.shape):
        if mask is not None:
            out[place] = x[place] * mask[place] / (1 - layer.p)
    return out


def _flatten(layer, inputs, tensors, mask):
    (x,) = inputs
    out = np.zeros((len(x), math.prod(x.shape[1:])))
    for n in range(len(x)):
        for i, place in enumerate(np.ndindex(*x.shape[1:])):
            out[n, i] = x[(n, *place)]
    return out


def _elementwise(function):
    def forward(layer, inputs, tensors, mask):
        (x,) = inputs
        out = np.zeros(x.shape)
        for place in np.ndindex(*x.shape):
            out[place] = function(layer, float(x[place]))
        return out

    return forward


def _sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def _softplus(z):
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def _gelu(layer, z):
    if layer.approximate == "tanh":
        return z / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return z / 2 * math.erfc(-z / math.sqrt(2))


def _add(layer, inputs, tensors, mask):
    out = np.zeros(inputs[0].shape)
    for place in np.ndindex(*out.shape):
        out[place] = math.fsum(x[place] for x in inputs)
    return out


def _concat(layer, inputs, tensors, mask):
    out = np.zeros((len(inputs[0]), sum(x.shape[1] for x in inputs), *inputs[0].shape[2:]))
    first = 0
    for x in inputs:
        for n, c in np.ndindex(*x.shape[:2]):
            out[n, first + c] = x[n, c]
        first += x.shape[1]
    return out


LAYERS = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "embedding": _embedding,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": lambda layer, inputs, tensors, mask: _by_groups(inputs[0], layer.num_groups, layer.eps, tensors),
    "instance_norm": lambda layer, inputs, tensors, mask: _by_groups(inputs[0], inputs[0].shape[1], layer.eps, tensors),
    "dropout": _dropout,
    "flatten": _flatten,
    "relu": _elementwise(lambda layer, z: z if z > 0 else 0.0),
    "leaky_relu": _elementwise(lambda layer, z: z if z > 0 else layer.negative_slope * z),
    "prelu": _prelu,
    "softmax": _softmax,
    "elu": _elementwise(lambda layer, z: z if z > 0 else layer.alpha * math.expm1(z)),
    "gelu": _elementwise(_gelu),
    "silu": _elementwise(lambda layer, z: z * _sigmoid(z)),
    "tanh": _elementwise(lambda layer, z: math.tanh(z)),
    "sigmoid": _elementwise(lambda layer, z: _sigmoid(z)),
    "softplus": _elementwise(lambda layer, z: _softplus(layer.beta * z) / layer.beta),
    "add": _add,
    "concat": _concat,
}
"""For every kind of layer the output for (layer, inputs, its own tensors, mask)."""


def _softmax_cross_entropy(network, z, label):
    top = max(z)
    return top + math.log(math.fsum(math.exp(entry - top) for entry in z)) - z[int(label)]


def _squared_error(network, z, target):
    return math.fsum((entry - t) ** 2 for entry, t in zip(z, _entries(target), strict=True)) / 2


def _multiclass_hinge(network, z, label):
    terms = (entry - z[int(label)] + network.margin for j, entry in enumerate(z) if j != int(label))
    return math.fsum(max(0.0, term) for term in terms)


def _logistic(network, z, target):
    return math.fsum(_softplus(entry) - t * entry for entry, t in zip(z, _entries(target), strict=True))


LOSSES = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squared_error": _squared_error,
    "multiclass_hinge": _multiclass_hinge,
    "logistic": _logistic,
}
"""For every loss that of one data point, for (network, entries of its output, its target)."""


def _hinge_terms(network, output, y):
    """Return the arguments of max(0, .), (N, classes); minus infinity for the true class, which has none."""
    terms = np.zeros((len(output), output[0].size))
    for n, j in np.ndindex(*terms.shape):
        z, label = output[n].reshape(-1), int(y[n])
        terms[n, j] = z[j] - z[label] + network.margin if j != label else -math.inf
    return terms


def _signs(name, sides):
    minus, at, plus = sides
    return [
        Crossing(name, unit, "sign", float(minus[unit]), float(at[unit]), float(plus[unit]))
        for unit in np.ndindex(*at.shape)
        if (minus[unit] > 0) != (plus[unit] > 0)
    ]


def _other_winners(layer, sides):
    found = []
    for n, c in np.ndindex(*sides[0].shape[:2]):
        for place, window in _windows(layer, sides[0].shape[2:]):
            positions = [(n, c, *i) for i in window]
            minus, at, plus = (_winners(side, positions) for side in sides)
            if minus != plus:
                found.append(Crossing(layer.name, (n, c, *place), "winner", minus, at, plus))
    return found


def _winners(x, positions):
    top = max((x[i] for i in positions), default=-math.inf)
    return tuple(i for i in positions if x[i] == top)
