"""Plan a suite: estimate the cost of every case, and compute a key from everything that decides its result."""

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

    A case's cost is estimated from the headers of its files. If it fits in a budget of bytes, the files are read, to
    compute their digests and to find faults in them. A fault concerns its own case alone.
    """
    versions = machine.versions("torch")
    return [_planned(entry, threads, budget, versions) for entry in entries]


def _planned(entry: Entry, threads: int, budget: int, versions: Mapping[str, str]) -> Planned:
    try:
        estimate = estimates.of(entry, threads)
        _refuse_what_cannot_fit(estimate, budget)
        _, digests = jobs.read(entry)
    except Exception as error:  # concerns this case alone; the others still run
        return Planned(entry, _key(entry, {}, versions), None, one_line(error))
    return Planned(entry, _key(entry, digests, versions), estimate, None, digests)


def _refuse_what_cannot_fit(estimate: CostEstimate, budget: int) -> None:
    needed = estimate.bytes + RESERVE
    if needed > budget:
        raise FastcheckError(
            f"it needs {needed:,} bytes, and --memory allows {budget:,}: expected more memory, or a smaller case"
        )


def _key(entry: Entry, digests: Mapping[str, str], versions: Mapping[str, str]) -> str:
    relevant = dict(versions)
    if not (isinstance(entry, ConvEntry) and entry.backward == "torch"):
        relevant.pop("torch", None)
    whole = {"entry": described(entry), "content": digests, "versions": relevant}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
