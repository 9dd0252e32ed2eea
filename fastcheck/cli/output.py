"""What commands write: files checked before any work, reports, and standard output that somebody may stop reading."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from fastcheck.common import writing
from fastcheck.common.errors import FastcheckError
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import SuiteReport


def check_paths(
    table_path: str | None,
    json_path: str | None,
    read: tuple[str, ...] = (),
    option: str = "--table",
    folders: tuple[str, ...] = (),
) -> None:
    """Refuse output paths that could not be written, or would overwrite what is read, a ledger or each other."""
    if table_path == "-":
        raise FastcheckError(f"{option} is '-': expected a file (only --json writes to standard output)")
    taken = {os.path.realpath(path) for path in read}
    for path in (table_path, json_path):
        if path is None:
            continue
        name = "/dev/stdout" if path == "-" else path
        if path != "-":
            writing.check_writable(path)
            for folder in folders:
                _refuse_ledgers_own(path, folder)
        place = os.path.realpath(name)
        if place in taken:
            raise FastcheckError(f"{name} is named twice: expected an output file of its own")
        taken.add(place)


def _refuse_ledgers_own(path: str, folder: str) -> None:
    from fastcheck.batch.ledger.schema import is_ledgers_own  # only here, so that other commands start sooner

    if is_ledgers_own(path, folder):
        raise FastcheckError(f"{path} belongs to the ledger in {folder}: expected an output file of its own")


def deliver_table(report: Report, table_path: str | None) -> None:
    """Write the table that was asked for."""
    from fastcheck.render.table import write_table

    if table_path is not None:
        writing.write_whole(table_path, lambda stream: write_table(report, stream))


def deliver(report: Report | SuiteReport, title: str, json_path: str | None) -> None:
    """Write the JSON report that was asked for, and print the report."""
    from fastcheck.render.text import as_text

    if json_path == "-":
        say(report.to_json())
        return
    if json_path is not None:
        writing.write_whole(json_path, lambda stream: stream.write(report.to_json()))
    say(as_text(report, sys.stdout, title))


def say(text: str) -> None:
    """Write to standard output; whoever reads it may stop reading, which is no failure of the check."""
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        pass
    except OSError as error:
        raise FastcheckError(f"standard output cannot be written: {error.strerror or error}") from None


def complain(text: str) -> None:
    """Write to standard error; if that fails, the exit status is all there is."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    """Write to a standard stream; one that cannot be written leads nowhere from then on, so that this is told once."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise
