"""Three verdicts: pass, fail, and inconclusive where error bars are too wide to judge by; and what ratios come from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from layer_examples import case, layer, operands, saved, torch_forward, torch_gradients

import fastcheck
from fastcheck.metrics.advice import PARTS
from fastcheck.reports.reader import from_json
from fastcheck.reports.suite_report import NetworkReport, SuiteReport
from fastcheck.reports.tensor_report import ForwardReport

LAYER = layer((2, 4, 9, 9), (6, 2, 3, 3), padding=1, groups=2)


def _relu_at_zero(believed):
    """A layer of one tap whose first output is exactly 0, and gradients of a pass that believes in a relu'(0)."""
    x = np.array([[[0.0, 1.5, -0.7, 2.0]]])
    w, v = np.full((1, 1, 1), 2.0), np.array([[[1.0, 3.0, 5.0, -1.0]]])
    slope = np.where(x == 0, believed, x > 0)
    grads = {"input": v * slope * w[0, 0, 0], "weight": np.sum(v * slope * x).reshape(1, 1, 1)}
    return fastcheck.ConvCase(x, w, loss="relu", grad_output=v, grads=grads)


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("believed", [0.0, 0.25, 1.0])
def test_at_a_kink_any_subgradient_passes_and_is_told(evaluator, believed):
    report = fastcheck.check(_relu_at_zero(believed), evaluator=evaluator)
    assert report.passed, report.summary()
    tensor = report.tensors["input"]
    assert (tensor.kinks, tensor.subgradients) == (1, 1)
    assert "1 as subgradients at a kink" in tensor.reason
    assert report.tensors["weight"].subgradients == 0


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("believed", [-0.01, 1.01])
def test_what_lies_outside_the_one_sided_slopes_fails(evaluator, believed):
    report = fastcheck.check(_relu_at_zero(believed), evaluator=evaluator)
    assert report.verdict == "fail"
    assert report.tensors["input"].first_beyond == (0, 0, 0)


@pytest.mark.parametrize("evaluator", ["delta", "local"])
def test_a_step_that_is_lost_in_round_off_is_inconclusive(evaluator):
    report = fastcheck.check(case(LAYER), dims="all", step=1e-14, evaluator=evaluator)
    assert (report.verdict, report.exit_code) == ("inconclusive", 3)
    tensor = report.tensors["weight"]
    assert tensor.undecided > 0.5 * tensor.dims_checked
    assert "too wide" in tensor.reason
    assert "larger step" in tensor.advice
    assert tensor.explained["widest"]["verdict"] == "inconclusive"
    assert tensor.explained["widest"]["parts"]["round-off"] > 0.99 * tensor.explained["widest"]["error_bar"]
    wrong = dict(case(LAYER).grads)
    wrong["weight"] = wrong["weight"] * 100
    assert fastcheck.check(case(LAYER, grads=wrong), dims="all", step=1e-14, evaluator=evaluator).verdict == "fail"


def test_a_few_wide_bars_are_told_and_do_not_decide():
    large = layer((2, 4, 40, 40), (6, 2, 3, 3), padding=1, groups=2)
    x, w, b = operands(large)
    x[0, 0, 0, 0] = 1e9  # its outputs' round-off drowns what little their other inputs contribute
    v, grads = torch_gradients(large, x, w, b)[1:]
    made = fastcheck.ConvCase(x, w, b, grad_output=v, grads={"input": grads["input"]}, **large.arguments)
    report = fastcheck.check(made, dims="all", step=1e-6)
    assert report.passed, report.summary()
    tensor = report.tensors["input"]
    assert 0 < tensor.undecided < 0.01 * x.size
    assert f"{tensor.undecided} inconclusive, since their error bars are too wide" in tensor.reason


@pytest.mark.parametrize("zero", ["input", "weight", "grad_output"])
def test_zero_operands_leave_nothing_undecided(zero):
    x, w, _ = operands(LAYER)
    made = case(LAYER)
    arrays = {"input": x, "weight": w, "grad_output": made.grad_output}
    arrays[zero] = np.zeros_like(arrays[zero])
    grads = {"weight": np.zeros_like(w)} if zero != "weight" else {"input": np.zeros_like(x)}
    report = fastcheck.check(case(LAYER, **arrays, grads=grads, output=None), dims="all")
    assert report.passed, report.summary()
    assert report.tensors[next(iter(grads))].undecided == 0


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    [
        ({}, {}, "round-off of the differences at h ="),
        ({"step": 1e-7}, {}, "round-off of the differences at h = 1e-07"),
        ({}, {"dtype": np.float32}, "round-off of the gradient's own sums, computed in float32"),
        ({"step": 1e-2}, {"loss": "tanh"}, "truncation of the differences at h = 0.01, which falls as h^2"),
    ],
)
def test_ratios_are_explained(arguments, changes, told):
    made = case(LAYER, **{key: value for key, value in changes.items() if key == "dtype"})
    if "loss" in changes:
        slope = 1 - np.tanh(made.output) ** 2
        right = {"bias": (made.grad_output * slope).sum(axis=(0, 2, 3))}
        made = case(LAYER, loss="tanh", grads=right)
    report = fastcheck.check(made, dims="all", **arguments)
    assert report.passed, report.summary()
    name = next(iter(report.tensors))
    assert told in report.tensors["bias" if "loss" in changes else name].regime
    explained = report.tensors[name].explained["least"]
    assert set(explained["parts"]) == set(PARTS) - {"steps"}  # of black boxes alone
    assert sum(explained["parts"].values()) == pytest.approx(explained["error_bar"], rel=1e-9)


def test_reports_with_explanations_are_read_back():
    report = fastcheck.check(case(LAYER), dims="all", step=1e-14)
    again = from_json(report.to_json())
    assert again.to_dict() == report.to_dict()
    damaged = json.loads(report.to_json())
    damaged["tensors"]["weight"]["explained"]["least"]["parts"]["kinks"] = "many"
    with pytest.raises(fastcheck.FastcheckError, match=r"weight\.explained\.least\.parts"):
        from_json(json.dumps(damaged))


def test_an_assertion_of_a_check_is_a_test():
    x = np.array([1.0, -2.0, 3.0])
    assert fastcheck.check_gradient(lambda x: float(x @ x), 2 * x, x)
    with pytest.raises(AssertionError):
        assert fastcheck.check_gradient(lambda x: float(x @ x), 3 * x, x)
    with pytest.raises(AssertionError):
        assert fastcheck.compare(3 * x, 2 * x)


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive", "error"])
def test_a_report_is_true_where_it_passed(verdict):
    x = np.array([1.0, -2.0, 3.0])
    report = replace(fastcheck.compare(x, x), verdict=verdict)
    tensor = replace(report.tensors["gradient"], verdict=verdict)
    suite, network = (kind({"a": report}, False, {}) for kind in (SuiteReport, NetworkReport))
    judged = [report, tensor, replace(tensor.worst[0], verdict=verdict), suite, network]
    judged.append(ForwardReport(verdict, 0.0, None))
    assert [bool(one) for one in judged] == [one.passed for one in judged] == 6 * [verdict == "pass"]


@pytest.mark.parametrize("kind", [SuiteReport, NetworkReport])
def test_a_report_that_was_interrupted_is_not_true(kind):
    x = np.array([1.0, -2.0, 3.0])
    assert not kind({"a": fastcheck.compare(x, x)}, interrupted=True, run={})


def test_the_command_line_tells_and_exits_with_3(run, tmp_path):
    code, out, _ = run("conv", saved(tmp_path / "case.npz", LAYER), "--step", "1e-14", "--dims", "all")
    assert code == 3
    assert "INCONCLUSIVE" in out
    assert "larger step" in out


ZERO, WIDE = "no value is distinguishable from zero, since ", "too wide to tell right from wrong"


@pytest.mark.parametrize(
    ("loss", "scale", "bias", "step", "words"),
    [
        ("relu", 1e-20, -500.0, 1e-3, ZERO + "the relu lets no output through"),
        ("tanh", 1e15, -500.0, "auto", ZERO + "the tanh is saturated"),
        ("relu", 1e-20, 500.0, 1e-3, WIDE),
        ("relu", 1.0, -500.0, 1e3, WIDE),  # which crosses kinks
        ("tanh", 1.0, 0.0, 1e-14, WIDE),
        ("relu", 1.0, -500.0, "auto", "all 648 lie within what the arithmetic can explain"),
    ],
)
def test_a_loss_that_follows_no_output_is_the_reason(loss, scale, bias, step, words):
    """Bars are wide for a step far too small for the operands, or far too large; the gradient is zero with any."""
    x, w, b = operands(LAYER)
    x, w, b = scale * x, scale * w, b + bias * max(scale, 1.0) ** 2
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, w, b)]
    v, phi = scale * case(LAYER).grad_output, {"relu": torch.relu, "tanh": torch.tanh}[loss]
    (torch.tensor(v) * phi(torch_forward(LAYER, *tensors))).sum().backward()
    grads = {"input": tensors[0].grad.numpy()}
    made = case(LAYER, input=x, weight=w, bias=b, grad_output=v, loss=loss, grads=grads, output=None)
    assert words in fastcheck.check(made, dims="all", step=step).tensors["input"].reason
