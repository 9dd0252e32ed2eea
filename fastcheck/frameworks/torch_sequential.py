"""PyTorch's sequential modules as networks whose every parameter is differenced through the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import quoted
from fastcheck.frameworks.torch_tensors import torch
from fastcheck.networks import layers
from fastcheck.networks.network import Network

nn = torch.nn

Module = torch.nn.Module


def from_sequential(module: Any, loss: str = "softmax_cross_entropy", **options: Any) -> Network:
    """Return a sequential module as a `fastcheck.Network`; its parameters have the names that they have in the module.

    Parameters
    ----------
    module : torch.nn.Sequential
        Of layers that a network has, or of sequential modules. A batch normalisation in eval mode is frozen: its
        statistics come with the parameters, in ``module.state_dict()``.
    loss, **options
        As in `fastcheck.Network`.

    Returns
    -------
    Network
        For ``check_network(network, module.state_dict(), grads, x, y)``.

    Raises
    ------
    FastcheckError
        If the module is not sequential, or a network has no such layer.
    """
    if not isinstance(module, nn.Sequential):
        raise FastcheckError(f"module is {quoted(type(module).__name__)}: expected a torch.nn.Sequential")
    return Network(list(_layers(module)), loss, **options)


def _layers(module: Any) -> Iterator[layers.Layer]:
    """Yield the layers; a module that stands in several places shares its parameters with the first."""
    first: dict[int, str] = {}
    for name, child in _leaves(module, ""):
        shared = first.setdefault(id(child), name) != name and any(True for _ in child.parameters())
        layer = _layer(child, name)
        yield replace(layer, shares=first[id(child)]) if shared else layer


def _leaves(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, child in module._modules.items():  # named_children leaves out the second place of a module
        if isinstance(child, nn.Sequential):
            yield from _leaves(child, f"{prefix}{name}.")
        elif not isinstance(child, nn.Identity):
            yield f"{prefix}{name}", child


def _layer(module: Any, name: str) -> layers.Layer:
    for kind, make in KINDS.items():
        if type(module) is kind:
            try:
                return make(module).named(name)
            except FastcheckError as error:
                raise FastcheckError(f"module {name!r} ({kind.__name__}): {error}") from None
    raise FastcheckError(
        f"module {name!r} is {type(module).__name__}: no layer of a network is one; fastcheck.torch.check takes "
        "any module"
    )


def _refuse(module: Any, **expected: Any) -> None:
    """Refuse a module with another value of an attribute than a layer has."""
    for name, value in expected.items():
        if getattr(module, name) != value:
            raise FastcheckError(f"{name} is {getattr(module, name)!r}: expected {value!r}")


def _conv(module: Any) -> layers.Layer:
    return layers.Conv(
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        module.in_channels,
        module.padding_mode,
    )


def _conv_transpose(module: Any) -> layers.Layer:
    return layers.ConvTranspose(
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.output_padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        module.in_channels,
    )


def _max_pool(module: Any) -> layers.Layer:
    _refuse(module, return_indices=False)
    return layers.MaxPool(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)


def _avg_pool(module: Any) -> layers.Layer:
    if hasattr(module, "divisor_override"):
        _refuse(module, divisor_override=None)
    return layers.AvgPool(module.kernel_size, module.stride, module.padding, module.count_include_pad, module.ceil_mode)


def _adaptive(module: Any) -> layers.Layer:
    if module.output_size not in (1, (1,), (1, 1), (1, 1, 1)):
        raise FastcheckError(f"output_size is {module.output_size!r}: expected 1")
    return layers.GlobalAvgPool()


def _batch_norm(module: Any) -> layers.Layer:
    _refuse(module, affine=True)
    return layers.BatchNorm(module.eps, frozen=not module.training and module.track_running_stats)


def _layer_norm(module: Any) -> layers.Layer:
    _refuse(module, elementwise_affine=True)
    return layers.LayerNorm(module.eps)


def _group_norm(module: Any) -> layers.Layer:
    return layers.GroupNorm(module.num_groups, module.eps, module.affine)


def _instance_norm(module: Any) -> layers.Layer:
    _refuse(module, track_running_stats=False)
    return layers.InstanceNorm(module.eps, module.affine)


def _softmax(module: Any) -> layers.Layer:
    _refuse(module, dim=1)
    return layers.Softmax()


def _flatten(module: Any) -> layers.Layer:
    _refuse(module, start_dim=1, end_dim=-1)
    return layers.Flatten()


KINDS: dict[type[Module], Callable[[Any], layers.Layer]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv_transpose),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _avg_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), lambda module: layers.Dropout(module.p)),
    nn.Linear: lambda module: layers.Dense(module.out_features, module.bias is not None, module.in_features),
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Softmax: _softmax,
    nn.PReLU: lambda module: layers.PReLU(module.num_parameters),
    nn.Flatten: _flatten,
    nn.ReLU: lambda module: layers.ReLU(),
    nn.LeakyReLU: lambda module: layers.LeakyReLU(module.negative_slope),
    nn.ELU: lambda module: layers.ELU(module.alpha),
    nn.GELU: lambda module: layers.GELU(module.approximate),
    nn.SiLU: lambda module: layers.SiLU(),
    nn.Tanh: lambda module: layers.Tanh(),
    nn.Sigmoid: lambda module: layers.Sigmoid(),
    nn.Softplus: lambda module: layers.Softplus(module.beta),
}
"""The layer for each class of modules; subclasses may do something else."""
