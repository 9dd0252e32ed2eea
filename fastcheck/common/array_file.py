"""Arrays in files. Headers are checked before anything is allocated, and no byte beyond what they declare is read."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief
from fastcheck.common.opened import Opened, Readable

_READERS = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
    (3, 0): (4, np.lib.format.read_array_header_2_0),
}
"""By version of the format: the bytes that hold the header's length, and the function that reads the header."""

_LONGEST_HEADER = 10_000
"""Bytes. NumPy accepts no longer header either, but reads all of it before it refuses: up to 4 GB."""

_CHUNK = 2**20

_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that inflate no more than is asked for; with others, a few bytes become gigabytes at once."""


_FOREIGN = {
    b"\x93NUMPY": "an .npy file, of one array",
    b"\x80": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a file of MATLAB",
}
"""Kinds of other files by their first bytes."""

_WRITTEN = {
    ".npz": "expected an .npz file, as np.savez(file, name=array) writes",
    ".npy": "expected an .npy file, as np.save(file, array) writes",
}


class Header(NamedTuple):
    """An array as a file declares it."""

    shape: Shape
    fortran: bool
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Bytes that the entries take."""
        return math.prod((self.dtype.itemsize, *self.shape))

    @property
    def needed(self) -> int:
        """Bytes of memory for the array, and for the float64 copy that a check makes of any other dtype."""
        return self.bytes + (0 if self.dtype == np.float64 else 8 * math.prod(self.shape))


def read_header(stream: Readable, size: int, what: str) -> Header:
    """Read the header of an array from a stream of ``size`` bytes; refusals call the array ``what``.

    Raises
    ------
    FastcheckError
        If the header declares a pickled array, or more than the memory or the stream holds.
    """
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]  # it only calls read
    if version not in _READERS:
        raise FastcheckError(f"{what} has version {version} of the .npy format: expected (1, 0), (2, 0) or (3, 0)")
    count, read = _READERS[version]
    start = stream.read(count)
    length = int.from_bytes(start, "little")
    if length > _LONGEST_HEADER:
        raise FastcheckError(f"{what} declares a header of {length:,} bytes: expected at most {_LONGEST_HEADER:,}")
    with warnings.catch_warnings(action="ignore"):  # Python parses a damaged header as code, and warns
        header = Header(*read(io.BytesIO(start + stream.read(length))))
    if header.dtype.hasobject:
        raise FastcheckError(f"{what} is a pickled array of objects: expected float64, float32, float16 or bfloat16")
    if any(extent < 0 for extent in header.shape):
        raise FastcheckError(f"{what} declares shape {brief(header.shape)}: expected no negative sizes")
    total = brief(f"{header.bytes:,}")
    declared = f"{what} declares shape {brief(header.shape)} of {brief(header.dtype)}, {total} bytes"
    machine.refuse_beyond(header.needed, lambda available: f"{declared}: it does not fit in memory")
    held = size - np.lib.format.MAGIC_LEN - count - length
    if header.bytes > held:
        raise FastcheckError(f"{what} is truncated: it declares {header.bytes:,} bytes and holds {max(held, 0):,}")
    return header


def read_array(stream: Readable, size: int, what: str) -> np.ndarray:
    """Read an array and its header from a stream of ``size`` bytes; raises as `read_header` does."""
    header = read_header(stream, size, what)
    buffer = np.empty(header.bytes, np.uint8)
    at = 0
    while at < header.bytes:
        chunk = stream.read(min(_CHUNK, header.bytes - at))
        if not chunk:
            raise FastcheckError(f"{what} is truncated: it declares {header.bytes:,} bytes and holds {at:,}")
        buffer[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return np.ndarray(header.shape, header.dtype, buffer, order="F" if header.fortran else "C")


class Archive:
    """An open ``.npz`` file.

    Raises
    ------
    FastcheckError
        If the file is not an ``.npz`` archive, or is damaged.
    """

    def __init__(self, file: Opened) -> None:
        self._file = file
        try:
            self._archive = zipfile.ZipFile(file.stream)
        except Exception as error:  # as in `understood`
            refuse_foreign(file, ".npz")
            raise FastcheckError(f"{file} is not an .npz file, or is truncated: {brief(error)}") from None
        if any(name.endswith("/data.pkl") for name in self._archive.namelist()):
            raise FastcheckError(f"{file} is a file of torch.save: {_WRITTEN['.npz']}")
        self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        for key, info in self._members.items():
            if info.compress_type not in _BOUNDED:
                raise FastcheckError(f"{brief(key)} in {file} is compressed with a method that NumPy does not write")

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all arrays."""
        return tuple(self._members)

    def choose(self, names: Mapping[str, str]) -> None:
        """Keep these arrays alone, under other keys.

        Parameters
        ----------
        names : mapping of str to str
            Names in the file, by the keys under which they are read from now on.
        """
        self._members = {key: self._members[name] for key, name in names.items()}

    def header(self, key: str) -> Header:
        """Read the header of an array; raises as `read_header` does."""
        with self._member(key) as (stream, size, what):
            return read_header(stream, size, what)

    def array(self, key: str) -> np.ndarray:
        """Read an array, and add it and its name to the file's digest; raises as `read_header` does."""
        with self._member(key) as (stream, size, what):
            self._file.note(f"{key}\0".encode(errors="surrogateescape"))
            return read_array(self._file.noted(stream), size, what)

    @contextmanager
    def _member(self, key: str) -> Iterator[tuple[Readable, int, str]]:
        what = f"{brief(key)} in {self._file}"
        with understood(what), self._archive.open(self._members[key]) as stream:
            yield stream, self._members[key].file_size, what


def refuse_foreign(file: Opened, wanted: Literal[".npz", ".npy"]) -> None:
    """Refuse a file of another kind, judged by its first bytes."""
    with suppress(OSError):  # a pipe cannot seek back
        file.stream.seek(0)
        start = file.stream.read(8)
        file.stream.seek(0)
        kind = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), wanted)
        if wanted not in kind:
            raise FastcheckError(f"{file} is {kind}: {_WRITTEN[wanted]}")


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Turn whatever damaged data raise into one clear line about ``what``."""
    try:
        yield
    except FastcheckError:
        raise
    except MemoryError:
        raise FastcheckError(f"{what} does not fit in memory") from None
    except Exception as error:  # damaged headers make NumPy, zipfile and tokenize raise nearly anything
        raise FastcheckError(f"{what} cannot be read; it is not an array, or is truncated: {brief(error)}") from None
