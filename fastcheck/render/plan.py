"""The plan of a suite, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from fastcheck.batch.run.planned import RESERVE, Planned
from fastcheck.common.naming import printable
from fastcheck.render.page import print_table

_HEADINGS = ("case", "kind", "dimensions", "work", "memory")

RATE = 2e9
"""Work that one core does in a second, with all overhead (bench/test_batch.py)."""


def write_plan(name: str, cases: Sequence[Planned], budget: int, own_bytes: int, out: Console) -> None:
    """Print every case with its estimated work and memory, and the totals.

    In a process of its own, each case takes ``own_bytes`` more.
    """
    print_table(out, _HEADINGS, [_row(case, own_bytes) for case in cases])
    for case in cases:
        if case.problem is not None:
            out.print(f"{printable(case.name)}: {printable(case.problem)}")
    known = [case.estimate for case in cases if case.estimate is not None]
    open_ends = sum(_is_open(case) for case in cases)
    more = f" and those of {open_ends:,} that only their functions know" if open_ends else ""
    work = sum(one.work for one in known)
    largest = max((one.bytes for one in known), default=0) + own_bytes
    out.print(
        f"{printable(name)}: {len(cases):,} cases, {sum(one.dims for one in known):,} dimensions{more}, "
        f"{_short(work)} moves and multiply-adds (about {work / RATE:,.0f} s of one core); "
        f"the largest needs {_bytes(largest)} beside the program's {_bytes(RESERVE)}, of {_bytes(budget)}"
    )


def _is_open(case: Planned) -> bool:
    """Whether only a function of the user's knows how much there is to check."""
    return case.estimate is None and case.problem is None


def _row(case: Planned, own_bytes: int) -> tuple[str, ...]:
    kind = type(case.entry).__name__.removesuffix("Entry").lower()
    if case.estimate is None:
        return (printable(case.name), kind, *("?" if _is_open(case) else "-") * 3)
    return (
        printable(case.name),
        kind,
        f"{case.estimate.dims:,}",
        _short(case.estimate.work),
        _bytes(case.estimate.bytes + own_bytes),
    )


def _short(work: float) -> str:
    return f"{work / 1e9:,.2f} G"


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
