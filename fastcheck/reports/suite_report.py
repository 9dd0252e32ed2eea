"""Frozen reports of several checks: the cases of a suite, or the phases of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fastcheck.common import machine
from fastcheck.metrics import judged, reach
from fastcheck.metrics.judged import Verdict
from fastcheck.reports import notes, wording
from fastcheck.reports.facts import Facts
from fastcheck.reports.outline import Outline
from fastcheck.reports.readable import Plottable
from fastcheck.reports.report import SCHEMA, CheckReport, Report, encode
from fastcheck.reports.tensor_report import ForwardReport, TensorReport

_INTERRUPTED = "interrupted: only the cases and dimensions reached are counted"


@dataclass(frozen=True, repr=False)
class SuiteReport(CheckReport):
    """The report of several checks. It is true if all of them passed.

    Attributes
    ----------
    cases : dict of str to Report or NetworkReport
        Reports by name, in the order of the suite.
    interrupted : bool
        Whether the suite was stopped. The cases are then those that were reached, the last one perhaps in part.
    run : dict
        The part that depends on the machine and the moment, as in `Report`. Seconds are summed over all cases.
    """

    cases: Mapping[str, Report | NetworkReport]
    interrupted: bool
    run: dict[str, Any]

    @classmethod
    def of(cls, cases: Mapping[str, Report | NetworkReport], threads: int, *, interrupted: bool = False) -> SuiteReport:
        """Combine finished reports."""
        keys = ("seconds", "forward_seconds", "audit_seconds")
        seconds = {key: sum(case.run.get(key, 0.0) for case in cases.values()) for key in keys}
        return cls(dict(cases), interrupted, machine.run_part(threads, **seconds))

    @property
    def verdict(self) -> Verdict:
        """The verdict of the worst case; at best "inconclusive" where there are no cases, or some are missing."""
        missing: list[Verdict] = ["inconclusive"] if self.interrupted else []
        return judged.heaviest([case.verdict for case in self.cases.values()] + missing)

    def outline(self) -> Outline:
        """Return what the report says in short: the text that ``print(report)`` prints."""
        tensors = [tensor for case in self.cases.values() for _, _, tensor in every_tensor(case)]
        foot = [notes.cost(tensors, self.run), _INTERRUPTED if self.interrupted else ""]
        cases = {name: case.outline() for name, case in self.cases.items()}
        return wording.of_cases(self.verdict, cases, [line for line in foot if line], self.interrupted)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON report as Python objects; nan and infinities become strings."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "interrupted": self.interrupted,
            "cases": [{"name": name} | case.to_dict() for name, case in self.cases.items()],
            "run": encode(self.run),
        }


class HygieneLine(NamedTuple):
    """A line of the good-practice checklist: topic, status (done, for the user to note, a warning) and text."""

    topic: str
    status: Literal["done", "note", "warn"]
    text: str


@dataclass(frozen=True)
class Explanation:
    """The reason why one dimension agrees to as many digits as it does.

    Attributes
    ----------
    tensor : str
    index : tuple of int
    analytic, numeric, digits : float
        The check's values, with its ``step``.
    step : float
    crossings : tuple of dict
        Units that cross a kink between -h and +h: "layer", "kind" ("sign", "winner" or "hinge"), "unit" (data point,
        channel, position), and the deciding value at -h ("minus"), at the point ("at") and at +h ("plus").
    quiet_step, quiet_numeric, quiet_digits : float or None
        The largest smaller step, by factors of four, that crosses nothing; the numeric value and digits there.
    sweep : dict
        Summary of the curve over the step: `fastcheck.sweeps.curve.Curve.brief`.
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


@dataclass(frozen=True, repr=False)
class NetworkReport(SuiteReport, Plottable):
    """The result of `fastcheck.check_network`: a report for each phase, with regularisation off and then on.

    It is true if every phase passed. Attributes that it shares with a single report are those of the last phase, the
    whole objective.

    Attributes
    ----------
    hygiene : tuple of HygieneLine
    explanations : tuple of Explanation
        Where asked for: explanations of the worst dimensions that fail or are inconclusive, else of the first layer's.
    """

    cases: Mapping[str, Report]
    hygiene: tuple[HygieneLine, ...] = ()
    explanations: tuple[Explanation, ...] = ()

    @property
    def phases(self) -> Mapping[str, Report]:
        """The phases' reports, by name."""
        return self.cases

    @property
    def tensors(self) -> dict[str, TensorReport]:
        """The last phase's tensors."""
        return self._last.tensors

    @property
    def operands(self) -> dict[str, Any] | None:
        """The network and its data, by name."""
        return self._last.operands

    @property
    def forward(self) -> ForwardReport | None:
        """The comparison of the declared loss with the computed one."""
        return self._last.forward

    @property
    def seed(self) -> int:
        """The random seed of the sample."""
        return self._last.seed

    @property
    def _last(self) -> Report:
        return list(self.cases.values())[-1]

    def summary(self) -> str:
        """Return the verdict and its reasons in one line."""
        message = "; ".join(f"{name}: {case.summary()}" for name, case in self.cases.items() if not case.passed)
        return (
            f"{self.verdict}: {message or f'every phase lies within what the arithmetic can explain{self._checked()}'}"
        )

    def facts(self) -> Facts:
        """Return the parts of the report that its outline is made of."""
        phases = list(self.phases.values())
        warnings = [f"{line.topic}: {line.text}" for line in self.hygiene if line.status == "warn"]
        beyond = notes.covered(self._last.directions) if self._last.directions is not None else []
        return Facts(
            self.verdict,
            self._labelled(),
            self.forward,
            [finding for phase in phases for finding in phase.health],
            next((phase.error for phase in phases if phase.error is not None), None),
            self.interrupted,
            self.run,
            declared="loss",
            phases="with regularisation off, then on" if len(phases) > 1 else "",
            differenced=[tensor for _, _, tensor in every_tensor(self)],
            notes=[*beyond, *(one.words for one in self.explanations), *warnings],
        )

    def outline(self) -> Outline:
        """Return what the report says in short: the text that ``print(report)`` prints."""
        return wording.of_tensors(self.facts())

    def _labelled(self) -> dict[str, TensorReport]:
        """Return each tensor's report: of the first phase that it did not pass, named if others passed; or the last."""
        labelled = {}
        for name, last in self.tensors.items():
            reports = {phase: case.tensors[name] for phase, case in self.phases.items() if name in case.tensors}
            failed = {phase: tensor for phase, tensor in reports.items() if not tensor.passed}
            alone = 0 < len(failed) < len(reports)
            phase, tensor = next(iter(failed.items()), ("", last))
            labelled[f"{name} ({phase})" if alone else name] = tensor
        return labelled

    def _checked(self) -> str:
        """Return how many of how many dimensions were checked, and what the smallest sample would have missed."""
        tensors = self.tensors
        checked, total = (
            sum(getattr(one, name) for one in tensors.values()) for name in ("dims_checked", "dims_total")
        )
        if checked == total:
            return ""
        message = f"; {checked:,} of {total:,} dimensions were checked"
        shares = {name: one.dims_checked / one.dims_total for name, one in tensors.items() if not one.excluded}
        least = min(shares, key=lambda name: shares[name], default="")
        if not 0 < shares.get(least, 0) < 1:
            return message
        return f"{message}: {reach.reach(tensors[least].dims_total, tensors[least].dims_checked, least)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON report as Python objects; nan and infinities become strings."""
        return super().to_dict() | {
            "hygiene": [line._asdict() for line in self.hygiene],
            "explanations": [encode(one) for one in self.explanations],
        }


def phases_of(case: Report | NetworkReport) -> Mapping[str, Report]:
    """Return the reports of a case's phases by name; a case that is not a network has one, named ""."""
    return case.phases if isinstance(case, NetworkReport) else {"": case}


def every_tensor(case: Report | NetworkReport) -> Iterator[tuple[str, str, TensorReport]]:
    """Yield the phase, name and report of every tensor of a case, phase by phase."""
    for phase, report in phases_of(case).items():
        for name, tensor in report.tensors.items():
            yield phase, name, tensor
