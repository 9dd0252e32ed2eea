"""Directions over all dimensions: right gradients agree, one wrong entry among thousands is named, limits are kept."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hard_functions import draw
from hypothesis import assume, given
from hypothesis import strategies as st

import fastcheck
from fastcheck import FastcheckError
from fastcheck.engine.directions import COUNT, FEW, GUARDS, SPARE, Directions, Line
from fastcheck.engine.random_signs import Weights
from fastcheck.functions import noise
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.directions import LossLines
from fastcheck.reports.reader import from_json

pytestmark = pytest.mark.jit

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 40)), RNG.integers(0, 12, 20)
PARAMS = {"w": RNG.normal(size=(40, 12)) / 6, "b": np.zeros(12), "v": RNG.normal(size=(12, 12)) / 3}


def _network(bend):
    """A loss and its gradient; ``bend`` gives an activation and its slope."""

    def loss(p):
        z = bend(X @ p["w"] + p["b"])[0] @ p["v"]
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(X)), Y])

    def grad(p):
        a, slope = bend(X @ p["w"] + p["b"])
        e = np.exp(a @ p["v"])
        d = (e / e.sum(1, keepdims=True) - np.eye(12)[Y]) / len(X)
        inner = d @ p["v"].T * slope
        return {"w": X.T @ inner, "b": inner.sum(0), "v": a.T @ d}

    return loss, grad


START = np.concatenate([PARAMS["w"].ravel(), PARAMS["b"], PARAMS["v"].ravel()])

TANH = _network(lambda z: (np.tanh(z), 1 - np.tanh(z) ** 2))
RELU = _network(lambda z: (np.maximum(z, 0), z > 0))


def _check(pair, change=lambda grads: None, **options):
    def grad(p):
        grads = pair[1](p)
        change(grads)
        return grads

    return fastcheck.check_gradient(pair[0], grad, PARAMS, **({"dims": 12} | options))


def _off(name, index, size):
    """A change of one entry, by a fraction of the tensor's typical size."""

    def change(grads):
        grads[name][index] += size * np.sqrt(np.mean(grads[name] ** 2))

    return change


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), st.floats(0.01, 5))
def test_an_entry_off_by_more_than_two_bars_is_missed_by_at_most_half_of_all_signs(errors, bar):
    assume(max(map(abs, errors)) > 2 * bar * (1 + 1e-9))
    signs = np.array(list(itertools.product((-1, 1), repeat=len(errors))))
    missed = np.abs(signs @ np.array(errors)) <= 2 * bar
    assert missed.mean() <= 0.5


class _Sine:
    """The loss c sin(p), gradients of it that are off in two entries, by +e and -e, and directions along which they
    cancel or add up.
    """

    def __init__(self, size=64):
        rng = np.random.default_rng(1)
        self.c, self.p = rng.normal(size=(2, size))
        self.grad = self.c * np.cos(self.p)
        case = FunctionCase(self.loss, lambda p: self.c * np.cos(p), self.p)
        self.errors = noise.of_gradient(case, seed=0)
        self.lines = LossLines(case, case.grads)
        self.right = Directions(self.lines, case.grads, self.errors, 0, COUNT, lambda: None)
        self.right.run()

    def loss(self, p):
        return float(self.c @ np.sin(p))

    def wrong(self, seed, error):
        grad, pair = self.grad.copy(), np.random.default_rng(seed).choice(self.grad.size, 2, replace=False)
        grad[pair] += error, -error
        return grad

    def missed(self, seed, error, count, directions):
        """Return which of so many directions miss a wrong gradient, whose error is above the limit of detection."""
        found = directions(self.lines, {"params": self.wrong(seed, error)}, self.errors, seed, count, lambda: None)
        found.difference()
        assert found.limits()["params"] < error
        return [not one.fails for one in found.done]


class _WithStep(Directions):
    """Directions that take the step as it is, and do not look for the wrong entry."""

    def difference(self):
        weights = Weights(self.lines, self.gradient).balanced
        self.done = [self._differenced(number, weights) for number in range(self.count)]


class _AllAlike(_WithStep):
    """Directions that move all entries the same way."""

    def _line(self, number, weights):
        moves = {name: np.full(array.shape, weights[name]) for name, array in self.lines.params.items()}
        analytic = sum(float(np.vdot(self.gradient[name], move)) for name, move in moves.items())
        return Line(number, moves, analytic, self.error(weights))


WRONG, K = 2000, 5


def _shares_missed(directions, count=WRONG):
    """Return for k = 1 ... K the fraction of wrong gradients that all of k directions miss."""
    sine = _Sine()
    missed = np.array([sine.missed(seed, 1e-4, K, directions) for seed in range(count)])
    return [float(missed[:, :k].all(1).mean()) for k in range(1, K + 1)]


def _allowed(k):
    """Return 2^-k and three standard deviations of a fraction of `WRONG` that is counted."""
    return 2.0**-k + 3 * math.sqrt(2.0**-k * (1 - 2.0**-k) / WRONG)


def test_k_directions_miss_an_adversary_as_rarely_as_they_say():
    for k, share in enumerate(_shares_missed(_WithStep), 1):
        assert 0 < share <= _allowed(k)
    assert all(share > _allowed(k) for k, share in enumerate(_shares_missed(_AllAlike, 20), 1))


def test_gradchecks_fast_mode_misses_most_of_them_however_often_it_is_called():
    sine, missed = _Sine(), []
    c = torch.tensor(sine.c)
    for seed in range(40):
        grad = torch.tensor(sine.wrong(seed, 1e-3))

        class Wrong(torch.autograd.Function):
            @staticmethod
            def forward(ctx, p):
                return c @ torch.sin(p)

            @staticmethod
            def backward(ctx, v, grad=grad):
                return v * grad

        point = torch.tensor(sine.p, requires_grad=True)
        passes = [torch.autograd.gradcheck(Wrong.apply, point, fast_mode=True, raise_exception=False) for _ in range(3)]
        missed.append(passes)
        assert not all(sine.missed(seed, 1e-3, COUNT, _WithStep))
    missed = np.array(missed)
    assert missed[:, 0].mean() > 0.5
    np.testing.assert_array_equal(missed[:, :1], missed.all(1, keepdims=True))


@pytest.mark.parametrize("pair", [TANH, RELU], ids=["tanh", "relu"])
def test_a_right_gradient_agrees_and_says_what_would_have_been_seen(pair):
    report = _check(pair)
    assert report.passed
    directions = report.directions
    assert (directions["count"], directions["guards"], directions["failing"]) == (COUNT, SPARE + GUARDS, 0)
    assert directions["dims"] == sum(array.size for array in PARAMS.values())
    assert directions["chance_of_missing"] == 2.0**-COUNT
    assert all(0 < limit < (1e-5 if pair is TANH else 1e-3) for limit in directions["relative_limit"].values())
    text = " ".join(str(report).split())
    assert f"{COUNT} directions over all 636 dimensions agree: an entry of " in text
    assert "would have been seen, but for a chance of 1e-06" in text


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-5])
@pytest.mark.parametrize(("name", "index"), [("w", (17, 5)), ("b", (11,)), ("v", (0, 0))])
def test_one_wrong_entry_is_named_and_differenced_by_itself(name, index, size):
    report = _check(TANH, _off(name, index, size))
    assert report.verdict == "fail"
    tensor = report.tensors[name]
    assert [entry.index for entry in tensor.worst if entry.verdict == "fail"] == [index]
    assert report.directions["named"] == {name: [int(np.ravel_multi_index(index, PARAMS[name].shape))]}
    assert all(other.passed for key, other in report.tensors.items() if key != name)
    (finding,) = (one for one in report.health if one.name == "directions")
    assert "directions over all 636 dimensions contradict the gradient" in finding.words
    assert finding.words.endswith("alone explains it, and all else agrees")


def test_errors_above_the_limit_are_seen_and_far_below_it_are_not():
    limit = max(_check(TANH).directions["relative_limit"].values())
    assert _check(TANH, _off("v", (3, 7), 4 * limit)).verdict != "pass"
    assert _check(TANH, _off("v", (3, 7), limit / 1e4)).passed


@pytest.mark.parametrize("size", [1.0, -1e-3])
def test_directions_spell_a_single_wrong_entry(size):
    """It takes a search of its own for three of them and for the entry, and no halving."""
    right, wrong = _check(TANH), _check(TANH, _off("v", (3, 7), size))
    assert wrong.directions["named"] == {"v": [43]}
    assert wrong.directions["calls"] - right.directions["calls"] < 4 * 30


def test_several_wrong_entries_are_all_found():
    def change(grads):
        grads["w"][3, 4] *= 1.01
        grads["v"][5, 5] *= -1

    report = _check(TANH, change)
    assert report.directions["named"] == {"w": [40], "v": [65]}
    assert not report.tensors["w"].passed
    assert not report.tensors["v"].passed
    assert report.tensors["b"].passed


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [("w", (slice(None), 5), "params['w'][:, 5]"), ("v", (3,), "params['v'][3, :]"), ("w", (slice(7, 9),), "")],
)
def test_a_slice_that_is_wrong_is_told(name, where, words):
    def change(grads):
        grads[name][where] *= 1.3

    report = _check(TANH, change)
    assert report.verdict == "fail"
    (finding,) = (one for one in report.health if one.name == "directions")
    assert "among the wrong entries" in finding.words
    assert finding.words.partition("within a tensor, all lie in ")[2] == words


@pytest.mark.parametrize("factor", [1.001, 0.0, -1.0])
@pytest.mark.parametrize("name", ["w", "b", "v"])
def test_a_tensor_that_is_wrong_as_a_whole_fails_however_few_entries_are_sampled(name, factor):
    def change(grads):
        grads[name] *= factor

    report = _check(TANH, change, dims=dict.fromkeys(PARAMS, 1))
    assert report.verdict == "fail"
    assert set(report.directions["named"]) == {name}
    assert "among the wrong entries" in next(one.words for one in report.health if one.name == "directions")


def test_a_kink_at_the_point_itself_is_no_contradiction():
    x = np.zeros(3000)
    report = fastcheck.check_gradient(lambda p: float(np.abs(p).sum()), lambda p: np.sign(p), x, dims=5)
    assert report.verdict != "fail"
    assert report.directions["failing"] == 0


def test_where_entries_are_right_by_themselves_directions_show_nothing():
    function = draw("scales", 5024)
    report = fastcheck.check_gradient(function.loss, function.grad, function.params, dims=1, directions=COUNT)
    assert report.verdict == "pass"
    assert report.directions["chance_of_missing"] == 1.0
    assert "show nothing here" in next(one.words for one in report.health if one.name == "directions")
    assert "would have been seen" not in str(report)


@pytest.mark.search
def test_right_gradients_of_hard_functions_never_fail_by_directions():
    for family, seed in itertools.product(("smooth", "kinks", "matrices", "scales", "noise", "precision"), range(4)):
        function = draw(family, 7000 + seed)
        try:
            report = fastcheck.check_gradient(
                function.loss, function.grad, function.params, dims=1, directions=COUNT, **function.options
            )
        except FastcheckError:
            continue
        assert not [one for one in report.health if one.name == "directions" and one.verdict == "fail"], (family, seed)


def test_a_right_gradient_of_a_smooth_function_costs_four_calls_a_direction():
    few, many = (_check(TANH, directions=count).directions["calls"] for count in (20, 120))
    assert many - few == 4 * 100


def test_where_three_points_are_as_sharp_a_direction_costs_two_calls():
    def loss(p):
        return sum(float(np.vdot(array, array)) for array in p.values())

    def grad(p):
        return {name: 2 * array for name, array in p.items()}

    few, many = (_check((loss, grad), directions=count) for count in (20, 120))
    assert many.directions["calls"] - few.directions["calls"] == 2 * 100
    assert many.directions["failing"] == 0
    wrong = _check((loss, grad), _off("w", (3, 3), 1e-3))
    assert wrong.directions["named"] == {"w": [39]}


def test_where_all_is_wrong_few_directions_are_searched():
    def run(factor):
        grads = {name: factor * grad for name, grad in TANH[1](PARAMS).items()}
        errors = {name: np.zeros_like(grad) for name, grad in grads.items()}
        lines = LossLines(FunctionCase(TANH[0], grads, PARAMS), grads)
        directions = Directions(lines, grads, errors, 0, 40, lambda: None)
        directions.run()
        return directions

    right, wrong = run(1.0), run(1.5)
    assert (len(right.failing), len(wrong.failing)) == (0, 40 + SPARE + GUARDS)
    assert wrong.lines.calls - right.lines.calls < 30 * FEW


def test_a_direction_at_a_crowd_of_kinks_is_searched_and_agrees():
    rng = np.random.default_rng(4)
    near = rng.normal(size=(400, 636)) * 1e-3

    def loss(p):
        flat = np.concatenate([p["w"].ravel(), p["b"], p["v"].ravel()])
        return np.abs(near @ (flat - START) + 1e-6).sum() + flat @ flat

    def grad(p):
        flat = np.concatenate([p["w"].ravel(), p["b"], p["v"].ravel()])
        whole = np.sign(near @ (flat - START) + 1e-6) @ near + 2 * flat
        return {"w": whole[:480].reshape(40, 12), "b": whole[480:492], "v": whole[492:].reshape(12, 12)}

    assert _check((loss, grad)).directions["failing"] == 0
    assert _check((loss, grad), _off("w", (3, 3), 0.5)).verdict == "fail"


def test_calls_are_few_and_counted():
    calls = []
    loss, grad = TANH

    def counted(p):
        calls.append(1)
        return loss(p)

    options = {"dims": 3, "directions": 20}
    fastcheck.check_gradient(counted, grad, PARAMS, **(options | {"directions": 0}))
    without, calls[:] = len(calls), []
    report = fastcheck.check_gradient(counted, grad, PARAMS, **options)
    assert len(calls) - without == report.directions["calls"]
    assert report.directions["calls"] <= 10 * (COUNT + SPARE + GUARDS)


def test_by_default_only_what_a_sample_leaves_out_is_covered():
    assert _check(TANH, dims="all").directions is None
    assert _check(TANH).directions["count"] == COUNT
    assert _check(TANH, directions=0).directions is None
    assert _check(TANH, dims="all", directions=3).directions["chance_of_missing"] == 2.0**-3


def test_the_report_is_the_same_on_any_number_of_threads_and_reads_back():
    reports = [_check(TANH, _off("w", (1, 1), 0.1), threads=threads) for threads in (1, 3)]
    data = [json.loads(report.to_json()) for report in reports]
    for one in data:
        del one["run"]
    assert data[0] == data[1]
    again = from_json(reports[0].to_json())
    assert again.to_json() == reports[0].to_json()
    assert math.isfinite(again.directions["relative_limit"]["w"])
    damaged = reports[0].to_json().replace('"guards": 6', '"guards": -6')
    with pytest.raises(FastcheckError, match=r"directions\.guards"):
        from_json(damaged)


@pytest.mark.parametrize("directions", [-1, 2.5, "many", None])
def test_bad_numbers_of_directions_are_refused(directions):
    with pytest.raises(FastcheckError, match="directions is"):
        _check(TANH, directions=directions)
