"""Threads that share the work of many cases: the longest case starts next, and idle threads help the longest running.

Every case has one thread of its own, which differences shards and never merely waits. So all requested threads stay
busy, and a case that asks for help cannot deadlock on its own thread. Small cases are mostly Python, which threads
cannot share. One thread does them beside the large cases, smallest first; left to the end, they would make all threads
wait for each other (bench/test_batch.py).
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
    """A waiting case; cases are ordered by the first two fields."""

    rank: float
    number: int
    small: bool
    needed: int
    run: Callable[[], object]
    ended: Future[None]


class ThreadScheduler:
    """A pool of threads, and a memory budget that the running cases share.

    Parameters
    ----------
    threads : int
    budget : int
        Memory for all running cases, in bytes.
    small : float
        Urgency up to which a case counts as small. Beside large cases, small ones run one at a time.
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
        """Queue a case; it runs once it is the most urgent and fits in the free memory.

        A case larger than the whole budget runs alone.

        Returns
        -------
        Future
            Done when the case has ended; holds the exception that the case raised, if any.
        """
        small = urgency <= self._small_up_to
        with self._lock:
            case = _Case(-urgency, self._next(), small, needed, run, Future())
            insort(self._cases, case)
            self._wake()
        return case.ended

    def call(self, executor: CaseExecutor) -> None:
        """Let idle threads help with a case's pending work."""
        with self._lock:
            if not executor.called:
                executor.called = True
                insort(self._executors, (-executor.urgency, self._next(), executor))
            self._wake()

    def close(self) -> None:
        """Wait for the running cases, and drop those that have not started."""
        with self._lock:
            self._cases.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _wake(self) -> None:
        """Make an idle thread look for work."""
        if self._idle:
            self._idle -= 1
            # The pool refuses once it is closing; then each case's own thread does the rest of its work.
            with suppress(RuntimeError):
                self._pool.submit(self._work)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _work(self) -> None:
        """Do the chosen work until there is none."""
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
        """Choose the next piece of work; the caller holds the lock.

        Candidates are the most urgent waiting case, the smallest waiting case, and the most urgent running case with
        pending work. `_cases` and `_executors` are sorted, the most urgent first.
        """
        case = self._cases[0] if self._cases else None
        if case is not None and case.needed > self._free and self._running:
            # The most urgent case waits for memory. No other case may start, since it would take that memory.
            case = None
        elif self._small_is_due():
            return self._cases.pop()
        # Drop executors whose work is done; `call` lists them again when they get more.
        while self._executors and not self._executors[0][2].waits:
            self._executors.pop(0)[2].called = False
        # Helping a running case goes before starting another, unless the other is more urgent.
        if self._executors and not (case is not None and case[:2] < self._executors[0][:2]):
            return self._executors[0][2]
        if case is not None:
            self._cases.pop(0)
        return case

    def _small_is_due(self) -> bool:
        """Whether to start the smallest case now, beside large ones: it is small, it fits, and no small case runs."""
        if not self._cases or not self._running or any(case.small for case in self._running):
            return False
        return self._cases[-1].small and self._cases[-1].needed <= self._free

    def _run(self, case: _Case) -> None:
        try:
            case.run()
        except BaseException as error:  # raised again by the future's `result`
            self._ended(case)
            case.ended.set_exception(error)
        else:
            self._ended(case)
            case.ended.set_result(None)

    def _ended(self, case: _Case) -> None:
        with self._lock:
            self._free += case.needed
            self._running.remove(case)
            while self._idle and self._cases:  # some may have waited for memory
                self._wake()


class CaseExecutor(Executor):
    """An executor for one case: its own thread does pending work instead of waiting, and idle threads help.

    Parameters
    ----------
    scheduler : ThreadScheduler
    urgency : float
        Idle threads help the executor with the greatest urgency.

    Attributes
    ----------
    called : bool
        Whether the scheduler lists this executor among those that may have pending work. Only the scheduler sets it.
    """

    def __init__(self, scheduler: ThreadScheduler, urgency: float) -> None:
        self.urgency, self.called = urgency, False
        self._scheduler = scheduler
        self._pending: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Queue a piece of work."""
        future: Future[_T] = _HelpingFuture(self)
        self._pending.append((future, lambda: fn(*args, **kwargs)))
        self._scheduler.call(self)
        return future

    @property
    def waits(self) -> bool:
        """Whether any work is pending."""
        return bool(self._pending)

    def run_pending(self) -> bool:
        """Do one pending piece of work; return whether there was one."""
        try:
            future, work = self._pending.popleft()
        except IndexError:
            return False
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # raised again by `result`
                future.set_exception(error)
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel the pending work, if requested."""
        while cancel_futures and self._pending:
            self._pending.popleft()[0].cancel()


class _HelpingFuture(Future[_T]):
    """A future whose `result` does pending work instead of waiting."""

    def __init__(self, executor: CaseExecutor) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> _T:
        while not self.done() and self._executor.run_pending():
            pass
        return super().result(timeout)


class InlineExecutor(Executor):
    """An executor that does all work immediately, in the caller's thread, for cases too small to share."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Do a piece of work."""
        try:
            return _EndedFuture(fn(*args, **kwargs), None)
        except BaseException as error:  # raised again by `result`
            return _EndedFuture(None, error)


class _EndedFuture(Future[_T]):
    """A finished future without a lock: a tiny case creates a hundred of them."""

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error

    def result(self, timeout: float | None = None) -> _T:
        if self._error is not None:
            raise self._error
        return self._value

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
