"""The path of a check, top to bottom: forward, sampling, evaluators, blocks across threads, tallies, report."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck import diagnosis, machine, sampling, step, tally, verdict
from fastcheck.cases import forward
from fastcheck.cases.conv import ConvCase
from fastcheck.cases.scaling import ScaledOperands
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Evaluator, reevaluation
from fastcheck.geometry import Shape
from fastcheck.interrupts import Interrupts, listening
from fastcheck.progress import ProgressHook
from fastcheck.report import ForwardReport, Kept, Report, TensorReport
from fastcheck.verdict import Verdict

BLOCK = 4096
"""Most dimensions in a block."""

BLOCK_WORK = 2**27
"""Multiply-adds after which a block ends: about a tenth of a second, so that Ctrl-C and progress need not wait.
It depends on the case alone, as everything does that decides how sums are grouped."""

AUTOMATIC = "local"
"""What ``evaluator="auto"`` picks."""


@dataclass(frozen=True)
class Plan:
    """How a case is to be checked; see `fastcheck.check` for the meaning of each."""

    dims: Any
    step: Any
    evaluator: str
    threads: int
    seed: int
    keep: bool
    progress: ProgressHook


@dataclass
class _Clock:
    """Seconds of the parts of a check."""

    seconds: float = 0.0
    forward_seconds: float = 0.0

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
    chosen = sampling.choose(plan.dims, _shapes(case), _work(case), plan.seed)
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
    return _report(plan, state, clock)


def _run(
    case: ConvCase,
    plan: Plan,
    chosen: dict[str, np.ndarray],
    pool: Executor,
    clock: _Clock,
    state: _Progress,
    interrupts: Interrupts,
) -> None:
    with clock.of("seconds"):
        plan.progress("preparing (the first run compiles the kernels)", 0, 0)
        forward.compile()
        interrupts.raise_if_heard()
    if case.output is not None:
        with clock.of("forward_seconds"):
            plan.progress("forward", 0, 0)
            state.forward = check_forward(case, pool)
        if state.forward.verdict == "fail":
            return
    with clock.of("seconds"):
        _check_tensors(case, plan, chosen, pool, state, interrupts)


def _shapes(case: ConvCase) -> dict[str, Shape]:
    return {name: case.geometry.shape_of(name) for name in case.grads}


def _work(case: ConvCase) -> dict[str, int]:
    return {name: case.geometry.products_per_dimension(name) for name in case.grads}


def check_forward(case: ConvCase, pool: Executor) -> ForwardReport:
    """Compare the declared output with the computed one, within what their arithmetic can explain."""
    assert case.output is not None
    assert case.output_dtype is not None
    computed = forward.output(case, pool)
    precision = step.Precision.of(case.output_dtype, case.precision, (case.input, case.weight))
    magnitude = forward.magnitude(case, case.geometry, pool)
    if not np.isfinite(magnitude).all():
        raise FastcheckError("the forward pass overflows float64: scale input, weight or bias down")
    bar = step.forward_bar(computed, magnitude, case.geometry.terms, precision)
    every = np.arange(computed.size)
    arrays = (every, case.output.ravel(), computed.ravel(), bar.ravel())
    # By blocks, since a dot product of millions of entries depends on how many threads BLAS takes.
    compared = tally.merge(tally.fold(*(a[i : i + BLOCK] for a in arrays)) for i in range(0, computed.size, BLOCK))
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


def _check_tensors(
    case: ConvCase,
    plan: Plan,
    chosen: dict[str, np.ndarray],
    pool: Executor,
    state: _Progress,
    interrupts: Interrupts,
) -> None:
    name_of_evaluator = AUTOMATIC if plan.evaluator == "auto" else plan.evaluator
    plan.progress("preparing", 0, 0)
    scaled = ScaledOperands.of(case)
    magnitude = forward.magnitude(scaled, case.geometry, pool)
    for name, dims in chosen.items():
        interrupts.raise_if_heard()
        evaluator = reevaluation.Reevaluation(name_of_evaluator, case, scaled, name, magnitude, plan.step)
        blocks = np.array_split(dims, range(size := _block_size(case, name, name_of_evaluator), len(dims), size))
        parts, interrupted = _difference(evaluator, case.grads[name], blocks, plan, name, pool)
        merged = tally.merge(part for part, _ in parts)
        state.tensors[name] = TensorReport.of(
            merged,
            verdict.of_tensor(merged),
            case.geometry.shape_of(name),
            evaluator=name_of_evaluator,
            step=evaluator.step,
            kept=_joined([kept for _, kept in parts if kept is not None]) if plan.keep else None,
        )
        if interrupted:
            raise KeyboardInterrupt


def _block_size(case: ConvCase, name: str, evaluator: str) -> int:
    work = case.geometry.products_per_dimension(name)
    if evaluator == "full":
        work = int(np.prod(case.geometry.output_shape)) * case.geometry.terms
    return int(np.clip(BLOCK_WORK // max(1, work), 1, BLOCK))


_Part = tuple[tally.Tally, Kept | None]


def _difference(
    evaluator: Evaluator, analytic: np.ndarray, blocks: list[np.ndarray], plan: Plan, name: str, pool: Executor
) -> tuple[list[_Part], bool]:
    """Run blocks on the pool; return the finished ones in the blocks' order, and whether it was interrupted."""
    stop = threading.Event()
    values = analytic.reshape(-1)
    total = sum(len(block) for block in blocks)

    def work(dims: np.ndarray) -> _Part | None:
        if stop.is_set():
            return None
        here = values[dims].astype(np.float64)
        found = evaluator(dims)
        folded = tally.fold(dims, here, found.numeric, found.error_bar)
        return folded, Kept(dims, here, found.numeric, found.error_bar) if plan.keep else None

    futures: list[Future[_Part | None]] = []
    done = 0
    interrupted = False
    try:
        plan.progress(name, done, total)
        futures.extend(pool.submit(work, block) for block in blocks)
        for future in as_completed(futures):
            part = future.result()
            if part is not None:
                done += part[0].dims
                plan.progress(name, done, total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop.set()
    finished = [future.result() for future in futures if future.done() and not future.cancelled()]
    return [part for part in finished if part is not None], interrupted


def _joined(parts: list[Kept]) -> Kept | None:
    if not parts:
        return None
    bars = [part.error_bar for part in parts if part.error_bar is not None]
    return Kept(
        np.concatenate([part.dims for part in parts]),
        np.concatenate([part.analytic for part in parts]),
        np.concatenate([part.numeric for part in parts]),
        np.concatenate(bars),
    )


def _report(plan: Plan, state: _Progress, clock: _Clock) -> Report:
    verdicts: list[Verdict] = [tensor.verdict for tensor in state.tensors.values()]
    if state.forward is not None and state.forward.verdict == "fail":
        verdicts.append("fail")
    if state.interrupted:
        verdicts.append("inconclusive")
    return Report(
        verdict=verdict.heaviest(verdicts),
        seed=plan.seed,
        requested={"step": plan.step, "evaluator": plan.evaluator, "dims": plan.dims},
        interrupted=state.interrupted,
        forward=state.forward,
        tensors=state.tensors,
        run=machine.run_part(plan.threads, clock.seconds, clock.forward_seconds),
    )
