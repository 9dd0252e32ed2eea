"""Checks that public functions begin, run by somebody else: a suite has its own pool, ledger and reasons to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fastcheck.engine.pipeline import Pipeline
from fastcheck.engine.settings import Settings
from fastcheck.reports.report import Report

Host = Callable[[Pipeline, Settings], Report]
"""Called as host(pipeline, settings) in place of `fastcheck.engine.coordinator.run`; returns the report."""

_HOST: ContextVar[Host | None] = ContextVar("host", default=None)


def host() -> Host | None:
    """Return the host of this thread's checks; None if they run by themselves."""
    return _HOST.get()


@contextmanager
def hosted(by: Host | None) -> Iterator[None]:
    """Have a host run every check that this thread begins in the block, by whichever public function; or none."""
    token = _HOST.set(by)
    try:
        yield
    finally:
        _HOST.reset(token)
