"""Calls of a user's functions: their arguments, and what they may return; anything else is refused in one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastcheck.batch.run.sources import Sources
from fastcheck.batch.run.user_code import imported
from fastcheck.check import STENCILS
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import brief, listed, nearest, shown
from fastcheck.common.progress import ProgressHook
from fastcheck.convolutions.case import TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request, Settings
from fastcheck.functions.case import FunctionCase

GRADIENT_OPTIONS = ("dims", "step", "stencil", "seed", "noise", "relative_noise", "precision")
"""Arguments of `fastcheck.check_gradient` that a function may return beside loss, grad and params."""

_PREFIX = "grad_"


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Put a function's name in front of what is said of its results, unless it begins with it."""
    try:
        yield
    except FastcheckError as error:
        if str(error).startswith(name):
            raise
        raise FastcheckError(f"{name}: {error}") from error


def backward(sources: Sources) -> Callable[..., Mapping[str, Any]]:
    """Return a user's backward pass in the form that `fastcheck.workloads.seeded.conv_case` calls.

    Raises
    ------
    FastcheckError
        If it cannot be imported. When called, also if it raises, or returns no mapping from tensors to gradients.
    """
    name, function = sources.function.name, imported(sources.function, sources.files)

    def call(
        geometry: ConvGeometry,
        arrays: Mapping[str, np.ndarray | None],
        tensors: Collection[str],
    ) -> dict[str, Any]:
        copies = {key: None if array is None else array.copy() for key, array in arrays.items()}
        arguments = {
            **copies,
            "stride": geometry.stride,
            "padding": _padding(geometry),
            "dilation": geometry.dilation,
            "groups": geometry.groups,
        }
        returned = _called(name, function, _declared(name, function, arguments))
        return _gradients(name, returned, tensors)

    return call


def _padding(geometry: ConvGeometry) -> tuple[Any, ...]:
    """Return padding as PyTorch takes it, a number for each axis, or pairs if the sides of an axis differ."""
    alike = all(low == high for low, high in geometry.padding)
    return tuple(low for low, _ in geometry.padding) if alike else geometry.padding


def _declared(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function declares."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some functions in other languages
        return dict(arguments)
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return dict(arguments)
    if [one.kind for one in parameters] == [inspect.Parameter.VAR_POSITIONAL]:
        known = f"expected some of {', '.join(arguments)}"
        raise FastcheckError(f"{name} takes *{next(iter(parameters)).name}, and arguments are passed by name: {known}")
    for one in parameters:
        unknown = one.name not in arguments and one.kind is not one.VAR_POSITIONAL and one.default is one.empty
        if unknown or (one.kind is one.POSITIONAL_ONLY and one.default is one.empty):
            known = f"expected some of {', '.join(arguments)}, which are passed by name"
            raise FastcheckError(f"{name} has the parameter {one.name!r}{nearest(one.name, arguments)}: {known}")
    names = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return {key: value for key, value in arguments.items() if key in names}


def _called(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise raised_by(name, error) from error


def _gradients(name: str, returned: Any, tensors: Collection[str]) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        raise FastcheckError(f"{name} returns {_kind(returned)}: expected a dict of gradients: {', '.join(TENSORS)}")
    gradients = dict[str, Any]()
    for key, value in returned.items():
        tensor = str(key).removeprefix(_PREFIX)
        if tensor not in TENSORS:
            raise FastcheckError(f"{name} returns {shown(key)}{nearest(key, TENSORS)}: expected {', '.join(TENSORS)}")
        if tensor in gradients:
            raise FastcheckError(f"{name} returns {tensor!r} and {_PREFIX + tensor!r}: expected one of them")
        if value is None:
            raise FastcheckError(f"{name} returns None for {tensor!r}: expected an array, or no {tensor!r} at all")
        gradients[tensor] = value
    wanted = {tensor: gradients[tensor] for tensor in TENSORS if tensor in gradients and tensor in tensors}
    if not wanted:
        found = listed(gradients) or "an empty dict"
        raise FastcheckError(f"{name} returns {found}: expected a gradient of {' or '.join(tensors)}")
    return wanted


def function_case(sources: Sources, request: Request, progress: ProgressHook, keep: bool) -> tuple[Any, Settings]:
    """Call the function of a ``gradient`` case; return the case that it describes, and its settings.

    Options that it returns go before the request's.

    Raises
    ------
    FastcheckError
        If it cannot be imported, raises, or returns what `fastcheck.check_gradient` does not take.
    """
    name = sources.function.name
    returned = _called(name, imported(sources.function, sources.files), {})
    with blamed(name):
        given = _parts(returned)
        stencil = given.get("stencil", "auto")
        if stencil not in STENCILS or isinstance(stencil, float):
            raise FastcheckError(f"stencil is {shown(stencil)}: expected 'auto', 3 or 5")
        accuracy: dict[str, Any] = {key: given.get(key) for key in ("noise", "relative_noise", "precision")}
        settings = Settings.of(
            FunctionCase.evaluators,
            evaluator="full",
            step=given.get("step", request.step),
            seed=given.get("seed", request.seed),
            threads=1,
            progress=progress,
            dims=given.get("dims", request.dims),
            keep=keep,
            stencil=stencil,
            **accuracy,
        )
        return FunctionCase(given["loss"], given["grad"], given["params"], **accuracy), settings


def _parts(returned: Any) -> Mapping[str, Any]:
    """Return loss, grad, params and options by name."""
    needed = ("loss", "grad", "params")
    if isinstance(returned, (tuple, list)) and len(returned) == len(needed):
        return dict(zip(needed, returned, strict=True))
    if not isinstance(returned, Mapping):
        raise FastcheckError(f"it returns {_kind(returned)}: expected (loss, grad, params), or a dict of these")
    known = (*needed, *GRADIENT_OPTIONS)
    for key in returned:
        if key not in known:
            raise FastcheckError(f"it returns {shown(key)}{nearest(key, known)}: expected {', '.join(known)}")
    for key in needed:
        if key not in returned:
            raise FastcheckError(f"it returns no {key!r}: expected {', '.join(needed)}")
    return returned


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return brief(repr(value), 40)
