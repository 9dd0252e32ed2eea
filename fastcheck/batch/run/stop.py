"""Why a case is to end before it is finished: Ctrl-C, a limit of time, or a failure elsewhere."""

from __future__ import annotations

import threading
import time

from fastcheck.common.interrupts import Interrupts


class Stop(Interrupts):
    """Heard by one case: as Ctrl-C is, at the end of every shard.

    Parameters
    ----------
    everything : threading.Event
        Set when the whole run is to end.
    timeout : float or None
        Seconds that the case may take.
    """

    def __init__(self, everything: threading.Event, timeout: float | None) -> None:
        super().__init__()
        self._everything = everything
        self._deadline = None if timeout is None else time.monotonic() + timeout

    @property
    def late(self) -> bool:
        """Whether the case has taken its time."""
        return self._deadline is not None and time.monotonic() > self._deadline

    @property
    def interrupted(self) -> bool:
        return super().interrupted or self._everything.is_set() or self.late
