"""Jobs for the coordinator, made from the entries of a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastcheck.batch.run.planned import Planned
from fastcheck.batch.suite.entries import ConvEntry, Entry, NetworkEntry, NpzEntry
from fastcheck.common import npz
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import printable
from fastcheck.common.opened import Opened, opened
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.convolutions import npz_case
from fastcheck.convolutions.case import ConvCase
from fastcheck.engine.pipeline import Pipeline
from fastcheck.engine.settings import Settings
from fastcheck.networks import job, npz_data
from fastcheck.networks.file import read_network
from fastcheck.networks.network import Network
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport
from fastcheck.workloads import seeded

Operands = Any
"""Contents of a case's files, sent once to workers that may have no access to them. None if all data are seeded."""


class Job(Protocol):
    """A case ready to be checked, phase by phase.

    Attributes
    ----------
    pipelines : mapping of str to Pipeline
        Pipelines by phase; a convolution has a single phase, named "".
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


class ConvJob:
    """A convolution, which has a single phase."""

    def __init__(self, case: ConvCase, settings: Settings) -> None:
        self.pipelines: dict[str, Pipeline] = {"": case.pipeline(settings)}
        self._settings = settings

    def settings(self, phase: str) -> Settings:
        """Return the settings."""
        return self._settings

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check the single phase."""
        return {"": check("")}

    def report(self, reports: Mapping[str, Report]) -> Report:
        """Return the report of the single phase."""
        return reports[""]


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

    Raises
    ------
    FastcheckError
        As for `read`, and if a file changed: the result would no longer belong to the case's key.
    """
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
    settings = Settings(**vars(entry.request), threads=threads, progress=progress, keep=keep)
    if isinstance(entry, NetworkEntry):
        return _network(entry, operands, settings)
    if isinstance(entry, NpzEntry):
        return ConvJob(operands, settings)
    return ConvJob(conv_case(entry, pool), settings)


def conv_case(entry: ConvEntry, pool: Executor) -> ConvCase:
    """Make a convolution on seeded data. PyTorch gets one thread, since its results may depend on the thread count."""
    return seeded.conv_case(
        entry.geometry,
        entry.data,
        entry.request.seed,
        bias=entry.bias,
        tensors=entry.tensors,
        backward=entry.backward,
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
    params, x, y = seeded_point(network, entry.input, settings.seed)
    return job.prepare(network, params, _reference(network), x, y, settings, points=len(x), burn_in=entry.burn_in)


def seeded_point(
    network: Network, shape: tuple[int, ...], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters, data points and targets: initial weights, and everything else standard normal or uniform.

    Biases and normalisations are shifted by about a tenth, since at their initial values many results would coincide.
    """
    rng = np.random.default_rng([seed, len(shape)])
    params = network.initial(shape[1:], seed)
    for array in params.values():
        if array.ndim == 1:
            array += 0.1 * np.abs(rng.standard_normal(array.shape))
    x = rng.standard_normal(shape)
    output = network.shapes(shape[1:])[-1]
    if network.loss in ("softmax_cross_entropy", "multiclass_hinge"):
        return params, x, rng.integers(0, output[0], shape[0])
    size = (shape[0], *output)
    return params, x, rng.uniform(size=size) if network.loss == "logistic" else rng.standard_normal(size)


def _reference(network: Network) -> Callable[[Any, Any, Any], dict[str, np.ndarray]]:
    """Return a function that computes the reference gradient of a network."""
    from fastcheck.networks.case import Point  # this and the following import Numba
    from fastcheck.networks.passes import Passes
    from fastcheck.networks.training import whole_gradient

    return lambda params, x, y: whole_gradient(Passes(Point.of(network, params, x, y)))
