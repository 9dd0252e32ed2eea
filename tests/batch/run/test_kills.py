"""Batch runs lose nothing: killed, interrupted, without room, with cases and workers that die.

python bench/kills.py is the full form.
"""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import NamedTuple

import killed_runs
import processes
import pytest
from distributed import Client, KilledWorker, LocalCluster

from fastcheck import FastcheckError
from fastcheck.batch.ledger.ledger import Ledger
from fastcheck.batch.run import cluster, jobs, runner
from fastcheck.batch.run.check_one import ShardId
from fastcheck.batch.run.runner import Options
from fastcheck.batch.run.stop import Stop
from fastcheck.batch.suite.file import read_suite
from fastcheck.cli import main as cli
from fastcheck.engine.shard_results import ShardResult
from fastcheck.metrics.tally import Tally
from fastcheck.render.batch_progress import Lines

resource = pytest.importorskip("resource", reason="signals, and limits of files, are those of POSIX systems")

pytestmark = pytest.mark.jit

CLUSTER = ("--dask", "local:2")

CRASH = """
[[case]]
name = "{}"
conv = {{in = 4, out = 4, kernel = 3, padding = 1}}
input = [1, 4, 6, 6]
"""


class Whole(NamedTuple):
    """A suite, and what a run of it finds that nobody disturbs."""

    suite: object
    cases: int
    final: str
    bodies: dict

    def is_in(self, folder):
        """Tell whether a folder has the same, to the last bit."""
        return killed_runs.final(folder) == self.final and killed_runs.held(folder).bodies() == self.bodies


def whole_of(folder, cases, more=""):
    suite = killed_runs.write_suite(folder, cases, 1, more)
    assert killed_runs.run(suite, folder / "whole")[::2] == (0, "")
    held = killed_runs.held(folder / "whole")
    return Whole(suite, len(held.reports), killed_runs.final(folder / "whole"), held.bodies())


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Thirty cases."""
    return whole_of(tmp_path_factory.mktemp("many"), 30)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Seven cases, two of which crash where there is poison."""
    return whole_of(tmp_path_factory.mktemp("few"), 5, CRASH.format("aborts") + CRASH.format("segfaults"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def runs(folder):
    with Ledger.read(folder) as ledger:
        return ledger.runs()


def is_closed(folder):
    return sorted(path.name for path in folder.iterdir()) == ["ledger.sqlite", "lock.sqlite"]


def goes_on(whole, folder):
    """Run the suite again, on threads, and make sure that it repeats nothing and ends as if nothing had been."""
    before = killed_runs.remains(folder)
    done = killed_runs.run(whole.suite, folder)
    assert done[::2] == (0, "")
    assert before.changed(killed_runs.held(folder)) == 0
    assert whole.is_in(folder)


def test_kills_lose_nothing(many, out):
    new = (1, 3, 8)
    assert sum(new) + 2 * len(new) < len(many.bodies)  # the other thread may keep one more, each time
    tale = killed_runs.through(many.suite, out, map(killed_runs.kept, new))
    assert (tale.kills, tale.changed, tale.done[::2]) == (len(new), 0, (0, ""))
    assert tale.inside >= 1
    assert many.is_in(out)
    # What was killed has no end, and what comes after the end has nothing to do.
    assert {run.outcome is None for run in runs(out)[:-1]} == {True}
    assert runs(out)[-1].outcome == {"interrupted": False, "left": 0}
    goes_on(many, out)
    assert runs(out)[-1].outcome == {"interrupted": False, "left": 0}


def test_what_kills_are_compared_with_can_differ(many, few, out):
    assert not many.is_in(few.suite.parent / "whole")
    held = killed_runs.held(few.suite.parent / "whole")
    place, row = next(iter(held.shards.items()))
    assert held.changed(held) == 0
    assert held.changed(held._replace(shards=held.shards | {place: (row[0] + 1, *row[1:])})) == 1
    assert killed_runs.NOTHING.changed(held) == 0
    assert held.changed(killed_runs.NOTHING) == len(held.shards) + len(held.reports)


def a_worker(running):
    return running.until(running.workers)


INSIDE = killed_runs.kept(1)


@pytest.mark.parametrize(
    ("options", "how", "moment"),
    [
        ((), {"pause": INSIDE.pause}, INSIDE.came),
        (("--isolate",), {"hold": True}, a_worker),
        (CLUSTER, {"pause": INSIDE.pause}, INSIDE.came),
    ],
    ids=["threads", "processes that begin", "cluster"],
)
def test_an_interrupt_leaves_a_clean_ledger(few, out, options, how, moment):
    with killed_runs.Running(few.suite, out, *options, **how) as running:
        assert moment(running)
        running.send(signal.SIGINT)
        running.go_on()
        done = running.wait()
        assert running.workers() == []
    assert done[::2] == (130, "")
    left = few.cases - len(killed_runs.held(out).reports)
    assert re.search(rf", {left} waiting", done.out.splitlines()[-1])
    assert runs(out)[-1].outcome == {"interrupted": True, "left": left}
    assert is_closed(out)
    goes_on(few, out)


def test_an_interrupt_while_a_cluster_is_made_is_told_in_a_line(few, out):
    with killed_runs.Running(few.suite, out, *CLUSTER, hold=True) as running:
        assert a_worker(running)
        running.send(signal.SIGINT)
        running.go_on()
        assert running.wait() == (130, "", "fastcheck: interrupted\n")
    assert not out.exists()


def test_a_cluster_that_cannot_be_made_is_told_in_a_line(few, out):
    with killed_runs.Running(few.suite, out, *CLUSTER, hold=True) as running:
        assert a_worker(running)
        running.workers()[0].kill()
        running.go_on()
        done = running.wait()
    assert done[:2] == (2, "")
    assert re.fullmatch("fastcheck: --dask: 2 workers could not be started: .+\n", done.err)


@pytest.fixture
def taken_port():
    """Dask's own port, taken by some other cluster."""
    with socket.socket() as other:
        with suppress(OSError):  # it is taken already, which does as well
            other.bind(("127.0.0.1", 8787))
            other.listen()
        yield


@pytest.mark.usefixtures("taken_port")
def test_a_killed_worker_is_survived(many, out):
    both = "len({worker for _, worker in kept}) == 2"
    with killed_runs.Running(many.suite, out, *CLUSTER, pause=both) as running:
        assert running.paused()
        victim = running.workers()[0]
        victim.kill()
        before = killed_runs.held(out)
        running.go_on()
        assert running.wait()[::2] == (0, "")
    held = killed_runs.held(out)
    assert f"process {victim.pid}" in held.workers()
    assert f"process {running.pid}" not in held.workers()
    assert before.changed(held) == 0
    assert many.is_in(out)


# Cases that crash

POISON = """
import importlib.abc, importlib.machinery, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fastcheck.batch.run.jobs":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader.exec_module = poisoning(spec.loader.exec_module)
        return spec

def poisoning(run):
    def exec_module(module):
        run(module)
        module.made = dying(module.made)
    return exec_module

def dying(made):
    def make(entry, *others, **options):
        if entry.name == "aborts":
            os.abort()
        if entry.name == "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        return made(entry, *others, **options)
    return make

sys.meta_path.insert(0, Finder())
"""
"""Ends the process in which a case of a certain name is made, as a user's native code may."""


@pytest.fixture(scope="module")
def poison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poison")
    (folder / "sitecustomize.py").write_text(POISON)
    return folder


def test_a_case_that_crashes_takes_nothing_else_down_in_a_process_of_its_own(few, poison, out):
    done = killed_runs.run(few.suite, out, "--isolate", first=[poison])
    assert done[::2] == (3, "")
    held = killed_runs.held(out)
    verdicts = {name: verdict for name, (verdict, _) in held.reports.items()}
    crashed = {"aborts", "segfaults"}
    assert {name for name, verdict in verdicts.items() if verdict == "error"} == crashed
    assert {name for name, verdict in verdicts.items() if verdict == "pass"} == verdicts.keys() - crashed
    assert len(verdicts) == few.cases
    for name, number in (("aborts", "SIGABRT"), ("segfaults", "SIGSEGV")):
        assert re.search(rf"error +{name} +the case's process was killed by {number}", done.out)
        assert number in killed_runs.final(out)

    whole = held._replace(reports={name: row for name, row in held.reports.items() if name not in crashed})
    again = killed_runs.run(few.suite, out)
    assert again[::2] == (0, "")
    assert again.out.startswith(f"{few.cases - 2} of {few.cases} cases are finished; 2 to go\n")
    assert whole.changed(killed_runs.held(out)) == 0
    assert few.is_in(out)


def test_a_case_that_crashes_the_run_leaves_the_rest_intact(few, poison, out):
    done = killed_runs.run(few.suite, out, "--threads", "1", first=[poison])  # the longest cases come first, and end
    assert done.code in (-signal.SIGABRT, -signal.SIGSEGV)
    held = killed_runs.remains(out)
    assert held.reports
    assert {verdict for verdict, _ in held.reports.values()} == {"pass"}
    goes_on(few, out)


# A full disk


def is_told(done, folder):
    """Make sure that a write that failed is told in one line, and that what was written before is there."""
    assert done.code == 2
    ledger = re.escape(str(folder / "ledger.sqlite"))
    told = (
        rf"fastcheck: (shard \d+ of .+|the report of .+) could not be written to {ledger}: .+; free some space and .+\n"
    )
    assert re.fullmatch(told, done.err)
    assert killed_runs.held(folder).shards
    assert '"verdict"' in killed_runs.final(folder)


def test_a_limit_on_files_is_told_and_nothing_is_lost(few, out):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    is_told(killed_runs.run(few.suite, out, before=limit), out)
    goes_on(few, out)


@pytest.fixture
def small_disk(tmp_path):
    """A disk, and a function that sets its size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(size, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    try:
        if not mounted(700_000):
            pytest.skip("nothing can be mounted here")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    yield folder, lambda size: mounted(size, "remount")
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_nothing_is_lost(few, small_disk):
    disk, resize = small_disk
    out = disk / "out"
    is_told(killed_runs.run(few.suite, out), out)
    assert resize(50_000_000)
    goes_on(few, out)


# What ends a run, and not a case alone


@pytest.fixture
def one(tmp_path):
    """A suite of one case."""
    return killed_runs.write_suite(tmp_path, 1, 0)


def verdicts(folder):
    return {name: verdict for name, (verdict, _) in killed_runs.held(folder).reports.items()}


def test_a_ledger_that_is_damaged_ends_the_run(one, out, refused, run):
    assert run("run", one, "--out", out)[0] == 0
    with closing(sqlite3.connect(out / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE cases SET verdict = NULL")
        connection.execute("DELETE FROM reports")
        connection.execute("UPDATE tallies SET body = X'00'")
    assert "ledger.sqlite is damaged" in refused("run", one, "--out", out)
    assert verdicts(out) == {}


def test_a_numeric_file_that_cannot_be_written_ends_the_run(one, out, refused, run):
    out.mkdir()
    (out / "numeric").write_text("no folder")
    message = refused("run", one, "--out", out, "--keep-numeric")
    assert re.fullmatch(rf"fastcheck: {re.escape(str(out / 'numeric'))}\S+ cannot be created: .+\n", message)
    assert verdicts(out) == {}
    (out / "numeric").unlink()
    assert run("run", one, "--out", out, "--keep-numeric")[0] == 0


def test_what_nobody_expects_ends_the_run_and_is_not_waited_for(one, out, run, monkeypatch):
    def fail(*arguments):
        raise GeneratorExit("never expected")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "finish", fail)
        with pytest.raises(GeneratorExit, match="never expected"):
            cli.main(["run", str(one), "--out", str(out)])
    assert runs(out)[-1].outcome == {"interrupted": False, "left": 1}
    assert is_closed(out)
    assert run("run", one, "--out", out)[0] == 0


def test_a_case_that_exits_is_an_error_of_that_case(one, out, run, monkeypatch):
    def leave(*arguments, **options):
        sys.exit("leaving")

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "made", leave)
        code, told, _ = run("run", one, "--out", out)
    assert code == 3
    assert "SystemExit: leaving" in told
    assert run("run", one, "--out", out)[0] == 0


class Broken(Lines):
    """Tells nothing, and fails with the first case."""

    def ended(self, case, report, seconds):
        raise ZeroDivisionError


class Idle:
    """A backend that says that every case has crashed, and keeps a shard of what still runs at the end."""

    target = "here"

    def add(self, case, task):
        self.task = task
        task.check(lambda stop: 1 / 0)

    def close(self):
        if self.task is not None:  # the first time, while the ledger has to be open
            assert self.task.over
            self.task.keep(ShardId("", "weight", 0), ShardResult(Tally(), None), 1.0)
            self.task = None


def test_the_ledger_is_open_until_nobody_needs_it(one, out):
    with pytest.raises(ZeroDivisionError):
        runner.run(read_suite(one), out, Options.of(), Broken(print), lambda options: Idle())
    assert len(killed_runs.held(out).shards) == 1
    assert is_closed(out)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_output_that_cannot_be_written_ends_the_run_in_order(few, out):
    with open("/dev/full", "w") as full:
        command = killed_runs.command("run", few.suite, "--out", out)
        done = processes.run(command, stdout=full, env=processes.environment())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("fastcheck: standard output cannot be written")
    assert runs(out)[-1].outcome["left"] == few.cases - 1  # nothing was told of another
    assert killed_runs.held(out).reports
    goes_on(few, out)


def test_a_cluster_without_workers_is_refused(one, out, refused, monkeypatch):
    connected = cluster._connected

    def then_impatient(where):
        client = connected(where)
        monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 0.5)
        return client

    monkeypatch.setattr(cluster, "_connected", then_impatient)
    with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as empty:
        message = refused("run", one, "--out", out, "--dask", empty.scheduler_address)
    assert message == "fastcheck: --dask: the cluster has no worker after 0.5 s: expected at least one\n"
    assert not out.exists()


@pytest.mark.parametrize("address", ["", "http://x", "127.0.0.1:99999", "tcp://127.0.0.1:1"])
def test_a_client_that_finds_no_scheduler_leaves_nothing_behind(address, monkeypatch):
    """Python would close it when it ends, and wait for a thread that is no more."""
    closed, close = [], Client.close
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 0.1)
    monkeypatch.setattr(Client, "close", lambda self, *rest: (closed.append(self), close(self, *rest))[1])
    with pytest.raises(FastcheckError, match="no scheduler answers at"):
        cluster.backend(address)(None)
    assert {client.status for client in closed} == {"closed"}


def test_a_process_ends_after_a_client_found_no_scheduler():
    script = """
from fastcheck.batch.run import cluster
try:
    cluster.backend("http://x")(None)
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = processes.run(command, env=processes.environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("--dask: no scheduler answers at http://x: ")


def test_a_cluster_that_is_lost_ends_the_run(few, out):
    with (
        LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as elsewhere,
        killed_runs.Running(few.suite, out, "--dask", elsewhere.scheduler_address, pause=INSIDE.pause) as running,
    ):
        assert running.paused()
        elsewhere.close()
        running.go_on()
        done = running.wait()
    assert done.code == 2
    assert re.fullmatch("fastcheck: --dask: the cluster is lost: .+: no finished work is lost\n", done.err)
    assert set(verdicts(out).values()) <= {"pass"}
    goes_on(few, out)


GIVEN_UP = KilledWorker("a task", None, 3)


class GivesUp(cluster._WorkerCalls):
    """Asks nobody: each call returns its number, but Dask gives some up for a number of times.

    Attributes
    ----------
    tried : list
        Numbers, with the priority at which each was tried.
    """

    def __init__(self, times):
        super().__init__(None, SimpleNamespace(urgency=7.0), Stop(threading.Event(), None), "", threading.Lock())
        self.tried, self._times = [], times

    def _ended(self, function, calls, priority):
        for call in calls:
            future = Future()
            self.tried.append((*call, priority))
            self._times[call[0]] -= 1
            if self._times[call[0]] >= 0:
                future.set_exception(GIVEN_UP)
            else:
                future.set_result(call[0])
            yield call, future


def test_what_dask_gives_up_is_tried_again_alone():
    ask = GivesUp({1: 1, 2: 0, 3: 1})
    assert list(ask.each(None, [(1,), (2,), (3,)])) == [2, 1, 3]
    assert ask.tried == [(1, 7.0), (2, 7.0), (3, 7.0), (1, cluster.TOP_PRIORITY), (3, cluster.TOP_PRIORITY)]
    assert not ask._suspects.locked()


def test_a_case_that_ends_worker_after_worker_is_told_as_that():
    ask = GivesUp({1: 2})
    with pytest.raises(cluster.WorkersDied, match="4 workers died"), cluster._shortened_errors(None):
        ask.one(None, 1)
    assert not ask._suspects.locked()
