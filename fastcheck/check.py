"""The public functions: `check`, `check_gradient`, `check_vjp` and `compare`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np

from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.naming import quoted, refuse_unknown
from fastcheck.common.progress import PATIENCE, ProgressHook, progress_bar
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.diagnosis import checked
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings, usable_directions
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.processes import workers_of
from fastcheck.functions.structure import Structure
from fastcheck.functions.vjp import Vjp
from fastcheck.functions.vjp_case import VjpCase
from fastcheck.metrics import judged
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports import comparison
from fastcheck.reports.report import Report, requested
from fastcheck.sweeps.sweep import explained

STENCILS = ("auto", 3, 5)
"""Values of the argument ``stencil``."""

EXECUTORS = ("threads", "processes")
"""Values of the argument ``executor``."""


@refuse_unknown_keywords
def check(
    case: ConvCase,
    *,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    evaluator: Literal["auto", "full", "local", "delta"] = "auto",
    kinks: Literal["widen", "exclude"] = "widen",
    directions: int | Literal["auto"] = "auto",
    threads: int | None = None,
    seed: int = 0,
    keep: bool = False,
    explain: bool = False,
    progress: ProgressHook | None = None,
) -> Report:
    """Difference a case and judge its analytic gradients.

    Parameters
    ----------
    case : ConvCase
    dims : "auto", "all", int, or a mapping from tensor names to these
        Dimensions to check. ``"all"`` takes all of them. A number takes a seeded sample of that size, spread over the
        tensors and stratified to include border taps, every filter and every channel. ``"auto"`` checks everything if
        that takes seconds, otherwise a sample.
    step : float or "auto"
        The step h, used exactly as given. ``"auto"`` takes a power of two. Where there is no truncation error, it moves
        a typical output by about its own size (loss ``vjp``; ``delta`` by twice that) or half of that (``square``). For
        ``relu`` it moves it by 2^-17 of that size, so that few outputs cross the kink; for ``tanh`` by 2^-17, where
        rounding and truncation are about equal.
    evaluator : {"auto", "full", "local", "delta"}
        ``full`` evaluates every output twice for each dimension, ``local`` only the outputs that it can affect.
        ``delta``, which ``"auto"`` picks, keeps the outputs and adds what the dimension contributes; an audit
        differences 32 dimensions of each tensor again by ``local``, and one direction over all of them by ``full``.
    kinks : {"widen", "exclude"}
        Treatment of a dimension whose difference crosses a kink: widen its error bar by what the kink can change, or
        leave the dimension out, and count it.
    directions : int or "auto"
        Number of random directions over all dimensions at once, each of which an error above a stated limit escapes
        with a chance of at most 1/2 (`fastcheck.engine.directions`). ``"auto"`` takes 20 where ``dims`` leaves
        dimensions out, unless these would take longer than ``dims="auto"`` may, and none where it does not; a direction
        takes two forward passes. Where one fails, its entries to blame are found, and differenced by themselves.
    threads : int, optional
        Number of threads; by default, the number of processors that this process may use. The report does not depend
        on it.
    seed : int
        Random seed for the sample.
    keep : bool
        Whether to keep the per-dimension arrays on the report, for its ``plot()`` as well.
    explain : bool
        Whether to sweep the step at the worst dimensions of every failing tensor, and add the result to the report.
    progress : callable, optional
        Called as progress(stage, done, total) in this thread.

    Returns
    -------
    Report
        It is true if every gradient passed. After Ctrl-C it is partial, and ``interrupted`` is set.

    Raises
    ------
    FastcheckError
        If an argument is invalid.
    """
    if not isinstance(case, ConvCase):
        raise FastcheckError(f"case is {type(case).__name__}: expected a ConvCase")
    settings = Settings.of(
        case.evaluators,
        evaluator=evaluator,
        kinks=kinks,
        step=step,
        seed=seed,
        threads=threads,
        progress=progress,
        dims=dims,
        keep=keep,
        directions=usable_directions(directions),
    )
    report = checked.check(case, settings)
    return explained(case, report, threads=settings.threads, progress=settings.progress) if explain else report


@refuse_unknown_keywords
def check_gradient(
    loss: Callable[[Any], Any],
    grad: Any,
    params: Any,
    *,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    stencil: Literal["auto", 3, 5] = "auto",
    directions: int | Literal["auto"] = "auto",
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    vectorized: bool = False,
    executor: Literal["threads", "processes"] = "threads",
    threads: int = 1,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | Literal[False] | None = None,
) -> Report:
    """Difference any Python function of arrays and judge the gradient that was written for it.

    Parameters
    ----------
    loss : callable
        Called as loss(params), with NumPy's float64 arrays in the form of ``params``, also where those are tensors. It
        returns one finite number and does not change its argument. With several threads it is called from all of them
        at once. One that Numba compiles (`numba.njit`), of an array or a tuple of arrays, is called in a compiled loop
        where a thousand parameters or more share a step; the loop takes a second to compile, once in a process, since
        nothing that has a user's function in it can be cached on disk.
    grad : callable, array, mapping, list or tuple
        The gradient in the form of ``params``, of NumPy's arrays or PyTorch's tensors in float64, float32, float16 or
        bfloat16; or a function, called as ``loss`` is, that returns it.
        A function is the better choice if it computes in float32 or less, or with ill-conditioned matrices: its
        rounding is then measured, with 7 to 21 calls besides the first two (14 to 84 in half precision), and enters
        the error bars.
    params : array, mapping of names to arrays, or list or tuple of arrays
        Point at which to check; float64, float32, float16 or bfloat16. The tensor of a single array is called
        ``"params"``, those of a list ``"params[0]"``, ``"params[1]"``, ...
    dims : "auto", "all", int, or a mapping from tensor names to these
        As in `check`; ``"auto"`` checks tensors of up to 2,048 entries whole, and samples 1,024 entries of larger ones.
        With more than 65,536 entries in all, it samples 64 of them, or one of each tensor, and leaves the rest to
        ``directions``.
    step : float or "auto"
        The step h, used exactly as given for every dimension (with 2h and 4h, for the error bar). ``"auto"`` finds a
        power of two for each dimension that balances truncation against the loss's own noise.
    stencil : {"auto", 3, 5}
        Points of a difference: 3 uses f(x + h) and f(x - h), 5 uses those at 2h as well, which allows larger steps on
        smooth losses. ``"auto"`` takes the one with the smaller error bar.
    directions : int or "auto"
        Number of random directions over all dimensions at once, each of which an error above a stated limit escapes
        with a chance of at most 1/2 (`fastcheck.engine.directions`). ``"auto"`` takes 20 where ``dims`` leaves
        dimensions out, and none where it does not; a direction takes four calls. Where one fails, its
        entries to blame are found, and differenced by themselves.
    noise, relative_noise : float, optional
        Accuracy of the loss, if it comes from a solver, an adaptive integrator or a sum in arbitrary order: a value may
        be off by ``noise``, or by ``relative_noise`` times its size at ``params``. The error bars include it.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        The arithmetic that made the gradient, if its dtype does not show it.
    vectorized : bool
        Whether ``loss``, and not ``grad``, takes every array with a leading axis of n points and returns an array of
        shape (n,). Most calls have one point. Entries that share a step (of functions of a thousand parameters or
        more) are moved in stacks of up to 8 MiB. First, a stack of different points is compared with each alone.
    executor : {"threads", "processes"}
        Where the loss is called: in threads, or in processes with copies of it (the extra ``processes``), for a loss
        that holds the GIL and takes a millisecond or more. Reports are the same.
    threads : int
        Number of threads, or of processes. The report does not depend on it. A loss that holds the GIL gains nothing
        from several threads.
    seed : int
        Random seed for the sample, and for the directions in which noise is measured.
    keep : bool
        Whether to keep the per-dimension arrays on the report, for its ``plot()`` as well.
    progress : callable or False, optional
        Called as progress(stage, done, total) in this thread. By default, a check that takes more than two seconds
        draws a bar on standard error if that is a terminal; False draws none.

    Returns
    -------
    Report
        It is true if the gradient passed, so ``assert check_gradient(loss, grad, params)`` works in a test. After
        Ctrl-C it is partial, and ``interrupted`` is set. ``tensors[name].step`` is a typical step. ``health`` lists
        findings about the functions themselves: a gradient that accumulates across calls or modifies the loss's data; a
        loss that never changes or depends on earlier calls; tied winners that do not share the slope.

    Raises
    ------
    FastcheckError
        If an argument is invalid; if the loss raises or is not finite at ``params``, or at every step tried
        around an entry; or if it differs by more than its last bits when called again. Elsewhere an exception counts
        as nan: a reason to try a smaller step.

    Notes
    -----
    `fastcheck.functions.step_search` has the model of step and error, and its sources. A dimension takes six calls of
    the loss, and two to four more for each step tried besides the typical one.
    """
    return _check_function(
        lambda: FunctionCase(
            loss,
            grad,
            params,
            noise=noise,
            relative_noise=relative_noise,
            precision=precision,
            vectorized=bool(vectorized),
        ),
        progress,
        step=step,
        seed=seed,
        threads=threads,
        dims=dims,
        keep=keep,
        stencil=stencil,
        directions=directions,
        noise=noise,
        relative_noise=relative_noise,
        precision=precision,
        vectorized=vectorized,
        executor=executor,
    )


@refuse_unknown_keywords
def check_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    *,
    has_cache: bool = False,
    grad_output: Any = None,
    complex_convention: Literal["torch", "jax"] = "torch",
    structure: Any = None,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    stencil: Literal["auto", 3, 5] = "auto",
    directions: int | Literal["auto"] = "auto",
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    reference: Callable[..., Any] | None = None,
    vectorized: bool = False,
    executor: Literal["threads", "processes"] = "threads",
    threads: int = 1,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | Literal[False] | None = None,
) -> Report:
    r"""Difference a forward pass of arrays and judge the backward pass that was written for it.

    What is differenced is every output by itself, and the changes are weighted with the cotangent: an output that does
    not move adds no rounding. Before that, backward is examined: see Notes.

    Parameters
    ----------
    forward : callable
        Called as forward(\*inputs), or forward(\*\*inputs) where these are a dict. It returns an array, or a tuple,
        list or dict of arrays, of any shapes; outputs of integers or booleans get None for a cotangent. With
        ``has_cache`` it returns (output, cache).
    backward : callable
        Called as backward(grad_output, \*inputs), or backward(grad_output, \*\*inputs); with ``has_cache``, as
        backward(grad_output, cache). Each call follows one of forward at the same inputs. It returns one gradient for
        each input, or for each that is differentiated, in order; a dict by key where inputs is a dict; or the gradient
        itself, where there is one. None says that an input is not differentiable: it is not checked, and the report
        says so.
    inputs : array, sequence or mapping of names to arrays
        Point at which to check: float64, float32, float16, bfloat16, complex128 or complex64, also tensors of PyTorch.
        The functions get float64 or complex128 arrays (tensors where tensors were given, on their device and with their
        ``requires_grad``), in new memory at every call. Arrays of integers or booleans, numbers and other objects are
        passed on, and not differentiated. Tensors are called ``"input 0"``, ``"input 1"``, ..., or by their keys;
        complex ones are checked in two parts, as ``"input 0.real"`` and ``"input 0.imag"``.
    has_cache : bool
        Whether forward returns (output, cache), and backward takes that cache in place of the inputs.
    grad_output : array, or sequence or mapping like the outputs, optional
        The cotangent. By default it is seeded and random: sizes between a half and three halves, and random signs,
        rounded to the outputs' type. Sums, means and ones would hide whole classes of mistakes.
    complex_convention : {"torch", "jax"}
        What a complex gradient is, of a real loss L that depends on x + iy: dL/dx + i dL/dy, as PyTorch has it, or its
        conjugate, dL/dx - i dL/dy, as JAX has it. The cotangent of a complex output follows the same convention.
    structure : str, sparse matrix or array of shape (outputs, entries), or mapping from tensor names to these, optional
        Which outputs each entry can move. Entries that share none are moved together: four to six calls of forward for
        each such *colour*, and more where bars ask for other steps, in place of six or more for each entry.
        ``"elementwise"`` inputs have the outputs' shape, or broadcast to it; ``"per_sample"`` ones share their first
        axis with the outputs; ``"conv(stride=1, padding=0, dilation=1, groups=1)"`` is a convolution as PyTorch defines
        it, whose input, weight and bias are found by their shapes. A pattern, from SciPy or NumPy, is not zero where an
        output (of all, flat, one after another) depends on an entry. ``"detect"`` finds a pattern along axes from a few
        entries, or from all of up to 2,048. The structure is verified: outputs that it excludes must not change.
        ``dims="auto"`` takes all dimensions of up to 2,048 colours.
    dims : "auto", "all", int, or a mapping from tensor names to these
        As in `check_gradient`.
    step, stencil, directions
        As in `check_gradient`.
    noise, relative_noise : float, optional
        Accuracy of forward, if it comes from a solver or an adaptive integrator: every output may be off by ``noise``,
        or by ``relative_noise`` times its own size at ``inputs``.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        The arithmetic of backward, if the dtype of its results does not show it.
    reference : callable, optional
        The same forward in float64, called as reference(\*inputs) and returning outputs without a cache. It is
        differenced in place of ``forward``, for functions that compute in float32 or less only: ``forward`` and
        ``backward`` then get inputs of the types that were given. First the outputs of both are compared, within half
        of the digits of forward's type.
    vectorized : bool
        Whether ``forward`` (or ``reference`` alone, if given) takes every input that is differentiated with a leading
        axis of n points, and returns every output with one. Other inputs are passed as they are. ``backward`` has no
        such axis, and thus no cache of a vectorised ``forward``. The rest is as in `check_gradient`.
    executor : {"threads", "processes"}
        As in `check_gradient`, for ``forward`` (or ``reference``).
    threads : int
        Number of threads, or of processes, that call ``forward`` (or ``reference``). The report does not depend on it.
    seed : int
        Random seed for the cotangent, the sample, and the directions in which noise is measured.
    keep : bool
        Whether to keep the per-dimension arrays on the report, for its ``plot()`` as well.
    progress : callable or False, optional
        As in `check_gradient`.

    Returns
    -------
    Report
        It is true if the gradient passed. ``health`` lists findings about the functions themselves.

    Raises
    ------
    FastcheckError
        If an argument is invalid; if a function raises at ``inputs``, returns what it may not, or is not finite there;
        if the outputs differ by more than their last bits when forward is called again, or change their shape.

    Notes
    -----
    These findings fail a check: backward adds up from call to call; a cotangent of zeros gives no zeros; backward is
    not linear in the cotangent; a strided, transposed, expanded, offset or read-only cotangent, or inputs that are not
    contiguous, give another gradient than contiguous ones with the same values; the result has memory that was never
    written; with a cache, a call of forward elsewhere changes the result. These are notes: a function changes its
    arguments in place; backward raises for such a layout; results share memory with arguments or with each other, or
    are overwritten by the next call; without a cache, backward reads what the last call of forward left.

    The examination takes eleven calls of backward, and up to four more to name a layout. Measuring its rounding takes 7
    to 21 (14 to 84 in half precision). Each is preceded by one of forward, one of them by two.
    """
    return checked_vjp(
        forward,
        backward,
        inputs,
        (),
        has_cache=has_cache,
        grad_output=grad_output,
        complex_convention=complex_convention,
        structure=structure,
        dims=dims,
        step=step,
        stencil=stencil,
        directions=directions,
        noise=noise,
        relative_noise=relative_noise,
        precision=precision,
        reference=reference,
        vectorized=vectorized,
        executor=executor,
        threads=threads,
        seed=seed,
        keep=keep,
        progress=progress,
    )


def checked_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    notes: Sequence[HealthFinding],
    *,
    has_cache: bool = False,
    grad_output: Any = None,
    complex_convention: Literal["torch", "jax"] = "torch",
    structure: Any = None,
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    reference: Callable[..., Any] | None = None,
    vectorized: bool = False,
    executor: Literal["threads", "processes"] = "threads",
    threads: int = 1,
    seed: int = 0,
    progress: ProgressHook | Literal[False] | None = None,
    **options: Any,
) -> Report:
    """Run `check_vjp` with findings that the caller has made already."""
    declared = None if structure is None else Structure(structure, ConvGeometry.of)
    return _check_function(
        lambda: VjpCase(
            Vjp(
                forward,
                backward,
                inputs,
                has_cache=has_cache,
                grad_output=grad_output,
                complex_convention=complex_convention,
                precision=precision,
                reference=reference,
                vectorized=bool(vectorized),
                seed=seed,
            ),
            notes=notes,
            noise=noise,
            relative_noise=relative_noise,
            precision=precision,
            structure=declared,
            vectorized=bool(vectorized),
            seed=seed,
        ),
        progress,
        seed=seed,
        noise=noise,
        relative_noise=relative_noise,
        precision=precision,
        structure=declared and declared.described(),
        reference=reference is not None or None,
        vectorized=vectorized,
        executor=executor,
        threads=threads,
        complex_convention=None if complex_convention == "torch" else complex_convention,
        **options,
    )


def _check_function(
    make: Callable[[], FunctionCase], progress: ProgressHook | Literal[False] | None, **options: Any
) -> Report:
    """Check a function: make its settings, then the case, then run it."""
    stencil = options["stencil"]
    if stencil not in STENCILS or isinstance(stencil, float):
        raise FastcheckError(f"stencil is {stencil!r}: expected 'auto', 3 or 5")
    options["directions"] = usable_directions(options["directions"])
    if not isinstance(options["vectorized"], (bool, np.bool_)):
        raise FastcheckError(f"vectorized is {quoted(options['vectorized'])}: expected True or False")
    refuse_unknown("executor", options["executor"], EXECUTORS)
    options["vectorized"] = bool(options["vectorized"]) or None
    options["executor"] = None if options["executor"] == "threads" else options["executor"]
    with progress_bar(PATIENCE) if progress is None else nullcontext(progress or None) as hook:
        settings = Settings.of(FunctionCase.evaluators, evaluator="full", default_threads=1, progress=hook, **options)
        case = make()
        with workers_of(case, settings):
            return checked.check(case, settings)


@refuse_unknown_keywords
def compare(analytic: Any, numeric: Any, *, precision: str | None = None, keep: bool = False) -> Report:
    """Compare two gradients that you already have, by both ratios, digits and signs.

    How the arrays were computed is unknown, so there are no error bars. The verdict follows the two rules of
    thumb (norm ratio at most 1e-9, max ratio below 1e-2), and is inconclusive where they disagree. For types narrower
    than float64, `fastcheck.metrics.verdict.norm_rule` replaces the first. Entries that differ by no more than the
    first rule grants a typical entry do not break the second.

    A tensor whose values do not exceed 1e-9 of another tensor's typical value is round-off, and passes. It is
    inconclusive instead if its two arrays resemble each other (the sizes of most entries are in one ratio, or the norm
    ratio is outside 1/3 to 3), or if there is no other tensor to compare it with.

    Parameters
    ----------
    analytic, numeric : array, mapping of names to arrays, or list or tuple of arrays
        The gradients, of the same shapes; float64, float32, float16 or bfloat16.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        Precision in which the coarser one was computed, if that is coarser than both dtypes.
    keep : bool
        Whether to keep the per-dimension arrays on the report, for its ``plot()`` as well.

    Returns
    -------
    Report
        It is true if every tensor passes. The tensor of two plain arrays is named ``"gradient"``, those of lists
        ``"gradient[0]"``, ``"gradient[1]"``, ... ``norm_ratio`` equals NumPy's ``norm(a - n) / norm(a + n)`` over the
        flattened arrays to the last bit.

    Raises
    ------
    FastcheckError
        If shapes or names differ, an array is empty or of another dtype, a numeric value is not finite, or the
        precision is unknown.
    """
    start = time.perf_counter()
    tensors = comparison.compared(analytic, numeric, precision, keep)
    request = requested(None, None, "all", None)
    return Report(
        verdict=judged.heaviest(tensor.verdict for tensor in tensors.values()),
        seed=0,
        requested=request if precision is None else request | {"precision": precision},
        interrupted=False,
        forward=None,
        tensors=tensors,
        run=machine.run_part(threads=1, seconds=time.perf_counter() - start),
    )
