"""The text of a failed test: about ten lines that say which entries are wrong, by how many bars, and where they lie."""

from dataclasses import replace

import network_examples
import numpy as np
import pytest
import torch_network
from layer_examples import case, layer

import fastcheck
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.brief import NOTES, brief
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import SuiteReport

LAYER = layer((2, 3, 9, 9), (4, 3, 3, 3), stride=2, padding=1)


def wrong(keep=True, **factors):
    """Return the report of a layer with gradients times these factors."""
    grads = {name: factors.get(name, 1.0) * grad for name, grad in case(LAYER).grads.items()}
    return fastcheck.check(case(LAYER, grads=grads), dims="all", keep=keep)


def factors(*place, by=2.0):
    """Return factors of the weight: one everywhere but at a place."""
    found = np.ones((4, 3, 3, 3))
    found[place] = by
    return found


def test_a_pass_is_its_first_line_and_its_notes():
    lines = brief(wrong())
    assert lines[0].startswith("PASS: input, weight and bias are right in all")
    assert not any(" bars" in line or line.startswith("where") for line in lines)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ((1,), ["where weight is wrong: only filter 1"]),
        ((slice(None), 2), ["where weight is wrong: only channel 2"]),
        (
            (slice(None), slice(None), 1, 0),
            ["where weight is wrong: only tap (1, 0)"],
        ),
        (
            (slice(0, 4, 3), 1),
            ["where weight is wrong: only channel 1 of all filters but filters 1 to 2"],
        ),
        ((3, 2, 1, 0), []),  # the row of the only wrong entry says it
        ((slice(None),), []),  # as does the first line of all of them
    ],
)
def test_it_says_what_wrong_entries_share(place, where):
    report = wrong(weight=factors(*place))
    assert [line for line in brief(report) if line.startswith("where")] == where
    assert [line for line in brief(wrong(False, weight=factors(*place))) if line.startswith("where")] == where


def test_rows_count_the_bars_between_two_values():
    report = wrong(weight=factors(3, 2, 1, 0, by=-1.0))
    (entry,) = [one for one in report.tensors["weight"].worst if one.verdict == "fail"]
    (row,) = [line for line in brief(report) if line.startswith("  [")]
    assert row.startswith("  [3, 2, 1, 0]  ")
    assert row.endswith(f"  {abs(entry.difference) / entry.error_bar:.0e} bars, opposite sign")


@pytest.mark.parametrize(
    ("bars", "words"),
    [
        (1.75, "1.8 bars"),
        (12.0, "12 bars"),
        (123456.0, "123,456 bars"),
        (2e7, "2e+07 bars"),
        (np.inf, ""),
        (np.nan, ""),
    ],
)
def test_numbers_of_bars_are_short(bars, words):
    report = wrong(weight=factors(3, 2, 1, 0))
    tensor = report.tensors["weight"]
    entry = replace(tensor.worst[0], difference=bars, error_bar=1.0)
    changed = replace(report, tensors={"weight": replace(tensor, worst=(entry,))})
    (row,) = [line for line in brief(changed) if line.startswith("  [")]
    assert (row.endswith(f"  {words}"), " bars" in row) == (bool(words), bool(words))


def test_rows_of_several_tensors_have_their_names():
    rows = [line.partition("[")[0] for line in brief(wrong(weight=1.01, bias=1.5)) if " bars" in line and "[" in line]
    assert rows == ["  bias", "  bias", "  weight", "  weight"]
    lines = brief(wrong(input=-1.0, weight=1.01, bias=1.5))
    rows = [line.partition("[")[0] for line in lines if " bars" in line and "[" in line]
    assert rows == ["  input", "  bias", "  weight"]


def test_names_cannot_break_a_line():
    odd = {"a\nb\x1b[2J": np.ones(2), "w" * 200: np.ones(2)}
    lines = brief(fastcheck.check_gradient(lambda p: sum(p[name].sum() for name in odd), lambda p: p | {}, odd))
    assert lines[0].startswith("PASS")
    twice = {name: 2 * one for name, one in odd.items()}
    lines = brief(fastcheck.check_gradient(lambda p: sum(p[name].sum() for name in odd), twice, odd, keep=True))
    assert any(r"a\nb\x1b[2J[" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines[1:])) < 200


def test_an_inconclusive_entry_has_its_bar():
    report = fastcheck.check_gradient(lambda p: np.abs(p).sum(), np.sign, np.array([1e-12, 1.0, 2.0]), step=1e-3)
    assert report.verdict == "inconclusive"
    lines = brief(report)
    assert lines[0].startswith("INCONCLUSIVE: params")
    (row,) = [line for line in lines if line.startswith("  [0]")]
    assert "  bar " in row
    assert " bars" not in row


def test_notes_are_whole_sentences_and_few():
    findings = tuple(HealthFinding(f"finding {number}", "seen", "advice") for number in range(9))
    lines = brief(replace(wrong(weight=1.01), health=findings))
    notes = lines[next(number for number, line in enumerate(lines) if line.startswith("this is: ")) :]
    assert notes[0] == "this is: the gradient has a factor of 1.01 everywhere; explains all 108 entries"
    assert len(notes) <= NOTES + 1
    assert all(line.startswith(("this is", "try", "  ", "finding")) for line in notes)
    long = HealthFinding("finding", " ".join(["seen"] * 200))
    assert brief(replace(wrong(weight=1.01), health=(long,))) == brief(wrong(weight=1.01))


def test_a_network_names_its_layers_and_phases():
    described, params, x, y, masks = network_examples.CASES["cnn"](0)
    loss, grads = torch_network.gradients(described, params, x, y, masks)
    name = next(name for name, grad in grads.items() if grad.ndim == 4)
    grads[name][1] *= 1.001
    report = fastcheck.check_network(described, params, grads, x, y, loss=loss, masks=masks, dims="all", keep=True)
    lines = brief(report)
    assert lines[0].startswith(f"FAIL: {name} is wrong in ")
    assert f"where {name} is wrong: only filter 1" in lines


def test_other_reports_are_their_outline():
    suite = SuiteReport.of({"layer": wrong(weight=1.01)}, 1)
    assert brief(suite) == suite.outline().lines()
    crashed = Report.crashed("no memory", seed=0, requested={}, threads=1)
    assert brief(crashed) == ["ERROR: no memory"]
