"""PyTorch's tensors, as functions take and return them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing

try:
    import torch
except ImportError:
    raise FastcheckError(f"PyTorch is not installed: {installing('torch')}") from None

__all__ = [
    *("ALONE", "Tensor", "copied", "in_double", "is_differentiable", "packed", "refuse_unusable", "tensors_of"),
    "torch",
]

Tensor = torch.Tensor

ALONE = ""
"""Key of an output that is not one of several."""


def is_differentiable(value: Any) -> bool:
    """Whether autograd could differentiate by a value: a tensor of floating-point or complex numbers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def in_double(value: Any) -> Any:
    """Return a tensor of floating-point or complex numbers in double precision, and anything else as it is."""
    if not is_differentiable(value):
        return value
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def copied(value: Any) -> Any:
    """Return a tensor in memory of its own, and anything else as it is."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def tensors_of(returned: Any) -> dict[Any, Tensor]:
    """Return the tensors that a function returned by position or key, nested ones by both, such as "1.h"."""
    return dict(_walk(returned, ()))


def packed(outputs: Mapping[Any, Any]) -> Any:
    """Return tensors by position or key, or the only one."""
    return outputs[ALONE] if list(outputs) == [ALONE] else dict(outputs)


def refuse_unusable(values: Mapping[str, Any]) -> None:
    """Refuse tensors without values, sparse ones, and those on different devices; single numbers may lie anywhere."""
    first: tuple[str, Tensor] | None = None
    for name, value in values.items():
        if not isinstance(value, Tensor):
            continue
        if torch.nn.parameter.is_lazy(value):
            raise FastcheckError(f"{name} has no shape yet: call the module once, so that it gets its parameters")
        if value.is_meta:
            raise FastcheckError(
                f"{name} is a tensor on the meta device, which has no values: expected one with values"
            )
        if value.layout != torch.strided:
            raise FastcheckError(f"{name} is a sparse tensor, {value.layout}: expected its .to_dense()")
        if value.dim() == 0:
            continue
        if first is not None and value.device != first[1].device:
            raise FastcheckError(
                f"{name} lies on {value.device}, and {first[0]} on {first[1].device}: expected one device "
                f"(.to({str(first[1].device)!r}))"
            )
        first = first or (name, value)


def _walk(returned: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, Tensor]]:
    if isinstance(returned, Tensor):
        yield (path[0] if len(path) == 1 else ".".join(map(str, path))), returned
    elif isinstance(returned, Mapping):
        for key, value in returned.items():
            yield from _walk(value, (*path, key))
    elif isinstance(returned, (list, tuple)):
        for key, value in enumerate(returned):
            yield from _walk(value, (*path, key))
