"""Batch runs that are killed: suites for it, the real command in a process group of its own, and what a ledger holds.

tests/batch/run/test_kills.py is the short form, bench/kills.py the full one.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import processes
import psutil
from processes import PATIENCE

from fastcheck.batch.results import read_results

LOOKING = 0.01

HOOKS = Path(__file__).parent / "hooks"
"""Has the module with which Python begins in a run."""

NETWORK = """
l2 = 1e-3
[[layer]]
kind = "conv"
out_channels = 4
kernel_size = 3
[[layer]]
kind = "relu"
[[layer]]
kind = "flatten"
[[layer]]
kind = "dense"
out_features = 5
"""

# Each has several shards, of the first two a cluster makes tasks of their own.
LARGE = """
[[case]]
name = "local"
conv = {{in = 24, out = 24, kernel = 3, padding = 1}}
input = [1, 24, 16, 16]
evaluator = "local"
grid = {{seed = {seeds}}}
[[case]]
name = "full"
conv = {{in = 8, out = 8, kernel = 3, padding = 1}}
input = [1, 8, 18, 18]
evaluator = "full"
grid = {{seed = {seeds}}}
[[case]]
name = "curved"
conv = {{in = 24, out = 24, kernel = 3, padding = 1}}
input = [1, 24, 20, 20]
loss = "tanh"
grid = {{seed = {seeds}}}
[[case]]
name = "network"
network = "network.toml"
input = [8, 1, 8, 8]
evaluator = "full"
grid = {{seed = {seeds}}}
"""

SMALL = """
[[case]]
name = "small"
conv = {{in = 3, out = 4, kernel = 3, padding = 1}}
input = [1, 3, 6, 6]
grid = {{seed = {seeds}}}
"""


def write_suite(folder, cases, large, more=""):
    """Write a suite of so many cases, four times ``large`` of them of seconds, and return its path."""
    (folder / "network.toml").write_text(NETWORK)
    text = '[defaults]\ndims = "all"\n' + more
    if large:
        text += LARGE.format(seeds=list(range(large)))
    text += SMALL.format(seeds=list(range(cases - 4 * large)))
    path = folder / "suite.toml"
    path.write_text(text)
    return path


# The command


def command(*arguments):
    return [sys.executable, "-m", "fastcheck", *map(str, arguments)]


class Running:
    """``fastcheck run`` in a process group of its own, which ends with the block.

    Parameters
    ----------
    suite, folder : Path
    options : str
    first : sequence of Path
        Folders that modules come from, before all others.
    before : callable, optional
        Called in the process before the command.
    pause : str
        Where the run stops itself, as SIGSTOP does: a condition on the shards that it has ``kept``; see `hooks`.
    hold : bool
        Whether processes that compute wait as they begin.
    """

    def __init__(self, suite, folder, *options, first=(HOOKS,), before=lambda: None, pause="", hold=False):
        self.folder, self._held = folder, folder.with_name("held")
        if hold:
            self._held.touch()
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115, closed on exit
        self._child = processes.child(
            command("run", suite, "--out", folder, *options),
            before,
            env=processes.environment(*first) | {"FASTCHECK_PAUSE": pause, "FASTCHECK_HOLD": str(self._held)},
            stdout=self._out,
            stderr=self._err,
        )

    def __enter__(self):
        self._process = self._child.__enter__()
        self.pid = self._process.pid
        return self

    def __exit__(self, *error):
        self._child.__exit__(*error)
        self._out.close()
        self._err.close()

    @property
    def alive(self):
        return self._process.poll() is None

    def send(self, number):
        """Send a signal to the whole group, as a terminal does, whatever is left of it."""
        processes.send(self._process, number)

    def paused(self):
        """Wait until the run has stopped itself; return whether it did."""
        return self.until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def go_on(self):
        """End its pause, and that of its workers."""
        self._held.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGCONT)

    def until(self, came):
        """Wait until something has come, or the run has ended; return whether it came while the run was alive."""
        end = time.monotonic() + PATIENCE
        while self.alive:
            if came():
                return True
            if time.monotonic() > end:
                raise TimeoutError(f"{came} never came")
            time.sleep(LOOKING)
        return False

    def wait(self):
        """Wait for the end, and return status and output."""
        code = self._process.wait(PATIENCE)
        told = []
        for stream in (self._out, self._err):
            stream.seek(0)
            told.append(stream.read())
        return Done(code, *told)

    def workers(self):
        """Return the processes that compute for this one."""
        try:
            return [child for child in psutil.Process(self.pid).children(recursive=True) if _computes(child)]
        except psutil.NoSuchProcess:
            return []


def _computes(process):
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def all_end(processes):
    """Wait until processes have ended, whether or not somebody asks how; tell whether they did."""
    end = time.monotonic() + PATIENCE
    while any(map(_lives, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(LOOKING)
    return True


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Done(NamedTuple):
    """How a run ended."""

    code: int
    out: str
    err: str


def run(suite, folder, *options, **how):
    """Run a suite to its end."""
    with Running(suite, folder, *options, **how) as running:
        return running.wait()


def final(folder):
    """Return what ``fastcheck show --json`` tells, without what depends on machine and moment."""
    return json.dumps(_without_runs(json.loads(read_results(folder).suite.to_json())))


def _without_runs(value):
    if isinstance(value, dict):
        return {key: _without_runs(one) for key, one in value.items() if key != "run"}
    return [_without_runs(one) for one in value] if isinstance(value, list) else value


# What a ledger holds


class Held(NamedTuple):
    """What a ledger holds.

    Attributes
    ----------
    shards : dict
        Seconds, worker and body by case, phase, tensor and number.
    reports : dict
        Verdict and seconds by case, of those that are finished.
    """

    shards: dict
    reports: dict

    def inside(self, before):
        """Return the cases that have shards which they had not before, and no report."""
        return {place[0] for place in self.shards.keys() - before.shards.keys()} - set(self.reports)

    def bodies(self):
        """Return what was found, whoever found it and in whatever time."""
        return {place: body for place, (*_, body) in self.shards.items()}

    def workers(self):
        return {worker for _, worker, _ in self.shards.values()}

    def changed(self, later):
        """Count what is here and not, or not the same, in a later state."""
        return sum(
            after.get(place) != row
            for before, after in ((self.shards, later.shards), (self.reports, later.reports))
            for place, row in before.items()
        )


NOTHING = Held({}, {})


def held(folder):
    """Read a ledger, while a run writes it or not."""
    path = folder / "ledger.sqlite"
    if not path.exists():
        return NOTHING
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
        connection.execute("BEGIN")  # both questions of one moment
        rows = connection.execute(
            "SELECT cases.name, phase, tensor, number, shards.seconds, workers.name, body FROM cases "
            "JOIN tensors ON case_id = cases.id JOIN shards ON tensor_id = tensors.id "
            "JOIN workers ON workers.id = worker_id JOIN tallies ON tallies.id = tally_id"
        )
        shards = {tuple(row[:4]): tuple(row[4:]) for row in rows}
        rows = connection.execute("SELECT name, verdict, seconds FROM cases WHERE verdict IS NOT NULL")
        return Held(shards, {name: tuple(found) for name, *found in rows})


def remains(folder):
    """Read what a killed run left from a copy: the next run is to find everything as it was left."""
    with tempfile.TemporaryDirectory() as copy:
        for ending in ("", "-wal"):
            path = folder / f"ledger.sqlite{ending}"
            if path.exists():
                shutil.copy(path, copy)
        return held(Path(copy))


# Kills


class Moment(NamedTuple):
    """When a run is killed.

    Attributes
    ----------
    came : callable
        Waits for the moment in a run; returns whether it came before the run's end.
    pause : str
        Where the run is to stop itself, as `Running` takes it.
    """

    came: Callable[[Running], bool]
    pause: str = ""


def after(seconds):
    """Return a moment: so many seconds after the start."""

    def came(running):
        end = time.monotonic() + seconds
        return running.until(lambda: time.monotonic() >= end)

    return Moment(came)


def kept(shards):
    """Return a moment: the run has kept so many shards, and waits."""
    return Moment(Running.paused, f"len(kept) >= {shards}")


class Tale(NamedTuple):
    """How a run went that was killed and begun again until it came to its end.

    Attributes
    ----------
    kills : int
    inside : int
        Kills that left a case with new shards and no report.
    changed : int
        Shards and reports that a later run lost, or computed again.
    done : Done
        How the last one ended.
    """

    kills: int
    inside: int
    changed: int
    done: Done


def through(suite, folder, moments, *options, kill=lambda running: running.send(signal.SIGKILL)):
    """Run a suite, killed at these moments, until it comes to its end."""
    tale, before = Counter(), NOTHING
    for moment in moments:
        with Running(suite, folder, *options, pause=moment.pause) as running:
            if not moment.came(running):
                break
            kill(running)
        now = remains(folder)
        tale += Counter(kills=1, inside=bool(now.inside(before)), changed=before.changed(now))
        before = now
    done = run(suite, folder, *options)
    return Tale(tale["kills"], tale["inside"], tale["changed"] + before.changed(held(folder)), done)
