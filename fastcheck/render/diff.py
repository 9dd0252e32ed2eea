"""The difference between two runs of a suite, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fastcheck.batch.diff import Change, Difference, Drift, Pace
from fastcheck.common.naming import printable
from fastcheck.render.batch import rate
from fastcheck.render.escape import escaped
from fastcheck.render.page import STYLES, Cell, print_table
from fastcheck.reports.layout import short

LISTED = 40
"""Largest number of changes, of drifts and of names that are printed; the JSON has all."""

SLOWER, LEAST_SECONDS = 1.5, 0.1
"""A case's speed is printed if it changed by more than this factor and both runs took at least so many seconds, so
that the change is no accident."""

_DRIFTS = ("case", "tensor", "what", "before", "after", "may differ by")


def write_difference(difference: Difference, out: Console, before: str, after: str) -> None:
    """Print the changes, the worse ones first, and the totals."""
    difference = escaped(difference)
    before, after = printable(before), printable(after)
    out.print(Text(f"{before} -> {after}", style="bold"))
    _write_names(f"only in {before}", difference.only_before, out)
    _write_names(f"only in {after}", difference.only_after, out)
    for change in difference.changes[:LISTED]:
        out.print(_change(change))
    _write_more(len(difference.changes), out)
    if difference.drifts:
        print_table(out, _DRIFTS, [_drift(drift) for drift in difference.drifts[:LISTED]], wide=0)
        _write_more(len(difference.drifts), out)
    for line in [_pace(name, pace) for name, pace in difference.paces.items() if _noteworthy(pace)][:LISTED]:
        out.print(Text(line))
    out.print(_totals(difference))


def _write_names(title: str, names: Sequence[str], out: Console) -> None:
    if names:
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        out.print(Text(f"{title} ({len(names):,}): {', '.join(names[:LISTED])}{more}"))


def _write_more(count: int, out: Console) -> None:
    if count > LISTED:
        out.print(f"and {count - LISTED:,} more: --json lists all")


def _tensor_name(phase: str, tensor: str) -> str:
    return f"{tensor} ({phase})" if phase else tensor


def _change(change: Change) -> Text:
    tensor = f", {_tensor_name(change.phase, change.tensor)}" if change.tensor else ""
    kind = "worse" if change.worse else "changed"
    style = "bold red" if change.worse else STYLES["pass"] if change.after == "pass" else STYLES["inconclusive"]
    text = Text(f"{kind}: {change.case}{tensor}: ").append(f"{change.before} -> {change.after}", style=style)
    return text.append(f": {change.why}" if change.why else "")


def _drift(drift: Drift) -> tuple[Cell, ...]:
    where = (drift.case, _tensor_name(drift.phase, drift.tensor))
    if drift.index is None:
        return (*where, drift.what, short(drift.before), short(drift.after), f"{drift.allowed:g} times")
    values = (f"{drift.before:.12g}", f"{drift.after:.12g}", short(drift.allowed))
    return (*where, f"{drift.what} {list(drift.index)}", *values)


def _noteworthy(pace: Pace) -> bool:
    if pace.factor is None or min(pace.seconds_before, pace.seconds_after) < LEAST_SECONDS:
        return False
    return not 1 / SLOWER <= pace.factor <= SLOWER


def _pace(name: str, pace: Pace) -> str:
    assert pace.before is not None
    assert pace.after is not None
    assert pace.factor is not None
    message = f"{pace.factor:.1f} times faster" if pace.factor > 1 else f"{1 / pace.factor:.1f} times slower"
    return f"{name}: {rate(pace.before)} -> {rate(pace.after)}, {message}"


def _totals(difference: Difference) -> Text:
    changes = difference.changes
    worse = sum(change.worse for change in changes)
    message = (
        f"{worse:,} verdicts got worse, {len(changes) - worse:,} changed otherwise, {len(difference.drifts):,} moved"
    )
    pace = difference.pace
    speed = "" if not pace.before or not pace.after else f"; {rate(pace.before)} -> {rate(pace.after)}"
    return Text(f"{difference.compared:,} cases compared: {message}{speed}", style="bold red" if worse else "")
