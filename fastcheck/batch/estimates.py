"""How much work and memory a case takes, known before it is begun."""

from __future__ import annotations

import math

from fastcheck import cost, memory, sampling
from fastcheck.batch.entries import ConvEntry, Entry, NetworkEntry, NpzEntry
from fastcheck.batch.jobs import Operands, seeded_point
from fastcheck.batch.planned import Estimate
from fastcheck.cases.conv import ConvCase
from fastcheck.cases.network import Point
from fastcheck.geometry import ConvGeometry

PASSES = 6
"""Forward passes that a convolution's data, outputs and audits take beside its differences."""


def of(entry: Entry, operands: Operands, threads: int) -> Estimate:
    """Estimate a case.

    Raises
    ------
    FastcheckError
        If its operands do not fit together.
    """
    if isinstance(entry, NetworkEntry):
        return _of_network(entry, operands, threads)
    if isinstance(entry, NpzEntry):
        case: ConvCase = operands
        return _of_conv(entry, case.geometry, case.loss, tuple(case.grads))
    return _of_conv(entry, entry.geometry, entry.loss, entry.tensors)


def _of_conv(entry: ConvEntry | NpzEntry, geometry: ConvGeometry, loss: str, tensors: tuple[str, ...]) -> Estimate:
    how = entry.how
    work = cost.of_conv(geometry, cost.kind_of(how.evaluator), loss, tensors)
    counts = sampling.counts(how.dims, {name: math.prod(geometry.shape_of(name)) for name in tensors}, work)
    total = sum(counts[name] * work[name] for name in tensors) + PASSES * cost.forward(geometry)
    return Estimate(sum(counts.values()), float(total), memory.needed_bytes(geometry, tensors))


def _of_network(entry: NetworkEntry, operands: Operands, threads: int) -> Estimate:
    from fastcheck.cases import network_pass  # imports Numba
    from fastcheck.evaluators import network_moved

    network, arrays = operands
    if arrays is None:
        assert entry.input is not None
        params, x, y = seeded_point(network, entry.input, entry.how.seed)
        point = Point.of(network, params, x, y)
    else:
        params, _, data = arrays
        point = Point.of(network, params, data.x, data.y, data.masks)
    lowered = network_pass.lowered(point)
    work = {name: network_moved.work(lowered, name, len(point.x), entry.how.evaluator) for name in point.params}
    sizes = {name: array.size for name, array in point.params.items()}
    counts = sampling.counts(entry.how.dims, sizes, work)
    total = sum(counts[name] * work[name] for name in sizes)
    return Estimate(sum(counts.values()), float(total), network_moved.needed_bytes(lowered, point, threads))
