"""Results of a batch run as text: the suite's table, and a one-line summary for a chat message."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from fastcheck.batch.ledger.ledger import WAITING
from fastcheck.batch.results import SuiteResults
from fastcheck.common.naming import printable
from fastcheck.metrics.judged import Verdict
from fastcheck.render.outline import write_outline
from fastcheck.render.suite import bugs, write_suite
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport, every_tensor

MOST_LISTED = 40
"""In a suite with more cases, those that passed are counted and not listed."""

LONGEST = 200
"""Largest number of characters in the summary line."""

_NAMED = 10
"""Number of waiting cases listed by name."""

_LONGEST_NAME = 40
"""Largest number of characters of the suite's name in the summary line."""

_DETAILED = 3
"""Number of cases for which the summary line gives details."""

_Case = Report | NetworkReport


def write_results(shown: SuiteResults, out: Console, title: str, common: str, everything: bool, verbose: bool) -> None:
    """Print the results of a suite; passed cases of a large suite only if ``everything``.

    ``common`` is what failing cases have in common, in words.
    """
    cases = shown.suite.cases
    hidden = 0 if everything or len(cases) <= MOST_LISTED else sum(case.passed for case in cases.values())
    if verbose:
        write_suite(shown.suite, out, title, listed=lambda case: not (hidden and case.passed))
        if common:
            out.print(Text(f"in common: {common}"))
    else:
        outline = shown.suite.outline()
        outline = replace(outline, lead=f"in common: {common}" if common else "")
        listed = [entry for entry in outline.cases if not (hidden and entry[1].verdict == "pass")]
        write_outline(replace(outline, cases=tuple(listed)), out, title)
    if hidden:
        out.print(f"{hidden:,} cases that passed are not listed: --all lists them")
    if shown.waiting:
        out.print(Text(_waiting(shown.waiting), style="yellow"))


def _waiting(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{WAITING} ({len(names):,}): {', '.join(map(printable, names[:_NAMED]))}{more}"


def chat_line(name: str, suite: SuiteReport, waiting: int) -> str:
    """Return a summary of the results in one line of at most `LONGEST` characters, without a final newline.

    Parameters
    ----------
    name : str
        Name of the suite.
    suite : SuiteReport
    waiting : int
        Number of unfinished cases.
    """
    counts = Counter(case.verdict for case in suite.cases.values())
    parts = [f"{counts['pass']:,} of {len(suite.cases) + waiting:,} pass"]
    worst_first: tuple[Verdict, ...] = ("fail", "error", "inconclusive")
    present = [verdict for verdict in worst_first if counts[verdict]]
    not_passed = [f"{counts[verdict]:,} {verdict}" for verdict in present]
    if waiting:
        not_passed.append(f"{waiting:,} {WAITING}")
    elif suite.interrupted:
        not_passed.append("interrupted")
    head, tail = f"{_cut(printable(name), _LONGEST_NAME)}: ", f"; {_speed(suite)}"
    if present:
        room = LONGEST - len(head + ", ".join(parts + not_passed) + tail) - len(" ()")
        decisive = [entry for entry in suite.cases.items() if entry[1].verdict == present[0]]
        causes, short = ([_cause(*entry, with_bugs) for entry in decisive[:_DETAILED]] for with_bugs in (True, False))
        fit = len("; ".join(causes)) <= room  # the cases matter more than their mistakes
        not_passed[0] += _details(causes if fit else short, len(decisive), room)
    return head + ", ".join(parts + not_passed) + tail


def _details(cases: Sequence[str], total: int, room: int) -> str:
    """Return as many of the first cases as fit (at least part of one) and the number of the others."""
    for count in range(len(cases), 0, -1):
        more = f"; {total - count:,} more" if total > count else ""
        listed = "; ".join(cases[:count])
        if len(listed) + len(more) <= room:
            return f" ({listed}{more})"
    return f" ({_cut(cases[0], room - len(more))}{more})"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: max(longest, 1) - 1]}…"


def _cause(name: str, case: _Case, with_bugs: bool) -> str:
    """Return why a case did not pass, in a few words: the tensors, and perhaps the names of recognised mistakes."""
    if isinstance(case, Report) and case.error is not None:
        return printable(f"{name}: {case.error}")
    tensors = dict.fromkeys(tensor for _, tensor, one in every_tensor(case) if one.verdict == case.verdict)
    message = ", ".join((*tensors, *(bugs(case) if with_bugs else ())))
    return printable(f"{name}: {message}" if message else name)


def _speed(suite: SuiteReport) -> str:
    """Return the number of dimensions checked, the total time of all cases, and the rate."""
    dims = sum(tensor.dims_checked for case in suite.cases.values() for _, _, tensor in every_tensor(case))
    seconds = suite.run.get("seconds") or 0.0
    message = f"{amount(dims)} dimensions"
    if not math.isfinite(seconds) or seconds <= 0:
        return message
    time = f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}"
    return f"{message} in {time} s ({rate(dims / seconds)})"


def rate(value: float) -> str:
    """Return dimensions per second in two significant digits."""
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}/s"
    return f"{amount(float(f'{value:.1e}'))}/s"


def amount(value: float) -> str:
    """Return a number in readable form: ``450``, ``45,000``, ``3.2 M``."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
