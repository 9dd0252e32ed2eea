"""A case of a suite with what it takes, before it is begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastcheck.batch.suite.entries import Entry

RESERVE = 256 * 2**20
"""Bytes that the program itself takes, kernels compiled while it runs among them; bench/test_batch.py measures a run
beside its budget."""


class CostEstimate(NamedTuple):
    """What a case takes.

    Attributes
    ----------
    dims : int
        Dimensions that are checked.
    work : float
        Outputs moved and multiply-adds: some 2e9 a second on one core.
    bytes : int
        Memory, at most.
    """

    dims: int
    work: float
    bytes: int


@dataclass(frozen=True)
class Planned:
    """A case of a suite.

    Attributes
    ----------
    entry : Entry
    key : str
        A digest of all that decides the result: the entry, what its files hold, and the versions of what computes.
    estimate : CostEstimate or None
        None where the case cannot be checked: its files make none, or it does not fit in memory.
    problem : str or None
        Why.
    content : mapping of str to str
        Digests of its files, by what they are; of none where it cannot be checked.
    """

    entry: Entry
    key: str
    estimate: CostEstimate | None
    problem: str | None = None
    content: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The case's name."""
        return self.entry.name

    @property
    def urgency(self) -> float:
        """Work: the longest case comes first."""
        return 0.0 if self.estimate is None else self.estimate.work

    def spec(self) -> dict[str, Any]:
        """Return what a ledger keeps of the entry."""
        return described(self.entry)


def described(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON: files as the suite names them, since where it lies decides nothing."""
    found = dataclasses.asdict(entry)
    for name, value in found.items():
        if isinstance(value, Path):
            found[name] = value.name
    return {"kind": type(entry).__name__} | found
