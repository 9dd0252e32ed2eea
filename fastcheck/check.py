"""The public functions: `check`, `check_gradient` and `compare`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

from fastcheck.common import machine
from fastcheck.common.arguments import integer
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import keywords_told
from fastcheck.common.progress import PATIENCE, ProgressHook, progress_bar
from fastcheck.convolutions.case import ConvCase
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.metrics import judged
from fastcheck.reports import comparison
from fastcheck.reports.report import Report, requested
from fastcheck.sweeps.sweep import explained

STENCILS = ("auto", 3, 5)
"""Values of the argument ``stencil``."""


@keywords_told
def check(
    case: ConvCase,
    *,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    evaluator: Literal["auto", "full", "local", "delta"] = "auto",
    kinks: Literal["widen", "exclude"] = "widen",
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
    )
    from fastcheck.engine import coordinator  # imports Numba

    report = coordinator.run(case.pipeline(settings), settings)
    return explained(case, report, threads=settings.threads, progress=settings.progress) if explain else report


@keywords_told
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
        at once.
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
    step : float or "auto"
        The step h, used exactly as given for every dimension (with 2h and 4h, for the error bar). ``"auto"`` finds a
        power of two for each dimension that balances truncation against the loss's own noise.
    stencil : {"auto", 3, 5}
        Points of a difference: 3 uses f(x + h) and f(x - h), 5 uses those at 2h as well, which allows larger steps on
        smooth losses. ``"auto"`` takes the one with the smaller error bar.
    directions : int or "auto"
        Number of random directions over all dimensions at once, each of which an error above a stated limit escapes
        with a chance of at most 1/2 (`fastcheck.functions.directions`). ``"auto"`` takes 20 where ``dims`` leaves
        dimensions out, and none where it does not; a direction takes six to eight calls. Where one fails, halving
        finds the entries to blame, which are then differenced by themselves.
    noise, relative_noise : float, optional
        Accuracy of the loss, if it comes from a solver, an adaptive integrator or a sum in arbitrary order: a value may
        be off by ``noise``, or by ``relative_noise`` times its size at ``params``. The error bars include it.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        The arithmetic that made the gradient, if its dtype does not show it.
    threads : int
        Number of threads. The report does not depend on it. A loss that holds the GIL gains nothing from several.
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
    if stencil not in STENCILS or isinstance(stencil, float):
        raise FastcheckError(f"stencil is {stencil!r}: expected 'auto', 3 or 5")
    if directions != "auto":
        integer("directions", directions, least=0)
    with progress_bar(PATIENCE) if progress is None else nullcontext(progress or None) as hook:
        settings = Settings.of(
            FunctionCase.evaluators,
            evaluator="full",
            step=step,
            seed=seed,
            threads=threads,
            default_threads=1,
            progress=hook,
            dims=dims,
            keep=keep,
            stencil=stencil,
            directions=directions,
            noise=noise,
            relative_noise=relative_noise,
            precision=precision,
        )
        case = FunctionCase(loss, grad, params, noise=noise, relative_noise=relative_noise, precision=precision)
        from fastcheck.engine import coordinator  # imports Numba

        return coordinator.run(case.pipeline(settings), settings)


@keywords_told
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
