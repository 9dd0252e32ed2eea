"""A lock that admits one run at a time to a folder, and that disappears with its process."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fastcheck.batch.ledger.schema import shown_path
from fastcheck.common.errors import FastcheckError

NAME = "lock.sqlite"


class FolderLock:
    """A lock held from its creation until `release`, or until its process ends in whatever way.

    Raises
    ------
    FastcheckError
        If another run holds it, even one in this process, or if the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        # On every platform the operating system drops SQLite's locks with the process; no other package is needed.
        try:
            self._connection = sqlite3.connect(folder / NAME, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _refusal(folder, error) from None
        try:
            self._connection.execute("PRAGMA journal_mode = MEMORY")
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            self._connection.close()
            raise _refusal(folder, error) from None

    def release(self) -> None:
        """Release the lock. The file stays, since removing it could break the lock of a run that has just taken it."""
        self._connection.close()


def _refusal(folder: Path, error: sqlite3.Error) -> FastcheckError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return FastcheckError(
            f"{shown_path(folder)} is in use by another run: wait until it ends, or give another folder"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return FastcheckError(f"{shown_path(folder / NAME)} is not a fastcheck lock: remove it; it holds no results")
    return FastcheckError(f"{shown_path(folder / NAME)} cannot be locked: {error}: expected a writable folder")
