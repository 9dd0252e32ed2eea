"""The ledger of a batch run: one SQLite file that holds all that was finished, whenever the run is killed.

A case is known by its key, a digest of everything that decides its result; a shard is a run of blocks of one tensor of
one phase of a case. Each shard, and each report, is one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Of a report as JSON. A tensor takes about five thousand, so that a case may have ten thousand of them."""

WAITING = "waiting"
"""What `Ledger.counts` calls a case without a report."""


class PlannedCase(NamedTuple):
    """A case of a suite: its name, the key of its content, what describes it (JSON), and its estimated cost."""

    name: str
    key: str
    spec: dict[str, Any]
    cost: float


class Result(NamedTuple):
    """What a ledger knows of a case: verdict, report and seconds are None until it is finished.

    ``shards`` and ``dims`` count what is kept of it, finished or not.
    """

    name: str
    key: str
    verdict: str | None
    report: dict[str, Any] | None
    shards: int
    dims: int
    seconds: float | None


class Run(NamedTuple):
    """A run that wrote to a ledger: when (ISO 8601, UTC), on what, and how it ended; None where it was killed."""

    id: int
    started: str
    ended: str | None
    facts: dict[str, Any]
    outcome: dict[str, Any] | None


class Ledger:
    """A ledger that is open; see `Ledger.open` and `Ledger.read`. Its methods may be called from any thread.

    Attributes
    ----------
    path : Path
        Of the file.
    suite : SuiteFacts
        What it was made for.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, suite: SuiteFacts, lock: FolderLock | None = None
    ) -> None:
        self.path, self.suite = path, suite
        self._connection, self._lock, self._mutex = connection, lock, threading.Lock()

    @classmethod
    def open(cls, folder: Path, suite_name: str, suite_text: str, target: str, *, restart: bool = False) -> Self:
        """Open the ledger in a folder to write, and keep other runs out until it is closed or its process ends.

        Parameters
        ----------
        folder : Path
            Made if absent; its parent must exist.
        suite_name, suite_text : str
            Of the suite whose ledger it is.
        target : str
            As `fastcheck.common.machine.target` tells it.
        restart : bool
            Whether to rename what is there, in whatever state, to ``ledger-N.sqlite`` and to begin anew.

        Raises
        ------
        FastcheckError
            If the folder cannot be used or is in use, or its ledger is damaged, newer, another suite's, or written
            for another target.
        """
        suite = SuiteFacts(as_text(suite_name, "the suite's name"), as_text(suite_text, "the suite"), target)
        _make_folder(folder)
        lock = FolderLock(folder)
        try:
            if restart:
                schema.set_aside(folder)
            return cls(schema.open_to_write(folder, suite), folder / schema.NAME, suite, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the ledger in a folder to read, while a run writes it or not; the folder need not be writable.

        Raises
        ------
        FastcheckError
            If there is none, or it is damaged, newer or no ledger.
        """
        connection, suite = schema.open_to_read(folder)
        return cls(connection, folder / schema.NAME, suite)

    def close(self) -> None:
        """Close the file, and let the next run in. A second call does nothing."""
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
        """Note that a run begins, and what it runs on (JSON); return its number."""
        with self._writing(lambda: "the beginning of the run") as connection:
            row = (_now(), json.dumps(dict(facts)))
            number = connection.execute("INSERT INTO runs (started, facts) VALUES (?, ?)", row).lastrowid
            assert number is not None
            return number

    def end_run(self, run_id: int, facts: Mapping[str, Any]) -> None:
        """Note that a run ended, and how (JSON)."""
        with self._writing(lambda: "the end of the run") as connection:
            row = (_now(), json.dumps(dict(facts)), run_id)
            connection.execute("UPDATE runs SET ended = ?, outcome = ? WHERE id = ?", row)

    def runs(self) -> list[Run]:
        """Return every run, the first one first."""
        rows = self._rows(
            "SELECT id, started, ended, facts, outcome FROM runs ORDER BY id", (int, str, str | None, str, str | None)
        )
        return [
            Run(number, started, ended, self._decoded(facts), None if outcome is None else self._decoded(outcome))
            for number, started, ended, facts, outcome in rows
        ]

    def sync(self, cases: Sequence[PlannedCase]) -> None:
        """Make these the cases of the suite, in this order.

        A case whose key is known keeps its shards and report, under whatever name. Cases that are not among these
        keep theirs too, for the day they return, and are shown nowhere.

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
                place,
                float(case.cost),
                json.dumps(case.spec),
            )
            for place, case in enumerate(cases)
        ]
        with self._writing(lambda: "the suite") as connection:
            connection.execute("UPDATE suite SET text = ?", (self.suite.text,))
            # Few rows differ where a run is resumed, or a suite edited.
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
        """Return the verdict of each finished case of the suite by key.

        Cases whose verdict is "error" (crashed, out of time) are not among these: they are to run again.
        """
        return dict(
            self._rows(
                "SELECT key, verdict FROM cases WHERE position IS NOT NULL AND verdict <> 'error' ORDER BY position",
                (str, str),
            )
        )

    def counts(self) -> dict[str, int]:
        """Return how many cases of the suite have each verdict, and how many are "waiting" for one."""
        query = "SELECT verdict, COUNT(*) FROM cases WHERE position IS NOT NULL GROUP BY verdict"
        rows = self._rows(query, (str | None, int))
        none: dict[str, int] = dict.fromkeys((*EXIT_CODES, WAITING), 0)
        return none | {verdict or WAITING: count for verdict, count in rows}

    def results(self) -> Iterator[Result]:
        """Give what is known of each case, in the suite's order.

        The order is that of the moment this is called; each result is that of the moment it is given, so that a long
        look at a ledger never holds up the run that writes it.
        """
        order = self._rows("SELECT id, name FROM cases WHERE position IS NOT NULL ORDER BY position", (int, str))
        if len({name for _, name in order}) < len(order):
            raise schema.damaged(self.path, "two cases have the same name")
        return (self._result(case_id) for case_id, _ in order)

    def shards(self, key: str) -> dict[tuple[str, str, int], bytes]:
        """Return what is kept of a case: bodies by phase, tensor and number; nothing of a case that is not known."""
        rows = self._rows(
            "SELECT phase, tensor, number, dims, body, checksum FROM cases JOIN tensors ON case_id = cases.id "
            "JOIN shards ON tensor_id = tensors.id JOIN tallies ON tallies.id = tally_id WHERE key = ? "
            "ORDER BY tensors.id, number",
            (str, str, int, int, bytes, int),
            (key,),
        )
        found = {}
        for phase, tensor, number, dims, body, checksum in rows:
            if checksum != _checksum(body, key, phase, tensor, number, dims):
                raise schema.damaged(self.path, f"shard {number} of {shown(tensor)} is not what was kept")
            found[phase, tensor, number] = body
        return found

    def keep_shard(
        self, key: str, phase: str, tensor: str, number: int, *, dims: int, seconds: float, worker: str, body: bytes
    ) -> None:
        """Keep a finished shard, in one transaction; one that is kept already is replaced.

        Parameters
        ----------
        key : str
            Of a case that `sync` has set.
        phase, tensor : str
        number : int
            Of the shard among those of the tensor.
        dims : int
            How many dimensions it covers.
        seconds : float
        worker : str
            Who computed it.
        body : bytes
            What `shards` is to return.

        Raises
        ------
        FastcheckError
            If the case is not known, or the ledger cannot be written: then nothing has changed.
        """
        place = (as_text(phase, "the phase"), as_text(tensor, "the tensor"), key)
        worker = worker.encode(errors="backslashreplace").decode()
        checksum = _checksum(body, key, *place[:2], int(number), int(dims))
        at = (*place, int(number))
        values = (place, (worker,), (*at, body), (*at, int(dims), float(seconds), worker, checksum))
        with self._writing(lambda: f"shard {number} of {self._called(key)} {shown(tensor)}") as connection:
            for statement, filled in zip(_KEEP_SHARD, values, strict=True):
                put = connection.execute(statement, filled)
            if not put.rowcount:
                raise self._unknown(key)

    def finish(self, key: str, report: Mapping[str, Any], seconds: float) -> None:
        """Keep the report of a case, in one transaction; one that is kept already is replaced.

        Parameters
        ----------
        key : str
            Of a case that `sync` has set.
        report : dict
            As `Report.to_dict` or `NetworkReport.to_dict` gives it.
        seconds : float

        Raises
        ------
        FastcheckError
            If the case is not known, or the ledger cannot be written: then nothing has changed.
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
                [(case_id, place, *row) for place, row in enumerate(rows)],
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
            raise schema.damaged(self.path, f"the report of {shown(name)} is not what was kept")
        return Result(name, key, verdict, report, shards, dims, seconds)

    def _packed(self, key: str, report: Mapping[str, Any]) -> bytes:
        try:
            return pack(report, _COMPRESSION, MOST_BYTES, allow_nan=False)
        except FastcheckError as error:
            raise FastcheckError(f"the report of {self._called(key)} cannot be kept: {error}") from None

    def _decoded(self, body: str | bytes) -> dict[str, Any]:
        try:
            found = unpack(body, MOST_BYTES) if isinstance(body, bytes) else json.loads(body)
        except (ValueError, RecursionError) as error:
            raise schema.damaged(self.path, str(error)) from None
        if not isinstance(found, dict):
            raise schema.damaged(self.path, "a report is no object")
        return found

    def _rows(self, query: str, kinds: Kinds, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._mutex:
            return self._read(query, kinds, values)

    def _read(self, query: str, kinds: Kinds, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return rows, the mutex being held."""
        return schema.rows(self._connection, self.path, query, kinds, values)

    @contextmanager
    def _writing(self, what: Callable[[], str]) -> Iterator[sqlite3.Connection]:
        """Hold one transaction: all of it is kept, or nothing, and a failure tells what it was."""
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
        # SQLite has done so itself after some failures.
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
        """Return the name of a case for a message about a failure, if it can still be read."""
        with suppress(sqlite3.Error):
            row = self._connection.execute("SELECT name FROM cases WHERE key = ?", (key,)).fetchone()
            return shown(key if row is None else row[0])
        return shown(key)


_KEEP_SHARD = (
    "INSERT OR IGNORE INTO tensors (phase, tensor, case_id) SELECT ?1, ?2, id FROM cases WHERE key = ?3",
    "INSERT OR IGNORE INTO workers (name) VALUES (?1)",
    # Of a shard that is kept already the tally is replaced.
    "INSERT OR REPLACE INTO tallies (id, body) VALUES ((SELECT tally_id FROM cases JOIN tensors ON case_id = cases.id "
    "JOIN shards ON tensor_id = tensors.id WHERE phase = ?1 AND tensor = ?2 AND key = ?3 AND number = ?4), ?5)",
    "INSERT OR REPLACE INTO shards (tensor_id, number, dims, seconds, worker_id, checksum, tally_id) "
    "SELECT tensors.id, ?4, ?5, ?6, workers.id, ?8, last_insert_rowid() "
    "FROM cases JOIN tensors ON case_id = cases.id JOIN workers ON workers.name = ?7 "
    "WHERE phase = ?1 AND tensor = ?2 AND key = ?3",
)
"""Few statements, of numbered values: a statement gives up the interpreter several times, and once for each name."""

_COMPRESSION = 3
"""Of reports; higher levels take twice the time for a few per cent."""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise FastcheckError(
            f"{shown_path(folder)} cannot be made: there is no folder {shown_path(folder.parent)}"
        ) from None
    except FileExistsError:
        raise FastcheckError(f"{shown_path(folder)} is a file: expected a folder, or a name for one") from None
    except (OSError, ValueError) as error:
        raise FastcheckError(f"{shown_path(folder)} cannot be made: {error}") from None


def _refuse_twice(what: str, values: list[str]) -> None:
    if len(set(values)) < len(values):
        (value, count), *_ = Counter(values).most_common(1)
        raise FastcheckError(f"{count} cases have {what} {shown(value)}: expected one")


def _checksum(body: object, *place: object) -> int | None:
    """Return a checksum of a body and of what it belongs to: a damaged page must not become a wrong result."""
    message = "\0".join(map(str, place)).encode(errors="backslashreplace")
    return zlib.crc32(body, zlib.crc32(message)) if isinstance(body, bytes) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
