"""Reports as text."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.common.naming import printable
from fastcheck.metrics.verdict import MAX_RULE, Verdict, norm_rule
from fastcheck.render.escape import harmless
from fastcheck.reports.network_report import NetworkReport, every_tensor, phases_of
from fastcheck.reports.report import Entry, ForwardReport, Report, TensorReport
from fastcheck.reports.suite_report import SuiteReport

STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "error": "magenta"}

_WIDTH = 132
"""Columns of text that does not go to a terminal."""

_WIDE = 126
"""Columns that the tables need."""

WIDEST = "float64"
"""The precision that rules of thumb are for where arrays have none of their own."""

SHOWN = 5
"""Worst dimensions shown for a tensor."""

INTERRUPTED = "interrupted: the counts are those of the dimensions reached"

Gap = tuple[int, bool]
_GAPS: tuple[Gap, ...] = ((1, False), (1, True), (0, False))
"""Padding at the sides of cells, and whether neighbours share it: three, two or one columns between entries."""

_UNLIMITED = 10_000
"""Columns in which every table fits."""


def console(stream: IO[str]) -> Console:
    """Make a console on a stream: as wide as the terminal, or of a fixed width where there is none."""
    return Console(file=stream, **_options(stream))


def _options(stream: IO[str]) -> dict[str, Any]:
    width = None if stream.isatty() else _WIDTH
    return {"width": width, "highlight": False, "markup": False, "emoji": False}


class _Page(io.StringIO):
    """Text in memory for a stream of some encoding, which decides how tables are drawn."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def as_text(report: Report | SuiteReport, stream: IO[str], title: str = "") -> str:
    """Return a report as the text that suits a stream: coloured and of its width on a terminal, plain elsewhere.

    Rich itself ends the process where a reader stops reading, so that nothing is printed from here.
    """

    from fastcheck.render.network import write_network  # which uses what is here

    def write(out: Console) -> None:
        if isinstance(report, NetworkReport):
            write_network(harmless(report), out, _title(title))
        elif isinstance(report, SuiteReport):
            write_suite(report, out, title)
        else:
            write_report(harmless(report), out, _title(title))

    return text_for(stream, write)


def _title(title: str) -> str:
    """Return a title that can be printed, the empty lines before it kept."""
    words = title.lstrip("\n")
    return title[: len(title) - len(words)] + printable(words)


def text_for(stream: IO[str], write: Callable[[Console], None]) -> str:
    """Return what ``write`` prints, as text that suits a stream."""
    page = _Page(getattr(stream, "encoding", None) or "utf-8")
    write(Console(file=page, force_terminal=stream.isatty(), **_options(stream)))
    return page.getvalue()


def write_report(report: Report, out: Console, title: str = "") -> None:
    """Print a report: forward, a line a tensor, the worst dimensions, the verdict and what to try next."""
    if title:
        out.print(Text(title, style="bold"))
    write_forward(report.forward, out)
    if report.tensors:
        print_table(out, _SUMMARY, [_summary(name, tensor) for name, tensor in report.tensors.items()])
        out.print(rules(report.tensors))
        for line in (*_regimes(report), *_audits(report), *_kinks(report)):
            out.print(line)
    for name, tensor in report.tensors.items():
        write_worst(name, tensor, out)
    for finding in report.health:
        if finding.verdict is None:  # others are the reason of the verdict
            out.print(f"{finding.name}: {finding.words}" + f"; {finding.advice}" * bool(finding.advice))
    out.print(_verdict(report))


def write_forward(forward: ForwardReport | None, out: Console, declared: str = "output") -> None:
    """Print how what the case declares of its forward pass compares with what is computed."""
    if forward is None:
        return
    line = Text("forward: ").append(forward.verdict, style=STYLES[forward.verdict])
    out.print(line.append(f", norm ratio {short(forward.norm_ratio)} against the declared {declared}"))
    if forward.diagnosis is not None:
        out.print(f"  {forward.diagnosis['bug']}: {forward.diagnosis['evidence']}")
        out.print(f"  try: {forward.diagnosis['try']}")
        out.print("  The forward pass itself is another one, so no gradient was judged.")


def write_worst(name: str, tensor: TensorReport, out: Console) -> None:
    """Print a tensor's worst dimensions, and the sweeps there."""
    if tensor.worst:
        by = "difference / error bar" if tensor.evaluator else "difference"
        rows = [_cells(entry) for entry in tensor.worst[:SHOWN]]
        print_table(out, _ENTRY, rows, f"\n{name}: worst by {by}")
    for swept in tensor.sweep:
        out.print(f"sweep of {name} {list(swept['index'])}: {swept['reading']}. {swept['words']}")


Cell = str | Text
_SUMMARY = (
    *("tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("digits", "signs", "unresolved", "beyond", "differenced"),
)
_ENTRY = ("index", "verdict", "analytic", "numeric", "difference", "same sign", "ratio", "error bar")


def print_table(
    out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]], title: str = "", wide: int = _WIDE
) -> None:
    """Print a table, turned on its side where the terminal is too narrow for its columns.

    Columns are as far apart as fits, and where there is no terminal a table may be wider than others.
    """
    if title:
        out.print(title)
    room = out.width if out.is_terminal else _WIDE
    for gap in _GAPS:
        table = _table(headings, rows, gap)
        table.width = needed = _width(table, out)
        if needed <= room:
            break
    if out.width >= max(wide, needed) or not out.is_terminal:
        out.print(table, crop=False)
    else:
        _print_turned(out, tuple(heading.replace("\n", " ") for heading in headings), rows)


def _print_turned(out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> None:
    """Print rows as columns, as many beside each other as fit; a single one that does not is folded."""
    while rows:
        count = max(1, min(len(rows), (out.width - 12) // 18))
        while count > 1 and _width(_turned(headings, rows[:count]), out) > out.width:
            count -= 1
        table = _turned(headings, rows[:count])
        out.print(table if _width(table, out) <= out.width else _turned(headings, rows[:count], _GAPS[-1], fold=True))
        rows = rows[count:]


def _turned(headings: tuple[str, ...], rows: list[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False) -> Table:
    names, *lines = zip(headings, *rows, strict=True)
    return _table(names, lines, gap, fold)


def _width(table: Table, out: Console) -> int:
    """Return how many columns of text a table takes where it may."""
    return out.measure(table, options=out.options.update(max_width=_UNLIMITED)).maximum


def _table(
    headings: Sequence[Cell], rows: Sequence[tuple[Cell, ...]], gap: Gap = _GAPS[0], fold: bool = False
) -> Table:
    """Make a table whose first column is words and the others numbers."""
    padding, shared = gap
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding), collapse_padding=shared)
    for place, heading in enumerate(headings):
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(heading, justify=side, vertical="bottom", no_wrap=not fold, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _summary(name: str, tensor: TensorReport) -> tuple[Cell, ...]:
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
    """Tell which tensors break the rules of thumb."""
    norms = []
    for precision in sorted({tensor.precision or WIDEST for tensor in tensors.values()}, key=norm_rule):
        rule, of_type = norm_rule(precision), f" of {precision}" if precision != WIDEST else ""
        judged = {name: tensor for name, tensor in tensors.items() if (tensor.precision or WIDEST) == precision}
        broken = _broken([name for name, tensor in judged.items() if not tensor.norm_ratio <= rule])
        norms.append(f"norm ratio{of_type} at most {rule:.2g} {broken}")
    largest = _broken([name for name, tensor in tensors.items() if not tensor.max_ratio < MAX_RULE])
    return f"rules of thumb: {'; '.join(norms)}; max ratio below {MAX_RULE:g} {largest}"


def _regimes(report: Report) -> Iterator[str]:
    """Tell what the ratios of the tensors come from."""
    for name, tensor in report.tensors.items():
        if tensor.regime:
            yield f"{name}: {tensor.regime}"


def _audits(report: Report) -> Iterator[str]:
    """Tell how the audits of a shortcut ended."""
    for name, tensor in report.tensors.items():
        direction = tensor.audit.get("direction")
        if isinstance(direction, dict) and tensor.audit["dims"]:
            again = "whole forward passes" if tensor.evaluator == "network" else "local"
            yield (
                f"audit of {name}: {tensor.audit['dims']:,} dimensions again by {again}, and one direction over "
                f"all {tensor.dims_checked:,} by full (apart by {short(abs(direction['difference']))}, "
                f"error bar {short(direction['error_bar'])}): {_audit([tensor])}"
            )


def _kinks(report: Report) -> Iterator[str]:
    for name, tensor in report.tensors.items():
        if tensor.kinks:
            what = f"{tensor.excluded:,} left out" if tensor.excluded else "their error bars are wider"
            yield f"kinks: {tensor.kinks:,} dimensions of {name} cross one between -h and +h; {what}"


def _broken(names: list[str]) -> str:
    return f"(broken by {', '.join(names)})" if names else "(kept)"


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
    """Return a line on how fast these tensors were differenced; nothing where that is not known, or none was."""
    seconds = run.get("seconds")
    differenced = [tensor for tensor in tensors if tensor.evaluator is not None]
    if not seconds or not differenced:
        return ""
    checked = sum(tensor.dims_checked for tensor in differenced)
    return (
        f"\n{checked:,} dimensions in {seconds:.2f} s on {run['threads']} threads, "
        f"{checked / seconds:,.0f} two-sided differences a second"
    )


_SUITE = (
    *("case", "tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("beyond", "differenced", "audit"),
)
_SUITE_WIDE = 120
"""Columns that the table of a suite needs, longer names of cases aside."""


def write_suite(
    suite: SuiteReport,
    out: Console,
    title: str = "",
    listed: Callable[[Report | NetworkReport], bool] = lambda case: True,
) -> None:
    """Print the report of several cases: a line a tensor, why cases did not pass, and the totals of all.

    Names and reasons are made printable here. Cases that ``listed`` leaves out have no lines.
    """
    if title:
        out.print(Text(_title(title), style="bold"))
    shown = [(printable(name), harmless(case)) for name, case in suite.cases.items() if listed(case)]
    if shown or not suite.cases:
        print_table(out, _SUITE, [row for name, case in shown for row in _case_rows(name, case)], wide=_SUITE_WIDE)
    for name, case in shown:
        if not case.passed:
            out.print(Text(f"{name}: ").append(why(case), style=STYLES[case.verdict]))
    if suite.interrupted:
        out.print(Text("interrupted: the counts are those of the cases and dimensions reached", style="yellow"))
    verdict = Text(suite.verdict.upper(), style=STYLES[suite.verdict])
    out.print(verdict.append(f": {len(suite.cases):,} cases, {_metrics(suite.cases.values())}"))


def case_line(name: str, case: Report | NetworkReport) -> str:
    """Return the line that tells of one finished case of several."""
    operands = next(iter(phases_of(case).values())).operands or {}
    shapes = " * ".join("x".join(map(str, operands[key])) for key in ("input", "weight") if key in operands)
    message = _metrics([case]) if isinstance(case, NetworkReport) else case.error or _metrics([case])
    return f"{case.verdict:<12} {printable(name):<22} {printable(shapes):<32} {printable(message)}\n"


def why(case: Report | NetworkReport) -> str:
    """Return the verdict of a case and its reasons in one line; of a network those of the phases that did not pass."""
    if not isinstance(case, NetworkReport) or case.passed:
        return case.summary()
    failed = {name: phase for name, phase in case.phases.items() if not phase.passed}
    message = "; ".join(f"{name}: {reasons(phase) or phase.verdict}" for name, phase in failed.items())
    return f"{case.verdict}: {message}"


def reasons(case: Report) -> str:
    """Return why a report did not pass, without the tensors that did; nothing where there is no reason."""
    message = replace(case, tensors={name: tensor for name, tensor in case.tensors.items() if tensor.verdict != "pass"})
    silent = (
        not message.tensors and message.error is None and (message.forward is None or message.forward.verdict == "pass")
    )
    return "" if silent else message.summary().removeprefix(f"{case.verdict}: ")


def bugs(case: Report | NetworkReport) -> list[str]:
    """Return the names of the mistakes that were recognised, in forward passes and in gradients."""
    found = [None if phase.forward is None else phase.forward.diagnosis for phase in phases_of(case).values()]
    found += [tensor.diagnosis for _, _, tensor in every_tensor(case)]
    return list(dict.fromkeys(str(one["bug"]) for one in found if one is not None and "bug" in one))


def _case_rows(name: str, case: Report | NetworkReport) -> list[tuple[Cell, ...]]:
    whole: dict[str, Cell] = {"case": name, "verdict": Text(case.verdict, style=STYLES[case.verdict])}
    rows: list[dict[str, Cell]] = [
        dict(zip(_SUMMARY, _summary(tensor_name, tensor), strict=True)) | {"case": name, "audit": _audit([tensor])}
        for tensor_name, tensor in case.tensors.items()
    ]
    return [tuple(row.get(heading) or "-" for heading in _SUITE) for row in rows or [whole]]


def _metrics(cases: Collection[Report | NetworkReport]) -> str:
    """Return what was checked in these cases together, how fast, the worst ratios and how the audits ended."""
    tensors = [tensor for case in cases for _, _, tensor in every_tensor(case)]
    checked = sum(tensor.dims_checked for tensor in tensors)
    seconds = sum(case.run.get("seconds") or 0.0 for case in cases)
    parts = [f"{checked:,} dimensions in {seconds:.2f} s"]
    if seconds:
        parts.append(f"{checked / seconds:,.0f}/s")
    if tensors:
        parts.append(f"norm ratio {short(_worst([tensor.norm_ratio for tensor in tensors]))}")
        parts.append(f"max ratio resolved {short(_worst([tensor.max_ratio_resolved for tensor in tensors]))}")
    if audit := _audit(tensors):
        parts.append(f"audit {audit}")
    return ", ".join(parts)


def _worst(ratios: list[float]) -> float:
    return max(ratios, key=lambda ratio: math.inf if math.isnan(ratio) else ratio)


def _audit(tensors: Collection[TensorReport]) -> str:
    """Return how the audits of these tensors ended, nothing where there was none."""
    dims = sum(tensor.audit.get("dims", 0) for tensor in tensors)
    wrong = sum(tensor.audit.get("disagreements", 0) for tensor in tensors)
    return "" if not dims else f"{wrong:,} of {dims:,} disagree" if wrong else f"{dims:,} agree"


def short(value: float) -> str:
    """Return a number in two significant digits."""
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def digits(value: float | None) -> str:
    """Return how many digits agree, or that none were to be compared."""
    return "-" if value is None else f"{value:z.1f}"
