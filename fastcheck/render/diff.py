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

SLOWER, LEAST_SECONDS = 1.5, 1.0
"""A case's speed is printed if it changed by more than this factor and both runs took at least so many seconds, so
that the change is no accident; that of both runs, if they took as long."""

_DRIFTS = ("case", "tensor", "what", "before", "after", "may differ by")


def write_difference(difference: Difference, out: Console, before: str, after: str) -> None:
    """Print what changed, what is lost or worse first, and the totals."""
    difference = escaped(difference)
    before, after = printable(before), printable(after)
    out.print(Text(f"{before} -> {after}", style="bold"))
    _write_names(f"gone, only in {before}", difference.only_before, out, "bold red")
    _write_names(f"new, only in {after}", difference.only_after, out)
    for change in difference.changes[:LISTED]:
        out.print(_change(change))
    _write_more(len(difference.changes), out)
    if difference.in_common:
        out.print(Text(f"in common: {difference.in_common}", style="bold"))
    if difference.drifts:
        print_table(out, _DRIFTS, [_drift(drift) for drift in difference.drifts[:LISTED]], wide=0)
        _write_more(len(difference.drifts), out)
    for line in [_pace(name, pace) for name, pace in difference.paces.items() if _noteworthy(pace)][:LISTED]:
        out.print(Text(line))
    out.print(_totals(difference))


def _write_names(title: str, names: Sequence[str], out: Console, style: str = "") -> None:
    if names:
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        out.print(Text(f"{title} ({len(names):,}): {', '.join(names[:LISTED])}{more}", style=style))


def _write_more(count: int, out: Console) -> None:
    if count > LISTED:
        out.print(f"and {count - LISTED:,} more: --json lists all")


def _tensor_name(phase: str, tensor: str) -> str:
    return f"{tensor} ({phase})" if phase else tensor


def _change(change: Change) -> Text:
    tensor = f", {_tensor_name(change.phase, change.tensor)}" if change.tensor else ""
    kind = "worse" if change.worse else "fixed" if change.fixed else "changed"
    style = "bold red" if change.worse else STYLES["pass"] if change.after == "pass" else STYLES["inconclusive"]
    text = Text(f"{kind}: {change.case}{tensor}: ").append(f"{change.before} -> {change.after}", style=style)
    return text.append(f": {change.why}" if change.why else "")


def _drift(drift: Drift) -> tuple[Cell, ...]:
    where = (drift.case, _tensor_name(drift.phase, drift.tensor))
    if drift.index is None:
        return (*where, drift.what, short(drift.before), short(drift.after), f"{drift.allowed:g} times")
    values = (f"{drift.before:.12g}", f"{drift.after:.12g}", short(drift.allowed))
    return (*where, f"{drift.what} {list(drift.index)}", *values)


def _is_long(pace: Pace) -> bool:
    return min(pace.seconds_before, pace.seconds_after) >= LEAST_SECONDS


def _noteworthy(pace: Pace) -> bool:
    if pace.factor is None or not _is_long(pace):
        return False
    return not 1 / SLOWER <= pace.factor <= SLOWER


def _pace(name: str, pace: Pace) -> str:
    assert pace.before is not None
    assert pace.after is not None
    assert pace.factor is not None
    message = f"{pace.factor:.1f} times faster" if pace.factor > 1 else f"{1 / pace.factor:.1f} times slower"
    return f"{name}: {rate(pace.before)} -> {rate(pace.after)}, {message}"


def _totals(difference: Difference) -> Text:
    changes, gone = difference.changes, len(difference.only_before)
    worse, fixed = sum(change.worse for change in changes), sum(change.fixed for change in changes)
    counts = {
        "gone": gone,
        "new": len(difference.only_after),
        "got worse": worse,
        "fixed": fixed,
        "changed otherwise": len(changes) - worse - fixed,
        "moved": len(difference.drifts),
    }
    parts = [f"{count:,} {words}" for words, count in counts.items() if count] or ["nothing changed"]
    if failing := len(difference.still_failing):
        parts.append(f"{failing:,} still fail{'s' * (failing == 1)}")
    pace = difference.pace
    speeds = [rate(speed) for speed in (pace.before, pace.after) if speed and _is_long(pace)]
    changed = f"; {' -> '.join(speeds)}" if len(set(speeds)) == 2 else ""
    style = "bold red" if worse or gone else ""
    return Text(f"{difference.compared:,} cases compared: {', '.join(parts)}{changed}", style=style)
