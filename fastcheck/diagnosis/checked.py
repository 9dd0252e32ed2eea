"""Checks whose failures are diagnosed: the per-dimension arrays that this takes are kept, or made again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.diagnosed import KEPT, SAMPLE, Explain, diagnosed, failed_in, kept_in, without_arrays
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.fitted import fitted, is_in_part
from fastcheck.engine.hosting import host
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.reports.report import Report


class Case(Protocol):
    """A case with a pipeline and analytic gradients."""

    grads: Any

    def pipeline(self, settings: Settings) -> Any:
        """Return the pipeline that checks the case with these settings."""
        ...


def convolution(case: ConvCase, settings: Settings) -> Report:
    """Check a convolution, and diagnose what fails."""
    from fastcheck.diagnosis import forward
    from fastcheck.diagnosis.convolutions import replayed  # imports Numba

    def explain(failed: Failed) -> list[Diagnosis]:
        found = [*fitted(failed, counts=_counts(case)), *replayed(case, failed)]
        return sorted(found, key=lambda one: (is_in_part(one), -len(one.tensors)))  # one cause of all comes first

    values = {name: case.operand(name) for name in case.grads}
    return forward.explained(case, _checked(case, settings, values, explain), _counts(case))


def function(case: FunctionCase, settings: Settings) -> Report:
    """Check a function, and diagnose what fails."""
    extents = _extents(case.params)
    sizes = {size: f"the size of axis {axis} of {case.label(name)}" for name, axis, size in extents}
    counts = {words: float(size) for size, words in sizes.items()}
    return _checked(case, settings, case.params, lambda failed: fitted(failed, counts=counts))


def _extents(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, int]]:
    for name, array in arrays.items():
        for axis, size in enumerate(array.shape):
            yield name, axis, size


def _counts(case: ConvCase) -> dict[str, float]:
    """Return what a gradient may have been divided or multiplied by, in words."""
    geometry = case.geometry
    pixels, taps = math.prod(geometry.output_shape[2:]), math.prod(geometry.weight_shape[2:])
    channels = geometry.input_shape[1]
    return {
        "N": geometry.input_shape[0],
        "the number of output pixels": pixels,
        "N times the number of output pixels": geometry.input_shape[0] * pixels,
        "the number of input channels": channels,
        "the number of filters": geometry.output_shape[1],
        "the number of taps": taps,
        "the number of taps and input channels": taps * channels,
    }


def _checked(case: Case, settings: Settings, values: Mapping[str, np.ndarray], explain: Explain) -> Report:
    from fastcheck.engine import coordinator  # imports Numba

    alone = host() is None  # a suite stores what is kept, and runs each check once
    few = sum(np.size(grad) for grad in case.grads.values()) <= KEPT
    keeping = replace(settings, keep=settings.keep or (few and alone))
    report = coordinator.run(case.pipeline(keeping), keeping)
    names = failed_in(report)
    if names and (alone or settings.keep):
        kept = kept_in(report) or kept_in(_again(case, settings, names))
        report = diagnosed(report, kept, case.grads, values, explain)
    return report if settings.keep else without_arrays(report)


def _again(case: Case, settings: Settings, names: list[str]) -> Report:
    """Difference a sample of the tensors that failed once more, for its arrays."""
    from fastcheck.engine import coordinator

    dims = {name: SAMPLE if name in names else 1 for name in case.grads}
    once_more = replace(settings, dims=dims, keep=True, directions=0)
    return coordinator.run(case.pipeline(once_more), once_more)
