"""A suite made ready to run: every case with what it takes, and a key of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from fastcheck.batch.run import estimates, jobs
from fastcheck.batch.run.planned import RESERVE, CostEstimate, Planned, described
from fastcheck.batch.suite.entries import ConvEntry, Entry
from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError, one_line


def plan(entries: Iterable[Entry], threads: int, budget: int) -> list[Planned]:
    """Plan every case.

    Headers of files tell what it takes; where that fits in a budget of bytes, the files are read, for their digests
    and to see what is wrong with them. Whatever is wrong is that case's alone.
    """
    versions = machine.versions("torch")
    return [_planned(entry, threads, budget, versions) for entry in entries]


def _planned(entry: Entry, threads: int, budget: int, versions: Mapping[str, str]) -> Planned:
    try:
        estimate = estimates.of(entry, threads)
        _refuse_what_cannot_fit(estimate, budget)
        _, content = jobs.read(entry)
    except Exception as error:  # of this case: the others are to run
        return Planned(entry, _key(entry, {}, versions), None, one_line(error))
    return Planned(entry, _key(entry, content, versions), estimate, None, content)


def _refuse_what_cannot_fit(estimate: CostEstimate, budget: int) -> None:
    needed = estimate.bytes + RESERVE
    if needed > budget:
        raise FastcheckError(
            f"it needs {needed:,} bytes, and --memory allows {budget:,}: expected more, or a smaller case"
        )


def _key(entry: Entry, content: Mapping[str, str], versions: Mapping[str, str]) -> str:
    relevant = dict(versions)
    if not (isinstance(entry, ConvEntry) and entry.backward == "torch"):
        relevant.pop("torch", None)
    whole = {"entry": described(entry), "content": content, "versions": relevant}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
