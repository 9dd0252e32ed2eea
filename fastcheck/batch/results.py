"""Results of a batch run: the ledger's cases as a suite's report, and selections from it."""

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
"""Every state of a case, finished or not."""


@dataclass(frozen=True)
class SuiteResults:
    """Results of a suite so far.

    Attributes
    ----------
    name : str
        The suite's name.
    suite : SuiteReport
        The finished cases, in the suite's order; marked as interrupted if others are waiting.
    waiting : tuple of str
        Names of the cases that are not finished.
    """

    name: str
    suite: SuiteReport
    waiting: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all cases, finished ones first."""
        return (*self.suite.cases, *self.waiting)


def read_results(folder: Path) -> SuiteResults:
    """Read the results from the ledger in a folder, even while a run is writing it.

    Raises
    ------
    FastcheckError
        If there is no ledger, or it is damaged or newer.
    """
    with Ledger.read(folder) as ledger:
        return from_ledger(ledger)


def from_ledger(ledger: Ledger) -> SuiteResults:
    """Return the results in an open ledger.

    The report's ``run`` has the threads, target and versions of the last run. Its seconds are the sum over all cases,
    its ``peak_bytes`` the largest.
    """
    cases: dict[str, Case] = {}
    waiting = []
    for result in ledger.results():
        if result.report is None:
            waiting.append(result.name)
        else:
            cases[result.name] = _decoded(ledger, result, result.report)
    return SuiteResults(ledger.suite.name, SuiteReport(cases, bool(waiting), _run_part(ledger, cases)), tuple(waiting))


def from_report(report: Report | SuiteReport, name: str) -> SuiteResults:
    """Return a report as results: a suite's report gives its cases, any other a single case of this name."""
    if isinstance(report, SuiteReport) and not isinstance(report, NetworkReport):
        return SuiteResults(name, report)
    return SuiteResults(name, SuiteReport({name: report}, report.interrupted, report.run))


def select_cases(results: SuiteResults, patterns: Collection[str]) -> SuiteResults:
    """Return the cases whose name equals a pattern or matches it as in `fnmatch`; all cases if there is no pattern.

    Raises
    ------
    FastcheckError
        If a pattern matches no case.
    """
    if not patterns:
        return results
    _refuse_unmatched("case", patterns, results.names)
    cases = {name: case for name, case in results.suite.cases.items() if _matches(name, patterns)}
    return _part(results, cases, tuple(name for name in results.waiting if _matches(name, patterns)))


def select_verdicts(results: SuiteResults, verdicts: Collection[str]) -> SuiteResults:
    """Return the cases with one of these verdicts, "waiting" included; all cases if no verdict is given.

    Raises
    ------
    FastcheckError
        If there is no such verdict.
    """
    if not verdicts:
        return results
    for verdict in verdicts:
        refuse_unknown("a verdict", verdict, VERDICTS)
    cases = {name: case for name, case in results.suite.cases.items() if case.verdict in verdicts}
    return _part(results, cases, results.waiting if WAITING in verdicts else ())


def select_tensors(results: SuiteResults, patterns: Collection[str]) -> SuiteResults:
    """Return the cases that have matching tensors, with only these tensors; everything if there is no pattern.

    A case keeps the verdict that all its tensors gave it.

    Raises
    ------
    FastcheckError
        If a pattern matches no tensor.
    """
    if not patterns:
        return results
    known = dict.fromkeys(name for case in results.suite.cases.values() for _, name, _ in every_tensor(case))
    _refuse_unmatched("tensor", patterns, known)
    cases = {name: _with_tensors(case, patterns) for name, case in results.suite.cases.items()}
    return _part(results, {name: case for name, case in cases.items() if any(every_tensor(case))}, ())


def _decoded(ledger: Ledger, result: Result, data: Mapping[str, Any]) -> Case:
    try:
        report = from_data(_valid(data))
        if isinstance(report, Report) and report.error is not None and result.seconds is not None:
            # The report of a case that crashed has no duration; only the run measured it.
            report = replace(report, run=run_part(report.run | {"seconds": result.seconds}))
        if isinstance(report, SuiteReport) and not isinstance(report, NetworkReport):
            raise FastcheckError("this is the report of a suite, not of a case")
    except FastcheckError as error:
        raise FastcheckError(f"{shown_path(ledger.path)}, case {shown(result.name)}: {error}") from None
    return report


def _valid(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report whose error is valid Unicode; exceptions quote file names in the bytes of the file system."""
    error = data.get("error")
    return {**data, "error": error.encode(errors="backslashreplace").decode()} if isinstance(error, str) else {**data}


def _run_part(ledger: Ledger, cases: Mapping[str, Case]) -> dict[str, Any]:
    runs = ledger.runs()
    try:
        facts = run_part(runs[-1].facts if runs else {})
    except FastcheckError as error:
        raise damaged(ledger.path, f"its last run: {error}") from None
    parts = [case.run for case in cases.values()]
    seconds = {key: _sum(part.get(key) for part in parts) for key in ("seconds", "audit_seconds", "forward_seconds")}
    return {
        "threads": facts.get("threads") or max((part.get("threads") or 0 for part in parts), default=0),
        **seconds,
        "peak_bytes": max((part.get("peak_bytes") or 0 for part in parts), default=0) or None,
        "target": facts.get("target") or ledger.suite.target,
        "versions": facts.get("versions") or {},
    }


def _sum(values: Iterable[float | None]) -> float:
    return sum((value or 0.0 for value in values), start=0.0)


def _matches(name: str, patterns: Collection[str]) -> bool:
    # A name may contain brackets, which a pattern would read as a set of characters.
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


def _part(results: SuiteResults, cases: dict[str, Case], waiting: tuple[str, ...]) -> SuiteResults:
    """Return some of the cases; if nobody knows which cases an interrupted run left out, they stay interrupted."""
    interrupted = bool(waiting) if results.waiting else results.suite.interrupted
    return SuiteResults(results.name, replace(results.suite, cases=cases, interrupted=interrupted), waiting)
