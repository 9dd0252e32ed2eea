"""The report of several cases: the worst decides, JSON by contract, read back and printed."""

import io
import json
from dataclasses import replace

import pytest
from layer_examples import case, layer

import fastcheck
from fastcheck import FastcheckError
from fastcheck.render.suite import case_line
from fastcheck.render.text import as_text
from fastcheck.reports.reader import from_json
from fastcheck.reports.suite_report import SuiteReport

LAYER = layer((1, 2, 6, 6), (3, 2, 3, 3), padding=1)


@pytest.fixture(scope="module")
def reports():
    good = case(LAYER)
    passed = fastcheck.check(good, dims=9)
    passed = replace(passed, operands=good.geometry.described())
    failed = fastcheck.check(case(LAYER, grads={"bias": -good.grads["bias"]}))
    crashed = replace(passed, verdict="error", tensors={}, error="ValueError: of some kind")
    unsure = replace(passed, verdict="inconclusive")
    return {"pass": passed, "fail": failed, "error": crashed, "inconclusive": unsure}


@pytest.fixture
def suite(reports):
    return SuiteReport.of(reports, threads=2)


@pytest.mark.parametrize(
    ("names", "verdict", "code"),
    [
        (("pass",), "pass", 0),
        (("pass", "inconclusive"), "inconclusive", 3),
        (("inconclusive", "error", "pass"), "error", 3),
        (("error", "pass", "fail", "inconclusive"), "fail", 1),
        ((), "inconclusive", 3),
    ],
)
def test_the_worst_case_decides(names, verdict, code, reports):
    suite = SuiteReport.of({name: reports[name] for name in names}, threads=1)
    assert (suite.verdict, suite.exit_code, suite.passed) == (verdict, code, verdict == "pass")


def test_an_interrupted_suite_never_passes(reports):
    suite = SuiteReport.of({"a": reports["pass"]}, threads=1, interrupted=True)
    assert (suite.verdict, suite.exit_code) == ("inconclusive", 130)
    assert SuiteReport.of({"a": reports["fail"]}, threads=1, interrupted=True).verdict == "fail"


def test_json_by_contract(suite, reports):
    data = json.loads(suite.to_json())
    assert set(data) == {"schema", "verdict", "interrupted", "cases", "run"}
    assert (data["schema"], data["verdict"]) == (1, "fail")
    assert [entry["name"] for entry in data["cases"]] == ["pass", "fail", "error", "inconclusive"]
    for entry in data["cases"]:
        name = entry.pop("name")
        assert entry == json.loads(reports[name].to_json())
    assert data["cases"][0]["operands"] == {
        "input": [1, 2, 6, 6],
        "weight": [3, 2, 3, 3],
        "output": [1, 3, 6, 6],
        "stride": [1, 1],
        "padding": [[1, 1], [1, 1]],
        "dilation": [1, 1],
        "groups": 1,
    }
    assert data["cases"][2]["error"] == "ValueError: of some kind"
    assert data["run"]["seconds"] == sum(entry["run"]["seconds"] for entry in data["cases"])
    assert data["run"]["threads"] == 2


def test_json_reads_back(suite):
    again = from_json(suite.to_json())
    assert isinstance(again, SuiteReport)
    assert again.to_json() == suite.to_json()
    assert as_text(again, io.StringIO(), verbose=True) == as_text(suite, io.StringIO(), verbose=True)


def test_text_tells_every_case_why_it_did_not_pass_and_the_totals(suite):
    text = as_text(suite, io.StringIO(), "several", verbose=True)
    assert text.startswith("several   FAIL: 1 of 4 cases fails: fail; 1 of 4 cases could not be checked:\n")
    assert "fail: fail: bias: 3 of 3 differ" in text
    assert "error: error: ValueError: of some kind" in text
    checked = sum(tensor.dims_checked for case in suite.cases.values() for tensor in case.tensors.values())
    totals = next(line for line in text.splitlines() if line.startswith(f"4 cases, {checked:,} dimensions in "))
    assert f"norm ratio {suite.cases['fail'].tensors['bias'].norm_ratio:.1e}" in totals
    assert text.rstrip().endswith("cases is inconclusive: inconclusive; 1 passes")


def test_a_line_for_each_case_as_it_finishes(reports):
    line = case_line("conv1", reports["pass"])
    assert line.split()[:5] == ["pass", "conv1", "1x2x6x6", "*", "3x2x3x3"]
    assert "9 dimensions in" in line
    assert "audit 9 agree" in line
    assert "ValueError: of some kind" in case_line("conv1", reports["error"])
    weight = reports["pass"].tensors["weight"]
    for disagreements, told in ((0, "audit 32 agree"), (2, "audit 2 of 32 disagree")):
        audit = {"dims": 32, "direction": None, "disagreements": disagreements}
        audited = replace(reports["pass"], tensors={"weight": replace(weight, audit=audit)})
        assert told in case_line("conv1", audited)


def _paths(data, path=()):
    """Every place in JSON data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _paths(value, (*path, key))


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, "\ud800", 1.5], ids=repr)
def test_a_damaged_report_is_refused_or_still_printed_and_never_a_traceback(value, reports):
    text = SuiteReport.of({"a": reports["pass"], "b": reports["error"]}, threads=1).to_json()
    refused = 0
    for path in _paths(json.loads(text)):
        data = json.loads(text)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        try:
            read = from_json(json.dumps(data))
            as_text(read, io.StringIO(), verbose=True).encode()
            "".join(case_line(*entry) for entry in read.cases.items()).encode()
        except FastcheckError as error:
            refused += "report" in str(error)
    assert refused > 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(verdict="pass"), "its verdict is not that of its cases, fail"),
        (lambda data: data["cases"][1].update(name="pass"), "two cases are named 'pass'"),
        (lambda data: data["cases"][1].pop("name"), "name is missing"),
        (
            lambda data: data["cases"][0]["operands"].update(stride=[1.5]),
            "'stride' is neither a count, a list",
        ),
        (lambda data: data["cases"].append(3), r"cases\[4\] is not an object"),
    ],
)
def test_what_contradicts_itself_is_refused(change, message, suite):
    data = json.loads(suite.to_json())
    change(data)
    with pytest.raises(FastcheckError, match=message):
        from_json(json.dumps(data))


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_number_is_shown_whatever_the_terminals_width(columns, suite, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    text = as_text(suite, _Terminal(), verbose=True)
    assert "…" not in text
    for tensor in suite.cases["pass"].tensors.values():
        assert f"{tensor.dims_checked:,} of {tensor.dims_total:,}" in text
