"""Reports in JSON for ``show`` and ``diff``."""

import functools
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import network_files
import numpy as np
from mutation import changed_bytes, changed_tree
from trials import Trial

import fastcheck
from fastcheck.convolutions.case import TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.reports.suite_report import SuiteReport
from fastcheck.workloads import seeded

_TOKENS = (
    *(b"{}", b"[]", b"[[", b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"0.5", b'"nan"', b'"inf"', b'""'),
    *(
        b'"pass"',
        b'"fail"',
        b'"error"',
        b'"inconclusive"',
        b'"cases"',
        b'"hygiene"',
        b'"tensors"',
        b'"schema"',
        b"1" * 5000,
    ),
    *(b"\\u0000", b"\\ud800", b"\\u001b[31m", b"\xff", b"[" * 3000, b'{"a":' * 3000, "\N{BYTE ORDER MARK}".encode()),
)

_VIEWS = (
    *((), (), (), ("--json", "-"), ("--csv", "f.csv"), ("--junit", "f.xml"), ("--all",)),
    *(
        ("--verdict", "fail,error"),
        ("--case", "*"),
        ("--tensor", "*"),
        ("--tensor", "w*", "--csv", "f.csv", "--junit", "f.xml"),
    ),
)


def view(rng):
    """Return options of ``show``."""
    return rng.choice(_VIEWS)


@functools.cache
def reports():
    """Return texts of reports: of a case that passes, one that fails, a network, and a suite of all of these."""
    geometry = ConvGeometry.of((1, 1, 4), (2, 1, 3), stride=1, padding=1, dilation=1, groups=1)
    with ThreadPoolExecutor(1) as pool:
        good = seeded.conv_case(geometry, "base", 0, bias=True, tensors=TENSORS, pool=pool)
    passed = fastcheck.check(good, dims="all", threads=1)
    good.grads["weight"] = -good.grads["weight"]
    failed = fastcheck.check(good, dims="all", threads=1, explain=True)
    with tempfile.TemporaryDirectory() as folder:
        network = network_files.checked(Path(folder))
    compared = fastcheck.compare({"a": np.array([1.0, np.nan])}, {"a": np.array([1.0, 2.0])})
    cases = {"passed": passed, "failed": failed, "network": network, "compared": compared}
    found = [one.to_dict() for one in (*cases.values(), SuiteReport.of(cases, threads=1))]
    return [json.dumps(settled(report)) for report in found]


def settled(report):
    """Return a report, in place, whose ``run`` is the same in every run and on every machine."""
    report["run"] |= {key: 0.5 for key in report["run"] if key.endswith("seconds")}
    report["run"] |= {"peak_bytes": 2**28, "target": "x86_64", "versions": {}}
    for case in report.get("cases", ()):
        settled(case)
    return report


def prepare():
    """Return what makes a report."""
    bases = reports()

    def make(rng, folder):
        text = rng.choice(bases)
        if rng.random() < 0.3:
            data = changed_bytes(rng, text.encode(), _TOKENS, rng.choice(bases).encode())
        else:
            data = json.dumps(changed_tree(rng, json.loads(text))).encode()
        (folder / "report.json").write_bytes(data)
        if rng.random() < 0.7:
            return Trial(["show", "report.json", *view(rng)])
        (folder / "suite.json").write_text(bases[-1])
        return Trial(["diff", *rng.sample(("report.json", "suite.json"), 2)])

    return make
