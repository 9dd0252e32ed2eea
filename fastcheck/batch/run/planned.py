"""A planned case of a suite: its entry, key and cost estimate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastcheck.batch.run.sources import Sources
from fastcheck.batch.suite.entries import Entry, UserFunction

RESERVE = 256 * 2**20
"""Bytes that the program itself takes, including kernels compiled during the run; bench/test_batch.py compares the
memory of a run with its budget."""


class CostEstimate(NamedTuple):
    """Estimated cost of a case.

    Attributes
    ----------
    dims : int
        Number of dimensions checked.
    work : float
        Outputs moved plus multiply-adds; one core does about 2e9 per second.
    bytes : int
        Upper bound on memory.
    """

    dims: int
    work: float
    bytes: int


@dataclass(frozen=True)
class Planned:
    """A case of a suite, planned.

    Attributes
    ----------
    entry : Entry
    key : str
        A digest of everything that decides the result: the entry, the contents of its files and of the user's code
        that it calls, and package versions.
    estimate : CostEstimate or None
        None if the case cannot be checked (its files do not describe a case, or it does not fit in memory), or if a
        function of the user's says what is checked, which is not called before.
    problem : str or None
        The reason why it cannot be checked.
    content : mapping of str to str
        Digests of its files, by role; empty if it cannot be checked.
    sources : Sources or None
        The user's code that it calls.
    """

    entry: Entry
    key: str
    estimate: CostEstimate | None
    problem: str | None = None
    content: Mapping[str, str] = field(default_factory=dict)
    sources: Sources | None = None

    @property
    def name(self) -> str:
        """The case's name."""
        return self.entry.name

    @property
    def urgency(self) -> float:
        """Priority: the case with the most work runs first."""
        return 0.0 if self.estimate is None else self.estimate.work

    def spec(self) -> dict[str, Any]:
        """Return the description of the entry for the ledger."""
        return described(self.entry)


def described(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON, with names in place of paths: the location of a suite does not affect results."""
    values = dataclasses.asdict(entry)
    for name, value in values.items():
        if isinstance(value, (Path, UserFunction)):
            values[name] = value.name
    return {"kind": type(entry).__name__} | values
