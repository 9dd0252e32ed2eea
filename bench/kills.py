"""Batch runs killed at random moments: what is found in the end has the bits of a run that nobody disturbed.

python bench/kills.py local --kills 100 --cases 200   kills the run, and begins it again
python bench/kills.py dask --kills 10                 kills workers of a cluster while the run goes on
python bench/kills.py client                          kills the run on a cluster, whose workers must end, too

Prints a table and writes JSON where --json tells; the exit status is 1 if anything was lost, changed or done twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import children
import psutil

sys.path.insert(0, str(children.HELPERS))

import killed_runs

CLUSTER = ("--dask", "local:2")

COUNTS = ("kills", "inside", "folders", "differences", "changed", "wrong_ends")
"""Kills; those that left a case with new shards and no report; folders that were compared, and those that differed;
shards and reports that were lost or made anew later; runs that ended with a status but 0, or told an error."""

FAILURES = ("differences", "changed", "wrong_ends", "workers_left", "not_workers")
"""Counts that must be zero."""


class Trial:
    """A suite, what an undisturbed run of it finds, and what is counted while it is disturbed.

    Parameters
    ----------
    top : Path
        Of all folders.
    cases, large : int
        As `killed_runs.write_suite` takes them.
    seed : int
        Of the moments.
    """

    def __init__(self, top: Path, cases: int, large: int, seed: int) -> None:
        self._top, self._suite = top, killed_runs.write_suite(top, cases, large)
        self.random, self.counts = random.Random(seed), Counter[str]()
        killed_runs.run(self._suite, top / "warm")  # compiles the kernels
        start = time.perf_counter()
        self._check_end(killed_runs.run(self._suite, top / "whole"))
        self.seconds = time.perf_counter() - start
        self._final, self._bodies = killed_runs.final(top / "whole"), killed_runs.held(top / "whole").bodies()
        self.facts = {"cases": cases, "shards": len(self._bodies), "undisturbed_seconds": round(self.seconds, 1)}

    def folders(self, kills_wanted: int) -> Iterator[Path]:
        """Yield new folders until there were so many kills, and compare what is in each afterwards."""
        while self.counts["kills"] < kills_wanted:
            folder = self._top / f"folder {self.counts['folders']}"
            yield folder
            same = killed_runs.final(folder) == self._final and killed_runs.held(folder).bodies() == self._bodies
            self.counts += Counter(folders=1, differences=int(not same))
            self._tell()

    def through(self, folder: Path, moments: Iterable[killed_runs.Moment], *options: str, **how: Any) -> None:
        """Run the suite, killed at these moments."""
        tale = killed_runs.through(self._suite, folder, moments, *options, **how)
        self.counts += Counter(kills=tale.kills, inside=tale.inside, changed=tale.changed)
        self._check_end(tale.done)

    def running(self, folder: Path, *options: str) -> killed_runs.Running:
        """Begin a run."""
        return killed_runs.Running(self._suite, folder, *options)

    def ended(self, running: killed_runs.Running) -> None:
        """Take note of how a run ended that nobody killed."""
        self._check_end(running.wait())

    def _check_end(self, done: killed_runs.Done) -> None:
        if done.code or done.err:
            self.counts["wrong_ends"] += 1
            print(f"status {done.code}: {(done.err or done.out)[-2000:]}", file=sys.stderr)

    def _tell(self) -> None:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        print(counts, file=sys.stderr, flush=True)


def local(trial: Trial, wanted: int) -> None:
    """Kill the run at moments that are as likely at its start as inside a case or at its end."""

    def moments() -> Iterator[killed_runs.Moment]:
        for _ in range(wanted - trial.counts["kills"]):
            yield killed_runs.after(trial.random.uniform(0.1, max(4.0, trial.seconds / 4)))

    for folder in trial.folders(wanted):
        trial.through(folder, moments())


def dask(trial: Trial, wanted: int) -> None:
    """Kill workers while the run goes on."""
    for folder in trial.folders(wanted):
        with trial.running(folder, *CLUSTER) as running:
            seen = _kill_workers(trial, running, wanted)
            trial.ended(running)
        workers = {int(name.removeprefix("process ")) for name in killed_runs.held(folder).workers()}
        trial.counts["workers"] += len(workers)
        trial.counts["not_workers"] += len(workers - seen) + (len(workers) < 2)


def _kill_workers(trial: Trial, running: killed_runs.Running, wanted: int) -> set[int]:
    """Kill workers at random until there were enough kills or the run ends; return all that were seen."""
    seen: set[int] = set()
    before = killed_runs.NOTHING

    def look() -> list[psutil.Process]:
        found: list[psutil.Process] = running.workers()
        seen.update(process.pid for process in found)
        return found

    running.until(lambda: look() and killed_runs.held(running.folder).shards)
    while running.alive:
        end = time.monotonic() + trial.random.uniform(0.5, 6)
        running.until(lambda end=end: look() and time.monotonic() > end)
        found = look()
        if found and trial.counts["kills"] < wanted:
            trial.random.choice(found).kill()
            now = killed_runs.held(running.folder)
            trial.counts += Counter(kills=1, inside=bool(now.inside(before)), changed=before.changed(now))
            before = now
    return seen


def client(trial: Trial, wanted: int) -> None:
    """Kill the run and not its workers, inside a case: they have to end by themselves."""

    def kill(running: killed_runs.Running) -> None:
        workers = running.workers()
        os.kill(running.pid, signal.SIGKILL)
        trial.counts += Counter(workers=len(workers), workers_left=int(not killed_runs.all_end(workers)))

    for folder in trial.folders(wanted):
        moments = [killed_runs.kept(1)] * min(3, wanted - trial.counts["kills"])
        trial.through(folder, moments, *CLUSTER, kill=kill)


TRIALS: dict[str, tuple[Callable[[Trial, int], None], int]] = {
    "local": (local, 100),
    "dask": (dask, 10),
    "client": (client, 3),
}
"""And how many kills each has where nothing else is asked for."""


def main() -> int:
    """Run what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--large", type=int, default=12, help="a quarter of the cases that take seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    disturb, usual = TRIALS[given.trial]
    with tempfile.TemporaryDirectory() as top:
        trial = Trial(Path(top), given.cases, given.large, given.seed)
        disturb(trial, given.kills or usual)
    row = {"trial": given.trial, "seed": given.seed, **trial.facts, **dict.fromkeys(COUNTS, 0), **trial.counts}
    print("\n".join(f"{name:<20} {value}" for name, value in row.items()))
    if given.json is not None:
        given.json.write_text(json.dumps(row, indent=1) + "\n")
    return 1 if any(row.get(name) for name in FAILURES) else 0


if __name__ == "__main__":
    sys.exit(main())
