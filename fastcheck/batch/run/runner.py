"""Run a suite: plan it, hand its cases to a backend, and write each finished shard and report to the ledger at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
from fastcheck.batch.ledger.schema import damaged
from fastcheck.batch.run.check_one import ShardId
from fastcheck.batch.run.numeric import NumericFiles
from fastcheck.batch.run.plan import plan
from fastcheck.batch.run.planned import RESERVE, Planned
from fastcheck.batch.run.stop import Stop
from fastcheck.batch.suite.entries import GradientEntry, Suite
from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError, one_line
from fastcheck.common.interrupts import Interrupts, listening
from fastcheck.engine.shard_results import ShardResult, decode, encode
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, every_tensor

BUDGET = 0.8
"""Default memory budget, as a fraction of the memory that is free at the start."""

QUIET_SECONDS, PROGRESS_SECONDS = 0.5, 0.1
"""Seconds before a case reports its first progress, and between two reports on one stage. Nobody could see more, and
small cases would report little else."""


@dataclass(frozen=True)
class Options:
    """Options of a run; none of them changes a result.

    Attributes
    ----------
    threads : int
    memory : int
        Bytes for the program and all running cases together.
    timeout : float or None
        Seconds that a case may take.
    fail_fast : bool
        Whether to end the run at the first case that fails.
    isolate : bool
        Whether to run each case in its own process, so that a crash affects no other case and a late case is killed.
    keep_numeric : bool
        Whether to keep the numeric gradients as ``.npy`` files.
    restart : bool
        Whether to set an existing ledger aside and start over.
    """

    threads: int
    memory: int
    timeout: float | None = None
    fail_fast: bool = False
    isolate: bool = False
    keep_numeric: bool = False
    restart: bool = False

    @classmethod
    def of(cls, *, threads: int | None = None, memory: int | None = None, **others: Any) -> Options:
        """Make options, with defaults that depend on the machine."""
        if memory is None:
            available = machine.available_bytes()
            memory = 2**62 if available is None else int(BUDGET * available)
        return cls(machine.thread_count(threads), memory, **others)

    @property
    def own_bytes(self) -> int:
        """Memory that a case takes in addition to its estimate."""
        return RESERVE if self.isolate else 0


class Watch(Protocol):
    """Observer of a run; it is always called in the thread that called `run`."""

    def began(self, total: int, finished: int, work: float) -> None:
        """Handle the start of a run: its number of cases, those finished earlier, and the work of the others."""
        ...

    def progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Handle progress within a case."""
        ...

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Handle the report of a finished case."""
        ...


class Outcome(NamedTuple):
    """Outcome of a run.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C ended it; the same command resumes it.
    stopped : bool
        Whether ``fail_fast`` ended it.
    """

    interrupted: bool
    stopped: bool


class Backend(Protocol):
    """Checks cases: in threads, in processes or on a cluster.

    Attributes
    ----------
    target : str
        The processor that computes, as returned by `fastcheck.common.machine.target`.
    """

    target: str

    def add(self, case: Planned, task: CaseTask) -> None:
        """Submit a case; the most urgent runs first."""
        ...

    def close(self) -> None:
        """Wait for the running cases, and drop those that have not started."""
        ...


def run(
    suite: Suite, folder: Path, options: Options, watch: Watch, backend_of: Callable[[Options], Backend]
) -> Outcome:
    """Check all cases of a suite that are not finished in the ledger of a folder.

    Parameters
    ----------
    suite : Suite
    folder : Path
        Folder of the ledger, created if absent.
    options : Options
    watch : Watch
    backend_of : callable
        Called as backend_of(options); returns the backend.

    Raises
    ------
    FastcheckError
        If no case could fit in memory, or the ledger cannot be used or written. Finished work stays in the ledger,
        and the same command resumes the run. A fault in one case becomes that case's error instead.
    """
    if options.memory < RESERVE:
        raise FastcheckError(f"--memory allows {options.memory:,} bytes: the program itself takes {RESERVE:,}")
    with listening() as interrupts:
        cases = plan(suite.entries, options.threads, options.memory)
        with closing(backend_of(options)) as backend:
            keys = {case.key for case in cases}
            opened = Ledger.open(folder, suite.name, suite.text, backend.target, keys=keys, restart=options.restart)
            with opened as ledger:
                return _Run(ledger, folder, cases, options, watch, interrupts).through(backend)


class _Run:
    """A run with its ledger open.

    Attributes
    ----------
    ledger : Ledger
    options : Options
    end : threading.Event
        Set when no more cases may start and running ones must end.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        cases: Sequence[Planned],
        options: Options,
        watch: Watch,
        interrupts: Interrupts,
    ) -> None:
        self.ledger, self._folder, self._cases = ledger, folder, cases
        self.options, self._watch, self._interrupts = options, watch, interrupts
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.end = threading.Event()
        self._left = 0
        self._stopped = False
        self._problem: BaseException | None = None

    def through(self, backend: Backend) -> Outcome:
        """Run the unfinished cases."""
        self.ledger.sync([PlannedCase(case.name, case.key, case.spec(), case.urgency) for case in self._cases])
        finished = self.ledger.finished()
        waiting = [case for case in self._cases if case.key not in finished]
        self._watch.began(len(self._cases), len(self._cases) - len(waiting), sum(case.urgency for case in waiting))
        self._stopped = self.options.fail_fast and "fail" in finished.values()
        if not waiting or self._stopped:
            return Outcome(False, self._stopped)
        number = self.ledger.begin_run({"threads": self.options.threads, **machine.described()})
        try:
            with self._interrupts.held():
                self._check(waiting, backend)
        finally:
            with suppress(FastcheckError):  # such as a full disk, which is reported below
                self.ledger.end_run(number, {"interrupted": self._interrupts.interrupted, "left": self._left})
        if self._problem is not None:
            raise self._problem
        return Outcome(self._interrupts.interrupted, self._stopped)

    def _check(self, waiting: Sequence[Planned], backend: Backend) -> None:
        self._left = len(waiting)
        try:
            for case in sorted(waiting, key=lambda one: -one.urgency):
                backend.add(case, CaseTask(self, case))
            while self._left and not self.end.is_set():
                with suppress(Empty):
                    self._events.get(timeout=0.1)()
                if self._interrupts.interrupted:
                    self.end.set()
        finally:  # cases that are still running need the ledger
            self.end.set()
            backend.close()
        while not self._events.empty():
            self._events.get()()

    # Tasks call the following methods, from whatever thread they run in.

    def post(self, event: Callable[[], None]) -> None:
        """Queue a call for the thread that called `run`."""
        self._events.put(event)

    def failed(self, error: BaseException) -> None:
        """End the run because of an error."""
        self._problem = self._problem or error
        self.end.set()

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Count a finished case, and pass it to the observer."""
        self._left -= 1
        if self.options.fail_fast and report.verdict == "fail":
            self._stopped = True
            self.end.set()
        self._watch.ended(case, report, seconds)

    def progress(self, case: Planned, stage: str, done: int, total: int) -> None:
        """Pass the progress of a case to the observer."""
        self.post(lambda: self._watch.progress(case.name, stage, done, total))

    def numeric_of(self, case: Planned) -> NumericFiles | None:
        """Return the files for a case's numeric gradients; None if they are not kept."""
        return NumericFiles(self._folder, case.name, case.key) if self.options.keep_numeric else None


class CaseTask:
    """The link between a case and its run: it supplies known shards, stores finished ones, and stops the case."""

    def __init__(self, run: _Run, case: Planned) -> None:
        self._run, self.case = run, case
        self.numeric = run.numeric_of(case)
        self._begun = self._reported = 0.0
        self._stage = ""

    @property
    def over(self) -> bool:
        """Whether the run is ending, so that the case must not start."""
        return self._run.end.is_set()

    def known(self) -> Mapping[ShardId, bytes]:
        """Return the shards that an earlier run finished, where the others can do without the rest of what it found.

        A check of a function draws its findings (ties at kinks) from all dimensions at once.
        """
        if isinstance(self.case.entry, GradientEntry):
            return {}
        with self.ending():
            bodies = {ShardId(*key): body for key, body in self._run.ledger.shards(self.case.key).items()}
            _refuse_damaged(bodies.values(), self._run.ledger.path)
        if self.numeric is None:
            return bodies
        return {shard_id: body for shard_id, body in bodies.items() if self.numeric.has(shard_id)}

    def keep(self, shard_id: ShardId, result: ShardResult, seconds: float) -> ShardResult:
        """Store a finished shard in the ledger, under the name of this thread."""
        self.keep_from(shard_id, result, seconds, f"thread {threading.get_ident()}")
        return result._replace(kept=None)

    def keep_from(self, shard_id: ShardId, result: ShardResult, seconds: float, worker: str) -> bytes:
        """Store a finished shard in the ledger, under the name of a worker; return it as bytes."""
        body = encode(result)
        with self.ending():
            if self.numeric is not None and result.kept is not None:
                self.numeric.keep(shard_id, result)
            self._run.ledger.keep_shard(
                self.case.key, *shard_id, dims=result.reached, seconds=seconds, worker=worker, body=body
            )
        return body

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report progress, after `QUIET_SECONDS` and at every new stage or after `PROGRESS_SECONDS`."""
        now = time.perf_counter()
        if now < self._begun + QUIET_SECONDS or (stage == self._stage and now < self._reported + PROGRESS_SECONDS):
            return
        self._stage, self._reported = stage, now
        self._run.progress(self.case, stage, done, total)

    def check(self, check: Callable[[Stop], Report | NetworkReport]) -> None:
        """Run a check and store its report in the ledger; an exception becomes an error report, or ends the run."""
        if self.over:
            return
        start = self._begun = time.perf_counter()
        stop = Stop(self._run.end, self._run.options.timeout)
        try:
            report = self._report(check, stop)
            if report is not None:
                self._finish(report, time.perf_counter() - start)
        except BaseException as error:  # otherwise the run would wait for this case forever
            self._run.failed(error)

    def _report(self, check: Callable[[Stop], Report | NetworkReport], stop: Stop) -> Report | NetworkReport | None:
        """Return the report of a completed check, or an error report; None if the run is ending."""
        if self.case.problem is not None:
            return self._crashed(self.case.problem)
        try:
            report = check(stop)
            if not report.interrupted:
                self._join_numeric(report)
                return report
        except KeyboardInterrupt:  # raised before the coordinator listened for Ctrl-C
            pass
        except (Exception, SystemExit) as error:
            # If the run is over, the exception is a consequence of that, or the cause, which is already recorded.
            return None if self.over else self._crashed(one_line(error))
        return self._crashed(f"it took longer than {self._run.options.timeout:g} s") if stop.late else None

    def _finish(self, report: Report | NetworkReport, seconds: float) -> None:
        """Store a case's report in the ledger."""
        self._run.ledger.finish(self.case.key, report.to_dict(), seconds)
        self._run.post(lambda: self._run.ended(self.case, report, seconds))

    def _join_numeric(self, report: Report | NetworkReport) -> None:
        if self.numeric is not None:
            with self.ending():
                shapes = {(phase, name): tensor.shape for phase, name, tensor in every_tensor(report)}
                self.numeric.finish(shapes)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the whole run, not only this case, if something fails that all cases need: the ledger or the cluster."""
        try:
            yield
        except FastcheckError as error:
            self._run.failed(error)
            raise

    def _crashed(self, why: str) -> Report:
        """Return an error report for a check that did not complete."""
        request = self.case.entry.request
        return Report.crashed(why, seed=request.seed, requested=request.requested, threads=self._run.options.threads)


def _refuse_damaged(bodies: Iterable[bytes], path: Path) -> None:
    """Refuse shards that cannot be read. Done here, this ends the run; a worker could only blame the case."""
    for body in bodies:
        try:
            decode(body)
        except FastcheckError as error:
            raise damaged(path, str(error)) from None
