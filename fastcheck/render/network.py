"""Reports of whole networks as long text: a table per phase, the worst dimensions, hygiene and explanations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.render.outline import More, nothing, short_title, width_of, write_lines
from fastcheck.render.page import STYLES, Cell, digits, print_table
from fastcheck.render.report import SHOWN, failing_first, rules, write_forward, write_worst
from fastcheck.reports.layout import short
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import Explanation, HygieneLine, NetworkReport
from fastcheck.reports.tensor_report import TensorReport

_TENSORS = (
    *("tensor", "verdict", "checked", "digits\nmin", "digits\nmedian", "kinks", "norm\nratio", "max\nratio"),
    *("resolved\nmax", "signs", "unresolved", "beyond", "h"),
)
_CROSSINGS = ("layer", "kind", "unit", "at -h", "at the point", "at +h")

_WINNERS_SHOWN = 2
"""Largest number of a window's largest entries whose positions are printed."""

_STATUS = {"done": "green", "note": "cyan", "warn": "bold yellow"}

_NARROW = 70
"""In fewer columns, the panel's texts stand below their topics instead of beside them."""


def write_network(report: NetworkReport, out: Console, title: str = "", more: More = nothing) -> None:
    """Print all of a network's report: verdict, declared loss, phases, hygiene, explanations and what to try next."""
    outline = report.outline()
    write_lines(outline.opening(width_of(out), short_title(title)), out)
    write_forward(report.forward, out, "loss")
    for name, phase in report.phases.items():
        _write_phase(name, phase, out)
    if audit := _audit(report):
        out.print(audit)
    for name, tensor in _noteworthy(report):
        write_worst(name, tensor, out)
        if tensor.regime:
            out.print(f"{name}: {tensor.regime}")
    _write_hygiene(report.hygiene, out)
    if report.explanations:
        out.print(Text("\nWhy the worst dimensions agree as they do", style="bold"))
    for explanation in report.explanations:
        _write_explanation(explanation, out)
    out.print()
    shown = {explanation.words for explanation in report.explanations}
    notes = [note for note in outline.notes if note not in shown]
    write_lines(replace(outline, notes=tuple(notes)).sentences(width_of(out)), out)
    more(out)
    write_lines(outline.end(width_of(out)), out)


def _write_phase(name: str, phase: Report, out: Console) -> None:
    if phase.tensors:
        out.print(Text(f"\n{name}", style="bold"))
        tensors = failing_first(phase.tensors)
        print_table(out, _TENSORS, [_cells(tensor, entry) for tensor, entry in tensors.items()], wide=0)
        out.print(rules(phase.tensors))


def _cells(name: str, tensor: TensorReport) -> tuple[Cell, ...]:
    return (
        name,
        Text(tensor.verdict, style=STYLES[tensor.verdict]),
        f"{tensor.dims_checked:,} of {tensor.dims_total:,}",
        digits(tensor.digits["min"]),
        digits(tensor.digits["median"]),
        f"{tensor.kinks:,}",
        short(tensor.norm_ratio),
        short(tensor.max_ratio),
        short(tensor.max_ratio_resolved),
        f"{tensor.sign_mismatches:,}",
        f"{tensor.unresolved:,}",
        f"{tensor.beyond_error_bar:,}",
        "-" if tensor.step is None else f"{tensor.step:.3g}",
    )


def _every(report: NetworkReport) -> Iterator[tuple[str, str, TensorReport]]:
    """Yield name, label and report of the tensors of all phases; the label has the phase if there are several."""
    for phase, case in report.phases.items():
        for name, tensor in case.tensors.items():
            yield name, f"{name} ({phase})" if len(report.phases) > 1 else name, tensor


def _audit(report: NetworkReport) -> str:
    """Return the outcome of all audits in one line; empty if there was none."""
    audited = [(name, label, tensor) for name, label, tensor in _every(report) if tensor.audit.get("dims")]
    if not audited:
        return ""
    names = {name for name, _, _ in audited}
    dims = sum(tensor.audit["dims"] for _, _, tensor in audited)
    wrong = {label: tensor.audit["disagreements"] for _, label, tensor in audited if tensor.audit["disagreements"]}
    ended = f"{sum(wrong.values()):,} disagree ({', '.join(wrong)})" if wrong else "all agree"
    phases = " in both phases" if len(audited) > len(names) else ""
    return (
        f"audit: {dims:,} dimensions of {len(names)} tensor{'s' * (len(names) > 1)}{phases} re-evaluated by whole "
        f"forward passes, and one direction over all dimensions of each: {ended}"
    )


def _noteworthy(report: NetworkReport) -> list[tuple[str, TensorReport]]:
    """Return each tensor that did not pass, in the first such phase; if all passed, the one with the fewest digits."""
    failed: dict[str, tuple[str, TensorReport]] = {}
    for name, label, tensor in _every(report):
        if tensor.verdict != "pass":
            failed.setdefault(name, (label, tensor))
    resolved = [(name, tensor) for name, tensor in report.tensors.items() if tensor.digits["min"] is not None]
    return list(failed.values()) or sorted(resolved, key=lambda entry: float(entry[1].digits["min"]))[:1]


def _write_hygiene(lines: tuple[HygieneLine, ...], out: Console) -> None:
    """Print the panel, with the texts beside their topics if there is room."""
    if not lines:
        return
    out.print(Text("\nhygiene", style="bold"))
    if out.width < _NARROW:
        for line in lines:
            out.print(Text(f"{line.topic}: ").append(line.status, style=_STATUS[line.status]).append(f". {line.text}"))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(Text(line.topic), Text(line.status, style=_STATUS[line.status]), Text(line.text))
    out.print(grid)


def _write_explanation(explanation: Explanation, out: Console) -> None:
    crossings = explanation.crossings
    out.print(Text(explanation.words))
    if crossings:
        print_table(out, _CROSSINGS, [_crossing(one) for one in crossings[:SHOWN]], wide=0)
    if len(crossings) > SHOWN:
        out.print(f"and {len(crossings) - SHOWN:,} more")


def _crossing(one: dict[str, Any]) -> tuple[Cell, ...]:
    return one["layer"], one["kind"], _unit(one), *(_side(one[side]) for side in ("minus", "at", "plus"))


def _unit(one: dict[str, Any]) -> str:
    point, second, *position = one["unit"]
    if one["kind"] == "hinge":
        return f"data point {point}, class {second}"
    return f"data point {point}, channel {second}{f', position {tuple(position)}' if position else ''}"


def _side(value: Any) -> str:
    """Return the deciding value on one side of a kink: a number, or the positions of a window's largest entries."""
    if isinstance(value, (list, tuple)):
        winners = " and ".join(str(tuple(position)) for position in value[:_WINNERS_SHOWN])
        return f"{winners} and more" if len(value) > _WINNERS_SHOWN else winners
    return f"{value:.2g}"
