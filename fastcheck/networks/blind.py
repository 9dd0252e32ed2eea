"""Points at which a network shows little about its code: a loss with nothing to gain, statistics without variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastcheck.common.naming import listed
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.local_errors import grouped
from fastcheck.networks.passes import Passes, lanes

SATURATED, NOISY = 1e-6, 2.0**12
"""A loss has nothing to gain where the output's cotangents are below both: this fraction of their possible size, and
this number of unit round-offs of it."""

ALIKE = 16
"""Unit round-offs by which entries may differ and still be one value to a normalisation."""

CANCELLED = 1e-6
"""A gradient below this fraction of its terms is nothing but their rounding."""

_STATISTICS = ("batch_norm", "layer_norm", "group_norm")
"""Kinds of rows that take statistics."""


def blinding(baseline: Baseline, name: str, unit: float) -> HealthFinding | None:
    """Return why a tensor's gradient vanishes at this point with any code; None where no reason is known.

    Parameters
    ----------
    baseline : Baseline
    name : str
        The tensor.
    unit : float
        Unit round-off of the tensor's gradient.
    """
    finding = statistics(baseline, unit)
    return saturated(baseline.passes, unit) or (finding if finding is not None and name in finding.tensors else None)


def saturated(passes: Passes, unit: float) -> HealthFinding | None:
    """Return the finding that the loss has nothing to gain, if so; ``unit`` is the unit round-off of the gradient.

    A cotangent of the output is a difference of numbers of at most about one; for a squared error, of outputs and
    targets.
    """
    largest, point = max(float(np.abs(chunk.seeds).max()) for chunk in passes.chunks), passes.point
    scale = 1.0
    if point.network.loss == "squared_error":
        scale = max(float(np.abs(passes.outputs()).max()), float(np.abs(point.targets).max()))
    if largest > min(SATURATED, NOISY * unit) * scale:
        return None
    return health.nothing_to_gain(passes.loss(), point.network.loss == "softmax_cross_entropy")


def statistics(baseline: Baseline, unit: float) -> HealthFinding | None:
    """Return which normalisations take the variance of a single value, and which tensors' gradients cancel for it.

    ``unit`` is the unit round-off of the gradient.
    """

    def find() -> HealthFinding | None:
        alike = list(_alike(baseline.passes, unit))
        if not alike:
            return None
        names = [name for name in baseline.passes.program.tensors if _cancelled(baseline, name, alike)]
        batches = all(one.kind == "batch_norm" for one in alike)  # others see each data point alone
        return health.no_variance(listed(map(str, alike)), batches and all_equal(baseline.passes.point.x), names)

    return baseline.cached(("statistics", unit), find)


def all_equal(x: np.ndarray) -> bool:
    """Return whether there are several data points, all of them equal."""
    return len(x) > 1 and bool((x == x[:1]).all())


class _Alike(NamedTuple):
    """A normalisation, and its groups that hold a single value each, out of a total.

    They are channels, data points, or groups of channels of all data points.
    """

    row: int
    kind: str
    layer: str
    groups: list[int]
    total: int

    @property
    def whole(self) -> bool:
        return len(self.groups) == self.total

    def __str__(self) -> str:
        if self.kind == "layer_norm":
            where = f"{len(self.groups)} of {self.total} data points"
        elif self.kind == "group_norm":
            where = f"{len(self.groups)} of {self.total} groups of channels, over all data points"
        else:
            where = f"all {self.total} channels" if self.whole else f"channel {listed(map(str, self.groups))}"
        return f"{self.layer} ({where})"


def _alike(passes: Passes, unit: float) -> Iterator[_Alike]:
    """Yield the normalisations with a group of a single value, whose variance is below eps."""
    for row, node in enumerate(passes.program.nodes):
        if node.kind not in _STATISTICS:
            continue
        source = node.columns["a"]
        z = np.concatenate([lanes(passes, chunk, chunk.cached, source) for chunk in passes.chunks], axis=2)
        z = grouped(node, z)
        spread, size = np.ptp(z, axis=1).reshape(-1), np.abs(z).max(axis=1).reshape(-1)
        groups = np.flatnonzero((spread <= ALIKE * unit * size) & (spread * spread <= node.reals[0]))
        if len(groups):
            yield _Alike(row, node.kind, passes.program.layer_name(row), groups.tolist(), len(spread))


def _cancelled(baseline: Baseline, name: str, alike: list[_Alike]) -> bool:
    """Return whether one of these normalisations makes a tensor's gradient zero but for rounding.

    Its own weight multiplies zeros alone. Tensors before it may have terms that cancel.
    """
    rows, whole = baseline.passes.program.nodes_of(name), {one.row for one in alike if one.whole}
    if whole.issuperset(rows):
        return not name.endswith(".bias")
    if not any(_before(baseline.passes, one.row).intersection(rows) for one in alike):
        return False
    gradient = np.abs(baseline.passes.named(baseline.gradient)[name]).reshape(-1)
    return bool((gradient <= CANCELLED * baseline.terms(name)[1]).all())


def _before(passes: Passes, row: int) -> set[int]:
    """Return the rows that lead to a row."""
    before, waiting = set[int](), [row]
    while waiting:
        columns = passes.program.nodes[waiting.pop()].columns
        fresh = {columns["a"], columns["b"]} - {-1} - before
        before |= fresh
        waiting += fresh
    return before
