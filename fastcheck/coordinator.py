"""The path of a check, top to bottom: forward, sampling, evaluators, blocks across threads, tallies, report."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastcheck import diagnosis, machine, sampling, step, tally, verdict
from fastcheck.cases import forward
from fastcheck.cases.conv import ConvCase
from fastcheck.cases.scaling import ScaledOperands
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Chosen, Evaluator, judging
from fastcheck.evaluators.audit import Audit, Noted
from fastcheck.evaluators.delta_curved import CurvedDelta
from fastcheck.evaluators.delta_input import InputDelta
from fastcheck.evaluators.delta_weight import WeightDelta
from fastcheck.evaluators.reevaluation import Reevaluation
from fastcheck.geometry import Shape
from fastcheck.interrupts import Interrupts, listening
from fastcheck.progress import ProgressHook
from fastcheck.report import NOT_AUDITED, ForwardReport, Kept, Report, TensorReport
from fastcheck.verdict import Verdict

AUTOMATIC = "delta"
"""What ``evaluator="auto"`` picks."""

CURVED_COST = 30
"""How many times as long a moved output takes where phi is applied to it."""

FORWARD_BLOCK = 4096
"""Outputs that are compared at a time with declared ones."""


@dataclass(frozen=True)
class Plan:
    """How a case is to be checked; see `fastcheck.check` for the meaning of each."""

    dims: Any
    step: Any
    evaluator: str
    threads: int
    seed: int
    kinks: str
    keep: bool
    progress: ProgressHook


@dataclass
class _Clock:
    """Seconds of the parts of a check."""

    seconds: float = 0.0
    forward_seconds: float = 0.0
    audit_seconds: float = 0.0

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)


@dataclass
class _Progress:
    """What came out of a check so far, whole at every moment that it may be interrupted."""

    forward: ForwardReport | None = None
    tensors: dict[str, TensorReport] = field(default_factory=dict)
    interrupted: bool = False


def run(case: ConvCase, plan: Plan) -> Report:
    """Check every tensor of a case that has an analytic gradient."""
    clock, state = _Clock(), _Progress()
    evaluator = AUTOMATIC if plan.evaluator == "auto" else plan.evaluator
    chosen = sampling.choose(plan.dims, _shapes(case), _work(case, evaluator), plan.seed)
    for name in case.grads if plan.step != "auto" else ():
        step.usable(plan.step, case.operand(name), name)
    pool = ThreadPoolExecutor(plan.threads, thread_name_prefix="fastcheck")
    with listening() as interrupts:
        try:
            _run(case, plan, chosen, pool, clock, state, interrupts)
        except KeyboardInterrupt:
            state.interrupted = True
        except Exception:
            if not interrupts.heard:
                raise
            state.interrupted = True
        finally:
            pool.shutdown(wait=not state.interrupted, cancel_futures=True)
    return _report(case, plan, state, clock)


def _run(
    case: ConvCase,
    plan: Plan,
    chosen: dict[str, Chosen],
    pool: Executor,
    clock: _Clock,
    state: _Progress,
    interrupts: Interrupts,
) -> None:
    with clock.of("seconds"):
        plan.progress("preparing (the first run compiles the kernels)", 0, 0)
        forward.compile()
        judging.compile()
        interrupts.raise_if_heard()
        scaled = ScaledOperands.of(case)
    evaluator = AUTOMATIC if plan.evaluator == "auto" else plan.evaluator
    output = magnitude = None
    if case.output is not None or evaluator == "delta":
        with clock.of("forward_seconds"):
            plan.progress("forward", 0, 0)
            output = forward.output(scaled, case.geometry, pool)
    if case.output is not None or evaluator != "delta" or case.loss != "vjp":
        with clock.of("forward_seconds" if evaluator == "delta" else "seconds"):
            magnitude = forward.magnitude(scaled, case.geometry, pool)
    if case.output is not None:
        assert output is not None
        assert magnitude is not None
        with clock.of("forward_seconds"):
            state.forward = check_forward(case, scaled, output, magnitude, pool)
        if state.forward.verdict == "fail":
            return
    for name, dims in chosen.items():
        _check_tensor(case, scaled, name, dims, evaluator, output, magnitude, plan, pool, clock, state, interrupts)


def _shapes(case: ConvCase) -> dict[str, Shape]:
    return {name: case.geometry.shape_of(name) for name in case.grads}


def _work(case: ConvCase, evaluator: str) -> dict[str, int]:
    """Return what a dimension of each tensor costs, in multiply-adds."""
    geometry = case.geometry
    if evaluator == "full":
        return dict.fromkeys(case.grads, 2 * math.prod(geometry.output_shape) * geometry.terms)
    products = {name: geometry.products_per_dimension(name) for name in case.grads}
    if evaluator == "local":
        return {name: 2 * work for name, work in products.items()}
    moved = {name: work // geometry.terms for name, work in products.items()}
    return moved if case.loss == "vjp" else {name: CURVED_COST * work for name, work in moved.items()}


def check_forward(
    case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray, pool: Executor
) -> ForwardReport:
    """Compare the declared output with the computed one, within what their arithmetic can explain.

    ``output`` and ``magnitude`` are those of the scaled operands.
    """
    assert case.output is not None
    assert case.output_dtype is not None
    with np.errstate(over="ignore"):
        computed, size = (np.ldexp(array, scaled.exponents["bias"]) for array in (output, magnitude))
    precision = step.Precision.of(case.output_dtype, case.precision, (case.input, case.weight))
    if not np.isfinite(size).all():
        raise FastcheckError("the forward pass overflows float64: scale input, weight or bias down")
    bar = step.forward_bar(computed, size, case.geometry.terms, precision)
    every = np.arange(computed.size)
    arrays = (every, case.output.ravel(), computed.ravel(), bar.ravel())
    # By blocks, since a dot product of millions of entries depends on how many threads BLAS takes.
    blocks = range(0, computed.size, FORWARD_BLOCK)
    compared = tally.merge(tally.fold(*(a[i : i + FORWARD_BLOCK] for a in arrays)) for i in blocks)
    if not compared.beyond:
        return ForwardReport("pass", compared.norm_ratio, None)
    found = diagnosis.of_forward(
        case.geometry,
        (case.input, case.weight, case.bias),
        case.output,
        computed,
        lambda geometry, x, w, b: forward.convolve(geometry, x, w, b, pool),
    )
    return ForwardReport("fail", compared.norm_ratio, found)


def _check_tensor(
    case: ConvCase,
    scaled: ScaledOperands,
    name: str,
    dims: Chosen,
    kind: str,
    output: np.ndarray | None,
    magnitude: np.ndarray | None,
    plan: Plan,
    pool: Executor,
    clock: _Clock,
    state: _Progress,
    interrupts: Interrupts,
) -> None:
    interrupts.raise_if_heard()
    audit = Audit(case, scaled, name, dims, plan.step, plan.seed) if kind == "delta" else None
    with clock.of("seconds"):
        plan.progress(f"{name}: preparing", 0, 0)
        evaluator = _evaluator(kind, case, scaled, name, output, magnitude, plan, pool)
        used_step = evaluator.step
        parts, interrupted = _difference(
            evaluator, case.grads[name], evaluator.blocks(dims), len(dims), audit, plan, name, pool
        )
        merged = judging.merge([part.folded for part in parts])
        kinks, excluded = (sum(getattr(part, name) for part in parts) for name in ("kinks", "excluded"))
        merged = replace(merged, kinks=kinks, excluded=excluded)
        del evaluator  # and its planes, before the audit asks for memory of its own
    audited = NOT_AUDITED
    if audit is not None and parts and not interrupted:
        with clock.of("audit_seconds"):
            plan.progress(f"{name}: audit", 0, 0)
            audited = audit.result([part.noted for part in parts if part.noted is not None], pool)
    state.tensors[name] = TensorReport.of(
        merged,
        verdict.of_tensor(merged, audited["disagreements"]),
        case.geometry.shape_of(name),
        evaluator=kind,
        step=used_step,
        audit=audited,
        kept=_joined([part.kept for part in parts if part.kept is not None]) if plan.keep else None,
    )
    if interrupted:
        raise KeyboardInterrupt


def _evaluator(
    kind: str,
    case: ConvCase,
    scaled: ScaledOperands,
    name: str,
    output: np.ndarray | None,
    magnitude: np.ndarray | None,
    plan: Plan,
    pool: Executor,
) -> Evaluator:
    if kind == "delta":
        assert output is not None
        if case.loss != "vjp":
            assert magnitude is not None
            return CurvedDelta(case, scaled, name, output, magnitude, plan.step, pool)
        if name == "input":
            return InputDelta(case, scaled, output, plan.step, pool)
        return WeightDelta(case, scaled, name, output, plan.step, pool)
    assert magnitude is not None
    return Reevaluation(kind, case, scaled, name, magnitude, plan.step)


class _Part(NamedTuple):
    """What is kept of a block."""

    folded: judging.Folded
    kinks: int
    excluded: int
    noted: Noted | None
    kept: Kept | None


def _difference(
    evaluator: Evaluator,
    analytic: np.ndarray,
    blocks: Sequence[Any],
    total: int,
    audit: Audit | None,
    plan: Plan,
    name: str,
    pool: Executor,
) -> tuple[list[_Part], bool]:
    """Run blocks on the pool; return the finished ones in the blocks' order, and whether it was interrupted."""
    stop = threading.Event()
    values = analytic.reshape(-1)

    def work(block: Any) -> _Part | None:
        if stop.is_set():
            return None
        found = evaluator(block)
        noted = None if audit is None else audit.note(found)
        kinks = 0 if found.kinks is None else int(np.count_nonzero(found.kinks))
        whole = len(found.dims)
        if kinks and plan.kinks == "exclude":
            found = found.without_kinks()
        here = values.take(found.dims).astype(np.float64, copy=False)
        return _Part(
            judging.fold(found.dims, here, found.numeric, found.error_bar),
            kinks,
            whole - len(found.dims),
            noted,
            Kept(found.dims, here, found.numeric, found.error_bar) if plan.keep else None,
        )

    futures: list[Future[_Part | None]] = []
    done = 0
    interrupted = False
    try:
        plan.progress(name, done, total)
        futures.extend(pool.submit(work, block) for block in blocks)
        for future in as_completed(futures):
            part = future.result()
            if part is not None:
                done += part.folded.dims + part.excluded
                plan.progress(name, done, total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop.set()
    finished = [future.result() for future in futures if future.done() and not future.cancelled()]
    return [part for part in finished if part is not None], interrupted


def _joined(parts: list[Kept]) -> Kept | None:
    """Put what blocks keep in ascending order of flat indices."""
    if not parts:
        return None
    dims = np.concatenate([part.dims for part in parts])
    order = np.argsort(dims, kind="stable")
    bars = [part.error_bar for part in parts if part.error_bar is not None]
    return Kept(
        dims[order],
        np.concatenate([part.analytic for part in parts])[order],
        np.concatenate([part.numeric for part in parts])[order],
        np.concatenate(bars)[order],
    )


def _report(case: ConvCase, plan: Plan, state: _Progress, clock: _Clock) -> Report:
    verdicts: list[Verdict] = [tensor.verdict for tensor in state.tensors.values()]
    if state.forward is not None and state.forward.verdict == "fail":
        verdicts.append("fail")
    if state.interrupted:
        verdicts.append("inconclusive")
    return Report(
        verdict=verdict.heaviest(verdicts),
        seed=plan.seed,
        requested={"step": plan.step, "evaluator": plan.evaluator, "dims": plan.dims, "kinks": plan.kinks},
        interrupted=state.interrupted,
        forward=state.forward,
        tensors=state.tensors,
        operands=case.described(),
        run=machine.run_part(plan.threads, clock.seconds, clock.forward_seconds, clock.audit_seconds),
    )
