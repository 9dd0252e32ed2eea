"""Sweeps: chosen dimensions of a case, differenced at many steps and interpreted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import Shape, index_of, integer, position_of, positive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.naming import refuse_unknown
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.engine.differences import Differences
from fastcheck.engine.pipeline import Case
from fastcheck.engine.steps import is_usable, refuse_unusable
from fastcheck.functions.case import FunctionCase
from fastcheck.metrics.tally import WORST
from fastcheck.reports.report import Report
from fastcheck.sweeps.curve import LEAST_STEPS, Curve, analyse
from fastcheck.sweeps.report import Sweep

if TYPE_CHECKING:
    from fastcheck.sweeps.opening import Opening

STEPS = tuple(10.0 ** (-k / 4) for k in range(4, 49))
"""The steps of a sweep: 1e-1 to 1e-12, four in each decade."""

SHOWN = 3
"""Worst dimensions of each tensor that are swept unless they are chosen."""


@refuse_unknown_keywords
def sweep(
    case: Case,
    *,
    tensor: str | None = None,
    dims: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    steps: Sequence[float] | None = None,
    evaluator: Literal["auto", "full", "local", "delta", "network"] = "auto",
    threads: int | None = None,
    seed: int = 0,
    progress: ProgressHook | None = None,
) -> Sweep:
    """Difference a few dimensions at many steps, and interpret their curves of errors.

    Parameters
    ----------
    case : ConvCase, FunctionCase or NetworkCase
    tensor : str, optional
        A tensor with a gradient; by default all of them.
    dims : int or sequence, optional
        Number of dimensions of each tensor, the worst by a check (at most 10; by default 3), or flat indices or
        multi-indices of ``tensor``.
    steps : sequence of float, optional
        At least four different steps, used exactly as given. By default 1e-1 to 1e-12, four in each decade, without
        steps too small to change the tensor's largest entry; and the step that a check would take.
    evaluator : {"auto", "full", "local", "delta", "network"}
        As in `fastcheck.check`; ``"auto"`` is ``local``. A function has ``full`` alone; a network has ``network`` and
        ``full``.
    threads, seed, progress : optional
        As in `fastcheck.check` or `fastcheck.check_gradient`, whose sample of a large tensor limits which dimensions
        can be the worst.

    Returns
    -------
    Sweep
        True if no curve indicates a coding mistake.

    Raises
    ------
    FastcheckError
        If an argument is invalid.
    GradientMismatchError
        If the case's declared output belongs to another function; it carries the report of that.
    """
    if not isinstance(case, Case):
        raise FastcheckError(f"case is {type(case).__name__}: expected a ConvCase, a FunctionCase or a NetworkCase")
    black_box = isinstance(case, FunctionCase)
    for finding in case.findings if isinstance(case, FunctionCase) else ():
        if finding.verdict is not None:
            raise FastcheckError(f"{finding.words}: {finding.advice}")
    refuse_unknown("evaluator", evaluator, ("auto", *case.evaluators))
    tensors = _tensors(case, tensor)
    threads = machine.thread_count(threads, default=1 if black_box else None)
    seed = integer("seed", seed, least=0)
    given = _given(case, tensors, steps)
    count = _count(dims)
    chosen = {} if count else _picked(case, tensors, dims)
    from fastcheck.sweeps.opening import Opening  # imports Numba

    start = time.perf_counter()
    used = case.evaluators[0] if evaluator == "auto" else evaluator
    opening = Opening(case, used, threads, seed, progress or silent)
    if count:
        chosen = {name: worst[:count] for name, worst in opening.worst().items() if name in tensors}
    return Sweep(
        curves=tuple(_curves(opening, chosen, given)),
        evaluator=opening.evaluator,
        seed=seed,
        operands=case.described(),
        run=machine.run_part(threads, time.perf_counter() - start),
    )


def explained(case: Case, report: Report, *, threads: int, progress: ProgressHook) -> Report:
    """Sweep the worst dimensions of every failing tensor, and return the report with the curves' readings.

    A report whose tensors cannot be swept is returned as it is: an explanation must not cost the verdict.
    """
    failing = {name: tensor for name, tensor in report.tensors.items() if tensor.verdict == "fail"}
    if report.interrupted or not failing:
        return report
    from fastcheck.sweeps.opening import Opening  # imports Numba

    chosen = {
        name: [position_of(entry.index, tensor.shape) for entry in tensor.worst[:SHOWN] if entry.verdict == "fail"]
        for name, tensor in failing.items()
    }
    try:
        curves = list(_curves(Opening(case, "local", threads, report.seed, progress), chosen))
    except KeyboardInterrupt:
        return replace(report, interrupted=True)
    except FastcheckError:
        return report
    swept = {
        name: replace(tensor, sweep=tuple(curve.brief() for curve in curves if curve.tensor == name))
        for name, tensor in failing.items()
    }
    return replace(report, tensors=report.tensors | swept)


def _curves(
    opening: Opening, chosen: Mapping[str, Sequence[int]], given: tuple[float, ...] | None = None
) -> Iterator[Curve]:
    """Yield the curves of chosen flat indices, tensor by tensor and in their order."""
    case, progress = opening.case, opening.progress
    with opening.differencing() as differences:
        for name, dims in chosen.items():
            steps = given or _default(case, name, differences.automatic(name))
            ascending, positions = np.unique(np.asarray(dims, dtype=np.int64), return_inverse=True)
            by_step: dict[float, Differences] = {}
            for count, step in enumerate(steps):
                progress(f"{name}: steps", count, len(steps))
                try:
                    by_step[step] = differences(name, ascending, step)
                except FastcheckError:
                    # A default step that leaves the function's domain is skipped while enough others remain.
                    if given is not None or len(steps) - count <= LEAST_STEPS - len(by_step):
                        raise
            progress(f"{name}: steps", len(steps), len(steps))
            for dim, position in zip(dims, positions.tolist(), strict=True):
                yield _curve(name, case.grads[name], dim, list(by_step), list(by_step.values()), position)


def _curve(
    tensor: str, analytic: np.ndarray, dim: int, steps: Sequence[float], blocks: Sequence[Differences], position: int
) -> Curve:
    every, harmless, jumps = (
        [_at(getattr(block, key), position) for block in blocks] for key in ("kinks", "harmless", "jump")
    )
    kinks = [count - none for count, none in zip(every, harmless, strict=True)]
    return analyse(
        steps,
        [float(block.numeric[position]) for block in blocks],
        float(analytic.reshape(-1)[dim]),
        [float(block.error_bar[position]) for block in blocks],
        kinks=kinks,
        jumps=jumps,
        tensor=tensor,
        index=index_of(dim, analytic.shape),
    )


def _at(values: np.ndarray | None, position: int) -> Any:
    return 0 if values is None else values[position]


def _tensors(case: Case, tensor: str | None) -> tuple[str, ...]:
    if tensor is None:
        return tuple(case.grads)
    refuse_unknown("tensor", tensor, case.grads)
    return (tensor,)


def _picked(case: Case, tensors: tuple[str, ...], dims: Any) -> dict[str, list[int]]:
    if len(tensors) > 1:
        raise FastcheckError(f"dims are indices: give tensor=, one of {', '.join(tensors)}")
    return {name: _indices(dims, case.grads[name].shape, name) for name in tensors}


def _count(dims: Any) -> int | None:
    """Return the requested number of worst dimensions; None where indices are given."""
    if dims is None:
        return SHOWN
    if not isinstance(dims, (int, np.integer)):
        return None
    if isinstance(dims, bool) or not 1 <= dims <= WORST:
        raise FastcheckError(f"dims is {dims!r}: expected a number of worst dimensions, 1 to {WORST}, or indices")
    return int(dims)


def _indices(dims: Any, shape: Shape, tensor: str) -> list[int]:
    """Return flat indices in the given order, without repeats."""
    if isinstance(dims, (str, bytes)) or not isinstance(dims, Iterable):
        raise FastcheckError(
            f"dims is {dims!r}: expected a number of worst dimensions, or flat indices or multi-indices"
        )
    chosen = list(dict.fromkeys(_index(entry, shape, tensor) for entry in dims))
    if not chosen:
        raise FastcheckError(f"dims is {dims!r}: expected at least one index")
    return chosen


def _index(entry: Any, shape: Shape, tensor: str) -> int:
    size = int(np.prod(shape))
    if isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
        if 0 <= entry < size:
            return int(entry)
        raise FastcheckError(f"dims has {entry}: expected flat indices below {size}, the size of {tensor}")
    try:
        index = tuple(int(integer("index", i, least=0)) for i in entry)
        return position_of(index, shape)
    except (TypeError, ValueError):  # FastcheckError is a ValueError
        raise FastcheckError(f"dims has {entry!r}: expected indices into {tensor}, of shape {tuple(shape)}") from None


def _given(case: Case, tensors: Iterable[str], steps: Any) -> tuple[float, ...] | None:
    """Return the requested steps, the largest first; None for the default ones."""
    if steps is None:
        return None
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Iterable):
        raise FastcheckError(f"steps is {steps!r}: expected at least {LEAST_STEPS} different positive numbers")
    chosen = tuple(sorted({positive("steps", step) for step in steps}, reverse=True))
    if len(chosen) < LEAST_STEPS:
        raise FastcheckError(f"steps are {list(chosen)}: expected at least {LEAST_STEPS} different positive numbers")
    for tensor in tensors:
        for step in chosen:
            refuse_unusable(step, case.operand(tensor), tensor)
    return chosen


def _default(case: Case, tensor: str, automatic: float) -> tuple[float, ...]:
    """Return the default steps that a tensor can take, the largest first."""
    operand = case.operand(tensor)
    steps = tuple(step for step in sorted({*STEPS, automatic}, reverse=True) if is_usable(step, operand, tensor))
    if len(steps) < LEAST_STEPS:
        raise FastcheckError(
            f"steps are {STEPS[0]:g} to {STEPS[-1]:g} by default, too small to change the largest entry of "
            f"{tensor}, {float(np.abs(operand).max())!r}: give larger ones"
        )
    return steps
