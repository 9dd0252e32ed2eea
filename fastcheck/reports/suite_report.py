"""Frozen reports of several checks: of a suite, and of the phases of a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fastcheck.common import machine
from fastcheck.metrics import judged, reach
from fastcheck.metrics.judged import EXIT_CODES, Judged, Verdict
from fastcheck.reports.mismatch import GradientMismatchError
from fastcheck.reports.report import SCHEMA, ForwardReport, Report, TensorReport, encode


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
        return judged.heaviest([case.verdict for case in self.cases.values()] + missing)

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


class HygieneLine(NamedTuple):
    """One line of the hygiene panel: a topic, whether it was done or the user should act, and what or how."""

    topic: str
    status: Literal["done", "note", "warn"]
    text: str


@dataclass(frozen=True)
class Explanation:
    """Why one dimension agrees as it does.

    Attributes
    ----------
    tensor : str
    index : tuple of int
    analytic, numeric, digits : float
        As the check found them, with ``step``.
    step : float
    crossings : tuple of dict
        Units that cross a kink between -h and +h: "layer", "kind" ("sign", "winner" or "hinge"), "unit" (data point,
        channel, place), and what decides "minus" (at -h), "at" (the point) and "plus".
    quiet_step, quiet_numeric, quiet_digits : float or None
        The largest step below, by factors of four, that crosses nothing, and what the numeric value is there.
    sweep : dict
        What the curve over the step tells: `fastcheck.sweeps.curve.Curve.brief`.
    words : str
    """

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    digits: float
    step: float
    crossings: tuple[dict[str, Any], ...]
    quiet_step: float | None
    quiet_numeric: float | None
    quiet_digits: float | None
    sweep: dict[str, Any]
    words: str


@dataclass(frozen=True)
class NetworkReport(SuiteReport):
    """The answer to `fastcheck.check_network`: a report for each phase, regularisation off and then on.

    It is true where every phase passed. What else is asked of a single report is that of the last phase, the whole
    objective.

    Attributes
    ----------
    hygiene : tuple of HygieneLine
    explanations : tuple of Explanation
        Of the worst dimensions that fail or are inconclusive, or else of the first layer's, where asked for.
    """

    cases: Mapping[str, Report]
    hygiene: tuple[HygieneLine, ...] = ()
    explanations: tuple[Explanation, ...] = ()

    @property
    def phases(self) -> Mapping[str, Report]:
        """The reports of the phases, by name."""
        return self.cases

    @property
    def tensors(self) -> dict[str, TensorReport]:
        """Tensors of the last phase."""
        return self._last.tensors

    @property
    def forward(self) -> ForwardReport | None:
        """The declared loss beside the computed one."""
        return self._last.forward

    @property
    def seed(self) -> int:
        """Of the sample."""
        return self._last.seed

    @property
    def _last(self) -> Report:
        return list(self.cases.values())[-1]

    def raise_if_failed(self) -> None:
        """Raise unless the check passed.

        Raises
        ------
        GradientMismatchError
            It carries the report.
        """
        if not self.passed:
            raise GradientMismatchError(self.summary(), self)

    def summary(self) -> str:
        """Return the verdict and its reasons in one line."""
        message = "; ".join(f"{name}: {case.summary()}" for name, case in self.cases.items() if not case.passed)
        return (
            f"{self.verdict}: {message or f'every phase lies within what the arithmetic can explain{self._checked()}'}"
        )

    def _checked(self) -> str:
        """Say how many dimensions of how many were checked, and what the smallest sample would have missed."""
        tensors = self.tensors
        checked, total = (
            sum(getattr(one, name) for one in tensors.values()) for name in ("dims_checked", "dims_total")
        )
        if checked == total:
            return ""
        message = f"; {checked:,} of {total:,} dimensions were checked"
        parts = {name: one.dims_checked / one.dims_total for name, one in tensors.items() if not one.excluded}
        least = min(parts, key=lambda name: parts[name], default="")
        if not 0 < parts.get(least, 0) < 1:
            return message
        return f"{message}: {reach.reach(tensors[least].dims_total, tensors[least].dims_checked, least)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON report as Python objects, with nan and infinities as strings."""
        return super().to_dict() | {
            "hygiene": [line._asdict() for line in self.hygiene],
            "explanations": [encode(one) for one in self.explanations],
        }


def phases_of(case: Report | NetworkReport) -> Mapping[str, Report]:
    """Return the reports of a case's phases by name; what is no network has one, without a name."""
    return case.phases if isinstance(case, NetworkReport) else {"": case}


def every_tensor(case: Report | NetworkReport) -> Iterator[tuple[str, str, TensorReport]]:
    """Yield phase, name and report of every tensor of a case, phase after phase."""
    for phase, report in phases_of(case).items():
        for name, tensor in report.tensors.items():
            yield phase, name, tensor
