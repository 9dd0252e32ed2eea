"""How a check tells of its progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressHook = Callable[[str, int, int], None]
"""Called as hook(stage, done, total) from the thread that called `check`; a total of 0 means not known."""


def silent(stage: str, done: int, total: int) -> None:
    """Take a report of progress and do nothing with it."""
