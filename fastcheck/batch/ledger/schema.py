"""The ledger's file: its tables; how it is created, opened and set aside; and which files are refused."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief, printable, shown

NAME = "ledger.sqlite"
"""Name of the file, in the output folder."""

NUMERIC = "numeric"
"""Name of the folder of numeric gradients, beside the file."""

SCHEMA = 1
"""Version of the tables, the file's ``user_version``."""

APPLICATION = 0x6663686B
"""The file's ``application_id``: "fchk"."""

BUSY_TIMEOUT = 20.0
"""Seconds to wait for another connection to finish its transaction."""

START_OVER = "`fastcheck run` with --restart keeps a copy of it and starts over"

NOTHING_LOST = "no finished work is lost"

# Bodies of about 700 bytes fill pages of this size almost completely.
_PAGE = 8192

_ENDINGS = ("-wal", "-shm", "-journal")

# Tallies and reports stand apart from the columns that are counted and listed, so that counting reads few pages. Their
# integer ids only grow, so that pages fill one after another, in whatever order shards arrive.
_TABLES = """
CREATE TABLE suite (name TEXT NOT NULL, text TEXT NOT NULL, target TEXT NOT NULL);
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, facts TEXT NOT NULL, outcome TEXT
);
CREATE TABLE cases (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, position INTEGER, cost REAL NOT NULL,
  verdict TEXT, seconds REAL, spec TEXT NOT NULL
);
CREATE TABLE reports (case_id INTEGER PRIMARY KEY REFERENCES cases, checksum INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE findings (
  case_id INTEGER NOT NULL REFERENCES cases, place INTEGER NOT NULL, phase TEXT NOT NULL, tensor TEXT NOT NULL,
  verdict TEXT NOT NULL, reason TEXT NOT NULL, bug TEXT,
  worst TEXT, analytic REAL, numeric REAL, difference REAL, error_bar REAL,
  PRIMARY KEY (case_id, place)
) WITHOUT ROWID;
CREATE TABLE tensors (
  id INTEGER PRIMARY KEY, case_id INTEGER NOT NULL REFERENCES cases, phase TEXT NOT NULL, tensor TEXT NOT NULL,
  UNIQUE (case_id, phase, tensor)
);
CREATE TABLE workers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE shards (
  tensor_id INTEGER NOT NULL REFERENCES tensors, number INTEGER NOT NULL, dims INTEGER NOT NULL,
  seconds REAL NOT NULL, worker_id INTEGER NOT NULL REFERENCES workers, checksum INTEGER NOT NULL,
  tally_id INTEGER NOT NULL REFERENCES tallies,
  PRIMARY KEY (tensor_id, number)
) WITHOUT ROWID;
CREATE TABLE tallies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


class SuiteFacts(NamedTuple):
    """Identity of a ledger: the suite's name and text, and the processor that its kernels are compiled for."""

    name: str
    text: str
    target: str


def open_to_write(folder: Path, suite: SuiteFacts, keys: Collection[str]) -> sqlite3.Connection:
    """Open the ledger of this suite and target in a locked folder, and create it if there is none.

    A ledger belongs to a suite of its name, of its text, or with one of its cases: ``keys`` are those of the suite.

    Raises
    ------
    FastcheckError
        If the file is damaged, is newer, belongs to another suite or target, or is not a ledger.
    """
    path = folder / NAME
    try:
        if not path.exists():
            _make(folder, suite)
        connection = _connect(path, "mode=rw")
        try:
            actual = examine(connection, path)
            _refuse_target(path, actual, suite)
            _refuse_suite(path, actual, suite, keys, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    return connection


def open_to_read(folder: Path) -> tuple[sqlite3.Connection, SuiteFacts]:
    """Open the ledger in a folder, even while a run is writing it; nothing in the folder changes.

    Raises
    ------
    FastcheckError
        If there is no ledger, or the file is damaged, is newer or is not a ledger.
    """
    path = folder / NAME
    try:
        present = path.is_file()
    except OSError as error:
        raise FastcheckError(f"{shown_path(path)} could not be read: {error.strerror}") from None
    if not present:
        raise FastcheckError(f"{shown_path(folder)} holds no ledger: expected a folder written by `fastcheck run`")
    try:
        connection = _connect_to_read(path)
        try:
            return connection, examine(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
        return connection
    except sqlite3.Error as error:
        connection.close()
        forbidden = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if not forbidden:
            raise
    # Nothing can be written here, and no log is waiting to be replayed: the file is complete and cannot change.
    log = path.with_name(f"{NAME}-wal")
    if log.exists() and log.stat().st_size:
        raise FastcheckError(
            f"{shown_path(log)} was left by a killed run and can only be read in a writable folder: "
            f"copy {NAME}* to another folder and read them there"
        )
    return _connect(path, "immutable=1")


def close_written(connection: sqlite3.Connection) -> None:
    """Close after writing and leave a single file, which can be read without creating others or writing to the folder.

    If others are reading, or the disk is full, the latest writes stay in the log beside the file; nothing is lost.
    """
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout = 1000")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def examine(connection: sqlite3.Connection, path: Path) -> SuiteFacts:
    """Return the identity of a ledger, after checking that the file is an intact ledger.

    Raises
    ------
    FastcheckError
        If the file is damaged, is newer or is not a ledger.
    sqlite3.Error
        If it cannot be read.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        message = f"its application id is {application}, expected {APPLICATION}"
        raise FastcheckError(f"{shown_path(path)} is not a fastcheck ledger ({message}): {START_OVER}")
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA:
        message = f"schema {schema}: this version reads {SCHEMA}"
        raise FastcheckError(f"{shown_path(path)} has {message}; use the fastcheck that wrote it, or {START_OVER}")
    (check,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if check != "ok":
        raise damaged(path, check)
    facts = rows(connection, path, "SELECT name, text, target FROM suite", (str, str, str))
    if schema != SCHEMA or len(facts) != 1:
        raise damaged(path, f"schema {schema}, written for {len(facts)} suites")
    return SuiteFacts(*facts[0])


Kinds = tuple[type | UnionType, ...]
"""Types of the values in a row."""


def rows(
    connection: sqlite3.Connection, path: Path, query: str, kinds: Kinds, values: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]]:
    """Return the rows of a query with checked types: SQLite stores any value in any column, and readers rely on types.

    Raises
    ------
    FastcheckError
        If the ledger cannot be read, or a value is of another type.
    """
    try:
        # If a cursor fails midway through its rows, it locks the file for as long as the exception is referenced.
        with closing(connection.cursor()) as cursor:
            results = cursor.execute(query, values).fetchall()
            names = [name for name, *_ in cursor.description]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    for row in results:
        for value, kind, name in zip(row, kinds, names, strict=True):
            if not isinstance(value, kind):
                raise damaged(path, f"{name} is {shown(value)}")
    return results


_CHOICE = "give another folder, or --restart to keep a copy of it and start over"


def _refuse_suite(
    path: Path, actual: SuiteFacts, expected: SuiteFacts, keys: Collection[str], connection: sqlite3.Connection
) -> None:
    if actual.name == expected.name or actual.text == expected.text:
        return
    if {key for (key,) in rows(connection, path, "SELECT key FROM cases", (str,))}.isdisjoint(keys):
        raise FastcheckError(
            f"{shown_path(path)} holds the suite {shown(actual.name)}, and no case of {shown(expected.name)}: {_CHOICE}"
        )


def _refuse_target(path: Path, actual: SuiteFacts, expected: SuiteFacts) -> None:
    if actual.target != expected.target:
        raise FastcheckError(
            f"{shown_path(path)} was written on {shown(actual.target)}, and this machine is {shown(expected.target)}; "
            f"their results differ in the last bits and are not mixed: {_CHOICE}"
        )


def _make(folder: Path, suite: SuiteFacts) -> None:
    """Create an empty ledger; it is renamed into place once complete, so that a kill leaves all of it or nothing."""
    fresh = folder / "ledger.new.sqlite"
    _remove(folder / f"{fresh.name}{ending}" for ending in ("", *_ENDINGS))
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            _fill(connection, suite)
    except sqlite3.Error as error:
        raise unwritten(folder / NAME, "a new ledger", error) from None
    # A log left without its ledger would be replayed into the new one.
    _remove(folder / f"{NAME}{ending}" for ending in _ENDINGS)
    try:
        fresh.replace(folder / NAME)
    except OSError as error:
        raise FastcheckError(f"{shown_path(folder / NAME)} could not be created: {error.strerror}") from None


def _fill(connection: sqlite3.Connection, suite: SuiteFacts) -> None:
    connection.execute(f"PRAGMA page_size = {_PAGE}")
    connection.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; {_TABLES}")
    connection.execute("INSERT INTO suite (name, text, target) VALUES (?, ?, ?)", suite)
    connection.execute("COMMIT")


def _remove(paths: Iterator[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FastcheckError(f"{shown_path(path)} could not be removed: {error.strerror}") from None


def set_aside(folder: Path) -> Path | None:
    """Rename the ledger in a locked folder, whatever its state, to the first free ``ledger-N.sqlite``.

    Returns
    -------
    Path or None
        The new path; None if there was no ledger.
    """
    path = folder / NAME
    if not (path.exists() or path.is_symlink()):
        return None
    with suppress(sqlite3.Error):
        close_written(_connect(path, "mode=rw"))
    number = 1
    while any((folder / f"ledger-{number}.sqlite{ending}").exists() for ending in ("", *_ENDINGS)):
        number += 1
    copy = folder / f"ledger-{number}.sqlite"
    try:
        path.rename(copy)
        for ending in _ENDINGS:
            with suppress(FileNotFoundError):
                (folder / f"{NAME}{ending}").rename(folder / f"{copy.name}{ending}")
    except OSError as error:
        raise FastcheckError(f"{shown_path(path)} could not be renamed to {copy.name}: {error.strerror}") from None
    return copy


_OWN = re.compile(r"(ledger(\.new|-\d+)?|lock)\.sqlite(-wal|-shm|-journal)?", re.IGNORECASE)
"""Names of the files that a ledger has, or may create, in its folder."""


def is_ledgers_own(path: str, folder: str) -> bool:
    """Whether a path, or the target of a link, is a file that the ledger in a folder has or may create."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    with suppress(OSError):
        if any(_OWN.fullmatch(entry.name) and real.samefile(entry) for entry in home.iterdir()):
            return True
    inside = [one.name for one in (real, *real.parents) if _same(one.parent, home)]
    return bool(inside) and (inside[0].casefold() == NUMERIC or bool(_OWN.fullmatch(inside[0])))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def unreadable(path: Path, error: Exception) -> FastcheckError:
    """Return the error for a ledger that cannot be opened or read, with the reason and the remedy."""
    code = getattr(error, "sqlite_errorcode", None)
    broken = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if not isinstance(error, sqlite3.ProgrammingError) and (code is None or code & 0xFF in broken):
        return damaged(path, str(error))
    return FastcheckError(f"{shown_path(path)} could not be opened or read: {error}")


def damaged(path: Path, reason: str) -> FastcheckError:
    """Return the error for a damaged ledger, with the reason and the remedy."""
    return FastcheckError(f"{shown_path(path)} is damaged or not a ledger ({brief(reason, 110)}): {START_OVER}")


def unwritten(path: Path, what: str, error: sqlite3.Error) -> FastcheckError:
    """Return the error for a failed write, with the reason and the remedy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT):
        return damaged(path, f"{what} could not be written: {error}")
    # A limit on the size of files appears as an I/O error.
    full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    remedy = "free some space" if full else "make it writable"
    return FastcheckError(
        f"{what} could not be written to {shown_path(path)}: {error}; {remedy} and run the same command again: "
        f"{NOTHING_LOST}"
    )


def shown_path(path: Path) -> str:
    """Return a path in a form that fits in one line of a message."""
    return printable(str(path))


def as_text(value: str, what: str) -> str:
    """Return a text that SQLite can store.

    Raises
    ------
    FastcheckError
        If it contains a lone surrogate.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FastcheckError(f"{what} {shown(value)} is not valid Unicode: expected no lone surrogates") from None
    return value


def findings(report: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield a row (phase, tensor, verdict, reason, bug, worst, analytic, ...) for each tensor that did not pass.

    The report of a single case has one phase, without a name. Numbers that are unknown or nan are None.
    """
    phases = report["cases"] if "cases" in report else [{"name": ""} | dict(report)]
    for phase in phases:
        for name, tensor in phase["tensors"].items():
            if tensor["verdict"] != "pass":
                yield (
                    *map(_printed, (phase["name"], name, tensor["verdict"], tensor["reason"])),
                    _printed((tensor.get("diagnosis") or {}).get("bug")),
                    *_worst(tensor["worst"]),
                )


def _worst(entries: list[dict[str, Any]]) -> tuple[Any, ...]:
    if not entries:
        return (None,) * 5
    values = (entries[0][key] for key in ("analytic", "numeric", "difference", "error_bar"))
    return (str(list(entries[0]["index"])), *(None if value is None else float(value) for value in values))


def _printed(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()
