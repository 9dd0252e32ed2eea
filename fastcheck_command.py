"""The command ``fastcheck`` as a process: its streams, Ctrl-C at any moment, and status 3 for unexpected exceptions.

It is not part of the package, because importing the package takes a while, during which Ctrl-C may be pressed, and
because the import may fail.
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

_LONGEST_MESSAGE = 500
"""Largest number of characters of an exception's message that are printed."""


def main() -> NoReturn:
    """Run the command line and exit with its status, which is 3 after an unexpected exception."""
    try:
        _prepare_streams()
        _on_ctrl_c(_end)  # a KeyboardInterrupt raised during an import could be lost
        from fastcheck.cli import main as cli

        _on_ctrl_c(signal.default_int_handler)
        status = cli.status(sys.argv[1:])
    except KeyboardInterrupt:
        status = _interrupted()
    except BaseException as error:  # SystemExit too: only the last line of this function exits
        status = _unexpected(error)
    _on_ctrl_c(_end)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        _flush(stream)
    sys.exit(status)


def _prepare_streams() -> None:
    """Ensure that the standard streams exist and accept any text.

    If one is closed, the next file to be opened would take its number.
    """
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
    """Flush a stream, and discard what cannot be written; otherwise Python would exit with a status of its own."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _on_ctrl_c(handler: Any) -> None:
    """Set the handler of Ctrl-C, unless the parent process made this one ignore it, as `nohup` does."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End the process at once, at a time when there is nothing to clean up."""
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
    _write(f"fastcheck: unexpected {type(error).__name__}: {str(error)[:_LONGEST_MESSAGE]!r}; {hint}\n")
    return UNEXPECTED


def _write(text: str) -> None:
    """Write to standard error without Python's buffer; if that fails, only the exit status remains."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
