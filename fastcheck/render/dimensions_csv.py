"""All checked dimensions as CSV, one line each."""

from __future__ import annotations

import csv
from typing import TextIO

import numpy as np

from fastcheck.metrics.tally import relative_difference
from fastcheck.render.escape import cell
from fastcheck.reports.report import Report

COLUMNS = ("tensor", "index", "analytic", "numeric", "difference", "same_sign", "ratio", "error_bar", "verdict")


def write_table(report: Report, stream: TextIO) -> None:
    """Write the per-dimension table of a report made with ``keep=True``.

    Numbers have all their digits, so that they read back as the same float64. The index ``[3, 0, 1, 2]`` is written
    as ``3 0 1 2``. Names are escaped as in `fastcheck show --csv`.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, tensor in report.tensors.items():
        kept = tensor.kept
        if kept is None:
            continue
        bars = np.full(len(kept.dims), np.nan) if kept.error_bar is None else kept.error_bar
        with np.errstate(invalid="ignore", over="ignore"):
            difference = kept.analytic - kept.numeric
            same = np.sign(kept.analytic) == np.sign(kept.numeric)
            inside = np.abs(difference) <= bars
        ratio = relative_difference(kept.analytic, kept.numeric)
        indices = np.zeros((len(kept.dims), 0), dtype=int)  # the index of an array without axes is empty
        if tensor.shape:
            indices = np.stack(np.unravel_index(kept.dims, tensor.shape), axis=1)
        known = kept.error_bar is not None
        columns = (indices, kept.analytic, kept.numeric, difference, same, ratio, bars, inside)
        for index, a, n, gap, sign, relative, bar, good in zip(*(column.tolist() for column in columns), strict=True):
            verdict = ("pass" if good else "fail") if known else ""
            position = " ".join(map(str, index))
            writer.writerow(
                (cell(name), position, a, n, gap, "yes" if sign else "no", relative, bar if known else "", verdict)
            )
