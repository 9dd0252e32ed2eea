"""A check from top to bottom: sampling, preparation, evaluators, blocks across threads, tallies, report."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np

from fastcheck.common import machine
from fastcheck.common.interrupts import listening
from fastcheck.common.precision import narrow_type
from fastcheck.engine import folding, sampling
from fastcheck.engine.differences import Chosen, Evaluator, indices
from fastcheck.engine.folding import FoldedBlock
from fastcheck.engine.hosting import host
from fastcheck.engine.pipeline import Clock, Pipeline, Prepared, Session, WithDirections, WithSample, WithStructure
from fastcheck.engine.settings import Settings
from fastcheck.engine.shard_results import ShardResult
from fastcheck.metrics import judged, regime, verdict
from fastcheck.metrics.advice import Circumstances
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import Verdict
from fastcheck.metrics.tally import Tally
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import NOT_AUDITED, ForwardReport, Kept, TensorReport

SHARD_WORK = 4e8
"""Work of a shard, in outputs moved or multiply-adds: about a tenth of a second on one thread."""


@dataclass
class _Progress:
    """The results of a check so far, consistent at every moment at which it may be interrupted."""

    forward: ForwardReport | None = None
    tensors: dict[str, TensorReport] = field(default_factory=dict)
    interrupted: bool = False


def run(pipeline: Pipeline, settings: Settings) -> Report:
    """Check every tensor of a case that has an analytic gradient: by the host, or on a thread pool made for it."""
    if (run_by_host := host()) is not None:
        return run_by_host(pipeline, settings)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="fastcheck")
    with listening() as interrupts:
        session, interrupted = Session(settings, pool, interrupts), True
        try:
            report = run_in(pipeline, session)
            interrupted = report.interrupted
        finally:
            pool.shutdown(wait=not interrupted, cancel_futures=True)
    return report


def run_in(pipeline: Pipeline, session: Session) -> Report:
    """Check a case in a session: on the session's pool, and with the shards that its keeper has from an earlier run."""
    state = _Progress()
    try:
        _run(pipeline, session, state)
    except KeyboardInterrupt:
        state.interrupted = True
    except Exception:
        if not session.interrupts.interrupted:  # else Ctrl-C came out of a compiler's callback as another exception
            raise
        state.interrupted = True
    return _report(pipeline, session.settings, state, session.clock)


def prepare(pipeline: Pipeline, session: Session) -> Prepared:
    """Prepare what all tensors need, and compare the declared forward result where there is one."""
    with session.clock.of("seconds"):
        session.settings.progress("preparing (the first run compiles the kernels)", 0, 0)
        folding.compile_kernels()
    return pipeline.prepare(session)


def chosen(pipeline: Pipeline, settings: Settings) -> dict[str, Chosen]:
    """Choose the dimensions to check of every tensor."""
    dims = settings.dims
    if dims == "auto" and isinstance(pipeline, WithSample):
        dims = pipeline.automatic()
    return sampling.choose(dims, pipeline.shapes(), pipeline.work(), settings.seed)


def _run(pipeline: Pipeline, session: Session, state: _Progress) -> None:
    dims_of = chosen(pipeline, session.settings)
    prepared = prepare(pipeline, session)
    state.forward = prepared.forward
    if state.forward is not None and state.forward.verdict == "fail":
        return
    for name, dims in dims_of.items():
        _check_tensor(pipeline, prepared, name, _with_named(pipeline, name, dims), session, state)


def _with_named(pipeline: Pipeline, name: str, dims: Chosen) -> Chosen:
    """Return a tensor's dimensions and those that directions point to, in ascending order."""
    named = pipeline.named(name) if isinstance(pipeline, WithDirections) else []
    return np.union1d(indices(dims), np.array(named, dtype=np.int64)) if named else dims


def _check_tensor(
    pipeline: Pipeline, prepared: Prepared, name: str, dims: Chosen, session: Session, state: _Progress
) -> None:
    session.interrupts.raise_if_interrupted()
    settings, clock = session.settings, session.clock
    with clock.of("seconds"):
        settings.progress(f"{name}: preparing", 0, 0)
        tensor = OpenTensor(pipeline, prepared, name, dims, session)
        result, interrupted = _difference(tensor, session)
        if not interrupted and isinstance(pipeline, WithDirections):
            pipeline.confirm(name, tensor.evaluator)
        # Skipped after Ctrl-C: it takes as long as differencing a few dimensions.
        bar_components = {} if interrupted else _bar_components(tensor.evaluator, result.tally)
        step, audit = tensor.evaluator.step, tensor.audit
        del tensor  # frees the evaluator's planes before the audit allocates its own memory
    audited = NOT_AUDITED
    if audit is not None and result.noted is not None and not interrupted:
        with clock.of("audit_seconds"):
            settings.progress(f"{name}: audit", 0, 0)
            audited = audit.result(result.noted, session.pool)
    sampled = not interrupted and len(dims) < math.prod(pipeline.grads[name].shape)
    blinding = prepared.blinding(name)
    state.tensors[name] = _reported(pipeline, name, result, settings, bar_components, step, audited, sampled, blinding)
    if interrupted:
        raise KeyboardInterrupt


class OpenTensor:
    """A tensor of a prepared case, ready to be differenced from any thread.

    Attributes
    ----------
    name : str
    evaluator : Evaluator
    audit : Auditing or None
    total : int
        Number of dimensions to check.
    blocks : list
        The evaluator's blocks, in order.
    """

    def __init__(self, pipeline: Pipeline, prepared: Prepared, name: str, dims: Chosen, session: Session) -> None:
        self.name, self.total = name, len(dims)
        self.audit = prepared.audit(name, dims, session)
        self.evaluator = prepared.evaluator(name, session.settings.step, session)
        self.blocks = list(self.evaluator.blocks(dims))
        self._values = pipeline.grads[name].reshape(-1)
        self._work, self._settings = pipeline.work()[name], session.settings

    def shards(self) -> list[Sequence[Any]]:
        """Return runs of consecutive blocks, each of about `SHARD_WORK`. They depend on the case alone."""
        each = self._work * self.total / max(1, len(self.blocks))
        count = max(1, round(SHARD_WORK / max(1.0, each)))
        return [self.blocks[start : start + count] for start in range(0, len(self.blocks), count)]

    def difference(self, block: Any) -> FoldedBlock:
        """Difference a block, and fold it."""
        differences = self.evaluator(block)
        noted = None if self.audit is None else self.audit.note(differences)
        kinks = 0 if differences.kinks is None else int(np.count_nonzero(differences.kinks))
        count = len(differences.dims)
        if kinks and self._settings.kinks == "exclude":
            differences = differences.without_kinks()
        dims = differences.dims
        analytic = self._values.take(dims).astype(np.float64, copy=False)
        kept = Kept(dims, analytic, differences.numeric, differences.error_bar) if self._settings.keep else None
        folded = folding.fold(differences, analytic)
        return folded._replace(kinks=kinks, excluded=count - len(dims), noted=noted, kept=kept)


def _difference(tensor: OpenTensor, session: Session) -> tuple[ShardResult, bool]:
    """Difference a tensor on the pool; return the merged result, and whether it was interrupted.

    Without a keeper, a task is a block. With one, it is a shard: a run of blocks that the keeper stores as a whole.
    """
    if session.keeper is None:
        blocks, interrupted = _pooled(tensor.difference, tensor.blocks, 0, tensor, session)
        return folding.joined(blocks), interrupted
    keeper, done, left = session.keeper, [], []
    for number, shard_blocks in enumerate(tensor.shards()):
        result = keeper.known(tensor.name, number)
        if result is None:
            left.append((number, shard_blocks))
        else:
            done.append(result)

    def shard(task: tuple[int, Sequence[Any]]) -> ShardResult:
        number, shard_blocks = task
        start = time.perf_counter()
        result = folding.joined([tensor.difference(block) for block in shard_blocks])
        return keeper.keep(tensor.name, number, result, time.perf_counter() - start)

    fresh, interrupted = _pooled(shard, left, sum(result.reached for result in done), tensor, session)
    return ShardResult.merged([*done, *fresh]), interrupted


_Task = TypeVar("_Task")
_Done = TypeVar("_Done", FoldedBlock, ShardResult)


def _pooled(
    work: Callable[[_Task], _Done], tasks: Sequence[_Task], done: int, tensor: OpenTensor, session: Session
) -> tuple[list[_Done], bool]:
    """Run tasks on the pool; return the results of those that finished, in order, and whether it was interrupted."""
    settings, stop = session.settings, threading.Event()
    futures: list[Future[_Done | None]] = []
    ended: SimpleQueue[Future[_Done | None]] = SimpleQueue()
    interrupted = False
    # Progress is reported as tasks end, in any order, but the results are returned in the order of the tasks. Ctrl-C
    # only sets a flag while the pool's locks may be held, and this loop looks at the flag between tasks. Tasks that
    # still wait then see `stop` and do nothing; those that run finish, and count where they end in time.
    try:
        with session.interrupts.held():
            settings.progress(tensor.name, done, tensor.total)
            for task in tasks:
                session.interrupts.raise_if_interrupted()
                futures.append(session.pool.submit(lambda one: None if stop.is_set() else work(one), task))
                futures[-1].add_done_callback(ended.put)
            for _ in futures:
                result = _next(ended, session).result()
                if result is not None:
                    done += result.reached
                    settings.progress(tensor.name, done, tensor.total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop.set()
    finished = [future.result() for future in futures if future.done() and not future.cancelled()]
    return [result for result in finished if result is not None], interrupted


def _next(ended: SimpleQueue[Future[Any]], session: Session) -> Future[Any]:
    """Return the next task that ends, or raise an interrupt; run pending tasks meanwhile, where the session has some.

    In a batch, this thread is one of those that work on its case: if it only waited, no other might be free.
    """
    while True:
        session.interrupts.raise_if_interrupted()
        with suppress(Empty):
            return ended.get(block=False) if session.run_pending() else ended.get(timeout=0.1)


def _reported(
    pipeline: Pipeline,
    name: str,
    result: ShardResult,
    settings: Settings,
    bar_components: dict[int, dict[str, float]],
    step: float,
    audited: dict[str, Any],
    sampled: bool,
    blinding: HealthFinding | None,
) -> TensorReport:
    """Judge a tensor, and return its report."""
    merged, shape, precision = result.tally, pipeline.grads[name].shape, pipeline.precision(name)
    kind = pipeline.kind_of(name) if isinstance(pipeline, WithStructure) else pipeline.kind
    narrow = narrow_type(pipeline.grads[name], precision) if merged.beyond else ""
    facts = Circumstances(
        tally=merged,
        shape=shape,
        evaluator=kind,
        step=step,
        automatic=settings.step == "auto",
        precision=precision,
        subject=pipeline.subject,
        black_box=settings.black_box,
        balanced=pipeline.balanced,
        declared=settings.declared,
        bar_components=bar_components,
        disagreements=audited["disagreements"],
        blinding=blinding,
        sampled=sampled,
        narrow_type=narrow,
        narrow_rule=verdict.norm_rule(narrow) if narrow else 0.0,
    )
    judgement = verdict.of_tensor(facts)
    explained = (
        (bar_components or merged.least is None) and merged.dims and judgement.verdict in ("pass", "inconclusive")
    )
    return TensorReport.of(
        merged,
        judgement,
        shape,
        evaluator=kind,
        step=step,
        audit=audited,
        regime=regime.words(facts) if explained else "",
        parts=bar_components,
        kept=result.kept,
    )


def _bar_components(evaluator: Evaluator, merged: Tally) -> dict[int, dict[str, float]]:
    """Return the components of the error bars of the dimensions that a report explains, by flat index."""
    dims = sorted({finding.dim for finding in (merged.least, merged.widest) if finding is not None})
    if not dims:
        return {}
    columns = evaluator.bar_components(np.array(dims, dtype=np.int64))
    return {dim: {name: float(values[i]) for name, values in columns.items()} for i, dim in enumerate(dims)}


def _report(pipeline: Pipeline, settings: Settings, state: _Progress, clock: Clock) -> Report:
    verdicts: list[Verdict] = [tensor.verdict for tensor in state.tensors.values()]
    if state.forward is not None and state.forward.verdict == "fail":
        verdicts.append("fail")
    if state.interrupted:
        verdicts.append("inconclusive")
    report = Report(
        verdict=judged.heaviest(verdicts),
        seed=settings.seed,
        requested=settings.requested,
        interrupted=state.interrupted,
        forward=state.forward,
        tensors=state.tensors,
        operands=pipeline.described(),
        run=machine.run_part(settings.threads, clock.seconds, clock.forward_seconds, clock.audit_seconds),
    )
    findings = pipeline.findings(report)
    if isinstance(pipeline, WithDirections):
        report = replace(report, directions=pipeline.directions)
    if isinstance(pipeline, WithStructure):
        report = replace(report, structure=pipeline.structure)
    return report.with_health(findings) if findings else report
