"""Check one case of a suite: the same function in a thread, in a separate process and on a cluster's worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import NamedTuple

from fastcheck.batch.run import jobs
from fastcheck.batch.run.jobs import Operands
from fastcheck.batch.suite.entries import Entry
from fastcheck.common.interrupts import Interrupts
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.engine import coordinator
from fastcheck.engine.pipeline import Session
from fastcheck.engine.shard_results import ShardResult, decode
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport


class ShardId(NamedTuple):
    """Position of a shard in its case."""

    phase: str
    tensor: str
    number: int


Keep = Callable[[ShardId, ShardResult, float], ShardResult]
"""Called as keep(shard_id, result, seconds) with a finished shard; returns the result that the check keeps in
memory."""


def check(
    entry: Entry,
    operands: Operands,
    known: Mapping[ShardId, bytes],
    keep: Keep,
    *,
    pool: Executor,
    threads: int,
    interrupts: Interrupts | None = None,
    progress: ProgressHook = silent,
    run_pending: Callable[[], bool] = lambda: False,
    numeric: bool = False,
) -> Report | NetworkReport:
    """Check a case, skipping the shards that are already known.

    Parameters
    ----------
    entry, operands
        As for `jobs.made`.
    known : mapping of ShardId to bytes
        Shards of an earlier run, encoded by `fastcheck.engine.shard_results.encode`.
    keep : callable
        As described for `Keep`.
    pool : Executor
        Executes all of this case's work.
    threads : int
        Number of threads of the whole run, for the report.
    interrupts : Interrupts, optional
    progress : callable
    run_pending : callable
        As in `Session`.
    numeric : bool
        Whether to pass the numeric values to ``keep`` as well.
    """
    job = jobs.made(entry, operands, pool, threads, progress=progress, keep=numeric)
    interrupts = Interrupts() if interrupts is None else interrupts

    def phase(name: str) -> Report:
        keeper = _Keeper(name, known, keep)
        session = Session(job.settings(name), pool, interrupts, keeper=keeper, run_pending=run_pending)
        return coordinator.run_in(job.pipelines[name], session)

    return job.report(job.run(phase))


class _Keeper:
    """Passes the shards of one phase to and from a `Session`."""

    def __init__(self, phase: str, known: Mapping[ShardId, bytes], keep: Keep) -> None:
        self._phase, self._known, self._keep = phase, known, keep

    def known(self, tensor: str, number: int) -> ShardResult | None:
        """Return a shard finished earlier, or None."""
        body = self._known.get(ShardId(self._phase, tensor, number))
        return None if body is None else decode(body)

    def keep(self, tensor: str, number: int, result: ShardResult, seconds: float) -> ShardResult:
        """Keep a finished shard."""
        return self._keep(ShardId(self._phase, tensor, number), result, seconds)
