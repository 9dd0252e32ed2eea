"""`gradcheck` and `gradgradcheck` with PyTorch's own arguments, for those who change one word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.autograd.gradcheck import GradcheckError as TorchGradcheckError

from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.frameworks.torch_check import call_of, check
from fastcheck.frameworks.torch_functions import Call, TorchFunction
from fastcheck.frameworks.torch_tensors import Tensor, is_differentiable, tensors_of, torch
from fastcheck.functions import settled
from fastcheck.functions.vjp import Vjp
from fastcheck.functions.vjp_case import VjpCase
from fastcheck.reports.mismatch import GradientMismatchError

__tracebackhide__ = True
"""Asks pytest to leave the functions of this module out of tracebacks, which then end at the test's own line."""

SAMPLE = 8
"""Entries that are differenced by themselves where there are more. Directions cover all."""


INSTEAD = {
    "check_batched_grad": "check torch.func.vmap of the function, which has the batched backward",
    "check_batched_forward_grad": "check torch.func.vmap of the function",
    "check_forward_ad": "compare torch.func.jvp with the same function's backward (docs/coming-from.md)",
    "check_fwd_over_rev": "check the backward pass by torch.func.jvp (docs/coming-from.md)",
    "check_backward_ad": "it is what is checked",
    "check_rev_over_rev": "it is what is checked",
    "masked": "check the dense function",
}
"""What to do in place of what is not supported."""


class GradcheckError(GradientMismatchError, TorchGradcheckError):
    """Raised where a gradient is wrong, or cannot be judged; PyTorch's own exception too.

    Attributes
    ----------
    report : Report
        Report of the check.
    """


GradcheckError.__module__ = "fastcheck.torch"  # its public name


@refuse_unknown_keywords
def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
    seed: int = 0,
) -> bool:
    """Check gradients as `torch.autograd.gradcheck` is asked to, and find what its tolerances hide.

    Steps and error bars are computed: ``eps``, ``atol`` and ``rtol`` have no effect, and an error of 1e-6 of an entry
    fails. One random cotangent of all outputs takes the place of one for each. Beyond what PyTorch's function takes,
    inputs may be in float32 or less (they are converted to float64), functions may draw random numbers (the same ones
    in every call), and they may be modules, whose parameters are checked too. Where there are more than `SAMPLE`
    entries, random directions cover all of them; a sample is differenced one by one where these do not agree, or could
    not have seen an error of 1e-6 of a typical entry.

    Parameters
    ----------
    func : callable or torch.nn.Module
    inputs : tensor, or tuple or list of tensors
        At least one of which requires a gradient.
    eps, atol, rtol, check_undefined_grad, check_grad_dtypes, fast_mode
        Taken for compatibility. Undefined gradients are not tried. Autograd itself converts gradients to the inputs'
        types.
    raise_exception : bool
        Whether to raise where the check does not pass, instead of returning False.
    nondet_tol : float
        Bound on what outputs may differ by when the function is called again.
    check_batched_grad, check_batched_forward_grad, check_forward_ad, masked
        Not supported: refused unless they are False (or None).
    check_backward_ad : bool
        Must be True.
    seed : int
        Random seed for the cotangent, the sample and directions.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        If the check does not pass. It carries the report.
    FastcheckError
        If an argument is invalid.
    """
    _refuse(
        check_batched_grad=check_batched_grad,
        check_batched_forward_grad=check_batched_forward_grad,
        check_forward_ad=check_forward_ad,
        check_backward_ad=check_backward_ad,
        masked=masked,
    )
    return _passes(func, _required(inputs), nondet_tol, seed, raise_exception)


@refuse_unknown_keywords
def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
    seed: int = 0,
) -> bool:
    """Check second derivatives as `torch.autograd.gradgradcheck` is asked to: the backward pass is the function.

    Parameters
    ----------
    func, inputs, raise_exception, nondet_tol, seed
        As in `gradcheck`.
    grad_outputs : tensor or sequence of tensors, optional
        Cotangents of the outputs; random by default. The backward pass is differentiated by them, too.
    eps, atol, rtol, gen_non_contig_grad_outputs, check_undefined_grad, check_grad_dtypes, fast_mode
        Taken for compatibility. Cotangents of every layout are tried in any case.
    check_batched_grad, check_fwd_over_rev, masked
        Not supported: refused unless they are False.
    check_rev_over_rev : bool
        Must be True.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        If the check does not pass. It carries the report.
    FastcheckError
        If an argument is invalid.
    """
    _refuse(
        check_batched_grad=check_batched_grad,
        check_fwd_over_rev=check_fwd_over_rev,
        check_rev_over_rev=check_rev_over_rev,
        masked=masked,
    )
    given = _required(inputs)
    cotangents = _cotangents(func, given, grad_outputs, seed)
    wanted = [number for number, value in enumerate(given) if isinstance(value, Tensor) and value.requires_grad]

    def backward(*values: Any) -> tuple[Tensor, ...]:
        values, sent = values[: len(given)], values[len(given) :]
        outputs = [value for value in tensors_of(func(*values)).values() if value.requires_grad]
        sources = [values[number] for number in wanted]
        return torch.autograd.grad(outputs, sources, sent, create_graph=True, materialize_grads=True)

    return _passes(backward, (*given, *cotangents), nondet_tol, seed, raise_exception)


def _passes(
    func: Callable[..., Any], inputs: Sequence[Any], nondet_tol: float, seed: int, raise_exception: bool
) -> bool:
    """Return whether the gradient is right: at once where directions settle that, else after a check that reports."""
    call, noise = call_of(func, inputs), nondet_tol or None
    names = call.differentiated
    if sum(call.given[name].numel() for name in names) > SAMPLE and _is_settled(call, noise, seed):
        return True
    report = check(func, *inputs, dims=max(SAMPLE, len(names)), noise=noise, seed=seed, progress=False)
    if raise_exception:
        try:
            report.raise_if_failed()
        except GradientMismatchError as error:
            raise GradcheckError(str(error), report) from None
    return report.passed


def _is_settled(call: Call, noise: float | None, seed: int) -> bool:
    function = TorchFunction(call, double=True)
    vjp = Vjp(function.forward, function.backward, function.inputs, seed=seed)
    return settled.by_directions(VjpCase(vjp, noise=noise, notes=function.notes, seed=seed), seed)


def _required(inputs: Any) -> tuple[Any, ...]:
    """Return the inputs, after checking that one of them requires a gradient."""
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not any(isinstance(value, Tensor) and value.requires_grad for value in given):
        raise FastcheckError("inputs has no tensor that requires a gradient: expected one (.requires_grad_())")
    return given


def _refuse(**asked: Any) -> None:
    for name, value in asked.items():
        supported = name in ("check_backward_ad", "check_rev_over_rev")
        if value is not None and bool(value) != supported:
            raise FastcheckError(f"{name} is {value!r}, which is not supported: {INSTEAD[name]}")


def _cotangents(func: Callable[..., Any], inputs: Sequence[Any], given: Any, seed: int) -> list[Tensor]:
    """Return cotangents that require a gradient, one for each output that does: the user's, or random ones."""
    outputs = [value for value in tensors_of(func(*inputs)).values() if value.requires_grad]
    if given is None:
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(value.shape, dtype=value.dtype, generator=generator) for value in outputs]
        given = [one.to(value.device) for one, value in zip(drawn, outputs, strict=True)]
    sent = [value for value in tensors_of(given).values() if is_differentiable(value)]
    if len(sent) != len(outputs):
        raise FastcheckError(f"grad_outputs has {len(sent)} tensors: expected {len(outputs)}, one for each output")
    return [value.detach().requires_grad_() for value in sent]
