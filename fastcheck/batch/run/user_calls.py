"""Calls of a user's functions: their arguments, and what they may return; anything else is refused in one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from fastcheck.batch.run.sources import Sources
from fastcheck.batch.run.user_code import imported
from fastcheck.batch.suite.entries import FunctionEntry, GradientEntry, TorchEntry
from fastcheck.check import check_gradient, check_vjp
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import brief, listed, nearest, offered, shown
from fastcheck.common.progress import ProgressHook
from fastcheck.convolutions.case import TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.diagnosis import checked
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

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


# Cases that a function describes


class _Call(NamedTuple):
    """A public function of fastcheck whose arguments a function may return, as a tuple or as a dict with options.

    Attributes
    ----------
    check : callable
    needed : tuple of str
        Names of the arguments of the tuple.
    """

    check: Callable[..., Any]
    needed: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        """Names of all arguments, but for those that the run decides on."""
        others = [name for name in inspect.signature(self.check).parameters if name not in self.needed]
        return (*self.needed, *(name for name in others if name not in _OF_THE_RUN))


_OF_THE_RUN = ("executor", "threads", "keep", "progress")
"""Arguments that a suite gives itself."""

_GRADIENT = _Call(check_gradient, ("loss", "grad", "params"))
_VJP = _Call(check_vjp, ("forward", "backward", "inputs"))


def check_of(
    entry: FunctionEntry, sources: Sources, progress: ProgressHook, keep: bool
) -> Callable[[], Report | NetworkReport]:
    """Call the function of a case; return the check that it describes, to be called without arguments.

    Options that it returns go before the request's.

    Raises
    ------
    FastcheckError
        If it cannot be imported, raises, or returns what describes no check.
    """
    name, request = sources.function.name, entry.request
    returned = _called(name, imported(sources.function, sources.files), {})
    options = {"seed": request.seed, "dims": request.dims, "step": request.step, "progress": progress, "keep": keep}
    if isinstance(returned, FunctionCase):
        return partial(_checked, returned, options)
    with blamed(name):
        call = _call_for(entry, returned)
        arguments = options | _arguments(returned, call)
    if isinstance(entry, TorchEntry):
        return partial(call.check, *(arguments.pop(name) for name in call.needed), **arguments)
    return partial(call.check, **arguments)


def _checked(case: FunctionCase, options: dict[str, Any]) -> Report:
    """Check a case that is made already."""
    own: dict[str, Any] = {
        "stencil": "auto",
        "directions": "auto",
        "noise": case.accuracy or None,
        "precision": case.precision,
    }
    settings = Settings.of(case.evaluators, evaluator="full", threads=1, **own, **options)
    return checked.check(case, settings)


def _call_for(entry: FunctionEntry, returned: Any) -> _Call:
    """Return the public function whose arguments a function has returned."""
    if isinstance(entry, TorchEntry):
        return _Call(_torch_check(), ("function", "inputs"))
    is_vjp = isinstance(returned, Mapping) and not isinstance(entry, GradientEntry) and _names(returned, _VJP)
    return _VJP if is_vjp else _GRADIENT


def _names(returned: Mapping[str, Any], call: _Call) -> bool:
    return any(name in returned for name in call.needed)


def _torch_check() -> Callable[..., Any]:
    try:
        check: Callable[..., Any] = import_module("fastcheck.torch").check
    except ImportError as error:
        raise FastcheckError(f"fastcheck.torch cannot be imported: {error}") from error
    return check


def _arguments(returned: Any, call: _Call) -> dict[str, Any]:
    """Return arguments and options by name."""
    if isinstance(returned, (tuple, list)) and len(returned) == len(call.needed):
        return dict(zip(call.needed, returned, strict=True))
    if not isinstance(returned, Mapping):
        raise FastcheckError(f"it returns {_kind(returned)}: expected ({', '.join(call.needed)}), or a dict of these")
    for key in returned:
        if key not in call.known:
            message = f"it returns {shown(key)}{nearest(key, call.known)}"
            raise FastcheckError(f"{message}: expected {offered(call.known)}")
    for key in call.needed:
        if key not in returned:
            raise FastcheckError(f"it returns no {key!r}: expected {', '.join(call.needed)}")
    return dict(returned)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return brief(repr(value), 40)
