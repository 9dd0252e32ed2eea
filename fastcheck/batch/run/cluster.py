"""Check cases on the workers of a Dask cluster: small cases whole, large ones shard by shard.

A task is a function of its case alone, so that Dask can run it again elsewhere if a worker is lost. All results go
into the one ledger, where a later run finds the shards, whichever worker computed them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing

try:
    from dask import config
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
except ImportError:
    raise FastcheckError(f"Dask is not installed: {installing('dask')}") from None

from fastcheck.batch.ledger.schema import NOTHING_LOST
from fastcheck.batch.run import check_one, jobs
from fastcheck.batch.run.check_one import ShardId
from fastcheck.batch.run.jobs import Operands
from fastcheck.batch.run.planned import Planned
from fastcheck.batch.run.runner import CaseTask, Options
from fastcheck.batch.run.scheduler import InlineExecutor
from fastcheck.batch.run.stop import Stop
from fastcheck.batch.suite.entries import Entry
from fastcheck.common import machine
from fastcheck.common.interrupts import Interrupts, sigint_blocked
from fastcheck.engine import coordinator, folding
from fastcheck.engine.pipeline import Prepared, Session
from fastcheck.engine.shard_results import ShardResult
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

ONE_TASK_WORK = 4 * coordinator.SHARD_WORK
"""Largest work of a case that runs as one task: half a second. A larger case is split into tasks by shards."""

LEAST_TASKS, MOST_SHARDS = 64, 32
"""Least number of tasks that a case is split into (fewer only if it has fewer shards), and largest number of shards in
a task: three seconds, since a scheduler takes milliseconds for each task."""

MAX_IN_FLIGHT = 64
"""Cases submitted to the cluster at a time."""

POLL_SECONDS = 0.05
"""Seconds between two polls for finished tasks and interrupts."""

TOP_PRIORITY = 1e30
"""Priority of a task that goes before all others: no case has so much work."""

CONNECT_TIMEOUT = 30.0
"""Seconds within which a scheduler must answer, and its first worker arrive."""


def backend(workers: str | int) -> Callable[[Options], Cluster]:
    """Return a function that makes a backend: the cluster at an address, or N worker processes on this machine."""
    return lambda options: Cluster(workers if isinstance(workers, str) else _local(workers), options)


def _local(count: int) -> LocalCluster:
    # By default Dask abandons a worker that takes longer to restart, and waits forever once none is left.
    config.set({"distributed.deploy.lost-worker-timeout": "1d"})
    try:
        with sigint_blocked():  # Ctrl-C reaches the whole process group; this process decides what to do
            return LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # no clash of ports
                silence_logs=logging.CRITICAL,  # about lost workers, which a run survives
            )
    except RuntimeError as error:
        raise FastcheckError(f"--dask: {count} workers could not be started: {error}") from None


def _connected(where: str | LocalCluster) -> Client:
    """Return a client, or raise Dask's exception if there is no scheduler."""
    client = Client.__new__(Client)
    try:
        client.__init__(where, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except BaseException:
        # Otherwise Python closes it at exit and waits for its thread, which no longer exists.
        client.close()
        raise
    return client


class Cluster:
    """A backend that runs cases on the workers of a Dask cluster.

    Parameters
    ----------
    where : str or LocalCluster
        The scheduler's address, or a cluster, which `close` then closes too.
    options : Options

    Attributes
    ----------
    target : str
        The processor that all workers share.
    """

    def __init__(self, where: str | LocalCluster, options: Options) -> None:
        for part in ("client", "batched"):  # a lost cluster is reported here, in one line
            logging.getLogger(f"distributed.{part}").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "Sending large graph")  # the operands, deliberately
        self._options, self._suspects = options, threading.Lock()
        self._own = None if isinstance(where, str) else where
        try:
            self._client = _connected(where)
        except (OSError, ValueError, TypeError) as error:
            raise FastcheckError(f"--dask: no scheduler answers at {where}: {' '.join(str(error).split())}") from None
        try:
            self.target = self._common()
        except BaseException:
            self._leave()
            raise
        self._drivers = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="fastcheck-dask")

    def add(self, case: Planned, task: CaseTask) -> None:
        """Submit a case."""
        self._drivers.submit(task.check, lambda stop: self._check(case, task, stop))

    def close(self) -> None:
        """Wait for the running cases, and disconnect from the cluster."""
        self._drivers.shutdown(wait=True)
        self._leave()

    def _leave(self) -> None:
        self._client.close()
        if self._own is not None:
            self._own.close()

    def _common(self) -> str:
        """Return the target of all workers, after checking that their versions are those of this process."""
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            raise FastcheckError(
                f"--dask: the cluster has no worker after {CONNECT_TIMEOUT:g} s: expected at least one"
            ) from None
        descriptions = self._client.run(_described)
        ours = machine.versions()
        for worker, (_, versions) in descriptions.items():
            for package, version in ours.items():
                if versions.get(package) != version:
                    raise FastcheckError(
                        f"worker {worker} has {package} {versions.get(package)}, and this process has {version}: "
                        "expected the same version everywhere, so that results are identical to the last bit"
                    )
        targets = {target for target, _ in descriptions.values()}
        if len(targets) > 1:
            raise FastcheckError(
                f"the cluster's workers have different processors ({', '.join(sorted(targets))}): expected one kind, "
                "so that results are identical to the last bit"
            )
        return targets.pop()

    def _check(self, case: Planned, task: CaseTask, stop: Stop) -> Report | NetworkReport:
        calls = _WorkerCalls(self._client, case, stop, self.target, self._suspects)
        known = dict(task.known())
        with _shortened_errors(task), calls.operands(jobs.read_as_planned(case)) as operands:
            arguments = (case.key, case.entry, operands, self._options.keep_numeric)
            if case.urgency > ONE_TASK_WORK:
                missing = [shard_id for shard_id in calls.one(_shard_ids, *arguments) if shard_id not in known]
                for shards in calls.each(_shards, [(*arguments, group) for group in _grouped(missing)]):
                    known |= _kept(shards, task)
            finished: FinishedCase = calls.one(_whole, *arguments[1:], known)
        _kept(finished.shards, task)
        return finished.report


Described = tuple[str, dict[str, str]]
"""A process: its processor and its versions, which together decide the bits of a result."""


class Shard(NamedTuple):
    """A shard that a worker finished."""

    shard_id: ShardId
    result: ShardResult
    seconds: float
    worker: str


class FinishedCase(NamedTuple):
    """A case that a worker finished, with the shards that were not yet known."""

    report: Report | NetworkReport
    shards: list[Shard]


class WorkersDied(Exception):
    """So many workers died while checking a case that the case is probably the cause."""


@contextmanager
def _shortened_errors(task: CaseTask) -> Iterator[None]:
    """Replace Dask's long messages by short ones, and end the run if the cluster is lost."""
    try:
        yield
    except KilledWorker as error:
        raise WorkersDied(f"{error.allowed_failures + 1} workers died while checking this case") from None
    except CancelledError:
        with task.ending():
            raise FastcheckError(
                f"--dask: the cluster is lost: run the same command again with a running cluster: {NOTHING_LOST}"
            ) from None


def _grouped(shard_ids: list[ShardId]) -> list[list[ShardId]]:
    size = min(MOST_SHARDS, max(1, len(shard_ids) // LEAST_TASKS))
    return [shard_ids[start : start + size] for start in range(0, len(shard_ids), size)]


def _kept(shards: list[Shard], task: CaseTask) -> dict[ShardId, bytes]:
    return {shard.shard_id: task.keep_from(*shard) for shard in shards}


class _WorkerCalls:
    """Calls functions on workers for one case, until it is stopped."""

    def __init__(self, client: Client, case: Planned, stop: Stop, target: str, suspects: threading.Lock) -> None:
        self._client, self._case, self._stop, self._machine = client, case, stop, (target, machine.versions())
        self._suspects = suspects
        self._operands: Operands = None
        self._sent: Future | None = None

    @contextmanager
    def operands(self, operands: Operands) -> Iterator[Any]:
        """Yield a stand-in for the operands in tasks: the operands are sent once, and Dask passes them on."""
        if operands is None:
            yield None
            return
        key, urgency = f"operands-{self._case.key}", self._case.urgency
        # A task instead of `scatter`: scattered data are lost with the only worker that holds them.
        self._sent = self._client.submit(_same, operands, key=key, pure=False, priority=urgency)
        self._operands = operands
        try:
            yield self._sent
        finally:
            self._sent.release()

    def one(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function."""
        return next(iter(self.each(function, [arguments])))

    def each(self, function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the result of a function for each call, in the order in which the calls end.

        Dask gives up not only a task that kills one worker after another, but also tasks that merely waited beside
        it. Each of these suspects is tried once more, alone among the suspects and ahead of all waiting tasks.
        """
        suspects = []
        for call, future in self._ended(function, calls, self._case.urgency):
            try:
                result = future.result()
            except KilledWorker:
                suspects.append(call)
                continue
            yield result
        for call in suspects:
            with self._alone():
                ((_, future),) = self._ended(function, [self._with_operands(call)], TOP_PRIORITY)
                result = future.result()
            yield result

    def _ended(
        self, function: Callable[..., Any], calls: list[tuple[Any, ...]], priority: float
    ) -> Iterator[tuple[tuple[Any, ...], Future]]:
        """Yield each call with its future as soon as the future has ended."""
        futures = {
            self._client.submit(_on_worker, function, self._machine, *call, pure=False, priority=priority): call
            for call in calls
        }
        try:
            left = as_completed(futures, loop=self._client.loop)
            while not left.is_empty():
                self._stop.raise_if_interrupted()
                ended = left.next_batch(block=False)
                for future in ended:
                    yield futures[future], future
                if not ended:
                    time.sleep(POLL_SECONDS)
        finally:
            self._client.cancel([future for future in futures if not future.done()])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        while not self._suspects.acquire(timeout=POLL_SECONDS):
            self._stop.raise_if_interrupted()
        try:
            yield
        finally:
            self._suspects.release()

    def _with_operands(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a call that carries the operands itself: the task that holds them may have been given up as well."""
        return tuple(self._operands if argument is self._sent else argument for argument in call)


# The following runs on workers.

_OPEN: dict[str, _OpenCase] = {}
_LOCK = threading.Lock()


def _described() -> Described:
    import llvmlite.binding  # noqa: F401, used by `machine.target` to identify the processor

    return machine.target(), machine.versions()


def _same(operands: Operands) -> Operands:
    return operands


def _on_worker(function: Callable[..., Any], expected: Described, *arguments: Any) -> Any:
    if multiprocessing.parent_process() is not None:
        sys.stdout = sys.stderr  # a process of local:N has the run's own, which is for results
    here = _described()
    if here != expected:
        raise FastcheckError(f"a worker that joined later has {_shown(here)}, and the others have {_shown(expected)}")
    return function(*arguments)


def _shown(described: Described) -> str:
    target, versions = described
    return f"{target}, {', '.join(f'{package} {version}' for package, version in versions.items())}"


def _shard_ids(key: str, entry: Entry, operands: Operands, numeric: bool) -> list[ShardId]:
    """Return the shards of a case."""
    return _opened(key, entry, operands, numeric).shard_ids()


def _shards(key: str, entry: Entry, operands: Operands, numeric: bool, shard_ids: list[ShardId]) -> list[Shard]:
    """Difference some shards."""
    opened, shards = _opened(key, entry, operands, numeric), []
    for shard_id in shard_ids:
        start = time.perf_counter()
        result = opened.difference(shard_id)
        shards.append(Shard(shard_id, result, time.perf_counter() - start, _name()))
    return shards


def _whole(entry: Entry, operands: Operands, numeric: bool, known: Mapping[ShardId, bytes]) -> FinishedCase:
    """Check a case, skipping the shards that are already known."""
    shards: list[Shard] = []

    def keep(shard_id: ShardId, result: ShardResult, seconds: float) -> ShardResult:
        shards.append(Shard(shard_id, result, seconds, _name()))
        return result._replace(kept=None)

    report = check_one.check(entry, operands, known, keep, pool=InlineExecutor(), threads=1, numeric=numeric)
    return FinishedCase(report, shards)


def _name() -> str:
    return f"process {os.getpid()}"


def _opened(key: str, entry: Entry, operands: Operands, numeric: bool) -> _OpenCase:
    """Return the open case of this process. Only the latest is kept, since the shards of a case arrive together."""
    with _LOCK:
        if key not in _OPEN:
            _OPEN.clear()
            _OPEN[key] = _OpenCase(entry, operands, numeric)
        return _OPEN[key]


class _OpenCase:
    """A case prepared on a worker, whose shards are differenced one by one."""

    def __init__(self, entry: Entry, operands: Operands, numeric: bool) -> None:
        self._pool, self._lock = InlineExecutor(), threading.Lock()
        self._job = jobs.made(entry, operands, self._pool, 1, keep=numeric)
        self._sessions: dict[str, tuple[Session, Prepared] | None] = {}
        self._tensor: tuple[tuple[str, str], coordinator.OpenTensor] | None = None

    def shard_ids(self) -> list[ShardId]:
        """Return all shards in order, up to the first phase whose forward pass is not the declared one."""
        shard_ids: list[ShardId] = []
        for phase, pipeline in self._job.pipelines.items():
            if self._prepared(phase) is None:
                break
            for name in coordinator.chosen(pipeline, self._job.settings(phase)):
                count = len(self._opened(phase, name).shards())
                shard_ids += [ShardId(phase, name, number) for number in range(count)]
        return shard_ids

    def difference(self, shard_id: ShardId) -> ShardResult:
        """Difference a shard."""
        tensor = self._opened(shard_id.phase, shard_id.tensor)
        return folding.joined([tensor.difference(block) for block in tensor.shards()[shard_id.number]])

    def _prepared(self, phase: str) -> tuple[Session, Prepared] | None:
        with self._lock:
            if phase not in self._sessions:
                session = Session(self._job.settings(phase), self._pool, Interrupts())
                prepared = coordinator.prepare(self._job.pipelines[phase], session)
                wrong = prepared.forward is not None and prepared.forward.verdict == "fail"
                self._sessions[phase] = None if wrong else (session, prepared)
            return self._sessions[phase]

    def _opened(self, phase: str, name: str) -> coordinator.OpenTensor:
        """Return the open tensor. Only the latest is kept, since its planes may be as large as the operands."""
        known = self._prepared(phase)
        assert known is not None
        with self._lock:
            if self._tensor is None or self._tensor[0] != (phase, name):
                pipeline, (session, prepared) = self._job.pipelines[phase], known
                dims = coordinator.chosen(pipeline, session.settings)[name]
                self._tensor = (phase, name), coordinator.OpenTensor(pipeline, prepared, name, dims, session)
            return self._tensor[1]
