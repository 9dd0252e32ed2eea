"""A suite made ready to run: every case with what it takes, and a key of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from fastcheck import machine
from fastcheck.batch import estimates, jobs
from fastcheck.batch.entries import ConvEntry, Entry
from fastcheck.batch.planned import RESERVE, Planned, described
from fastcheck.errors import FastcheckError
from fastcheck.toml_file import shown


def plan(entries: Iterable[Entry], threads: int) -> list[Planned]:
    """Plan every case: files are read once, for their digests and to see what the case takes."""
    versions, digests = machine.versions("torch"), dict[Path, str]()
    return [_planned(entry, threads, versions, digests) for entry in entries]


def refuse_what_cannot_fit(cases: Iterable[Planned], budget: int) -> None:
    """Refuse a case that needs more memory than there is for all.

    Raises
    ------
    FastcheckError
        It names the case, what it needs and what there is.
    """
    for case in cases:
        needed = 0 if case.estimate is None else case.estimate.bytes + RESERVE
        if needed > budget:
            raise FastcheckError(
                f"{shown(case.name)} needs {needed:,} bytes, and --memory allows {budget:,}: "
                "expected more, or a smaller case"
            )


def _planned(entry: Entry, threads: int, versions: Mapping[str, str], digests: dict[Path, str]) -> Planned:
    content: dict[str, str | None] = {}
    try:
        for what, path in jobs.files(entry).items():
            if path not in digests:
                digests[path] = _digest(path)
            content[what] = digests[path]
        return Planned(entry, _key(entry, content, versions), estimates.of(entry, jobs.read(entry), threads))
    except FastcheckError as error:
        return Planned(entry, _key(entry, content, versions), None, str(error))


def _key(entry: Entry, content: Mapping[str, str | None], versions: Mapping[str, str]) -> str:
    relevant = dict(versions)
    if not (isinstance(entry, ConvEntry) and entry.backward == "torch"):
        relevant.pop("torch", None)
    whole = {"entry": described(entry), "content": content, "versions": relevant}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FastcheckError(f"{path} cannot be read: {error.strerror or error}") from None
