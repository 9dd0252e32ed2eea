"""Names as people meet them: suggestions for misspelt ones, and any text made safe to print."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from fastcheck.common.errors import FastcheckError, shortened

LONGEST_VALUE = 60
"""Characters of a value in a message."""


def shown(value: object, longest: int = LONGEST_VALUE) -> str:
    """Return a value as a message quotes it; a long one keeps its beginning and its end."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return shortened(repr(value), longest)
    except ValueError:
        return "an integer of thousands of digits"


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name closest to a misspelt one, or nothing."""
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return a few names with commas, and how many more there are."""
    every = list(names)
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more:,} more" if more > 0 else "")


def refuse_unknown(what: str, name: object, known: Collection[str]) -> None:
    """Refuse a name that is none of those that are known.

    Raises
    ------
    FastcheckError
        It tells what was named, the nearest right name and all of them.
    """
    if name not in tuple(known):
        raise FastcheckError(f"{what} is {shown(name)}{nearest(name, known)}: expected {', '.join(known)}")


def printable(text: str) -> str:
    """Return a line that cannot end early or move a terminal's cursor, whatever the names in it.

    What is not printable becomes an escape that can be seen, such as ``\\x1b``. XML can hold what is left.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def brief(text: object, longest: int = 120) -> str:
    """Return a text in one line; a long one keeps its beginning and its end."""
    return shortened(" ".join(str(text).split()), longest)
