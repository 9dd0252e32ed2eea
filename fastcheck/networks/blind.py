"""Points at which a network shows little of its code: a loss with nothing to gain, and statistics without variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastcheck.common.naming import listed
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.passes import Passes, lanes

SATURATED, NOISY = 1e-6, 2.0**12
"""Cotangents of the output below both, a part of what they can be and a number of unit round-offs of that, are those of
a loss that has nothing to gain."""

ALIKE = 16
"""Unit round-offs by which entries may differ that are one number to a normalisation."""

CANCELLED = 1e-6
"""A gradient below this part of its terms is what their rounding leaves."""

_AXES = {"batch_norm": (1, 2), "layer_norm": (0, 1)}
"""What a normalisation takes its statistics over: axes of (channels, pixels, points)."""


def blinding(baseline: Baseline, name: str, unit: float) -> HealthFinding | None:
    """Return what makes a tensor's gradient vanish, whatever the code is; None where nothing is known to.

    Parameters
    ----------
    baseline : Baseline
    name : str
        The tensor.
    unit : float
        Unit round-off of its gradient.
    """
    found = statistics(baseline, unit)
    return saturated(baseline.passes, unit) or (found if found is not None and name in found.tensors else None)


def saturated(passes: Passes, unit: float) -> HealthFinding | None:
    """Return that the loss has nothing to gain, where it is so; ``unit`` is the unit round-off of the gradient.

    A cotangent of the output is a difference of numbers no larger than about one, under a squared error than outputs
    and targets.
    """
    largest, point = max(float(np.abs(chunk.seeds).max()) for chunk in passes.chunks), passes.point
    scale = 1.0
    if point.network.loss == "squared_error":
        scale = max(float(np.abs(passes.outputs()).max()), float(np.abs(point.targets).max()))
    if largest > min(SATURATED, NOISY * unit) * scale:
        return None
    return health.nothing_to_gain(passes.loss(), point.network.loss == "softmax_cross_entropy")


def statistics(baseline: Baseline, unit: float) -> HealthFinding | None:
    """Return which normalisations see one value where they take a variance, and which tensors' gradients that cancels.

    ``unit`` is the unit round-off of the gradient.
    """

    def find() -> HealthFinding | None:
        alike = list(_alike(baseline.passes, unit))
        if not alike:
            return None
        names = [name for name in baseline.passes.program.places if _cancelled(baseline, name, alike)]
        batches = all(one.kind == "batch_norm" for one in alike)  # others see each data point by itself
        return health.no_variance(listed(map(str, alike)), batches and all_equal(baseline.passes.point.x), names)

    found: HealthFinding | None = baseline.cached(("statistics", unit), find)
    return found


def all_equal(x: np.ndarray) -> bool:
    """Tell whether there are several data points, all of them equal."""
    return len(x) > 1 and bool((x == x[:1]).all())


class _Alike(NamedTuple):
    """A row that normalises, of so many channels or data points, and those of them that have one value each."""

    row: int
    kind: str
    layer: str
    places: list[int]
    total: int

    @property
    def whole(self) -> bool:
        return len(self.places) == self.total

    def __str__(self) -> str:
        if self.kind == "layer_norm":
            where = f"{len(self.places)} of {self.total} data points"
        else:
            where = f"all {self.total} channels" if self.whole else f"channel {listed(map(str, self.places))}"
        return f"{self.layer} ({where})"


def _alike(passes: Passes, unit: float) -> Iterator[_Alike]:
    """Yield the normalisations that see one value somewhere, with a variance below eps."""
    for place, node in enumerate(passes.program.nodes):
        if node.kind not in _AXES:
            continue
        source, axes = node.columns["a"], _AXES[node.kind]
        z = np.concatenate([lanes(passes, chunk, chunk.cached, source) for chunk in passes.chunks], axis=2)
        spread, size = np.ptp(z, axis=axes), np.abs(z).max(axis=axes)
        found = np.flatnonzero((spread <= ALIKE * unit * size) & (spread * spread <= node.reals[0]))
        if len(found):
            yield _Alike(place, node.kind, passes.program.layer_name(place), found.tolist(), len(spread))


def _cancelled(baseline: Baseline, name: str, alike: list[_Alike]) -> bool:
    """Tell whether one of these normalisations makes a gradient zero, but for rounding.

    That of its own weight multiplies what is zero everywhere; those before it may be zero, whose terms cancel.
    """
    place, bias = baseline.passes.program.node_of(name)
    if any(one.row == place and one.whole for one in alike):
        return not bias
    if not any(place in _before(baseline.passes, one.row) for one in alike):
        return False
    gradient = np.abs(baseline.passes.named(baseline.gradient)[name]).reshape(-1)
    return bool((gradient <= CANCELLED * baseline.terms(name)[1]).all())


def _before(passes: Passes, row: int) -> set[int]:
    """Return the rows that lead to one."""
    found, waiting = set[int](), [row]
    while waiting:
        columns = passes.program.nodes[waiting.pop()].columns
        fresh = {columns["a"], columns["b"]} - {-1} - found
        found |= fresh
        waiting += fresh
    return found
