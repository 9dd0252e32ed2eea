"""A suite as JUnit XML, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Collection
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from fastcheck.common.naming import printable
from fastcheck.metrics.judged import Verdict
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport

_TAGS: dict[Verdict, str] = {"fail": "failure", "error": "error", "inconclusive": "error"}
"""XML elements for cases that did not pass. An inconclusive case is an error: its gradients may be wrong."""

_TOTALS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def junit(name: str, suite: SuiteReport, waiting: Collection[str]) -> str:
    """Return JUnit XML with a ``testcase`` for each case.

    Parameters
    ----------
    name : str
        Name of the suite.
    suite : SuiteReport
    waiting : collection of str
        Names of unfinished cases. These, and interrupted cases, count as skipped.
    """
    tests = [_test(name, case_name, case) for case_name, case in suite.cases.items()]
    tests += [_skipped(name, case_name, "not run") for case_name in waiting]
    counts = {total: sum(test.find(tag) is not None for test in tests) for tag, total in _TOTALS.items()}
    seconds = sum(_seconds(case) for case in suite.cases.values())
    totals = {"name": printable(name), "tests": len(tests), **counts, "time": f"{seconds:.3f}"}
    # The common schema has no attribute for skipped tests at the root.
    root = Element("testsuites", {key: str(value) for key, value in totals.items() if key != "skipped"})
    SubElement(root, "testsuite", {key: str(value) for key, value in totals.items()}).extend(tests)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _seconds(case: Report | NetworkReport) -> float:
    seconds = case.run.get("seconds") or 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _testcase(suite_name: str, name: str, seconds: float) -> Element:
    return Element("testcase", {"classname": printable(suite_name), "name": printable(name), "time": f"{seconds:.3f}"})


def _skipped(suite_name: str, name: str, message: str, seconds: float = 0.0) -> Element:
    test = _testcase(suite_name, name, seconds)
    SubElement(test, "skipped", {"message": message})
    return test


def _test(suite_name: str, name: str, case: Report | NetworkReport) -> Element:
    if case.interrupted and case.verdict != "fail":
        return _skipped(suite_name, name, "interrupted", _seconds(case))
    test = _testcase(suite_name, name, _seconds(case))
    if not case.passed:
        outline = case.outline()
        attributes = {"type": case.verdict, "message": printable(outline.gist)}
        SubElement(test, _TAGS[case.verdict], attributes).text = "\n".join(map(printable, outline.lines()))
    return test
