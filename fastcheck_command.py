"""The command ``fastcheck`` as a process: its streams, Ctrl-C at any moment, and status 3 for what nobody expected.

It stands beside the package because importing that takes a while, in which Ctrl-C may be pressed, and may fail.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn, TextIO

UNEXPECTED = 3
INTERRUPTED = 130

_LONGEST = 500
"""Characters of a message that are shown."""


def main() -> NoReturn:
    """Run the command line and exit with its status, which is 3 after an exception that nobody expected."""
    try:
        _prepare_streams()
        _hear(_end)  # raised amid an import, KeyboardInterrupt may be lost
        from fastcheck.cli import main as cli

        _hear(signal.default_int_handler)
        status = cli.status(sys.argv[1:])
    except KeyboardInterrupt:
        status = _interrupted()
    except BaseException as error:  # SystemExit too: only the last line here exits
        status = _unexpected(error)
    _hear(_end)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        _flush(stream)
    sys.exit(status)


def _prepare_streams() -> None:
    """Make the standard streams take any text, and exist: a closed one would be the next file that is opened."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, for the process's life
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush(stream: TextIO) -> None:
    """Leave nothing that cannot be written, such as a warning: Python would end with a status of its own."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _hear(handler: Any) -> None:
    """Answer Ctrl-C in this way, unless whoever started the process ignores it, as `nohup` does."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End at once, while there is nothing to leave in order."""
    os._exit(_interrupted())


def _interrupted() -> int:
    _write("fastcheck: interrupted\n")
    return INTERRUPTED


def _unexpected(error: BaseException) -> int:
    hint = "set FASTCHECK_TRACEBACK=1 to see the traceback"
    if os.environ.get("FASTCHECK_TRACEBACK"):
        from traceback import format_exception

        _write("".join(format_exception(error)))
        hint = "its traceback is above"
    _write(f"fastcheck: unexpected {type(error).__name__}: {str(error)[:_LONGEST]!r}; {hint}\n")
    return UNEXPECTED


def _write(text: str) -> None:
    """Write to standard error, past Python's buffer; if that fails, the exit status is all there is."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
