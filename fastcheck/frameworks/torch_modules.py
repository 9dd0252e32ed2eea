"""A module of PyTorch as a function of its inputs, parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastcheck.frameworks.torch_functions import Call
from fastcheck.frameworks.torch_tensors import torch
from fastcheck.metrics import autograd_health
from fastcheck.metrics.health import HealthFinding

Module = torch.nn.Module


def call_of(module: Module, inputs: Sequence[Any]) -> Call:
    """Return the call of a module: its inputs as "input 0", "input 1", ..., and what it holds by its own names."""
    numbered = Call.of(module, inputs).given
    buffers = dict(module.named_buffers())
    given = {**numbered, **dict(module.named_parameters()), **buffers}
    return Call(given, _with_state(module, list(numbered)), frozenset(buffers))


def reference_of(call: Call, reference: Callable[..., Any], inputs: Sequence[Any]) -> Call:
    """Return the call of a reference of a module: a module with the same parameters, or a function that takes them."""
    numbered = list(Call.of(reference, inputs).given)
    if isinstance(reference, Module):
        return replace(call, function=_with_state(reference, numbered))

    def function(values: Mapping[str, Any]) -> Any:
        params = {name: value for name, value in values.items() if name not in numbered and name not in call.buffers}
        return reference(*(values[name] for name in numbered), **params)

    return replace(call, function=function)


def _with_state(module: Module, inputs: Sequence[str]) -> Callable[[Mapping[str, Any]], Any]:
    """Return a module as a function of its inputs, parameters and buffers by name."""
    held = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]

    def function(values: Mapping[str, Any]) -> Any:
        state = {name: values[name] for name in held if name in values}
        return torch.func.functional_call(module, state, tuple(values[name] for name in inputs))

    return function


def notes_on(module: Module) -> Iterator[HealthFinding]:
    """Yield how a module was called, where that matters."""
    if any(one.training and _differs_in_training(one) for one in module.modules()):
        yield autograd_health.training_mode()


def _differs_in_training(module: Module) -> bool:
    normalises = isinstance(module, torch.nn.modules.batchnorm._NormBase)
    return normalises or isinstance(module, torch.nn.modules.dropout._DropoutNd)
