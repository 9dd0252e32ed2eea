"""The oracle: a cross-correlation and its VJPs in plain loops. Imports nothing of fastcheck."""

import itertools

import numpy as np


def _taps(x, w, stride, padding, dilation, groups, output_shape):
    """Yield (output index, weight index, input index) of every product of the convolution."""
    per_group, filters = w.shape[1], w.shape[0] // groups
    for position in np.ndindex(*output_shape):
        n, f, *place = position
        for c in range(per_group):
            for tap in itertools.product(*(range(k) for k in w.shape[2:])):
                source = [
                    o * s - low + t * d
                    for o, s, (low, _), t, d in zip(place, stride, padding, tap, dilation, strict=True)
                ]
                if all(0 <= i < size for i, size in zip(source, x.shape[2:], strict=True)):
                    yield position, (f, c, *tap), (n, f // filters * per_group + c, *source)


def output_shape(x, w, stride, padding, dilation):
    spatial = [
        (size + low + high - d * (k - 1) - 1) // s + 1
        for size, k, s, (low, high), d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    ]
    return (x.shape[0], w.shape[0], *spatial)


def forward(x, w, b, stride, padding, dilation, groups):
    out = np.zeros(output_shape(x, w, stride, padding, dilation))
    for position, weight, source in _taps(x, w, stride, padding, dilation, groups, out.shape):
        out[position] += w[weight] * x[source]
    return out + b.reshape(1, -1, *(1,) * (out.ndim - 2))


def backward(x, w, v, stride, padding, dilation, groups):
    grad_x, grad_w = np.zeros(x.shape), np.zeros(w.shape)
    for position, weight, source in _taps(x, w, stride, padding, dilation, groups, v.shape):
        grad_x[source] += v[position] * w[weight]
        grad_w[weight] += v[position] * x[source]
    return {"input": grad_x, "weight": grad_w, "bias": v.sum(axis=(0, *range(2, v.ndim)))}


def _scattered(x, w, stride, padding, dilation, groups, output_shape):
    """Yield (output index, weight index, input index) of every product of the transposed convolution."""
    per_group, channels = w.shape[1], w.shape[0] // groups
    for source in np.ndindex(*x.shape):
        n, c, *place = source
        for f in range(per_group):
            for tap in itertools.product(*(range(k) for k in w.shape[2:])):
                position = [
                    i * s + t * d - low
                    for i, s, t, d, (low, _) in zip(place, stride, tap, dilation, padding, strict=True)
                ]
                if all(0 <= o < size for o, size in zip(position, output_shape[2:], strict=True)):
                    yield (n, c // channels * per_group + f, *position), (c, f, *tap), source


def transposed_shape(x, w, stride, padding, dilation, groups, output_padding):
    axes = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, output_padding, strict=True)
    spatial = [(size - 1) * s - low - high + d * (k - 1) + 1 + more for size, k, s, (low, high), d, more in axes]
    return (x.shape[0], w.shape[1] * groups, *spatial)


def transposed_forward(x, w, b, stride, padding, dilation, groups, output_padding):
    out = np.zeros(transposed_shape(x, w, stride, padding, dilation, groups, output_padding))
    for position, weight, source in _scattered(x, w, stride, padding, dilation, groups, out.shape):
        out[position] += w[weight] * x[source]
    return out + b.reshape(1, -1, *(1,) * (out.ndim - 2))


def transposed_backward(x, w, v, stride, padding, dilation, groups):
    grad_x, grad_w = np.zeros(x.shape), np.zeros(w.shape)
    for position, weight, source in _scattered(x, w, stride, padding, dilation, groups, v.shape):
        grad_x[source] += v[position] * w[weight]
        grad_w[weight] += v[position] * x[source]
    return {"input": grad_x, "weight": grad_w, "bias": v.sum(axis=(0, *range(2, v.ndim)))}


def source(position, size, mode):
    """The entry that stands at a position before or beyond an axis."""
    if mode == "circular":
        return position % size
    if mode == "replicate":
        return min(max(position, 0), size - 1)
    return -position if position < 0 else 2 * (size - 1) - position if position >= size else position


def padded(x, padding, mode):
    """The input with its padding, and for every entry of that the index of the input's entry that it is."""
    shape = (*x.shape[:2], *(low + size + high for size, (low, high) in zip(x.shape[2:], padding, strict=True)))
    out, sources = np.zeros(shape), {}
    for position in np.ndindex(*shape):
        axes = zip(position[2:], x.shape[2:], padding, strict=True)
        sources[position] = (*position[:2], *(source(i - low, size, mode) for i, size, (low, _) in axes))
        out[position] = x[sources[position]]
    return out, sources


def padded_forward(x, w, b, padding, mode, **arguments):
    return forward(padded(x, padding, mode)[0], w, b, padding=((0, 0),) * (w.ndim - 2), **arguments)


def padded_backward(x, w, v, padding, mode, **arguments):
    whole, sources = padded(x, padding, mode)
    grads = backward(whole, w, v, padding=((0, 0),) * (w.ndim - 2), **arguments)
    grad_x = np.zeros(x.shape)
    for position, entry in sources.items():
        grad_x[entry] += grads["input"][position]
    return {**grads, "input": grad_x}
