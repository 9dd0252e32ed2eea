"""Entries of a suite made into what the coordinator checks."""

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
"""What a case takes from files, read: sent once to workers that may not see them. None where everything is seeded."""


class Job(Protocol):
    """A case ready to be checked, phase by phase.

    Attributes
    ----------
    pipelines : mapping of str to Pipeline
        Of every phase, by name; of a convolution the only one, named "".
    """

    @property
    def pipelines(self) -> Mapping[str, Pipeline]: ...

    def settings(self, phase: str) -> Settings:
        """Return how a phase is checked."""
        ...

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check phase after phase, unless one ends it."""
        ...

    def report(self, reports: Mapping[str, Report]) -> Report | NetworkReport:
        """Put the phases' reports together."""
        ...


class ConvJob:
    """A convolution: one phase."""

    def __init__(self, case: ConvCase, settings: Settings) -> None:
        self.pipelines: dict[str, Pipeline] = {"": case.pipeline(settings)}
        self._settings = settings

    def settings(self, phase: str) -> Settings:
        """Return how it is checked."""
        return self._settings

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check it."""
        return {"": check("")}

    def report(self, reports: Mapping[str, Report]) -> Report:
        """Return its report."""
        return reports[""]


def files(entry: Entry) -> dict[str, Path]:
    """Return the files that an entry's result depends on, by what they are."""
    if isinstance(entry, NpzEntry):
        return {"npz": entry.path}
    if isinstance(entry, NetworkEntry):
        named = {"network": entry.path, "params": entry.params, "grads": entry.grads, "data": entry.data}
        return {what: path for what, path in named.items() if path is not None}
    return {}


_READERS: Mapping[str, Callable[[Opened], Any]] = {
    "npz": npz_case.load_case,
    "network": read_network,
    "params": npz.read_npz,
    "grads": npz.read_npz,
    "data": npz_data.load_network_data,
}


def read(entry: Entry) -> tuple[Operands, dict[str, str]]:
    """Read what an entry takes from files; return it with a digest of each file, by what the file is.

    A digest is of the bytes that were read, whatever happens to the file meanwhile.

    Raises
    ------
    FastcheckError
        If a file cannot be read, makes no case, or is not where the suite's path led any more.
    """
    found, content = dict[str, Any](), dict[str, str]()
    for what, path in files(entry).items():
        with opened(path, real=True) as file:
            found[what] = _READERS[what](file)
            content[what] = file.digest
    if isinstance(entry, NetworkEntry):
        arrays = (found["params"], found["grads"], found["data"]) if entry.input is None else None
        return (found["network"], arrays), content
    return found.get("npz"), content


def read_as_planned(case: Planned) -> Operands:
    """Read what a case takes from files, which are to hold what they held when it was planned.

    Raises
    ------
    FastcheckError
        As of `read`, and if a file changed: the result would be another than the case's key says.
    """
    operands, content = read(case.entry)
    for what, path in files(case.entry).items():
        if content[what] != case.content[what]:
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
    """Make a case, its data included, ready to be checked.

    Parameters
    ----------
    entry : Entry
    operands : Operands
        As `read_as_planned` returns them.
    pool : Executor
        Of the passes that make gradients.
    threads : int
        Of the whole run, as the report tells it.
    progress : callable
    keep : bool
        Keep the arrays of what is differenced.
    """
    settings = Settings(**vars(entry.request), threads=threads, progress=progress, keep=keep)
    if isinstance(entry, NetworkEntry):
        return _network(entry, operands, settings)
    if isinstance(entry, NpzEntry):
        return ConvJob(operands, settings)
    return ConvJob(conv_case(entry, pool), settings)


def conv_case(entry: ConvEntry, pool: Executor) -> ConvCase:
    """Make a convolution on seeded data. PyTorch has one thread, since its results may depend on how many there are."""
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
    """Return parameters, data points and targets: initial weights, and everything else standard normal or drawn evenly.

    Biases and normalisations are moved by a tenth, since at their initial values many results would coincide.
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
    """Return the reference gradient of a network, as a function."""
    from fastcheck.networks.case import Point  # imports Numba with what follows
    from fastcheck.networks.passes import Passes
    from fastcheck.networks.training import whole_gradient

    return lambda params, x, y: whole_gradient(Passes(Point.of(network, params, x, y)))
