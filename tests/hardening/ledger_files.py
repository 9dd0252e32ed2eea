"""Ledgers for ``show``, ``diff`` and a ``run`` that goes on: changed as bytes, and through SQL."""

import contextlib
import functools
import json
import sqlite3
import tempfile
import zlib
from pathlib import Path

from mutation import FLOATS, INTEGERS, TEXTS, changed_bytes, changed_tree
from report_files import settled, view
from suite_files import SUITE, files
from trials import Trial, run

from fastcheck.batch.ledger.ledger import _checksum
from fastcheck.batch.ledger.schema import NAME

_TOKENS = (
    b"SQLite format 3\0",
    b"CREATE TABLE",
    b"cases",
    b"reports",
    b"TEXT",
    b"BLOB",
    b"pass",
    b"fail",
    b"ok",
    b"\2\2",
    b"x\x9c",
)

_BODIES = (
    b"",
    b"x",
    zlib.compress(b"[]"),
    zlib.compress(b"{}"),
    zlib.compress(b"[" * 10**5),
    zlib.compress(bytes(2**24)),
)

_JSON = (
    "{}",
    "[]",
    "3",
    '"x"',
    "[" * 3000,
    '{"threads": []}',
    '{"threads": "x"}',
    '{"target": 3}',
    '{"versions": "x"}',
)

_CELLS = ((None,), INTEGERS, FLOATS, tuple(text for text in TEXTS if text != "\ud800"), _BODIES, _JSON)
"""What a column is set to, by type."""

_STATEMENTS = (
    *(
        "DELETE FROM {table}",
        "DROP TABLE {table}",
        "ALTER TABLE {table} RENAME TO other",
        "INSERT INTO suite SELECT * FROM suite",
    ),
    *("ALTER TABLE {table} RENAME COLUMN {column} TO other", "UPDATE {table} SET {column} = NULL"),
    *(
        "PRAGMA user_version = 2",
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 1",
        "DELETE FROM reports WHERE rowid = 1",
    ),
    *(
        "UPDATE cases SET verdict = NULL",
        "UPDATE cases SET position = 1",
        "UPDATE {table} SET {column} = CAST({column} AS BLOB)",
    ),
    "UPDATE {table} SET {column} = CAST({column} AS TEXT)",
)


@functools.cache
def base():
    """Return the bytes of a ledger that is finished."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, content in beside().items():
            Path(name).write_bytes(content)
        status, found = run(Trial(["run", "suite.toml", "--out", "out", "--threads", "1"]))
        assert (status, found) == (0, []), (status, found)
        return _settled((Path("out") / NAME).read_bytes())


def beside():
    """Return what lies beside a ledger: a suite and its files."""
    return files() | {"suite.toml": SUITE.encode()}


def _settled(data):
    """Return a ledger without what differs from run to run: times, and the order of pages."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as book:
        book.deserialize(data)
        book.execute("UPDATE runs SET started = '', ended = '', facts = '{}', outcome = '{}'")
        book.execute("UPDATE shards SET seconds = 0.5")
        book.execute("UPDATE workers SET name = 'thread ' || id")
        book.execute("UPDATE cases SET seconds = 0.5")
        for case_id, key, report in _reports(book):
            _sign(book, case_id, key, zlib.compress(json.dumps(settled(report)).encode()))
        book.execute("VACUUM")
        return book.serialize()


def _reports(book):
    rows = book.execute("SELECT id, key, body FROM cases JOIN reports ON case_id = id ORDER BY id").fetchall()
    return [(case_id, key, json.loads(zlib.decompress(body))) for case_id, key, body in rows]


def _sign(book, case_id, key, body):
    """Put a body in the place of a case's report, with the checksum that makes it one."""
    book.execute("UPDATE reports SET body = ?, checksum = ? WHERE case_id = ?", (body, _checksum(body, key), case_id))


def prepare():
    """Return what makes a ledger."""
    whole, others = base(), beside()

    def make(rng, folder):
        data = changed_bytes(rng, whole, _TOKENS, whole) if rng.random() < 0.4 else _through_sql(rng, whole)
        (folder / "out").mkdir()
        (folder / "out" / NAME).write_bytes(data)
        what = rng.choice(("show", "show", "show", "diff", "run"))
        if what == "show":
            return Trial(["show", "out", *view(rng)])
        if what == "diff":
            (folder / "other").mkdir()
            (folder / "other" / NAME).write_bytes(whole)
            return Trial(["diff", *rng.sample(("out", "other"), 2), *rng.choice(((), ("--json", "-")))])
        for name, content in others.items():
            (folder / name).write_bytes(content)
        return Trial(["run", "suite.toml", "--out", "out", "--threads", "1"])

    return make


def _through_sql(rng, data):
    """Return a ledger whose tables hold something else; its checksums are right where a report is changed."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as book:
        book.deserialize(data)
        if rng.random() < 0.4:
            _report(rng, book)
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            with contextlib.suppress(sqlite3.Error):  # what SQLite itself forbids
                rng.choice((_cell, _cell, _cell, _statement))(rng, book)
        return book.serialize()


def _column(rng, book):
    """Choose a table and one of its columns."""
    tables = [name for (name,) in book.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    table = rng.choice((*tables, *{"cases", "runs"}.intersection(tables)))
    return table, rng.choice([row[1] for row in book.execute(f"PRAGMA table_info({table})")])


def _cell(rng, book):
    """Change a column of one row or of all, whatever type it is declared as."""
    table, column = _column(rng, book)
    row = rng.choice(("1", f"{column} = (SELECT {column} FROM {table} LIMIT 1)"))
    book.execute(f"UPDATE {table} SET {column} = ? WHERE {row}", (rng.choice(rng.choice(_CELLS)),))


def _report(rng, book):
    """Put another report in the place of one, and its verdict beside it."""
    case_id, key, report = rng.choice(_reports(book))
    changed_tree(rng, report)
    _sign(book, case_id, key, rng.choice((zlib.compress(json.dumps(report).encode()),) * 5 + _BODIES))
    verdict = report.get("verdict")
    if isinstance(verdict, str) and verdict.isascii():
        book.execute("UPDATE cases SET verdict = ? WHERE id = ?", (verdict, case_id))


def _statement(rng, book):
    table, column = _column(rng, book)
    book.execute(rng.choice(_STATEMENTS).format(table=table, column=column))
