"""Arrays in the files of a program: raw little-endian numbers, ``.npy`` and ``.npz``, written and read."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.array_file import read_header, understood
from fastcheck.common.arrays import Floating, floating
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed
from fastcheck.common.npz import archive_of, is_archive, read_npy, read_npz
from fastcheck.common.opened import opened

ENDINGS = {"raw": ".bin", "npy": ".npy"}

_WIDTHS = {8: "float64", 4: "float32", 2: "float16"}
"""Types of raw files by the bytes of an entry."""

_RAW = re.compile(r"(?P<path>.+):(?P<dtype>\w+):(?P<shape>[\dx]*)")
_NAMED = re.compile(r"(?P<name>[\w.\-]+)=(?P<path>.+)", re.DOTALL)

_KNOWN = ("float64", "float32", "int64", "int32", "uint8", "int8", "int16")
"""Types that a raw input may have."""


class Source(NamedTuple):
    """An array on disk.

    Attributes
    ----------
    path : Path
    key : str or None
        Its name, if it lies in an archive.
    """

    path: Path
    key: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.key is None else f"{self.key} in {self.path}"


def split_name(text: str) -> tuple[str | None, str]:
    """Split NAME=FILE; the name is None where there is none, or where all of it is a file."""
    found = _NAMED.fullmatch(text)
    return (None, text) if found is None or os.path.exists(text) else (found["name"], found["path"])


def shape_of(what: str, text: str) -> Shape:
    """Read a shape such as 8x16; a single number's is empty, or 1.

    Raises
    ------
    FastcheckError
    """
    parts = [part for part in text.split("x") if part] if re.fullmatch(r"(\d+(x\d+)*)?", text) else ["0"]
    shape = tuple(map(int, parts))
    if not math.prod(shape):
        raise FastcheckError(f"{what} has shape {text!r}: expected positive sizes, such as 8x16")
    return shape


def read_inputs(arguments: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of the start point, from FILE.npz, FILE.npy or FILE:DTYPE:SHAPE, each perhaps after NAME=.

    Raises
    ------
    FastcheckError
        If a file cannot be read, or two arrays have one name.
    """
    arrays: dict[str, np.ndarray] = {}
    for argument in arguments:
        name, path = split_name(argument)
        for key, array in _read_input(name, path).items():
            if key in arrays:
                raise FastcheckError(f"{argument} holds {key!r} again: expected another name, such as other={path}")
            arrays[key] = array
    return arrays


def _read_input(name: str | None, path: str) -> dict[str, np.ndarray]:
    raw = None if os.path.exists(path) else _RAW.fullmatch(path)
    if raw is not None:
        return {name or Path(raw["path"]).stem: _read_raw(raw["path"], raw["dtype"], raw["shape"])}
    with opened(path) as file:
        if is_archive(file):
            if name is not None:
                raise FastcheckError(f"{path} is an archive, whose arrays have names: expected it without {name}=")
            return read_npz(file)
        if not _is_npy(file.stream):
            example = f"{path}:float64:8x16"
            raise FastcheckError(f"{path} is not .npz or .npy; a raw file needs its type and shape, such as {example}")
        return {name or Path(path).stem: read_npy(file)}


def _read_raw(path: str, dtype: str, shape: str) -> np.ndarray:
    if dtype not in _KNOWN:
        raise FastcheckError(f"{path} has type {dtype!r}: expected one of {listed(_KNOWN, 9)}")
    extents, little = shape_of(path, shape), np.dtype(dtype).newbyteorder("<")
    with opened(path) as file:
        needed = little.itemsize * math.prod(extents)
        if file.size != needed:
            raise FastcheckError(
                f"{path} has {file.size:,} bytes: expected {needed:,}, {math.prod(extents):,} numbers of {dtype}"
            )
        return np.frombuffer(file.read(), little).astype(dtype).reshape(extents)


class Writer:
    """A file of one array, or of the same array at many points, one after another.

    Parameters
    ----------
    path : path
    format : {"raw", "npy"}
    shape : tuple of int
        Of all of it.
    dtype : NumPy type
    """

    def __init__(self, path: Path, format: str, shape: Shape, dtype: np.dtype) -> None:
        self._dtype, self.crc32 = dtype.newbyteorder("<"), 0
        self._stream: IO[bytes] = open(path, "wb")  # noqa: SIM115, closed below
        if format == "npy":
            header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._stream, header)

    def write(self, array: np.ndarray) -> None:
        """Add an array."""
        data = np.ascontiguousarray(array, self._dtype).reshape(-1).view(np.uint8).data
        self.crc32 = zlib.crc32(data, self.crc32)
        self._stream.write(data)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def find(kind: str, wanted: Sequence[str], given: Sequence[str], folder: Path) -> dict[str, Source | None]:
    """Find the files of some arrays.

    Parameters
    ----------
    kind : {"outputs", "grads", "grad_output"}
        The option, without its dashes.
    wanted : sequence of str
        Names of the arrays.
    given : sequence of str
        What the user gave: files, NAME=FILE, archives, or folders.
    folder : Path
        Where to look if nothing was given.

    Returns
    -------
    dict of str to Source or None
        By name; None where there is no such file.

    Raises
    ------
    FastcheckError
        If what was given is absent, or has no place.
    """
    before = "" if kind == "outputs" else "grad_"
    found: dict[str, Source | None] = dict.fromkeys(wanted)
    if not given:
        return {name: _in_folder(folder, (before + name,)) for name in wanted}
    for text in given:
        name, path = split_name(text)
        for key, source in _sources(name, Path(path), wanted, before).items():
            if key not in found:
                raise FastcheckError(f"--{kind.replace('_', '-')} {text}: expected the name of {listed(wanted, 6)}")
            found[key] = source
    return found


def _sources(name: str | None, path: Path, wanted: Sequence[str], before: str) -> Mapping[str, Source | None]:
    """Return the arrays that one argument gives, by name."""
    if path.is_dir():
        return {one: _in_folder(path, (before + one, one)) for one in ([name] if name else wanted)}
    with opened(path) as file:
        if is_archive(file):
            chosen = {key.removeprefix(before): Source(path, key) for key in archive_of(file).keys}
            return chosen if name is None else {name: next(iter(chosen.values()))}
    if name is not None or len(wanted) == 1:
        return {name or wanted[0]: Source(path)}
    return {path.stem.removeprefix(before): Source(path)}


def _in_folder(folder: Path, stems: Sequence[str]) -> Source | None:
    paths = [folder / f"{stem}{ending}" for stem in stems for ending in ENDINGS.values()]
    return next((Source(path) for path in paths if path.is_file()), None)


def array(source: Source, what: str, shape: Shape, precision: str | None = None) -> Floating:
    """Read one array of a known shape; the type of a raw one follows from its size.

    Raises
    ------
    FastcheckError
        If the file cannot be read, or holds another array.
    """
    stored = _stored(source)
    if stored is not None:
        floats = floating(str(source), stored, precision)
        if floats.values.shape != shape and (floats.values.size != math.prod(shape) or floats.values.ndim > 1):
            raise FastcheckError(f"{source} has shape {floats.values.shape}: expected {shape}, that of {what}")
        return Floating(floats.values.reshape(shape), floats.precision)
    size = math.prod(shape)
    with opened(source.path) as file:
        dtype = _WIDTHS.get(file.size // size) if file.size % size == 0 else None
        if dtype is None:
            raise FastcheckError(
                f"{source} has {file.size:,} bytes: expected {size:,} numbers like {what}, {8 * size:,} bytes in "
                f"float64 or {4 * size:,} in float32"
            )
        values = np.frombuffer(file.read(), np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
    return floating(str(source), values)


def stacked(source: Source, what: str, count: int, size: int) -> np.ndarray:
    """Read an array at many points, one after another, without loading all of them.

    Returns
    -------
    float array, shape (count, ...)
        In the type of the file.

    Raises
    ------
    FastcheckError
        If the file cannot be read, or holds another number of points or of entries.
    """
    if _kind(source.path) != "raw":
        return _stacked_npy(source, what, count, size)
    with opened(source.path) as file:
        held = file.size
    dtype = _WIDTHS.get(held // (count * size)) if held % (count * size) == 0 else None
    if dtype is None:
        expected = f"expected {what} at {count:,} points, {size:,} number{'s' * (size > 1)} each"
        raise FastcheckError(f"{source} has {_amount(held, count, size)}: {expected}")
    return _mapped(source, np.dtype(dtype).newbyteorder("<"), 0, (count, size), False)


def _amount(held: int, count: int, size: int) -> str:
    """Return how much a raw file holds, in points if it ends between two."""
    parts = [f"{held // (width * size):,} points in {name}" for width, name in _WIDTHS.items() if width > 2]
    whole = [part for part, width in zip(parts, (8, 4), strict=True) if held % (width * size) == 0]
    if not held:
        return "no bytes"
    sizes = f"{8 * count * size:,} bytes in float64, or half of that in float32, were due"
    return f"{held:,} bytes ({' or '.join(whole)})" if whole else f"{held:,} bytes ({sizes})"


def _stacked_npy(source: Source, what: str, count: int, size: int) -> np.ndarray:
    stored = _member(source) if source.key is not None else None
    if stored is None:
        with opened(source.path) as file, understood(str(source)):
            header = read_header(file.stream, file.size, str(source))
            offset, shape = file.stream.tell(), header.shape
        _refuse_stack(source, what, shape, header.dtype, count, size)
        return _mapped(source, header.dtype, offset, shape, header.fortran)
    _refuse_stack(source, what, stored.shape, stored.dtype, count, size)
    return stored


def _refuse_stack(source: Source, what: str, shape: Shape, dtype: np.dtype, count: int, size: int) -> None:
    if dtype.newbyteorder("=") not in (np.float64, np.float32, np.float16):
        raise FastcheckError(f"{source} has dtype {dtype}: expected float64, float32 or float16")
    if not shape or shape[0] != count or math.prod(shape) != count * size:
        expected = f"{count:,} points of {size:,} number{'s' * (size > 1)}, shape ({count}, ...)"
        raise FastcheckError(f"{source} has shape {shape}: expected {what} at all points, {expected}")


def _mapped(source: Source, dtype: np.dtype, offset: int, shape: Shape, fortran: bool) -> np.ndarray:
    with understood(str(source)):
        return np.memmap(source.path, dtype, "r", offset, shape, "F" if fortran else "C")


def _stored(source: Source) -> np.ndarray | None:
    """Return an array of one of NumPy's files; None for a raw one."""
    kind = _kind(source.path)
    if kind == "raw":
        return None
    return read_npy(source.path) if kind == "npy" else _member(source)


def _member(source: Source) -> np.ndarray:
    """Return an array of an archive."""
    with opened(source.path) as file:
        return archive_of(file).array(str(source.key))


def _kind(path: Path) -> str:
    with opened(path) as file:
        return "npz" if is_archive(file) else "npy" if _is_npy(file.stream) else "raw"


def _is_npy(stream: IO[bytes]) -> bool:
    start = stream.read(6)
    stream.seek(0)
    return start == b"\x93NUMPY"
