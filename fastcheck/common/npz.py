"""NumPy's files: ``.npz`` archives and ``.npy`` arrays, whose headers are checked before anything is allocated."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastcheck.common import machine
from fastcheck.common.array_file import Archive, Header, read_array, understood
from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import meant, remark
from fastcheck.common.naming import listed, nearest, offered, quoted, refuse_unknown
from fastcheck.common.opened import Opened, Source, opened
from fastcheck.common.writing import write_bytes

_SIMPLE = re.compile(r"[\w.]+")
"""Names that an option of the command line can hold as they are."""

_ROOM = 120
"""Characters of names in a refusal, at most: shortened, they would be other names."""


def read_npz(path: Source) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` file, after checking all headers.

    Raises
    ------
    FastcheckError
        If the file is absent, damaged or not an archive, if an array is pickled, or if they are too large.
    """
    with opened(path) as file:
        archive = archive_of(file)
        return {key: archive.array(key) for key in archive.keys}


class Wanted(NamedTuple):
    """The arrays that a reader knows, and what the user says of their names.

    Attributes
    ----------
    keys : tuple of str
    families : tuple of str
        Beginnings of further names.
    names : mapping of str to str, optional
        Keys by the names that they have in the file. None where a user cannot say so.
    ignore_extra : bool
        Whether to ignore other arrays.
    """

    keys: tuple[str, ...]
    families: tuple[str, ...] = ()
    names: Mapping[str, str] | None = None
    ignore_extra: bool = False


def archive_of(file: Opened, wanted: Wanted | None = None) -> Archive:
    """Open an archive, after checking its keys, and that memory has room for all that it declares.

    By default any key will do.
    """
    archive = Archive(file)
    if wanted is not None:
        archive.choose(_chosen(str(file), archive.keys, wanted))
    needed = sum(archive.header(key).needed for key in archive.keys)
    message = f"{file} has arrays that need {needed:,} bytes"
    machine.refuse_beyond(
        needed, lambda available: f"{message}, and {available:,} are available: expected smaller arrays"
    )
    return archive


def _chosen(file: str, keys: tuple[str, ...], wanted: Wanted) -> dict[str, str]:
    """Return the names in a file of the keys that it has; refuse other names, unless they are to be ignored."""
    names = dict(wanted.names or {})
    for ours, theirs in names.items():
        refuse_unknown("a name in keys (--keys)", ours, wanted.keys)
        if theirs not in keys:
            raise FastcheckError(f"{file} has no key {quoted(theirs)}{nearest(theirs, keys)}, given for {ours}")
    others = [key for key in keys if key not in names.values() and key not in names]
    known = [key for key in others if key in wanted.keys or key.startswith(wanted.families)]
    extra = [key for key in others if key not in known]
    if names:
        extra = [key for key in extra if nearest(key, wanted.keys)]
    if extra and not wanted.ignore_extra:
        raise FastcheckError(f"{file} has the unknown key{_unknown(extra, {*known, *names}, wanted)}")
    return names | {key: key for key in known}


def _unknown(extra: list[str], present: set[str], wanted: Wanted) -> str:
    """Return the end of a refusal of names: which they are, and what to do."""
    absent = [key for key in wanted.keys if key not in present]
    meanings: dict[str, str] = {}
    for key in extra:
        ours = meant(key, absent)
        if ours is not None and _SIMPLE.fullmatch(key):
            meanings.setdefault(ours, key)
    first = next(iter(meanings.values()), extra[0])
    if not meanings and remark(first):
        return f" {quoted(first)}: {remark(first)}"
    beginnings = (family + key.partition(".")[2] for key in extra for family in wanted.families if "." in key)
    told = f" {quoted(first)}{nearest(first, (*wanted.keys, *beginnings))}"
    if wanted.names is None:
        return f"{told}: expected {offered(wanted.keys)}"
    if not meanings:
        return f"{told}: expected {offered(wanted.keys)}; --ignore-extra ignores it"
    pairs = _pairs({**wanted.names, **meanings})
    if len(meanings) == 1:
        return f"{told}: rename it, or give --keys {pairs}"
    return f"s {listed(quoted(key, 20) for key in extra)}: rename them, or give --keys {pairs}"


def _pairs(names: Mapping[str, str]) -> str:
    """Return names as the command line takes them; dots stand for those beyond `_ROOM`."""
    told = ""
    for ours, theirs in names.items():
        if len(told) + len(ours) + len(theirs) > _ROOM:
            return f"{told},..."
        told += f"{',' * bool(told)}{ours}={theirs}"
    return told


def read_headers(path: Source) -> dict[str, Header]:
    """Read the headers of every array of an ``.npz`` file, and nothing else; raises as `read_npz` does."""
    with opened(path) as file:
        archive = archive_of(file)
        return {key: archive.header(key) for key in archive.keys}


def read_npy(path: Source) -> np.ndarray:
    """Read one array from an ``.npy`` file, after checking its header.

    Raises
    ------
    FastcheckError
        If the file is absent or damaged, or the array is pickled or too large.
    """
    with opened(path) as file, understood(str(file)):
        return read_array(file.stream, file.size, str(file))


def is_archive(file: Opened) -> bool:
    """Whether a file is an archive, judged by its first bytes."""
    with understood(str(file)):  # a pipe cannot seek back
        file.stream.seek(0)
        starts_as_zip = file.stream.read(4).startswith(b"PK")
        file.stream.seek(0)
    return starts_as_zip


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file as `write_bytes` does.

    Raises
    ------
    FastcheckError
        If the file cannot be written. Nothing is left behind then, and a file that was there stays as it was.
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # keywords are arrays
    write_bytes(path, stream.getvalue())
