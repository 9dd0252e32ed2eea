"""PyTorch's own convolution backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing
from fastcheck.convolutions.geometry import ConvGeometry

try:
    import torch
except ImportError:
    raise FastcheckError(f"PyTorch is not installed: {installing('torch')}") from None

_F = torch.nn.functional
_CONVOLUTIONS = {1: _F.conv1d, 2: _F.conv2d, 3: _F.conv3d}
_TRANSPOSED = {1: _F.conv_transpose1d, 2: _F.conv_transpose2d, 3: _F.conv_transpose3d}


def conv_backward(
    geometry: ConvGeometry,
    input: np.ndarray,
    weight: np.ndarray,
    grad_output: np.ndarray,
    threads: int,
    tensors: Collection[str],
) -> dict[str, np.ndarray]:
    """Compute VJPs of a convolution by PyTorch's autograd, from contiguous arrays with this geometry.

    Returns
    -------
    dict
        Arrays in the operands' dtype, for each of ``"input"``, ``"weight"`` and ``"bias"`` that is in ``tensors``.
    """
    bias = np.zeros(geometry.shape_of("bias"), dtype=weight.dtype)
    arrays = {"input": input, "weight": weight, "bias": bias}
    operands = {name: torch.from_numpy(array).requires_grad_(name in tensors) for name, array in arrays.items()}
    wanted = {name: operand for name, operand in operands.items() if name in tensors}
    with _threads(threads):
        grads = torch.autograd.grad(_forward(geometry, **operands), [*wanted.values()], torch.from_numpy(grad_output))
    return {name: grad.numpy() for name, grad in zip(wanted, grads, strict=True)}


@contextmanager
def backward_pass(
    geometry: ConvGeometry,
    input: np.ndarray,
    weight: np.ndarray,
    grad_output: np.ndarray,
    threads: int,
    tensor: str,
) -> Iterator[Callable[[], object]]:
    """Yield a function for timing that computes one VJP and nothing else: no forward pass, no padding."""
    x, w, v = (torch.from_numpy(array) for array in (input, weight, grad_output))
    x, both = _padded(geometry, x)
    wanted = [tensor == name for name in ("input", "weight", "bias")]
    bias_sizes, output_padding = [geometry.weight_shape[0]], [0] * geometry.rank
    fixed = (bias_sizes, geometry.stride, both, geometry.dilation, False, output_padding, geometry.groups, wanted)
    with _threads(threads):
        yield lambda: torch.ops.aten.convolution_backward(v, x, w, *fixed)


def _forward(geometry: ConvGeometry, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if geometry.transposed:
        return _transposed(geometry, input, weight, bias)
    input, both = _padded(geometry, input)
    convolution = _CONVOLUTIONS[geometry.rank]
    return convolution(input, weight, bias, geometry.stride, both, geometry.dilation, geometry.groups)


def _transposed(geometry: ConvGeometry, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Crop after the convolution, since PyTorch crops both sides alike."""
    parameters = geometry.stride, 0, geometry.output_padding, geometry.groups, geometry.dilation
    whole = _TRANSPOSED[geometry.rank](input, weight, bias, *parameters)
    for axis, (low, _) in enumerate(geometry.padding, 2):
        whole = whole.narrow(axis, low, geometry.output_shape[axis])
    return whole


def _padded(geometry: ConvGeometry, input: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Pad the excess of one side over the other, since PyTorch pads both alike; return input and remaining padding.

    Under other modes than zeros, pad all: PyTorch's functions have no mode.
    """
    if geometry.padding_mode != "zeros":
        sides = [side for pair in reversed(geometry.padding) for side in pair]
        return _F.pad(input, sides, geometry.padding_mode), [0] * geometry.rank
    both = [min(sides) for sides in geometry.padding]
    excess = [(low - same, high - same) for (low, high), same in zip(geometry.padding, both, strict=True)]
    if any(map(any, excess)):
        input = _F.pad(input, [side for sides in reversed(excess) for side in sides])
    return input, both


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set PyTorch's number of threads for the duration of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
