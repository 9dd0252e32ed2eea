"""Cases checked by the workers of a Dask cluster: small ones whole, large ones shard by shard.

A task is a function of the case alone, so that Dask runs it again elsewhere where a worker is lost. What comes back
goes into the one ledger, where shards of an earlier run are found, whoever differenced them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastcheck.common.errors import FastcheckError

try:
    from dask import config
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
except ImportError:
    raise FastcheckError('Dask is not installed: pip install "fastcheck[dask]"') from None

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
from fastcheck.engine.shard_results import Part
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

WHOLE = 4 * coordinator.SHARD_WORK
"""Work of a case that is one task: half a second. A larger one is cut into tasks of its shards."""

TASKS, MOST_SHARDS = 64, 32
"""Tasks that a case is cut into at least, one shard each where there are no more, and shards that a task has at most:
three seconds, since a scheduler takes milliseconds for each task."""

TOGETHER = 64
"""Cases that are in the cluster's hands at a time."""

LOOKING = 0.05
"""Seconds between two looks at what has ended, and whether to stop."""

FIRST = 1e30
"""Priority of a task that goes before all others: none has so much work."""

PATIENCE = 30.0
"""Seconds in which a scheduler has to answer."""


def backend(workers: str | int) -> Callable[[Options], Cluster]:
    """Return what makes a backend of the cluster at an address, or of so many processes on this machine."""
    return lambda options: Cluster(workers if isinstance(workers, str) else _local(workers), options)


def _local(count: int) -> LocalCluster:
    # Dask gives a worker up that takes longer to come back, and waits for ever once it has none.
    config.set({"distributed.deploy.lost-worker-timeout": "1d"})
    try:
        with sigint_blocked():  # Ctrl-C reaches the whole group, and this process decides
            return LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # and no port that is taken
                silence_logs=logging.CRITICAL,  # of workers that are lost, which a run survives
            )
    except RuntimeError as error:
        raise FastcheckError(f"--dask: {count} workers could not be started: {error}") from None


def _connected(where: str | LocalCluster) -> Client:
    """Return a client, or raise what Dask raises where there is no scheduler."""
    client = Client.__new__(Client)
    try:
        client.__init__(where, timeout=PATIENCE, set_as_default=False)
    except BaseException:
        # Else Python closes it when the process ends, and waits for its thread, which is no more.
        client.close()
        raise
    return client


class Cluster:
    """A backend: the workers of a Dask cluster.

    Parameters
    ----------
    where : str or LocalCluster
        The scheduler's address, or the cluster itself, which is then closed with this.
    options : Options

    Attributes
    ----------
    target : str
        The workers' processor; all have the same.
    """

    def __init__(self, where: str | LocalCluster, options: Options) -> None:
        for part in ("client", "batched"):  # what is lost is told in a line
            logging.getLogger(f"distributed.{part}").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "Sending large graph")  # operands, on purpose
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
        self._drivers = ThreadPoolExecutor(TOGETHER, thread_name_prefix="fastcheck-dask")

    def add(self, case: Planned, task: CaseTask) -> None:
        """Have a case checked."""
        self._drivers.submit(task.check, lambda stop: self._check(case, task, stop))

    def close(self) -> None:
        """Wait for what runs, and leave the cluster."""
        self._drivers.shutdown(wait=True)
        self._leave()

    def _leave(self) -> None:
        self._client.close()
        if self._own is not None:
            self._own.close()

    def _common(self) -> str:
        """Return the target of all workers, after checking that they compute as this process plans."""
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise FastcheckError(f"--dask: the cluster has no worker after {PATIENCE:g} s: expected one") from None
        found = self._client.run(_described)
        ours = machine.versions()
        for worker, (_, versions) in found.items():
            for package, version in ours.items():
                if versions.get(package) != version:
                    raise FastcheckError(
                        f"the worker {worker} has {package} {versions.get(package)}, and this process {version}: "
                        "expected the same everywhere, since results are to have the same bits"
                    )
        targets = {target for target, _ in found.values()}
        if len(targets) > 1:
            raise FastcheckError(
                f"the cluster's workers have different processors ({', '.join(sorted(targets))}): expected one kind, "
                "since results are to have the same bits"
            )
        target: str = targets.pop()
        return target

    def _check(self, case: Planned, task: CaseTask, stop: Stop) -> Report | NetworkReport:
        ask = _Asker(self._client, case, stop, self.target, self._suspects)
        known = dict(task.known())
        with _told(task), ask.operands(jobs.read_as_planned(case)) as operands:
            arguments = (case.key, case.entry, operands, self._options.keep_numeric)
            if case.urgency > WHOLE:
                missing = [place for place in ask.one(_places, *arguments) if place not in known]
                for found in ask.each(_shards, [(*arguments, places) for places in _grouped(missing)]):
                    known |= _kept(found, task)
            answer: Answer = ask.one(_whole, *arguments[1:], known)
        _kept(answer.shards, task)
        return answer.report


Described = tuple[str, dict[str, str]]
"""A process: its processor and its versions, which together decide the bits of a result."""


class Shard(NamedTuple):
    """A shard that a worker finished."""

    place: ShardId
    part: Part
    seconds: float
    worker: str


class Answer(NamedTuple):
    """A case that a worker finished, with the shards that it had to difference."""

    report: Report | NetworkReport
    shards: list[Shard]


class WorkersDied(Exception):
    """So many workers died while they were at a case that it is probably the reason."""


@contextmanager
def _told(task: CaseTask) -> Iterator[None]:
    """Tell what Dask tells at length; a cluster that is lost ends the run."""
    try:
        yield
    except KilledWorker as error:
        raise WorkersDied(f"{error.allowed_failures + 1} workers died while they were at it") from None
    except CancelledError:
        with task.ending():
            raise FastcheckError(
                "--dask: the cluster is lost: run the same command again where there is one: nothing that was "
                "finished is lost"
            ) from None


def _grouped(places: list[ShardId]) -> list[list[ShardId]]:
    size = min(MOST_SHARDS, max(1, len(places) // TASKS))
    return [places[start : start + size] for start in range(0, len(places), size)]


def _kept(shards: list[Shard], task: CaseTask) -> dict[ShardId, bytes]:
    return {shard.place: task.keep_from(*shard) for shard in shards}


class _Asker:
    """Has functions called on workers for one case, until it is stopped."""

    def __init__(self, client: Client, case: Planned, stop: Stop, target: str, suspects: threading.Lock) -> None:
        self._client, self._case, self._stop, self._machine = client, case, stop, (target, machine.versions())
        self._suspects = suspects
        self._operands: Operands = None
        self._sent: Future | None = None

    @contextmanager
    def operands(self, operands: Operands) -> Iterator[Any]:
        """Yield what stands for operands in a task: they are sent once, and Dask passes them on."""
        if operands is None:
            yield None
            return
        key, urgency = f"operands-{self._case.key}", self._case.urgency
        # A task and not `scatter`: if the only worker that has scattered data is lost, so are the data.
        self._sent = self._client.submit(_same, operands, key=key, pure=False, priority=urgency)
        self._operands = operands
        try:
            yield self._sent
        finally:
            self._sent.release()

    def one(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns."""
        return next(iter(self.each(function, [arguments])))

    def each(self, function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield what a function returns for each call, in the order in which they end.

        Dask gives up not only a task that ends worker after worker, but also those that merely waited beside it. Each
        is tried again, when no other is, and before all that waits.
        """
        suspects = []
        for call, future in self._ended(function, calls, self._case.urgency):
            try:
                found = future.result()
            except KilledWorker:
                suspects.append(call)
                continue
            yield found
        for call in suspects:
            with self._alone():
                ((_, future),) = self._ended(function, [self._with_operands(call)], FIRST)
                found = future.result()
            yield found

    def _ended(
        self, function: Callable[..., Any], calls: list[tuple[Any, ...]], priority: float
    ) -> Iterator[tuple[tuple[Any, ...], Future]]:
        """Yield each call with its future as soon as that has ended."""
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
                    time.sleep(LOOKING)
        finally:
            self._client.cancel([future for future in futures if not future.done()])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        while not self._suspects.acquire(timeout=LOOKING):
            self._stop.raise_if_interrupted()
        try:
            yield
        finally:
            self._suspects.release()

    def _with_operands(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a call that has its operands itself: the task that had them may have been given up as well."""
        return tuple(self._operands if argument is self._sent else argument for argument in call)


# What runs on workers.

_OPEN: dict[str, _OpenCase] = {}
_LOCK = threading.Lock()


def _described() -> Described:
    import llvmlite.binding  # noqa: F401, which knows the processor that `machine.target` names

    return machine.target(), machine.versions()


def _same(operands: Operands) -> Operands:
    return operands


def _on_worker(function: Callable[..., Any], machine_of_others: Described, *arguments: Any) -> Any:
    here = _described()
    if here != machine_of_others:
        raise FastcheckError(f"a worker that came later has {_shown(here)}, and the others {_shown(machine_of_others)}")
    return function(*arguments)


def _shown(described: Described) -> str:
    target, versions = described
    return f"{target}, {', '.join(f'{package} {version}' for package, version in versions.items())}"


def _places(key: str, entry: Entry, operands: Operands, numeric: bool) -> list[ShardId]:
    """Return the shards of a case."""
    return _opened(key, entry, operands, numeric).places()


def _shards(key: str, entry: Entry, operands: Operands, numeric: bool, places: list[ShardId]) -> list[Shard]:
    """Difference some shards."""
    opened, found = _opened(key, entry, operands, numeric), []
    for place in places:
        start = time.perf_counter()
        part = opened.difference(place)
        found.append(Shard(place, part, time.perf_counter() - start, _name()))
    return found


def _whole(entry: Entry, operands: Operands, numeric: bool, known: Mapping[ShardId, bytes]) -> Answer:
    """Check a case, without the shards that are known."""
    shards: list[Shard] = []

    def keep(place: ShardId, part: Part, seconds: float) -> Part:
        shards.append(Shard(place, part, seconds, _name()))
        return part._replace(kept=None)

    report = check_one.check(entry, operands, known, keep, pool=InlineExecutor(), threads=1, numeric=numeric)
    return Answer(report, shards)


def _name() -> str:
    return f"process {os.getpid()}"


def _opened(key: str, entry: Entry, operands: Operands, numeric: bool) -> _OpenCase:
    """Return a case that is open, the latest one of this process: its shards come one after another."""
    with _LOCK:
        if key not in _OPEN:
            _OPEN.clear()
            _OPEN[key] = _OpenCase(entry, operands, numeric)
        return _OPEN[key]


class _OpenCase:
    """A case whose shards are differenced one by one."""

    def __init__(self, entry: Entry, operands: Operands, numeric: bool) -> None:
        self._pool, self._lock = InlineExecutor(), threading.Lock()
        self._job = jobs.made(entry, operands, self._pool, 1, keep=numeric)
        self._sessions: dict[str, tuple[Session, Prepared] | None] = {}
        self._tensor: tuple[tuple[str, str], coordinator.OpenTensor] | None = None

    def places(self) -> list[ShardId]:
        """Return all shards in order; none from a phase on whose forward pass is another than declared."""
        found: list[ShardId] = []
        for phase, pipeline in self._job.pipelines.items():
            if self._prepared(phase) is None:
                break
            for name in coordinator.chosen(pipeline, self._job.settings(phase)):
                count = len(self._opened(phase, name).shards())
                found += [ShardId(phase, name, number) for number in range(count)]
        return found

    def difference(self, place: ShardId) -> Part:
        """Difference a shard."""
        tensor = self._opened(place.phase, place.tensor)
        return folding.joined([tensor.difference(block) for block in tensor.shards()[place.number]])

    def _prepared(self, phase: str) -> tuple[Session, Prepared] | None:
        with self._lock:
            if phase not in self._sessions:
                session = Session(self._job.settings(phase), self._pool, Interrupts())
                prepared = coordinator.prepare(self._job.pipelines[phase], session)
                wrong = prepared.forward is not None and prepared.forward.verdict == "fail"
                self._sessions[phase] = None if wrong else (session, prepared)
            return self._sessions[phase]

    def _opened(self, phase: str, name: str) -> coordinator.OpenTensor:
        """Return a tensor that is open, the latest one: its planes may be as large as the operands."""
        known = self._prepared(phase)
        assert known is not None
        with self._lock:
            if self._tensor is None or self._tensor[0] != (phase, name):
                pipeline, (session, prepared) = self._job.pipelines[phase], known
                dims = coordinator.chosen(pipeline, session.settings)[name]
                self._tensor = (phase, name), coordinator.OpenTensor(pipeline, prepared, name, dims, session)
            return self._tensor[1]
