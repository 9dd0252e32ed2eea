"""check_gradient: right gradients pass, wrong ones fail, and bad input gets one line."""

import json
import math

import numpy as np
import pytest
from random_functions import KINKED, UNITS, Counted, Perceptron, RandomFunction, softmax_loss
from searches import examples

import fastcheck
from fastcheck import FastcheckError, check_gradient
from fastcheck.reports.reader import from_json

RNG = np.random.default_rng(4)
X = RNG.normal(size=12)
MATRIX = RNG.normal(size=(12, 12))
MATRIX = MATRIX + MATRIX.T


def _log_sum_exp(x):
    return np.log(np.exp(x).sum())


def _softmax(x):
    return np.exp(x) / np.exp(x).sum()


SMOOTH = {
    "softmax cross-entropy": softmax_loss(),
    "log-sum-exp": (_log_sum_exp, _softmax, X),
    "quadratic": (lambda x: x @ MATRIX @ x / 2, lambda x: MATRIX @ x, X),
    "linear": (lambda x: MATRIX[0] @ x, lambda x: MATRIX[0], X),
    "reciprocal": (lambda x: (1 / x).sum(), lambda x: -1 / x**2, np.abs(X) + 0.1),
    "logarithm": (lambda x: np.log(x).sum(), lambda x: 1 / x, np.exp(4 * X)),
    "fast sine": (lambda x: np.sin(1000 * x).sum(), lambda x: 1000 * np.cos(1000 * x), X),
    "a number": (lambda x: math.sin(x), lambda x: math.cos(x), 0.3),
}


def _flat(report, what="error_bar"):
    return np.concatenate([getattr(tensor.kept, what) for tensor in report.tensors.values()])


def _one_entry_off(grad, by):
    wrong = np.array(grad)
    wrong.flat[np.abs(wrong).argmax()] *= 1 + by
    return wrong


@pytest.mark.parametrize("stencil", ["auto", 3, 5])
@pytest.mark.parametrize("name", SMOOTH)
def test_right_gradients_pass_and_their_wrong_siblings_fail(name, stencil):
    loss, grad, x = SMOOTH[name]
    right = check_gradient(loss, grad, x, stencil=stencil, keep=True)
    assert right.passed, right.summary()
    tensor = right.tensors["params"]
    assert tensor.dims_checked == np.size(x)
    assert tensor.kinks == 0
    assert np.median(_flat(right) / np.abs(_flat(right, "analytic"))) < (1e-7 if stencil == 3 else 1e-8)
    found = np.asarray(grad(np.asarray(x)), dtype=float)
    for wrong in (found * 1.001, _one_entry_off(found, 1e-6), -found, _one_entry_off(found, -2), np.zeros_like(found)):
        report = check_gradient(loss, wrong, x, stencil=stencil)
        assert report.verdict == "fail"
    assert check_gradient(loss, _one_entry_off(found, 1e-6), x, stencil=stencil).tensors["params"].beyond_error_bar == 1


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
@pytest.mark.parametrize("size", [1e-8, 1, 1e8])
def test_scales_of_the_loss_and_of_its_argument_do_not_matter(scale, size):
    loss, grad, w = softmax_loss()
    report = check_gradient(
        lambda v: scale * loss(v / size), lambda v: scale / size * grad(v / size), w * size, keep=True
    )
    assert report.passed, report.summary()
    assert np.median(_flat(report) / np.abs(_flat(report, "analytic"))) < 1e-8
    wrong = _one_entry_off(scale / size * grad(w), 1e-6)
    assert not check_gradient(lambda v: scale * loss(v / size), wrong, w * size).passed


@pytest.mark.jit
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e295])
def test_losses_at_the_ends_of_the_range_of_numbers(scale):
    report = check_gradient(lambda x: scale * _log_sum_exp(x), lambda x: scale * _softmax(x), X)
    assert report.passed, report.summary()
    assert not check_gradient(lambda x: scale * _log_sum_exp(x), scale * _softmax(X) * 1.001, X).passed
    assert check_gradient(lambda x: scale * _log_sum_exp(x / scale), lambda x: _softmax(x / scale), scale * X).passed


def test_a_derivative_that_overflows_is_told():
    with pytest.raises(FastcheckError, match="loss is not finite around params at index"):
        check_gradient(lambda x: float(np.sum(1e300 * np.tanh(x * 1e20))), np.full(2, 1e308), np.array([1e-21, 2e-21]))


@pytest.mark.search
def test_no_false_alarm_among_random_smooth_functions_and_bars_are_tight():
    bars, caught, told = [], 0, 0
    count = examples(300)
    for seed in range(count):
        function = RandomFunction(seed, UNITS)
        report = check_gradient(function.loss, function.grad, function.x, keep=True)
        assert report.verdict != "fail", (function.described, report.summary())
        analytic = _flat(report, "analytic")
        bars.extend(_flat(report)[analytic != 0] / np.abs(analytic[analytic != 0]))
        if report.passed and analytic.any():
            told += 1
            caught += check_gradient(function.loss, 1.001 * function.grad(function.x), function.x).verdict == "fail"
    assert np.median(bars) < 1e-9
    assert told > 0.95 * count
    assert caught > 0.99 * told


@pytest.mark.search
def test_no_false_alarm_among_functions_with_kinks_beside_the_point():
    for seed in range(examples(150)):
        function = RandomFunction(seed, UNITS | KINKED if seed % 2 else KINKED)
        x = function.x + function.size * RNG.normal(size=function.x.shape) * 10.0 ** RNG.uniform(-9, 0)
        report = check_gradient(function.loss, function.grad, x)
        assert report.verdict != "fail", (function.described, report.summary())


@pytest.mark.search
def test_kinks_at_the_point_of_random_functions_are_found_and_subgradients_accepted():
    for seed in range(examples(60)):
        function = RandomFunction(seed, KINKED)
        # A single unit is at its kink: subgradients of several need not add up to one of the sum.
        function.W1, function.W2 = function.W1[:1], function.W2[:, :1]
        function.units[1] = UNITS[sorted(UNITS)[seed % len(UNITS)]]
        report = check_gradient(function.loss, function.grad, np.zeros_like(function.x))
        tensor = report.tensors["params"]
        assert report.verdict != "fail", (function.described, report.summary())
        if function.offset < 100:
            assert tensor.kinks in (0, tensor.dims_checked), function.described


@pytest.mark.parametrize("unit", ["tanh", "relu"])
def test_a_network_given_as_a_dict_of_arrays_of_any_shape(unit):
    network = Perceptron(unit)
    report = check_gradient(network.loss, network.grad, network.params, keep=True)
    assert report.passed, report.summary()
    assert list(report.tensors) == list(network.params)
    assert report.tensors["temperature"].shape == ()
    assert report.operands == {name: list(array.shape) for name, array in network.params.items()}
    assert {tensor.evaluator for tensor in report.tensors.values()} == {"full"}
    for name in network.params:
        wrong = network.grad(network.params)
        wrong[name] = _one_entry_off(wrong[name], 1e-6)
        found = check_gradient(network.loss, wrong, network.params)
        assert [key for key, tensor in found.tensors.items() if tensor.verdict == "fail"] == [name]


def test_gradients_of_lower_precision():
    network = Perceptron("tanh")
    p = network.params
    for grad in (
        lambda p: network.grad(p, np.float32),
        lambda p: {name: a.astype(np.float64) for name, a in network.grad(p, np.float32).items()},
        network.grad({name: a.astype(np.float32).astype(float) for name, a in p.items()}, np.float32),
        {name: a.astype(np.float16) for name, a in network.grad(p).items()},
    ):
        report = check_gradient(network.loss, grad, p, keep=True)
        assert report.passed, report.summary()
    exact = network.grad(p)
    for dtype, error in ((np.float32, 1e-4), (np.float16, 1e-1)):
        wrong = {name: _one_entry_off(a, error).astype(dtype) for name, a in exact.items()}
        report = check_gradient(network.loss, wrong, p)
        assert {tensor.verdict for tensor in report.tensors.values()} == {"fail"}


def test_a_float32_loss_is_judged_by_its_own_noise():
    loss, grad, _ = softmax_loss()
    single = RNG.normal(size=(8, 5)).astype(np.float32)

    def rough(v):
        return np.float32(loss(v.astype(np.float32)))

    report = check_gradient(rough, grad, single, keep=True)
    assert report.passed, report.summary()
    assert 1e-7 < np.median(_flat(report) / np.abs(_flat(report, "analytic"))) < 1e-2
    assert not check_gradient(rough, 1.05 * grad(single.astype(float)), single).passed


def test_no_false_alarm_where_many_kinks_lie_closer_than_float32_can_resolve():
    rng = np.random.default_rng(7)
    for samples in (8, 128):
        x, v = rng.normal(size=(samples, 6)).astype(np.float32), rng.normal(size=10).astype(np.float32) / samples

        def hidden(w, x=x):
            return x @ w.astype(np.float32)

        def grad(w, x=x, v=v):
            return x.T @ ((hidden(w) > 0) * v)

        w = rng.normal(size=(6, 10)).astype(np.float32)
        report = check_gradient(lambda w, v=v: np.float32((np.maximum(hidden(w), 0) @ v).sum()), grad, w)
        assert report.tensors["params"].beyond_error_bar == 0, report.summary()


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.3, 1.0])
def test_any_subgradient_of_an_absolute_value_is_accepted_at_zero(slope):
    x = np.array([0.5, 0.0, -2.0])
    report = check_gradient(lambda x: np.abs(x).sum(), np.array([1.0, slope, -1.0]), x)
    assert report.passed, report.summary()
    assert report.tensors["params"].kinks == 1
    assert ("1 as subgradients at a kink" in report.tensors["params"].reason) == (slope != 0)


@pytest.mark.parametrize("slope", [-1.5, 1.5, 1.001, 1 + 1e-6])
def test_what_is_no_subgradient_is_not(slope):
    report = check_gradient(lambda x: np.abs(x).sum(), np.array([1.0, slope]), np.array([0.5, 0.0]))
    assert report.tensors["params"].first_beyond == (1,)


@pytest.mark.parametrize("step", ["auto", 1e-5, 2.0**-10])
def test_relu_at_exactly_zero_and_ties_of_a_maximum(step):
    x = np.array([0.0, 1.0, -1.0, 3.0])

    def loss(x):
        return 7 + 2 * np.maximum(x, 0).sum() + 5 * max(x[1], x[1] * x[1] * x[1]) + np.sin(x[3])

    for first in (0.0, 1.0, 2.0):
        for second in (5.0, 15.0):
            grad = np.array([first, 2 + second, 0.0, 2 + math.cos(3)])
            report = check_gradient(loss, grad, x, step=step)
            assert report.passed, report.summary()
            assert report.tensors["params"].kinks == 2
    for wrong in ([-0.01, 10, 0], [2.01, 10, 0], [1, 6.9, 0], [1, 17.1, 0], [1, 10, 0.01]):
        assert not check_gradient(loss, np.array([*wrong, 2 + math.cos(3)]), x, step=step).passed


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_a_kink_beside_the_point_is_kept_out_of_reach(distance):
    def loss(x):
        return 1 + np.maximum(x - distance, 0).sum()

    zero = np.zeros(3)
    right = check_gradient(loss, zero, zero + distance / 2)
    assert right.passed, right.summary()
    assert right.tensors["params"].kinks == 0
    assert not check_gradient(loss, zero + 1.0, zero + distance / 2).passed


def test_a_constant_that_hides_the_gradient_is_inconclusive():
    report = check_gradient(lambda x: 1e14 + np.sin(x).sum(), np.cos, X)
    assert report.verdict == "inconclusive"
    assert check_gradient(lambda x: 1e3 + np.sin(x).sum(), np.cos, X).passed


ZEROS = {
    "constant": (lambda x: 3.0, X),
    "at a minimum of zero": (lambda x: np.sum((x - X) ** 2), X),
    "at a maximum": (lambda x: np.cos(x).sum(), np.zeros(12)),
    "of one entry alone": (lambda x: np.sin(x[0]), np.full(12, math.pi / 2)),
}


@pytest.mark.parametrize("name", ZEROS)
def test_gradients_of_zero_pass(name):
    loss, x = ZEROS[name]
    report = check_gradient(loss, np.zeros(12), x)
    assert report.passed, report.summary()
    assert report.tensors["params"].unresolved == 12


def test_a_tensor_whose_gradient_vanishes_is_judged_beside_the_others():
    p = {"x": X, "b": np.array(0.5)}
    grad = {"x": (X - X.mean()) / 6, "b": np.array(1e-17)}
    report = check_gradient(lambda p: np.var(p["x"] + p["b"]), grad, p)
    assert report.passed, report.summary()


@pytest.mark.jit
def test_a_gradient_that_is_not_finite_fails():
    loss, grad, w = softmax_loss()
    for bad in (np.nan, np.inf):
        wrong = grad(w)
        wrong[2, 3] = bad
        report = check_gradient(loss, wrong, w)
        assert report.verdict == "fail"
        assert report.tensors["params"].non_finite == 1
        assert report.tensors["params"].worst[0].index == (2, 3)


def test_a_step_is_honoured_exactly_for_every_dimension():
    loss, grad, w = softmax_loss()
    for step, stencil in ((1e-5, "auto"), (0.001, 3), (2.0**-6, 5)):
        counted = Counted(loss)
        report = check_gradient(counted, grad, w, step=step, stencil=stencil)
        assert report.passed, report.summary()
        assert (report.tensors["params"].step, report.requested["step"]) == (step, step)
        for dim in range(w.size):
            here = w.flat[dim]
            alone = [p for p in counted.arguments if np.count_nonzero(p != w) == 1 and p.flat[dim] != here]
            assert {p.flat[dim] for p in alone} == {here + side * k * step for side in (-1, 1) for k in (1, 2, 4)}


def test_a_step_far_too_large_is_inconclusive_and_not_the_gradients_fault():
    report = check_gradient(lambda x: np.sin(1e6 * x).sum(), lambda x: 1e6 * np.cos(1e6 * x), X, step=1e-3)
    assert report.verdict == "inconclusive", report.summary()
    assert "a smaller step" in report.tensors["params"].advice
    assert not check_gradient(_log_sum_exp, 1.01 * _softmax(X), X, step=1e-3).passed


def test_steps_are_powers_of_two_by_default():
    loss, grad, w = softmax_loss()
    counted = Counted(loss)
    check_gradient(counted, grad, np.ldexp(np.rint(w * 2**10), -10), dims=3)
    start = counted.arguments[0]
    moves = {abs(p - start).max() for p in counted.arguments if np.count_nonzero(p != start) == 1}
    assert {math.frexp(move)[0] for move in moves} == {0.5}


STATE_CALLS = 8  # two at first, one after the gradient was called, five at the end
GRADIENT_CALLS = 2
NOISE_CALLS = 4 * 2 * 9


def test_calls_of_the_loss_are_counted():
    loss, grad, w = softmax_loss(features=20, classes=10)
    counted, called = Counted(loss), Counted(grad)
    report = check_gradient(counted, called, w, step=1e-4)
    assert report.passed
    assert len(counted) == STATE_CALLS + NOISE_CALLS + 6 * w.size  # what the report explains is known
    assert len(called) == GRADIENT_CALLS + 7
    counted = Counted(loss)
    check_gradient(counted, grad(w), w)
    assert 6 * w.size < len(counted) < 11 * w.size
    line = Counted(lambda x: float(MATRIX[0] @ x))
    check_gradient(line, MATRIX[0], X, step="auto")
    assert len(line) < STATE_CALLS + NOISE_CALLS + 5 * 30 + 8 * X.size


def test_a_float32_backward_is_measured_further_apart():
    network = Perceptron("tanh")
    called = Counted(lambda p: network.grad(p, np.float32))
    check_gradient(network.loss, called, network.params, dims=5)
    assert len(called) == GRADIENT_CALLS + 3 * 7


def test_dims_are_all_of_a_small_tensor_and_a_sample_of_a_large_one():
    x = {"small": np.ones(2048), "large": np.ones((64, 33)), "number": np.array(2.0)}
    counted = Counted(lambda p: sum(float(a.sum()) for a in p.values()))
    report = check_gradient(counted, {name: np.ones_like(a) for name, a in x.items()}, x)
    assert {name: tensor.dims_checked for name, tensor in report.tensors.items()} == {
        "small": 2048,
        "large": 1024,
        "number": 1,
    }
    assert report.passed
    few = check_gradient(_log_sum_exp, _softmax, X, dims=5, seed=3, keep=True)
    assert few.tensors["params"].dims_checked == 5
    again = check_gradient(_log_sum_exp, _softmax, X, dims=5, seed=4, keep=True)
    assert few.tensors["params"].dims.tolist() != again.tensors["params"].dims.tolist()
    weights = {"weight": np.array(1.0), "bias": np.ones(3)}
    assert check_gradient(lambda p: float(p["weight"] * p["bias"].sum()), weights | {"weight": 3.0}, weights).passed


def _without_run(report):
    return {key: value for key, value in json.loads(report.to_json()).items() if key != "run"}


def test_the_report_does_not_depend_on_threads_and_can_be_read_back():
    network = Perceptron("relu")
    reports = [check_gradient(network.loss, network.grad, network.params, threads=n) for n in (1, 2, 3)]
    assert [report.run["threads"] for report in reports] == [1, 2, 3]
    assert all(_without_run(report) == _without_run(reports[0]) for report in reports)
    assert _without_run(from_json(reports[0].to_json())) == _without_run(reports[0])
    asked = {"step": "auto", "evaluator": "full", "dims": "auto", "kinks": "widen", "stencil": "auto"}
    assert reports[0].requested == asked


def test_ctrl_c_gives_a_partial_report():
    loss, grad, w = softmax_loss(features=40, classes=10)

    def stop(stage, done, total):
        if done >= 64:
            raise KeyboardInterrupt

    report = check_gradient(loss, grad, w, progress=stop)
    assert report.interrupted
    assert (report.verdict, report.exit_code) == ("inconclusive", 130)
    assert not report
    assert 64 <= report.tensors["params"].dims_checked < 400


def test_params_may_be_lists_numbers_and_single_precision():
    assert check_gradient(lambda x: float(x @ x), [2.0, 4.0], [1.0, 2.0]).passed
    assert check_gradient(lambda x: np.array([x**3]), 12.0, 2.0).passed
    seen = Counted(lambda x: float(x @ x))
    x = X.astype(np.float32)[::-1]
    assert check_gradient(seen, 2 * x.astype(float), x).passed
    assert {p.dtype for p in seen.arguments} == {np.dtype(np.float64)}
    assert np.array_equal(seen.arguments[0], x)


def _changes(x):
    x += 1
    return float(x.sum())


class _Draws:
    def __init__(self):
        self._rng = np.random.default_rng(0)

    def __call__(self, x):
        return float((x * self._rng.integers(0, 2, x.shape)).sum())


def _raises(x):
    raise ValueError("shapes\ndo not fit")


def _later(x):
    if np.array_equal(x, X):
        return 1.0
    raise ValueError("not there")


def _good(x):
    return float(x.sum())


ONES = np.ones(12)


@pytest.mark.parametrize(
    ("loss", "grad", "params", "message"),
    [
        (3, ONES, X, "loss is 3: expected a function of params"),
        (_good, np.ones(11), X, r"grad has shape \(11,\): expected \(12,\), that of params"),
        (_good, lambda x: np.ones((12, 1)), X, r"grad has shape \(12, 1\): expected \(12,\)"),
        (
            _good,
            {"w": ONES},
            {"w": np.ones((3, 4))},
            r"grad\['w'\] has shape \(12,\): expected \(3, 4\), that of params",
        ),
        (
            _good,
            {"weigth": ONES},
            {"weight": X},
            r"grad has the key 'weigth' \(did you mean 'weight'\?\): expected weight",
        ),
        (_good, {"w": ONES}, {"w": X, "b": X}, "grad has no 'b': expected w, b"),
        (_good, {"w": ONES}, X, "grad is a mapping: expected an array, like params"),
        (_good, ONES, {"w": X}, "grad is array.*: expected a mapping of names to arrays, like params"),
        (_good, None, X, "grad is None: autograd did not reach it"),
        (_good, ONES.astype(int), X, "grad has dtype int64: expected float64, float32, float16 or bfloat16"),
        (_good, ONES, np.arange(12), "params has dtype int64: expected float64, float32, float16 or bfloat16"),
        (_good, ONES, X + 0j, "params has dtype complex128"),
        (_good, {"w": ONES}, {"w": np.where(ONES.cumsum() == 4, np.inf, X)}, r"params\['w'\] is inf at index \[3\]"),
        (
            _good,
            ONES,
            np.where(ONES.cumsum() == 2, np.nan, X),
            r"params is nan at index \[1\]: expected finite numbers",
        ),
        (_good, np.ones(0), np.ones((0,)), r"params is empty: it has shape \(0,\)"),
        (_good, {}, {}, "params is an empty mapping: expected at least one array"),
        (_good, {3: ONES}, {3: X}, "params has the key 3: expected names"),
        (lambda x: None, ONES, X, "loss returns None at the start point: expected one number"),
        (lambda x: "1", ONES, X, "loss returns '1' at the start point"),
        (lambda x: x, ONES, X, r"loss returns an array of shape \(12,\) at the start point: expected one number"),
        (lambda x: x[0] + 1j, ONES, X, "loss returns np.complex128.* at the start point"),
        (lambda x: math.nan, ONES, X, "loss is nan at the start point: expected a finite number"),
        (lambda x: 10**400, ONES, X, "loss is inf at the start point"),
        (_changes, ONES, X, "loss changes params, which it is given"),
        (_good, lambda x: x.__imul__(2), X, "grad changes params, which it is given"),
        (_Draws(), ONES, X, "loss is .* and then .* at the same point: expected the same value again .*dropout"),
        (_raises, ONES, X, "loss raises ValueError at the start point: shapes do not fit"),
        (_good, _raises, X, "grad raises ValueError at the start point: shapes do not fit"),
        (_later, ONES, X, r"loss is not finite around params .* loss raises ValueError with params .*: not there"),
    ],
)
def test_bad_input_gets_one_line(loss, grad, params, message):
    if isinstance(params, dict) and loss is _good:
        loss = lambda p: float(sum(a.sum() for a in p.values()))  # noqa: E731
    with pytest.raises(FastcheckError, match=message) as told:
        check_gradient(loss, grad, params)
    assert "\n" not in str(told.value)
    if "raises" in message:
        assert isinstance(told.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"step": 0}, "step is 0: expected a positive finite number"),
        ({"step": -1e-5}, "step is -1e-05"),
        ({"step": math.nan}, "step is nan"),
        ({"step": "small"}, "step is 'small': expected 'auto' or a positive finite number"),
        (
            {"step": 1e-17},
            "step is 1e-17: adding it does not change the largest entry of params, .*; the smallest usable",
        ),
        ({"stencil": 4}, "stencil is 4: expected 'auto', 3 or 5"),
        ({"stencil": 3.0}, "stencil is 3.0"),
        ({"dims": 0}, "dims is 0"),
        ({"dims": {"parms": 3}}, r"dims names 'parms' \(did you mean 'params'\?\)"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_get_one_line(argument, message):
    with pytest.raises(FastcheckError, match=message):
        check_gradient(_good, ONES, X, **argument)


def test_a_loss_that_leaves_its_domain():
    x = np.array([2.0**-20, 0.5, 3.0])

    def loss(x):
        return np.log(x).sum()

    assert check_gradient(loss, 1 / x, x).passed
    with pytest.raises(FastcheckError, match=r"step is 1e-05: the loss is not finite with params at index \[0\]"):
        check_gradient(loss, 1 / x, x, step=1e-5)
    with pytest.raises(FastcheckError, match=r"loss is not finite around params\['w'\] at index \[1, 0\]"):
        check_gradient(lambda p: np.sqrt(p["w"]).sum(), {"w": np.ones((2, 1))}, {"w": np.array([[1.0], [0.0]])})


def test_what_a_loss_raises_beside_the_point_is_told_with_the_place():
    def loss(p):
        if p["w"][1] > 0.5 + 1e-9:
            raise RuntimeError("too large")
        return float(p["w"].sum())

    p = {"w": np.array([0.3, 0.5])}
    with pytest.raises(
        FastcheckError, match=r"loss raises RuntimeError with params\['w'\] at index \[1\] perturbed by 0.125"
    ):
        check_gradient(loss, {"w": np.ones(2)}, p, step=0.125)


def test_a_loss_that_changes_its_argument_only_beside_the_point_is_found():
    def loss(x):
        if not np.array_equal(x, X) and np.count_nonzero(x != X) == 1:
            x[3] += 1e-9
        return float(x.sum())

    with pytest.raises(FastcheckError, match="loss changes params"):
        check_gradient(loss, ONES, X)


def test_it_is_public():
    assert fastcheck.check_gradient is check_gradient
