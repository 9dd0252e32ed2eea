"""A suite as a CSV file, with a row for each case and tensor."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, TextIO

from fastcheck.batch.ledger.ledger import WAITING
from fastcheck.batch.results import SuiteResults
from fastcheck.render.escape import cell
from fastcheck.render.suite import bugs
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, every_tensor
from fastcheck.reports.tensor_report import TensorReport

COLUMNS = (
    *("case", "phase", "tensor", "verdict", "dims_checked", "dims_total", "norm_ratio", "max_ratio"),
    *("max_ratio_resolved", "digits_min", "digits_median", "unresolved", "kinks", "beyond_error_bar"),
    *("sign_mismatches", "evaluator", "step", "bug", "reason", "seconds"),
)

_MEASURED = COLUMNS[COLUMNS.index("dims_checked") : COLUMNS.index("bug")]


def write_rows(results: SuiteResults, stream: TextIO) -> None:
    """Write a row for each tensor of each phase of each case, with the seconds of the whole case.

    A case without tensors (it crashed, its forward pass is not the declared one, or it is waiting) has one row.
    Numbers have all their digits. Texts are made printable, with an apostrophe before spreadsheet formulas.
    """
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for name, case in results.suite.cases.items():
        for row in _rows(case):
            writer.writerow({key: cell(value) for key, value in ({"case": name} | row).items()})
    for name in results.waiting:
        writer.writerow({"case": cell(name), "verdict": WAITING})


def _rows(case: Report | NetworkReport) -> Iterator[dict[str, Any]]:
    seconds = {"seconds": case.run.get("seconds")}
    bare = True
    for phase, name, tensor in every_tensor(case):
        bare = False
        yield {"phase": phase, "tensor": name} | _of_tensor(tensor) | seconds
    if bare:
        yield {"verdict": case.verdict, "bug": ", ".join(bugs(case)), "reason": _reason(case)} | seconds


def _of_tensor(tensor: TensorReport) -> dict[str, Any]:
    digits = {f"digits_{key}": tensor.digits[key] for key in ("min", "median")}
    measured = {key: getattr(tensor, key) for key in _MEASURED if key not in digits}
    bug = (tensor.diagnosis or {}).get("bug", "")
    return {"verdict": tensor.verdict, "reason": tensor.reason, "bug": bug} | measured | digits


def _reason(case: Report | NetworkReport) -> str:
    return case.summary().removeprefix(f"{case.verdict}: ")
