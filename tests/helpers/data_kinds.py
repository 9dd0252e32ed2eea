"""Kinds of data that gradients are computed from, and random convolutions of such data with correct gradients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from layer_examples import Layer, torch_forward

import fastcheck
from fastcheck.convolutions import passes


def random(rng, shape):
    return rng.standard_normal(shape)


def sparse(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.1)


def constant(rng, shape):
    return np.full(shape, rng.standard_normal())


def positive(rng, shape):
    return rng.random(shape) + 0.5


def bytes(rng, shape):
    return rng.integers(0, 256, shape) / 255


def wide(rng, shape):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-8, 8, shape)


def cancelling(rng, shape):
    values = rng.standard_normal(shape)
    values.flat[1::2] = -values.flat[: values.size - 1 : 2][: values.flat[1::2].size]
    return values


def subnormal(rng, shape):
    return np.where(rng.random(shape) < 0.3, 5e-324 * rng.integers(1, 9, shape), rng.standard_normal(shape))


def one_large(rng, shape):
    values = rng.standard_normal(shape)
    values.flat[0] = 1e6
    return values


KINDS = [random, sparse, constant, positive, bytes, wide, cancelling, subnormal, one_large]
"""Each takes a generator and a shape."""

NAMES = ("input", "weight", "bias")


def any_layer(rng, most_products=2**18):
    """A random layer of one to three spatial axes: strided, dilated, padded per side, grouped or depthwise."""
    while True:
        rank = int(rng.integers(1, 4))
        groups = int(rng.choice([1, 1, 2, 3, 8]))
        inside, filters = (int(rng.integers(1, 12 // min(groups, 4))) for _ in range(2))
        samples = int(rng.integers(1, 4))
        taps = rng.integers(1, {1: 10, 2: 6, 3: 4}[rank], rank)
        stride, dilation = rng.integers(1, 4, rank), rng.integers(1, 3, rank)
        padding = rng.integers(0, 4, (rank, 2))
        least = np.maximum(1, dilation * (taps - 1) + 1 - padding.sum(axis=1))
        sizes = least + rng.integers(0, {1: 120, 2: 20, 3: 6}[rank], rank)
        made = Layer(
            (samples, groups * inside, *sizes.tolist()),
            (groups * filters, inside, *taps.tolist()),
            tuple(stride.tolist()),
            tuple(map(tuple, padding.tolist())),
            tuple(dilation.tolist()),
            groups,
        )
        if np.prod(made.input_shape) * np.prod(made.weight_shape) / groups < 64 * most_products:
            return made


def made(a_layer, kinds, scale, dtype, seed, backward="torch"):
    """A case of some kinds of input, weight and cotangent, with PyTorch's gradients or the reference's."""
    rng = np.random.default_rng(seed)
    # float32 cannot hold the smallest float64: its own rounding of operands is not the gradient's fault.
    x, w = (
        kind(rng, shape).astype(dtype)
        for kind, shape in zip(kinds, (a_layer.input_shape, a_layer.weight_shape), strict=False)
    )
    b = rng.standard_normal(w.shape[0]).astype(dtype)
    x = (x * scale).astype(dtype)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    out = torch_forward(a_layer, *tensors)
    v = kinds[2](rng, out.shape).astype(dtype)
    case = fastcheck.ConvCase(
        x,
        w,
        b,
        grad_output=v,
        grads=_gradients(out, tensors, v),
        output=out.detach().numpy(),
        **a_layer.arguments,
    )
    if backward == "reference":
        with ThreadPoolExecutor(1) as pool:
            case.grads = passes.backward(case.geometry, case.input, case.weight, case.grad_output, pool)
    return case


def _gradients(out, tensors, v):
    found = torch.autograd.grad(out, tensors, torch.from_numpy(v))
    return {name: grad.numpy() for name, grad in zip(NAMES, found, strict=True)}
