"""A suite run: planned, handed to what checks cases, every finished shard and report put in the ledger at once."""

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
from fastcheck.batch.run import plan as plans
from fastcheck.batch.run.check_one import ShardId
from fastcheck.batch.run.numeric import NumericFiles
from fastcheck.batch.run.planned import RESERVE, Planned
from fastcheck.batch.run.stop import Stop
from fastcheck.batch.suite.entries import Suite
from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError, one_line
from fastcheck.common.interrupts import Interrupts, listening
from fastcheck.engine.shard_results import Part, decode, encode
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

BUDGET = 0.8
"""Part of the memory that is free at the beginning which a run takes where nothing else is asked for."""

QUIET, PROGRESS_EVERY = 0.5, 0.1
"""Seconds of a case before it tells how far it is, and between two words on one stage: nobody could see more, and small
cases would tell of little else."""


@dataclass(frozen=True)
class Options:
    """How a suite is run; none of these changes a result.

    Attributes
    ----------
    threads : int
    memory : int
        Bytes that all running cases may take together, the program itself among them.
    timeout : float or None
        Seconds that a case may take.
    fail_fast : bool
        End the run with the first case that fails.
    isolate : bool
        A process for every case: one that crashes takes nothing else down, and one that is late is killed.
    keep_numeric : bool
        Keep the numeric gradients as ``.npy`` files.
    restart : bool
        Put the ledger that is there aside, and begin anew.
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
        """Fill in what the machine decides."""
        if memory is None:
            available = machine.available_bytes()
            memory = 2**62 if available is None else int(BUDGET * available)
        return cls(machine.thread_count(threads), memory, **others)


class Watch(Protocol):
    """Is told how a run goes, always in the thread that called `run`."""

    def began(self, total: int, finished: int, work: float) -> None:
        """Tell how many cases there are, how many of them an earlier run finished, and the others' work."""
        ...

    def progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Tell how far a case is."""
        ...

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Tell that a case is finished."""
        ...


class Outcome(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    interrupted : bool
        By Ctrl-C: the same command goes on.
    stopped : bool
        By ``fail_fast``.
    """

    interrupted: bool
    stopped: bool


class Backend(Protocol):
    """Has cases checked: by threads, in processes or on a cluster.

    Attributes
    ----------
    target : str
        The processor that computes, as `fastcheck.common.machine.target` tells it.
    """

    target: str

    def add(self, case: Planned, task: CaseTask) -> None:
        """Have a case checked, the most urgent first."""
        ...

    def close(self) -> None:
        """Wait for what runs; what has not begun does not begin."""
        ...


def run(
    suite: Suite, folder: Path, options: Options, watch: Watch, backend_of: Callable[[Options], Backend]
) -> Outcome:
    """Check all cases of a suite that the ledger in a folder does not have yet.

    Parameters
    ----------
    suite : Suite
    folder : Path
        Of the ledger; made where it is absent.
    options : Options
    watch : Watch
    backend_of : callable
        Makes what checks cases.

    Raises
    ------
    FastcheckError
        If no case could fit in memory, the ledger cannot be used, or it cannot be written. What was finished stays in
        the ledger, and the same command goes on. What is wrong with one case is that case's error.
    """
    if options.memory < RESERVE:
        raise FastcheckError(f"--memory allows {options.memory:,} bytes: the program itself takes {RESERVE:,}")
    with listening() as interrupts:
        cases = plans.plan(suite.entries, options.threads, options.memory)
        with closing(backend_of(options)) as backend:
            opened = Ledger.open(folder, suite.name, suite.text, backend.target, restart=options.restart)
            with opened as ledger:
                return _Run(ledger, folder, cases, options, watch, interrupts).through(backend)


class _Run:
    """A run with its ledger open.

    Attributes
    ----------
    ledger : Ledger
    options : Options
    end : threading.Event
        Set when nothing is to begin any more, and what runs is to end.
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
        """Run what is not finished."""
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
            with suppress(FastcheckError):  # a full disk, which is told below
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
        finally:  # what still runs needs the ledger
            self.end.set()
            backend.close()
        while not self._events.empty():
            self._events.get()()

    # What a task calls, from whatever thread it runs in.

    def tell(self, event: Callable[[], None]) -> None:
        """Have something done in the thread that called `run`."""
        self._events.put(event)

    def failed(self, error: BaseException) -> None:
        """End the run, since it cannot go on."""
        self._problem = self._problem or error
        self.end.set()

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Take note of a finished case."""
        self._left -= 1
        if self.options.fail_fast and report.verdict == "fail":
            self._stopped = True
            self.end.set()
        self._watch.ended(case, report, seconds)

    def progress(self, case: Planned, stage: str, done: int, total: int) -> None:
        """Tell how far a case is."""
        self.tell(lambda: self._watch.progress(case.name, stage, done, total))

    def numeric_of(self, case: Planned) -> NumericFiles | None:
        """Return where a case's numeric gradients go."""
        return NumericFiles(self._folder, case.name, case.key) if self.options.keep_numeric else None


class CaseTask:
    """What checking a case needs of the run: its known shards, where finished ones go, and when to end."""

    def __init__(self, run: _Run, case: Planned) -> None:
        self._run, self.case = run, case
        self.numeric = run.numeric_of(case)
        self._begun = self._told = 0.0
        self._stage = ""

    @property
    def over(self) -> bool:
        """Whether the run has ended: then a case is not to begin."""
        return self._run.end.is_set()

    def known(self) -> Mapping[ShardId, bytes]:
        """Return the shards that an earlier run finished."""
        with self.ending():
            found = {ShardId(*place): body for place, body in self._run.ledger.shards(self.case.key).items()}
            _refuse_damaged(found.values(), self._run.ledger.path)
        if self.numeric is None:
            return found
        return {place: body for place, body in found.items() if self.numeric.has(place)}

    def keep(self, place: ShardId, part: Part, seconds: float) -> Part:
        """Put a finished shard in the ledger."""
        self.keep_from(place, part, seconds, f"thread {threading.get_ident()}")
        return part._replace(kept=None)

    def keep_from(self, place: ShardId, part: Part, seconds: float, worker: str) -> bytes:
        """Put a finished shard in the ledger, and return it as bytes."""
        body = encode(part)
        with self.ending():
            if self.numeric is not None and part.kept is not None:
                self.numeric.keep(place, part)
            self._run.ledger.keep_shard(
                self.case.key, *place, dims=part.reached, seconds=seconds, worker=worker, body=body
            )
        return body

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far the case is, once it takes long and at most every so often; every new stage is told."""
        now = time.perf_counter()
        if now < self._begun + QUIET or (stage == self._stage and now < self._told + PROGRESS_EVERY):
            return
        self._stage, self._told = stage, now
        self._run.progress(self.case, stage, done, total)

    def check(self, check: Callable[[Stop], Report | NetworkReport]) -> None:
        """Run a check and put its report in the ledger; whatever it raises becomes one, or ends the run."""
        if self.over:
            return
        start = self._begun = time.perf_counter()
        stop = Stop(self._run.end, self._run.options.timeout)
        try:
            report = self._report(check, stop)
            if report is not None:
                self._finish(report, time.perf_counter() - start)
        except BaseException as error:  # or the run would wait for this case
            self._run.failed(error)

    def _report(self, check: Callable[[Stop], Report | NetworkReport], stop: Stop) -> Report | NetworkReport | None:
        """Return the report of a check that came to its end, or of why it did not; None where the run ends."""
        if self.case.problem is not None:
            return self._crashed(self.case.problem)
        try:
            report = check(stop)
            if not report.interrupted:
                self._put_together(report)
                return report
        except KeyboardInterrupt:  # heard before the coordinator listened
            pass
        except (Exception, SystemExit) as error:
            return None if self.over else self._crashed(one_line(error))  # a consequence of the end, or its reason
        return self._crashed(f"it took longer than {self._run.options.timeout:g} s") if stop.late else None

    def _finish(self, report: Report | NetworkReport, seconds: float) -> None:
        """Put a case's report in the ledger."""
        self._run.ledger.finish(self.case.key, report.to_dict(), seconds)
        self._run.tell(lambda: self._run.ended(self.case, report, seconds))

    def _put_together(self, report: Report | NetworkReport) -> None:
        if self.numeric is not None:
            with self.ending():
                self.numeric.finish(_shapes(report))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the run, and not this case alone, where something fails that all cases need: the ledger, a cluster."""
        try:
            yield
        except FastcheckError as error:
            self._run.failed(error)
            raise

    def _crashed(self, why: str) -> Report:
        """Report that the check did not come to its end."""
        request = self.case.entry.request
        return Report(
            verdict="error",
            seed=request.seed,
            requested=request.requested,
            interrupted=False,
            forward=None,
            tensors={},
            run=machine.run_part(self._run.options.threads, 0.0),
            error=why,
        )


def _refuse_damaged(bodies: Iterable[bytes], path: Path) -> None:
    """Refuse parts that cannot be read, here, where it ends the run: a worker could only blame the case."""
    for body in bodies:
        try:
            decode(body)
        except FastcheckError as error:
            raise damaged(path, str(error)) from None


def _shapes(report: Report | NetworkReport) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return the shapes of what was differenced, by phase and tensor."""
    phases = report.cases if isinstance(report, NetworkReport) else {"": report}
    return {(phase, name): tensor.shape for phase, one in phases.items() for name, tensor in one.tensors.items()}
