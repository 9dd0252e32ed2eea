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
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

import numpy as np

from fastcheck import machine
from fastcheck.cases.conv import TENSORS, ConvCase
from fastcheck.errors import FastcheckError
from fastcheck.naming import nearest
from fastcheck.report import Report
from fastcheck.report_reader import from_json
from fastcheck.suite import SuiteReport

_REQUIRED = ("input", "weight", "grad_output")
_GRADIENTS = tuple(f"grad_{name}" for name in TENSORS)
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_WORDS = ("loss", "precision")
_KEYS = (*_REQUIRED, "bias", "output", *_GRADIENTS, *_GEOMETRY, *_WORDS)

_DATA, _MASK = ("x", "y"), "mask."

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


def load_case(path: str | os.PathLike[str], **overrides: Any) -> ConvCase:
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
        If the file cannot be read, a key is missing or unknown, or the arrays make no case.
    """
    arrays = read_npz(path, known=_KEYS)
    for key in _REQUIRED:
        if key not in arrays:
            raise FastcheckError(f"{path} has no key {key!r}: expected {', '.join(_REQUIRED)} and at least one grad_*")
    if not any(key in arrays for key in _GRADIENTS):
        raise FastcheckError(f"{path} has no gradient to check: expected at least one of {', '.join(_GRADIENTS)}")
    options = {key: _option(key, arrays[key]) for key in (*_GEOMETRY, *_WORDS) if key in arrays}
    options |= {key: value for key, value in overrides.items() if value is not None}
    return ConvCase(
        arrays["input"],
        arrays["weight"],
        arrays.get("bias"),
        grad_output=arrays["grad_output"],
        grads={name: arrays[f"grad_{name}"] for name in TENSORS if f"grad_{name}" in arrays},
        output=arrays.get("output"),
        **options,
    )


def _option(key: str, array: np.ndarray) -> Any:
    if array.dtype.kind == "U" and array.ndim == 0:
        return str(array)
    if key not in _WORDS and array.dtype.kind in "iu":
        return array
    raise FastcheckError(f"{key} has dtype {array.dtype} and shape {array.shape}: expected integers or a string")


class NetworkData(NamedTuple):
    """What a network is evaluated on: data points, targets, the declared loss if there is one, and dropout masks."""

    x: np.ndarray
    y: np.ndarray
    loss: float | None
    masks: dict[str, np.ndarray]


def load_network_data(path: str | os.PathLike[str]) -> NetworkData:
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
    arrays = read_npz(path, known=(*_DATA, "loss", f"{_MASK}LAYER"), families=(_MASK,))
    for key in _DATA:
        if key not in arrays:
            raise FastcheckError(f"{path} has no key {key!r}: expected {' and '.join(_DATA)}")
    masks = {key.removeprefix(_MASK): array for key, array in arrays.items() if key.startswith(_MASK)}
    return NetworkData(arrays["x"], arrays["y"], _number("loss", arrays["loss"]) if "loss" in arrays else None, masks)


def _number(key: str, array: np.ndarray) -> float:
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise FastcheckError(f"{key} has dtype {array.dtype} and shape {array.shape}: expected one number")
    return float(array.reshape(()))


def read_npz(
    path: str | os.PathLike[str], known: tuple[str, ...] | None = None, families: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` file, after checking each one's header.

    Parameters
    ----------
    path : path
    known : tuple of str, optional
        Keys that it may have; by default any.
    families : tuple of str
        Beginnings of other keys that it may have.

    Raises
    ------
    FastcheckError
        If the file is absent, no archive or damaged, a key is unknown, or an array is pickled or too large.
    """
    with _open(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except Exception as error:  # as in `_told`
            raise FastcheckError(f"{path} is not an .npz file, or is truncated: {error}") from None
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for key in members:
            if known is not None and key not in known and not key.startswith(families):
                meant = (*known, *(family + key.partition(".")[2] for family in families if "." in key))
                close = nearest(key, meant) or nearest(key.lower(), meant)
                raise FastcheckError(f"{path} has the unknown key {key!r}{close}: expected {', '.join(known)}")
        arrays = {}
        for key, info in members.items():
            with _told(f"{key} in {path}"):
                with archive.open(info) as member:
                    _check_header(member, info.file_size, f"{key} in {path}")
                with archive.open(info) as member:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one array from an ``.npy`` file, after checking its header.

    Raises
    ------
    FastcheckError
        If the file is absent or damaged, or the array is pickled or too large.
    """
    with _open(path) as stream, _told(str(path)):
        _check_header(stream, os.fstat(stream.fileno()).st_size, str(path))
        stream.seek(0)
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def read_gradients(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """Read one array from ``.npy``, or named arrays from ``.npz``, whichever the file is."""
    with _open(path) as stream:
        start = stream.read(4)
    return read_npz(path) if start.startswith(b"PK") else read_npy(path)


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    try:
        stream = open(path, "rb")  # noqa: SIM115, entered below, where what is read cannot be mistaken for this
    except OSError as error:
        raise FastcheckError(f"{path} cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what damaged data raise into one clear line."""
    try:
        yield
    except FastcheckError:
        raise
    except MemoryError:
        raise FastcheckError(f"{what} does not fit in memory") from None
    except Exception as error:  # damaged headers make NumPy, zipfile and tokenize raise nearly anything
        told = " ".join(str(error).split())
        raise FastcheckError(f"{what} cannot be read, it is no array or is truncated: {told}") from None


def _check_header(stream: IO[bytes], size: int, what: str) -> None:
    """Refuse a stream of this size whose header declares a pickled array, or more than the memory or itself holds."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise FastcheckError(f"{what} is a pickled array of objects: expected float64, float32 or float16")
    declared = math.prod((dtype.itemsize, *shape))
    free = machine.available_bytes()
    if declared < 0 or (free is not None and declared > free):
        raise FastcheckError(
            f"{what} declares the shape {shape} of {dtype}, {declared:,} bytes: it does not fit in memory"
        )
    held = size - stream.tell()
    if declared > held:
        raise FastcheckError(f"{what} is truncated: it declares {declared:,} bytes and holds {held:,}")


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
    with _open(path) as stream:
        try:
            text = stream.read().decode("utf-8")
        except UnicodeDecodeError:
            raise FastcheckError(f"{path} is not a JSON report: it is not text") from None
    try:
        return from_json(text)
    except FastcheckError as error:
        raise FastcheckError(f"{path}: {error}") from None
