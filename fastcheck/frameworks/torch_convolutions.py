"""PyTorch's convolutions as cases whose every dimension is differenced by the evaluators for convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.frameworks.torch_functions import TorchFunction
from fastcheck.frameworks.torch_modules import Module
from fastcheck.frameworks.torch_tensors import Tensor, torch

CONVOLUTIONS: dict[type[Module], Callable[..., Tensor]] = {
    torch.nn.Conv1d: torch.nn.functional.conv1d,
    torch.nn.Conv2d: torch.nn.functional.conv2d,
    torch.nn.Conv3d: torch.nn.functional.conv3d,
}

ALIKE = 1e-9
"""Largest difference of a module's output from that of the convolution that its class declares, relative to the largest
output. A subclass may compute something else."""

OPERANDS = {"input 0": "input", "weight": "weight", "bias": "bias"}


def is_convolution(module: Any, inputs: Sequence[Any]) -> bool:
    """Whether a module may be a convolution of its only input, by its class."""
    plain = isinstance(module, tuple(CONVOLUTIONS)) and len(inputs) == 1 and isinstance(inputs[0], Tensor)
    return plain and module.padding_mode == "zeros" and inputs[0].is_floating_point()


def case_of(module: Module, function: TorchFunction, grad_output: Any, seed: int) -> ConvCase | None:
    """Return the case of a convolution with autograd's gradient; None if the module computes something else.

    Parameters
    ----------
    module : torch.nn.Conv1d, torch.nn.Conv2d or torch.nn.Conv3d
        Or of a subclass, perhaps with a backward of its own.
    function : TorchFunction
        The module with its input.
    grad_output : tensor, optional
    seed : int
        Random seed for the cotangent.
    """
    operands = {OPERANDS[name]: value for name, value in function.values().items() if name in OPERANDS}
    output, expected = function.forward(**function.start), _declared(module, operands)
    if len(operands) < 2 + (module.bias is not None) or output.shape != expected.shape:
        return None
    if not (output - expected).abs().max() <= ALIKE * expected.abs().max():
        return None
    cotangent = _drawn(output, seed) if grad_output is None else grad_output.to(output)
    grads = function.backward(cotangent, **function.start)
    arrays = {"output": output, "grad_output": cotangent, "input": operands.pop("input")}
    if output.dim() < operands["weight"].dim():  # one sample alone
        arrays = {name: value[None] for name, value in arrays.items()}
        grads = {name: grad[None] if name == "input 0" else grad for name, grad in grads.items()}
    return ConvCase(
        **arrays,
        **operands,
        grads={OPERANDS[name]: grad for name, grad in grads.items()},
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
    )


def _declared(module: Module, operands: dict[str, Tensor]) -> Tensor:
    convolution = next(function for kind, function in CONVOLUTIONS.items() if isinstance(module, kind))
    geometry = (module.stride, module.padding, module.dilation, module.groups)
    return convolution(operands["input"], operands["weight"], operands.get("bias"), *geometry)


def _drawn(output: Tensor, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=tuple(output.shape))).to(output)
