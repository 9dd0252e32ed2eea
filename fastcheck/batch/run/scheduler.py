"""Threads that share the work of many cases: the next case is the longest, and whoever is free helps the longest run.

Every case has one thread of its own, which differences its shards and never merely waits; so there are as many busy
threads as were asked for, and a case can ask for help without a thread that might wait for itself. Small cases are
mostly Python, which threads cannot share: beside large ones one thread does them, the smallest first, rather than all
threads at the end, where they would wait for each other (bench/test_batch.py).
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")


class _Case(NamedTuple):
    """A case that waits, in the order of the first two."""

    rank: float
    number: int
    small: bool
    needed: int
    run: Callable[[], object]
    ended: Future[None]


class ThreadScheduler:
    """A number of threads, and a budget of memory that running cases share.

    Parameters
    ----------
    threads : int
    budget : int
        Bytes.
    small : float
        The urgency up to which cases are small: beside large ones they run one at a time.
    """

    def __init__(self, threads: int, budget: int, small: float = 0.0) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fastcheck")
        self._lock = threading.Lock()
        self._small_up_to = small
        self._cases: list[_Case] = []
        self._executors: list[tuple[float, int, CaseExecutor]] = []
        self._running: list[_Case] = []
        self._free, self._idle, self._number = budget, threads, 0

    def add(self, urgency: float, needed: int, run: Callable[[], object]) -> Future[None]:
        """Have a case run once it is the most urgent and fits in the memory left; one larger than all runs alone.

        Returns
        -------
        Future
            Ends with the case, and has what it raises.
        """
        small = urgency <= self._small_up_to
        with self._lock:
            case = _Case(-urgency, self._next(), small, needed, run, Future())
            insort(self._cases, case)
            self._wake()
        return case.ended

    def call(self, executor: CaseExecutor) -> None:
        """Have whoever is free help with a lane's work, as long as there is some."""
        with self._lock:
            if not executor.called:
                executor.called = True
                insort(self._executors, (-executor.urgency, self._next(), executor))
            self._wake()

    def close(self) -> None:
        """Wait for what runs; what has not begun does not begin."""
        with self._lock:
            self._cases.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _wake(self) -> None:
        """Have an idle thread look for work, unless this is closing: then a case's own thread does all of its work."""
        if self._idle:
            self._idle -= 1
            with suppress(RuntimeError):
                self._pool.submit(self._work)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _work(self) -> None:
        """Do what is chosen, until nothing is."""
        while True:
            with self._lock:
                chosen = self._choose()
                if chosen is None:
                    self._idle += 1
                    return
                if isinstance(chosen, _Case):
                    self._free -= chosen.needed
                    self._running.append(chosen)
            if isinstance(chosen, CaseExecutor):
                chosen.run_pending()
            else:
                self._run(chosen)

    def _choose(self) -> _Case | CaseExecutor | None:
        """Choose from what waits: a small case where one is due, or else what is most urgent."""
        case = self._cases[0] if self._cases else None
        if case is not None and case.needed > self._free and self._running:
            case = None  # waits for memory, and a smaller one would keep it waiting
        elif self._small_is_due():
            return self._cases.pop()
        while self._executors and not self._executors[0][2].waits:
            self._executors.pop(0)[2].called = False
        if self._executors and not (case is not None and case[:2] < self._executors[0][:2]):
            return self._executors[0][2]
        if case is not None:
            self._cases.pop(0)
        return case

    def _small_is_due(self) -> bool:
        """Tell whether the smallest case is to run now, beside large ones."""
        if not self._cases or not self._running or any(case.small for case in self._running):
            return False
        return self._cases[-1].small and self._cases[-1].needed <= self._free

    def _run(self, case: _Case) -> None:
        try:
            case.run()
        except BaseException as error:  # told where the future is asked
            self._ended(case)
            case.ended.set_exception(error)
        else:
            self._ended(case)
            case.ended.set_result(None)

    def _ended(self, case: _Case) -> None:
        with self._lock:
            self._free += case.needed
            self._running.remove(case)
            while self._idle and self._cases:  # which may have waited for memory
                self._wake()


class CaseExecutor(Executor):
    """The work of one case: done by its own thread while that waits, and by others of the scheduler's that are free.

    Parameters
    ----------
    scheduler : ThreadScheduler
    urgency : float
        Others help where this is greatest.

    Attributes
    ----------
    called : bool
        Whether the scheduler knows that work may wait here; its own.
    """

    def __init__(self, scheduler: ThreadScheduler, urgency: float) -> None:
        self.urgency, self.called = urgency, False
        self._scheduler = scheduler
        self._pending: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Have a piece of work done."""
        future: Future[_T] = _HelpingFuture(self)
        self._pending.append((future, lambda: fn(*args, **kwargs)))
        self._scheduler.call(self)
        return future

    @property
    def waits(self) -> bool:
        """Whether a piece of work waits."""
        return bool(self._pending)

    def run_pending(self) -> bool:
        """Do a piece of work that waits, and tell whether there was one."""
        try:
            future, work = self._pending.popleft()
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
        while cancel_futures and self._pending:
            self._pending.popleft()[0].cancel()


class _HelpingFuture(Future[_T]):
    """A future whose reader does what waits instead of waiting."""

    def __init__(self, executor: CaseExecutor) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> _T:
        while not self.done() and self._executor.run_pending():
            pass
        return super().result(timeout)


class InlineExecutor(Executor):
    """An executor that does everything at once, in the caller's thread: for cases too small to share."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Do a piece of work."""
        try:
            return _EndedFuture(fn(*args, **kwargs), None)
        except BaseException as error:  # told where the result is asked for
            return _EndedFuture(None, error)


class _EndedFuture(Future[_T]):
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
