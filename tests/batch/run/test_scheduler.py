"""The crew: as many threads as asked for, the most urgent case first, help for the largest, memory in its budget."""

import threading
import time
from itertools import count

import pytest
from processes import PATIENCE

from fastcheck.batch.run.scheduler import CaseExecutor, InlineExecutor, ThreadScheduler


def finished(scheduler, cases):
    """Wait for cases to end, and close the crew."""
    for case in cases:
        case.result(timeout=PATIENCE)
    scheduler.close()


class Stepped:
    """A crew whose cases, called by their urgencies, end when they are asked to."""

    def __init__(self, threads, budget=10**9, small=0.0):
        self.scheduler = ThreadScheduler(threads, budget, small)
        self._threads, self._ends, self._cases = threads, {}, []

    def add(self, *urgencies, needed=1):
        for urgency in urgencies:
            end = self._ends[urgency] = threading.Event()
            self._cases.append(self.scheduler.add(urgency, needed, lambda end=end: end.wait(PATIENCE)))

    def running(self):
        """Wait until each thread is at a case that goes on, or has found nothing to do; return those cases."""
        late = time.monotonic() + PATIENCE
        while time.monotonic() < late:
            with self.scheduler._lock:
                found = {-case.rank for case in self.scheduler._running}
                idle = self.scheduler._idle
            if idle + len(found) == self._threads and not any(self._ends[one].is_set() for one in found):
                return found
            time.sleep(1e-3)
        raise TimeoutError

    def end(self, *urgencies):
        for urgency in urgencies:
            self._ends[urgency].set()

    def after(self, *urgencies):
        """End cases, and return those that run then."""
        self.end(*urgencies)
        return self.running()

    def finish(self):
        self.end(*self._ends)
        finished(self.scheduler, self._cases)


class Meeting:
    """Work whose first pieces wait for each other, so that as many threads have to be at it at once."""

    def __init__(self, threads):
        self._together, self._numbers = threading.Barrier(threads), count()
        self.done = []

    def work(self, value=None):
        if next(self._numbers) < self._together.parties:
            self._together.wait(PATIENCE)
        self.done.append(threading.get_ident())
        return value


def test_the_most_urgent_case_comes_first():
    scheduler, order, gate = ThreadScheduler(1, 10**9), [], threading.Event()
    cases = [scheduler.add(100, 1, gate.wait)]
    for urgency in (3, 9, 1, 7, 7.5):
        cases.append(scheduler.add(urgency, 1, lambda urgency=urgency: order.append(urgency)))
    gate.set()
    finished(scheduler, cases)
    assert order == [9, 7.5, 7, 3, 1]


def test_beside_large_cases_small_ones_run_one_at_a_time():
    stepped = Stepped(3, small=9)
    stepped.add(100, 101, 102)
    assert stepped.running() == {100, 101, 102}
    stepped.add(3, 20, 9, 30, 1, 40, 7, 10, 5)
    assert stepped.after(100) == {101, 102, 1}  # not left for the end
    assert stepped.after(101, 102) == {40, 30, 1}
    assert stepped.after(1) == {40, 30, 3}
    assert stepped.after(40) == {30, 20, 3}
    assert stepped.after(3) == {30, 20, 5}
    assert stepped.after(5) == {30, 20, 7}
    assert stepped.after(30) == {20, 10, 7}
    assert stepped.after(7) == {20, 10, 9}
    stepped.finish()


def test_small_cases_by_themselves_run_on_all_threads_the_longest_first():
    stepped = Stepped(2, small=1000)
    stepped.add(100, 101)
    stepped.add(3, 9, 1, 7, 5)
    assert stepped.after(100, 101) == {9, 7}
    assert stepped.after(7) == {9, 5}
    assert stepped.after(9) == {5, 3}
    assert stepped.after(3) == {5, 1}
    stepped.finish()


def test_a_single_thread_takes_the_longest_case_first():
    stepped = Stepped(1, small=9)
    stepped.add(100)
    stepped.add(3, 20, 9, 30, 1)
    for ended, next_one in ((100, 30), (30, 20), (20, 9), (9, 3), (3, 1)):
        assert stepped.after(ended) == {next_one}
    stepped.finish()


def test_small_cases_do_not_keep_a_large_one_waiting_for_memory():
    stepped = Stepped(2, 10, small=9)
    stepped.add(30, 20, needed=6)
    stepped.add(1, 2, 3, 4, 5)
    assert stepped.running() == {30}
    assert stepped.after(30) == {20, 1}
    stepped.finish()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_lanes_share_the_threads_and_never_wait_for_themselves(threads):
    scheduler, meeting, found = ThreadScheduler(threads, 10**9), Meeting(threads), {}

    def case(name, urgency):
        executor = CaseExecutor(scheduler, urgency)
        futures = [executor.submit(meeting.work, (name, i)) for i in range(20)]
        found[name] = [future.result() for future in futures] + list(executor.map(meeting.work, range(5)))

    finished(scheduler, [scheduler.add(name, 1, lambda name=name: case(name, float(name))) for name in range(6)])
    assert found == {name: [(name, i) for i in range(20)] + [*range(5)] for name in range(6)}
    assert len(set(meeting.done)) == threads


def test_the_largest_case_is_helped_first():
    scheduler, meeting, before = ThreadScheduler(2, 10**9), Meeting(2), []
    begin, submitted = threading.Barrier(3), threading.Event()

    def large():
        executor = CaseExecutor(scheduler, 10.0)
        begin.wait(PATIENCE)
        futures = [executor.submit(meeting.work) for _ in range(40)]
        submitted.set()
        for future in futures:
            future.result()

    cases = [scheduler.add(10, 1, large), scheduler.add(5, 1, lambda: (begin.wait(PATIENCE), submitted.wait(PATIENCE)))]
    cases.append(scheduler.add(1, 1, lambda: before.append(len(meeting.done))))
    begin.wait(PATIENCE)
    finished(scheduler, cases)
    assert len(set(meeting.done)) == 2
    assert before[0] >= 39  # of the large case one piece at most was still being done


def test_a_thread_is_woken_once_to_help_and_not_for_every_piece(monkeypatch):
    scheduler, woken, meeting = ThreadScheduler(2, 10**9), [], Meeting(2)
    submit = scheduler._pool.submit
    monkeypatch.setattr(scheduler._pool, "submit", lambda work: (woken.append(1), submit(work)))

    def case():
        executor = CaseExecutor(scheduler, 1.0)
        for future in [
            executor.submit(meeting.work) for _ in range(100)
        ]:  # who helps waits in the first for this thread
            future.result()

    finished(scheduler, [scheduler.add(1, 1, case)])
    assert len(set(meeting.done)) == 2
    assert len(woken) == 2  # for the case, and for its first piece


def test_running_cases_stay_within_the_budget():
    stepped, sizes, most, alone = Stepped(4, 100), [60, 50, 30, 150, 40, 20, 70, 10, 90, 30] * 3, 0, 0
    for urgency, size in enumerate(sizes):
        stepped.add(urgency, needed=size)
    running = stepped.running()
    while running:
        total = sum(sizes[one] for one in running)
        most, alone = max(most, total * (len(running) > 1)), alone + (total > 100)
        assert total <= 100 or len(running) == 1
        running = stepped.after(max(running))
    assert 60 < most <= 100
    assert alone == 3
    stepped.finish()


def test_what_a_piece_of_work_raises_is_told_where_its_result_is_asked_for():
    scheduler, told = ThreadScheduler(2, 1), []

    def case():
        try:
            CaseExecutor(scheduler, 1.0).submit(int, "no number").result()
        except ValueError as error:
            told.append(str(error))
            raise

    with pytest.raises(ValueError, match="no number"):
        scheduler.add(1, 1, case).result()
    scheduler.close()
    assert len(told) == 1
    with pytest.raises(ValueError, match="no number"):
        InlineExecutor().submit(int, "no number").result()


def test_cleared_cases_do_not_begin(monkeypatch):
    stepped, order = Stepped(1), []
    stepped.add(9)
    assert stepped.running() == {9}
    stepped.scheduler.add(1, 1, lambda: order.append("begun"))
    shutdown = stepped.scheduler._pool.shutdown

    def end_what_runs(**how):
        stepped.end(9)
        shutdown(**how)

    monkeypatch.setattr(stepped.scheduler._pool, "shutdown", end_what_runs)
    stepped.scheduler.close()
    assert order == []
