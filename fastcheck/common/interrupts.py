"""Ctrl-C, heard even where another library loses it.

Raised inside a compiler's callback, KeyboardInterrupt is swallowed there, or comes out as some other exception.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Tells whether Ctrl-C was pressed since this was made."""

    _count = 0
    _held = 0
    _outermost: Interrupts | None = None
    """Those of the block that listens, if there is one."""

    def __init__(self) -> None:
        self._start = Interrupts._count

    @property
    def interrupted(self) -> bool:
        return Interrupts._count > self._start

    def raise_if_interrupted(self) -> None:
        """Raise the KeyboardInterrupt that may have been swallowed."""
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let interrupts wait for `raise_if_interrupted`: one that comes while a pool takes a lock leaves it locked.

        They are raised in the main thread alone, so that there is nothing to hold in others.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        Interrupts._held += 1
        try:
            yield
        finally:
            Interrupts._held -= 1


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Keep interrupts from threads and processes that are started in the block: whoever started them ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # the first process starts it, which would let interrupts in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hear(number: int, frame: FrameType | None) -> None:
    Interrupts._count += 1
    if not Interrupts._held:
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Interrupts]:
    """Count interrupts while the block runs, and raise them as usual.

    Outside the main thread, and where the program has a handler of its own, nothing is changed. A block within another
    has heard what that one has: an interrupt may have been lost before the work that would ask for it.
    """
    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield Interrupts._outermost or Interrupts()
        return
    tell_unraisable = sys.unraisablehook

    def tell_others(told: Any) -> None:
        if not issubclass(told.exc_type, KeyboardInterrupt):  # one swallowed in a callback is counted, not printed
            tell_unraisable(told)

    signal.signal(signal.SIGINT, _hear)
    sys.unraisablehook = tell_others
    Interrupts._outermost = Interrupts()
    try:
        yield Interrupts._outermost
    finally:
        Interrupts._outermost = None
        sys.unraisablehook = tell_unraisable
        signal.signal(signal.SIGINT, signal.default_int_handler)
