"""One run at a time in a folder: a lock that its process takes along when it is killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fastcheck.batch.ledger.schema import shown_path
from fastcheck.common.errors import FastcheckError

NAME = "lock.sqlite"


class FolderLock:
    """Held from the moment it is made until `release`, or until its process ends in whatever way.

    Raises
    ------
    FastcheckError
        If another run holds it, in this process too, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        # SQLite brings locks that the system drops with the process, on every platform, and needs no other package.
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
        """Let others in. The file stays: removing it could take it from under one who has just locked it."""
        self._connection.close()


def _refusal(folder: Path, error: sqlite3.Error) -> FastcheckError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return FastcheckError(
            f"{shown_path(folder)} is in use by another run: wait for its end, or give another folder"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return FastcheckError(f"{shown_path(folder / NAME)} is no lock of fastcheck's: remove it, it holds no result")
    return FastcheckError(
        f"{shown_path(folder / NAME)} cannot be locked: {error}: expected a folder that can be written to"
    )
