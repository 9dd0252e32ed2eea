"""What failing cases have in common: what they all have, and no passing case has."""

import json
from dataclasses import replace
from itertools import product

import ledgers
import pytest

from fastcheck.batch.common_causes import in_common
from fastcheck.reports.reader import from_data


@pytest.fixture(scope="module")
def reports():
    return ledgers.reports()


CONV = {"input": (2, 4, 9, 9), "weight": (8, 4, 3, 3), "stride": (1, 1), "padding": ((0, 0), (0, 0))}
CONV |= {"dilation": (1, 1), "groups": 1, "loss": "vjp", "precision": "float64"}


@pytest.fixture
def case(reports):
    """Make a case with operands, in which the tensors that are named fail."""

    def case(*wrong, **operands):
        report = reports["fail" if wrong else "pass"]
        tensors = {
            name: replace(tensor, verdict="fail" if name in wrong else "pass")
            for name, tensor in report.tensors.items()
        }
        return replace(report, tensors=tensors, operands=CONV | operands)

    return case


def told(cases):
    return in_common(dict(enumerate(cases)))


def test_values_that_no_passing_case_has_and_the_tensor(case):
    strides = ((1, 1), (2, 2), (3, 3), (4, 4))
    right = [case(stride=stride) for stride in strides[::3]]
    wrong = [case("weight", stride=stride) for stride in strides[1:3] * 4]
    assert told([*right, *wrong]) == "all 8 that fail have stride 2 or 3; always weight"
    assert told([*right, case(stride=(3, 3)), *wrong]) == "all 8 that fail: always weight"
    both = [case("weight", "bias", stride=(2, 1)), case("bias", "input", stride=(2, 1))]
    assert told([*right, *both]) == "both that fail have stride 2x1; always bias"


ALONE = {
    "dilation 2": {"dilation": (2, 2)},
    "padding 1": {"padding": ((1, 1), (1, 1))},
    "padding 1x2": {"padding": ((1, 1), (2, 2))},
    "padding 1:0x0:0": {"padding": ((1, 0), (0, 0))},
    "kernel size 5": {"weight": (8, 4, 5, 5)},
    "2 groups": {"groups": 2},
    "loss tanh": {"loss": "tanh"},
    "one data point": {"input": (1, 4, 9, 9)},
    "stride 2 and dilation 3": {"stride": (2, 2), "dilation": (3, 3)},
}


@pytest.mark.parametrize("words", ALONE)
def test_properties(case, words):
    wrong = case("weight", **ALONE[words])
    assert told([case(), wrong, wrong]) == f"both that fail have {words}; always weight"
    assert told([case(), case(**ALONE[words]), wrong, wrong]) == "both that fail: always weight"


def test_other_verbs(case):
    wrong = case("weight", precision="float16", groups=4, stride=(2, 2))
    words = "have stride 2 and are depthwise and float16"
    assert told([case(), wrong, wrong]) == f"both that fail {words}; always weight"


def test_two_properties_together_where_neither_is_enough(case):
    grid = list(product((1, 2), (1, 4)))
    cases = [
        case(*(["weight"] if stride > 1 < groups else []), stride=(stride, stride), groups=groups, precision=precision)
        for stride, groups in grid
        for precision in ("float64", "float32")
    ]
    assert told(cases) == "both that fail have stride 2 and are depthwise; always weight"


def test_many_values_are_one_property(case):
    wrong = [case("weight", stride=stride) for stride in ((2, 2), (3, 3), (1, 2), (4, 4), (2, 1))]
    assert told([case(), *wrong]) == "all 5 that fail have a stride above 1; always weight"
    sides = [case("weight", padding=padding) for padding in (((0, 1), (0, 0)), ((2, 0), (1, 1)), ((3, 1), (0, 0)))]
    padded = case(padding=((1, 1), (2, 2)))
    assert (
        told([case(), padded, *sides]) == "all 3 that fail have padding that differs between two sides; always weight"
    )


def test_values_of_their_own_are_nothing_in_common(case):
    wrong = [case("weight", stride=(1, 1), dilation=(3, 3)), case("weight", stride=(2, 2), dilation=(5, 5))]
    right = [case(stride=(1, 1), dilation=(5, 5)), case(stride=(2, 2), dilation=(3, 3)), case(dilation=(2, 2))]
    assert told([*right, *wrong]) == "both that fail: always weight"


def test_where_nothing_can_be_said_nothing_is(case, reports):
    alone = replace(case("weight"), tensors={"weight": case("weight").tensors["weight"]})
    assert told([]) == told([case(), case("weight", stride=(2, 2))]) == ""
    assert told([alone, alone]) == ""  # nothing else was checked there, and nothing passed
    assert told([case(), case("weight"), case("bias")]) == ""
    assert told([case(), alone, alone]) == ""
    assert told([reports["error"], reports["error"], reports["inconclusive"], case()]) == ""
    without = replace(case("weight"), operands=None)
    assert told([case(), without, without]) == "both that fail: always weight"
    damaged = [replace(one, operands=CONV | {"stride": 3, "padding": "x"}) for one in (case(), *[case("weight")] * 2)]
    assert told(damaged) == "both that fail: always weight"


def test_inconclusive_cases_do_not_count_as_passing(case, reports):
    unsure = replace(case(stride=(2, 2)), verdict="inconclusive")
    wrong = case("weight", stride=(2, 2))
    assert told([case(), unsure, wrong, wrong]) == "both that fail have stride 2; always weight"


def test_of_networks_the_tensors(reports):
    wrong = reports["network"]
    assert told([reports["pass"], wrong, wrong]) == "both that fail: always bias"


def test_names_are_harmless(case):
    wrong = case("weight", precision="\x1b[31m")
    assert told([case(), wrong, wrong]) == "both that fail are \\x1b[31m; always weight"


def test_show_and_diff_say_it(case, run, tmp_path):
    strides = [(stride, stride) for stride in (1, 2, 3)]
    monday = {f"case{stride}": case(stride=stride) for stride in strides} | {"old": case("input")}
    tuesday = {f"case{stride}": case(*["weight"] * (max(stride) > 1), stride=stride) for stride in strides}
    tuesday["old"] = case("input")
    paths = [ledgers.ledger(tmp_path / name, cases) for name, cases in (("a", monday), ("b", tuesday))]
    code, out, _ = run("diff", *paths)
    assert code == 1
    assert "\nin common: both that began to fail have a stride above 1; always weight\n" in out
    assert out.splitlines()[-1].startswith("4 cases compared: 2 got worse, ")
    assert "1 still fails" in out.splitlines()[-1]
    assert "in common" not in run("diff", paths[0], paths[0])[1]
    del tuesday["old"]
    path = ledgers.ledger(tmp_path / "c", tuesday)
    for options in ((), ("--verdict", "fail"), ("--case", "*")):
        out = run("show", path, *options)[1]
        assert out.splitlines()[1:3].count("in common: both that fail have a stride above 1; always weight") == 1
    assert "in common" not in run("show", paths[0])[1]


def test_operands_of_a_check_are_what_is_looked_at(reports, case):
    assert reports["pass"].operands.keys() == {*CONV, "output"}
    assert reports["pass"].operands["precision"] == "float64"
    read = from_data(json.loads(case("weight", stride=(2, 2)).to_json()))
    assert told([case(), read, read]) == "both that fail have stride 2; always weight"
