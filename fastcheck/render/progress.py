"""Progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fastcheck.common.naming import printable
from fastcheck.common.progress import ProgressHook
from fastcheck.render.page import console


class _RateColumn(ProgressColumn):
    """Dimensions per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def progress_bar() -> Iterator[ProgressHook | None]:
    """Yield a hook that draws a bar with rate and remaining time on standard error; None if that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    # Output printed while the bar is drawn appears above it, unless it goes to a file or a pipe.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console(sys.stderr), transient=True, redirect_stdout=redirect) as bar:
        shown: dict[str, TaskID] = {}

        def hook(stage: str, done: int, total: int) -> None:
            if stage not in shown:  # also when it returns, in another phase or case
                for earlier in shown.values():
                    bar.remove_task(earlier)
                shown.clear()
                shown[stage] = bar.add_task(printable(stage), total=total or None)
            bar.update(shown[stage], completed=done)

        yield hook
