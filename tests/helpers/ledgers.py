"""Ledgers for tests: small real reports, ones changed by hand, and names that want to harm whoever prints them."""

import csv
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace

from layer_examples import case, layer

import fastcheck
from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
from fastcheck.reports.suite_report import HygieneLine, NetworkReport, SuiteReport

LAYER = layer((1, 2, 6, 6), (3, 2, 3, 3), padding=1)

FACTS = {"threads": 3, "target": "x86_64 tested", "versions": {"fastcheck": "9.9"}}

HOSTILE = (
    *("quote\"'", "new\nline", "return\rline", "\x1b[31mred\x1b[0m", "\x9b2J", "<b>&amp;]]></b>"),
    *("=cmd()", "+1", "-2", "@sum", "\t=tab()", "\uff1d1", "\u202eright to left", "nul\x00"),
    *("bell\x07", "\ufffe", "[bold]markup", "a,b;c", "é✓"),
)
"""Names of cases."""


OWN = (
    *("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite-journal", "ledger.new.sqlite"),
    *("lock.sqlite", "lock.sqlite-journal", "ledger-1.sqlite", "ledger-12.sqlite-wal", "Ledger.SQLITE"),
)
"""Names of files that belong to a ledger."""


def reports():
    """Return a report of every verdict; that of "fail" has a wrong bias, and "network" another first phase."""
    good = case(LAYER)
    passed = fastcheck.check(good, dims="all", evaluator="local", threads=1)
    failed = fastcheck.check(case(LAYER, grads=good.grads | {"bias": -good.grads["bias"]}), dims="all", threads=1)
    no_time = passed.run | {"seconds": 0.0}
    crashed = replace(passed, verdict="error", tensors={}, error="ValueError: of some kind", run=no_time)
    return {
        "pass": passed,
        "fail": failed,
        "error": crashed,
        "inconclusive": replace(passed, verdict="inconclusive"),
        "forward": fastcheck.check(case(LAYER, output=good.output * 2), threads=1),
        "network": network(failed, passed),
    }


def network(*phases):
    """Put reports together as those of a network's phases."""
    named = dict(zip(("data loss", "with regularisation"), phases, strict=True))
    suite = SuiteReport.of(named, threads=2)
    return NetworkReport(named, False, suite.run, (HygieneLine("loss", "done", "declared"),), ())


def renamed(report, name):
    """Return a report whose tensors, reasons and error have this name in them."""
    tensors = {
        f"{name}.{key}": replace(tensor, reason=f"{name} is why", advice=f"try {name}")
        for key, tensor in report.tensors.items()
    }
    return replace(report, tensors=tensors, error=None if report.error is None else f"{name} crashed")


def ledger(folder, cases, name="nightly", ended=True, seconds=2.0, target="x86_64 tested"):
    """Make a ledger of these reports by name, None where a case is waiting; return the folder."""
    with Ledger.open(folder, name, "text", target) as book:
        book.sync([PlannedCase(case_name, f"key {case_name}", {}, 1.0) for case_name in cases])
        number = book.begin_run(FACTS)
        for case_name, report in cases.items():
            if report is not None:
                book.finish(f"key {case_name}", report.to_dict(), seconds)
        if ended:
            book.end_run(number, {})
    return folder


def rows(path):
    """Read a CSV file."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


VALUES = ("NULL", "9e999", "'x'", "CAST(X'ff41' AS TEXT)", "X'00ff'")
"""One of every kind that SQLite can put into any column, with text that is no UTF-8."""


def columns(folder):
    """Return (table, column) for every column of a ledger."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as book:
        tables = [name for (name,) in book.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in book.execute(f"PRAGMA table_info({table})")]


def damage(folder, table, column, value):
    """Put a value into a column of every row, whatever the schema says; tell whether there was one to change."""
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as book:
        book.execute("PRAGMA writable_schema = ON")
        book.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name NOT IN ('findings', 'shards')"
        )
        book.execute("PRAGMA writable_schema = RESET")
        try:
            return book.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}").rowcount > 0
        except sqlite3.IntegrityError:  # of what keeps its keys
            return False


def sign(folder, change):
    """Change every report, and sign it as the ledger does."""
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as book:
        found = book.execute("SELECT case_id, key, body FROM reports JOIN cases ON cases.id = case_id").fetchall()
        for case_id, key, body in found:
            changed = change(body)
            book.execute(
                "UPDATE reports SET body = ?, checksum = ? WHERE case_id = ?",
                (changed, zlib.crc32(changed, zlib.crc32(key.encode())), case_id),
            )
