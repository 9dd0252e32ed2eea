"""Sentences beside the numbers of a report: each where its condition holds, and none where it does not."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from layer_examples import case, layer, operands, torch_backward, torch_gradients

import fastcheck
from fastcheck import check_gradient
from fastcheck.engine import coordinator
from fastcheck.metrics import advice, health
from fastcheck.metrics.advice import Circumstances
from fastcheck.metrics.tally import Tally, fold
from fastcheck.metrics.verdict import of_tensor
from fastcheck.networks.layers import Dense

X = np.random.default_rng(0).normal(size=12)
KINDS = {
    "conv": {},
    "curved": {"balanced": True},
    "network": {"balanced": True, "evaluator": "network"},
    "function": {"black_box": True, "balanced": True, "evaluator": "full"},
}


def known(tally=None, kind="conv", shape=(4, 3, 3, 3), automatic=True, precision="float64", **more):
    """Return circumstances of a tensor of many dimensions."""
    defaults = {"evaluator": "delta", "black_box": False, "balanced": False, "declared": False, "bar_components": {}}
    defaults |= KINDS[kind] | more
    return Circumstances(tally or Tally(), shape, step=0.5, automatic=automatic, precision=precision, **defaults)


def folded(analytic, numeric, bar=1e-12):
    analytic, numeric = np.asarray(analytic, dtype=float), np.asarray(numeric, dtype=float)
    return fold(np.arange(len(analytic)), analytic, numeric, np.full(len(analytic), bar))


def outside(factors, right=0, **more):
    """Return circumstances in which numeric / analytic is each of the factors, and so many dimensions are right."""
    numeric = np.arange(1.0, 1 + len(factors) + right)
    analytic = numeric.copy()
    analytic[: len(factors)] = numeric[: len(factors)] / np.asarray(factors)
    return known(folded(analytic, numeric), **more)


def wide(part, kinks=0, **more):
    """Return circumstances in which a part is the largest of the widest bar and of that of the least dimension."""
    found = folded([1.0], [1.1], bar=0.5).worst[0]
    tally = Tally(dims=1, least=found, widest=found, kinks=kinks, histogram=(1,))
    parts = dict.fromkeys(advice.PARTS, 0.1) | {part: 0.2}
    return known(tally, bar_components={0: parts}, **more)


UNLIKE = [2.0, 0.7, -3.0]
SAID = [
    (advice.MISTAKEN, known(evaluator="full"), "report this"),
    (advice.MISTAKEN, known(), "--evaluator full"),
    (advice.OUTSIDE, outside([1 + 1e-8, 1 - 3e-8], kind="function"), "to at least 7 digits"),
    (
        advice.OUTSIDE,
        outside([1 + 1e-3, 1 - 3e-3], narrow_type="bfloat16", narrow_rule=1e-2),
        "all values are bfloat16 numbers, and differ as its rounding would",
    ),
    (advice.OUTSIDE, outside([1 + 1e-1, 1 - 3e-1], narrow_type="bfloat16", narrow_rule=1e-2), "nearly all"),
    (advice.OUTSIDE, outside([1 + 1e-8, 1 - 3e-8]), "nearly all"),
    (advice.OUTSIDE, outside([1 + 1e-3, 1 - 3e-3], kind="function"), "a constant with too few digits"),
    (advice.OUTSIDE, outside([1 + 1e-3, 1 - 3e-2], kind="function"), "nearly all"),
    (advice.OUTSIDE, outside([1 + 1e-3, 1 - 3e-3], kind="function", declared=True), "less accurate than declared"),
    (advice.OUTSIDE, outside([1 + 1e-5], kind="function"), "a constant with too few digits"),
    (advice.OUTSIDE, outside([1 + 1e-5, 1 - 3e-5], right=1, kind="function"), "a constant with too few digits"),
    (advice.OUTSIDE, outside([1 + 1e-3, 1 - 3e-3], right=1, kind="function"), "have in common"),
    (advice.OUTSIDE, outside([1 + 1e-5], right=19, kind="function"), "one dimension fails"),
    (advice.OUTSIDE, outside([1 + 1e-5], right=19, kind="function", declared=True), "one dimension fails"),
    (advice.OUTSIDE, outside([1 + 1e-5, 1 - 3e-5], right=18, kind="function"), "have in common"),
    (
        advice.OUTSIDE,
        outside([1 + 1e-6] * 20, kind="function"),
        "is 1.000001 in the worst dimensions: look for a wrong",
    ),
    (advice.OUTSIDE, outside([1 + 1e-6] * 20, kind="function", declared=True), "is 1.000001 in"),
    (
        advice.OUTSIDE,
        outside([1 + 1e-6] * 20),
        "is 1.000001 in the worst dimensions: look for a wrong",
    ),
    (advice.OUTSIDE, outside([2.0], right=20), "one dimension fails"),
    (advice.OUTSIDE, known(folded([0, 0, 3], [1, 2, 3])), "analytic values of the worst dimensions are zero"),
    (advice.OUTSIDE, known(folded([1, 2, 3], [0, 0, 3])), "numeric values of the worst dimensions are zero"),
    (advice.OUTSIDE, outside([-1, -1, -1]), "is -1 in the worst dimensions: look for a wrong sign"),
    (advice.OUTSIDE, outside([-1], right=20), "a wrong sign"),
    (
        advice.OUTSIDE,
        outside([0.5, 0.5, 0.5], right=20),
        "is 0.5 in the worst dimensions: look for a wrong or missing factor",
    ),
    (
        advice.OUTSIDE,
        outside([1.01, 1.01, 1.01]),
        "is 1.01 in the worst dimensions: look for a wrong or",
    ),
    (advice.OUTSIDE, outside([2.0], shape=()), "compare the two values"),
    (advice.OUTSIDE, outside(UNLIKE), "nearly all dimensions fail"),
    (advice.OUTSIDE, outside(UNLIKE, right=20), "a filter, a channel, a border tap"),
    (advice.OUTSIDE, outside(UNLIKE, right=20, shape=(4, 6)), "a row, a column"),
    (advice.OUTSIDE, outside(UNLIKE, right=20, kind="function"), "a row, a column"),
    (advice.OUTSIDE, outside(UNLIKE, right=20, shape=(23,)), "have in common?"),
    (advice.NARROWER, wide("gradient", blinding=health.nothing_to_gain(0.0, True)), "the network still gets wrong"),
    (advice.NARROWER, wide("round-off", blinding=health.no_variance("bn1", True, ["w"])), "data points that differ"),
    (
        advice.NARROWER,
        wide("gradient", blinding=health.no_variance("bn", False, [])),
        "other data points or parameters",
    ),
    (advice.NARROWER, wide("gradient", blinding=health.no_output_counts("relu")), "outputs above zero"),
    (advice.NARROWER, wide("round-off", blinding=health.no_output_counts("tanh")), "outputs of less than ten"),
    (advice.NARROWER, wide("kinks", kinks=1, automatic=False, blinding=health.no_output_counts("relu")), "fewer kinks"),
    (advice.NARROWER, wide("round-off", kind="function"), "a loss that rounds less"),
    (advice.NARROWER, wide("truncation", kind="function"), "where it bends less"),
    (advice.NARROWER, wide("truncation", kind="function", declared=True), "more accurate than noise="),
    (advice.NARROWER, wide("round-off"), "a step larger than 0.5"),
    (
        advice.NARROWER,
        wide("round-off", kind="curved"),
        "or with data whose magnitudes vary less: step='auto' has",
    ),
    (
        advice.NARROWER,
        wide("round-off", kind="network"),
        "or with data whose magnitudes vary less: step='auto' has",
    ),
    (advice.NARROWER, wide("truncation", kind="network"), "has balanced round-off against truncation and kinks"),
    (advice.NARROWER, wide("truncation", kind="curved", automatic=False), "a smaller step, or step='auto'"),
    (advice.NARROWER, wide("kinks", kinks=1), "some units lie close to their kinks"),
    (advice.NARROWER, wide("kinks", kinks=1, kind="network"), "some units lie close to their kinks"),
    (advice.NARROWER, wide("kinks", kinks=1, automatic=False), "fewer kinks; or kinks='exclude'"),
    (advice.NARROWER, wide("kinks", kinks=1, kind="network", automatic=False), "fewer kinks; or kinks='exclude'"),
    (advice.NARROWER, wide("kinks", kinks=1, kind="function"), "another point, further from the kinks"),
    (advice.NARROWER, wide("kinks", kind="function"), "another point: the one-sided slopes differ, and no kink"),
    (
        advice.NARROWER,
        wide("kinks", kinks=1, kind="function", automatic=False),
        "a smaller step, or step='auto', which",
    ),
    (advice.NARROWER, wide("kinks", kind="function", automatic=False), "another step, or step='auto'"),
    *(
        (advice.NARROWER, wide(part, kind=kind, automatic=False, declared=declared), words)
        for part, words in (("round-off", "a larger step, or step='auto'"), ("truncation", "a smaller step, or step="))
        for kind, declared in (("conv", False), ("network", False), ("function", False), ("function", True))
    ),
    (
        advice.NARROWER,
        wide("gradient"),
        "the gradient's sums cancel less, or with fewer terms in each (a smaller batch or map)",
    ),
    (advice.NARROWER, wide("gradient", kind="network", automatic=False), "cancel less, or with fewer terms in each"),
    (advice.NARROWER, wide("gradient", precision="float32"), "or compute the gradient in float64"),
    (advice.NARROWER, wide("gradient", kind="function"), "sums that cancel less"),
    (advice.NARROWER, wide("gradient", kind="function", precision="float32"), "compute the gradient in float64"),
    (advice.NARROWER, wide("steps", kind="function"), "two steps contradict each other: "),
    (advice.NARROWER, wide("steps", kind="function", declared=True), "declare more (noise=)"),
    (advice.SOURCES, wide("steps", kind="function"), "two steps, which contradict each other"),
    (advice.SOURCES, wide("round-off"), "round-off of the differences at h = 0.5"),
    (advice.SOURCES, wide("truncation"), "truncation of the differences at h = 0.5"),
    (advice.SOURCES, wide("kinks", kinks=1), "kinks crossed between -h and +h, h = 0.5"),
    (advice.SOURCES, wide("kinks", kind="function"), "no kink was found"),
    (advice.SOURCES, wide("gradient", precision="float32"), "sums, computed in float32"),
    (
        advice.NOTHING_RESOLVED,
        known(replace(folded([3, 0], [0, 0], bar=9), at_kink=2)),
        "every dimension lies at a kink",
    ),
    (advice.NOTHING_RESOLVED, known(replace(folded([3, 0], [0, 0], bar=9), at_kink=1)), "1 lie at a kink, where"),
    (
        advice.NOTHING_RESOLVED,
        known(replace(folded([3, 0], [0, 0], bar=9), kinks=2)),
        "none is distinguishable from zero",
    ),
    (advice.NOTHING_RESOLVED, known(folded([0, 0], [0, 0])), "all values are zero"),
    (advice.NOTHING_RESOLVED, known(folded([5e-324, *[0] * 99], [0] * 100)), "none is distinguishable from zero"),
    (advice.NOTHING_RESOLVED, known(folded([3, -3], [-2, 3], bar=9)), "none is distinguishable from zero"),
    (advice.NOTHING_RESOLVED, known(folded([3, 3], [-3, -3], bar=9)), "none is distinguishable from zero"),
]


@pytest.mark.parametrize(("table", "found", "sentence"), SAID)
def test_a_sentence_is_said_where_its_condition_holds(table, found, sentence):
    said = advice.said(table, found)
    assert sentence in said
    assert "{" not in said


def test_every_row_is_said_somewhere():
    tables = {id(table): table for table, _, _ in SAID}
    for table in tables.values():
        rows = [next(row for row in table if row.holds(found)) for other, found, _ in SAID if other is table]
        assert set(rows) == set(table)


def test_where_nothing_holds_nothing_is_said():
    assert advice.said(advice.NARROWER, known()) == ""


ELSEWHERE = ("data point", "batch", "map", "kinks=", "unit", "filter", "tap", "evaluator")
"""What functions have not."""


@pytest.mark.parametrize(("table", "found", "sentence"), SAID)
def test_functions_hear_nothing_of_what_they_have_not(table, found, sentence):
    if found.black_box:
        said = advice.said(table, found)
        assert [word for word in ELSEWHERE if word in said] == []


@pytest.mark.parametrize(("table", "found", "sentence"), SAID)
def test_no_advice_is_what_was_done_already(table, found, sentence):
    said = advice.said(table, found)
    done = {
        "or step='auto'": found.automatic,
        "compute the gradient in float64": found.precision == "float64" and table is advice.NARROWER,
        "larger than": found.automatic and found.balanced,  # of several steps the best was chosen
        "smaller than": found.automatic,
        "declare the noise": found.declared,
    }
    assert [words for words, already in done.items() if already and words in said] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_case_hears_of_something_that_it_can_do(kind):
    function = kind == "function"
    parts = advice.PARTS if function else advice.PARTS[:-1]
    for part, precision, automatic in itertools.product(parts, ("float64", "float32", "bfloat16"), (True, False)):
        for kinks, declared in [(0, False), (1, False)] + [(0, True)] * function:
            found = wide(part, kinks, kind=kind, automatic=automatic, precision=precision, declared=declared)
            said = advice.said(advice.NARROWER, found)
            assert said
            test_no_advice_is_what_was_done_already(advice.NARROWER, found, said)
            test_functions_hear_nothing_of_what_they_have_not(advice.NARROWER, found, said)


def _known(monkeypatch, check):
    """Return the circumstances of the tensors that a check judges."""
    found = []
    monkeypatch.setattr(coordinator.verdict, "of_tensor", lambda known: found.append(known) or of_tensor(known))
    check()
    return found


@pytest.mark.parametrize(("loss", "balanced"), [("vjp", False), ("square", False), ("relu", True), ("tanh", True)])
def test_steps_are_balanced_where_larger_ones_have_a_price(loss, balanced, monkeypatch):
    made = layer((1, 2, 4, 4), (2, 2, 3, 3))
    grads = {"bias": np.zeros(2)}  # right or wrong, the step is the same
    found = _known(monkeypatch, lambda: fastcheck.check(case(made, loss=loss, grads=grads, output=None)))
    assert [known.balanced for known in found] == [balanced]


def test_steps_of_functions_and_networks_are_balanced(monkeypatch):
    network, params = fastcheck.Network([Dense(2)]), {"dense1.weight": np.eye(2), "dense1.bias": np.zeros(2)}
    found = _known(monkeypatch, lambda: check_gradient(lambda p: float(p @ p), lambda p: 2 * p, X))
    found += _known(monkeypatch, lambda: fastcheck.check_network(network, params, params, np.eye(2), np.arange(2)))
    assert [known.balanced for known in found] == [True] * 3


def test_a_linear_or_quadratic_loss_can_take_a_larger_step():
    made = layer((2, 3, 6, 6), (4, 3, 3, 3))
    x, w, b = operands(made)
    x[0, 0, 0, 0] = 1e18
    z, v, _ = torch_gradients(made, x, w, b)
    grads = {"input": torch_backward(x, w, v * z, **made.arguments)["input"]}
    report = fastcheck.check(fastcheck.ConvCase(x, w, b, grad_output=v, loss="square", grads=grads))
    assert report.verdict == "inconclusive"
    assert "a step larger than" in report.tensors["input"].advice


def test_a_factor_is_one_constant():
    assert outside([2.0, 2.0, 2.0005]).factor == 2.0
    assert np.isnan(outside([2.0, 2.0, 2.1]).factor)
    assert np.isnan(outside([1 + 1e-6, 1 - 1e-6]).factor)
    assert outside([1 + 1e-6] * 3).factor == pytest.approx(1 + 1e-6, rel=1e-9)
    assert np.isnan(outside([2.0]).factor)


def test_digits_are_those_of_all_that_fail():
    """A report keeps the ten worst: of more, every resolved dimension counts."""
    assert outside([1 + 1e-8] * 5 + [1 + 1e-3]).apart == pytest.approx(1e-3, rel=0.01)
    numeric = np.ones(30)
    analytic = numeric * np.where(np.arange(30) < 20, 1 + 1e-6, 1 + 1e-3)
    bar = np.where(np.arange(30) < 20, 1e-12, 1e-4)  # the ten that are apart by more are less severe
    mixed = known(fold(np.arange(30), analytic, numeric, bar), kind="function")
    assert mixed.apart == pytest.approx(1e-3, rel=0.01)
    assert known(folded([1.0], [1.0])).apart == 0


def _advice(loss, grad, params=X, **options):
    (tensor,) = check_gradient(loss, grad, params, **options).tensors.values()
    return tensor


def test_smooth_functions_cross_no_kink():
    """In a few of two hundred the largest part of a bar is that of kinks, and none is crossed."""
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=20)
        tensor = _advice(lambda p: float(p @ p), lambda p: 2 * p, x)
        assert tensor.passed
        assert "kinks crossed" not in tensor.regime
    x = X.copy()
    x[0] = 1e-9  # its differences reach the other side
    kinked = _advice(lambda p: float(np.abs(p).sum()), np.sign, x, step=1e-3)
    assert kinked.kinks > 0
    assert "kinks" in kinked.regime + kinked.advice


def test_a_loss_of_limited_accuracy_is_named_where_all_agree_in_digits():
    wrong = _advice(lambda p: float(p @ p), lambda p: 2 * p * (1 + 1e-2 * np.sign(p)))
    assert wrong.verdict == "fail"
    assert "noise=" not in wrong.advice
    slightly = _advice(lambda p: float(p @ p), lambda p: 2 * p * (1 + 1e-8 * np.sign(p)))
    assert slightly.verdict == "fail"
    assert "to at least 7 digits" in slightly.advice
    assert "noise=" in slightly.advice


def test_a_loss_that_is_visibly_more_accurate_is_not_blamed():
    def one_wrong(p):
        found = 2 * p
        found[3] *= 1 + 1e-5
        return found

    assert "one dimension fails" in _advice(lambda p: float(p @ p), one_wrong).advice
    factor = _advice(lambda p: float(p @ p), lambda p: 2 * p * (1 + 1e-6)).advice
    assert "a wrong or missing factor" in factor
    assert "0.999999" in factor


@pytest.mark.parametrize(
    ("shape", "wrong", "sentence"),
    [
        ((12,), slice(0, 3), "have in common?"),
        ((3, 4), slice(0, 1), "(a row, a column)"),
        ((12,), slice(None), "nearly all dimensions fail"),
        ((3, 2, 2), slice(0, 1), "(a row, a column)"),
    ],
)
def test_indices_are_asked_for_where_they_may_have_something_in_common(shape, wrong, sentence):
    x = X.reshape(shape)

    def grad(p):
        found = 2 * p
        found[wrong] += 0.3 * p[wrong] ** 2
        return found

    tensor = _advice(lambda p: float((p * p).sum()), grad, x)
    assert tensor.verdict == "fail"
    assert sentence in tensor.advice


def test_convolutions_hear_of_filters_and_taps():
    made = case(layer((2, 4, 8, 8), (16, 4, 3, 3), padding=1))
    wrong = np.array(made.grads["weight"])
    wrong[3] *= np.random.default_rng(0).uniform(1.1, 1.5, size=wrong[3].shape)
    tensor = fastcheck.check(case(layer((2, 4, 8, 8), (16, 4, 3, 3), padding=1), grads={"weight": wrong}))
    assert "a filter, a channel, a border tap" in tensor.tensors["weight"].advice
    half = fastcheck.check(
        case(layer((2, 4, 8, 8), (16, 4, 3, 3), padding=1), grads={"weight": 2 * made.grads["weight"]})
    )
    assert "is 0.5 in the worst dimensions: look for a wrong or missing factor" in half.tensors["weight"].advice


def test_what_no_step_can_see_is_not_called_zero():
    tensor = _advice(lambda p: 1e16 + float(p @ p), lambda p: 2 * p)
    assert tensor.verdict == "inconclusive"
    assert "none is distinguishable from zero" in tensor.regime
    assert "step='auto' has balanced the two" in tensor.advice
    zero = _advice(lambda p: 0.0 * float(p @ p), lambda p: 0 * p)
    assert "zero" in zero.regime


@pytest.mark.parametrize("side", [-17.4, 0.0, 17.4])
def test_only_a_kink_in_the_point_itself_is_where_a_dimension_lies(side):
    """One that a large step crosses is beside the point, whose slope is one number."""
    at_kink = _advice(lambda p: 17.4 * float(np.abs(p).sum()), lambda p: np.full(3, side), np.zeros(3))
    assert (at_kink.verdict, at_kink.unresolved, at_kink.at_kink) == ("pass", 3, 3)
    assert "every dimension lies at a kink" in at_kink.regime
    crossed = _advice(lambda p: 17.4 * float(np.abs(p).sum()), lambda p: 17.4 * np.sign(p), X, step=10.0)
    assert (crossed.verdict, crossed.unresolved, crossed.kinks, crossed.at_kink) == ("inconclusive", 12, 12, 0)
    assert "none is distinguishable from zero" in crossed.regime
    layers = layer((2, 3, 6, 6), (4, 3, 3, 3))
    z = case(layers).output
    slope = case(layers).grad_output * (z > 0)
    relu = case(layers, loss="relu", grads={"bias": slope.sum(axis=(0, 2, 3))}, output=None)
    far = fastcheck.check(relu, step=100.0).tensors["bias"]
    assert (far.unresolved, far.kinks, far.at_kink) == (4, 4, 0)
    assert "none is distinguishable from zero" in far.regime


def test_a_pass_counts_what_its_bars_hide():
    scales = np.array([1.0, 1e-20, 2.0, 0.0])
    tensor = _advice(lambda p: float(scales @ p), scales, np.ones(4))
    assert tensor.passed
    assert tensor.unresolved == 2
    assert "(1 not zero, but no larger than their error bars)" in tensor.reason
    zeros = np.where(scales > 1e-9, scales, 0.0)
    dead = _advice(lambda p: float(zeros @ p), zeros, np.ones(4))
    assert (dead.unresolved, dead.reason) == (2, "all 4 lie within what the arithmetic can explain")


@pytest.mark.parametrize(
    ("blinding", "values", "reason"),
    [
        (
            None,
            [0.0, 0.0],
            "2 of 2 lie within error bars of up to 9 (around zero), too wide to tell right from wrong",
        ),
        (
            None,
            [50.0, 3.0],
            "2 of 2 lie within error bars of up to 9 (0.2 times the value itself), too wide to tell",
        ),
        (
            health.nothing_to_gain(0.0, True),
            [0.0, 0.0],
            "no value is distinguishable from zero, since the loss is 0 and the",
        ),
        (
            health.nothing_to_gain(1e-30, False),
            [0.0, 3.0],
            "zero, since the loss is 1e-30 and there is nothing left to gain",
        ),
        (
            health.no_variance("norm1 (all 3 channels)", True, ["w"]),
            [50.0, 3.0],
            "2 of 2 lie within error bars of up to 9 (0.2 times the value itself), since the variance is zero but for "
            "rounding in norm1 (all 3 channels), since all data points are equal",
        ),
    ],
)
def test_a_point_that_shows_nothing_is_the_reason_and_not_its_bars(blinding, values, reason):
    tally = fold(np.arange(2), np.array(values), np.array(values), np.full(2, 9.0), np.full(2, True))
    judged = of_tensor(known(tally, shape=(2,), blinding=blinding))
    assert judged.verdict == "inconclusive"
    assert reason in judged.reason
    narrow = fold(np.arange(2), np.array(values), np.array(values), np.full(2, 9.0))
    assert of_tensor(
        known(narrow, shape=(2,), blinding=blinding)
    ).reason == "all 2 lie within what the arithmetic can explain" + (
        f" ({narrow.hidden} not zero, but no larger than their error bars)" * bool(narrow.hidden)
    )


@pytest.mark.parametrize(
    ("shape", "more", "reason"),
    [
        ((2,), {}, "all 2 lie within what the arithmetic can explain"),
        (
            (108,),
            {"sampled": True},
            "all 2 checked of 108 lie within what the arithmetic can explain; had 84 or more been",
        ),
        ((108,), {"sampled": False}, "all 2 checked of 108 lie within what the arithmetic can explain"),  # interrupted
    ],
)
def test_a_pass_says_of_how_many(shape, more, reason):
    judged = of_tensor(known(folded([1, 2], [1, 2]), shape=shape, **more))
    assert judged.verdict == "pass"
    assert judged.reason.startswith(reason)
    assert ("been wrong" in judged.reason) == more.get("sampled", False)


def test_a_longer_run_is_not_advised_where_nothing_was_checked():
    """Too few dimensions were asked for, or the check was interrupted: that is not known here."""
    nothing = of_tensor(known(Tally()))
    assert (nothing.verdict, nothing.reason, nothing.advice) == ("inconclusive", "no dimension was checked", "")
    assert of_tensor(outside(UNLIKE)).advice
