"""Reasons to stop a case early: Ctrl-C, its time limit, or a failure elsewhere in the run."""

from __future__ import annotations

import threading
import time

from fastcheck.common.interrupts import Interrupts


class Stop(Interrupts):
    """The stop signal of one case, polled like Ctrl-C at the end of every shard.

    Parameters
    ----------
    run_ends : threading.Event
        Set when the whole run must end.
    timeout : float or None
        Seconds that the case may take.
    """

    def __init__(self, run_ends: threading.Event, timeout: float | None) -> None:
        super().__init__()
        self._run_ends = run_ends
        self._deadline = None if timeout is None else time.monotonic() + timeout

    @property
    def late(self) -> bool:
        """Whether the case has exceeded its time limit."""
        return self._deadline is not None and time.monotonic() > self._deadline

    @property
    def interrupted(self) -> bool:
        return super().interrupted or self._run_ends.is_set() or self.late
