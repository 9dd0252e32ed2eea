"""How to install what only some features need."""

from __future__ import annotations


def installing(extra: str) -> str:
    """Return the command that installs an extra, in words that fit after a colon. There is no release yet."""
    return f'pip install ".[{extra}]" in a clone of fastcheck'
