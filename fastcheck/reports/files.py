"""Reports and pairs of gradients in files."""

from __future__ import annotations

import math
import os

import numpy as np

from fastcheck.common import machine
from fastcheck.common.array_file import Header, read_header, refuse_foreign, understood
from fastcheck.common.errors import FastcheckError
from fastcheck.common.npz import archive_of, is_archive, read_npy, read_npz
from fastcheck.common.opened import Opened, Source, opened
from fastcheck.reports.reader import from_json
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import SuiteReport

_COMPARED = 12
"""Float64 numbers that a comparison needs for each entry of the largest tensor, besides what was read (measured)."""

Gradient = np.ndarray | dict[str, np.ndarray]
"""An array, or arrays by name."""


def read_pair(analytic: Source, numeric: Source) -> tuple[Gradient, Gradient]:
    """Read two gradients for a comparison: each is an array in an ``.npy`` file, or named arrays in an ``.npz`` file.

    Raises
    ------
    FastcheckError
        If one cannot be read, or if, by their headers, comparing them needs more memory than is available.
    """
    with opened(analytic) as one, opened(numeric) as other:
        headers = [*_headers(one), *_headers(other)]
        largest = max((math.prod(header.shape) for header in headers), default=0)
        needed = sum(header.bytes for header in headers) + 8 * _COMPARED * largest
        message = f"comparing {one} with {other} needs {needed:,} bytes"
        machine.refuse_beyond(needed, lambda available: f"{message}, and {available:,} are available: expected less")
        return _gradient(one), _gradient(other)


def _headers(file: Opened) -> list[Header]:
    if is_archive(file):
        archive = archive_of(file)
        return [archive.header(key) for key in archive.keys]
    with understood(str(file)):
        refuse_foreign(file, ".npy")
        return [read_header(file.stream, file.size, str(file))]


def _gradient(file: Opened) -> Gradient:
    return read_npz(file) if is_archive(file) else read_npy(file)


def read_report(path: str | os.PathLike[str]) -> Report | SuiteReport:
    """Read a JSON report of one case or of several from a file.

    Raises
    ------
    FastcheckError
        If the file cannot be read, or is not a report.
    """
    with opened(path) as file:
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            raise FastcheckError(f"{path} is not a JSON report: it is not text") from None
    if str(path).endswith(".toml"):
        raise FastcheckError(f"{path} is TOML: expected a folder of `fastcheck run`, or its --json report")
    try:
        return from_json(text)
    except FastcheckError as error:
        raise FastcheckError(f"{path}: {error}") from None
