"""Progress of a batch run: bars on a terminal, and a line for each finished case."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from fastcheck.batch.run.planned import Planned
from fastcheck.common.naming import printable
from fastcheck.render.page import console
from fastcheck.render.suite import case_line
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport

SHOWN = 8
"""Largest number of cases that have a bar of their own at a time."""


class Lines:
    """Prints a line for each finished case, and nothing else.

    Parameters
    ----------
    say : callable
        Called with each text to print.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def began(self, total: int, finished: int, work: float) -> None:
        """Print how many cases an earlier run finished."""
        if finished:
            self._say(f"{finished:,} of {total:,} cases are finished; {total - finished:,} to go\n")

    def progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Do nothing: progress within a case is shown on terminals only."""

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Print the line of a finished case."""
        self._say(case_line(case.name, report))


class ProgressBars(Lines):
    """Also draws bars: one for the work of all cases, and one for each running case."""

    def __init__(self, say: Callable[[str], None], bars: Progress) -> None:
        super().__init__(say)
        self._bars, self._shown = bars, dict[str, tuple[str, TaskID]]()
        self._whole: TaskID | None = None
        self._total = self._finished = self._checked = 0

    def began(self, total: int, finished: int, work: float) -> None:
        """Draw the bar of all cases."""
        super().began(total, finished, work)
        self._total, self._finished = total, finished
        self._whole = self._bars.add_task(self._count(), total=max(work, 1.0), rate="")

    def progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Advance the bar of a case."""
        shown = self._shown.get(case)
        if shown is not None and shown[0] != stage:
            self._bars.remove_task(self._shown.pop(case)[1])
            shown = None
        if shown is None:
            if len(self._shown) >= SHOWN:
                return
            label = printable(f"{case}: {stage}")
            shown = self._shown[case] = (stage, self._bars.add_task(label, total=total or None, rate=""))
        task = self._bars.tasks[self._bars.task_ids.index(shown[1])]
        self._bars.update(shown[1], completed=done, rate=f"{task.speed:,.0f}/s" if task.speed else "")

    def ended(self, case: Planned, report: Report | NetworkReport, seconds: float) -> None:
        """Print the line of a finished case, and advance the bar of all cases."""
        super().ended(case, report, seconds)
        if case.name in self._shown:
            self._bars.remove_task(self._shown.pop(case.name)[1])
        self._finished += 1
        self._checked += sum(tensor.dims_checked for tensor in report.tensors.values())
        assert self._whole is not None
        self._bars.update(self._whole, advance=case.urgency, description=self._count())

    def _count(self) -> str:
        return f"{self._finished:,} of {self._total:,} cases"


@contextmanager
def watching(say: Callable[[str], None] | None) -> Iterator[Lines]:
    """Yield an observer of a run; it draws bars if standard error is a terminal, and passes lines to ``say``."""
    print_line = say or (lambda text: None)
    if not sys.stderr.isatty():
        yield Lines(print_line)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console(sys.stderr), transient=True, redirect_stdout=redirect) as bars:
        yield ProgressBars(print_line, bars)
