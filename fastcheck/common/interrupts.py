"""Ctrl-C, noticed even where another library loses it.

A KeyboardInterrupt raised inside a compiler's callback is swallowed there, or comes out as another exception.
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
    """Interrupts (Ctrl-C) since this object was made."""

    _count = 0
    _held = 0
    _outermost: Interrupts | None = None
    """The counter of the outermost `listening` block, if one is running."""

    def __init__(self) -> None:
        self._start = Interrupts._count

    @property
    def interrupted(self) -> bool:
        """Whether there was one."""
        return Interrupts._count > self._start

    def raise_if_interrupted(self) -> None:
        """Raise a KeyboardInterrupt that may have been swallowed."""
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer interrupts to `raise_if_interrupted`: one that arrives while a pool takes a lock leaves it locked.

        Python raises interrupts in the main thread alone, so other threads have nothing to defer.
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
    """Keep interrupts from threads and processes started in the block, which this process ends itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else the first new process starts it, which would unblock SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_sigint(number: int, frame: FrameType | None) -> None:
    Interrupts._count += 1
    if not Interrupts._held:
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Interrupts]:
    """Count interrupts while the block runs, and raise them as usual.

    Outside the main thread, and where the program has a handler of its own, nothing changes. A block inside another
    shares that one's count: an interrupt may have been lost before the inner block began.
    """
    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield Interrupts._outermost or Interrupts()
        return
    usual_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):  # one lost in a callback is counted, not printed
            usual_hook(unraisable)

    signal.signal(signal.SIGINT, _on_sigint)
    sys.unraisablehook = hook
    Interrupts._outermost = Interrupts()
    try:
        yield Interrupts._outermost
    finally:
        Interrupts._outermost = None
        sys.unraisablehook = usual_hook
        signal.signal(signal.SIGINT, signal.default_int_handler)
