"""Check every conv layer of a published network, one after another, on seeded data."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from fastcheck.check import check
from fastcheck.common import machine
from fastcheck.common.arguments import integer
from fastcheck.common.errors import FastcheckError
from fastcheck.common.interrupts import listening
from fastcheck.common.naming import nearest, refuse_unknown
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.convolutions import memory
from fastcheck.convolutions.case import TENSORS, ConvCase
from fastcheck.engine.sampling import Dims
from fastcheck.reports.report import Report, requested
from fastcheck.reports.suite_report import SuiteReport
from fastcheck.workloads import seeded
from fastcheck.workloads.published import NETWORKS, ConvLayer

OnCase = Callable[[str, Report], object]
"""Called as on_case(name, report) when a case is finished."""


def run(
    network: str,
    *,
    backward: Literal["reference", "torch"] = "reference",
    tensors: Collection[str] = ("weight", "bias"),
    layers: Collection[str] | None = None,
    batch: int = 1,
    dims: Dims = "all",
    step: float | Literal["auto"] = "auto",
    evaluator: Any = "auto",
    threads: int | None = None,
    seed: int = 0,
    on_case: OnCase | None = None,
    progress: ProgressHook | None = None,
) -> SuiteReport:
    """Check the conv layers of a published network, at their published shapes.

    Layers are checked one at a time; only the report of a finished layer is kept.

    Parameters
    ----------
    network : str
        One of `fastcheck.workloads.published.NETWORKS`.
    backward : {"reference", "torch"}
        Source of the gradients: this project's reference kernels, or PyTorch's own convolution in float64.
    tensors : collection of str
        Tensors to check, from ``"input"``, ``"weight"`` and ``"bias"``; those that a layer lacks are skipped.
    layers : collection of str, optional
        Names, or patterns such as ``"layer1.*"``; by default all.
    batch : int
        Number of samples.
    dims, step, evaluator, threads
        As in `fastcheck.check`, for each layer.
    seed : int
        Random seed for the data and the samples of dimensions.
    on_case : callable, optional
        Called as on_case(name, report) when a layer is finished.
    progress : callable, optional
        Called as progress(stage, done, total); the stage begins with the layer's name.

    Returns
    -------
    SuiteReport
        A layer whose check crashed has the verdict "error", and the others continue. After Ctrl-C, the report is
        partial.

    Raises
    ------
    FastcheckError
        If an argument is invalid, or a layer does not fit in memory; then no layer is made.
    """
    chosen = chosen_layers(network, layers, tensors)
    refuse_unknown("backward", backward, seeded.BACKWARDS)
    job = _Job(
        network=network,
        backward=backward,
        batch=integer("batch", batch, least=1),
        # Of a published layer, the gradient is a known backward pass's: nothing is looked for beyond a sample.
        requested=requested(step, evaluator, dims, kinks="widen") | {"directions": 0},
        threads=machine.thread_count(threads),
        seed=integer("seed", seed, least=0),
        progress=progress or silent,
    )
    for layer, names in chosen:
        memory.refuse_what_cannot_fit(layer.name, layer.geometry(job.batch), names)
    return _stream(job, chosen, on_case)


def make_case(
    network: str,
    layer: ConvLayer,
    tensors: Collection[str],
    *,
    backward: str = "reference",
    batch: int = 1,
    threads: int = 1,
    seed: int = 0,
) -> ConvCase:
    """Make a layer's data: input, bias and cotangent are standard normal, weights are scaled as in He et al. (2015).

    The data depend only on the seed, the network, the layer's name and the batch; gradients also on the backward pass.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        return seeded.conv_case(
            layer.geometry(batch),
            data_name(network, layer),
            seed,
            bias=layer.bias,
            tensors=tensors,
            backward=backward,
            pool=pool,
            threads=threads,
        )
    finally:
        pool.shutdown(cancel_futures=True)


def data_name(network: str, layer: ConvLayer) -> str:
    """Return the name that, with the seed, determines a layer's data."""
    return f"{network}/{layer.name}"


_Chosen = list[tuple[ConvLayer, tuple[str, ...]]]
"""Layers, each with its tensors to check."""


@dataclass(frozen=True)
class _Job:
    """The settings of a run, for all layers; see `run` for their meaning."""

    network: str
    backward: str
    batch: int
    requested: dict[str, Any]
    threads: int
    seed: int
    progress: ProgressHook

    def check(self, layer: ConvLayer, tensors: Collection[str]) -> Report:
        """Make the data of a layer and check it."""

        def progress(stage: str, done: int, total: int) -> None:
            self.progress(f"{layer.name}: {stage}", done, total)

        progress("making the layer (the first run compiles the kernels)", 0, 0)
        case = make_case(
            self.network,
            layer,
            tensors,
            backward=self.backward,
            batch=self.batch,
            threads=self.threads,
            seed=self.seed,
        )
        return check(case, **self.requested, threads=self.threads, seed=self.seed, progress=progress)

    def crashed(self, layer: ConvLayer, error: Exception) -> Report:
        """Return the report of a layer whose check raised an unexpected exception."""
        return Report.crashed(
            " ".join(f"{type(error).__name__}: {error}".split()),
            seed=self.seed,
            requested=self.requested,
            threads=self.threads,
            operands=layer.geometry(self.batch).described(),
        )


def _stream(job: _Job, chosen: _Chosen, on_case: OnCase | None) -> SuiteReport:
    cases: dict[str, Report] = {}
    interrupted = False
    with listening() as interrupts:
        try:
            for layer, tensors in chosen:
                try:
                    report = job.check(layer, tensors)
                except FastcheckError:
                    raise  # bad input concerns all layers
                except Exception as error:
                    interrupts.raise_if_interrupted()
                    report = job.crashed(layer, error)
                cases[layer.name] = report
                if on_case is not None:
                    on_case(layer.name, cases[layer.name])
                if report.interrupted or interrupts.interrupted:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            interrupted = True
    return SuiteReport.of(cases, job.threads, interrupted=interrupted)


def chosen_layers(
    network: str, layers: Collection[str] | None, tensors: Collection[str]
) -> list[tuple[ConvLayer, tuple[str, ...]]]:
    """Return the requested layers, in the network's order, each with the requested tensors that it has.

    Raises
    ------
    FastcheckError
        If an argument is not valid for `run`, or no layer is left.
    """
    refuse_unknown("network", network, NETWORKS)
    for name in tensors:
        refuse_unknown("a tensor", name, TENSORS)
    known = {layer.name: layer for layer in NETWORKS[network].layers}
    wanted = set(known) if layers is None else {name for pattern in layers for name in _matching(pattern, known)}
    matching = [(known[name], _tensors_of(known[name], tensors)) for name in known if name in wanted]
    chosen = [(layer, names) for layer, names in matching if names]
    if not chosen:
        raise FastcheckError(f"nothing is left to check in {network}: no chosen layer has {' or '.join(tensors)}")
    return chosen


def _matching(pattern: str, known: Collection[str]) -> list[str]:
    names = [name for name in known if fnmatchcase(name, pattern)]
    if not names:
        first = next(iter(known))
        raise FastcheckError(f"no layer is named {pattern!r}{nearest(pattern, known)}: expected names such as {first}")
    return names


def _tensors_of(layer: ConvLayer, tensors: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in TENSORS if name in tensors and (name != "bias" or layer.bias))
