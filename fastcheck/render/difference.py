"""What changed between two runs of a suite, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fastcheck.batch.diff import Change, Difference, Move, Pace
from fastcheck.common.naming import printable
from fastcheck.render.batch import rate
from fastcheck.render.escape import harmless
from fastcheck.render.page import STYLES, Cell, print_table, short

LISTED = 40
"""Changes, moves and names that are told; the JSON has all."""

SLOWER, LEAST_SECONDS = 1.5, 0.1
"""A case is told whose pace differs by this factor, where it took so long in both runs that this is no accident."""

_MOVES = ("case", "tensor", "what", "before", "after", "may differ by")


def write_difference(found: Difference, out: Console, before: str, after: str) -> None:
    """Print what changed, what got worse first, and the totals."""
    found = harmless(found)
    before, after = printable(before), printable(after)
    out.print(Text(f"{before} -> {after}", style="bold"))
    _write_names(f"only in {before}", found.only_before, out)
    _write_names(f"only in {after}", found.only_after, out)
    for change in found.changes[:LISTED]:
        out.print(_change(change))
    _write_more(len(found.changes), out)
    if found.moves:
        print_table(out, _MOVES, [_move(move) for move in found.moves[:LISTED]], wide=0)
        _write_more(len(found.moves), out)
    for line in [_pace(name, pace) for name, pace in found.paces.items() if _noteworthy(pace)][:LISTED]:
        out.print(Text(line))
    out.print(_totals(found))


def _write_names(title: str, names: Sequence[str], out: Console) -> None:
    if names:
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        out.print(Text(f"{title} ({len(names):,}): {', '.join(names[:LISTED])}{more}"))


def _write_more(count: int, out: Console) -> None:
    if count > LISTED:
        out.print(f"and {count - LISTED:,} more: --json has all")


def _place(phase: str, tensor: str) -> str:
    return f"{tensor} ({phase})" if phase else tensor


def _change(change: Change) -> Text:
    place = f", {_place(change.phase, change.tensor)}" if change.tensor else ""
    kind = "worse" if change.worse else "changed"
    style = "bold red" if change.worse else STYLES["pass"] if change.after == "pass" else STYLES["inconclusive"]
    text = Text(f"{kind}: {change.case}{place}: ").append(f"{change.before} -> {change.after}", style=style)
    return text.append(f": {change.why}" if change.why else "")


def _move(move: Move) -> tuple[Cell, ...]:
    if move.index is None:
        return (*_where(move), move.what, short(move.before), short(move.after), f"{move.allowed:g} times")
    values = (f"{move.before:.12g}", f"{move.after:.12g}", short(move.allowed))
    return (*_where(move), f"{move.what} {list(move.index)}", *values)


def _where(move: Move) -> tuple[str, str]:
    return move.case, _place(move.phase, move.tensor)


def _noteworthy(pace: Pace) -> bool:
    if pace.factor is None or min(pace.seconds_before, pace.seconds_after) < LEAST_SECONDS:
        return False
    return not 1 / SLOWER <= pace.factor <= SLOWER


def _pace(name: str, pace: Pace) -> str:
    assert pace.before is not None
    assert pace.after is not None
    assert pace.factor is not None
    message = f"{pace.factor:.1f} times as fast" if pace.factor > 1 else f"{1 / pace.factor:.1f} times as slow"
    return f"{name}: {rate(pace.before)} -> {rate(pace.after)}, {message}"


def _totals(found: Difference) -> Text:
    worse = sum(change.worse for change in found.changes)
    message = (
        f"{worse:,} verdicts got worse, {len(found.changes) - worse:,} changed otherwise, {len(found.moves):,} moved"
    )
    pace = found.pace
    speed = "" if not pace.before or not pace.after else f"; {rate(pace.before)} -> {rate(pace.after)}"
    return Text(f"{found.compared:,} cases compared: {message}{speed}", style="bold red" if worse else "")
