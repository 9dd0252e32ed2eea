"""Paths in a suite, confined to the suite's folder."""

from __future__ import annotations

import os
from pathlib import Path

from fastcheck.batch.suite.entries import UserFunction
from fastcheck.batch.suite.keys import Given
from fastcheck.common.naming import shown
from fastcheck.common.toml import Refused


class Folder:
    """The folder that a suite's paths are relative to.

    Parameters
    ----------
    path : path
    allow_outside : bool
        Whether a path may leave it.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool) -> None:
        self._path, self._allow_outside = os.path.realpath(path), allow_outside
        self._resolved: dict[str, Path] = {}  # a grid repeats the same path thousands of times

    def file(self, key: str, given: Given) -> Path:
        """Return the real path of a file, and refuse one that leaves the folder. The file need not exist."""
        if given.value not in self._resolved:
            self._resolved[given.value] = self._file(key, given)
        return self._resolved[given.value]

    def function(self, name: str) -> UserFunction:
        """Return a function of the user's, which is looked up in this folder first."""
        return UserFunction(name, Path(self._path))

    def _file(self, key: str, given: Given) -> Path:
        message = f"{key} is {shown(given.value)}"
        if "\0" in given.value:
            raise Refused(given.where, f"{message}: expected the path of a file")
        real = os.path.realpath(os.path.join(self._path, given.value))
        leaves = "" if self._allow_outside else self._leaves(given.value, real)
        if leaves:
            expected = "expected a path inside the suite's folder (--allow-outside allows others)"
            raise Refused(given.where, f"{message}, {leaves}: {expected}")
        return Path(real)

    def _leaves(self, path: str, real: str) -> str:
        """Return how a path leaves the folder; empty if it does not."""
        if os.path.isabs(path):
            return "which is absolute"
        if os.path.normpath(path).split(os.sep)[0] == os.pardir:
            return "which leaves the suite's folder by '..'"
        return "" if Path(real).is_relative_to(self._path) else "which leaves the suite's folder by a symbolic link"
