"""The ledger of a batch run: one SQLite file that keeps all finished work, even if the run is killed.

A case is identified by its key, a digest of everything that decides its result. A shard is a run of blocks of one
tensor in one phase of a case. Each shard and each report is written in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from fastcheck.batch.ledger import schema
from fastcheck.batch.ledger.lock import FolderLock
from fastcheck.batch.ledger.schema import Kinds, SuiteFacts, as_text, shown_path
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import shown
from fastcheck.common.packing import pack, unpack
from fastcheck.metrics.judged import EXIT_CODES

MOST_BYTES = 2**26
"""Size limit of a report as JSON. A tensor takes about five thousand bytes, so a case may have ten thousand tensors."""

WAITING = "waiting"
"""The state of a case without a report, as in `Ledger.counts`."""


class PlannedCase(NamedTuple):
    """A case of a suite: its name, the key of its content, its description (JSON), and its estimated cost."""

    name: str
    key: str
    spec: dict[str, Any]
    cost: float


class Result(NamedTuple):
    """A case as the ledger has it; verdict, report and seconds are None until it is finished.

    ``shards`` and ``dims`` count the stored shards and their dimensions, whether the case is finished or not.
    """

    name: str
    key: str
    verdict: str | None
    report: dict[str, Any] | None
    shards: int
    dims: int
    seconds: float | None


class Run(NamedTuple):
    """A run that wrote to a ledger. Times are ISO 8601 in UTC; ``ended`` and ``outcome`` are None if it was killed."""

    id: int
    started: str
    ended: str | None
    facts: dict[str, Any]
    outcome: dict[str, Any] | None


class Ledger:
    """An open ledger; see `Ledger.open` and `Ledger.read`. Its methods may be called from any thread.

    Attributes
    ----------
    path : Path
        The file.
    suite : SuiteFacts
        The suite and target that the ledger belongs to.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, suite: SuiteFacts, lock: FolderLock | None = None
    ) -> None:
        self.path, self.suite = path, suite
        self._connection, self._lock, self._mutex = connection, lock, threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        suite_name: str,
        suite_text: str,
        target: str,
        *,
        keys: Collection[str] = (),
        restart: bool = False,
    ) -> Self:
        """Open the ledger in a folder for writing, and keep other runs out until it is closed or its process ends.

        Parameters
        ----------
        folder : Path
            Created if absent; its parent must exist.
        suite_name, suite_text : str
            Name and text of the suite.
        target : str
            The processor, as returned by `fastcheck.common.machine.target`.
        keys : collection of str
            Keys of the suite's cases. A ledger with one of them is the suite's, whatever its name was.
        restart : bool
            Whether to rename an existing ledger, whatever its state, to ``ledger-N.sqlite`` and start a new one.

        Raises
        ------
        FastcheckError
            If the folder cannot be used or is in use, or if its ledger is damaged, is newer, belongs to another
            suite, or was written for another target.
        """
        suite = SuiteFacts(as_text(suite_name, "the suite's name"), as_text(suite_text, "the suite"), target)
        _make_folder(folder)
        lock = FolderLock(folder)
        try:
            if restart:
                schema.set_aside(folder)
            return cls(schema.open_to_write(folder, suite, keys), folder / schema.NAME, suite, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the ledger in a folder for reading, even while a run is writing it; the folder need not be writable.

        Raises
        ------
        FastcheckError
            If there is no ledger, or it is damaged or newer.
        """
        connection, suite = schema.open_to_read(folder)
        return cls(connection, folder / schema.NAME, suite)

    def close(self) -> None:
        """Close the file and release the lock. A second call does nothing."""
        with self._mutex:
            if self._lock is None:
                self._connection.close()
                return
            schema.close_written(self._connection)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin_run(self, facts: Mapping[str, Any]) -> int:
        """Record the start of a run and the facts of its machine (JSON); return its number."""
        with self._writing(lambda: "the start of the run") as connection:
            row = (_now(), json.dumps(dict(facts)))
            number = connection.execute("INSERT INTO runs (started, facts) VALUES (?, ?)", row).lastrowid
            assert number is not None
            return number

    def end_run(self, run_id: int, facts: Mapping[str, Any]) -> None:
        """Record the end of a run and its outcome (JSON)."""
        with self._writing(lambda: "the end of the run") as connection:
            row = (_now(), json.dumps(dict(facts)), run_id)
            connection.execute("UPDATE runs SET ended = ?, outcome = ? WHERE id = ?", row)

    def runs(self) -> list[Run]:
        """Return all runs, the oldest first."""
        rows = self._rows(
            "SELECT id, started, ended, facts, outcome FROM runs ORDER BY id", (int, str, str | None, str, str | None)
        )
        return [
            Run(number, started, ended, self._decoded(facts), None if outcome is None else self._decoded(outcome))
            for number, started, ended, facts, outcome in rows
        ]

    def sync(self, cases: Sequence[PlannedCase]) -> None:
        """Set the cases of the suite, in this order.

        A case whose key is known keeps its shards and report, even under a new name. Cases that are no longer in the
        suite are hidden, and keep their shards and reports in case they return.

        Raises
        ------
        FastcheckError
            If two cases share a name or a key, or the ledger cannot be written.
        """
        _refuse_twice("the name", [case.name for case in cases])
        _refuse_twice("the key", [case.key for case in cases])
        rows = [
            (
                as_text(case.key, "the key"),
                as_text(case.name, "the case"),
                position,
                float(case.cost),
                json.dumps(case.spec),
            )
            for position, case in enumerate(cases)
        ]
        with self._writing(lambda: "the suite") as connection:
            connection.execute("UPDATE suite SET name = ?, text = ?", self.suite[:2])
            # Few rows differ when a run is resumed or a suite is edited; only those are written.
            query = "SELECT key, name, position, cost, spec FROM cases WHERE position IS NOT NULL"
            known = {row[0]: row for row in self._read(query, (str, str, int, float, str))}
            gone = known.keys() - {key for key, *_ in rows}
            connection.executemany("UPDATE cases SET position = NULL WHERE key = ?", [(key,) for key in gone])
            connection.executemany(
                "INSERT INTO cases (key, name, position, cost, spec) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE "
                "SET name = excluded.name, position = excluded.position, cost = excluded.cost, spec = excluded.spec",
                [row for row in rows if known.get(row[0]) != row],
            )

    def finished(self) -> dict[str, str]:
        """Return the verdict of each finished case of the suite, by key.

        Cases with the verdict "error" (crashed, out of time) are left out, so that they run again.
        """
        return dict(
            self._rows(
                "SELECT key, verdict FROM cases WHERE position IS NOT NULL AND verdict <> 'error' ORDER BY position",
                (str, str),
            )
        )

    def counts(self) -> dict[str, int]:
        """Return the number of cases of the suite with each verdict, and of those still "waiting"."""
        query = "SELECT verdict, COUNT(*) FROM cases WHERE position IS NOT NULL GROUP BY verdict"
        rows = self._rows(query, (str | None, int))
        none: dict[str, int] = dict.fromkeys((*EXIT_CODES, WAITING), 0)
        return none | {verdict or WAITING: count for verdict, count in rows}

    def results(self) -> Iterator[Result]:
        """Return an iterator over the result of each case, in the suite's order.

        The order is fixed by the call; each result is read when the iterator reaches it, so that a slow reader never
        holds up the run that is writing.
        """
        order = self._rows("SELECT id, name FROM cases WHERE position IS NOT NULL ORDER BY position", (int, str))
        if len({name for _, name in order}) < len(order):
            raise schema.damaged(self.path, "two cases have the same name")
        return (self._result(case_id) for case_id, _ in order)

    def shards(self, key: str) -> dict[tuple[str, str, int], bytes]:
        """Return the stored shards of a case: bodies by phase, tensor and number; empty for an unknown case."""
        rows = self._rows(
            "SELECT phase, tensor, number, dims, body, checksum FROM cases JOIN tensors ON case_id = cases.id "
            "JOIN shards ON tensor_id = tensors.id JOIN tallies ON tallies.id = tally_id WHERE key = ? "
            "ORDER BY tensors.id, number",
            (str, str, int, int, bytes, int),
            (key,),
        )
        bodies = {}
        for phase, tensor, number, dims, body, checksum in rows:
            if checksum != _checksum(body, key, phase, tensor, number, dims):
                raise schema.damaged(self.path, f"shard {number} of {shown(tensor)} does not match its checksum")
            bodies[phase, tensor, number] = body
        return bodies

    def keep_shard(
        self, key: str, phase: str, tensor: str, number: int, *, dims: int, seconds: float, worker: str, body: bytes
    ) -> None:
        """Store a finished shard in one transaction, replacing an earlier one.

        Parameters
        ----------
        key : str
            Key of a case that `sync` has set.
        phase, tensor : str
        number : int
            Number of the shard within its tensor.
        dims : int
            Number of dimensions in the shard.
        seconds : float
        worker : str
            Name of the thread or process that computed it.
        body : bytes
            The content that `shards` will return.

        Raises
        ------
        FastcheckError
            If the case is unknown or the ledger cannot be written; then nothing has changed.
        """
        tensor_key = (as_text(phase, "the phase"), as_text(tensor, "the tensor"), key)
        worker = worker.encode(errors="backslashreplace").decode()
        checksum = _checksum(body, key, *tensor_key[:2], int(number), int(dims))
        shard_key = (*tensor_key, int(number))
        values = (
            tensor_key,
            (worker,),
            (*shard_key, body),
            (*shard_key, int(dims), float(seconds), worker, checksum),
        )
        with self._writing(lambda: f"shard {number} of {self._called(key)} {shown(tensor)}") as connection:
            for statement, filled in zip(_KEEP_SHARD, values, strict=True):
                put = connection.execute(statement, filled)
            if not put.rowcount:
                raise self._unknown(key)

    def finish(self, key: str, report: Mapping[str, Any], seconds: float) -> None:
        """Store the report of a case in one transaction, replacing an earlier one.

        Parameters
        ----------
        key : str
            Key of a case that `sync` has set.
        report : dict
            As returned by `Report.to_dict` or `NetworkReport.to_dict`.
        seconds : float

        Raises
        ------
        FastcheckError
            If the case is unknown or the ledger cannot be written; then nothing has changed.
        """
        body = self._packed(key, report)
        rows = list(schema.findings(report))
        with self._writing(lambda: f"the report of {self._called(key)}") as connection:
            case_id = self._case_id(key)
            connection.execute(
                "UPDATE cases SET verdict = ?, seconds = ? WHERE id = ?", (report["verdict"], float(seconds), case_id)
            )
            connection.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (case_id, _checksum(body, key), body))
            connection.execute("DELETE FROM findings WHERE case_id = ?", (case_id,))
            connection.executemany(
                "INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(case_id, position, *row) for position, row in enumerate(rows)],
            )

    def _result(self, case_id: int) -> Result:
        rows = self._rows(
            "SELECT name, key, verdict, body, reports.checksum, COUNT(number), COALESCE(SUM(dims), 0), cases.seconds "
            "FROM cases "
            "LEFT JOIN reports ON reports.case_id = cases.id LEFT JOIN tensors ON tensors.case_id = cases.id "
            "LEFT JOIN shards ON tensor_id = tensors.id WHERE cases.id = ? GROUP BY cases.id",
            (str, str, str | None, bytes | None, int | None, int, int, float | None),
            (case_id,),
        )
        name, key, verdict, body, checksum, shards, dims, seconds = rows[0]
        whole = body is None or checksum == _checksum(body, key)
        report = self._decoded(body) if body is not None and whole else None
        if not whole or verdict != (None if report is None else report.get("verdict")):
            raise schema.damaged(self.path, f"the report of {shown(name)} does not match its checksum or verdict")
        return Result(name, key, verdict, report, shards, dims, seconds)

    def _packed(self, key: str, report: Mapping[str, Any]) -> bytes:
        try:
            return pack(report, _COMPRESSION, MOST_BYTES, allow_nan=False)
        except FastcheckError as error:
            raise FastcheckError(f"the report of {self._called(key)} cannot be stored: {error}") from None

    def _decoded(self, body: str | bytes) -> dict[str, Any]:
        try:
            data = unpack(body, MOST_BYTES) if isinstance(body, bytes) else json.loads(body)
        except (ValueError, RecursionError) as error:
            raise schema.damaged(self.path, str(error)) from None
        if not isinstance(data, dict):
            raise schema.damaged(self.path, "a report is not a JSON object")
        return data

    def _rows(self, query: str, kinds: Kinds, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._mutex:
            return self._read(query, kinds, values)

    def _read(self, query: str, kinds: Kinds, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return rows; the caller holds the mutex."""
        return schema.rows(self._connection, self.path, query, kinds, values)

    @contextmanager
    def _writing(self, what: Callable[[], str]) -> Iterator[sqlite3.Connection]:
        """Run one transaction: it takes effect entirely or not at all, and an error message names what was written."""
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, sqlite3.Error):
                    raise schema.unwritten(self.path, what(), error) from error
                raise

    def _roll_back(self) -> None:
        # After some failures SQLite has already rolled back.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _case_id(self, key: str) -> int:
        row = self._connection.execute("SELECT id FROM cases WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise self._unknown(key)
        return int(row[0])

    def _unknown(self, key: str) -> FastcheckError:
        return FastcheckError(f"no case of {shown_path(self.path)} has the key {shown(key)}")

    def _called(self, key: str) -> str:
        """Return the name of a case for an error message, or its key if the name cannot be read."""
        with suppress(sqlite3.Error):
            row = self._connection.execute("SELECT name FROM cases WHERE key = ?", (key,)).fetchone()
            return shown(key if row is None else row[0])
        return shown(key)


_KEEP_SHARD = (
    "INSERT OR IGNORE INTO tensors (phase, tensor, case_id) SELECT ?1, ?2, id FROM cases WHERE key = ?3",
    "INSERT OR IGNORE INTO workers (name) VALUES (?1)",
    # If the shard is stored already, its tally is replaced.
    "INSERT OR REPLACE INTO tallies (id, body) VALUES ((SELECT tally_id FROM cases JOIN tensors ON case_id = cases.id "
    "JOIN shards ON tensor_id = tensors.id WHERE phase = ?1 AND tensor = ?2 AND key = ?3 AND number = ?4), ?5)",
    "INSERT OR REPLACE INTO shards (tensor_id, number, dims, seconds, worker_id, checksum, tally_id) "
    "SELECT tensors.id, ?4, ?5, ?6, workers.id, ?8, last_insert_rowid() "
    "FROM cases JOIN tensors ON case_id = cases.id JOIN workers ON workers.name = ?7 "
    "WHERE phase = ?1 AND tensor = ?2 AND key = ?3",
)
"""Few statements with numbered values: a statement releases the interpreter lock several times, and again for each
named value."""

_COMPRESSION = 3
"""Compression level of reports; higher levels take twice the time and save a few per cent."""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise FastcheckError(
            f"{shown_path(folder)} cannot be created: there is no folder {shown_path(folder.parent)}"
        ) from None
    except FileExistsError:
        raise FastcheckError(f"{shown_path(folder)} is a file: expected a folder, or a name for a new one") from None
    except (OSError, ValueError) as error:
        raise FastcheckError(f"{shown_path(folder)} cannot be created: {error}") from None


def _refuse_twice(what: str, values: list[str]) -> None:
    if len(set(values)) < len(values):
        (value, count), *_ = Counter(values).most_common(1)
        raise FastcheckError(f"{count} cases have {what} {shown(value)}: expected one")


def _checksum(body: object, *owner: object) -> int | None:
    """Return a checksum of a body and of its owner's keys, so that a damaged page cannot become a wrong result."""
    prefix = "\0".join(map(str, owner)).encode(errors="backslashreplace")
    return zlib.crc32(body, zlib.crc32(prefix)) if isinstance(body, bytes) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
