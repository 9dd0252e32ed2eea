"""What is found out about a user's functions themselves, each beside a sibling that has not that fault."""

import itertools
import re

import numpy as np
import pytest

from fastcheck import FastcheckError, FunctionCase, check_gradient, sweep
from fastcheck.reports.reader import from_json

RNG = np.random.default_rng(17)
X, Y, W = RNG.normal(size=(20, 5)), RNG.normal(size=20), RNG.normal(size=5)


def _names(report):
    assert from_json(report.to_json()).to_dict() == report.to_dict()
    return [finding.name for finding in report.health]


def _squares(w):
    return float(np.mean((X @ w - Y) ** 2))


def _slopes(w):
    return 2 * X.T @ (X @ w - Y) / 20


def test_healthy_functions_have_no_finding():
    report = check_gradient(_squares, _slopes, W)
    assert report.passed
    assert _names(report) == []
    assert "health" not in report.to_dict()


@pytest.mark.parametrize("kept", ["array", "running mean", "dict"])
def test_a_gradient_that_changes_what_the_loss_reads(kept):
    v, state = RNG.normal(size=6), {"mean": 0.0}

    def loss(p):
        shift = state["mean"] if kept == "running mean" else 0.0
        return float((v * np.tanh(p["a"] - shift)).sum())

    def grad(p):
        found = v * (1 - np.tanh(p["a"] - state["mean"] * (kept == "running mean")) ** 2)
        if kept == "running mean":
            state["mean"] = 0.9 * state["mean"] + 0.1 * p["a"].mean()
        else:
            v[:] = v + (1e-6 if kept == "dict" else 1.0)
        return {"a": found}

    report = check_gradient(loss, grad, {"a": RNG.normal(size=6)})
    assert report.verdict == "inconclusive"
    assert _names(report) == ["grad changes the loss"]
    tensor = report.tensors["a"]
    assert "a call of grad changes the loss at the same point" in tensor.reason
    assert "changes in place" in tensor.advice


@pytest.mark.parametrize("again", [1, 2])
def test_a_gradient_that_adds_up_from_call_to_call(again):
    total = np.zeros(5)

    def grad(w):
        nonlocal total
        total = total + _slopes(w)
        return total

    for _ in range(again):
        report = check_gradient(_squares, grad, W)
    assert report.verdict == "fail"
    assert _names(report) == ["grad adds up"]
    assert ("returns 2 times the first" in report.tensors["params"].reason) == (again == 1)
    assert "zero before" in report.tensors["params"].advice


def test_one_of_several_tensors_that_adds_up_is_named():
    kept = np.ones(5)

    def grad(p):
        kept[:] += 1
        return {"a": _slopes(p["a"]), "b": kept.copy()}

    p = {"a": W, "b": np.ones(5)}
    report = check_gradient(lambda p: _squares(p["a"]) + float(p["b"].sum()), grad, p)
    assert report.verdict == "fail"
    assert _names(report) == ["grad adds up"]
    assert "returns 1.5 times the first result in b" in report.tensors["b"].reason


def test_a_gradient_that_adds_to_something_else():
    total = RNG.normal(size=5)

    def grad(w):
        nonlocal total
        total = total + _slopes(w)
        return total

    report = check_gradient(_squares, grad, W)
    assert (report.verdict, _names(report)) == ("fail", ["grad adds up"])
    assert "the first result and something more" in report.tensors["params"].reason


def test_a_buffer_that_is_written_anew_in_every_call_is_healthy():
    buffer = np.empty(5)

    def grad(w):
        buffer[:] = _slopes(w)
        return buffer

    assert _names(check_gradient(_squares, grad, W)) == []


def test_a_loss_that_ignores_its_argument():
    own, x, v = RNG.normal(size=(5, 4)), RNG.normal(size=(6, 5)), RNG.normal(size=(6, 4))
    report = check_gradient(lambda w: np.sum((x @ own) * v), x.T @ v, own)
    assert report.verdict == "inconclusive"
    assert _names(report) == ["the loss never moves"]
    assert "wherever it was evaluated" in report.tensors["params"].reason
    assert check_gradient(lambda w: np.sum((x @ w) * v), x.T @ v, own).passed
    # Of a constant the gradient is zero: that is right, and worth a word.
    constant = check_gradient(lambda w: 3.0, np.zeros(4), np.ones(4))
    assert constant.passed
    assert "the loss never moves" in _names(constant)


@pytest.mark.parametrize("memory", ["a warm start", "a running mean", "a count of calls elsewhere"])
def test_a_loss_that_remembers_where_it_was(memory):
    kept = {"at": W.copy(), "mean": 0.0}

    def loss(w):
        far = float(np.abs(w - kept["at"]).max())
        if memory == "a warm start":
            kept["at"] = kept["at"] + 0.9 * (w - kept["at"]) if far > 1e-3 else kept["at"]
        elif memory == "a running mean":
            kept["mean"] = 0.9 * kept["mean"] + 0.1 * far
        else:
            kept["mean"] += 1e-3 * (far > 0)
        return _squares(w) + kept["mean"] + float(((w - kept["at"]) ** 2).sum())

    report = check_gradient(loss, _slopes, W)
    assert not report.passed
    assert _names(report) == ["the loss remembers"]
    assert "depends on where it was evaluated before" in report.tensors["params"].reason


def test_a_loss_that_is_no_number_in_the_end_costs_no_report():
    calls = []

    def loss(w):
        calls.append(0)
        return _squares(w) if len(calls) < 150 or not np.array_equal(w, W) else np.nan

    report = check_gradient(loss, _slopes, W)
    assert (report.verdict, _names(report)) == ("inconclusive", ["the loss remembers"])


def test_a_loss_that_keeps_values_by_the_identity_of_its_argument():
    kept = {}

    def loss(w):
        if id(w) not in kept:
            kept[id(w)] = w, _squares(w)  # the array as well, so that no other has its identity
        return kept[id(w)][1]

    report = check_gradient(loss, _slopes, W)
    assert (report.verdict, _names(report)) == ("inconclusive", ["the loss remembers"])
    by_value = {}

    def sound(w):
        return by_value.setdefault(w.tobytes(), _squares(w))

    assert _names(check_gradient(sound, _slopes, W)) == []


def _in_any_order(rng, terms):
    total = np.float32(0) if terms.dtype == np.float32 else 0.0
    for i in rng.permutation(len(terms)):
        total = total + terms[i]
    return float(total)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_loss_that_differs_in_its_last_bits_is_measured(dtype):
    rng, x = np.random.default_rng(0), np.concatenate([RNG.normal(size=30), [1e3, -1e3]])

    def loss(p):
        return _in_any_order(rng, (x[:30] * np.sin(p[0] * x[:30])).astype(dtype)) + _in_any_order(rng, x) + 1.0

    def grad(p):
        return np.array([(x[:30] ** 2 * np.cos(p[0] * x[:30])).sum()])

    report = check_gradient(loss, grad, np.array([0.4]), keep=True)
    assert report.passed, report.summary()
    assert _names(report) == ["the loss wavers"]
    assert report.tensors["params"].error_bar[0] > 1e-12
    assert check_gradient(loss, lambda p: 1.01 * grad(p), np.array([0.4])).verdict == "fail"


def test_last_bits_of_a_sum_that_cancels_are_not_another_function():
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=400)
    c = np.sin(0.5 * x).sum()

    def loss(p):
        return float(np.cumsum(rng.permutation(np.append(np.sin(p[0] * x), -c * p[1])))[-1])

    def grad(p):
        return np.array([(x * np.cos(p[0] * x)).sum(), -c])

    report = check_gradient(loss, grad, np.array([0.5, 1.0]))
    assert (report.verdict, _names(report)) == ("pass", ["the loss wavers"]), report.summary()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_gradient_in_half_precision_may_waver_by_its_own_roundings(precision):
    rng, unit = np.random.default_rng(0), {"float16": 2.0**-11, "bfloat16": 2.0**-8}[precision]

    def grad(w):
        return _slopes(w) * (1 + unit * rng.choice([-1, 0, 1], 5))

    report = check_gradient(_squares, grad, W, precision=precision)
    assert report.passed, report.summary()
    assert _names(report) == ["grad wavers"]
    assert _names(check_gradient(_squares, grad, W)) == ["grad differs when called again"]


def test_an_accuracy_relative_to_nothing_is_refused():
    with pytest.raises(FastcheckError, match=r"relative_noise is 1e-06, but the loss is 0 .*: expected noise= instead"):
        check_gradient(lambda x: float(np.sin(x).sum()), np.cos, np.zeros(3), relative_noise=1e-6)
    assert check_gradient(lambda x: float(np.sin(x).sum()), np.cos, np.zeros(3), noise=1e-6).passed


def test_a_loss_with_a_new_sample_in_each_call_is_refused_and_noise_is_named():
    rng = np.random.default_rng(0)

    def loss(w):
        return _squares(w) * (1 + 1e-3 * rng.normal())

    with pytest.raises(FastcheckError, match=r"expected the same value again .*noise= declares"):
        check_gradient(loss, _slopes, W)
    assert check_gradient(lambda w: loss(w), _slopes, W, noise=0.02 * _squares(W)).verdict == "inconclusive"


def test_a_gradient_that_differs_in_its_last_bits_has_that_in_its_bars():
    rng = np.random.default_rng(0)

    def grad(w):
        return _slopes(w) * (1 + 1e-7 * rng.normal(size=5))

    report = check_gradient(_squares, grad, W)
    assert report.passed, report.summary()
    assert _names(report) == ["grad wavers"]
    assert check_gradient(_squares, lambda w: 1.001 * grad(w), W).verdict == "fail"
    dropped = check_gradient(_squares, lambda w: _slopes(w) * rng.integers(0, 2, 5), W)
    assert (dropped.verdict, _names(dropped)) == ("inconclusive", ["grad differs when called again"])


def _root(a, tolerance):
    x = 0.5
    for _ in range(10_000):
        if abs(np.cos(a * x) - x) <= tolerance:
            break
        x = np.cos(a * x)
    return x


def _root_slope(p, tolerance=1e-15):
    x = _root(p[0], tolerance)
    return np.array([-x * np.sin(p[0] * x) / (1 + p[0] * np.sin(p[0] * x))])


@pytest.mark.parametrize("tolerance", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("declared", ["noise", "relative_noise"])
def test_a_solver_is_judged_by_its_declared_accuracy(tolerance, declared):
    p = np.array([0.5])
    bound = {declared: tolerance / (_root(0.5, 1e-15) if declared == "relative_noise" else 1)}

    def loss(p):
        return _root(p[0], tolerance)

    def grad(p):
        return _root_slope(p, tolerance)

    report = check_gradient(loss, grad, p, **bound, keep=True)
    assert report.passed, report.summary()
    assert _names(report) == ["accuracy of the loss"]
    assert "declared accuracy" in report.health[0].words
    assert report.tensors["params"].error_bar[0] > tolerance
    assert check_gradient(loss, 1.03 * grad(p), p, **bound).verdict == "fail"
    undeclared = check_gradient(loss, grad, p)
    assert undeclared.passed or "noise=" in undeclared.tensors["params"].advice


def test_a_normalised_sum_shows_nothing():
    x = np.random.default_rng(9).random((25, 5))

    def normalised(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    report = check_gradient(lambda x: float(normalised(x).sum()), np.zeros((25, 5)), x)
    assert report.verdict == "inconclusive"
    assert _names(report) == ["nothing was shown"]
    assert "weight the outputs" in report.tensors["params"].advice
    v = RNG.normal(size=(25, 5))

    def grad(x):
        z, s = normalised(x), np.sqrt(x.var(0) + 1e-5)
        return (v - v.mean(0) - z * (v * z).mean(0)) / s

    weighted = check_gradient(lambda x: float((v * normalised(x)).sum()), grad, x)
    assert (weighted.verdict, _names(weighted)) == ("pass", [])


def test_dead_units_show_nothing_and_live_ones_do():
    v, x = RNG.normal(size=(8, 6)), RNG.normal(size=6)
    for bias, names in ((-50.0, ["nothing was shown"]), (50.0, [])):

        def loss(p, bias=bias):
            return float(p["v"].sum() + np.maximum(p["w"] @ x + bias, 0).sum())

        def grad(p, bias=bias):
            return {"w": np.outer((p["w"] @ x + bias > 0) * 1.0, x), "v": np.ones(2)}

        report = check_gradient(loss, grad, {"w": v, "v": np.ones(2)})
        assert report.passed, report.summary()
        assert _names(report) == names
        assert ("48 of 50 derivatives are zero" in str(report.health)) == bool(names)


@pytest.mark.parametrize("size", [1e-162, 3e-163])
def test_a_loss_that_underflows_is_told_as_that(size):
    p = size * np.array([1.0, -2.0, 1.5])
    for factor in (1, 1.01):
        report = check_gradient(lambda p: float((p**2).sum()), 2 * factor * p, p)
        assert report.verdict == "inconclusive", report.summary()
        assert "underflow" in report.tensors["params"].reason
    assert check_gradient(lambda p: float((p**2).sum()), 2 * p, p / size).verdict == "fail"
    larger = 1e5 * p
    assert check_gradient(lambda p: float((p**2).sum()), 2 * larger, larger).passed


THREADED = {
    "a constant": (lambda p: 4.0, np.ones(40), np.ones(40)),
    "a tie": (lambda p: float(p.max()), np.ones(40), np.full(40, 2.0)),
    "underflow": (lambda p: float((p**2).sum()), np.full(40, 2e-162), np.full(40, 1e-162)),
    "waves": (
        lambda p: float((p**2 + np.sin(1e10 * p) / 1e10).sum()),
        lambda p: 2 * p + np.cos(1e10 * p),
        np.linspace(0.5, 1.5, 40),
    ),
    "kinks": (lambda p: float(np.abs(p).sum()), np.zeros(40), np.arange(40.0) % 2),
}


@pytest.mark.parametrize("name", THREADED)
def test_findings_do_not_depend_on_threads(name):
    loss, grad, params = THREADED[name]
    one, four = (check_gradient(loss, grad, params, threads=threads).to_dict() for threads in (1, 4))
    assert one | {"run": None} == four | {"run": None}
    assert ("health" in one) == (name not in ("waves", "kinks"))


def test_a_refusal_quotes_what_its_own_entry_raised():
    def loss(p):
        moved = np.flatnonzero(p != 1)
        if moved.size == 1:
            raise ValueError(f"entry {moved[0]}")
        return float(p.sum())

    for _ in range(3):
        with pytest.raises(FastcheckError, match=r"params at index \[(\d+)\].*params at index \[\1\].*entry \1"):
            check_gradient(loss, np.ones(64), np.ones(64), threads=4)


def test_what_was_known_before_an_interrupt_is_kept():
    total = np.zeros(40)

    def grad(p):
        nonlocal total
        total = total + 2 * p
        return total

    def stop(stage, done, total):
        if done:
            raise KeyboardInterrupt

    report = check_gradient(lambda p: float(p @ p), grad, np.ones(40), progress=stop)
    assert report.interrupted
    assert report.exit_code == 130
    assert _names(report) == ["grad adds up"]


def test_a_finding_of_one_tensor_leaves_the_others_their_reasons():
    p = {"a": np.array([2.0, 2.0]), "b": np.ones(3)}
    for wrong in (0.0, 1.0):
        grads = {"a": np.ones(2), "b": np.array([2.0, 2.0, 2.0 + wrong])}
        report = check_gradient(lambda p: float(p["a"].max() + (p["b"] ** 2).sum()), grads, p)
        assert report.verdict == "fail"
        assert "share a kink" in report.tensors["a"].reason
        assert report.tensors["b"].verdict == ("fail" if wrong else "pass")
        assert "share a kink" not in report.tensors["b"].reason


def test_sweeps_refuse_functions_that_are_no_functions():
    total = np.zeros(5)

    def grad(w):
        nonlocal total
        total = total + _slopes(w)
        return total

    with pytest.raises(FastcheckError, match=r"the second call of grad returns 2 times the first .*: set the gradient"):
        sweep(FunctionCase(_squares, grad, W))
    assert sweep(FunctionCase(_squares, _slopes, W)).passed


def test_kinks_and_underflow_are_no_hidden_values():
    x = np.zeros(3)
    report = check_gradient(lambda x: 1e-250 * float(np.abs(x).sum()), np.full(3, 5e-251), x)
    assert report.passed
    assert "not zero, but" not in report.tensors["params"].reason


def test_kinks_with_slopes_of_their_own_leave_zeros_to_be_counted():
    x = np.zeros(100)
    grad = np.where(np.arange(100) < 20, 10.5, 0.0)

    def loss(x):
        return float(10 * x[:20].sum() + np.abs(x[:20]).sum())

    assert _names(check_gradient(loss, grad, x)) == ["nothing was shown"]


TIES = {
    "a maximum": (lambda x: max(x[0], x[1], x[2]) + 2 * x[0] + np.sin(x[3]), [1, 1, 1], [2, 0, 0], [1, 1, 1]),
    "a minimum": (lambda x: min(x[0], x[1]) - x[2] * x[3], [1, 1, 2], [0, 0, -0.3], [1, 1, 0]),
    "of scaled entries": (lambda x: max(3 * x[0], -x[1], x[2]), [1, -3, 3], [0, 0, 0], [3, -1, 1]),
    "pooled pairs": (lambda x: x.reshape(2, 2).max(1) @ [1.0, 3.0], [0.5, 0.5, 2], [0, 0, 3], [1, 1, 0]),
}


@pytest.mark.parametrize("name", TIES)
def test_winners_of_a_tie_share_the_slope(name):
    """Any share passes; the whole to every winner is no subgradient, though each entry for itself lies between."""
    loss, tied, smooth, slopes = TIES[name]
    x = np.append(tied, 0.3)
    last = {"a maximum": float(np.cos(0.3)), "a minimum": -2.0}.get(name, 0.0)
    smooth, slopes = np.append(smooth, last), np.append(slopes, 0.0)
    winners = np.flatnonzero(slopes)
    first = np.where(np.arange(4) == winners[0], slopes, 0)
    for right in (first, slopes / len(winners), slopes @ np.diag([0.2, 0.8, 0, 0]) if slopes[1] else first):
        report = check_gradient(lambda x: float(loss(x)), smooth + right, x)
        assert report.passed, report.summary()
    for wrong in (slopes, 0 * slopes):
        report = check_gradient(lambda x: float(loss(x)), smooth + wrong, x)
        assert report.verdict == "fail", report.summary()
        assert _names(report) == ["no subgradient"]
        assert "share a kink" in report.tensors["params"].reason


@pytest.mark.parametrize("shares", [[1, 1, 0], [0.5, 0.5, 0.5], [1, 0.5, 0], [0, 0, 0]])
def test_shares_that_do_not_add_up_to_one_are_wrong_however_they_are_dealt(shares):
    assert check_gradient(lambda x: float(x.max()), np.array(shares, dtype=float), np.full(3, 2.0)).verdict == "fail"
    right = check_gradient(lambda x: float(x.max()), np.array([0.5, 0.3, 0.2]), np.full(3, 2.0))
    assert right.passed
    assert "every dimension lies at a kink" in right.tensors["params"].regime
    assert "not zero, but" not in right.tensors["params"].reason


@pytest.mark.parametrize("weights", [np.ones(30), np.arange(1.0, 31)])
def test_one_wrong_window_among_many_ties_is_found_and_named(weights):
    x = np.repeat(RNG.normal(size=30), 3)

    def loss(x):
        return float(weights @ x.reshape(30, 3).max(1))

    shared = np.repeat(weights / 3, 3)
    first = np.where(np.arange(90) % 3, 0, np.repeat(weights, 3))
    for right in (shared, first):
        assert check_gradient(loss, right, x).passed
        for factor in (3, 0):
            wrong = right.copy().reshape(30, 3)
            wrong[17] = factor / 3 * weights[17]
            report = check_gradient(loss, wrong.ravel(), x)
            assert report.verdict == "fail", report.summary()
            named = int(re.findall(r"params\[(\d+)\]", report.tensors["params"].reason)[0])
            assert 45 <= named <= 51


def test_ties_are_found_beside_kinks_of_their_own_and_far_apart():
    x = np.append(np.tile(RNG.normal(size=10), 2), 0.0)

    def loss(x):
        return float(np.maximum(x[:10], x[10:20]).sum() + max(x[20], 0.0))

    right = np.append(np.full(20, 0.5), 0.3)
    assert check_gradient(loss, right, x).passed
    for shares in (1.0, 0.0):
        report = check_gradient(loss, np.append(np.full(20, shares), 0.3), x)
        assert _names(report) == ["no subgradient"], report.summary()


@pytest.mark.search
@pytest.mark.parametrize("units", [1, 2, 3, 5])
def test_automatic_differentiations_choice_at_zero_is_no_fault_of_shared_kinks(units):
    """All slopes of relu at 0 taken to be 0, in a layer whose units are all at their kinks."""
    rng = np.random.default_rng(units)
    for _ in itertools.repeat(None, 5):
        x, v = rng.normal(size=3), rng.normal(size=units)
        report = check_gradient(
            lambda w, x=x, v=v: float(v @ np.maximum(w @ x, 0)), np.zeros((units, 3)), np.zeros((units, 3))
        )
        assert "no subgradient" not in _names(report), report.summary()
