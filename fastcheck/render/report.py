"""The report of one case as long text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from fastcheck.metrics.verdict import MAX_RULE, norm_rule
from fastcheck.render.outline import More, nothing, short_title, width_of, write_lines
from fastcheck.render.page import STYLES, Cell, digits, print_table
from fastcheck.reports.layout import short
from fastcheck.reports.notes import audit_outcome
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import Entry, ForwardReport, TensorReport

WIDEST = "float64"
"""The precision whose rules of thumb apply if a tensor has none of its own."""

SHOWN = 5
"""Number of worst dimensions printed for a tensor."""


def write_report(report: Report, out: Console, title: str = "", more: More = nothing) -> None:
    """Print all of a report: the verdict, a line per tensor, its regime, audit and worst dimensions, and advice."""
    outline = report.outline()
    write_lines(outline.opening(width_of(out), short_title(title)), out)
    write_forward(report.forward, out)
    tensors = failing_first(report.tensors)
    if tensors:
        print_table(out, SUMMARY, [summary_row(name, tensor) for name, tensor in tensors.items()])
        out.print(rules(tensors))
        for line in (*_reasons(tensors), *_regimes(tensors), *_audits(tensors), *_kinks(tensors)):
            out.print(line)
    for name, tensor in tensors.items():
        write_worst(name, tensor, out)
    _write_along(report, out)
    out.print()
    write_lines(outline.sentences(width_of(out)), out)
    more(out)
    write_lines(outline.end(width_of(out)), out)


def failing_first(tensors: Mapping[str, TensorReport]) -> dict[str, TensorReport]:
    """Return the tensors with those that did not pass first."""
    return dict(sorted(tensors.items(), key=lambda entry: entry[1].verdict == "pass"))


def write_forward(forward: ForwardReport | None, out: Console, declared: str = "output") -> None:
    """Print how the declared result of the forward pass compares with the computed one."""
    if forward is None:
        return
    line = Text("forward: ").append(forward.verdict, style=STYLES[forward.verdict])
    out.print(line.append(f", norm ratio {short(forward.norm_ratio)} against the declared {declared}"))


def write_worst(name: str, tensor: TensorReport, out: Console) -> None:
    """Print a tensor's worst dimensions."""
    if tensor.worst:
        by = "difference / error bar" if tensor.evaluator else "difference"
        rows = [_cells(entry) for entry in tensor.worst[:SHOWN]]
        print_table(out, _ENTRY, rows, f"\n{name}: worst by {by}")


def _write_along(report: Report, out: Console) -> None:
    """Print the directions of a report that has them one by one."""
    rows = [] if report.directions is None else report.directions.get("along", [])
    if rows:
        print_table(out, _ALONG, [_along_row(row, len(report.tensors)) for row in rows], "\nalong every direction:")


def _along_row(row: Mapping[str, Any], tensors: int) -> tuple[Cell, ...]:
    moved = "all" if len(row["tensors"]) == tensors else ", ".join(row["tensors"])
    return (
        moved,
        Text(row["verdict"], style=STYLES[row["verdict"]]),
        f"{row['analytic']:.12g}",
        f"{row['numeric']:.12g}",
        f"{row['analytic'] - row['numeric']:.2e}",
        short(row["error_bar"]),
        f"{row['step']:g}",
    )


SUMMARY = (
    *("tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("digits", "signs", "unresolved", "beyond", "differenced"),
)
_ALONG = ("moved", "verdict", "analytic", "numeric", "difference", "error bar", "h")
_ENTRY = ("index", "verdict", "analytic", "numeric", "difference", "same sign", "ratio", "error bar")


def summary_row(name: str, tensor: TensorReport) -> tuple[Cell, ...]:
    known = tensor.evaluator is not None
    return (
        name,
        Text(tensor.verdict, style=STYLES[tensor.verdict]),
        f"{tensor.dims_checked:,} of {tensor.dims_total:,}",
        short(tensor.norm_ratio),
        short(tensor.max_ratio),
        short(tensor.max_ratio_resolved),
        f"{digits(tensor.digits['min'])} - {digits(tensor.digits['median'])}",
        f"{tensor.sign_mismatches:,}",
        f"{tensor.unresolved:,}",
        f"{tensor.beyond_error_bar:,}" if known else "-",
        f"{tensor.evaluator} h={tensor.step:g}" if known else "-",
    )


def rules(tensors: Mapping[str, TensorReport]) -> str:
    """Return a line on which tensors exceed the rules of thumb."""
    norms = []
    for precision in sorted({tensor.precision or WIDEST for tensor in tensors.values()}, key=norm_rule):
        rule, of_type = norm_rule(precision), f" of {precision}" if precision != WIDEST else ""
        judged = {name: tensor for name, tensor in tensors.items() if (tensor.precision or WIDEST) == precision}
        exceeding = _exceeding(tensors, [name for name, tensor in judged.items() if not tensor.norm_ratio <= rule])
        norms.append(f"norm ratio{of_type} at most {rule:.2g} {exceeding}")
    largest = _exceeding(tensors, [name for name, tensor in tensors.items() if not tensor.max_ratio < MAX_RULE])
    return f"rules of thumb: {'; '.join(norms)}; max ratio below {MAX_RULE:g} {largest}"


def _reasons(tensors: Mapping[str, TensorReport]) -> Iterator[str]:
    """Yield each tensor's verdict in words."""
    for name, tensor in tensors.items():
        where = "" if tensor.first_beyond is None else f", first at {list(tensor.first_beyond)}"
        yield f"{name}: {tensor.reason}{where}"


def _regimes(tensors: Mapping[str, TensorReport]) -> Iterator[str]:
    """Yield the source of each tensor's ratios, if it is known."""
    for name, tensor in tensors.items():
        if tensor.regime:
            yield f"{name}: {tensor.regime}"


def _audits(tensors: Mapping[str, TensorReport]) -> Iterator[str]:
    """Yield the outcome of each audit of a shortcut."""
    for name, tensor in tensors.items():
        direction = tensor.audit.get("direction")
        if isinstance(direction, dict) and tensor.audit["dims"]:
            evaluator = "whole forward passes" if tensor.evaluator == "network" else "local"
            yield (
                f"audit of {name}: {tensor.audit['dims']:,} dimensions re-evaluated by {evaluator}, and one direction "
                f"over all {tensor.dims_checked:,} by full (difference {short(abs(direction['difference']))}, "
                f"error bar {short(direction['error_bar'])}): {audit_outcome([tensor])}"
            )


def _kinks(tensors: Mapping[str, TensorReport]) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.kinks:
            treatment = f"{tensor.excluded:,} left out" if tensor.excluded else "their error bars are wider"
            yield f"kinks: {tensor.kinks:,} dimensions of {name} cross a kink between -h and +h; {treatment}"


def _exceeding(tensors: Mapping[str, TensorReport], names: list[str]) -> str:
    """Return which tensors exceed a rule of thumb; those that pass do so within their error bars."""
    if not names:
        return "(met)"
    passing = all(tensors[name].passed for name in names)
    return f"(exceeded by {', '.join(names)}{', within error bars' * passing})"


def _cells(entry: Entry) -> tuple[Cell, ...]:
    verdict = Text("-") if entry.verdict is None else Text(entry.verdict, style=STYLES[entry.verdict])
    return (
        str(list(entry.index)),
        verdict,
        f"{entry.analytic:.12g}",
        f"{entry.numeric:.12g}",
        f"{entry.difference:.2e}",
        "yes" if entry.same_sign else "NO",
        short(entry.ratio),
        "-" if entry.error_bar is None else short(entry.error_bar),
    )
