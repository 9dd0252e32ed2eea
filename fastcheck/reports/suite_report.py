"""The frozen report of several checks, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastcheck.common import machine
from fastcheck.metrics import verdict
from fastcheck.metrics.verdict import EXIT_CODES, Judged, Verdict
from fastcheck.reports.report import SCHEMA, Report, encode

if TYPE_CHECKING:
    from fastcheck.reports.network_report import NetworkReport


@dataclass(frozen=True)
class SuiteReport(Judged):
    """The answer to several checks. It is true where all of them passed.

    Attributes
    ----------
    cases : dict of str to Report or NetworkReport
        By name, in the order of the suite.
    interrupted : bool
        Whether the suite was stopped: then the cases are those that were reached, the last one perhaps in part.
    run : dict
        What depends on the machine and the moment, as in `Report`; seconds are those of all cases together.
    """

    cases: Mapping[str, Report | NetworkReport]
    interrupted: bool
    run: dict[str, Any]

    @classmethod
    def of(cls, cases: Mapping[str, Report | NetworkReport], threads: int, *, interrupted: bool = False) -> SuiteReport:
        """Put finished reports together."""
        parts = ("seconds", "forward_seconds", "audit_seconds")
        seconds = {part: sum(case.run.get(part, 0.0) for case in cases.values()) for part in parts}
        return cls(dict(cases), interrupted, machine.run_part(threads, **seconds))

    @property
    def verdict(self) -> Verdict:
        """That of the worst case; without any, or with some missing, at best "inconclusive"."""
        missing: list[Verdict] = ["inconclusive"] if self.interrupted else []
        return verdict.heaviest([case.verdict for case in self.cases.values()] + missing)

    @property
    def exit_code(self) -> int:
        """What the command line returns for this report."""
        return 130 if self.interrupted else EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON report as Python objects, with nan and infinities as strings."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "interrupted": self.interrupted,
            "cases": [{"name": name} | case.to_dict() for name, case in self.cases.items()],
            "run": encode(self.run),
        }

    def to_json(self) -> str:
        """Return the JSON report (schema 1), indented, with a final newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
