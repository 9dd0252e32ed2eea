"""The report of several cases as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from fastcheck.common.naming import printable
from fastcheck.render.escape import escaped
from fastcheck.render.outline import short_title, width_of, write_lines
from fastcheck.render.page import STYLES, Cell, print_table
from fastcheck.render.report import SUMMARY, summary_row
from fastcheck.reports.layout import short
from fastcheck.reports.notes import audit_outcome
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport, every_tensor, phases_of
from fastcheck.reports.tensor_report import UNKNOWN

_SUITE = (
    *("case", "tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("beyond", "differenced", "audit"),
)
_SUITE_WIDE = 120
"""Width that the table of a suite needs, unless names of cases are long."""


def write_suite(
    suite: SuiteReport,
    out: Console,
    title: str = "",
    listed: Callable[[Report | NetworkReport], bool] = lambda case: True,
) -> None:
    """Print the report of several cases: a line per tensor, why cases did not pass, and the totals of all cases.

    Names and reasons are made printable here. Only the cases accepted by ``listed`` have lines.
    """
    outline = suite.outline()
    write_lines(outline.opening(width_of(out), short_title(title)), out)
    shown = [(printable(name), escaped(case)) for name, case in suite.cases.items() if listed(case)]
    if shown or not suite.cases:
        print_table(out, _SUITE, [row for name, case in shown for row in _case_rows(name, case)], wide=_SUITE_WIDE)
    for name, case in shown:
        if not case.passed:
            out.print(Text(f"{name}: ").append(why(case), style=STYLES[case.verdict]))
    out.print(f"{len(suite.cases):,} cases, {_metrics(suite.cases.values())}")
    write_lines(outline.end(width_of(out)), out)


def case_line(name: str, case: Report | NetworkReport) -> str:
    """Return the line on one finished case of several."""
    operands = next(iter(phases_of(case).values())).operands or {}
    shapes = " * ".join("x".join(map(str, operands[key])) for key in ("input", "weight") if key in operands)
    message = _metrics([case]) if isinstance(case, NetworkReport) else case.error or _metrics([case])
    return f"{case.verdict:<12} {printable(name):<22} {printable(shapes):<32} {printable(message)}\n"


def why(case: Report | NetworkReport) -> str:
    """Return a case's verdict and reasons in one line; for a network, the reasons of the phases that did not pass."""
    if not isinstance(case, NetworkReport) or case.passed:
        return case.summary()
    failed = {name: phase for name, phase in case.phases.items() if not phase.passed}
    message = "; ".join(f"{name}: {reasons(phase) or phase.verdict}" for name, phase in failed.items())
    return f"{case.verdict}: {message}"


def reasons(case: Report) -> str:
    """Return why a report did not pass, without the tensors that did; empty if there is no reason."""
    failed = replace(case, tensors={name: tensor for name, tensor in case.tensors.items() if tensor.verdict != "pass"})
    silent = (
        not failed.tensors and failed.error is None and (failed.forward is None or failed.forward.verdict == "pass")
    )
    return "" if silent else failed.summary().removeprefix(f"{case.verdict}: ")


def bugs(case: Report | NetworkReport) -> list[str]:
    """Return the names of the mistakes recognised in forward passes and gradients."""
    diagnoses = [None if phase.forward is None else phase.forward.diagnosis for phase in phases_of(case).values()]
    diagnoses += [tensor.diagnosis for _, _, tensor in every_tensor(case)]
    known = [one["bug"] for one in diagnoses if one is not None and one.get("bug", UNKNOWN) != UNKNOWN]
    return list(dict.fromkeys(map(str, known)))


def _case_rows(name: str, case: Report | NetworkReport) -> list[tuple[Cell, ...]]:
    whole: dict[str, Cell] = {"case": name, "verdict": Text(case.verdict, style=STYLES[case.verdict])}
    rows: list[dict[str, Cell]] = [
        dict(zip(SUMMARY, summary_row(tensor_name, tensor), strict=True))
        | {"case": name, "audit": audit_outcome([tensor])}
        for tensor_name, tensor in case.tensors.items()
    ]
    return [tuple(row.get(heading) or "-" for heading in _SUITE) for row in rows or [whole]]


def _metrics(cases: Collection[Report | NetworkReport]) -> str:
    """Return the totals of these cases: dimensions, speed, the worst ratios and the outcome of the audits."""
    tensors = [tensor for case in cases for _, _, tensor in every_tensor(case)]
    checked = sum(tensor.dims_checked for tensor in tensors)
    seconds = sum(case.run.get("seconds") or 0.0 for case in cases)
    parts = [f"{checked:,} dimensions in {seconds:.2f} s"]
    if seconds:
        parts.append(f"{checked / seconds:,.0f}/s")
    if tensors:
        parts.append(f"norm ratio {short(_worst([tensor.norm_ratio for tensor in tensors]))}")
        parts.append(f"max ratio resolved {short(_worst([tensor.max_ratio_resolved for tensor in tensors]))}")
    if audit := audit_outcome(tensors):
        parts.append(f"audit {audit}")
    return ", ".join(parts)


def _worst(ratios: list[float]) -> float:
    return max(ratios, key=lambda ratio: math.inf if math.isnan(ratio) else ratio)
