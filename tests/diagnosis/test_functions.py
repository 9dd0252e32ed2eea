"""Mistakes in backward passes of arrays are named from the arrays around them; right passes pass, noise has no name."""

import numpy as np
import pytest
from searches import SIZE

import fastcheck
from fastcheck.diagnosis.diagnosed import UNKNOWN
from tests.helpers.planted_functions import PLANTED, named

SEEDS = range(6 if SIZE == "whole" else 3)
"""Of each mistake; `bench/diagnosis.py` takes more."""


def _found(planted, backward):
    report = fastcheck.check_vjp(planted.forward, backward, planted.inputs)
    return {name: one.diagnosis for name, one in report.tensors.items() if one.diagnosis is not None}


@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_mistake_is_named(key):
    others = [named(fastcheck, key, seed, ("float64", "float32")[seed % 2]) for seed in SEEDS]
    assert others == [[]] * len(SEEDS)


@pytest.mark.parametrize("key", PLANTED)
def test_the_right_pass_passes_and_its_noise_has_no_name(key):
    for seed in range(2):
        random = np.random.default_rng(seed)
        planted = PLANTED[key](random)
        assert fastcheck.check_vjp(planted.forward, planted.right, planted.inputs).passed
        factors = [1 + 1e-3 * random.normal(size=np.shape(one)) for one in planted.inputs]

        def noisy(*arrays, right=planted.right, factors=factors):
            grads = zip(right(*arrays), factors, strict=True)
            return [None if one is None else one * factor for one, factor in grads]

        found = _found(planted, noisy)
        assert found
        assert [one["bug"] for one in found.values()] == [UNKNOWN] * len(found)


def _table(count=40, rows=12, width=3):
    random = np.random.default_rng(0)
    return random.normal(size=(rows, width)), random.integers(0, rows - 3, size=count)


def test_rows_that_integers_name_several_times_are_said_to_be_those_that_fail():
    table, index = _table(count=14, rows=20)

    def backward(v, table, index):
        grad = np.zeros_like(table)
        np.add.at(grad, index, v)
        times = np.bincount(index, minlength=len(table))
        grad[times > 1] *= 1 + 0.1 * np.random.default_rng(1).normal(size=(np.count_nonzero(times > 1), 3))
        return [grad, None]

    report = fastcheck.check_vjp(lambda table, index: table[index], backward, [table, index])
    found = report.tensors["input 0"].diagnosis
    assert found["bug"] == UNKNOWN
    assert found["shape"].endswith("exactly at the indices of axis 0 that input 1 names several times")


def test_a_sign_that_marks_what_fails_is_said():
    random = np.random.default_rng(0)
    x, matrix = random.normal(size=(6, 8)), random.normal(size=(8, 8))

    fixed = np.random.default_rng(2).normal(size=x.shape)
    report = fastcheck.check_vjp(
        lambda x: np.maximum(x, 0) @ matrix, lambda v, x: [np.where(x > 0, v @ matrix.T, fixed * v.sum())], [x]
    )
    assert report.tensors["input 0"].diagnosis["shape"].endswith("exactly where input 0 is negative")


def test_a_gradient_of_an_earlier_call_is_named():
    x = np.random.default_rng(0).normal(size=(5, 6))

    class Late:
        kept = np.random.default_rng(1).normal(size=x.shape)

        def __call__(self, v, x):
            old, self.kept = self.kept, v * np.cos(x)
            return [old]

    report = fastcheck.check_vjp(np.sin, Late(), [x])
    assert report.verdict == "fail"
    assert report.tensors["input 0"].diagnosis["bug"].startswith("this is what an earlier call left")
    assert any("the second and the third call of backward return one gradient" in one.words for one in report.health)
    assert fastcheck.check_vjp(np.sin, lambda v, x: [v * np.cos(x)], [x]).passed


def test_a_gradient_added_to_that_of_an_earlier_call_is_named():
    x = np.random.default_rng(0).normal(size=(5, 6))

    class Adding:
        kept = np.random.default_rng(1).normal(size=x.shape)

        def __call__(self, v, x):
            self.kept = self.kept + v * np.cos(x)
            return [self.kept]

    found = fastcheck.check_vjp(np.sin, Adding(), [x]).tensors["input 0"].diagnosis
    assert found["bug"].startswith("the gradient is added to what an earlier call left")


def test_a_loss_of_several_arrays_is_diagnosed_from_these():
    random = np.random.default_rng(0)
    params = {"x": random.normal(size=(6, 7)), "y": random.normal(size=(6, 7))}

    def grad(params):
        x, y = params["x"], params["y"]
        return {"x": np.cos(x) * y * (y > 0), "y": np.sin(x)}

    report = fastcheck.check_gradient(lambda params: float(np.sum(np.sin(params["x"]) * params["y"])), grad, params)
    assert report.tensors["x"].diagnosis["bug"].startswith("the gradient is right where y is positive")


def test_what_is_found_by_directions_in_a_large_function_is_where_the_report_says_it_is():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 200))

    def backward(v, x):
        grad = v * np.cos(x)
        grad[17, 3:6] *= 3
        return [grad]

    report = fastcheck.check_vjp(np.sin, backward, [x], dims=600)
    found = report.tensors["input 0"].diagnosis
    assert found["shape"].startswith("3 of 603 entries: [17, 3], [17, 4] and [17, 5]")
    assert found["bug"] == "where it fails, the gradient has a factor of 3"


def test_a_large_normalisation_is_named_from_a_sample():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 400))

    def forward(x):
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)

    def backward(v, x, mean=True):
        hat, sigma = forward(x), x.std(1, keepdims=True)
        return [(v - mean * v.mean(1, keepdims=True) - hat * (v * hat).mean(1, keepdims=True)) / sigma]

    assert fastcheck.check_vjp(forward, backward, [x], dims=300).passed
    report = fastcheck.check_vjp(forward, lambda v, x: backward(v, x, False), [x], dims=300)
    assert report.tensors["input 0"].diagnosis["bug"] == (
        "the gradient's own mean over axis 1 is not taken away from it"
    )


def test_a_function_of_pytorch_is_diagnosed():
    torch = pytest.importorskip("torch")

    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            return grad.clone()

    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    report = fastcheck.torch.check(Relu.apply, x)
    (found,) = [one.diagnosis for one in report.tensors.values()]
    assert "handed on unchanged" in found["bug"]


@pytest.mark.parametrize("sizes", [(1.0, 50.0, -0.001, 7.0, -20.0, 3.0), (1.4, -1.1, -1.3, 1.4, 0.9, -1.2)])
def test_gradients_of_other_sizes_are_not_signs(sizes):
    report = fastcheck.check_vjp(np.round, lambda v, x: [np.array(sizes)], [np.linspace(0.1, 3.3, 6)])
    diagnosis = report.tensors["input 0"].diagnosis
    assert diagnosis["bug"].startswith("every derivative is zero")
    assert "signs" not in diagnosis["evidence"]


@pytest.mark.parametrize("seed", range(4))
def test_a_straight_through_estimator_is_named(seed):
    x = np.random.default_rng(seed).normal(size=(seed + 2, 3))
    report = fastcheck.check_vjp(np.round, lambda v, x: [v], [x])
    diagnosis = report.tensors["input 0"].diagnosis
    assert diagnosis["bug"].startswith("every derivative is zero")
    assert "the gradient is grad_output, handed on unchanged" in diagnosis["evidence"]
    assert fastcheck.check_vjp(np.round, lambda v, x: [0 * v], [x]).passed
