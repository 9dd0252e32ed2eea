"""What must hold of the command line whatever it reads: a known status, one line for bad input, nothing left over."""

import contextlib
import io
import os
import re
import signal
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import click

import fastcheck
from fastcheck import FastcheckError
from fastcheck.cli import main as cli
from fastcheck.common import machine

STATUSES = (0, 1, 2, 3)

LONGEST = 500
"""Letters of a refusal."""

PATIENCE = 20
"""Seconds for a file, all of which are small."""

FREE = 2**30
"""Bytes of memory that the machine is said to have: what a file asks for is refused by the same number everywhere."""

GROWTH = 2**29
"""Bytes by which a file may raise the largest size that this process ever had."""

_EXPECTED = (FastcheckError, click.ClickException, click.exceptions.Exit)
_ROOT = Path(fastcheck.__file__).parent


class Trial(NamedTuple):
    """A command line to run.

    Attributes
    ----------
    arguments : list of str
    wrong : bool
        Whether a gradient is wrong, so that it must not pass.
    """

    arguments: list[str]
    wrong: bool = False


class Finding(NamedTuple):
    """What was wrong.

    Attributes
    ----------
    where : str
        The place in the source that raised; a broken rule's own words where nothing did.
    told : str
    """

    where: str
    told: str


class _Late(BaseException):
    """A file takes too long."""


def run(trial, timed=False):
    """Run a command line in the current folder; return its status and what is wrong with how it ended.

    Parameters
    ----------
    trial : Trial
    timed : bool
        End it after `PATIENCE`.
    """
    raised, heard = [], []
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    files, peak, start = _files(), machine.peak_bytes(), time.monotonic()
    with (
        _catching(raised),
        _hearing(heard),
        mock.patch.object(machine, "available_bytes", return_value=FREE),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _alarm(timed),
    ):
        try:
            cli.main(trial.arguments)
        except SystemExit as stopped:
            status = stopped.code
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            status = None
            raised += [error] if error not in raised else []
    told, complaint = (_text(stream) for stream in (out, err))
    found = [
        Finding(f"{type(error).__name__} at {_raiser(error)}", _last(error)) for error in raised if not _good(error)
    ]
    found += [Finding(f"warning at {place}", words) for place, words in heard]
    if not found:
        by = f", {_raiser(raised[-1])}" if raised else ""
        broken = _broken_rules(trial, status, told, complaint)
        found = [Finding(f"{rule}{by}", complaint[-200:] or told[-200:]) for rule in broken]
    found += [Finding(f"{name} is left behind", complaint) for name in _left(files, _files(), trial, status)]
    if timed and time.monotonic() - start > PATIENCE:
        found.append(Finding("it takes long", complaint))
    if (machine.peak_bytes() or 0) - (peak or 0) > GROWTH:
        found.append(Finding("it takes much memory", complaint))
    return status, found


def _broken_rules(trial, status, out, err):
    """Give the rules that a run breaks, each in few words that are the same for all its breaches."""
    waits = status == 130 and trial.arguments[0] == "show"  # of a report that says that it was interrupted
    if status not in STATUSES and not waits:
        yield f"status {status}"
    if "Traceback" in out + err:
        yield "a traceback is printed"
    if status == 3 and "unexpected" in err:
        yield "an unexpected error is told"
    if status == 3 and re.search(r"\b[A-Z]\w*(Error|Exception)\b: ", out + err):
        yield "a case ended by an exception"
    listed = "--dry-run" in trial.arguments and not err  # the plan says what cannot run
    if status == 2 and trial.arguments and not listed:
        if out and trial.arguments[0] != "run":  # which tells of each case as it ends, and meets a bad ledger later
            yield "a refusal writes to standard output"
        if not re.fullmatch(r"fastcheck: [^\n]+\n", err):
            yield "a refusal is not one line"
        if len(err) > LONGEST:
            yield "a refusal is long"
    if trial.wrong and status == 0:
        yield "a wrong gradient passes"


@contextlib.contextmanager
def _catching(raised):
    """Note what comes out of the commands, and out of threads, before anything is made of it."""

    def noting(step):
        def call(*arguments, **options):
            try:
                return step(*arguments, **options)
            except Exception as error:
                raised.append(error)
                raise

        return call

    with contextlib.ExitStack() as patches:
        for step in ("make_context", "invoke"):
            patches.enter_context(mock.patch.object(cli.cli, step, noting(getattr(cli.cli, step))))
        patches.enter_context(mock.patch.object(threading, "excepthook", lambda told: raised.append(told.exc_value)))
        yield


@contextlib.contextmanager
def _hearing(heard):
    """Note warnings, even where somebody makes errors of them."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in told:
                place = f"{Path(warning.filename).name}:{warning.lineno}"
                heard.append((place, f"{warning.category.__name__}: {warning.message}"))


@contextlib.contextmanager
def _alarm(timed):
    """End what takes long, wherever it is in Python."""
    if not timed:
        yield
        return

    def late(number, frame):
        raise _Late(f"after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _good(error):
    return isinstance(error, _EXPECTED)


def _raiser(error):
    """Return the innermost line of fastcheck's own that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT)]
    frame = (ours or frames)[-1]
    name = Path(frame.filename)
    return f"{name.relative_to(_ROOT.parent) if ours else name.name}:{frame.lineno}"


def _last(error):
    return "".join(traceback.format_exception_only(error)).strip()[-300:]


def _text(stream):
    stream.flush()
    return stream.buffer.getvalue().decode()


def _files():
    """Return the names of all files in the current folder and below."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names}


def _left(before, after, trial, status):
    """Return the kinds of files that nobody asked for, or that a refusal leaves behind."""
    for path in sorted(after - before):
        asked = os.path.basename(path) in map(os.path.basename, trial.arguments) and status != 2
        within = trial.arguments[0] in ("run", "probe") and path.startswith("./out/")
        if path.endswith(".part") or not (asked or within):
            yield os.path.basename(path) if not path.endswith(".part") else "a temporary file"
