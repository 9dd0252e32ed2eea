"""NumPy's files: ``.npz`` archives and ``.npy`` arrays, whose headers are checked before anything is allocated."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np

from fastcheck.common import machine
from fastcheck.common.array_file import Archive, Header, read_array, refuse_foreign, understood
from fastcheck.common.npz_names import Wanted
from fastcheck.common.opened import Opened, Source, opened
from fastcheck.common.writing import write_bytes


def read_npz(path: Source) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` file, after checking all headers.

    Raises
    ------
    FastcheckError
        If the file is absent, damaged or not an archive, if an array is pickled, or if they are too large.
    """
    with opened(path) as file:
        archive = archive_of(file)
        return {key: archive.array(key) for key in archive.keys}


def archive_of(file: Opened, wanted: Wanted | None = None) -> Archive:
    """Open an archive, after checking its keys, and that memory has room for all that it declares.

    By default any key will do.
    """
    archive = Archive(file)
    if wanted is not None:
        archive.choose(wanted.chosen(str(file), archive.keys))
    needed = sum(archive.header(key).needed for key in archive.keys)
    message = f"{file} has arrays that need {needed:,} bytes"
    machine.refuse_beyond(
        needed, lambda available: f"{message}, and {available:,} are available: expected smaller arrays"
    )
    return archive


def read_headers(path: Source) -> dict[str, Header]:
    """Read the headers of every array of an ``.npz`` file, and nothing else; raises as `read_npz` does."""
    with opened(path) as file:
        archive = archive_of(file)
        return {key: archive.header(key) for key in archive.keys}


def read_npy(path: Source) -> np.ndarray:
    """Read one array from an ``.npy`` file, after checking its header.

    Raises
    ------
    FastcheckError
        If the file is absent or damaged, or the array is pickled or too large.
    """
    with opened(path) as file, understood(str(file)):
        refuse_foreign(file, ".npy")
        return read_array(file.stream, file.size, str(file))


def is_archive(file: Opened) -> bool:
    """Whether a file is an archive, judged by its first bytes."""
    with understood(str(file)):  # a pipe cannot seek back
        file.stream.seek(0)
        starts_as_zip = file.stream.read(4).startswith(b"PK")
        file.stream.seek(0)
    return starts_as_zip


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file as `write_bytes` does.

    Raises
    ------
    FastcheckError
        If the file cannot be written. Nothing is left behind then, and a file that was there stays as it was.
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # keywords are arrays
    write_bytes(path, stream.getvalue())
