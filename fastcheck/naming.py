"""Names as people meet them: suggestions for misspelt ones, and any text made safe to print."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name closest to a misspelt one, or nothing."""
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def printable(text: str) -> str:
    """Return a line that cannot end early or move a terminal's cursor, whatever the names in it.

    What is not printable becomes an escape that can be seen, such as ``\\x1b``. XML can hold what is left.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
