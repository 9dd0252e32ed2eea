"""The source files of a user's function: found, followed through their imports and read; nothing is imported."""

from __future__ import annotations

import ast
import hashlib
import importlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from fastcheck.batch.run.user_code import SourceFile, SourceFinder, SourceLoader
from fastcheck.batch.suite.entries import UserFunction
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import printable

OURS = ("fastcheck", "fastcheck_kernels")
"""Packages whose version is in the key of every case."""


class Sources(NamedTuple):
    """The code of a user's function as it was when the suite was planned.

    Attributes
    ----------
    function : UserFunction
    files : dict of str to SourceFile
        Python files by module: the function's, and those of the user's that it imports.
    digest : str
        A digest of these files, and of files in other languages that are imported beside them.
    """

    function: UserFunction
    files: dict[str, SourceFile]
    digest: str


def read_sources(function: UserFunction) -> Sources:
    """Read the file of a function's module, and the files that it imports.

    Imports are followed as they are written, wherever they stand in a file, but not into installed packages.

    Raises
    ------
    FastcheckError
        If there is no such module, or a file cannot be read.
    """
    module = function.name.partition(":")[0]
    search = _Search(function.folder)
    spec = search.spec(module)
    if spec is None or spec.loader is None:
        folder = printable(str(function.folder))
        raise FastcheckError(f"{function.name}: there is no module {module} in {folder}, nor on sys.path")
    files, parts = dict[str, SourceFile](), set[str]()
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        spec = None if name in seen else search.spec(name)
        seen.add(name)
        if spec is None or not spec.has_location or spec.origin is None:
            continue
        if not search.is_users(name, spec.origin):
            parts |= _installed(name, spec.origin) if name == module else set()
            continue
        data = _read(function, spec.origin)
        parts.add(f"{name} {hashlib.sha256(data).hexdigest()}")
        if isinstance(spec.loader, SourceFileLoader):
            files[name] = SourceFile(spec.origin, data, spec.submodule_search_locations is not None)
            waiting += _imports(name, files[name])
    return Sources(function, files, hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest())


class _Search:
    """Finds modules as imports would, with the suite's folder first, and without importing packages on the way."""

    def __init__(self, folder: Path) -> None:
        importlib.invalidate_caches()
        self._folder = folder
        paths = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), *site.getsitepackages())
        folders = [Path(path).resolve() for path in (*paths, site.getusersitepackages())]
        self._installed = [path for path in folders if not folder.is_relative_to(path)]
        self._specs: dict[str, ModuleSpec | None] = {}

    def spec(self, name: str) -> ModuleSpec | None:
        """Return where a module is; None if it is nowhere."""
        if name not in self._specs:
            parent, _, own = name.rpartition(".")
            self._specs[name] = self._below(parent, own) if parent else self._top(own)
        return self._specs[name]

    def is_users(self, name: str, path: str) -> bool:
        """Whether a module is the user's, whose content decides a result, and not part of an installed package."""
        top = name.partition(".")[0]
        if top in OURS or any(Path(path).resolve().is_relative_to(folder) for folder in self._installed):
            return False
        # What this process has imported already is one of fastcheck's own dependencies.
        first = sys.modules.get(top)
        loader = getattr(getattr(first, "__spec__", None), "loader", None)
        return first is None or isinstance(loader, SourceLoader) or Path(path).is_relative_to(self._folder)

    def _top(self, name: str) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, [str(self._folder)])
        if found is not None and found.loader is not None:
            return found
        for finder in sys.meta_path:
            spec = None if isinstance(finder, SourceFinder) else finder.find_spec(name, None)
            if spec is not None:
                return spec
        return found

    def _below(self, parent: str, name: str) -> ModuleSpec | None:
        package = self.spec(parent)
        if package is None or package.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, list(package.submodule_search_locations))


def _read(function: UserFunction, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FastcheckError(f"{function.name}: {printable(path)} cannot be read: {error.strerror}") from None


def _installed(name: str, path: str) -> set[str]:
    """Return what decides about an installed module: its own file, and its package's version."""
    parts = set[str]()
    with suppress(OSError):
        parts.add(f"{name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}")
    with suppress(PackageNotFoundError):
        parts.add(f"{name} {version(name.partition('.')[0])}")
    return parts


def _imports(name: str, file: SourceFile) -> Iterator[str]:
    """Yield the modules that a file may import, with the packages around them."""
    yield from _around(name)
    try:
        tree = ast.parse(file.data)
    except (SyntaxError, ValueError, RecursionError):  # importing it says so better
        return
    package = name if file.is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from (alias.name, *_around(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            paths = (module, *(f"{module}.{alias.name}".strip(".") for alias in node.names))
            for path in filter(None, paths):
                yield from (path, *_around(path))


def _around(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name
