"""Threads that share the work of many cases: the next case is the longest, and whoever is free helps the longest run.

Every case has one thread of its own, which differences its shards and never merely waits; so there are as many busy
threads as were asked for, and a case can ask for help without a thread that might wait for itself.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

_T = TypeVar("_T")


class Crew:
    """A number of threads, and a budget of memory that running cases share.

    Parameters
    ----------
    threads : int
    budget : int
        Bytes.
    """

    def __init__(self, threads: int, budget: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fastcheck")
        self._lock = threading.Lock()
        self._cases: list[tuple[float, int, int, Callable[[], object], Future[None]]] = []
        self._calls: list[tuple[float, int, Lane]] = []
        self._free, self._running, self._idle, self._number = budget, 0, 0, 0

    def add(self, urgency: float, needed: int, run: Callable[[], object]) -> Future[None]:
        """Have a case run once it is the most urgent and fits in the memory left; one larger than all runs alone.

        Returns
        -------
        Future
            Ends with the case, and has what it raises.
        """
        ended: Future[None] = Future()
        with self._lock:
            heapq.heappush(self._cases, (-urgency, self._next(), needed, run, ended))
        self._ask()
        return ended

    def call(self, lane: Lane) -> None:
        """Ask whoever is free to help with a lane's work."""
        with self._lock:
            heapq.heappush(self._calls, (-lane.urgency, self._next(), lane))
        self._ask()

    def close(self) -> None:
        """Wait for what runs; what has not begun does not begin."""
        with self._lock:
            self._cases.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self) -> None:
        """Have a thread take a turn, unless this is closing: then a case's own thread does all of its work."""
        with suppress(RuntimeError):
            self._pool.submit(self._turn)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _turn(self) -> None:
        """Take the most urgent thing; there is a turn for each."""
        with self._lock:
            case = self._cases[0] if self._cases else None
            fits = case is not None and (case[2] <= self._free or not self._running)
            if self._calls and not (case is not None and fits and case[:2] < self._calls[0][:2]):
                lane = heapq.heappop(self._calls)[2]
            elif case is not None and fits:
                heapq.heappop(self._cases)
                self._free -= case[2]
                self._running += 1
                lane = None
            else:  # the most urgent case waits for memory: a smaller one would keep it waiting
                self._idle += 1
                return
        if lane is not None:
            lane.help()
            return
        assert case is not None
        _, _, needed, run, ended = case
        try:
            run()
        except BaseException as error:  # told where the future is asked
            self._ended(needed)
            ended.set_exception(error)
        else:
            self._ended(needed)
            ended.set_result(None)

    def _ended(self, needed: int) -> None:
        with self._lock:
            self._free += needed
            self._running -= 1
            waiting, self._idle = self._idle, 0
        for _ in range(waiting):
            self._ask()


class Lane(Executor):
    """The work of one case: done by its own thread while that waits, and by others of the crew that are free.

    Parameters
    ----------
    crew : Crew
    urgency : float
        Others help where this is greatest.
    """

    def __init__(self, crew: Crew, urgency: float) -> None:
        self.urgency = urgency
        self._crew = crew
        self._errands: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Have a piece of work done."""
        future: Future[_T] = _Errand(self)
        self._errands.append((future, lambda: fn(*args, **kwargs)))
        self._crew.call(self)
        return future

    def help(self) -> bool:
        """Do a piece of work that waits, and tell whether there was one."""
        try:
            future, work = self._errands.popleft()
        except IndexError:
            return False
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # told where the result is asked for
                future.set_exception(error)
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Forget what waits, if asked to."""
        while cancel_futures and self._errands:
            self._errands.popleft()[0].cancel()


class _Errand(Future[_T]):
    """A future whose reader does what waits instead of waiting."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane

    def result(self, timeout: float | None = None) -> _T:
        while not self.done() and self._lane.help():
            pass
        return super().result(timeout)


class Inline(Executor):
    """An executor that does everything at once, in the caller's thread: for cases too small to share."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Do a piece of work."""
        try:
            return _Ended(fn(*args, **kwargs), None)
        except BaseException as error:  # told where the result is asked for
            return _Ended(None, error)


class _Ended(Future[_T]):
    """A future that has ended, without the lock that others have: a tiny case makes a hundred of them."""

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error

    def result(self, timeout: float | None = None) -> _T:
        if self._error is not None:
            raise self._error
        found: _T = self._value
        return found

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._error

    def done(self) -> bool:
        return True

    def running(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        fn(self)
