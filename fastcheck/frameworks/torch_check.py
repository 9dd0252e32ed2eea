"""`fastcheck.torch.check`: autograd's gradient of a function or a module, against differences of its outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from fastcheck.check import check as check_case
from fastcheck.check import checked_vjp
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.naming import quoted
from fastcheck.common.progress import ProgressHook
from fastcheck.engine.sampling import Dims
from fastcheck.frameworks import torch_convolutions, torch_modules
from fastcheck.frameworks.torch_functions import Call, TorchFunction
from fastcheck.frameworks.torch_modules import Module
from fastcheck.frameworks.torch_tensors import Tensor, packed, tensors_of, torch
from fastcheck.metrics import judged
from fastcheck.reports.report import Report


@refuse_unknown_keywords
def check(
    function: Callable[..., Any],
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    grad_output: Any = None,
    structure: Any = None,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    stencil: Literal["auto", 3, 5] = "auto",
    directions: int | Literal["auto"] = "auto",
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | Literal[False] | None = None,
) -> Report:
    r"""Difference a function of PyTorch's tensors, or a module, and judge what autograd returns for it.

    Parameters
    ----------
    function : callable or torch.nn.Module
        Called as function(\*inputs). It returns a tensor, or several in tuples, lists or dicts. Those that require a
        gradient are checked together. A module is called in the mode in which it is, with copies of its parameters and
        buffers; it stays as it is. Random numbers that PyTorch draws, for dropout, are the same in every call.
    \*inputs
        Point at which to check. Tensors that require a gradient are differentiated, and the parameters of a module that
        do; if there are none, all tensors of floating-point numbers. They are called ``"input 0"``, ``"input 1"``, ...,
        and parameters by their own names. A single tuple or list holds the inputs, as for `torch.autograd.gradcheck`.
    reference : callable or torch.nn.Module, optional
        The same function in float64, for one that computes in float32 or less only: it is differenced instead. Without
        it, all tensors are converted to float64. In place of a module, it is a module with the same parameters, or a
        function called as reference(\*inputs, \*\*parameters).
    grad_output : tensor, or tensors in the form of the outputs, optional
        The cotangent. By default it is seeded and random.
    structure, dims, step, stencil, directions, noise, relative_noise, precision, seed, keep, progress
        As in `fastcheck.check_vjp`.

    Returns
    -------
    Report
        It is true if the gradient passed. ``health`` lists findings about the function itself.

    Raises
    ------
    FastcheckError
        If an argument is invalid, if the function raises, or if autograd leads from no output to an input.

    Examples
    --------
    >>> import torch, fastcheck
    >>> x = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    >>> fastcheck.torch.check(torch.tanh, x).passed
    True
    """
    inputs = _unpacked(inputs)
    _refuse_others(function)
    call = call_of(function, inputs)
    mine = TorchFunction(call, double=reference is None)
    other = None if reference is None else mine.in_place_of(_call_of_reference(reference, function, call, inputs))
    notes = [*mine.notes, *call.notes(), *(torch_modules.notes_on(function) if isinstance(function, Module) else ())]
    checked = functools.partial(
        checked_vjp,
        mine.forward,
        mine.backward,
        mine.inputs,
        notes,
        reference=other,
        grad_output=None if grad_output is None else packed(tensors_of(grad_output)),
        structure=structure,
        step=step,
        stencil=stencil,
        noise=noise,
        relative_noise=relative_noise,
        precision=precision,
        seed=seed,
    )
    declared = (reference, structure, noise, relative_noise, precision, stencil != "auto")
    if isinstance(function, Module) and not any(declared) and torch_convolutions.is_convolution(function, inputs):
        case = torch_convolutions.case_of(function, mine, grad_output, seed)
        if case is not None:
            examined = checked(dims=1, directions=0, keep=False, progress=False)
            report = check_case(case, dims=dims, step=step, directions=directions, seed=seed, keep=keep)
            return _with_findings(report, examined)
    return checked(dims=dims, directions=directions, keep=keep, progress=progress)


def _with_findings(report: Report, examined: Report) -> Report:
    """Return a report with the findings of another about the function itself."""
    found = examined.health
    verdict = judged.heaviest([report.verdict, *(one.verdict for one in found if one.verdict is not None)])
    return replace(report, health=(*report.health, *found), verdict=verdict)


def call_of(function: Callable[..., Any], inputs: Sequence[Any]) -> Call:
    """Return the call of a function, or of a module with what it holds."""
    return torch_modules.call_of(function, inputs) if isinstance(function, Module) else Call.of(function, inputs)


def _call_of_reference(reference: Any, function: Any, call: Call, inputs: Sequence[Any]) -> Call:
    if not callable(reference):
        raise FastcheckError(f"reference is {quoted(reference)}: expected the same function in float64")
    if isinstance(function, Module):
        return torch_modules.reference_of(call, reference, inputs)
    return Call.of(reference, inputs)


def _unpacked(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return inputs given one by one, or as a single tuple or list."""
    alone = len(inputs) == 1 and isinstance(inputs[0], (tuple, list))
    return tuple(inputs[0]) if alone else inputs


def _refuse_others(function: Any) -> None:
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        raise FastcheckError(f"function is the class {function.__name__}: give {function.__name__}.apply")
    if isinstance(function, Tensor) or not callable(function):
        raise FastcheckError(
            f"function is {quoted(function)}: expected a function of tensors or a module, then its inputs"
        )
