"""PyTorch's convolutions as cases whose every dimension is differenced by the evaluators for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.frameworks.torch_functions import TorchFunction
from fastcheck.frameworks.torch_modules import Module
from fastcheck.frameworks.torch_tensors import Tensor, torch

PLAIN = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)

TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)

ALIKE = 1e-9
"""Largest difference of a module's output from that of the convolution that its class declares, relative to the largest
output. A subclass may compute something else."""

OPERANDS = {"input 0": "input", "weight": "weight", "bias": "bias"}


def is_convolution(module: Any, inputs: Sequence[Any]) -> bool:
    """Whether a module may be a convolution of its only input, by its class."""
    alone = len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point()
    return alone and isinstance(module, (*PLAIN, *TRANSPOSED))


def case_of(module: Module, function: TorchFunction, grad_output: Any, seed: int) -> ConvCase | None:
    """Return the case of a convolution with autograd's gradient; None if the module computes something else.

    Parameters
    ----------
    module : torch.nn.Conv1d, ..., torch.nn.ConvTranspose3d
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
        padding_mode=module.padding_mode,
        transposed=isinstance(module, TRANSPOSED),
        output_padding=module.output_padding if isinstance(module, TRANSPOSED) else 0,
    )


class _Declared(Module):
    """A module that computes what the class of another one says, whatever its subclass does."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module
        self._kind: Any = next(kind for kind in (*PLAIN, *TRANSPOSED) if isinstance(module, kind))

    def forward(self, input: Tensor) -> Any:
        return self._kind.forward(self.module, input)


def _declared(module: Module, operands: dict[str, Tensor]) -> Any:
    """Return the output of the convolution that the module's class declares."""
    held = {f"module.{name}": operands[name] for name in ("weight", "bias") if name in operands}
    return torch.func.functional_call(_Declared(module), held, (operands["input"],))


def _drawn(output: Tensor, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=tuple(output.shape))).to(output)
