"""The report: JSON by contract, the same bits for any number of threads, verdicts and reasons."""

import io
import json
import math
import pickle

import numpy as np
import pytest
from layer_examples import case, layer, operands, torch_gradients

import fastcheck
from fastcheck import FastcheckError, GradientMismatchError
from fastcheck.metrics.judged import heaviest
from fastcheck.render.text import as_text
from fastcheck.reports.reader import from_json

LAYER = layer((2, 4, 8, 8), (16, 4, 3, 3), padding=1)


def deterministic(report):
    data = json.loads(report.to_json())
    del data["run"]
    return json.dumps(data)


@pytest.mark.jit
@pytest.mark.parametrize(("evaluator", "dims"), [("local", "all"), ("local", 200), ("full", 60)])
def test_the_report_is_bit_identical_for_any_number_of_threads(evaluator, dims):
    made = case(layer((2, 4, 40, 40), (16, 4, 3, 3), padding=1))
    reports = [fastcheck.check(made, dims=dims, evaluator=evaluator, threads=threads) for threads in (1, 2, 3)]
    assert [report.run["threads"] for report in reports] == [1, 2, 3]
    assert len({deterministic(report) for report in reports}) == 1
    checked = sum(tensor.dims_checked for tensor in reports[0].tensors.values())
    assert checked == (12800 + 576 + 16 if dims == "all" else dims)


def test_json_by_contract():
    report = fastcheck.check(case(LAYER), dims=60, seed=3, step=0.25)
    data = json.loads(report.to_json())
    assert set(data) == {
        "schema",
        "verdict",
        "seed",
        "requested",
        "interrupted",
        "forward",
        "tensors",
        "run",
        "operands",
        "directions",
    }
    assert (data["schema"], data["verdict"], data["seed"], data["interrupted"]) == (1, "pass", 3, False)
    assert data["requested"] == {"step": 0.25, "evaluator": "auto", "dims": 60, "kinks": "widen"}
    assert set(data["forward"]) == {"verdict", "norm_ratio", "diagnosis"}
    assert set(data["tensors"]) == {"input", "weight", "bias"}
    tensor = data["tensors"]["weight"]
    assert set(tensor) >= {
        *("verdict", "evaluator", "step", "dims_total", "dims_checked", "unresolved", "kinks", "excluded"),
        *("norm_ratio", "max_ratio", "max_ratio_resolved", "sign_mismatches", "beyond_error_bar", "audit"),
        *("digits", "worst", "diagnosis"),
    }
    assert (tensor["evaluator"], tensor["step"], tensor["dims_total"]) == ("delta", 0.25, 576)
    assert set(tensor["digits"]) == {"min", "median", "histogram"}
    assert sum(tensor["digits"]["histogram"]) + tensor["unresolved"] == tensor["dims_checked"]
    entry = tensor["worst"][0]
    assert set(entry) == {
        *("index", "analytic", "numeric", "difference", "same_sign", "ratio", "error_bar", "verdict"),
    }
    severity = [abs(e["difference"]) / e["error_bar"] for e in tensor["worst"]]
    assert severity == sorted(severity, reverse=True)
    run = {"threads", "seconds", "audit_seconds", "forward_seconds", "peak_bytes", "target", "versions"}
    assert set(data["run"]) == run
    assert data["run"]["seconds"] > 0
    assert data["run"]["peak_bytes"] > 1e7


def test_json_reads_back():
    weight = np.full((16, 4, 3, 3), np.nan)
    weight.flat[0] = np.inf
    report = fastcheck.check(case(LAYER, grads={"weight": weight}), dims=50)
    assert '"nan"' in report.to_json()
    again = from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert math.isnan(again.tensors["weight"].norm_ratio)


def _damaged(data, path, value):
    """A copy of JSON data with the value at a path replaced."""
    data = json.loads(json.dumps(data))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


def _paths(data, path=()):
    """Every place in JSON data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _paths(value, (*path, key))


@pytest.mark.parametrize("value", [None, "x", -1, 10**400, [], {}, "\ud800", 1.5], ids=repr)
def test_a_damaged_report_is_refused_or_still_printed_and_never_a_traceback(value):
    data = json.loads(fastcheck.check(case(LAYER), dims=9).to_json())
    refused = 0
    for path in list(_paths(data)):
        try:
            as_text(from_json(json.dumps(_damaged(data, path, value))), io.StringIO(), verbose=True).encode()
        except FastcheckError as error:
            refused += "report" in str(error)
    assert refused > 30


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [40, 80, 132, 200])
def test_every_number_is_shown_whatever_the_terminals_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    report = fastcheck.check(case(LAYER), dims=30)
    shown = as_text(report, _Terminal(), verbose=True)
    assert "…" not in shown
    for tensor in report.tensors.values():
        assert f"{tensor.dims_checked:,} of {tensor.dims_total:,}" in shown
        assert f"{tensor.worst[0].analytic:.12g}" in shown
        assert str(list(tensor.worst[4].index)) in shown


def test_a_report_with_the_schemas_keys_alone_is_read():
    data = json.loads(fastcheck.check(case(LAYER), dims=9).to_json())
    for tensor in data["tensors"].values():
        for key in ("reason", "advice", "shape", "non_finite", "first_beyond"):
            del tensor[key]
    assert as_text(from_json(json.dumps(data)), io.StringIO(), verbose=True)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "verdict": "good"}', "[" * 100_000]
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(FastcheckError, match="report"):
        from_json(text)


def test_kept_arrays():
    made = case(LAYER)
    tensor = fastcheck.check(made, dims={"weight": "all"}, keep=True).tensors["weight"]
    assert np.array_equal(tensor.dims, np.arange(576))
    assert np.array_equal(tensor.analytic, made.grads["weight"].ravel())
    assert (np.abs(tensor.numeric - tensor.analytic) <= tensor.error_bar).all()
    assert fastcheck.check(made, dims=9).tensors["weight"].numeric is None


def test_raise_if_failed():
    made = case(LAYER)
    fastcheck.check(made, dims=30).raise_if_failed()
    wrong = fastcheck.check(case(LAYER, grads={"bias": -made.grads["bias"]}))
    with pytest.raises(GradientMismatchError) as caught:
        wrong.raise_if_failed()
    first, _, *rest = str(caught.value).splitlines()
    assert first == "bias 16 of 16 wrong"
    assert "\n".join(rest) == str(wrong)
    assert caught.value.report is wrong
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.report) == (str(caught.value), wrong)


def test_a_non_finite_gradient_fails_with_its_index():
    weight = np.array(case(LAYER).grads["weight"])
    weight[3, 1, 0, 2] = np.nan
    report = fastcheck.check(case(LAYER, grads={"weight": weight}))
    assert report.verdict == "fail"
    assert report.tensors["weight"].first_beyond == (3, 1, 0, 2)
    assert report.tensors["weight"].non_finite == 1
    assert report.tensors["weight"].worst[0].index == (3, 1, 0, 2)


FORWARDS = {
    "the bias is missing": lambda x, w, b, z: z - b.reshape(1, -1, 1, 1),
    "the bias is added several times: twice": lambda x, w, b, z: z + b.reshape(1, -1, 1, 1),
    "the output is half of what it should be": lambda x, w, b, z: z / 2,
    "flipped": lambda x, w, b, z: torch_gradients(LAYER, x, w[:, :, ::-1, ::-1].copy(), b)[0],
    "the kernel's spatial axes are mixed up: its spatial axes are exchanged": lambda x, w, b, z: torch_gradients(
        LAYER, x, w.swapaxes(2, 3).copy(), b
    )[0],
    "the padding before an axis is off by one: one more than the padding along width": lambda x, w, b, z: (
        np.concatenate([torch_gradients(LAYER, np.pad(x, ((0, 0),) * 3 + ((1, 0),)), w, b)[0][..., :-1]], axis=-1)
    ),
    "samples have each other's outputs: samples are in the opposite order": lambda x, w, b, z: z[::-1].copy(),
    "not one of the known patterns": lambda x, w, b, z: z + np.sin(np.arange(z.size)).reshape(z.shape),
}


@pytest.mark.parametrize("bug", FORWARDS)
def test_a_wrong_forward_is_named_before_any_gradient_is_judged(bug):
    x, w, b = operands(LAYER)
    z = torch_gradients(LAYER, x, w, b)[0]
    report = fastcheck.check(case(LAYER, output=FORWARDS[bug](x, w, b, z)))
    assert report.verdict == "fail"
    assert report.tensors == {}
    assert bug in report.forward.diagnosis["bug"]
    assert "index" in report.forward.diagnosis["evidence"]
    assert "forward" in report.summary()


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_a_wrong_forward_at_an_extreme_scale_is_not_misnamed(scale):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 6)) * scale, rng.standard_normal((3, 2, 3))
    v = np.ones((1, 3, 4))
    unrelated = rng.standard_normal((1, 3, 4)) * scale
    made = fastcheck.ConvCase(x, w, grad_output=v, grads={"weight": w}, output=unrelated)
    assert "not one of the known patterns" in fastcheck.check(made).forward.diagnosis["bug"]


def test_one_wrong_output_is_found_at_its_index():
    x, w, b = operands(LAYER)
    z = torch_gradients(LAYER, x, w, b)[0]
    z[1, 7, 2, 3] *= 1 + 1e-9
    report = fastcheck.check(case(LAYER, output=z))
    assert report.verdict == "fail"
    assert "[1, 7, 2, 3]" in report.forward.diagnosis["evidence"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_forward_in_narrow_precision_is_no_mismatch(dtype):
    x, w, b = operands(LAYER)
    z = torch_gradients(LAYER, x, w, b)[0]
    assert fastcheck.check(case(LAYER, output=z.astype(dtype)), dims=3).forward.verdict == "pass"


@pytest.mark.parametrize(
    ("noise", "spoilt", "expected"),
    [
        (1e-12, None, "pass"),
        (1e-6, None, "inconclusive"),
        (0.5, None, "fail"),
        (0, (0, np.nan), "fail"),
        (0, (0, 1e-3), "pass"),  # 1e-13 beside typical values of 1: no digit of such an entry is left
        (0, (1, 1e-3), "inconclusive"),
    ],
)
def test_two_arrays_are_judged_by_both_rules(noise, spoilt, expected):
    rng = np.random.default_rng(0)
    n = rng.standard_normal(500)
    n[:2] = 1e-12, 1e-7
    a = n * (1 + noise * rng.standard_normal(500))
    if spoilt is not None:
        a[spoilt[0]] = np.nan if np.isnan(spoilt[1]) else a[spoilt[0]] * (1 + 0.1)
    assert fastcheck.compare(a, n).verdict == expected


def test_compare_takes_mappings():
    report = fastcheck.compare({"w": np.ones(3), "b": np.ones(2)}, {"b": np.ones(2), "w": np.ones(3)})
    assert list(report.tensors) == ["w", "b"]
    assert report.passed


@pytest.mark.parametrize(
    ("analytic", "numeric", "message"),
    [
        (np.ones(3), np.ones(4), "shape"),
        (np.ones(3), {"w": np.ones(3)}, "mapping"),
        ({"weight": np.ones(3)}, {"wieght": np.ones(3)}, "did you mean 'wieght'"),
        ({}, {}, "empty"),
        (np.ones(0), np.ones(0), "empty"),
        (np.ones(3, dtype=int), np.ones(3), "dtype int64"),
        (np.ones(3), np.array([1, np.inf, 2]), r"inf at index \[1\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(analytic, numeric, message):
    with pytest.raises(FastcheckError, match=message):
        fastcheck.compare(analytic, numeric)


def test_the_heaviest_verdict_decides():
    assert heaviest(["pass", "inconclusive", "fail", "error"]) == "fail"
    assert heaviest(["pass", "inconclusive", "error"]) == "error"
    assert heaviest(["pass", "inconclusive"]) == "inconclusive"
    assert heaviest(["pass"]) == "pass"
    assert heaviest([]) == "inconclusive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluator": "locla"}, "did you mean 'local'"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 4097}, "threads is 4097: expected an integer of at most 4096"),
        ({"threads": 10**20}, "threads is 100000000000000000000: expected"),
        ({"threads": 10**5000}, "threads is an integer of thousands of digits: expected"),
        ({"seed": 10**20}, "seed is 100000000000000000000: expected"),
        ({"dims": 10**20}, "dims is 100000000000000000000: expected"),
        ({"step": True}, "step is True"),
        ({"step": 1e308}, "step is 1e[+]308: too large"),
        ({"seed": -1}, "seed is -1"),
        ({"dims": 0}, "dims is 0"),
        ({"step": 0}, "step is 0"),
        ({"step": float("nan")}, "step is nan"),
        ({"step": "big"}, "step is 'big'"),
        ({"step": 1e-30}, "smallest usable step"),
    ],
)
def test_check_refuses(arguments, message):
    with pytest.raises(FastcheckError, match=message):
        fastcheck.check(case(LAYER), **arguments)
    with pytest.raises(FastcheckError, match="case is int"):
        fastcheck.check(3)
