"""The public functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError
from fastcheck.common.progress import ProgressHook
from fastcheck.convolutions.case import ConvCase
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.metrics import judged
from fastcheck.reports import comparison
from fastcheck.reports.report import Report, requested
from fastcheck.sweeps.sweep import explained

STENCILS = ("auto", 3, 5)
"""What ``stencil`` may be."""


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
        Which dimensions to check: all of them, a seeded sample of so many (spread over the tensors, and stratified
        so that border taps, every filter and every channel are met), or all where that takes seconds.
    step : float or "auto"
        The step h, used exactly as given. ``"auto"`` takes a power of two about the operand's own scale: the loss is
        linear in each operand, so that there is no truncation error to keep small.
    evaluator : {"auto", "full", "local", "delta"}
        ``full`` evaluates every output twice for a dimension, ``local`` the outputs that the dimension can affect.
        ``delta``, which ``"auto"`` picks, keeps the outputs and moves them by what the dimension contributes; an audit
        differences 32 dimensions of each tensor again by ``local``, and one direction over all by ``full``.
    kinks : {"widen", "exclude"}
        What becomes of a dimension whose difference crosses a kink: its error bar is widened by what that can change,
        or it is left out, and counted.
    threads : int, optional
        By default, as many as there are processors for this process. The report does not depend on it.
    seed : int
        Of the sample.
    keep : bool
        Keep the per-dimension arrays on the report.
    explain : bool
        Sweep the step at the worst dimensions of every failing tensor, and put what that tells on the report.
    progress : callable, optional
        Called as progress(stage, done, total) in this thread.

    Returns
    -------
    Report
        It is true where every gradient passed. After Ctrl-C a partial one, with ``interrupted`` set.

    Raises
    ------
    FastcheckError
        If an argument is none of the above.
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


def check_gradient(
    loss: Callable[[Any], Any],
    grad: Any,
    params: Any,
    *,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    stencil: Literal["auto", 3, 5] = "auto",
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    threads: int = 1,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | None = None,
) -> Report:
    """Difference any Python function of arrays and judge the gradient that was written for it.

    Parameters
    ----------
    loss : callable
        Called as loss(params), with float64 arrays in the form that ``params`` has; it returns one finite number and
        leaves its argument as it is. With several threads it is called from all of them at once.
    grad : callable, array or mapping of names to arrays
        The gradient shaped as ``params``, in float64, float32 or float16; or a function of params that returns it.
        A function is the better choice where it computes in float32 or less, or with ill-conditioned matrices: its
        rounding is then measured, by 7 to 21 calls beside the first two (14 to 84 in half precision), and enters the
        error bars.
    params : array, or mapping of names to arrays
        Where to check; float64, float32 or float16. The tensor of a single array is called ``"params"``.
    dims : "auto", "all", int, or a mapping from tensor names to these
        As in `check`; ``"auto"`` takes a tensor of up to 2,048 entries whole, and 1,024 of a larger one.
    step : float or "auto"
        The step h, used exactly as given for every dimension (2h and 4h beside it, for the error bar). ``"auto"``
        finds a power of two for each dimension that balances truncation against the loss's own noise.
    stencil : {"auto", 3, 5}
        Points of a difference: f(x + h) and f(x - h), or those at 2h as well, which allow larger steps on smooth
        losses. ``"auto"`` takes what has the smaller error bar.
    noise, relative_noise : float, optional
        Accuracy of the loss, where it comes from a solver, an adaptive integrator or a sum in any order: a value may be
        off by ``noise``, or by ``relative_noise`` times its size at ``params``. The error bars hold it.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        The arithmetic that made the gradient, where its dtype does not tell.
    threads : int
        The report does not depend on it. A loss that holds the GIL gains nothing by several.
    seed : int
        Of the sample, and of the directions in which noise is measured.
    keep : bool
        Keep the per-dimension arrays on the report.
    progress : callable, optional
        Called as progress(stage, done, total) in this thread.

    Returns
    -------
    Report
        It is true where the gradient passed, so that ``assert check_gradient(loss, grad, params)`` works in a test.
        After Ctrl-C a partial one, with ``interrupted`` set. ``tensors[name].step`` is a typical step. ``health`` has
        what was found out about the functions themselves: a gradient that adds up from call to call or changes what
        the loss reads, a loss that never moves or remembers where it was, winners of a tie that do not share a slope.

    Raises
    ------
    FastcheckError
        If an argument is none of the above, the loss raises or is not finite at ``params`` or at every step that is
        tried around an entry, or it differs by more than its last bits when called again. Elsewhere an exception is
        what nan is, a reason for a smaller step.

    Notes
    -----
    `fastcheck.functions.step_search` has the model of step and error, and its sources. A dimension takes six calls of
    the loss, and two to four for each step that is tried beside the typical one.
    """
    if stencil not in STENCILS or isinstance(stencil, float):
        raise FastcheckError(f"stencil is {stencil!r}: expected 'auto', 3 or 5")
    settings = Settings.of(
        FunctionCase.evaluators,
        evaluator="full",
        step=step,
        seed=seed,
        threads=threads,
        default_threads=1,
        progress=progress,
        dims=dims,
        keep=keep,
        stencil=stencil,
        noise=noise,
        relative_noise=relative_noise,
        precision=precision,
    )
    case = FunctionCase(loss, grad, params, noise=noise, relative_noise=relative_noise, precision=precision)
    from fastcheck.engine import coordinator  # imports Numba

    return coordinator.run(case.pipeline(settings), settings)


def compare(analytic: Any, numeric: Any, *, precision: str | None = None, keep: bool = False) -> Report:
    """Compare two gradients that you already have, by both ratios, digits and signs.

    Nothing is known here of how the arrays came about, so that there are no error bars: the verdict follows the two
    rules of thumb (norm ratio at most 1e-9, max ratio below 1e-2), and is inconclusive where they disagree. Of narrower
    types than float64 the first is `fastcheck.metrics.verdict.norm_rule`. Entries that differ by no more than the first
    rule leaves to a typical entry do not break the second. A tensor without a value above 1e-9 of what is typical of
    another one is round-off, and passes, unless its two arrays resemble each other (the sizes of most entries are in
    one ratio, or the norm ratio is outside of 1/3 to 3): it is inconclusive then, and where there is no other to
    compare it with.

    Parameters
    ----------
    analytic, numeric : array or mapping of names to arrays
        Of the same shapes; float64, float32 or float16.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        How the coarser of them was computed, where that is coarser than both dtypes (bfloat16 arrives as float32).
    keep : bool
        Keep the per-dimension arrays on the report.

    Returns
    -------
    Report
        It is true where every tensor passes. Its tensor is named ``"gradient"`` where two arrays are given.
        ``norm_ratio`` equals NumPy's ``norm(a - n) / norm(a + n)`` over the flattened arrays to the last bit.

    Raises
    ------
    FastcheckError
        If shapes or names differ, an array is empty or of another dtype, a numeric value is not finite, or the
        precision is none of the above.
    """
    start = time.perf_counter()
    tensors = comparison.compared(analytic, numeric, precision, keep)
    asked = requested(None, None, "all", None)
    return Report(
        verdict=judged.heaviest(tensor.verdict for tensor in tensors.values()),
        seed=0,
        requested=asked if precision is None else asked | {"precision": precision},
        interrupted=False,
        forward=None,
        tensors=tensors,
        run=machine.run_part(threads=1, seconds=time.perf_counter() - start),
    )
