"""Import a user's function from source files that were read before, whatever its files hold by now."""

from __future__ import annotations

import importlib
import operator
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from fastcheck.batch.suite.entries import UserFunction
from fastcheck.common.errors import FastcheckError, raised_by


class SourceFile(NamedTuple):
    """The Python file of a module.

    Attributes
    ----------
    path : str
    data : bytes
    is_package : bool
    """

    path: str
    data: bytes
    is_package: bool


class SourceLoader(SourceFileLoader):
    """Loads a module from bytes. Compiled files play no part, since they may be older than a file of the same time."""

    def __init__(self, name: str, file: SourceFile) -> None:
        super().__init__(name, file.path)
        self._data = file.data

    def get_code(self, fullname: str) -> CodeType:
        """Compile the bytes."""
        return self.source_to_code(self._data, self.path)


class SourceFinder(MetaPathFinder):
    """Finds the modules of the user's among files that were read.

    Attributes
    ----------
    files : dict of str to SourceFile
    """

    def __init__(self) -> None:
        self.files: dict[str, SourceFile] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None if it is not the user's."""
        file = self.files.get(fullname)
        if file is None:
            return None
        folders = [os.path.dirname(file.path)] if file.is_package else None
        loader = SourceLoader(fullname, file)
        return spec_from_file_location(fullname, file.path, loader=loader, submodule_search_locations=folders)


_LOCK = threading.RLock()
_FINDER = SourceFinder()


def imported(function: UserFunction, files: Mapping[str, SourceFile]) -> Callable[..., Any]:
    """Import a function.

    Its folder becomes the first of `sys.path`, as that of a script is. If a file differs from the one that this process
    imported before (a worker of a cluster may serve many runs), all modules of the user's are imported anew.

    Raises
    ------
    FastcheckError
        If its module cannot be imported, or has no such function.
    """
    module_name, _, path = function.name.partition(":")
    with _LOCK:
        _prepare(function, files)
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise raised_by(f"{function.name} cannot be imported: {module_name}", error) from error
    try:
        found = operator.attrgetter(path)(module)
    except AttributeError:
        raise FastcheckError(f"{function.name}: {module_name} has no {path!r}: expected a function") from None
    if not callable(found):
        raise FastcheckError(f"{function.name} is {type(found).__name__}: expected a function")
    return found


def _prepare(function: UserFunction, files: Mapping[str, SourceFile]) -> None:
    if any(_FINDER.files.get(name) != file for name, file in files.items() if name in {*_FINDER.files, *sys.modules}):
        for name in (*_FINDER.files, *files):
            sys.modules.pop(name, None)
        _FINDER.files.clear()
    _FINDER.files |= files
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    folder = str(function.folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
