"""Reports as text."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.report import Entry, Report, TensorReport
from fastcheck.suite import SuiteReport
from fastcheck.verdict import MAX_RULE, NORM_RULE, Verdict

_STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "error": "magenta"}

_WIDTH = 132
"""Columns of text that does not go to a terminal."""

_WIDE = 126
"""Columns that the tables need."""

_SHOWN = 5
"""Worst dimensions shown for a tensor."""


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

    def write(out: Console) -> None:
        if isinstance(report, SuiteReport):
            write_suite(report, out, title)
        else:
            write_report(report, out, title)

    return text_for(stream, write)


def text_for(stream: IO[str], write: Callable[[Console], None]) -> str:
    """Return what ``write`` prints, as text that suits a stream."""
    page = _Page(getattr(stream, "encoding", None) or "utf-8")
    write(Console(file=page, force_terminal=stream.isatty(), **_options(stream)))
    return page.getvalue()


def write_report(report: Report, out: Console, title: str = "") -> None:
    """Print a report: forward, a line a tensor, the worst dimensions, the verdict and what to try next."""
    if title:
        out.print(Text(title, style="bold"))
    _write_forward(report, out)
    if report.tensors:
        print_table(out, _SUMMARY, [_summary(name, tensor) for name, tensor in report.tensors.items()])
        out.print(_rules(report))
        for line in (*_regimes(report), *_audits(report), *_kinks(report)):
            out.print(line)
    for name, tensor in report.tensors.items():
        if tensor.worst:
            by = "difference / error bar" if tensor.evaluator else "difference"
            rows = [_cells(entry) for entry in tensor.worst[:_SHOWN]]
            print_table(out, _ENTRY, rows, f"\n{name}: worst by {by}")
        for swept in tensor.sweep:
            out.print(f"sweep of {name} {list(swept['index'])}: {swept['reading']}. {swept['words']}")
    out.print(_verdict(report))


def _write_forward(report: Report, out: Console) -> None:
    forward = report.forward
    if forward is None:
        return
    line = Text("forward: ").append(forward.verdict, style=_STYLES[forward.verdict])
    out.print(line.append(f", norm ratio {_short(forward.norm_ratio)} against the declared output"))
    if forward.diagnosis is not None:
        out.print(f"  {forward.diagnosis['bug']}: {forward.diagnosis['evidence']}")
        out.print(f"  try: {forward.diagnosis['try']}")
        out.print("  The forward pass itself is another one, so no gradient was judged.")


Cell = str | Text
_SUMMARY = (
    *("tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("digits", "signs", "unresolved", "beyond", "differenced"),
)
_ENTRY = ("index", "verdict", "analytic", "numeric", "difference", "same sign", "ratio", "error bar")


def print_table(
    out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]], title: str = "", wide: int = _WIDE
) -> None:
    """Print a table, turned on its side where the terminal is too narrow for its columns."""
    if title:
        out.print(title)
    if out.width >= wide:
        out.print(_table(headings, rows))
        return
    fitting = max(1, (out.width - 12) // 18)
    for first in range(0, len(rows), fitting):
        names, *lines = zip(headings, *rows[first : first + fitting], strict=True)
        out.print(_table(names, lines))


def _table(headings: tuple[Cell, ...], rows: list[tuple[Cell, ...]]) -> Table:
    """Make a table whose first column is words and the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _summary(name: str, tensor: TensorReport) -> tuple[Cell, ...]:
    known = tensor.evaluator is not None
    return (
        name,
        Text(tensor.verdict, style=_STYLES[tensor.verdict]),
        f"{tensor.dims_checked:,} of {tensor.dims_total:,}",
        _short(tensor.norm_ratio),
        _short(tensor.max_ratio),
        _short(tensor.max_ratio_resolved),
        f"{_digits(tensor.digits['min'])} - {_digits(tensor.digits['median'])}",
        f"{tensor.sign_mismatches:,}",
        f"{tensor.unresolved:,}",
        f"{tensor.beyond_error_bar:,}" if known else "-",
        f"{tensor.evaluator} h={tensor.step:g}" if known else "-",
    )


def _rules(report: Report) -> str:
    norm = _broken([name for name, tensor in report.tensors.items() if not tensor.norm_ratio <= NORM_RULE])
    largest = _broken([name for name, tensor in report.tensors.items() if not tensor.max_ratio < MAX_RULE])
    return f"rules of thumb: norm ratio at most {NORM_RULE:g} {norm}; max ratio below {MAX_RULE:g} {largest}"


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
            yield (
                f"audit of {name}: {tensor.audit['dims']:,} dimensions again by local, and one direction over "
                f"all {tensor.dims_checked:,} by full (apart by {_short(abs(direction['difference']))}, "
                f"error bar {_short(direction['error_bar'])}): {_audit([tensor])}"
            )


def _kinks(report: Report) -> Iterator[str]:
    for name, tensor in report.tensors.items():
        if tensor.kinks:
            what = f"{tensor.excluded:,} left out" if tensor.excluded else "their error bars are wider"
            yield f"kinks: {tensor.kinks:,} dimensions of {name} cross one between -h and +h; {what}"


def _broken(names: list[str]) -> str:
    return f"(broken by {', '.join(names)})" if names else "(kept)"


def _cells(entry: Entry) -> tuple[Cell, ...]:
    verdict = Text("-") if entry.verdict is None else Text(entry.verdict, style=_STYLES[entry.verdict])
    return (
        str(list(entry.index)),
        verdict,
        f"{entry.analytic:.12g}",
        f"{entry.numeric:.12g}",
        f"{entry.difference:.2e}",
        "yes" if entry.same_sign else "NO",
        _short(entry.ratio),
        "-" if entry.error_bar is None else _short(entry.error_bar),
    )


def _verdict(report: Report) -> Text:
    text = Text()
    if report.interrupted:
        text.append("interrupted: the counts are those of the dimensions reached\n", style="yellow")
    text.append(report.verdict.upper(), style=_STYLES[report.verdict])
    text.append(report.summary().removeprefix(report.verdict))
    for name, tensor in report.tensors.items():
        if tensor.advice:
            text.append(f"\ntry ({name}): {tensor.advice}")
    seconds = report.run.get("seconds")
    if seconds:
        checked = sum(tensor.dims_checked for tensor in report.tensors.values())
        text.append(
            f"\n{checked:,} dimensions in {seconds:.2f} s on {report.run['threads']} threads, "
            f"{checked / seconds:,.0f} two-sided differences a second",
            style="dim",
        )
    return text


_SUITE = (
    *("case", "tensor", "verdict", "checked", "norm ratio", "max ratio", "resolved"),
    *("beyond", "differenced", "audit"),
)
_SUITE_WIDE = 120
"""Columns that the table of a suite needs, longer names of cases aside."""


def write_suite(suite: SuiteReport, out: Console, title: str = "") -> None:
    """Print the report of several cases: a line a tensor, why cases did not pass, and the totals."""
    if title:
        out.print(Text(title, style="bold"))
    rows = [row for name, case in suite.cases.items() for row in _case_rows(name, case)]
    print_table(out, _SUITE, rows, wide=_SUITE_WIDE)
    for name, case in suite.cases.items():
        if not case.passed:
            out.print(Text(f"{name}: ").append(case.summary(), style=_STYLES[case.verdict]))
    if suite.interrupted:
        out.print(Text("interrupted: the counts are those of the cases and dimensions reached", style="yellow"))
    verdict = Text(suite.verdict.upper(), style=_STYLES[suite.verdict])
    out.print(verdict.append(f": {len(suite.cases):,} cases, {_metrics(suite.cases.values())}"))


def case_line(name: str, case: Report) -> str:
    """Return the line that tells of one finished case of several."""
    operands = case.operands or {}
    shapes = " * ".join("x".join(map(str, operands[key])) for key in ("input", "weight") if key in operands)
    return f"{case.verdict:<12} {name:<22} {shapes:<32} {case.error or _metrics([case])}\n"


def _case_rows(name: str, case: Report) -> list[tuple[Cell, ...]]:
    whole: dict[str, Cell] = {"case": name, "verdict": Text(case.verdict, style=_STYLES[case.verdict])}
    rows: list[dict[str, Cell]] = [
        dict(zip(_SUMMARY, _summary(tensor_name, tensor), strict=True)) | {"case": name, "audit": _audit([tensor])}
        for tensor_name, tensor in case.tensors.items()
    ]
    return [tuple(row.get(heading) or "-" for heading in _SUITE) for row in rows or [whole]]


def _metrics(cases: Collection[Report]) -> str:
    """Return what was checked in these cases together, how fast, the worst ratios and how the audits ended."""
    tensors = [tensor for case in cases for tensor in case.tensors.values()]
    checked = sum(tensor.dims_checked for tensor in tensors)
    seconds = sum(case.run.get("seconds") or 0.0 for case in cases)
    parts = [f"{checked:,} dimensions in {seconds:.2f} s"]
    if seconds:
        parts.append(f"{checked / seconds:,.0f}/s")
    if tensors:
        parts.append(f"norm ratio {_short(_worst([tensor.norm_ratio for tensor in tensors]))}")
        parts.append(f"max ratio resolved {_short(_worst([tensor.max_ratio_resolved for tensor in tensors]))}")
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


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
