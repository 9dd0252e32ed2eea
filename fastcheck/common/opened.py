"""Files open for reading, with a digest of the bytes that were made something of."""

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
"""How a part of a path is opened that may be no link: a file without waiting for whoever writes a pipe, a folder
without needing permission to list it, where the system can."""

_LONGEST = 250
"""Characters of a path in a refusal."""


class Readable(Protocol):
    """What bytes are read from, one after another."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""
        ...


class Opened:
    """A file open for reading.

    Attributes
    ----------
    name : str
        Its path, as refusals have it: it can be printed.
    stream : binary file
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.name, self.stream = name, stream
        self._digest = hashlib.sha256()

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.stream.fileno()).st_size

    @property
    def digest(self) -> str:
        """Return a digest of what was `noted`: the bytes that a reader understood, whatever the file holds by now."""
        return self._digest.hexdigest()

    def read(self) -> bytes:
        """Return the whole file, after putting it in the digest.

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
        """Put bytes in the digest, and return them."""
        self._digest.update(data)
        return data

    def noted(self, stream: Readable) -> Readable:
        """Return a stream of this file (a member of an archive) that puts what is read of it in the digest."""
        return _Noted(self, stream)


class _Noted:
    def __init__(self, file: Opened, stream: Readable) -> None:
        self._file, self._stream = file, stream

    def read(self, size: int, /) -> bytes:
        return self._file.note(self._stream.read(size))


Source = str | os.PathLike[str] | Opened
"""A file to read: its path, or the file itself where somebody opened it."""


@contextmanager
def opened(source: Source, *, real: bool = False) -> Iterator[Opened]:
    """Open a file, unless it is open.

    Parameters
    ----------
    source : path or Opened
    real : bool
        The path is one that was resolved earlier: a regular file, and no part of the path a symbolic link by now.

    Raises
    ------
    FastcheckError
        If it cannot be opened, or is not what ``real`` asks for.
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
            why = "a part of its path is a symbolic link, or no folder, since the suite was read"
        raise FastcheckError(f"{name} cannot be read: {why}") from None
    with stream:
        if real and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise FastcheckError(f"{name} cannot be read: it is no file")
        yield Opened(name, stream)


def _without_links(path: str, flags: int) -> int:
    """Open a file folder by folder, none of which may be a link, so that no moment is left to put one there."""
    if os.open not in os.supports_dir_fd:
        return os.open(path, flags)
    root, *folders, name = PurePath(path).parts
    at = os.open(root, _FOLDER)
    try:
        for folder in folders:
            above, at = at, os.open(folder, _FOLDER, dir_fd=at)
            os.close(above)
        return os.open(name, flags | _FILE, dir_fd=at)
    finally:
        os.close(at)
