"""Checks whose failures are diagnosed: the per-dimension arrays that this takes are kept, or made again."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastcheck.common.progress import silent
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.around import Around
from fastcheck.diagnosis.counts import counts_of
from fastcheck.diagnosis.diagnosed import KEPT, SAMPLE, Explain, Marked, diagnosed, failed_in, kept_in, without_arrays
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.fitted import fitted, is_in_part
from fastcheck.diagnosis.marks import marked
from fastcheck.diagnosis.recognised import convolution_in
from fastcheck.engine.hosting import host, hosted
from fastcheck.engine.pipeline import Case
from fastcheck.engine.settings import Settings
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.vjp_case import VjpCase
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import Kept


def check(case: Case, settings: Settings) -> Report:
    """Check a convolution or a function, and diagnose what fails."""
    from fastcheck.engine import coordinator  # imports Numba

    alone = host() is None  # a suite stores what is kept, and has finished shards without it
    keeping = replace(settings, keep=settings.keep or (alone and _takes_few(case, settings)))
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
        return _completed_function(case, settings, report, kept)
    return report


def _completed_convolution(
    case: ConvCase, settings: Settings, report: Report, kept: Mapping[str, Kept] | None
) -> Report:
    from fastcheck.diagnosis import forward  # imports Numba
    from fastcheck.diagnosis.blind_spots import noted
    from fastcheck.diagnosis.convolutions import replayed

    def explain(failed: Failed) -> list[Diagnosis]:
        return _ranked([*fitted(failed, counts=_counts(case)), *replayed(case, failed)])

    if report.verdict == "pass":
        blind = noted(case)
        return report.with_health([*report.health, blind]) if blind else report
    values = {name: case.operand(name) for name in case.grads}
    report = _diagnosed(case, settings, report, kept, values, explain)
    return forward.explained(case, report, _counts(case))


def _completed_function(
    case: FunctionCase, settings: Settings, report: Report, kept: Mapping[str, Kept] | None
) -> Report:
    around = _around(case)

    def explain(failed: Failed) -> list[Diagnosis]:
        convolution = convolution_in(case) if isinstance(case, VjpCase) else None
        labelled = {case.label(name): array for name, array in case.params.items()} | dict(around.outputs)
        counts = {} if convolution is None else _counts(convolution.case)
        others = {words: value for words, value in counts_of(labelled).items() if value not in counts.values()}
        found = fitted(failed, counts=counts | others, around=around)
        return _ranked([*found, *([] if convolution is None else convolution.explained(failed))])

    mark = functools.partial(marked, around=around)
    return _diagnosed(case, settings, report, kept, case.params, explain, mark)


def _ranked(found: list[Diagnosis]) -> list[Diagnosis]:
    """Return diagnoses by what comes first: one cause of all."""
    return sorted(found, key=lambda one: (is_in_part(one), -len(one.tensors)))


def _around(case: FunctionCase) -> Around:
    """Return the arrays around the gradients of a function."""
    if not isinstance(case, VjpCase):
        return Around(inputs=case.params, later=case.later)
    vjp = case.vjp
    return Around(vjp.inputs.arrays, vjp.inputs.integers(), vjp.here, vjp.cotangent, case.columns, case.later)


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


def _takes_few(case: Case, settings: Settings) -> bool:
    """Return whether so few dimensions are differenced that their values can be kept."""
    from fastcheck.engine import coordinator

    return sum(map(len, coordinator.chosen(case.pipeline(settings), settings).values())) <= KEPT


def _diagnosed(
    case: Case,
    settings: Settings,
    report: Report,
    kept: Mapping[str, Kept] | None,
    values: Mapping[str, np.ndarray],
    explain: Explain,
    mark: Marked = lambda evidence: "",
) -> Report:
    names = failed_in(report)
    if not names:
        return report
    return diagnosed(report, kept or kept_in(_again(case, settings, names)), case.grads, values, explain, mark)


def _again(case: Case, settings: Settings, names: list[str]) -> Report:
    """Difference a small case, or a sample of the tensors that failed, once more, for its arrays."""
    from fastcheck.engine import coordinator

    once_more = replace(settings, keep=True, progress=silent)
    if not _takes_few(case, settings):
        dims = {name: SAMPLE if name in names else 1 for name in case.grads}
        once_more = replace(once_more, dims=dims, directions=0)
    with hosted(None):  # a suite neither stores this nor counts it
        return coordinator.run(case.pipeline(once_more), once_more)
