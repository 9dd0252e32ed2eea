"""Ledgers for tests: small real reports, ones changed by hand, and names that want to harm whoever prints them."""

import csv
from dataclasses import replace

from layers import case, layer

import fastcheck
from fastcheck.batch.ledger import Ledger, PlannedCase
from fastcheck.network_report import Line, NetworkReport
from fastcheck.suite import SuiteReport

LAYER = layer((1, 2, 6, 6), (3, 2, 3, 3), padding=1)

FACTS = {"threads": 3, "target": "x86_64 tested", "versions": {"fastcheck": "9.9"}}

HOSTILE = (
    *("quote\"'", "new\nline", "return\rline", "\x1b[31mred\x1b[0m", "\x9b2J", "<b>&amp;]]></b>"),
    *("=cmd()", "+1", "-2", "@sum", "\t=tab()", "\uff1d1", "\u202eright to left", "nul\x00"),
    *("bell\x07", "\ufffe", "[bold]markup", "a,b;c", "é✓"),
)
"""Names of cases."""


def reports():
    """Return a report of every verdict; that of "fail" has a wrong bias, and "network" another first phase."""
    good = case(LAYER)
    passed = fastcheck.check(good, dims="all", evaluator="local", threads=1)
    failed = fastcheck.check(case(LAYER, grads=good.grads | {"bias": -good.grads["bias"]}), dims="all", threads=1)
    no_time = passed.run | {"seconds": 0.0}
    crashed = replace(passed, verdict="error", tensors={}, error="ValueError: of some kind", run=no_time)
    return {
        "pass": passed,
        "fail": failed,
        "error": crashed,
        "inconclusive": replace(passed, verdict="inconclusive"),
        "forward": fastcheck.check(case(LAYER, output=good.output * 2), threads=1),
        "network": network(failed, passed),
    }


def network(*phases):
    """Put reports together as those of a network's phases."""
    named = dict(zip(("data loss", "with regularisation"), phases, strict=True))
    suite = SuiteReport.of(named, threads=2)
    return NetworkReport(named, False, suite.run, (Line("loss", "done", "declared"),), ())


def renamed(report, name):
    """Return a report whose tensors, reasons and error have this name in them."""
    tensors = {
        f"{name}.{key}": replace(tensor, reason=f"{name} is why", advice=f"try {name}")
        for key, tensor in report.tensors.items()
    }
    return replace(report, tensors=tensors, error=None if report.error is None else f"{name} crashed")


def ledger(folder, cases, name="nightly", ended=True, seconds=2.0, target="x86_64 tested"):
    """Make a ledger of these reports by name, None where a case is waiting; return the folder."""
    with Ledger.open(folder, name, "text", target) as book:
        book.sync([PlannedCase(case_name, f"key {case_name}", {}, 1.0) for case_name in cases])
        number = book.begin_run(FACTS)
        for case_name, report in cases.items():
            if report is not None:
                book.finish(f"key {case_name}", report.to_dict(), seconds)
        if ended:
            book.end_run(number, {})
    return folder


def rows(path):
    """Read a CSV file."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
