"""What a batch run found: the ledger's cases as the report of a suite, and the part of it that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fastcheck.batch.ledger.ledger import WAITING, Ledger, Result
from fastcheck.batch.ledger.schema import damaged, shown_path
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, refuse_unknown, shown
from fastcheck.metrics.judged import EXIT_CODES
from fastcheck.reports.reader import from_data, run_part
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport, every_tensor

Case = Report | NetworkReport

VERDICTS = (*EXIT_CODES, WAITING)
"""What a case can be, finished or not."""


@dataclass(frozen=True)
class Answers:
    """What is known of a suite.

    Attributes
    ----------
    name : str
        Of the suite.
    suite : SuiteReport
        The finished cases, in the suite's order; interrupted where others are waiting.
    waiting : tuple of str
        Names of the others.
    """

    name: str
    suite: SuiteReport
    waiting: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all cases, finished ones first."""
        return (*self.suite.cases, *self.waiting)


def suite_report(folder: Path) -> Answers:
    """Read what the ledger in a folder holds, while a run writes it or not.

    Raises
    ------
    FastcheckError
        If there is no ledger, or it is damaged or newer.
    """
    with Ledger.read(folder) as ledger:
        return of_ledger(ledger)


def of_ledger(ledger: Ledger) -> Answers:
    """Return what an open ledger holds.

    The report's ``run`` has the last run's threads, target and versions; its seconds are those of all cases together,
    its ``peak_bytes`` the largest.
    """
    cases: dict[str, Case] = {}
    waiting = []
    for result in ledger.results():
        if result.report is None:
            waiting.append(result.name)
        else:
            cases[result.name] = _decoded(ledger, result, result.report)
    return Answers(ledger.suite.name, SuiteReport(cases, bool(waiting), _run_part(ledger, cases)), tuple(waiting))


def of_report(report: Report | SuiteReport, name: str) -> Answers:
    """Return what a report holds: that of a suite its cases, any other one case of this name."""
    if isinstance(report, SuiteReport) and not isinstance(report, NetworkReport):
        return Answers(name, report)
    return Answers(name, SuiteReport({name: report}, report.interrupted, report.run))


def of_cases(answers: Answers, patterns: Collection[str]) -> Answers:
    """Return the cases whose names are among these, or match them as in `fnmatch`; all where there is no pattern.

    Raises
    ------
    FastcheckError
        If a pattern matches no case.
    """
    if not patterns:
        return answers
    _refuse_unmatched("case", patterns, answers.names)
    found = {name: case for name, case in answers.suite.cases.items() if _matches(name, patterns)}
    return _part(answers, found, tuple(name for name in answers.waiting if _matches(name, patterns)))


def of_verdicts(answers: Answers, verdicts: Collection[str]) -> Answers:
    """Return the cases that have one of these verdicts, or are "waiting" for one; all where there is no verdict.

    Raises
    ------
    FastcheckError
        If there is no such verdict.
    """
    if not verdicts:
        return answers
    for verdict in verdicts:
        refuse_unknown("a verdict", verdict, VERDICTS)
    found = {name: case for name, case in answers.suite.cases.items() if case.verdict in verdicts}
    return _part(answers, found, answers.waiting if WAITING in verdicts else ())


def of_tensors(answers: Answers, patterns: Collection[str]) -> Answers:
    """Return the cases that have tensors of these names, or matching them, with these tensors; all without a pattern.

    A case keeps the verdict that all its tensors gave it.

    Raises
    ------
    FastcheckError
        If a pattern matches no tensor.
    """
    if not patterns:
        return answers
    known = dict.fromkeys(name for case in answers.suite.cases.values() for _, name, _ in every_tensor(case))
    _refuse_unmatched("tensor", patterns, known)
    parts = {name: _with_tensors(case, patterns) for name, case in answers.suite.cases.items()}
    return _part(answers, {name: case for name, case in parts.items() if any(every_tensor(case))}, ())


def _decoded(ledger: Ledger, result: Result, data: Mapping[str, Any]) -> Case:
    try:
        report = from_data(_valid(data))
        if isinstance(report, Report) and report.error is not None and result.seconds is not None:
            # Only the run knows how long a case took that did not come to its end.
            report = replace(report, run=run_part(report.run | {"seconds": result.seconds}))
        if isinstance(report, SuiteReport) and not isinstance(report, NetworkReport):
            raise FastcheckError("it is the report of a suite, not of a case")
    except FastcheckError as error:
        raise FastcheckError(f"{shown_path(ledger.path)}, case {shown(result.name)}: {error}") from None
    return report


def _valid(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report whose error is valid Unicode: exceptions tell the names of files as the system has them."""
    error = data.get("error")
    return {**data, "error": error.encode(errors="backslashreplace").decode()} if isinstance(error, str) else {**data}


def _run_part(ledger: Ledger, cases: Mapping[str, Case]) -> dict[str, Any]:
    runs = ledger.runs()
    try:
        facts = run_part(runs[-1].facts if runs else {})
    except FastcheckError as error:
        raise damaged(ledger.path, f"its last run: {error}") from None
    message = [case.run for case in cases.values()]
    seconds = {part: _sum(run.get(part) for run in message) for part in ("seconds", "audit_seconds", "forward_seconds")}
    return {
        "threads": facts.get("threads") or max((run.get("threads") or 0 for run in message), default=0),
        **seconds,
        "peak_bytes": max((run.get("peak_bytes") or 0 for run in message), default=0) or None,
        "target": facts.get("target") or ledger.suite.target,
        "versions": facts.get("versions") or {},
    }


def _sum(parts: Iterable[float | None]) -> float:
    return sum((part or 0.0 for part in parts), start=0.0)


def _matches(name: str, patterns: Collection[str]) -> bool:
    # A name may have brackets, which a pattern would read as a set of letters.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_unmatched(what: str, patterns: Iterable[str], names: Collection[str]) -> None:
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in names):
            raise FastcheckError(f"no {what} is named {pattern!r}{nearest(pattern, names)}")


def _with_tensors(case: Case, patterns: Collection[str]) -> Case:
    if isinstance(case, NetworkReport):
        return replace(case, cases={name: _of_phase(phase, patterns) for name, phase in case.phases.items()})
    return _of_phase(case, patterns)


def _of_phase(report: Report, patterns: Collection[str]) -> Report:
    return replace(report, tensors={name: one for name, one in report.tensors.items() if _matches(name, patterns)})


def _part(answers: Answers, cases: dict[str, Case], waiting: tuple[str, ...]) -> Answers:
    """Return some of the cases; where nobody knows which ones an interrupted run left out, it stays interrupted."""
    interrupted = bool(waiting) if answers.waiting else answers.suite.interrupted
    return Answers(answers.name, replace(answers.suite, cases=cases, interrupted=interrupted), waiting)
