"""Files in and out: ``.npz`` cases and data, ``.npy`` arrays, reports, and writing that leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from fastcheck.common.array_file import Archive, Header, read_array, read_header, understood
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief, nearest
from fastcheck.common.opened import Opened, Source, opened
from fastcheck.convolutions import memory
from fastcheck.convolutions.case import TENSORS, ConvCase
from fastcheck.convolutions.geometry import ConvGeometry, Shape
from fastcheck.reports.reader import from_json
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import SuiteReport

_REQUIRED = ("input", "weight", "grad_output")
_GRADIENTS = tuple(f"grad_{name}" for name in TENSORS)
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_WORDS = ("loss", "precision")
_KEYS = (*_REQUIRED, "bias", "output", *_GRADIENTS, *_GEOMETRY, *_WORDS)

_LONGEST_OPTION = 4096
"""Bytes of what is no operand: a few integers, or a word."""

_COMPARED = 12
"""Numbers that comparing takes for each entry of the largest tensor, beside what was read (measured)."""

_DATA, _MASK = ("x", "y"), "mask."

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")

Gradient = np.ndarray | dict[str, np.ndarray]
"""An array, or arrays by name."""


def load_case(path: Source, **overrides: Any) -> ConvCase:
    """Read a convolution case from an ``.npz`` file.

    Parameters
    ----------
    path : path
        Keys ``input, weight, grad_output``, at least one of ``grad_input, grad_weight, grad_bias``, and optionally
        ``bias, output, stride, padding, dilation, groups, loss, precision``.
    **overrides
        Values of ``stride``, ``padding``, ``dilation``, ``groups``, ``loss`` and ``precision`` that win over the
        file's; None leaves the file's.

    Returns
    -------
    ConvCase

    Raises
    ------
    FastcheckError
        If the file cannot be read, a key is missing or unknown, the arrays make no case, or checking them needs more
        memory than is free, which their headers tell.
    """
    with opened(path) as file:
        archive = _case_archive(file)
        options = _options(archive, overrides)
        found = _outline(archive, options)
        memory.refuse_what_cannot_fit(str(file), found.geometry, found.tensors)
        arrays = {key: archive.array(key) for key in archive.keys if key not in (*_GEOMETRY, *_WORDS)}
    return ConvCase(
        arrays["input"],
        arrays["weight"],
        arrays.get("bias"),
        grad_output=arrays["grad_output"],
        grads={name: arrays[f"grad_{name}"] for name in found.tensors},
        output=arrays.get("output"),
        **options,
    )


class Outline(NamedTuple):
    """What the headers of a convolution's file tell: enough to know what checking it takes."""

    geometry: ConvGeometry
    loss: str
    tensors: tuple[str, ...]


def case_outline(path: Source) -> Outline:
    """Read the headers of a convolution's file, and nothing else; raises as `load_case` does."""
    with opened(path) as file:
        archive = _case_archive(file)
        return _outline(archive, _options(archive, {}))


def _case_archive(file: Opened) -> Archive:
    archive = _archive(file, _KEYS)
    for key in _REQUIRED:
        if key not in archive.keys:
            raise FastcheckError(f"{file} has no key {key!r}: expected {', '.join(_REQUIRED)} and at least one grad_*")
    if not any(key in archive.keys for key in _GRADIENTS):
        raise FastcheckError(f"{file} has no gradient to check: expected at least one of {', '.join(_GRADIENTS)}")
    return archive


def _outline(archive: Archive, options: Mapping[str, Any]) -> Outline:
    input, weight = (archive.header(key).shape for key in ("input", "weight"))
    geometry = ConvGeometry.of(input, weight, **{key: options[key] for key in _GEOMETRY if key in options})
    tensors = tuple(name for name in TENSORS if f"grad_{name}" in archive.keys)
    return Outline(geometry, options.get("loss", "vjp"), tensors)


def _options(archive: Archive, overrides: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: _option(key, archive) for key in (*_GEOMETRY, *_WORDS) if key in archive.keys}
    return options | {key: value for key, value in overrides.items() if value is not None}


def _option(key: str, archive: Archive) -> Any:
    header = archive.header(key)
    small = header.bytes <= _LONGEST_OPTION
    if small and header.dtype.kind == "U" and not header.shape:
        return str(archive.array(key))
    if small and key not in _WORDS and header.dtype.kind in "iu":
        return archive.array(key)
    raise FastcheckError(
        f"{key} has dtype {brief(header.dtype)} and shape {header.shape}: expected integers or a string"
    )


class NetworkData(NamedTuple):
    """What a network is evaluated on: data points, targets, the declared loss if there is one, and dropout masks."""

    x: np.ndarray
    y: np.ndarray
    loss: float | None
    masks: dict[str, np.ndarray]


def load_network_data(path: Source) -> NetworkData:
    """Read a network's data points from an ``.npz`` file.

    Parameters
    ----------
    path : path
        Keys ``x`` and ``y``, and optionally ``loss`` and, for dropout layers, ``mask.LAYER``.

    Returns
    -------
    NetworkData

    Raises
    ------
    FastcheckError
        If the file cannot be read, a key is missing or unknown, or the loss is not one number.
    """
    with opened(path) as file:
        archive = _data_archive(file)
        arrays = {key: archive.array(key) for key in archive.keys}
    masks = {key.removeprefix(_MASK): array for key, array in arrays.items() if key.startswith(_MASK)}
    return NetworkData(arrays["x"], arrays["y"], _number("loss", arrays["loss"]) if "loss" in arrays else None, masks)


class DataOutline(NamedTuple):
    """What the headers of a network's data tell: the shape of x, and the dropout layers that have a mask."""

    x: Shape
    masked: tuple[str, ...]


def network_data_outline(path: Source) -> DataOutline:
    """Read the headers of a network's data, and nothing else; raises as `load_network_data` does."""
    with opened(path) as file:
        archive = _data_archive(file)
        masked = (key.removeprefix(_MASK) for key in archive.keys if key.startswith(_MASK))
        return DataOutline(archive.header("x").shape, tuple(masked))


def _data_archive(file: Opened) -> Archive:
    archive = _archive(file, (*_DATA, "loss", f"{_MASK}LAYER"), (_MASK,))
    for key in _DATA:
        if key not in archive.keys:
            raise FastcheckError(f"{file} has no key {key!r}: expected {' and '.join(_DATA)}")
    return archive


def _number(key: str, array: np.ndarray) -> float:
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise FastcheckError(f"{key} has dtype {array.dtype} and shape {array.shape}: expected one number")
    return float(array.reshape(()))


def read_npz(path: Source) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` file, after checking all headers.

    Raises
    ------
    FastcheckError
        If the file is absent, no archive or damaged, or an array is pickled, or they are too large.
    """
    with opened(path) as file:
        archive = _archive(file)
        return {key: archive.array(key) for key in archive.keys}


def _archive(file: Opened, known: tuple[str, ...] | None = None, families: tuple[str, ...] = ()) -> Archive:
    """Open an archive, after checking that memory has room for all that it declares.

    Its keys are ``known``, or begin as one of ``families`` does; by default they may be any.
    """
    archive = Archive(file)
    for key in archive.keys:
        if known is not None and key not in known and not key.startswith(families):
            meant = (*known, *(family + key.partition(".")[2] for family in families if "." in key))
            close = nearest(key, meant) or nearest(key.lower(), meant)
            raise FastcheckError(f"{file} has the unknown key {brief(repr(key))}{close}: expected {', '.join(known)}")
    needed = sum(archive.header(key).needed for key in archive.keys)
    told = f"{file} has arrays that need {needed:,} bytes"
    memory.refuse_beyond(needed, lambda available: f"{told}, and {available:,} are available: expected smaller ones")
    return archive


def read_npy(path: Source) -> np.ndarray:
    """Read one array from an ``.npy`` file, after checking its header.

    Raises
    ------
    FastcheckError
        If the file is absent or damaged, or the array is pickled or too large.
    """
    with opened(path) as file, understood(str(file)):
        return read_array(file.stream, file.size, str(file))


def read_pair(analytic: Source, numeric: Source) -> tuple[Gradient, Gradient]:
    """Read two gradients that are to be compared: of each an array from ``.npy``, or named arrays from ``.npz``.

    Raises
    ------
    FastcheckError
        If one cannot be read, or comparing them needs more memory than is free, which their headers tell.
    """
    with opened(analytic) as one, opened(numeric) as other:
        headers = [*_headers(one), *_headers(other)]
        largest = max((math.prod(header.shape) for header in headers), default=0)
        needed = sum(header.bytes for header in headers) + 8 * _COMPARED * largest
        told = f"comparing {one} with {other} needs {needed:,} bytes"
        memory.refuse_beyond(needed, lambda available: f"{told}, and {available:,} are available: expected less")
        return _gradient(one), _gradient(other)


def _headers(file: Opened) -> list[Header]:
    if _is_archive(file):
        archive = _archive(file)
        return [archive.header(key) for key in archive.keys]
    with understood(str(file)):
        return [read_header(file.stream, file.size, str(file))]


def _gradient(file: Opened) -> Gradient:
    return read_npz(file) if _is_archive(file) else read_npy(file)


def _is_archive(file: Opened) -> bool:
    with understood(str(file)):  # a pipe cannot be read twice
        file.stream.seek(0)
        found = file.stream.read(4).startswith(b"PK")
        file.stream.seek(0)
    return found


def write_whole(path: str | os.PathLike[str], write: Callable[[TextIO], object]) -> None:
    """Write a text file as `write_bytes` does.

    Raises
    ------
    FastcheckError
        If it cannot be written; then nothing is left behind, and a file that was there stays as it was.
    """
    text = {"mode": "w", "encoding": "utf-8", "newline": ""}
    _write(path, write, text)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it.

    A link is followed, a file's mode kept, and what is no regular file (a pipe, a device, an open descriptor such as
    ``/dev/stdout`` or ``/dev/fd/3``) is written to directly.

    Raises
    ------
    FastcheckError
        If it cannot be written; then nothing is left behind, and a file that was there stays as it was.
    """
    _write(path, lambda stream: stream.write(data), {"mode": "wb"})


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file as `write_bytes` does.

    Raises
    ------
    FastcheckError
        If it cannot be written; then nothing is left behind, and a file that was there stays as it was.
    """
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # keywords are arrays
    write_bytes(path, stream.getvalue())


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
    """Return what is opened to write to a path as it is: a descriptor or a path; None where it is a file's.

    A descriptor may lead to a file, but whoever opened that has it open, and would not see another one of its name.
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
    """Refuse a path that could not be written, before work is spent on what should go there.

    Raises
    ------
    FastcheckError
        If it is no path, it or its folder is absent or not writable, or it is a folder.
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
    """Refuse a path whose folder takes no new files."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FastcheckError(f"{path} cannot be written: {folder} is not a folder")
    with tempfile.TemporaryFile(dir=folder):
        pass


def read_report(path: str | os.PathLike[str]) -> Report | SuiteReport:
    """Read a JSON report, of one case or of several, from a file.

    Raises
    ------
    FastcheckError
        If the file cannot be read or is no report.
    """
    with opened(path) as file:
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            raise FastcheckError(f"{path} is not a JSON report: it is not text") from None
    try:
        return from_json(text)
    except FastcheckError as error:
        raise FastcheckError(f"{path}: {error}") from None
