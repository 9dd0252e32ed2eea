"""Estimates of the work and memory of a case, made before it starts."""

from __future__ import annotations

import math

from fastcheck.batch.run.planned import CostEstimate
from fastcheck.batch.suite.entries import Entry, FunctionEntry, NetworkEntry, NpzEntry
from fastcheck.common.opened import opened
from fastcheck.convolutions import cost, memory, npz_case
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine import sampling
from fastcheck.engine.settings import Request
from fastcheck.networks import npz_data
from fastcheck.networks.case import Point
from fastcheck.networks.file import read_network

PASSES = 6
"""Forward passes that a convolution's data, outputs and audits take in addition to its differences."""


def of(entry: Entry, threads: int) -> CostEstimate | None:
    """Return the cost estimate of a case; only the headers of its files are read.

    It is None for a case that only a function of the user's describes, since that is called only when the case runs.

    Raises
    ------
    FastcheckError
        If a file cannot be read, or the shapes in its header do not fit together.
    """
    if isinstance(entry, FunctionEntry):
        return None
    if isinstance(entry, NetworkEntry):
        return _of_network(entry, threads)
    if isinstance(entry, NpzEntry):
        with opened(entry.path, real=True) as file:
            return _of_conv(entry.request, *npz_case.case_outline(file))
    return _of_conv(entry.request, entry.geometry, entry.loss, entry.tensors)


def _of_conv(request: Request, geometry: ConvGeometry, loss: str, tensors: tuple[str, ...]) -> CostEstimate:
    work = cost.of_conv(geometry, cost.kind_of(request.evaluator), loss, tensors)
    counts = sampling.counts(request.dims, {name: math.prod(geometry.shape_of(name)) for name in tensors}, work)
    total = sum(counts[name] * work[name] for name in tensors) + PASSES * cost.forward(geometry)
    return CostEstimate(sum(counts.values()), float(total), memory.needed_bytes(geometry, tensors))


def _of_network(entry: NetworkEntry, threads: int) -> CostEstimate:
    from fastcheck.networks import partial, passes  # imports Numba

    point = _point(entry)
    lowered = passes.lowered(point)
    work = {name: partial.work(lowered, name, len(point.x), entry.request.evaluator) for name in point.params}
    sizes = {name: array.size for name, array in point.params.items()}
    counts = sampling.counts(entry.request.dims, sizes, work)
    total = sum(counts[name] * work[name] for name in sizes)
    phases = 2 if point.network.penalties(list(point.params)) else 1
    arguments = 8 * (2 * sum(sizes.values()) + point.x.size)  # parameters, their gradients and the data
    needed = arguments + partial.needed_bytes(lowered, point, threads)
    return CostEstimate(phases * sum(counts.values()), float(phases * total), needed)


def _point(entry: NetworkEntry) -> Point:
    """Return a network's point as far as the headers of its files describe it."""
    with opened(entry.path, real=True) as file:
        network = read_network(file)
    if entry.data is None:
        assert entry.input is not None
        return Point.outline(network, entry.input)
    with opened(entry.data, real=True) as file:
        return Point.outline(network, *npz_data.network_data_outline(file))
