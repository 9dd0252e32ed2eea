"""PyTorch's own convolution backward."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np

from fastcheck.errors import FastcheckError
from fastcheck.geometry import ConvGeometry

try:
    import torch
except ImportError:
    raise FastcheckError('PyTorch is not installed: pip install "fastcheck[torch]"') from None

_CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


def conv_backward(
    geometry: ConvGeometry,
    input: np.ndarray,
    weight: np.ndarray,
    grad_output: np.ndarray,
    threads: int,
    tensors: Collection[str],
) -> dict[str, np.ndarray]:
    """Compute VJPs of a convolution by PyTorch's autograd, from contiguous arrays of this geometry.

    Returns
    -------
    dict
        Arrays of the operands' dtype under those of ``"input"``, ``"weight"`` and ``"bias"`` that are in ``tensors``.
    """
    bias = np.zeros(geometry.shape_of("bias"), dtype=weight.dtype)
    arrays = {"input": input, "weight": weight, "bias": bias}
    operands = {name: torch.from_numpy(array).requires_grad_(name in tensors) for name, array in arrays.items()}
    wanted = {name: operand for name, operand in operands.items() if name in tensors}
    with _threads(threads):
        grads = torch.autograd.grad(_forward(geometry, **operands), [*wanted.values()], torch.from_numpy(grad_output))
    return {name: grad.numpy() for name, grad in zip(wanted, grads, strict=True)}


def _forward(geometry: ConvGeometry, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    both = [min(sides) for sides in geometry.padding]  # a PyTorch layer pads alike on both sides
    excess = [(low - same, high - same) for (low, high), same in zip(geometry.padding, both, strict=True)]
    if any(map(any, excess)):
        input = torch.nn.functional.pad(input, [side for sides in reversed(excess) for side in sides])
    convolution = _CONVOLUTIONS[geometry.rank]
    return convolution(input, weight, bias, geometry.stride, both, geometry.dilation, geometry.groups)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give PyTorch so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
