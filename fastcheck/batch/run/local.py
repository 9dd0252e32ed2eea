"""Check cases on this machine, by threads or in separate processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from fastcheck.batch.run import check_one, jobs
from fastcheck.batch.run.check_one import ShardId
from fastcheck.batch.run.planned import RESERVE, Planned
from fastcheck.batch.run.runner import CaseTask, Options
from fastcheck.batch.run.scheduler import CaseExecutor, InlineExecutor, ThreadScheduler
from fastcheck.batch.run.stop import Stop
from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError, one_line
from fastcheck.common.interrupts import sigint_blocked
from fastcheck.engine.shard_results import ShardResult
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

SMALL_WORK = 5e8
"""Largest work of a case that one thread does alone: a quarter of a second, mostly Python, which threads cannot share.
"""


class Threads:
    """A backend that checks cases in threads."""

    def __init__(self, options: Options) -> None:
        import llvmlite.binding  # noqa: F401, used by `machine.target` to identify the processor

        self.target = machine.target()
        self._options = options
        self._scheduler = ThreadScheduler(options.threads, options.memory - RESERVE, SMALL_WORK)

    def add(self, case: Planned, task: CaseTask) -> None:
        """Submit a case."""
        needed = self._options.own_bytes + (0 if case.estimate is None else case.estimate.bytes)
        self._scheduler.add(case.urgency, needed, lambda: task.check(lambda stop: self._check(case, task, stop)))

    def close(self) -> None:
        """Wait for the running cases, and drop those that have not started."""
        self._scheduler.close()

    def _check(self, case: Planned, task: CaseTask, stop: Stop) -> Report | NetworkReport:
        executor = CaseExecutor(self._scheduler, case.urgency) if case.urgency > SMALL_WORK else None
        return check_one.check(
            case.entry,
            jobs.read_as_planned(case),
            task.known(),
            task.keep,
            pool=executor or InlineExecutor(),
            threads=self._options.threads,
            interrupts=stop,
            progress=task.progress,
            run_pending=executor.run_pending if executor else lambda: False,
            numeric=self._options.keep_numeric,
        )


class Processes(Threads):
    """A backend that checks each case in a process of its own, as many at a time as there are threads."""

    def _check(self, case: Planned, task: CaseTask, stop: Stop) -> Report | NetworkReport:
        context = multiprocessing.get_context("spawn")  # a forked process would inherit the locks of threads
        ours, theirs = context.Pipe()
        arguments = (theirs, case, task.known(), self._options.keep_numeric)
        process = context.Process(target=_child, args=arguments, daemon=True)
        with sigint_blocked():  # Ctrl-C reaches the whole process group; this process decides what to do
            process.start()
        theirs.close()
        try:
            return self._listen(ours, task, stop)
        except _ChildEnded:
            process.join()
            raise ProcessDied(process.exitcode or 0) from None
        finally:
            process.kill()
            process.join()
            ours.close()

    @staticmethod
    def _listen(ours: Connection, task: CaseTask, stop: Stop) -> Report | NetworkReport:
        while True:
            if not ours.poll(0.1):
                stop.raise_if_interrupted()
                continue
            try:
                kind, *sent = ours.recv()
            except (EOFError, OSError):  # OSError if it died in the middle of a message
                raise _ChildEnded from None
            if kind == "report":
                return sent[0]
            if kind == "raised":
                raise FastcheckError(*sent)
            if kind == "shard":
                task.keep(*sent)
            else:
                task.progress(*sent)


class _ChildEnded(Exception):
    """The process of a case closed its end of the pipe."""


class ProcessDied(FastcheckError):
    """The process of a case ended before it sent a report."""

    def __init__(self, code: int) -> None:
        names = {number.value: number.name for number in signal.Signals}
        how = f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"exited with status {code}"
        super().__init__(f"the case's process {how}")


def _child(theirs: Connection, case: Planned, known: dict[ShardId, bytes], numeric: bool) -> None:
    """Check a case, and send shards, progress and the report to the parent process."""

    def keep(shard_id: ShardId, result: ShardResult, seconds: float) -> ShardResult:
        theirs.send(("shard", shard_id, result, seconds))
        return result._replace(kept=None)

    def progress(*update: Any) -> None:
        theirs.send(("progress", *update))

    try:
        with contextlib.redirect_stdout(sys.stderr):  # the parent's is for results, whatever the user's functions print
            report = check_one.check(
                case.entry,
                jobs.read_as_planned(case),
                known,
                keep,
                pool=InlineExecutor(),
                threads=1,
                progress=progress,
                numeric=numeric,
            )
        theirs.send(("report", report))
    except BrokenPipeError:  # the parent process is gone
        return
    except Exception as error:
        theirs.send(("raised", one_line(error)))  # as text: not every exception can be pickled
