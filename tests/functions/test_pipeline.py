"""Large functions: directions over all dimensions, few differenced by themselves, and few calls for the noise."""

import sys

import numpy as np
import pytest

import fastcheck
from fastcheck.functions import noise
from fastcheck.functions.case import LARGE, FunctionCase
from fastcheck.functions.evaluator import FunctionEvaluator
from fastcheck.functions.pipeline import LARGE_SAMPLE

pytestmark = pytest.mark.jit

RNG = np.random.default_rng(0)
A = RNG.normal(size=(40, LARGE)) / 200
PARAMS = {"w": RNG.normal(size=(40, LARGE // 40 + 1)), "b": RNG.normal(size=300), "last": RNG.normal(size=())}
BEND = RNG.normal(size=300)


def _flat(p):
    return p["w"].ravel()[:LARGE]


def loss(p):
    return float(np.log(np.cosh(A @ _flat(p))).sum() + np.sin(p["b"]) @ BEND * p["last"])


def grad(p):
    w = np.zeros(p["w"].size)
    w[:LARGE] = A.T @ np.tanh(A @ _flat(p))
    return {
        "w": w.reshape(p["w"].shape),
        "b": np.cos(p["b"]) * BEND * p["last"],
        "last": np.array(np.sin(p["b"]) @ BEND),
    }


def _check(change=lambda grads: None, **options):
    calls = {"loss": 0, "grad": 0}

    def counted(p):
        calls["loss"] += 1
        return loss(p)

    def changed(p):
        calls["grad"] += 1
        grads = grad(p)
        change(grads)
        return grads

    return fastcheck.check_gradient(counted, changed, PARAMS, **options), calls


def test_few_entries_and_directions_over_all():
    report, calls = _check()
    assert report.passed
    checked = {name: tensor.dims_checked for name, tensor in report.tensors.items()}
    assert checked == {"w": LARGE_SAMPLE // 3, "b": LARGE_SAMPLE // 3, "last": 1}
    assert report.directions["dims"] == sum(array.size for array in PARAMS.values())
    assert max(report.directions["relative_limit"].values()) < 1e-5
    assert calls["grad"] <= 6
    assert calls["loss"] < 900


def test_a_single_wrong_entry_is_named_and_differenced():
    def change(grads):
        grads["w"][7, 1000] *= 1.001

    report, _ = _check(change)
    assert report.verdict == "fail"
    dim = int(np.ravel_multi_index((7, 1000), PARAMS["w"].shape))
    assert report.directions["named"] == {"w": [dim]}
    assert [entry.index for entry in report.tensors["w"].worst if entry.verdict == "fail"] == [(7, 1000)]


@pytest.mark.parametrize("name", ["w", "b", "last"])
def test_a_tensor_wrong_by_a_small_factor_fails(name):
    def change(grads):
        grads[name] = grads[name] * 1.0001

    report, _ = _check(change)
    assert report.verdict == "fail"


def test_all_or_a_number_of_dimensions_are_as_asked():
    report, _ = _check(dims={"w": 3, "b": "all", "last": 1})
    assert [tensor.dims_checked for tensor in report.tensors.values()] == [3, 300, 1]


def test_where_few_are_checked_of_each_tensor_the_largest_alone_sends_pilots_once(monkeypatch):
    sent, send = [], FunctionEvaluator._send_pilots

    def counted(evaluator, rng):
        sent.append(evaluator._tensor.name)
        send(evaluator, rng)

    monkeypatch.setattr(FunctionEvaluator, "_send_pilots", counted)
    monkeypatch.setattr(sys.modules[__name__], "PARAMS", dict(reversed(PARAMS.items())))
    report, _ = _check(dims={"w": 2, "b": 2, "last": 1})
    assert report.passed
    assert sent == ["w"]


def test_pooled_noise_is_that_of_each_entry():
    case = FunctionCase(loss, grad, PARAMS)
    assert case.is_large
    pooled, single = noise._pooled_noise(case, 0), noise._gradient_noise(case, 0)
    for name in ("w", "b"):
        sizes = [np.sqrt(np.mean(measured[name] ** 2)) for measured in (pooled, single)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.7)


def test_a_gradient_in_float32_is_taken():
    report = fastcheck.check_gradient(
        loss, lambda p: {name: one.astype(np.float32) for name, one in grad(p).items()}, PARAMS
    )
    assert report.passed
    wrong, _ = _check(lambda grads: grads.update(w=(grads["w"] * 1.01).astype(np.float32)))
    assert wrong.verdict == "fail"


def test_the_report_is_the_same_on_any_number_of_threads():
    one, three = (_check(threads=threads)[0] for threads in (1, 3))
    assert one.tensors == three.tensors
    assert one.directions == three.directions
