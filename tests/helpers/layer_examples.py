"""Layers for tests: geometries made by hypothesis, and cases with PyTorch's gradients."""

from __future__ import annotations

from dataclasses import dataclass

import naive
import numpy as np
import torch
from hypothesis import strategies as st

import fastcheck

TORCH = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


@dataclass(frozen=True)
class Layer:
    """The arguments of a convolution, with one entry for each spatial axis."""

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def arguments(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


def layer(input_shape, weight_shape, stride=1, padding=0, dilation=1, groups=1):
    """Make a layer from one number for all axes."""
    rank = len(input_shape) - 2
    return Layer(input_shape, weight_shape, (stride,) * rank, ((padding, padding),) * rank, (dilation,) * rank, groups)


@st.composite
def layers(draw, most=5):
    """Small layers of every rank with any stride, padding per side, dilation and groups; depthwise ones among them."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = draw(st.integers(1, 3))
    filters = groups * draw(st.integers(1, 6 if rank < 3 else 2))
    samples = draw(st.integers(1, 2))
    stride, padding, dilation, taps, sizes = [], [], [], [], []
    for _ in range(rank):
        s, d, k = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3 if rank == 3 else 4))
        low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        least = max(1, d * (k - 1) + 1 - low - high)
        sizes.append(draw(st.integers(least, least + most)))
        for axis, value in ((stride, s), (dilation, d), (taps, k), (padding, (low, high))):
            axis.append(value)
    return Layer(
        (samples, groups * per_group, *sizes),
        (filters, per_group, *taps),
        tuple(stride),
        tuple(padding),
        tuple(dilation),
        groups,
    )


def operands(layer, seed=0, dtype=np.float64):
    """Random input, weight and bias."""
    rng = np.random.default_rng(seed)
    shapes = (layer.input_shape, layer.weight_shape, layer.weight_shape[:1])
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def torch_forward(layer, x, w, b):
    """PyTorch's convolution; padding per side by padding the input first."""
    padded = _padded(x, layer.padding)
    return TORCH[len(layer.stride)](padded, w, b, layer.stride, 0, layer.dilation, layer.groups)


def _padded(x, padding):
    return torch.nn.functional.pad(x, [side for pair in reversed(padding) for side in pair])


def torch_backward(x, w, v, stride, padding, dilation, groups):
    """PyTorch's VJPs, called as `naive.backward`: what is believed may ask for more outputs than ``v`` has."""
    cotangent = np.zeros(naive.output_shape(x, w, stride, padding, dilation), v.dtype)
    cotangent[tuple(map(slice, v.shape))] = v
    v, x, w = (torch.from_numpy(np.ascontiguousarray(array)) for array in (cotangent, x, w))
    still, filters = [0] * len(stride), [len(w)]
    grads = torch.ops.aten.convolution_backward(
        v, _padded(x, padding), w, filters, stride, still, dilation, False, still, groups, [True] * 3
    )
    inside = tuple(slice(low, low + size) for (low, _), size in zip(padding, x.shape[2:], strict=True))
    grad_input, grad_weight, grad_bias = (grad.numpy() for grad in grads)
    return {"input": grad_input[(..., *inside)], "weight": grad_weight, "bias": grad_bias}


def torch_gradients(layer, x, w, b, seed=1):
    """PyTorch's output, a random cotangent, and its VJPs by name."""
    tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in (x, w, b)]
    out = torch_forward(layer, *tensors)
    v = np.random.default_rng(seed).standard_normal(out.shape).astype(x.dtype)
    grads = torch.autograd.grad(out, tensors, torch.from_numpy(v))
    return out.detach().numpy(), v, dict(zip(("input", "weight", "bias"), (g.numpy() for g in grads), strict=True))


def case(layer, seed=0, dtype=np.float64, **changes):
    """A case with PyTorch's output and gradients; ``changes`` replace arguments of `ConvCase`."""
    x, w, b = operands(layer, seed, dtype)
    out, v, grads = torch_gradients(layer, x, w, b, seed + 1)
    arguments = {"input": x, "weight": w, "bias": b, "grad_output": v, "grads": grads, "output": out}
    return fastcheck.ConvCase(**(arguments | layer.arguments | changes))


def saved(path, layer, seed=0, dtype=np.float64, **changes):
    """The same as an .npz file; a change of None leaves the key out."""
    x, w, b = operands(layer, seed, dtype)
    out, v, grads = torch_gradients(layer, x, w, b, seed + 1)
    arrays = {"input": x, "weight": w, "bias": b, "grad_output": v, "output": out}
    arrays |= {f"grad_{name}": array for name, array in grads.items()} | layer.arguments | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path
