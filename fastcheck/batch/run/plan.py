"""Plan a suite: estimate the cost of every case, and compute a key from everything that decides its result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping

from fastcheck.batch.run import estimates, jobs
from fastcheck.batch.run.planned import RESERVE, CostEstimate, Planned, described
from fastcheck.batch.run.sources import Sources, read_sources
from fastcheck.batch.suite.entries import ConvEntry, Entry, UserFunction, user_function
from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError, one_line


def plan(entries: Iterable[Entry], threads: int, budget: int) -> list[Planned]:
    """Plan every case.

    A case's cost is estimated from the headers of its files. If it fits in a budget of bytes, the files are read, to
    compute their digests and to find faults in them. The files of a user's functions are read, and not imported. A
    fault concerns its own case alone.
    """
    versions, sources_of = machine.versions("torch"), functools.cache(read_sources)
    return [_planned(entry, threads, budget, versions, sources_of) for entry in entries]


def _planned(
    entry: Entry,
    threads: int,
    budget: int,
    versions: Mapping[str, str],
    sources_of: Callable[[UserFunction], Sources],
) -> Planned:
    function = user_function(entry)
    try:
        estimate = estimates.of(entry, threads)
        if estimate is not None:
            _refuse_what_cannot_fit(estimate, budget)
        _, digests = jobs.read(entry)
        sources = None if function is None else sources_of(function)
    except Exception as error:  # concerns this case alone; the others still run
        return Planned(entry, _key(entry, {}, None, versions), None, one_line(error))
    return Planned(entry, _key(entry, digests, sources, versions), estimate, None, digests, sources)


def _refuse_what_cannot_fit(estimate: CostEstimate, budget: int) -> None:
    needed = estimate.bytes + RESERVE
    if needed > budget:
        raise FastcheckError(
            f"it needs {needed:,} bytes, and --memory allows {budget:,}: expected more memory, or a smaller case"
        )


def _key(entry: Entry, digests: Mapping[str, str], sources: Sources | None, versions: Mapping[str, str]) -> str:
    relevant = dict(versions)
    if sources is None and not (isinstance(entry, ConvEntry) and entry.backward == "torch"):
        relevant.pop("torch", None)
    content = dict(digests) if sources is None else {**digests, "code": sources.digest}
    whole = {"entry": described(entry), "content": content, "versions": relevant}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
