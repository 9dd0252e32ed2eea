"""The path of a check, top to bottom: preparation, sampling, evaluators, blocks across threads, tallies, report."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from fastcheck import machine, regime, sampling, verdict
from fastcheck.evaluators import Auditing, Chosen, Evaluator, judging
from fastcheck.interrupts import Interrupts, listening
from fastcheck.paths import Clock, Path, Plan, Session
from fastcheck.report import NOT_AUDITED, ForwardReport, Kept, Report, TensorReport
from fastcheck.tally import Tally
from fastcheck.verdict import Verdict


@dataclass
class _Progress:
    """What came out of a check so far, whole at every moment that it may be interrupted."""

    forward: ForwardReport | None = None
    tensors: dict[str, TensorReport] = field(default_factory=dict)
    interrupted: bool = False


def run(path: Path, plan: Plan) -> Report:
    """Check every tensor of a case that has an analytic gradient."""
    clock, state = Clock(), _Progress()
    chosen = sampling.choose(plan.dims, path.shapes(), path.work(), plan.seed)
    pool = ThreadPoolExecutor(plan.threads, thread_name_prefix="fastcheck")
    with listening() as interrupts:
        try:
            _run(path, chosen, Session(plan, pool, interrupts, clock), state)
        except KeyboardInterrupt:
            state.interrupted = True
        except Exception:
            if not interrupts.heard:
                raise
            state.interrupted = True
        finally:
            pool.shutdown(wait=not state.interrupted, cancel_futures=True)
    return _report(path, plan, state, clock)


def _run(path: Path, chosen: dict[str, Chosen], session: Session, state: _Progress) -> None:
    with session.clock.of("seconds"):
        session.plan.progress("preparing (the first run compiles the kernels)", 0, 0)
        judging.compile()
    state.forward = path.prepare(session)
    if state.forward is not None and state.forward.verdict == "fail":
        return
    for name, dims in chosen.items():
        _check_tensor(path, name, dims, session, state)


def _check_tensor(path: Path, name: str, dims: Chosen, session: Session, state: _Progress) -> None:
    session.interrupts.raise_if_heard()
    plan, clock = session.plan, session.clock
    audit = path.audit(name, dims, session)
    with clock.of("seconds"):
        plan.progress(f"{name}: preparing", 0, 0)
        evaluator = path.evaluator(name, plan.step, session)
        step, blocks = evaluator.step, evaluator.blocks(dims)
        done, interrupted = _difference(evaluator, path.grads[name], blocks, len(dims), audit, name, session)
        merged = judging.merge([part.folded for part in done])
        kinks, excluded = (sum(getattr(part, name) for part in done) for name in ("kinks", "excluded"))
        merged = replace(merged, kinks=kinks, excluded=excluded)
        parts = {} if interrupted else _parts(evaluator, merged)  # which takes as long as a few dimensions
        del evaluator  # and its planes, before the audit asks for memory of its own
    audited = NOT_AUDITED
    if audit is not None and done and not interrupted:
        with clock.of("audit_seconds"):
            plan.progress(f"{name}: audit", 0, 0)
            audited = audit.result([part.noted for part in done if part.noted is not None], session.pool)
    kept = _joined([part.kept for part in done if part.kept is not None]) if plan.keep else None
    state.tensors[name] = _reported(path, name, merged, parts, step, audited, kept)
    if interrupted:
        raise KeyboardInterrupt


def _reported(
    path: Path,
    name: str,
    merged: Tally,
    parts: dict[int, dict[str, float]],
    step: float,
    audited: dict[str, Any],
    kept: Kept | None,
) -> TensorReport:
    """Judge a tensor, and describe it."""
    wide, least = (None if found is None else parts.get(found.dim) for found in (merged.widest, merged.least))
    judgement = verdict.of_tensor(merged, audited["disagreements"], "" if wide is None else regime.narrower(wide))
    explained = (parts or merged.least is None) and merged.dims and judgement.verdict in ("pass", "inconclusive")
    return TensorReport.of(
        merged,
        judgement,
        path.grads[name].shape,
        evaluator=path.kind,
        step=step,
        audit=audited,
        regime=regime.words(merged, least, step, path.precision(name)) if explained else "",
        parts=parts,
        kept=kept,
    )


def _parts(evaluator: Evaluator, merged: Tally) -> dict[int, dict[str, float]]:
    """Return the parts of the error bars of the dimensions that a report explains."""
    dims = sorted({found.dim for found in (merged.least, merged.widest) if found is not None})
    if not dims:
        return {}
    columns = evaluator.parts(np.array(dims, dtype=np.int64))
    return {dim: {name: float(values[i]) for name, values in columns.items()} for i, dim in enumerate(dims)}


class _Part(NamedTuple):
    """What is kept of a block."""

    folded: judging.Folded
    kinks: int
    excluded: int
    noted: Any
    kept: Kept | None


def _difference(
    evaluator: Evaluator,
    analytic: np.ndarray,
    blocks: Sequence[Any],
    total: int,
    audit: Auditing | None,
    name: str,
    session: Session,
) -> tuple[list[_Part], bool]:
    """Run blocks on the pool; return the finished ones in the blocks' order, and whether it was interrupted."""
    plan, stop = session.plan, threading.Event()
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
            judging.fold(found, here),
            kinks,
            whole - len(found.dims),
            noted,
            Kept(found.dims, here, found.numeric, found.error_bar) if plan.keep else None,
        )

    futures: list[Future[_Part | None]] = []
    ended: SimpleQueue[Future[_Part | None]] = SimpleQueue()
    done = 0
    interrupted = False
    try:
        with session.interrupts.held():
            plan.progress(name, done, total)
            for block in blocks:
                session.interrupts.raise_if_heard()
                futures.append(session.pool.submit(work, block))
                futures[-1].add_done_callback(ended.put)
            for _ in futures:
                part = _next(ended, session.interrupts).result()
                if part is not None:
                    done += part.folded.dims + part.excluded
                    plan.progress(name, done, total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop.set()
    finished = [future.result() for future in futures if future.done() and not future.cancelled()]
    return [part for part in finished if part is not None], interrupted


def _next(ended: SimpleQueue[Future[_Part | None]], interrupts: Interrupts) -> Future[_Part | None]:
    """Wait for a block that ends, or for an interrupt."""
    while True:
        interrupts.raise_if_heard()
        with suppress(Empty):
            return ended.get(timeout=0.1)


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


def _report(path: Path, plan: Plan, state: _Progress, clock: Clock) -> Report:
    verdicts: list[Verdict] = [tensor.verdict for tensor in state.tensors.values()]
    if state.forward is not None and state.forward.verdict == "fail":
        verdicts.append("fail")
    if state.interrupted:
        verdicts.append("inconclusive")
    return Report(
        verdict=verdict.heaviest(verdicts),
        seed=plan.seed,
        requested=plan.requested,
        interrupted=state.interrupted,
        forward=state.forward,
        tensors=state.tensors,
        operands=path.described(),
        run=machine.run_part(plan.threads, clock.seconds, clock.forward_seconds, clock.audit_seconds),
    )
