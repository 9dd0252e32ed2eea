"""The hook through which a check reports its progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressHook = Callable[[str, int, int], None]
"""Called as hook(stage, done, total) in the thread that called `check`; a total of 0 means that it is unknown."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore a report of progress."""
