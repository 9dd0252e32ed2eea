"""What commands write: files checked before any work, reports, and standard output that somebody may stop reading."""

from __future__ import annotations

import os
import sys

from fastcheck import npz
from fastcheck.errors import FastcheckError
from fastcheck.report import Report
from fastcheck.suite import SuiteReport


def check_paths(
    table_path: str | None, json_path: str | None, read: tuple[str, ...] = (), option: str = "--table"
) -> None:
    """Refuse output paths that could not be written, or that would overwrite each other or what is read."""
    if table_path == "-":
        raise FastcheckError(f"{option} is '-': expected a file (only --json writes to standard output)")
    taken = {os.path.realpath(path): path for path in read}
    for path in (table_path, json_path):
        if path is None or path == "-":
            continue
        npz.check_writable(path)
        if os.path.realpath(path) in taken:
            raise FastcheckError(f"{path} is named twice: expected an output file of its own")
        taken[os.path.realpath(path)] = path


def deliver_table(report: Report, table_path: str | None) -> None:
    """Write the table that was asked for."""
    from fastcheck.render.table import write_table

    if table_path is not None:
        npz.write_whole(table_path, lambda stream: write_table(report, stream))


def deliver(report: Report | SuiteReport, title: str, json_path: str | None) -> None:
    """Write the JSON report that was asked for, and print the report."""
    from fastcheck.render.text import as_text

    if json_path == "-":
        say(report.to_json())
        return
    if json_path is not None:
        npz.write_whole(json_path, lambda stream: stream.write(report.to_json()))
    say(as_text(report, sys.stdout, title))


def say(text: str) -> None:
    """Write to standard output; whoever reads it may stop reading, which is no failure of the check."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FastcheckError(f"standard output cannot be written: {error.strerror or error}") from None
