"""Output of the commands: path checks before any work, results, and standard output that may be closed early."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
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
    """Refuse output paths that cannot be written, or that would overwrite an input, a ledger or each other."""
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
        real = os.path.realpath(name)
        if real in taken:
            raise FastcheckError(f"{name} is named twice: expected another output file")
        taken.add(real)


def _refuse_ledgers_own(path: str, folder: str) -> None:
    from fastcheck.batch.ledger.schema import is_ledgers_own  # imported here, so that other commands start faster

    if is_ledgers_own(path, folder):
        raise FastcheckError(f"{path} belongs to the ledger in {folder}: expected another output file")


def deliver_table(report: Report, table_path: str | None) -> None:
    """Write the table of a report, if it was requested."""
    from fastcheck.render.dimensions_csv import write_table

    if table_path is not None:
        writing.write_whole(table_path, lambda stream: write_table(report, stream))


def deliver(to_json: Callable[[], str], as_text: Callable[[], str], json_path: str | None) -> None:
    """Print a result as text, after writing it as JSON if that was requested; for ``-``, print only the JSON."""
    if json_path == "-":
        say(to_json())
        return
    if json_path is not None:
        writing.write_whole(json_path, lambda stream: stream.write(to_json()))
    say(as_text())


def deliver_report(
    report: Report | SuiteReport, title: str, json_path: str | None, *, verbose: bool = False, mapped: bool = False
) -> None:
    """Print a report, or its JSON, as `deliver` does."""
    from fastcheck.render.text import as_text

    deliver(report.to_json, lambda: as_text(report, sys.stdout, title, verbose=verbose, mapped=mapped), json_path)


def say(text: str) -> None:
    """Write to standard output. A reader that stops reading does not make the command fail."""
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        pass
    except OSError as error:
        raise FastcheckError(f"standard output cannot be written: {error.strerror or error}") from None


def complain(text: str) -> None:
    """Write to standard error; if that fails, only the exit status remains."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    """Write to a standard stream; after a failure, discard all further output, so that the error is reported once."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise
