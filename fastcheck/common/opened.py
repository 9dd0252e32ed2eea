"""Files open for reading, with a digest of the bytes that a reader used."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import IO, Protocol

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief, printable

_HERE = getattr(os, "O_NOFOLLOW", 0)
_FILE = _HERE | getattr(os, "O_NONBLOCK", 0)
_FOLDER = _HERE | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)
"""Flags that open a part of a path unless it is a link. Where the system can, a file opens without waiting for the
writer of a pipe, and a folder without permission to list it."""

_LONGEST = 250
"""Characters of a path in a refusal, at most."""


class Readable(Protocol):
    """A stream of bytes, read in order."""

    def read(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        ...


class Opened:
    """A file open for reading.

    Attributes
    ----------
    name : str
        The file's path as refusals show it, safe to print.
    stream : binary file
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.name, self.stream = name, stream
        self._digest = hashlib.sha256()

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return os.fstat(self.stream.fileno()).st_size

    @property
    def digest(self) -> str:
        """A digest of the bytes `noted`: those that a reader used, whatever the file holds by now."""
        return self._digest.hexdigest()

    def read(self) -> bytes:
        """Return the whole file, and add it to the digest.

        Raises
        ------
        FastcheckError
            If the system cannot read it.
        """
        try:
            return self.note(self.stream.read())
        except OSError as error:
            raise FastcheckError(f"{self.name} cannot be read: {error.strerror or error}") from None

    def note(self, data: bytes) -> bytes:
        """Add bytes to the digest, and return them."""
        self._digest.update(data)
        return data

    def noted(self, stream: Readable) -> Readable:
        """Wrap a stream of this file (a member of an archive): whatever is read from it enters the digest."""
        return _Noted(self, stream)


class _Noted:
    def __init__(self, file: Opened, stream: Readable) -> None:
        self._file, self._stream = file, stream

    def read(self, size: int, /) -> bytes:
        return self._file.note(self._stream.read(size))


Source = str | os.PathLike[str] | Opened
"""A file to read: its path, or the file itself where it is open already."""


@contextmanager
def opened(source: Source, *, real: bool = False) -> Iterator[Opened]:
    """Open a file, unless it is open already.

    Parameters
    ----------
    source : path or Opened
    real : bool
        Whether the path was resolved earlier: it must still be a regular file, and no part of it a symbolic link.

    Raises
    ------
    FastcheckError
        If the file cannot be opened, or is not what ``real`` asks for.
    """
    if isinstance(source, Opened):
        yield source
        return
    name = brief(printable(str(source)), _LONGEST)
    try:
        stream = open(source, "rb", opener=_without_links if real else None)  # noqa: SIM115, entered below
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        why = getattr(error, "strerror", None) or error
        if real and getattr(error, "errno", None) in (errno.ELOOP, errno.ENOTDIR):
            why = "since the suite was read, a part of its path has become a symbolic link, or is no longer a folder"
        raise FastcheckError(f"{name} cannot be read: {why}") from None
    with stream:
        if real and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise FastcheckError(f"{name} cannot be read: it is not a regular file")
        yield Opened(name, stream)


def _without_links(path: str, flags: int) -> int:
    """Open a file folder by folder and refuse links, so that nobody can slip one in after a check."""
    if os.open not in os.supports_dir_fd:
        return os.open(path, flags)
    root, *folders, name = PurePath(path).parts
    current = os.open(root, _FOLDER)
    try:
        for folder in folders:
            above, current = current, os.open(folder, _FOLDER, dir_fd=current)
            os.close(above)
        return os.open(name, flags | _FILE, dir_fd=current)
    finally:
        os.close(current)
