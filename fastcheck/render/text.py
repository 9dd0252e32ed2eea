"""Reports as text."""

from __future__ import annotations

import io
import math
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcheck.report import Entry, Report, TensorReport
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


def as_text(report: Report, stream: IO[str], title: str = "") -> str:
    """Return a report as the text that suits a stream: coloured and of its width on a terminal, plain elsewhere.

    Rich itself ends the process where a reader stops reading, so that nothing is printed from here.
    """
    page = _Page(getattr(stream, "encoding", None) or "utf-8")
    out = Console(file=page, force_terminal=stream.isatty(), **_options(stream))
    write_report(report, out, title)
    return page.getvalue()


def write_report(report: Report, out: Console, title: str = "") -> None:
    """Print a report: forward, a line a tensor, the worst dimensions, the verdict and what to try next."""
    if title:
        out.print(Text(title, style="bold"))
    _write_forward(report, out)
    if report.tensors:
        _print_table(out, _SUMMARY, [_summary(name, tensor) for name, tensor in report.tensors.items()])
        out.print(_rules(report))
    for name, tensor in report.tensors.items():
        if tensor.worst:
            by = "difference / error bar" if tensor.evaluator else "difference"
            rows = [_cells(entry) for entry in tensor.worst[:_SHOWN]]
            _print_table(out, _ENTRY, rows, f"\n{name}: worst by {by}")
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


def _print_table(out: Console, headings: tuple[str, ...], rows: list[tuple[Cell, ...]], title: str = "") -> None:
    """Print a table, turned on its side where the terminal is too narrow for its columns."""
    if title:
        out.print(title)
    if out.width >= _WIDE:
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


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
