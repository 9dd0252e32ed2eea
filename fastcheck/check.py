"""The public functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fastcheck import machine, tally, verdict
from fastcheck.cases.conv import ConvCase, as_floating
from fastcheck.errors import FastcheckError
from fastcheck.naming import nearest
from fastcheck.progress import ProgressHook, silent
from fastcheck.report import Kept, Report, TensorReport
from fastcheck.sampling import Dims

EVALUATORS = ("auto", "full", "local")
"""What ``evaluator`` may be."""


def check(
    case: ConvCase,
    *,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    evaluator: Literal["auto", "full", "local"] = "auto",
    threads: int | None = None,
    seed: int = 0,
    keep: bool = False,
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
    evaluator : {"auto", "full", "local"}
        ``full`` evaluates every output twice for a dimension, ``local`` the outputs that the dimension can affect.
    threads : int, optional
        By default, as many as there are processors for this process. The report does not depend on it.
    seed : int
        Of the sample.
    keep : bool
        Keep the per-dimension arrays on the report.
    progress : callable, optional
        Called as progress(stage, done, total) in this thread.

    Returns
    -------
    Report
        After Ctrl-C a partial one, with ``interrupted`` set.

    Raises
    ------
    FastcheckError
        If an argument is none of the above.
    """
    if not isinstance(case, ConvCase):
        raise FastcheckError(f"case is {type(case).__name__}: expected a ConvCase")
    if evaluator not in EVALUATORS:
        raise FastcheckError(
            f"evaluator is {evaluator!r}{nearest(evaluator, EVALUATORS)}: expected {', '.join(EVALUATORS)}"
        )
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise FastcheckError(f"threads is {threads!r}: expected a number of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise FastcheckError(f"seed is {seed!r}: expected an integer of at least 0")
    from fastcheck import coordinator  # imports Numba

    plan = coordinator.Plan(
        dims=dims,
        step=step,
        evaluator=evaluator,
        threads=threads or machine.default_threads(),
        seed=int(seed),
        keep=keep,
        progress=progress or silent,
    )
    return coordinator.run(case, plan)


def compare(analytic: Any, numeric: Any, *, keep: bool = False) -> Report:
    """Compare two gradients that you already have, by both ratios, digits and signs.

    Nothing is known here of how the arrays came about, so that there are no error bars: the verdict follows the two
    rules of thumb (norm ratio at most 1e-9, max ratio below 1e-2), and is inconclusive where they disagree.

    Parameters
    ----------
    analytic, numeric : array or mapping of names to arrays
        Of the same shapes; float64, float32 or float16.
    keep : bool
        Keep the per-dimension arrays on the report.

    Returns
    -------
    Report
        Its tensor is named ``"gradient"`` where two arrays are given. ``norm_ratio`` equals NumPy's
        ``norm(a - n) / norm(a + n)`` over the flattened arrays to the last bit.

    Raises
    ------
    FastcheckError
        If shapes or names differ, an array is empty or of another dtype, or a numeric value is not finite.
    """
    pairs = _pairs(analytic, numeric)
    tensors = {name: _compared(name, *pair, keep=keep) for name, pair in pairs.items()}
    return Report(
        verdict=verdict.heaviest(tensor.verdict for tensor in tensors.values()),
        seed=0,
        requested={"step": None, "evaluator": None, "dims": "all"},
        interrupted=False,
        forward=None,
        tensors=tensors,
        run={"versions": machine.versions()},
    )


def _pairs(analytic: Any, numeric: Any) -> dict[str, tuple[Any, Any]]:
    if isinstance(analytic, Mapping) != isinstance(numeric, Mapping):
        raise FastcheckError("analytic and numeric are an array and a mapping: expected two arrays or two mappings")
    if not isinstance(analytic, Mapping):
        return {"gradient": (analytic, numeric)}
    for one, other, name in ((analytic, numeric, "numeric"), (numeric, analytic, "analytic")):
        for key in one:
            if key not in other:
                raise FastcheckError(f"{name} has no {key!r}{nearest(key, map(str, other))}")
    if not analytic:
        raise FastcheckError("analytic is an empty mapping: expected at least one array")
    return {str(key): (analytic[key], numeric[key]) for key in analytic}


def _compared(name: str, analytic: Any, numeric: Any, keep: bool) -> TensorReport:
    a, n = as_floating(f"analytic {name}", analytic), as_floating(f"numeric {name}", numeric)
    if a.shape != n.shape:
        raise FastcheckError(f"numeric {name} has shape {n.shape}: expected {a.shape}, that of analytic {name}")
    if not a.size:
        raise FastcheckError(f"analytic {name} is empty: it has shape {a.shape}")
    flat_a, flat_n = a.astype(np.float64).ravel(), n.astype(np.float64).ravel()
    finite = np.isfinite(flat_n)
    if not finite.all():
        place = [int(i) for i in np.unravel_index(int(np.argmin(finite)), n.shape)]
        raise FastcheckError(f"numeric {name} is {n[tuple(place)]} at index {place}: expected finite numbers")
    every = np.arange(a.size)
    folded = tally.fold(every, flat_a, flat_n, None)
    kept = Kept(every, flat_a, flat_n, None) if keep else None
    return TensorReport.of(folded, verdict.of_arrays(folded), a.shape, kept=kept)
