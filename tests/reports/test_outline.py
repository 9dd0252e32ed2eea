"""The short text of reports: the verdict first and last, then what failed, the worst first, and little else."""

import io
import re
import sys
import textwrap
from dataclasses import replace

import network_examples
import numpy as np
import processes
import pytest
import torch_network
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer

import fastcheck
from fastcheck.metrics.health import HealthFinding
from fastcheck.render.text import as_text
from fastcheck.reports.layout import ROW_WIDTH, Row, joined, table, wrapped
from fastcheck.reports.suite_report import SuiteReport

LAYER = layer((2, 3, 9, 9), (4, 3, 3, 3), stride=2, padding=1)


def _wrong(**factors):
    """Return the report of a layer with gradients times these factors."""
    made = case(LAYER)
    grads = {name: factors.get(name, 1.0) * grad for name, grad in made.grads.items()}
    return fastcheck.check(case(LAYER, grads=grads), dims="all")


@pytest.fixture(scope="module")
def reports():
    odd = np.ones((4, 3, 3, 3))
    odd[0, 0, 0, 1] = -1
    return {
        "pass": _wrong(),
        "weight": _wrong(weight=odd),
        "three": _wrong(input=-1.0, weight=1.01, bias=1.5),
        "sample": fastcheck.check(case(LAYER), dims=40),
        "forward": fastcheck.check(case(LAYER, output=2 * case(LAYER).output)),
        "compare": fastcheck.compare(np.arange(1.0, 9.0), np.arange(1.0, 9.0) * [1] * 7 + [-1]),
        "ratios": fastcheck.compare({"w": np.arange(1.0, 9.0), "b": np.ones(2)}, {"w": -np.ones(8), "b": np.ones(2)}),
    }


@pytest.fixture(scope="module")
def network():
    described, params, x, y, masks = network_examples.CASES["cnn"](0)
    loss, grads = torch_network.gradients(described, params, x, y, masks)
    return lambda **changed: fastcheck.check_network(
        described, params, grads | changed, x, y, loss=loss, masks=masks, dims="all", threads=2
    )


# What it says


def test_a_passing_check_says_so_twice_in_few_lines(reports):
    lines = str(reports["pass"]).splitlines()
    total = sum(tensor.dims_total for tensor in reports["pass"].tensors.values())
    assert re.match(rf"PASS: input, weight and bias are right in all {total} entries \(forward ", lines[0])
    assert lines[-1] == "PASS: input, weight, bias pass"
    assert len(lines) <= 6
    assert any(re.match(r"fewest digits, \w+: norm ratio ", line) for line in lines)
    assert any(re.search(r"audit: \d+ agree$", line) for line in lines)


def test_a_sample_says_of_how_many_and_what_it_may_have_missed(reports):
    text = " ".join(str(reports["sample"]).split())
    assert "PASS: input, weight and bias are right in 40 entries checked, of 598" in text
    assert "had " in text
    assert " of input been wrong, 95 % of samples would have included one" in text


def test_one_failing_entry_is_on_the_first_screen(reports):
    report = reports["weight"]
    lines = str(report).splitlines()
    assert lines[0].startswith("FAIL: weight is wrong in 1 of 108 entries (input and bias pass; forward ")
    assert lines[-1] == "FAIL: weight 1 of 108 wrong; input, bias pass"
    assert len(lines) <= 24
    (row,) = (line for line in lines if line.startswith("  ["))
    worst = report.tensors["weight"].worst[0]
    assert row.startswith("  [0, 0, 0, 1] ")
    assert row.endswith("  opposite sign")
    assert [float(cell) for cell in row[14:].split()[:3]] == pytest.approx(
        [worst.analytic, worst.numeric, abs(worst.difference)], rel=5e-3
    )
    (named,) = (line for line in lines if line.startswith("this is: "))
    assert named.startswith("this is: where it fails, the gradient has the opposite sign")
    assert len([line for line in lines if line.startswith("try: ")]) == 1


def test_failing_tensors_come_worst_first_with_their_rows(reports):
    lines = str(reports["three"]).splitlines()
    assert len(lines) <= 31
    assert " ".join(lines[:2]).startswith("FAIL: input is wrong in ")
    titles = [line.partition(":")[0] for line in lines if re.match(r"\w+: norm ratio", line)]
    assert titles == ["input", "bias", "weight"]
    norms = [reports["three"].tensors[name].norm_ratio for name in titles]
    assert norms == sorted(norms, reverse=True)
    assert sum(line.startswith("  [") for line in lines) == 3 * 4


def test_a_wrong_forward_judges_no_gradient(reports):
    text = " ".join(str(reports["forward"]).split())
    assert text.startswith("FAIL: the declared output is not what this case computes: the output is twice")
    assert "no gradient was judged" in text
    assert "FAIL: forward: the output is twice" in text


def test_two_arrays_are_judged_by_rules(reports):
    text = " ".join(str(reports["ratios"]).split())
    assert text.startswith("FAIL: w: both rules of thumb are broken (norm ratio at most 1e-09 in float64) (b passes) ")
    assert " b passes" in text
    assert "a second" not in text


def test_a_finding_about_the_function_comes_before_its_entries(reports):
    finding = HealthFinding("grad adds up", "the second call returns twice the first", "write = in place of +=", "fail")
    report = reports["pass"].with_health([finding])
    lines = str(report).splitlines()
    assert lines[0].startswith("FAIL: the second call returns twice the first")
    assert "try: write = in place of +=" in lines
    assert lines[-1] == "FAIL: grad adds up"


def test_a_harmless_finding_is_a_note(reports):
    report = reports["pass"].with_health([HealthFinding("linear", "the loss is linear")])
    assert "linear: the loss is linear" in str(report).splitlines()


def test_an_interrupted_check_says_so(reports):
    lines = str(replace(reports["pass"], interrupted=True, verdict="inconclusive")).splitlines()
    assert lines[0].startswith("INCONCLUSIVE: interrupted: input, weight and bias ")
    assert lines[-1] == "INCONCLUSIVE: interrupted; input, weight, bias pass"


def test_values_that_are_not_numbers_are_counted():
    grads = case(LAYER).grads
    weight = np.array(grads["weight"])
    weight[0, 0, 0, 0] = np.nan
    report = fastcheck.check(case(LAYER, grads={"weight": weight}))
    assert report.outline().closing == "FAIL: weight 1 of 108 nan or infinite"
    assert "  [0, 0, 0, 0]       nan" in str(report)


def test_an_error_is_its_first_line(reports):
    report = replace(reports["pass"], verdict="error", tensors={}, error="ValueError: no")
    assert str(report).splitlines()[0] == str(report).splitlines()[-1] == "ERROR: ValueError: no"
    assert repr(report) == "<Report ERROR: ValueError: no>"


# Networks and suites


def test_a_network_names_a_phase_only_where_the_other_passes(network):
    right = network()
    assert " ".join(str(right).split()).startswith(
        "PASS: conv1.weight, conv1.bias, conv2.weight and 5 more are right in all 212 entries (with regularisation off"
    )
    bias = right.tensors["conv2.bias"]
    wrong = network(**{"conv2.bias": np.full(bias.shape, 7.0)})
    assert str(wrong).startswith("FAIL: conv2.bias is wrong in all ")
    assert str(wrong).splitlines()[-1].startswith("FAIL: conv2.bias ")
    half = replace(wrong, cases={**wrong.cases, "data loss": right.cases["data loss"]})
    assert str(half).startswith("FAIL: conv2.bias (with regularisation) is wrong in all ")


def test_twelve_passing_cases_are_twelve_lines(reports):
    suite = SuiteReport.of({f"case{number}": reports["pass"] for number in range(12)}, threads=2)
    lines = str(suite).splitlines()
    assert lines[0] == lines[-1] == "PASS: all 12 cases pass"
    assert sum(line.startswith("case") for line in lines) == 12
    assert len(lines) == 12 + 3
    suite.raise_if_failed()


def test_failing_cases_come_first_and_the_suite_raises(reports):
    cases = {"good": reports["pass"], **{f"bad{number}": reports["weight"] for number in range(7)}}
    suite = SuiteReport.of(cases, threads=2)
    lines = str(suite).splitlines()
    assert lines[0] == "FAIL: 7 of 8 cases fail: bad0, bad1, bad2 and 4 more; 1 passes"
    shown = [line.split()[0] for line in lines if re.match(r"bad\d|good", line)]
    assert shown == [f"bad{number}" for number in range(7)] + ["good"]
    assert sum(line.startswith("  [0, 0, 0, 1] ") for line in lines) == 5  # of the first five
    with pytest.raises(fastcheck.GradientMismatchError, match=r"^7 of 8 cases fail") as caught:
        suite.raise_if_failed()
    assert caught.value.report is suite


# Its forms


def test_repr_is_one_line_for_every_kind_of_report(reports, network):
    swept = fastcheck.sweep(case(LAYER), tensor="weight", dims=1)
    suite = SuiteReport.of({"a": reports["three"]}, threads=1)
    assert repr(reports["weight"]) == "<Report FAIL: weight 1 of 108 wrong; input, bias pass>"
    assert repr(network()) == "<NetworkReport PASS: 8 tensors pass>"
    assert repr(suite) == "<SuiteReport FAIL: the only case fails: a>"
    assert repr(swept) == "<Sweep PASS: none of 1 curves indicates a coding mistake>"
    assert repr(reports["weight"].tensors["weight"]).startswith("<TensorReport FAIL: 1 of 108 differ by more than ")
    assert "[0, 0, 0, 1]" in str(reports["weight"].tensors["weight"])


@pytest.mark.parametrize("name", ["pass", "weight", "three", "sample", "forward", "ratios"])
def test_the_command_line_prints_the_same_text(name, reports):
    assert as_text(reports[name], io.StringIO()) == f"{reports[name]}\n"
    assert as_text(reports[name], io.StringIO(), "a.npz").startswith(f"a.npz   {reports[name].verdict.upper()}: ")


def test_pipes_are_as_wide_as_columns_says(reports, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    lines = as_text(reports["three"], io.StringIO()).splitlines()
    assert max(len(line) for line in lines if not line.startswith("  [") and "analytic" not in line) <= 44
    long = as_text(reports["three"], io.StringIO(), verbose=True).splitlines()
    assert max(len(line) for line in long if not line.startswith("  [")) <= 44


def test_the_short_summary_of_pytest_begins_with_the_failing_tensor(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
        import numpy as np
        import fastcheck

        def test_it():
            p = np.arange(1.0, 4.0)
            wrong = np.array([2.0, 4.0, -6.0])
            fastcheck.check_gradient(lambda p: float(p @ p), wrong, p).raise_if_failed()
        """)
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "test_mine.py"]
    done = processes.run(command, env=processes.environment() | {"COLUMNS": "120"}, cwd=tmp_path)
    assert done.returncode == 1
    summary = next(line for line in done.stdout.splitlines() if line.startswith("FAILED "))
    assert "fastcheck.GradientMismatchError: params 1 of 3 wrong" in summary
    assert "  [2]          -6" in done.stdout
    assert "mismatch.py" not in done.stdout


# Layout

VALUES = st.floats(-1e300, 1e300) | st.sampled_from([np.nan, np.inf, -np.inf])
INDICES = st.lists(st.integers(0, 4095), max_size=4).map(tuple)


@given(st.lists(st.tuples(INDICES, VALUES, VALUES, st.sampled_from(["", "opposite sign", "bar 1e-10"])), min_size=1))
def test_rows_fit_and_read_back(entries):
    rows = [Row(*entry) for entry in entries]
    heading, *lines = table(rows)
    assert heading.split() == ["index", "analytic", "numeric", "off", "by"]
    for row, line in zip(rows, lines, strict=True):
        assert len(line) <= ROW_WIDTH + 24  # only indices and exponents of extreme lengths exceed it
        cells = line[line.index("]") + 1 :].split()
        assert float(cells[0]) == pytest.approx(row.analytic, rel=6e-3, nan_ok=True)
        assert float(cells[1]) == pytest.approx(row.numeric, rel=6e-3, nan_ok=True)


@given(st.integers(0, 11), st.floats(1.0, 9.9))
def test_digits_show_where_two_values_differ(place, value):
    row = Row((0,), value, value * (1 + 10.0**-place))
    cells = table([row])[1].split()
    assert cells[1] != cells[2]


def test_ordinary_rows_fit_sixty_columns():
    rows = [Row((511, 511, 2, 2), 1.23456e-5, -3.456e-5, "opposite sign"), Row((0, 0, 0, 0), 1.0, 1.0 + 1e-12)]
    assert max(map(len, table(rows))) <= ROW_WIDTH
    assert table([]) == []


def test_sentences_are_wrapped_and_printable():
    assert list(wrapped("a b " * 20, 20))[1].startswith("  a b")
    assert list(wrapped("red \x1b[31m\nnext", 40)) == ["red \\x1b[31m\\nnext"]
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert joined(list("abcdef")) == "a, b, c and 3 more"
