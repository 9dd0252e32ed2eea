"""Jobs for the coordinator, made from the entries of a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

from fastcheck.batch.run import user_calls
from fastcheck.batch.run.planned import Planned
from fastcheck.batch.run.sources import Sources
from fastcheck.batch.suite.entries import ConvEntry, Entry, FunctionEntry, NetworkEntry, NpzEntry, UserFunction
from fastcheck.common import npz
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import printable
from fastcheck.common.opened import Opened, opened
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.convolutions import npz_case
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis import checked
from fastcheck.engine.hosting import hosted
from fastcheck.engine.pipeline import Case, Pipeline
from fastcheck.engine.settings import Settings
from fastcheck.networks import job, npz_data
from fastcheck.networks.file import read_network
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport
from fastcheck.workloads import seeded

Operands = Any
"""Contents of a case's files or of its code, sent once to workers that may have no access to them. None if there are
none: all data are seeded, and the gradients are not the user's."""


class Job(Protocol):
    """A case ready to be checked, phase by phase.

    Attributes
    ----------
    pipelines : mapping of str to Pipeline
        Pipelines by phase; a convolution or a function has a single phase, named "".
    """

    @property
    def pipelines(self) -> Mapping[str, Pipeline]: ...

    def settings(self, phase: str) -> Settings:
        """Return the settings of a phase."""
        ...

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check the phases in order, until one ends the check."""
        ...

    def report(self, reports: Mapping[str, Report]) -> Report | NetworkReport:
        """Combine the reports of the phases."""
        ...


class SingleJob:
    """A convolution or a function, which has a single phase."""

    def __init__(self, case: Case, settings: Settings) -> None:
        self.pipelines: dict[str, Pipeline] = {"": case.pipeline(settings)}
        self._case, self._settings = case, settings

    def settings(self, phase: str) -> Settings:
        """Return the settings."""
        return self._settings

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check the single phase."""
        return {"": check("")}

    def report(self, reports: Mapping[str, Report]) -> Report:
        """Return the report of the single phase, with the diagnoses of what fails."""
        return checked.completed(self._case, self._settings, reports[""])


class CalledJob:
    """A call of one of fastcheck's public functions. Each check that it begins is a phase: "", "2", "3", ...

    Parameters
    ----------
    name : str
        Name of the user's function that says what is checked.
    call : callable
        Called as call(); returns the report.
    """

    def __init__(self, name: str, call: Callable[[], Report | NetworkReport]) -> None:
        self.pipelines, self._settings = dict[str, Pipeline](), dict[str, Settings]()
        self._name, self._call = name, call

    def settings(self, phase: str) -> Settings:
        """Return the settings of a phase."""
        return self._settings[phase]

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Make the call, and check the phases as it comes to them."""
        reports = dict[str, Report]()

        def host(pipeline: Pipeline, settings: Settings) -> Report:
            phase = str(len(self.pipelines) + 1) if self.pipelines else ""
            self.pipelines[phase], self._settings[phase] = pipeline, settings
            reports[phase] = check(phase)
            return reports[phase]

        with hosted(host):
            self._report = self._called()
        return reports

    def _called(self) -> Report | NetworkReport:
        try:
            return self._call()
        except FastcheckError:
            if self.pipelines:  # the run's own errors, such as a full disk, are not the function's
                raise
            with user_calls.blamed(self._name):
                raise

    def report(self, reports: Mapping[str, Report]) -> Report | NetworkReport:
        """Return what the call returned."""
        return self._report


def files(entry: Entry) -> dict[str, Path]:
    """Return the files that an entry's result depends on, by role."""
    if isinstance(entry, NpzEntry):
        return {"npz": entry.path}
    if isinstance(entry, NetworkEntry):
        named = {"network": entry.path, "params": entry.params, "grads": entry.grads, "data": entry.data}
        return {role: path for role, path in named.items() if path is not None}
    return {}


_READERS: Mapping[str, Callable[[Opened], Any]] = {
    "npz": npz_case.load_case,
    "network": read_network,
    "params": npz.read_npz,
    "grads": npz.read_npz,
    "data": npz_data.load_network_data,
}


def read(entry: Entry) -> tuple[Operands, dict[str, str]]:
    """Read the files of an entry; return the operands and a digest of each file, by role.

    The digest is that of the bytes that were read, whatever happens to the file meanwhile.

    Raises
    ------
    FastcheckError
        If a file cannot be read, does not describe a case, or is no longer where the suite's path led.
    """
    contents, digests = dict[str, Any](), dict[str, str]()
    for role, path in files(entry).items():
        with opened(path, real=True) as file:
            contents[role] = _READERS[role](file)
            digests[role] = file.digest
    if isinstance(entry, NetworkEntry):
        arrays = (contents["params"], contents["grads"], contents["data"]) if entry.input is None else None
        return (contents["network"], arrays), digests
    return contents.get("npz"), digests


def read_as_planned(case: Planned) -> Operands:
    """Read the files of a case, and check that they have not changed since it was planned.

    A user's code was read then, and is returned as it was.

    Raises
    ------
    FastcheckError
        As for `read`, and if a file changed: the result would no longer belong to the case's key.
    """
    if case.sources is not None:
        return case.sources
    operands, digests = read(case.entry)
    for role, path in files(case.entry).items():
        if digests[role] != case.content[role]:
            raise FastcheckError(f"{printable(str(path))} changed while the suite ran: run the same command again")
    return operands


def made(
    entry: Entry,
    operands: Operands,
    pool: Executor,
    threads: int,
    *,
    progress: ProgressHook = silent,
    keep: bool = False,
) -> Job:
    """Make a case ready to be checked, including its data.

    Parameters
    ----------
    entry : Entry
    operands : Operands
        As returned by `read_as_planned`.
    pool : Executor
        Executes the passes that compute gradients.
    threads : int
        Number of threads of the whole run, for the report.
    progress : callable
    keep : bool
        Whether to keep the arrays of per-dimension values.
    """
    if isinstance(entry, FunctionEntry):
        return CalledJob(entry.function.name, user_calls.check_of(entry, operands, progress, keep))
    settings = Settings(**vars(entry.request), threads=threads, progress=progress, keep=keep)
    if isinstance(entry, NetworkEntry):
        return _network(entry, operands, settings)
    if isinstance(entry, NpzEntry):
        return SingleJob(operands, settings)
    return SingleJob(conv_case(entry, pool, operands), settings)


def conv_case(entry: ConvEntry, pool: Executor, sources: Sources | None = None) -> ConvCase:
    """Make a convolution on seeded data. PyTorch gets one thread, since its results may depend on the thread count."""
    if not isinstance(entry.backward, UserFunction):
        return _seeded(entry, pool, entry.backward)
    assert sources is not None
    own = user_calls.backward(sources)
    with user_calls.blamed(entry.backward.name):
        return _seeded(entry, pool, own)


def _seeded(entry: ConvEntry, pool: Executor, backward: str | seeded.OwnBackward) -> ConvCase:
    return seeded.conv_case(
        entry.geometry,
        entry.data,
        entry.request.seed,
        bias=entry.bias,
        tensors=entry.tensors,
        backward=backward,
        dtype=entry.dtype,
        loss=entry.loss,
        pool=pool,
        threads=1,
    )


def _network(entry: NetworkEntry, operands: Operands, settings: Settings) -> Job:
    network, arrays = operands
    if arrays is not None:
        params, grads, data = arrays
        return job.prepare(network, params, grads, data.x, data.y, settings, loss=data.loss, masks=data.masks)
    assert entry.input is not None
    params, x, y = seeded.network_point(network, entry.input, settings.seed)
    return job.prepare(
        network, params, seeded.reference_gradient(network), x, y, settings, points=len(x), burn_in=entry.burn_in
    )
