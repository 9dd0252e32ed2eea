"""Progress of a check: the hook that it calls, and a bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fastcheck.common.naming import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ProgressHook = Callable[[str, int, int], None]
"""Called as hook(stage, done, total) in the thread that called `check`; a total of 0 means that it is unknown."""

PATIENCE = 2.0
"""Seconds after which a check in a person's own program draws a bar: shorter ones would only flicker."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore a report of progress."""


@contextmanager
def progress_bar(patience: float = 0.0) -> Iterator[ProgressHook | None]:
    """Yield a hook that draws a bar with rate and remaining time on standard error; None if that is not a terminal.

    The bar appears when the hook is called after so many seconds of ``patience``.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        yield _Bar(stack, time.monotonic() + patience)


class _Bar:
    """A hook that draws a bar from some moment on."""

    def __init__(self, stack: ExitStack, starts: float) -> None:
        self._stack, self._starts = stack, starts
        self._bar: Progress | None = None
        self._shown: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() < self._starts:
                return
            self._bar = self._stack.enter_context(_drawn())
        if stage not in self._shown:  # also when it returns, in another phase or case
            for earlier in self._shown.values():
                self._bar.remove_task(earlier)
            self._shown = {stage: self._bar.add_task(printable(stage), total=total or None, rate="")}
        self._bar.update(self._shown[stage], completed=done)
        speed = self._bar.tasks[0].speed
        self._bar.update(self._shown[stage], rate=f"{speed:,.0f}/s" if speed else "")


def _drawn() -> Progress:
    """Return a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    out = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    # Output printed while the bar is drawn appears above it, unless it goes to a file or a pipe.
    return Progress(*columns, console=out, transient=True, redirect_stdout=sys.stdout.isatty())
