"""Checks whose failures are diagnosed: the per-dimension arrays that this takes are kept, or made again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from fastcheck.common.progress import silent
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.diagnosed import KEPT, SAMPLE, Explain, diagnosed, failed_in, kept_in, without_arrays
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.fitted import fitted, is_in_part
from fastcheck.engine.hosting import host, hosted
from fastcheck.engine.pipeline import Case
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import Kept


def check(case: Case, settings: Settings) -> Report:
    """Check a convolution or a function, and diagnose what fails."""
    from fastcheck.engine import coordinator  # imports Numba

    alone = host() is None  # a suite stores what is kept, and has finished shards without it
    keeping = replace(settings, keep=settings.keep or (_is_small(case) and alone))
    report = coordinator.run(case.pipeline(keeping), keeping)
    report = completed(case, settings, report, kept_in(report) if alone else None)
    return report if settings.keep else without_arrays(report)


def completed(case: Case, settings: Settings, report: Report, kept: Mapping[str, Kept] | None = None) -> Report:
    """Return the report of a case with the diagnoses of what fails.

    Parameters
    ----------
    case : ConvCase or FunctionCase
    settings : Settings
        With which the case was checked.
    report : Report
    kept : mapping of str to Kept, optional
        The per-dimension arrays of the check. Without them, failed tensors are differenced again.
    """
    if isinstance(case, ConvCase):
        return _completed_convolution(case, settings, report, kept)
    if isinstance(case, FunctionCase):
        extents = _extents(case.params)
        sizes = {size: f"the size of axis {axis} of {case.label(name)}" for name, axis, size in extents}
        counts = {words: float(size) for size, words in sizes.items()}
        return _diagnosed(case, settings, report, kept, case.params, lambda failed: fitted(failed, counts=counts))
    return report


def _completed_convolution(
    case: ConvCase, settings: Settings, report: Report, kept: Mapping[str, Kept] | None
) -> Report:
    from fastcheck.diagnosis import forward  # imports Numba
    from fastcheck.diagnosis.blind_spots import noted
    from fastcheck.diagnosis.convolutions import replayed

    def explain(failed: Failed) -> list[Diagnosis]:
        found = [*fitted(failed, counts=_counts(case)), *replayed(case, failed)]
        return sorted(found, key=lambda one: (is_in_part(one), -len(one.tensors)))  # one cause of all comes first

    if report.verdict == "pass":
        blind = noted(case)
        return report.with_health([*report.health, blind]) if blind else report
    values = {name: case.operand(name) for name in case.grads}
    report = _diagnosed(case, settings, report, kept, values, explain)
    return forward.explained(case, report, _counts(case))


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


def _is_small(case: Case) -> bool:
    return sum(np.size(grad) for grad in case.grads.values()) <= KEPT


def _diagnosed(
    case: Case,
    settings: Settings,
    report: Report,
    kept: Mapping[str, Kept] | None,
    values: Mapping[str, np.ndarray],
    explain: Explain,
) -> Report:
    names = failed_in(report)
    if not names:
        return report
    return diagnosed(report, kept or kept_in(_again(case, settings, names)), case.grads, values, explain)


def _again(case: Case, settings: Settings, names: list[str]) -> Report:
    """Difference a small case, or a sample of the tensors that failed, once more, for its arrays."""
    from fastcheck.engine import coordinator

    once_more = replace(settings, keep=True, progress=silent)
    if not _is_small(case):
        dims = {name: SAMPLE if name in names else 1 for name in case.grads}
        once_more = replace(once_more, dims=dims, directions=0)
    with hosted(None):  # a suite neither stores this nor counts it
        return coordinator.run(case.pipeline(once_more), once_more)
