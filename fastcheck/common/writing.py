"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from fastcheck.common.errors import FastcheckError

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


def write_whole(path: str | os.PathLike[str], write: Callable[[TextIO], object]) -> None:
    """Write a text file as `write_bytes` does.

    Raises
    ------
    FastcheckError
        If the file cannot be written. Nothing is left behind then, and a file that was there stays as it was.
    """
    text = {"mode": "w", "encoding": "utf-8", "newline": ""}
    _write(path, write, text)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it.

    Links are followed and a file's mode is kept. A path that is not a regular file (a pipe, a device, an open
    descriptor such as ``/dev/stdout`` or ``/dev/fd/3``) is written to directly.

    Raises
    ------
    FastcheckError
        If the file cannot be written. Nothing is left behind then, and a file that was there stays as it was.
    """
    _write(path, lambda stream: stream.write(data), {"mode": "wb"})


def _write(path: str | os.PathLike[str], write: Callable[[Any], object], opening: dict[str, Any]) -> None:
    temporary = None
    try:
        direct = _direct(path)
        if direct is not None:
            with open(direct, closefd=isinstance(direct, str), **opening) as stream:
                write(stream)
            return
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".fastcheck-", suffix=".part")
        with os.fdopen(handle, **opening) as stream:
            write(stream)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except OSError as error:
        raise FastcheckError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _direct(path: str | os.PathLike[str]) -> int | str | None:
    """Return the descriptor or path to write to directly; None where the path is a regular file's or does not exist.

    A descriptor may lead to a regular file, but whoever opened that would not see another file renamed over it.
    """
    name = os.path.abspath(path)
    if name in _STREAMS:
        return _STREAMS[name]
    if numbered := _DESCRIPTOR.fullmatch(name):
        return int(numbered[1])
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return os.fspath(path)
    return None


def _umask() -> int:
    """Return the process's file mode mask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written, before work is spent on what should go there.

    Raises
    ------
    FastcheckError
        If it is not a path, it is a folder, or it or its folder is absent or not writable.
    """
    name = os.fspath(path)
    if not name or "\0" in name:
        raise FastcheckError(f"{name!r} cannot be written: expected the path of a file")
    if os.path.isdir(path):
        raise FastcheckError(f"{path} cannot be written: it is a folder")
    try:
        direct = _direct(path)
        if direct is None:
            _check_folder(path)
        elif isinstance(direct, int):
            os.write(direct, b"")  # fails where it is closed, or open for reading
        elif not os.access(direct, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise FastcheckError(f"{path} cannot be written: {error.strerror or error}") from None


def _check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a path in whose folder no file can be made."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FastcheckError(f"{path} cannot be written: {folder} is not a folder")
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str], mark: str, replace: bool) -> Iterator[Path]:
    """Write a folder under a temporary name beside its place, then rename it.

    Parameters
    ----------
    path : path
    mark : str
        Name of a file that shows that a folder is one of this kind.
    replace : bool
        Whether to replace such a folder.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    FastcheckError
        If something else is there, or the folder cannot be written. Nothing is left behind then, and a folder that was
        there stays as it was.
    """
    target = Path(os.path.realpath(path))
    _refuse_folder(path, target, mark, replace)
    made = None
    try:
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=".fastcheck-", suffix=".part"))
        yield made
        os.chmod(made, 0o777 & ~_umask())
        _put(made, target)
    except OSError as error:
        raise FastcheckError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, target: Path) -> None:
    """Rename a folder to its place, and remove what is there only once the new one is."""
    if not target.exists():
        os.rename(made, target)
        return
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fastcheck-", suffix=".part") as aside:
        os.rename(target, Path(aside) / "old")
        os.rename(made, target)


def _refuse_folder(path: str | os.PathLike[str], target: Path, mark: str, replace: bool) -> None:
    name = os.fspath(path)
    if not name or "\0" in name:
        raise FastcheckError(f"{name!r} cannot be written: expected the path of a folder")
    if not target.parent.is_dir():
        raise FastcheckError(f"{path} cannot be written: {target.parent} is not a folder")
    if target.exists() and not target.is_dir():
        raise FastcheckError(f"{path} cannot be written: it is a file, not a folder")
    if target.is_dir() and any(target.iterdir()):
        if not (target / mark).is_file():
            raise FastcheckError(f"{path} is not empty: expected a new folder")
        if not replace:
            raise FastcheckError(f"{path} has probes already: expected a new folder, or --force to replace all of it")
