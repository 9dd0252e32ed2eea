"""The report of a network: JSON by contract, read back and refused where damaged, and its text on every terminal."""

import io
import json
import math
import re
from dataclasses import replace

import network_examples
import numpy as np
import pytest
import torch_network
from scipy.stats import hypergeom

import fastcheck
from fastcheck import FastcheckError, NetworkReport
from fastcheck.render.text import as_text
from fastcheck.reports.reader import from_json
from fastcheck.reports.suite_report import HygieneLine

pytestmark = pytest.mark.jit


def _checked(name, step="auto", scale=1.0, factor=1.0, **options):
    network, params, x, y, masks = network_examples.CASES[name](0)
    loss, grads = torch_network.gradients(network, params, x, y, masks)
    grads = {name: factor * array for name, array in grads.items()}
    options = {"dims": "all", "step": step, "loss": scale * loss, "masks": masks, "threads": 2} | options
    return fastcheck.check_network(network, params, grads, x, y, **options)


@pytest.fixture(scope="module")
def reports():
    return {
        "pass": _checked("cnn", explain=True),
        "crossing": _checked("cnn", 0.2, explain=True),
        "winners": _checked("max_pool", 0.05, explain=True),
        "hinge": _checked("multiclass_hinge", 0.05, explain=True),
        "fail": _checked("l2_l1_groups", factor=-1.0),
        "nan": _checked("relu", factor=math.nan),
        "forward": _checked("cnn", scale=3.0),
        "dropout": _checked("dropout_features", loss=None),
        "exclude": _checked("cnn", 0.2, kinks="exclude"),
    }


NAMES = ("pass", "crossing", "winners", "hinge", "fail", "nan", "forward", "dropout", "exclude")


def _words(report, title=""):
    return " ".join(as_text(report, io.StringIO(), title, verbose=True).split())


def test_json_by_contract(reports):
    report = reports["crossing"]
    data = json.loads(report.to_json())
    assert set(data) == {"schema", "verdict", "interrupted", "cases", "run", "hygiene", "explanations"}
    assert [case["name"] for case in data["cases"]] == ["data loss", "with regularisation"]
    assert set(data["hygiene"][0]) == {"topic", "status", "text"}
    assert {line["status"] for line in data["hygiene"]} <= {"done", "note", "warn"}
    assert set(data["explanations"][0]["crossings"][0]) == {"layer", "kind", "unit", "minus", "at", "plus"}
    operands = data["cases"][1]["operands"]
    assert operands["layers"][:2] == ["conv1 (conv)", "relu1 (relu)"]
    assert operands["regularised"]["conv1.weight"] == {"l2": 0.01, "l1": 0.0}
    assert data["cases"][0]["operands"]["regularised"] == {}


@pytest.mark.parametrize("name", NAMES)
def test_json_reads_back(name, reports):
    report = reports[name]
    again = from_json(report.to_json())
    assert isinstance(again, NetworkReport)
    assert again.to_json() == report.to_json()
    assert as_text(again, io.StringIO(), "title", verbose=True) == as_text(report, io.StringIO(), "title", verbose=True)
    assert (again.verdict, again.exit_code, again.summary()) == (report.verdict, report.exit_code, report.summary())
    for phase in report.phases.values():
        alone = from_json(phase.to_json())
        assert alone.to_json() == phase.to_json()
        assert as_text(alone, io.StringIO(), verbose=True) == as_text(phase, io.StringIO(), verbose=True)


def test_crossings_hold_numbers_and_places(reports):
    kinds = {one["kind"] for name in NAMES for found in reports[name].explanations for one in found.crossings}
    assert {"sign", "winner", "hinge"} <= kinds
    found = reports["crossing"].explanations[0]
    odd = {"layer": "relu1", "kind": "sign", "unit": (0, 1, 2, 3), "minus": math.nan, "at": math.inf, "plus": -math.inf}
    report = replace(reports["crossing"], explanations=(replace(found, crossings=(odd,), quiet_step=None),))
    again = from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert math.isnan(again.explanations[0].crossings[0]["minus"])
    assert "data point 0, channel 1, position (2, 3) nan inf -inf" in _words(again)


def _paths(data, path=()):
    """Every place in JSON data, of long lists the first few entries."""
    entries = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _paths(value, (*path, key))


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, "\ud800", 1.5, [[1]]], ids=repr)
def test_a_damaged_report_is_refused_or_still_printed_and_never_a_traceback(value, reports):
    report = reports["winners"]
    whole = next(iter(report.phases.values()))
    tensors = {"w.weight": replace(next(iter(whole.tensors.values())), worst=())}
    cases = {"data loss": replace(whole, tensors=tensors, verdict="inconclusive")}
    found, hinge = report.explanations[0], reports["hinge"].explanations[0]
    explanations = (replace(found, crossings=(found.crossings[0], hinge.crossings[0])),)
    text = replace(report, cases=cases, hygiene=report.hygiene[:1], explanations=explanations).to_json()
    refused = 0
    for path in _paths(json.loads(text)):
        data = json.loads(text)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        try:
            as_text(from_json(json.dumps(data)), io.StringIO(), verbose=True).encode()
        except FastcheckError as error:
            refused += "report" in str(error)
    assert refused > 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(verdict="pass"), "its verdict is not that of its cases, inconclusive"),
        (lambda data: data.update(cases=[]), "it has no phase"),
        (
            lambda data: data["hygiene"][0].update(status="good"),
            r"hygiene\[0\].status is 'good': expected one of done",
        ),
        (lambda data: data["hygiene"][0].pop("text"), "text is missing"),
        (lambda data: data.pop("explanations"), "explanations is missing"),
        (lambda data: data["explanations"][0]["crossings"][0].update(unit=[1]), "expected at least two counts"),
        (lambda data: data["explanations"][0]["crossings"][0].update(kind="bend"), "expected one of sign, winner"),
        (lambda data: data["explanations"][0]["crossings"][0].update(at=[1]), "expected a number, or a list of lists"),
        (lambda data: data["cases"][0]["operands"].update(layers=[3]), "layers is .3.: expected a list of texts"),
        (lambda data: data["cases"][1]["operands"]["regularised"].update(w={"l2": 1}), "l1 is missing"),
    ],
)
def test_what_contradicts_itself_is_refused(change, message, reports):
    data = json.loads(reports["crossing"].to_json())
    change(data)
    with pytest.raises(FastcheckError, match=message):
        from_json(json.dumps(data))


def test_text_has_a_table_for_each_phase_and_one_audit(reports):
    text = as_text(reports["pass"], io.StringIO(), "a title", verbose=True)
    assert text.startswith("a title   PASS: conv1.weight, conv1.bias, conv2.weight and 5 more are right in\n")
    assert "\nforward: pass, norm ratio " in text
    for name in reports["pass"].tensors:
        assert text.count(f" {name} ") >= 2
    assert text.index("\ndata loss\n") < text.index("\nwith regularisation\n") < text.index("\nhygiene\n")
    assert text.count("rules of thumb") == 2
    checked = sum(t.audit["dims"] for phase in reports["pass"].phases.values() for t in phase.tensors.values())
    assert f"audit: {checked:,} dimensions of 8 tensors in both phases re-evaluated by whole forward passes" in text
    assert text.count("worst by") == 1  # of the tensor with the fewest digits
    tensors = reports["pass"].tensors
    fewest = min(tensors, key=lambda name: tensors[name].digits["min"])
    assert f"{fewest}: worst by difference / error bar" in text
    assert text.endswith("\nPASS: 8 tensors pass\n")


def test_a_sample_says_of_how_many_and_what_the_smallest_would_have_missed(reports):
    whole = reports["pass"]
    assert whole.summary() == "pass: every phase lies within what the arithmetic can explain"
    part = _checked("cnn", dims={name: 8 if name == "conv2.weight" else "all" for name in whole.tensors})
    total = sum(tensor.dims_total for tensor in whole.tensors.values())
    checked = total - whole.tensors["conv2.weight"].dims_total + 8
    told = f"explain; {checked} of {total} dimensions were checked: had 14 or more of conv2.weight been wrong, 95 % of"
    assert told in part.summary()
    assert "are right in 172 entries checked, of 212" in _words(part)
    assert "had 14 or more of conv2.weight been wrong, 95 % of" in _words(part)
    assert hypergeom.pmf(0, 48, 14, 8) <= 0.05 < hypergeom.pmf(0, 48, 13, 8)
    excluded = _checked("cnn", 0.01, kinks="exclude")
    assert excluded.passed
    assert excluded.summary().endswith(" of 212 dimensions were checked")  # those at kinks were not left out by chance


def test_text_of_a_single_phase_names_no_phase_at_tensors(reports):
    text = _words(reports["dropout"])
    assert "data loss" in text
    assert "(data loss)" not in text
    assert "in both phases" not in text
    assert "forward:" not in text


def test_a_phase_alone_tells_of_whole_forward_passes(reports):
    text = _words(reports["dropout"].phases["data loss"])
    assert "dimensions re-evaluated by whole forward passes, and one direction" in text
    assert "by local" not in text


def test_disagreements_are_told_with_their_tensors(reports):
    tensors = dict(reports["dropout"].tensors)
    name = next(iter(tensors))
    tensors[name] = replace(tensors[name], audit=tensors[name].audit | {"disagreements": 2})
    report = replace(
        reports["dropout"], cases={"data loss": replace(reports["dropout"].phases["data loss"], tensors=tensors)}
    )
    assert f"one direction over all dimensions of each: 2 disagree ({name})" in _words(report)


def test_every_tensor_that_did_not_pass_is_shown_once(reports):
    text = _words(reports["fail"])
    for name, tensor in reports["fail"].tensors.items():
        assert text.count(f"{name} (data loss): worst by") == (tensor.verdict != "pass")
    assert text.startswith("FAIL: ")
    assert not re.search("^FAIL: data loss", text)
    tensors = [tensor for phase in reports["fail"].phases.values() for tensor in phase.tensors.values()]
    advice = {(tensor.diagnosis or {}).get("try") or tensor.advice for tensor in tensors} - {""}
    assert advice
    assert text.count("try: ") + text.count("try (") == len(advice)
    assert all(text.count(f": {sentence}") == 1 for sentence in advice)


def test_crossings_beyond_five_are_counted(reports):
    report = reports["crossing"]
    text = as_text(report, io.StringIO(), verbose=True)
    for found in report.explanations:
        assert " ".join(found.words.split()) in " ".join(text.split())
    hidden = [len(found.crossings) - 5 for found in report.explanations if len(found.crossings) > 5]
    assert hidden
    assert re.findall(r"^and (\d+) more$", text, re.MULTILINE) == [str(count) for count in hidden]
    assert max(len(found.crossings) for found in reports["winners"].explanations) <= 5
    assert not re.search(r"^and \d+ more$", as_text(reports["winners"], io.StringIO(), verbose=True), re.MULTILINE)
    assert "Why the worst dimensions agree as they do" in text
    assert "Why the worst" not in as_text(reports["fail"], io.StringIO(), verbose=True)
    assert "data point" in text
    assert "class" in _words(reports["hinge"])


def test_an_interrupted_report_tells_so(reports):
    phase = replace(reports["dropout"].phases["data loss"], interrupted=True, verdict="inconclusive")
    report = replace(reports["dropout"], cases={"data loss": phase}, interrupted=True)
    assert report.exit_code == 130
    text = as_text(report, io.StringIO(), verbose=True)
    assert "interrupted: only the dimensions reached are counted\nINCONCLUSIVE: interrupted; 4 tensors pass\n" in text


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _on_terminal(report, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    return re.sub(r"\x1b\[[\d;]*m", "", as_text(report, _Terminal(), verbose=True))


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", ["crossing", "fail", "winners", "forward"])
def test_every_number_is_shown_whatever_the_terminals_width(columns, name, reports, monkeypatch):
    text = _on_terminal(reports[name], columns, monkeypatch)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns
    for phase in reports[name].phases.values():
        for tensor in phase.tensors.values():
            assert f"{tensor.dims_checked:,} of {tensor.dims_total:,}" in text
            assert f"{tensor.step:.3g}" in text
    together = " ".join(text.split())
    for line in reports[name].hygiene:
        assert line.topic in text
        assert line.text in together


def _named(report, name):
    """The report with tensors that have a name and the widest entries that a table is laid out for."""
    wide = {"verdict": "inconclusive", "dims_checked": 256, "dims_total": 2_359_296, "unresolved": 256}
    phases = {
        phase: replace(case, tensors={f"{name}{i}": replace(t, **wide) for i, t in enumerate(case.tensors.values())})
        for phase, case in report.phases.items()
    }
    return replace(report, cases=phases)


def test_the_table_fits_126_columns_and_longer_names_widen_it(reports, monkeypatch):
    report = _named(reports["crossing"], "a_longish.weigh")
    table = [line for line in _on_terminal(report, 126, monkeypatch).splitlines() if "a_longish.weigh0" in line]
    assert any("256 of 2,359,296" in line and "inconclusive" in line and " 0.2" in line for line in table)
    report = _named(reports["crossing"], "a_much_longer_name.of_a_tensor" * 2)
    plain = as_text(report, io.StringIO(), verbose=True)
    assert "…" not in plain
    assert max(map(len, plain.splitlines())) > 120
    assert "…" not in _on_terminal(report, 40, monkeypatch)


def test_colours_on_terminals_alone(reports, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report = replace(reports["dropout"], hygiene=(HygieneLine("a topic", "warn", "[bold]as it is[/bold]"),))
    text = as_text(report, _Terminal(), verbose=True)
    assert "\x1b[1;33mwarn" in text
    assert "[bold]as it is[/bold]" in text
    assert "\x1b" not in as_text(report, io.StringIO(), verbose=True)


def test_kept_arrays_stay_out_of_the_json(reports):
    kept = _checked("relu", keep=True)
    assert np.array_equal(kept.tensors["dense1.bias"].dims, np.arange(4))
    assert set(json.loads(kept.to_json())["cases"][0]) == set(json.loads(reports["nan"].to_json())["cases"][0])
