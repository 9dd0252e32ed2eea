"""Names and values in messages: suggestions for names, short quotes, and text that is safe to print."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable

import numpy as np

from fastcheck.common.errors import FastcheckError, shortened
from fastcheck.common.meanings import meant

LONGEST_VALUE = 60
"""Characters of a value in a message, at most."""


def shown(value: object, longest: int = LONGEST_VALUE) -> str:
    """Return a value as messages quote it; a long one keeps its beginning and its end."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return shortened(repr(value), longest)
    except ValueError:
        return "an integer of thousands of digits"


def quoted(value: object, longest: int = LONGEST_VALUE) -> str:
    """Return a value as Python writes it, on one line; a long one keeps its beginning and its end."""
    return brief(repr(value.item() if isinstance(value, np.generic) else value), longest)


def closest(name: object, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that means the same, or is spelt alike; ``cutoff`` is difflib's."""
    names = list(known)
    match = [meant(name, names), *difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)]
    return next(filter(None, match), None)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` with the known name that means the same, or is spelt alike; else nothing."""
    found = closest(name, known)
    return f" (did you mean {found!r}?)" if found else ""


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return the first names, separated by commas, and the number of those left out."""
    all_names = list(names)
    more = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {more:,} more" if more > 0 else "")


def offered(names: Iterable[str], room: int = 100) -> str:
    """Return names separated by commas, as many as fit into ``room`` characters, and the number of those left out."""
    all_names = list(names)
    ends = itertools.accumulate(len(name) + len(", ") for name in all_names)
    return listed(all_names, max(1, sum(end <= room + len(", ") for end in ends)))


def refuse_unknown(what: str, name: object, known: Collection[str]) -> None:
    """Refuse a name that is not one of the known ones.

    Raises
    ------
    FastcheckError
        The message quotes the name, suggests the nearest known one and lists them.
    """
    if name not in tuple(known):
        raise FastcheckError(f"{what} is {shown(name)}{nearest(name, known)}: expected one of {offered(known)}")


def printable(text: str) -> str:
    """Return a text that cannot break its line or move a terminal's cursor, whatever names it holds.

    Characters that are not printable become visible escapes such as ``\\x1b``. XML can hold the result.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def brief(text: object, longest: int = 120) -> str:
    """Return a text as one line; a long one keeps its beginning and its end."""
    return shortened(" ".join(str(text).split()), longest)
