"""PyTorch's sequential modules as networks whose every parameter is differenced through the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    return Network(list(_layers(module, "")), loss, **options)


def _layers(module: Any, prefix: str) -> Iterator[layers.Layer]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _layers(child, f"{prefix}{name}.")
        elif not isinstance(child, nn.Identity):
            yield _layer(child, f"{prefix}{name}")


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
    _refuse(module, padding_mode="zeros")
    return layers.Conv(
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        module.in_channels,
    )


def _max_pool(module: Any) -> layers.Layer:
    _refuse(module, ceil_mode=False, return_indices=False)
    return layers.MaxPool(module.kernel_size, module.stride, module.padding, module.dilation)


def _avg_pool(module: Any) -> layers.Layer:
    _refuse(module, ceil_mode=False)
    return layers.AvgPool(module.kernel_size, module.stride, module.padding, module.count_include_pad)


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


def _flatten(module: Any) -> layers.Layer:
    _refuse(module, start_dim=1, end_dim=-1)
    return layers.Flatten()


KINDS: dict[type[Module], Callable[[Any], layers.Layer]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _avg_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), lambda module: layers.Dropout(module.p)),
    nn.Linear: lambda module: layers.Dense(module.out_features, module.bias is not None, module.in_features),
    nn.LayerNorm: _layer_norm,
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
