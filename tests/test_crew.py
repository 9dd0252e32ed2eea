"""The crew: as many threads as asked for, the most urgent case first, help for the largest, memory in its budget."""

import threading
import time

import pytest

from fastcheck.batch.crew import Crew, Inline, Lane


def finished(crew, cases):
    """Wait for cases to end, and close the crew."""
    for case in cases:
        case.result(timeout=60)
    crew.close()


class Busy:
    """Counts how many threads work at once."""

    def __init__(self):
        self._lock, self._now, self.most = threading.Lock(), 0, 0

    def work(self, value, seconds=0.002):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(seconds)
        with self._lock:
            self._now -= 1
        return value


def test_the_most_urgent_case_comes_first():
    crew, order, gate = Crew(1, 10**9), [], threading.Event()
    cases = [crew.add(100, 1, gate.wait)]
    for urgency in (3, 9, 1, 7, 7.5):
        cases.append(crew.add(urgency, 1, lambda urgency=urgency: order.append(urgency)))
    gate.set()
    finished(crew, cases)
    assert order == [9, 7.5, 7, 3, 1]


def mixed(threads, cases, small):
    """Run cases up to ``small`` briefly, others longer; return their order, and how many small ones ran at once."""
    crew, order, gate, busy = Crew(threads, 10**9, small), [], threading.Event(), Busy()

    def case(urgency):
        order.append(urgency)
        if urgency <= small:
            busy.work(None)
        else:
            time.sleep(0.03)

    entered = threading.Barrier(threads + 1)
    begun = [crew.add(100 + number, 0, lambda: (entered.wait(), gate.wait())) for number in range(threads)]
    entered.wait()
    begun += [crew.add(urgency, 1, lambda urgency=urgency: case(urgency)) for urgency in cases]
    gate.set()
    finished(crew, begun)
    return order, busy.most


@pytest.mark.parametrize("threads", [2, 3])
def test_beside_large_cases_small_ones_run_one_at_a_time(threads):
    order, most = mixed(threads, [3, 20, 9, 30, 1, 40, 7, 10, 5], small=9)
    large = [one for one in order if one >= 10]
    assert (set(large[:2]), set(large[2:])) == ({40, 30}, {20, 10})
    assert [one for one in order if one < 10] == [1, 3, 5, 7, 9]
    assert order.index(1) < order.index(10)  # not left for the end
    assert most == 1


def test_small_cases_by_themselves_run_on_all_threads_the_longest_first():
    order, most = mixed(2, [3, 9, 1, 7, 5, 2, 4, 6], small=1000)
    assert {9, 7} <= set(order[:4])
    assert {1, 2} <= set(order[4:])
    assert most == 2


def test_a_single_thread_takes_the_longest_case_first():
    order, _ = mixed(1, [3, 20, 9, 30, 1], small=9)
    assert order == [30, 20, 9, 3, 1]


def test_small_cases_do_not_keep_a_large_one_waiting_for_memory():
    crew, order, gate = Crew(2, 10, small=9), [], threading.Event()
    cases = [crew.add(30, 6, gate.wait)]
    for urgency in (20, 1, 2, 3, 4, 5):
        cases.append(crew.add(urgency, 6 if urgency == 20 else 1, lambda urgency=urgency: order.append(urgency)))
    time.sleep(0.05)
    assert order == []
    gate.set()
    finished(crew, cases)
    assert 20 in order[:2]  # a small one may begin at the same time
    assert sorted(order) == [1, 2, 3, 4, 5, 20]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_lanes_share_the_threads_and_never_wait_for_themselves(threads):
    crew, busy, found = Crew(threads, 10**9), Busy(), {}

    def case(name, urgency):
        lane = Lane(crew, urgency)
        futures = [lane.submit(busy.work, (name, i)) for i in range(20)]
        found[name] = [future.result() for future in futures] + list(lane.map(busy.work, range(5)))

    finished(crew, [crew.add(name, 1, lambda name=name: case(name, float(name))) for name in range(6)])
    assert found == {name: [(name, i) for i in range(20)] + [*range(5)] for name in range(6)}
    assert busy.most == threads


def test_the_largest_case_is_helped_first():
    crew, done, before = Crew(2, 10**9), [], []

    def piece():
        time.sleep(0.002)
        done.append(threading.get_ident())

    def large():
        lane = Lane(crew, 10.0)
        futures = [lane.submit(piece) for _ in range(40)]
        for future in futures:
            future.result()

    cases = [crew.add(10, 1, large), crew.add(5, 1, lambda: time.sleep(0.005))]
    cases.append(crew.add(1, 1, lambda: before.append(len(done))))
    finished(crew, cases)
    assert len(set(done)) == 2
    assert before[0] >= 38  # pieces of the large case that had ended, or were being done


def test_a_thread_is_woken_once_to_help_and_not_for_every_piece(monkeypatch):
    crew, woken, done = Crew(2, 10**9), [], set()
    submit = crew._pool.submit
    monkeypatch.setattr(crew._pool, "submit", lambda work: (woken.append(1), submit(work)))

    def piece():
        time.sleep(0.002)
        done.add(threading.get_ident())

    def case():
        lane = Lane(crew, 1.0)
        for future in [lane.submit(piece) for _ in range(100)]:
            future.result()

    finished(crew, [crew.add(1, 1, case)])
    assert len(done) == 2
    assert len(woken) <= 10  # two, and more only where the helper is quicker than the case for a moment


def test_running_cases_stay_within_the_budget():
    crew, lock, running, most, alone = Crew(4, 100), threading.Lock(), {}, [0], []

    def case(name, size):
        with lock:
            running[name] = size
            most[0] = max(most[0], sum(running.values()) if len(running) > 1 else 0)
            if size > 100:
                alone.append(len(running))
        time.sleep(0.003)
        with lock:
            del running[name]

    sizes = [60, 50, 30, 150, 40, 20, 70, 10, 90, 30] * 3
    cases = [crew.add(name, size, lambda name=name, size=size: case(name, size)) for name, size in enumerate(sizes)]
    finished(crew, cases)
    assert 60 < most[0] <= 100
    assert alone == [1, 1, 1]


def test_what_a_piece_of_work_raises_is_told_where_its_result_is_asked_for():
    crew, told = Crew(2, 1), []

    def case():
        try:
            Lane(crew, 1.0).submit(int, "no number").result()
        except ValueError as error:
            told.append(str(error))
            raise

    with pytest.raises(ValueError, match="no number"):
        crew.add(1, 1, case).result()
    crew.close()
    assert len(told) == 1
    with pytest.raises(ValueError, match="no number"):
        Inline().submit(int, "no number").result()


def test_cleared_cases_do_not_begin():
    crew, order, gate = Crew(1, 10), [], threading.Event()
    started = threading.Event()
    crew.add(9, 1, lambda: (started.set(), gate.wait(), order.append("first")))
    crew.add(1, 1, lambda: order.append("second"))
    started.wait()
    threading.Timer(0.05, gate.set).start()
    crew.close()
    assert order == ["first"]
