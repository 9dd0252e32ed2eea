"""Verdicts on functions that are hard to difference: right gradients pass, and no wrong one passes as judged."""

import math

import numpy as np
import pytest
from hard_functions import FAMILIES, draw, mistaken, planted
from random_functions import Counted
from searches import examples

from fastcheck import FastcheckError, check_gradient

RNG = np.random.default_rng(1717)


def _wrong(grad, dim, factor):
    wrong = np.array(grad, dtype=float)
    wrong.flat[dim] *= factor
    return wrong


def _checked(function, grad):
    return check_gradient(function.loss, grad, function.params, keep=True, **function.options)


@pytest.mark.search
@pytest.mark.parametrize("family", FAMILIES)
def test_right_gradients_of_a_family_pass_and_wrong_ones_are_found(family):
    """`bench/black_box_false_alarms.py` does the same with many more."""
    passed, count = 0, examples(30) // 3
    for seed in range(count):
        function = draw(family, 40_000 + seed)
        right = _checked(function, function.given)
        assert right.verdict != "fail", (function.described, right.summary())
        passed += right.passed or bool(function.undecidable)
        rng = np.random.default_rng(seed)
        for error in ("one entry by 1e-6", "one entry by 1 %", "one entry's sign"):
            wrong = planted(function, error, rng)
            if wrong is not None:
                report = _checked(function, wrong.grad)
                assert not report.passed or _is_counted(right, report, wrong), (function.described, error)
        for mistake in function.mistakes:
            report = _checked(function, mistaken(function, mistake).grad)
            assert not report.passed or _subgradients(report), (function.described, mistake, report.summary())
    assert passed >= 0.9 * count


def _subgradients(report):
    return sum(tensor.subgradients for tensor in report.tensors.values())


def _is_counted(right, report, wrong):
    """Whether errors that passed lie inside the bars, of values that are resolved or counted as unresolved."""
    for name, places in wrong.places.items():
        tensor, here = report.tensors[name], np.flatnonzero(places)
        error = np.abs(tensor.analytic - tensor.numeric)[here]
        inside = error <= right.tensors[name].error_bar[here]
        hidden = np.abs(right.tensors[name].analytic[here]) <= tensor.error_bar[here]
        if not inside.all() or (hidden.any() and not tensor.unresolved + tensor.undecided + tensor.subgradients):
            return False
    return True


@pytest.mark.parametrize("ratio", [32.0, 3e6, 1e8, 1e12, 1e20, 1e100])
def test_entries_of_a_reciprocal_size_are_judged_alike(ratio):
    s = np.array([ratio, 1 / ratio])
    x = np.array([1.3, 0.7]) / s

    def loss(x):
        a, b = s * x
        return float(np.sin(a) + a * b * b)

    def grad(x):
        a, b = s * x
        return s * np.array([math.cos(a) + b * b, 2 * a * b])

    assert check_gradient(loss, grad, x).passed
    for dim in (0, 1):
        for factor in (1 + 1e-6, 1.01, -1, 0, 10):
            report = check_gradient(loss, _wrong(grad(x), dim, factor), x)
            assert report.tensors["params"].first_beyond == (dim,), report.summary()


def test_entries_that_matter_alike_over_24_decades():
    s = 10.0 ** np.linspace(-12, 12, 9)
    x = RNG.normal(size=9) / s
    right = check_gradient(lambda x: float(((s * x) ** 2).sum() / 2), s * s * x, x)
    assert right.passed
    for dim in range(9):
        for factor in (1.01, -1, 10):
            report = check_gradient(lambda x: float(((s * x) ** 2).sum() / 2), _wrong(s * s * x, dim, factor), x)
            assert report.tensors["params"].first_beyond == (dim,), report.summary()


def test_entries_that_no_difference_can_see_are_counted():
    """Slopes from 1e-24 to 1e24: those below 1e8, say, are nothing beside the rounding of the loss."""
    s = 10.0 ** np.linspace(-12, 12, 9)
    x = RNG.normal(size=9)
    x[0] = 1.0

    def loss(x):
        return float(((s * x) ** 2).sum() / 2)

    report = check_gradient(loss, s * s * x, x, keep=True)
    assert report.passed
    tensor = report.tensors["params"]
    hidden = int(np.count_nonzero(tensor.error_bar > np.abs(tensor.analytic)))
    assert hidden == tensor.unresolved >= 4
    assert f"{hidden} not zero, but no larger than their error bars" in tensor.reason
    for dim in (7, 8):
        assert check_gradient(loss, _wrong(s * s * x, dim, 1.01), x).tensors["params"].first_beyond == (dim,)


def test_zeros_and_tiny_weights_among_others():
    """An entry of 1e-12 beside ones of 1 may be small by accident: it is moved as far as they are, if need be."""
    a = RNG.normal(size=(6, 4))
    x = np.array([1.0, 1e-12, 0.0, -0.7])

    def loss(x):
        return float(np.tanh(a @ x).sum())

    def grad(x):
        return a.T @ (1 - np.tanh(a @ x) ** 2)

    report = check_gradient(loss, grad, x, keep=True)
    assert report.passed
    tensor = report.tensors["params"]
    assert (tensor.error_bar < 1e-9 * np.abs(tensor.analytic)).all()
    for dim in range(4):
        assert not check_gradient(loss, _wrong(grad(x), dim, 1 + 1e-6), x).passed


def test_no_entry_is_moved_beyond_zero_for_the_sake_of_larger_ones():
    x = np.array([1.6, 1.1, 7.1, 0.02])
    counted = Counted(lambda x: float(np.log(np.abs(x)).sum()))
    assert check_gradient(counted, 1 / x, x).passed
    assert min((p / x).min() for p in counted.arguments) >= 0


def _covariance(p, distances):
    wave = np.sin(np.pi * distances / p[2])
    return p[0] * np.exp(-2 * (wave / p[1]) ** 2) + p[3] * np.eye(len(distances))


def _process(raises):
    """Return (loss, grad, params) of a Gaussian process with a periodic kernel."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.uniform(0, 10, 25))
    y, distances = np.sin(t) + 0.1 * rng.normal(size=25), np.abs(np.subtract.outer(t, t))

    def loss(p):
        try:
            factor = np.linalg.cholesky(_covariance(p, distances))
        except np.linalg.LinAlgError:
            if raises:
                raise
            return math.nan
        return float(0.5 * np.sum(np.linalg.solve(factor, y) ** 2) + np.log(np.diag(factor)).sum())

    def grad(p):
        k, wave = _covariance(p, distances) - p[3] * np.eye(25), np.sin(np.pi * distances / p[2])
        inverse = np.linalg.inv(_covariance(p, distances))
        phase = np.pi * distances / p[2]
        a = inverse @ y
        parts = (k / p[0], k * 4 * wave**2 / p[1] ** 3, k * 4 * wave * np.cos(phase) * phase / (p[1] ** 2 * p[2]))
        return np.array([0.5 * np.trace(inverse @ part) - 0.5 * a @ part @ a for part in (*parts, np.eye(25))])

    return loss, grad, np.array([1.6, 1.1, 7.1, 0.02])


@pytest.mark.parametrize("raises", [True, False])
def test_an_exception_is_what_nan_is(raises):
    loss, grad, p = _process(raises)
    assert check_gradient(loss, grad, p).passed
    for dim in range(4):
        assert check_gradient(loss, _wrong(grad(p), dim, 1.001), p).tensors["params"].first_beyond == (dim,)


def test_a_logarithm_that_raises_passes_as_one_that_does_not():
    x = np.array([0.5, 1e-9, 2.0])
    for loss in (lambda x: float(np.log(x).sum()), lambda x: sum(map(math.log, x))):
        assert check_gradient(loss, lambda x: 1 / x, x).passed
        assert not check_gradient(loss, lambda x: 1.01 / x, x).passed


def test_a_loss_that_raises_on_every_side_is_refused_with_its_cause():
    def loss(x):
        if x[0] != 0.5:
            raise ZeroDivisionError("no neighbours")
        return float(x.sum())

    with pytest.raises(
        FastcheckError, match=r"loss is not finite around params .*ZeroDivisionError.*: no neigh"
    ) as told:
        check_gradient(loss, np.ones(2), np.array([0.5, 1.0]))
    assert isinstance(told.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("condition", [1e3, 1e7, 1e10, 1e11])
def test_the_logarithm_of_a_nearly_singular_determinant(condition):
    """Its own scale is the smallest eigenvalue: larger steps see a smooth function that is another one."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        a = q @ np.diag(np.geomspace(1, 1 / condition, 5)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]

        def loss(a):
            return float(np.linalg.slogdet(a)[1])

        def grad(a):
            return np.linalg.inv(a).T

        report = check_gradient(loss, grad, a)
        assert report.passed, report.summary()
        for wrong in (-grad(a), 1.05 * grad(a), _wrong(grad(a), 7, -1)):
            assert check_gradient(loss, wrong, a).verdict == "fail"


@pytest.mark.parametrize("speed", [1e4, 1e6, 1e8, 1e10])
def test_a_wave_far_smaller_than_the_entry_is_seen(speed):
    x = RNG.normal(size=3)
    x = x + 0.1 * np.sign(x)

    def loss(x):
        return float((x * x).sum() + np.sin(speed * x).sum() / speed)

    right = check_gradient(loss, lambda x: 2 * x + np.cos(speed * x), x)
    assert right.verdict != "fail", right.summary()
    assert right.passed or speed > 1e8
    assert not check_gradient(loss, 2 * x, x).passed


@pytest.mark.parametrize("distance", [1e-9, 3e-10, 1e-10, 1e-11, 1e-12])
def test_a_kink_near_the_point_is_not_at_it(distance):
    x = np.array([0.7, 1.0])

    def loss(p):
        return float(2 * np.maximum(p - x * (1 + distance), 0).sum() + np.sin(p).sum())

    right = check_gradient(loss, np.cos, x)
    assert right.passed or (right.verdict == "inconclusive" and distance < 1e-11), right.summary()
    assert right.tensors["params"].subgradients == 0
    for slope in (0.5, 1.0, 2.0):
        assert check_gradient(loss, np.cos(x) + np.array([slope, 0]), x).verdict == "fail"


def test_waves_of_many_entries_are_seen_in_every_one():
    """Where a cosine is nearly zero its quotients look alike at many steps: all begin where the pilots ended."""
    for seed in range(4):
        x = np.random.default_rng(7000 + seed).normal(size=20)
        report = check_gradient(
            lambda x: float((x**2 + np.sin(1e10 * x) / 1e10).sum()), lambda x: 2 * x + np.cos(1e10 * x), x
        )
        assert report.verdict != "fail", report.summary()


def test_chaos_is_not_taken_for_a_slope():
    def run(p):
        x, slopes = p[1], np.array([0.0, 1.0])
        for _ in range(50):
            slopes = np.array([x * (1 - x), 0]) + p[0] * (1 - 2 * x) * slopes
            x = p[0] * x * (1 - x)
        return x, slopes

    for seed in range(4):
        p = np.random.default_rng(seed).uniform([3.9, 0.2], [3.95, 0.7])
        report = check_gradient(lambda p: float(run(p)[0]), lambda p: run(p)[1], p)
        assert report.verdict == "inconclusive", report.summary()


@pytest.mark.parametrize("penalty", [1e30, 1e100, 1e300, math.inf])
def test_a_finite_penalty_outside_the_domain_hides_nothing(penalty):
    x = np.array([0.0, 3, 1e-4])

    def loss(x):
        return float(np.sqrt(x + 1).sum()) if x.min() > -1e-3 else penalty

    right = 0.5 / np.sqrt(x + 1)
    assert check_gradient(loss, right, x).passed
    for wrong in (_wrong(right, 0, -1), _wrong(right, 0, 1.01)):
        assert check_gradient(loss, wrong, x).tensors["params"].first_beyond == (0,)


@pytest.mark.parametrize("distance", [0.01, 0.02, 0.03, 0.05, 0.06])
def test_a_flat_loss_with_a_kink_further_off(distance):
    """Dead units and satisfied margins: the kink is no noise."""
    x = np.ones(2)
    right = check_gradient(lambda p: float(np.maximum(p - 1 - distance, 0).sum()), np.zeros(2), x)
    assert right.passed
    assert [finding.name for finding in right.health] == ["nothing was shown"]
    assert not check_gradient(lambda p: float(np.maximum(p - 1 - distance, 0).sum()), np.array([0.5, 0]), x).passed


@pytest.mark.parametrize("scale", [1e-4, 1e-5])
def test_a_loss_in_float32_beside_a_constant_is_not_flat(scale):
    """It is the same number wherever it is sampled, and wherever its argument moves a little."""
    x = np.random.default_rng(0).normal(size=4)

    def loss(x):
        return float(np.float32(1) + np.float32(scale) * np.float32(np.sin(x.astype(np.float32)).sum()))

    right = check_gradient(loss, lambda x: scale * np.cos(x), x)
    assert right.verdict == "inconclusive"
    assert not check_gradient(loss, np.zeros(4), x).passed


def test_a_zero_beside_an_entry_with_a_gradient_of_1e20():
    x = np.array([1e-20, 1.0, 0.0])

    def loss(x):
        return float(np.sin(1e20 * x[0]) + x[1] ** 2 + np.sin(x[2]))

    right = np.array([1e20 * np.cos(1.0), 2.0, 1.0])
    assert check_gradient(loss, right, x).passed
    for dim in range(3):
        assert check_gradient(loss, _wrong(right, dim, 1 + 1e-6), x).tensors["params"].first_beyond == (dim,)


def test_a_loss_in_long_double_is_a_number():
    assert check_gradient(lambda x: np.longdouble(x @ x), lambda x: 2 * x, np.ones(3)).passed


def test_flat_losses_have_narrow_bars():
    x = np.array([0.3, 1.7, -0.4])
    quartic = check_gradient(lambda p: 1 + float(((p - x) ** 4).sum()), lambda p: 4 * (p - x) ** 3, x, keep=True)
    stairs = check_gradient(lambda p: float(np.floor(p).sum()), np.zeros_like, x + 0.1, keep=True)
    for report in (quartic, stairs):
        assert report.passed, report.summary()
        assert report.tensors["params"].error_bar.max() < 1e-8
    assert check_gradient(lambda p: float(np.floor(p).sum()), np.ones_like, x + 0.1).verdict == "fail"
    assert check_gradient(lambda p: 1 + float(((p - x) ** 4).sum()), np.full(3, 1e-6), x).verdict == "fail"


@pytest.mark.parametrize("scale", [1e-200, 1e-300, 1e-310])
def test_a_tiny_quadratic_wrong_by_a_per_cent_fails(scale):
    x = RNG.normal(size=4)
    assert check_gradient(lambda x: scale * float(x @ x), 2 * scale * x, x).passed
    assert check_gradient(lambda x: scale * float(x @ x), 2.02 * scale * x, x).verdict == "fail"


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("as_array", [False, True])
def test_gradients_in_half_precision(kind, as_array):
    """Every operation rounded to the type, as in a kernel of NumPy's float16, or a bfloat16 one."""

    def rounded(values):
        if kind == "float16":
            return np.asarray(values).astype(np.float16).astype(float)
        fraction, exponent = np.frexp(values)
        return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)

    passed = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, v, w = rounded(rng.normal(size=(8, 4))), rounded(rng.normal(size=8)), rounded(rng.normal(size=4))

        def loss(w, x=x, v=v):
            return float(v @ np.tanh(x @ w))

        def grad(w, x=x, v=v):
            z = rounded((rounded(x * rounded(w))).sum(1))
            slopes = rounded(1 - rounded(rounded(np.tanh(z)) ** 2))
            return rounded((rounded(x.T * rounded(v * slopes))).sum(1))

        given = grad(w) if as_array else grad
        right = check_gradient(loss, given, w, precision=kind)
        assert right.verdict != "fail", right.summary()
        passed += right.passed
        wrong = check_gradient(loss, _wrong(grad(w), np.abs(grad(w)).argmax(), -1), w, precision=kind)
        assert wrong.verdict == "fail", wrong.summary()
    assert passed >= 3


def test_an_unknown_precision_is_refused():
    with pytest.raises(FastcheckError, match=r"precision is 'float8'.*expected one of float64"):
        check_gradient(lambda x: float(x @ x), lambda x: 2 * x, np.ones(2), precision="float8")
    for name in ("noise", "relative_noise"):
        with pytest.raises(FastcheckError, match=f"{name} is -1: expected a positive finite number"):
            check_gradient(lambda x: float(x @ x), lambda x: 2 * x, np.ones(2), **{name: -1})


def test_a_small_error_is_not_hidden_by_a_second_opinion():
    """Smaller steps have wider bars: an error inside of these alone is found by the first."""
    x, v = RNG.normal(size=(20, 6)), RNG.normal(size=20)
    w = RNG.normal(size=6)
    right = v @ ((1 - np.tanh(x @ w) ** 2)[:, None] * x)
    bars = check_gradient(lambda w: float(v @ np.tanh(x @ w)), right, w, keep=True).tensors["params"].error_bar
    for dim in range(6):
        wrong = right.copy()
        wrong[dim] += 3 * bars[dim]
        report = check_gradient(lambda w: float(v @ np.tanh(x @ w)), wrong, w)
        assert report.tensors["params"].first_beyond == (dim,), report.summary()
