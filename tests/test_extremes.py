"""Operands at the ends of float64: a correct gradient never fails, a wrong one does where it can be told, and nothing
but a line is raised."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastcheck
from fastcheck import FastcheckError, Network
from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.networks.layers import Dense, ReLU
from fastcheck.reports.reader import from_json

pytestmark = pytest.mark.jit  # as Python, NumPy warns of overflow

EXPONENTS = (-1074, -520, 0, 520, 1020)
EVALUATORS = ("delta", "local", "full")
DEGREE = {"vjp": 1, "square": 2, "relu": 1}
SLOPE = {"vjp": np.ones_like, "square": lambda z: z, "relu": lambda z: (z > 0).astype(float)}


def _integers(loss, seed=0):
    """Operands that any power of two scales exactly, 2^-1074 among them, and their exact gradients."""
    rng = np.random.default_rng(seed)
    x, w, b = (rng.integers(1, 8, shape) * rng.choice([-1.0, 1.0], shape) for shape in ((2, 2, 5), (3, 2, 2), 3))
    v = rng.integers(1, 8, (2, 3, 4)) * 1.0
    geometry = ConvGeometry.of(x.shape, w.shape)
    with ThreadPoolExecutor(1) as pool:
        z = passes.convolve(geometry, x, w, np.zeros(3), pool)
        grads = passes.backward(geometry, x, w, v * SLOPE[loss](z), pool)
    return x, w, b, v, grads


def _is_a_line(error):
    assert "\n" not in str(error)


def _checked(case, **options):
    """The report of a check, read back; None where it is refused in a line."""
    try:
        report = fastcheck.check(case, dims="all", threads=1, **options)
    except FastcheckError as error:
        return _is_a_line(error)
    assert from_json(report.to_json()).to_dict() == report.to_dict()
    return report


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("loss", DEGREE)
def test_a_power_of_two_changes_no_verdict(loss, evaluator):
    x, w, _, v, grads = _integers(loss)
    judged = 0
    for a, b, c in itertools.product(EXPONENTS, repeat=3):
        exponents = {name: c + DEGREE[loss] * (a + b) - own for name, own in (("input", a), ("weight", b))}
        if max(exponents.values()) > 1000:
            continue  # the gradients overflow
        scaled = {name: np.ldexp(grads[name], exponent) for name, exponent in exponents.items()}
        operands = {"input": np.ldexp(x, a), "weight": np.ldexp(w, b), "grad_output": np.ldexp(v, c), "loss": loss}
        report = _checked(fastcheck.ConvCase(**operands, grads=scaled), evaluator=evaluator)
        assert report, ((a, b, c), report and report.summary())
        if min(exponents.values()) > -1000:
            wrong = {name: grad * (1 + 1e-6) for name, grad in scaled.items()}
            assert _checked(fastcheck.ConvCase(**operands, grads=wrong), evaluator=evaluator).verdict == "fail"
            judged += 1
    assert judged > 20


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("loss", ["vjp", "relu", "square", "tanh"])
def test_mixtures_of_extremes_never_fail(loss, evaluator):
    """Where no output moves but by what the bias hides, a zero gradient is right as far as can be told."""
    tiny, huge = 5e-324, 1.7e308
    x, w = np.zeros((1, 1, 4)), np.zeros((1, 1, 2))
    x[0, 0, 1], w[0, 0, 0] = tiny, huge
    one, none = np.ones((1, 1, 3)), np.zeros((1, 1, 3))
    for operand, weight, bias, cotangent in (
        (x, np.ones_like(w), tiny, one),
        (x, w, 0.0, one),
        (x, w, 1e-308, none),
        (np.ones_like(x), w, 1e300, one * 1e-310),
        (x * 0, w * 0, huge, one),
        (x, w * 0 + tiny, 1e-160, one * huge),
    ):
        z = np.stack([operand[0, 0, i : i + 3] for i in (0, 1)], -1) @ weight[0, 0] + bias
        with np.errstate(over="ignore", invalid="ignore"):
            slope = {"vjp": 1 + 0 * z, "relu": z > 0, "square": z, "tanh": 1 - np.tanh(z) ** 2}[loss]
            grads = {"bias": (cotangent[0, 0] * slope).sum(keepdims=True)}
        case = fastcheck.ConvCase(operand, weight, np.array([bias]), loss=loss, grad_output=cotangent, grads=grads)
        report = _checked(case, evaluator=evaluator)
        if np.isfinite(grads["bias"]).all():
            assert report is None or report.verdict in ("pass", "inconclusive"), report.summary()
        try:
            found = fastcheck.sweep(case, evaluator=evaluator, threads=1)
        except FastcheckError as error:
            _is_a_line(error)
        else:
            assert found or not np.isfinite(grads["bias"]).all()


def test_what_a_scale_loses_is_not_judged():
    """An entry that is nothing beside the largest vanishes where that is brought to one: its bar says so."""
    v = np.array([[[1e300, 1e-310, -1e-310]]])
    grads = {"input": v[..., :1].repeat(3, -1) * 0 + v}
    case = fastcheck.ConvCase(np.ones((1, 1, 3)), np.ones((1, 1, 1)), grad_output=v, grads=grads)
    for evaluator in EVALUATORS:
        assert _checked(case, evaluator=evaluator).verdict == "pass"
    wrong = fastcheck.ConvCase(np.ones((1, 1, 3)), np.ones((1, 1, 1)), grad_output=v, grads={"input": 1.5 * v})
    assert _checked(wrong).verdict == "fail"


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("other", [5e-324, 1e-160, 1.0])
def test_functions_of_any_scale(size, other):
    x, c = np.array([1.0, -0.5, 0.25]) * size, np.array([1.0, 2.0, -1.0]) * other
    report = fastcheck.check_gradient(lambda p: float(c @ p), c, x)
    assert report.verdict in ("pass", "inconclusive"), report.summary()
    assert from_json(report.to_json()).to_dict() == report.to_dict()


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e300, 1.7e308])
def test_comparisons_of_any_scale(size):
    a = np.array([1.0, -1.0, 0.0]) * size
    report = fastcheck.compare(a, a)
    assert report, report.summary()
    assert from_json(report.to_json()).to_dict() == report.to_dict()
    assert fastcheck.compare(a, -a).verdict == "fail"


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-160, 1e160, 1.7e308])
@pytest.mark.parametrize("where", ["x", "dense1.weight", "dense2.weight", "dense1.bias"])
def test_networks_of_any_scale(where, size, loss):
    network = Network([Dense(3), ReLU(), Dense(2)], loss=loss)
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in network.parameter_shapes((3,)).items()}
    x = rng.normal(size=(4, 3))
    y = np.array([0, 1, 0, 1]) if loss == "softmax_cross_entropy" else rng.normal(size=(4, 2))
    arrays = params | {"x": x}
    arrays[where] = np.sign(arrays[where]) * size
    x = arrays.pop("x")
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    try:
        report = fastcheck.check_network(network, arrays, zeros, x, y, dims="all", threads=1)
    except FastcheckError as error:
        _is_a_line(error)
        refused = True
    else:
        refused = False
        assert from_json(report.to_json()).to_dict() == report.to_dict()
        assert report.verdict == "fail"  # the gradient of the last bias is not zero
    assert refused == (size > 1)


def test_one_subnormal_among_zeros_is_checked_and_swept():
    """Scaled to one, it would take steps of a tenth beyond float64."""
    x, v = np.zeros((1, 1, 4)), np.ones((1, 1, 3))
    x[0, 0, 1] = 5e-324
    grads = {"input": np.array([[[2.0, 5.0, 5.0, 3.0]]]), "weight": np.array([[[5e-324, 5e-324]]])}
    made, wrong = (
        fastcheck.ConvCase(x, np.array([[[2.0, 3.0]]]), grad_output=v, grads=grads | {"input": factor * grads["input"]})
        for factor in (1, 1.001)
    )
    assert fastcheck.check(made).passed
    assert fastcheck.sweep(made).passed
    assert fastcheck.check(wrong).verdict == "fail"
    assert not fastcheck.sweep(wrong).passed
