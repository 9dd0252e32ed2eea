"""The report of one case as text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from fastcheck.metrics.verdict import MAX_RULE, norm_rule
from fastcheck.render.page import STYLES, Cell, digits, print_table, short
from fastcheck.reports.report import Entry, ForwardReport, Report, TensorReport

WIDEST = "float64"
"""The precision whose rules of thumb apply if a tensor has none of its own."""

SHOWN = 5
"""Number of worst dimensions printed for a tensor."""

INTERRUPTED = "interrupted: only the dimensions reached are counted"


def write_report(report: Report, out: Console, title: str = "") -> None:
    """Print a report: forward check, a line per tensor, the worst dimensions, the verdict and what to try next."""
    if title:
        out.print(Text(title, style="bold"))
    write_forward(report.forward, out)
    if report.tensors:
        print_table(out, SUMMARY, [summary_row(name, tensor) for name, tensor in report.tensors.items()])
        out.print(rules(report.tensors))
        for line in (*_regimes(report), *_audits(report), *_kinks(report)):
            out.print(line)
    for name, tensor in report.tensors.items():
        write_worst(name, tensor, out)
    for finding in report.health:
        if finding.verdict is None:  # a finding with a verdict appears as the reason of the verdict below
            out.print(f"{finding.name}: {finding.words}" + f"; {finding.advice}" * bool(finding.advice))
    out.print(_verdict(report))


def write_forward(forward: ForwardReport | None, out: Console, declared: str = "output") -> None:
    """Print how the declared result of the forward pass compares with the computed one."""
    if forward is None:
        return
    line = Text("forward: ").append(forward.verdict, style=STYLES[forward.verdict])
    out.print(line.append(f", norm ratio {short(forward.norm_ratio)} against the declared {declared}"))
    if forward.diagnosis is not None:
        out.print(f"  {forward.diagnosis['bug']}: {forward.diagnosis['evidence']}")
        out.print(f"  try: {forward.diagnosis['try']}")
        out.print("  The forward pass is not the declared one, so no gradient was judged.")


def write_worst(name: str, tensor: TensorReport, out: Console) -> None:
    """Print a tensor's worst dimensions, and the sweeps at them."""
    if tensor.worst:
        by = "difference / error bar" if tensor.evaluator else "difference"
        rows = [_cells(entry) for entry in tensor.worst[:SHOWN]]
        print_table(out, _ENTRY, rows, f"\n{name}: worst by {by}")
    for swept in tensor.sweep:
        out.print(f"sweep of {name} {list(swept['index'])}: {swept['reading']}. {swept['words']}")


SUMMARY = (
    *("tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("digits", "signs", "unresolved", "beyond", "differenced"),
)
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
    """Return a line on which tensors break the rules of thumb."""
    norms = []
    for precision in sorted({tensor.precision or WIDEST for tensor in tensors.values()}, key=norm_rule):
        rule, of_type = norm_rule(precision), f" of {precision}" if precision != WIDEST else ""
        judged = {name: tensor for name, tensor in tensors.items() if (tensor.precision or WIDEST) == precision}
        broken = _broken([name for name, tensor in judged.items() if not tensor.norm_ratio <= rule])
        norms.append(f"norm ratio{of_type} at most {rule:.2g} {broken}")
    largest = _broken([name for name, tensor in tensors.items() if not tensor.max_ratio < MAX_RULE])
    return f"rules of thumb: {'; '.join(norms)}; max ratio below {MAX_RULE:g} {largest}"


def _regimes(report: Report) -> Iterator[str]:
    """Yield the source of each tensor's ratios, if it is known."""
    for name, tensor in report.tensors.items():
        if tensor.regime:
            yield f"{name}: {tensor.regime}"


def _audits(report: Report) -> Iterator[str]:
    """Yield the outcome of each audit of a shortcut."""
    for name, tensor in report.tensors.items():
        direction = tensor.audit.get("direction")
        if isinstance(direction, dict) and tensor.audit["dims"]:
            evaluator = "whole forward passes" if tensor.evaluator == "network" else "local"
            yield (
                f"audit of {name}: {tensor.audit['dims']:,} dimensions re-evaluated by {evaluator}, and one direction "
                f"over all {tensor.dims_checked:,} by full (difference {short(abs(direction['difference']))}, "
                f"error bar {short(direction['error_bar'])}): {audit_outcome([tensor])}"
            )


def _kinks(report: Report) -> Iterator[str]:
    for name, tensor in report.tensors.items():
        if tensor.kinks:
            treatment = f"{tensor.excluded:,} left out" if tensor.excluded else "their error bars are wider"
            yield f"kinks: {tensor.kinks:,} dimensions of {name} cross a kink between -h and +h; {treatment}"


def _broken(names: list[str]) -> str:
    return f"(broken by {', '.join(names)})" if names else "(met)"


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


def _verdict(report: Report) -> Text:
    text = Text()
    if report.interrupted:
        text.append(f"{INTERRUPTED}\n", style="yellow")
    text.append(report.verdict.upper(), style=STYLES[report.verdict])
    text.append(report.summary().removeprefix(report.verdict))
    for name, tensor in report.tensors.items():
        if tensor.advice:
            text.append(f"\ntry ({name}): {tensor.advice}")
    return text.append(speed(report.tensors.values(), report.run), style="dim")


def speed(tensors: Collection[TensorReport], run: dict[str, Any]) -> str:
    """Return a line on how fast these tensors were differenced; empty if that is unknown, or none was."""
    seconds = run.get("seconds")
    differenced = [tensor for tensor in tensors if tensor.evaluator is not None]
    if not seconds or not differenced:
        return ""
    checked = sum(tensor.dims_checked for tensor in differenced)
    return (
        f"\n{checked:,} dimensions in {seconds:.2f} s on {run['threads']} threads, "
        f"{checked / seconds:,.0f} two-sided differences per second"
    )


def audit_outcome(tensors: Collection[TensorReport]) -> str:
    """Return the outcome of the audits of these tensors; empty if there was none."""
    dims = sum(tensor.audit.get("dims", 0) for tensor in tensors)
    wrong = sum(tensor.audit.get("disagreements", 0) for tensor in tensors)
    return "" if not dims else f"{wrong:,} of {dims:,} disagree" if wrong else f"{dims:,} agree"
