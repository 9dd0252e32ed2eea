"""The diagnoses of a report's failed tensors: from the arrays that a check kept to words in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.evidence import Diagnosis, Evidence, Failed, in_report
from fastcheck.diagnosis.shape import described
from fastcheck.reports.axes import axis_names
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import UNKNOWN, Kept

Arrays = Mapping[str, np.ndarray]

Explain = Callable[[Failed], Sequence[Diagnosis]]
"""Takes the tensors that failed, and returns what may explain them, the likeliest first."""

Marked = Callable[[Evidence], str]
"""Takes a tensor that failed, and returns words for what marks the entries that fail, or none."""

KEPT = 2**14
"""Largest number of dimensions whose values are kept for a diagnosis, 32 bytes each."""

SAMPLE = 4096
"""Dimensions of a failed tensor that are differenced again for a diagnosis, where none were kept."""


def failed_in(report: Report) -> list[str]:
    """Return the tensors that a diagnosis could explain: those with finite entries outside their bars."""
    if report.interrupted:
        return []
    return [
        name
        for name, tensor in report.tensors.items()
        if tensor.verdict == "fail" and tensor.beyond_error_bar and not tensor.non_finite
    ]


def diagnosed(
    report: Report,
    kept: Mapping[str, Kept],
    grads: Arrays,
    values: Arrays,
    explain: Explain,
    marked: Marked = lambda evidence: "",
) -> Report:
    """Return a report with a diagnosis of every failed tensor.

    Parameters
    ----------
    report : Report
    kept : mapping of str to Kept
        Per-dimension arrays of the failed tensors; of those without, nothing is said.
    grads : mapping of str to array
        The gradients that were checked.
    values : mapping of str to array
        The tensors themselves.
    explain, marked : callable
    """
    every = [_evidence(name, kept[name], grads[name], values.get(name)) for name in failed_in(report) if name in kept]
    failed = {one.name: one for one in every if one.failing.any()}
    if not failed:
        return report
    found = explain(failed)
    words = {name: _in_words(one, found, report, marked(one)) for name, one in failed.items()}
    tensors = {
        name: replace(tensor, diagnosis=words[name]) if name in failed else tensor
        for name, tensor in report.tensors.items()
    }
    return replace(report, tensors=tensors)


def without_arrays(report: Report) -> Report:
    """Return a report without per-dimension arrays."""
    tensors = {name: replace(tensor, kept=None) for name, tensor in report.tensors.items()}
    return replace(report, tensors=tensors)


def kept_in(report: Report) -> dict[str, Kept]:
    """Return the per-dimension arrays that a report has."""
    return {name: tensor.kept for name, tensor in report.tensors.items() if tensor.kept is not None}


def _evidence(name: str, kept: Kept, grad: np.ndarray, value: np.ndarray | None) -> Evidence:
    assert kept.error_bar is not None  # it is where something was differenced
    analytic = grad.astype(np.float64)
    return Evidence(name, analytic, kept.dims, kept.numeric, kept.error_bar, value)


def _in_words(evidence: Evidence, found: Sequence[Diagnosis], report: Report, mark: str) -> dict[str, str]:
    shape = described(evidence, axis_names(evidence.name, evidence.shape, report.operands))
    shape += f"; {mark}" if mark else ""
    fitting = [one for one in found if evidence.name in one.tensors]
    if not fitting:
        return {"bug": UNKNOWN, "evidence": "", "try": "", "shape": shape}
    first, *others = fitting
    words = in_report(first, shape)
    if others:
        words["evidence"] += f"; the same array comes of: {'; '.join(one.bug for one in others)}"
    return words
