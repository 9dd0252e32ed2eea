"""Worker processes that call a function with copies of its case, for functions that hold the GIL.

Calls from the thread that checks the case stay in its process, since they come one after another. The threads of the
pool hand theirs to workers and wait: arithmetic on values is that of threads, and so is every report.
"""

from __future__ import annotations

import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common.errors import FastcheckError, one_line
from fastcheck.common.extras import installing
from fastcheck.engine.settings import Settings
from fastcheck.functions.state import Arrays

if TYPE_CHECKING:
    from fastcheck.functions.case import Evaluation, FunctionCase
    from fastcheck.functions.noise import Noise

FEW = 4
"""Entries of which one, at most, must differ for only these to be sent: a position is as large as a value."""

INSTEAD = "or executor='threads'"

_Changes = dict[str, tuple[np.ndarray | None, np.ndarray]]
"""By tensor: flat indices, None for all of them, and values there."""


@contextmanager
def workers_of(case: FunctionCase, settings: Settings) -> Iterator[None]:
    """Call the case's function in worker processes, as many as there are threads, if the settings say so.

    Raises
    ------
    FastcheckError
        If loky is not installed, or the function cannot be sent to other processes.
    """
    if settings.executor is None:
        yield
        return
    case.workers = workers = Workers(case, settings.threads)
    try:
        yield
    finally:
        workers.end()  # and with them the calls that threads still wait for after Ctrl-C


class Workers:
    """Processes with copies of a case.

    Parameters
    ----------
    case : FunctionCase
    count : int
        Number of processes.
    """

    def __init__(self, case: FunctionCase, count: int) -> None:
        try:
            import loky
        except ImportError as error:
            raise FastcheckError(f"executor is 'processes', which needs loky: {installing('processes')}") from error
        self._params, self._function = case.params, case.names.function
        self._checking = threading.get_ident()
        self._pool = loky.ProcessPoolExecutor(count, initializer=_begin, initargs=(_pickled(case), self._function))
        with _without_interrupts():  # workers inherit that
            self._pool.submit(_nothing)

    @property
    def wanted(self) -> bool:
        """Whether a call from this thread is theirs."""
        return threading.get_ident() != self._checking

    def attempt(self, arrays: Arrays, where: Callable[[], str]) -> Evaluation:
        """Evaluate as `FunctionCase.attempt` does."""
        changes = {name: changed for name, array in self._params.items() if (changed := _changed(array, arrays[name]))}
        evaluation: Evaluation = self._result(_attempt, changes, where())
        return evaluation

    def with_moves(
        self, arrays: Arrays, name: str, dims: np.ndarray, points: np.ndarray, noises: Noise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate as `FunctionCase.moved` does, with arrays of the worker's own."""
        values, noise = self._result(_moved, name, dims, points, noises)
        return values, noise

    def end(self) -> None:
        """End the processes, whatever they do."""
        self._pool.shutdown(wait=True, kill_workers=True)

    def _result(self, task: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._pool.submit(task, *arguments).result()
        except BrokenProcessPool as error:
            codes = re.search(r"exit codes of the workers are {(.*?)}", str(error))
            how = f" ({', '.join(sorted(set(codes[1].split(', '))))})" if codes else ""
            raise FastcheckError(
                f"a worker process died{how} while it called {self._function}: expected a function that other "
                f"processes can call, {INSTEAD}"
            ) from error


def _pickled(case: FunctionCase) -> bytes:
    """Return the case for other processes; refuse what cannot be sent, by its name."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(case))
    except Exception as error:
        cause, culprit = error, case.names.function
    for name, part in case.sent().items():
        try:
            cloudpickle.dumps(part)
        except Exception as error:
            cause, culprit = error, name
            break
    raise FastcheckError(
        f"{culprit} cannot be sent to other processes ({one_line(cause)}): expected what can be pickled, {INSTEAD}"
    ) from cause


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all of them, does not reach."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _changed(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray | None, np.ndarray] | None:
    """Return the entries of which bits differ: all where these are many, None where there are none."""
    dims = np.flatnonzero(here.reshape(-1).view(np.int64) != there.reshape(-1).view(np.int64))
    if not dims.size:
        return None
    return (None, there) if dims.size * FEW > there.size else (dims, there.reshape(-1)[dims])


# In a worker

_sent: tuple[bytes, str] = b"", ""
"""The case, and the name of its function."""


def _begin(*sent: Any) -> None:
    global _sent
    _sent = sent
    with suppress(ValueError):  # in a thread that gets no signals
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _nothing() -> None:
    """Do nothing: the first task starts the workers."""


@functools.cache
def _own() -> tuple[FunctionCase, Arrays]:
    """Return this process's copy of the case, and params to move."""
    import cloudpickle

    try:
        case: FunctionCase = cloudpickle.loads(_sent[0])
    except Exception as error:
        raise FastcheckError(
            f"{_sent[1]} cannot be loaded in a worker process ({one_line(error)}): expected one whose modules other "
            f"processes can import, {INSTEAD}"
        ) from None
    return case, case.copies()


def _attempt(changes: _Changes, place: str) -> Evaluation:
    case, arrays = _own()
    for name, (dims, values) in changes.items():
        arrays[name].reshape(-1)[... if dims is None else dims] = values.reshape(-1)
    evaluation = case.attempt(arrays, lambda: place)
    for name in changes:
        arrays[name][...] = case.params[name]
    case.refuse_changes(arrays, case.names.function)
    return evaluation


def _moved(name: str, dims: np.ndarray, points: np.ndarray, noises: Noise) -> tuple[np.ndarray, np.ndarray]:
    case, arrays = _own()
    result = case.moved(arrays, name, dims, points, noises)
    case.refuse_changes(arrays, case.names.function)
    return result
