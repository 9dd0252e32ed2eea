"""Work shared among threads: how it is cut, and how its parts run on a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

PIECES = 16
"""Number of parts into which a pass is cut: enough to share among threads, few enough to cost nothing."""

LEAST_WORK = 2**18
"""Least entries or multiply-adds of a part: tens of microseconds, about what it takes to hand one to a thread."""


def worth(work: int) -> int:
    """Return the number of parts into which it pays to cut work, given in entries or multiply-adds."""
    return max(1, min(PIECES, work // LEAST_WORK))


def thread_ranges(count: int, work: int) -> list[tuple[int, int]]:
    """Cut range(count) into parts for threads; ``work`` is what all of it takes, in entries or multiply-adds."""
    return ranges(count, worth(work))


def ranges(count: int, pieces: int) -> list[tuple[int, int]]:
    """Cut range(count) into ``pieces`` ranges (low, high), or into single entries where there are fewer of these."""
    pieces = min(count, pieces)
    return [(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]


def share(pool: Executor, work: Callable[[Any], object], pieces: Iterable[Any]) -> None:
    """Run work(piece) for every piece on a pool; a single piece runs in this thread."""
    several = list(pieces)
    if len(several) == 1:
        work(several[0])
        return
    for future in [pool.submit(work, piece) for piece in several]:
        future.result()
