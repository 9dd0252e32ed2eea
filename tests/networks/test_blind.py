"""Points that show nothing of a network's code: it is the point that is the reason, and other points are the advice."""

import network_examples
import numpy as np
import pytest
import torch_network

import fastcheck
from fastcheck import Network
from fastcheck.common.precision import UNITS
from fastcheck.networks import blind as network_blind
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.layers import BatchNorm, Conv, Dense, Flatten, LayerNorm, ReLU, Tanh
from fastcheck.networks.passes import Passes

pytestmark = pytest.mark.jit

X, Y = np.random.default_rng(1).normal(size=(4, 6)), np.array([0, 1, 2, 1])


def _panel(report):
    return {line.topic: line for line in report.hygiene}


def _scaled(size):
    """Parameters of three outputs that are right about three data points, as far as they are apart."""
    return {"dense1.weight": size * (2 * np.eye(3) - 1), "dense1.bias": np.zeros(3)}


NOTHING_TO_GAIN = {
    "softmax": ("softmax_cross_entropy", _scaled(400.0), np.arange(3), "the loss is 0 and the softmax is saturated"),
    "softmax, hardly": ("softmax_cross_entropy", _scaled(15.0), np.arange(3), "and the softmax is saturated"),
    "hinge": ("multiclass_hinge", _scaled(2.0), np.arange(3), "the loss is 0 and there is nothing left to gain"),
    "logistic": ("logistic", _scaled(800.0), np.eye(3), "the loss is 0 and there is nothing left to gain"),
    "squared error": ("squared_error", _scaled(1.0), 2 * np.eye(3) - 1, "the loss is 0 and there is nothing"),
    "zeros": ("squared_error", _scaled(0.0), np.zeros((3, 3)), "the loss is 0 and there is nothing left to gain"),
}


@pytest.mark.parametrize("step", ["auto", 1e-3])
@pytest.mark.parametrize("name", NOTHING_TO_GAIN)
def test_a_loss_with_nothing_to_gain_is_the_reason(name, step):
    loss, params, y, told = NOTHING_TO_GAIN[name]
    network, x = Network([Dense(3)], loss=loss), np.eye(3)
    grads = torch_network.gradients(network, params, x, y)[1]
    report = fastcheck.check_network(network, params, grads, x, y, step=step)
    assert report.verdict == "inconclusive"
    for tensor in report.tensors.values():
        assert told in tensor.reason
        assert "too wide" not in tensor.reason
        assert "that the network still gets wrong" in tensor.advice
    if name != "softmax, hardly":  # some of its values have a digit or two
        line = _panel(report)["vanishing gradients"]
        assert (line.status, told in line.text, "a wrong one would look right" in line.text) == ("warn", True, True)


@pytest.mark.parametrize("factor", [1.0, 1.1])
@pytest.mark.parametrize(
    ("loss", "params", "y"),
    [
        ("softmax_cross_entropy", _scaled(8.0), np.arange(3)),
        ("logistic", _scaled(15.0), np.eye(3)),
        ("squared_error", _scaled(1e-8), np.zeros((3, 3))),
        ("squared_error", _scaled(1.0), (2 - 1e-9) * np.eye(3) - 1),
    ],
)
def test_small_gradients_that_can_be_judged_do_not_vanish(loss, params, y, factor):
    """Cotangents of 1e-8 have eight digits, and where all numbers are as small they have all."""
    network, x = Network([Dense(3, bias=False)], loss=loss), np.eye(3)
    params = {"dense1.weight": params["dense1.weight"]}
    grads = torch_network.gradients(network, params, x, y)[1]
    grads = {"dense1.weight": factor * grads["dense1.weight"]}
    report = fastcheck.check_network(network, params, grads, x, y)
    assert report.verdict == ("pass" if factor == 1 else "fail")
    assert "vanishing gradients" not in _panel(report)


def test_a_wrong_gradient_that_fails_where_the_loss_has_nothing_to_gain_does_not_look_right():
    network, x = Network([Dense(3)]), np.eye(3)
    grads = {name: np.full_like(array, 0.1) for name, array in _scaled(400.0).items()}
    report = fastcheck.check_network(network, _scaled(400.0), grads, x, np.arange(3))
    assert report.verdict == "fail"
    assert "vanishing gradients" not in _panel(report)


def test_a_step_that_is_too_small_is_not_a_loss_with_nothing_to_gain():
    network = Network([Dense(3)], loss="squared_error")
    params = {
        name: 1e-8 * array
        for name, array in network_examples.parameters(network, (6,), np.random.default_rng(0)).items()
    }
    y = 1e-8 * np.random.default_rng(2).normal(size=(4, 3))
    grads = torch_network.gradients(network, params, X, y)[1]
    report = fastcheck.check_network(network, params, grads, X, y, step=1e-23)
    assert report.verdict == "inconclusive"
    assert all("too wide to tell" in tensor.reason for tensor in report.tensors.values())


NORMED = [Dense(5), BatchNorm(), Tanh(), Dense(3)]
MAPS = [Conv(3, 3), BatchNorm(), ReLU(), Flatten(), Dense(3)]
SHOWN = np.random.default_rng(3).normal(size=(4, 1, 5, 5))
EQUAL = "the variance is zero but for rounding in batch_norm1 (all {} channels), since all data points are equal"


def _zero(name, place):
    return lambda params: params[name].__setitem__(place, 0.0)


def _same(params):
    pass


STATISTICS = {
    "equal points": (
        NORMED,
        np.tile(X[:1], (4, 1)),
        _same,
        EQUAL.format(5),
        "dense1.weight, dense1.bias, batch_norm1.weight",
    ),
    "nearly equal points": (
        *(NORMED, np.tile(X[:1], (4, 1)) * (1 + 1e-16 * X), _same),
        *("in batch_norm1 (all 5 channels): eps alone", "dense1.weight, dense1.bias, batch_norm1.weight"),
    ),
    "a constant image": (
        MAPS,
        np.full((4, 1, 5, 5), 0.7),
        _same,
        EQUAL.format(3),
        "conv1.weight, conv1.bias, batch_norm1.weight",
    ),
    "zero weights": (
        MAPS,
        SHOWN,
        _zero("conv1.weight", ...),
        "in batch_norm1 (all 3 channels): eps",
        "conv1.bias, batch_norm1.weight are",
    ),
    "a zero filter": (
        MAPS,
        SHOWN,
        _zero("conv1.weight", 1),
        "in batch_norm1 (channel 1): eps",
        "of conv1.bias are zero",
    ),
    "a constant image in a layer normalisation": (
        *([LayerNorm(), *MAPS[:1], *MAPS[2:]], SHOWN * np.array([1, 1, 0, 1]).reshape(4, 1, 1, 1), _same),
        *("in layer_norm1 (1 of 4 data points): eps", "eps alone decides there. Use"),
    ),
    "images with a border": ([Conv(3, 3, padding=1), *MAPS[1:]], np.full((4, 1, 5, 5), 0.7), _same, "", ""),
    "points that differ": (NORMED, X, _same, "", ""),
    "points that differ a little": (NORMED, np.tile(X[:1], (4, 1)) + 1e-9 * X, _same, "", ""),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_one_value_are_told(name):
    layers, x, change, where, tensors = STATISTICS[name]
    network = Network(layers)
    params = network_examples.parameters(network, x.shape[1:], np.random.default_rng(0))
    change(params)
    grads = torch_network.gradients(network, params, x, Y)[1]
    panel = _panel(fastcheck.check_network(network, params, grads, x, Y))
    if not where:
        assert "statistics" not in panel
        return
    line = panel["statistics"]
    assert line.status == "warn"
    assert where in line.text
    assert tensors in line.text
    assert line.text.endswith(
        "Use data points that differ" if "all data points" in where else "Use other data points or parameters"
    )


def test_what_statistics_make_zero_is_zero():
    """All of a tensor, and in every dtype's own rounding."""
    network, x = Network(NORMED), np.tile(X[:1], (4, 1)) + 1e-9 * X
    params = network_examples.parameters(network, (6,), np.random.default_rng(0))
    for dtype, blind in ((np.float64, False), (np.float32, True)):
        grads = torch_network.gradients(network, params, x, Y)[1]
        case = NetworkCase.of(network, params, {name: array.astype(dtype) for name, array in grads.items()}, x, Y)
        baseline, unit = Baseline.of(Passes(case.point), 0), UNITS[np.dtype(dtype).name]
        found = {name for name in params if network_blind.blinding(baseline, name, unit) is not None}
        assert found == (
            {"dense1.bias", "batch_norm1.weight"} | ({"dense1.weight"} if blind else set()) if blind else set()
        )


@pytest.mark.parametrize(("name", "noise"), [("dense1.bias", True), ("dense2.bias", False)])
def test_digits_of_noise_are_not_explained(name, noise):
    """A normalisation takes the bias before it away, and what is left is rounding."""
    network = Network(NORMED)
    params = network_examples.parameters(network, (6,), np.random.default_rng(0))
    grads = torch_network.gradients(network, params, X, Y)[1]
    grads["dense1.bias"] = np.full(5, 1e-17)
    report = fastcheck.check_network(network, params, grads, X, Y, only=[name], explain=True)
    assert report.explanations
    for one in report.explanations:
        start = f"Neither value of {name}{list(one.index)} exceeds its error bar, "
        assert one.words.startswith(start) == noise
        assert ("either the derivative is zero" in one.words) == noise
        assert "or a larger step" not in one.words


def test_equal_data_points_are_told_without_statistics_too():
    network = Network([Dense(5), Tanh(), Dense(3)])
    params = network_examples.parameters(network, (6,), np.random.default_rng(0))
    equal, one = "all are identical", "the only one that was given"
    for x, status, words in ((np.tile(X[:1], (4, 1)), "warn", equal), (X, "done", ""), (X[:1], "warn", one)):
        y = Y[: len(x)]
        report = fastcheck.check_network(network, params, torch_network.gradients(network, params, x, y)[1], x, y)
        line = _panel(report)["data points"]
        assert line.status == status
        assert [said for said in (equal, one) if said in line.text] == [words] * bool(words)


def test_zeros_are_those_of_the_statistics_that_make_them():
    network, x = Network(NORMED), np.tile(X[:1], (4, 1))
    params = network_examples.parameters(network, (6,), np.random.default_rng(0))
    report = fastcheck.check_network(network, params, torch_network.gradients(network, params, x, Y)[1], x, Y)
    assert f"The gradient stops where {EQUAL.format(5)}: use data points" in _panel(report)["what was shown"].text


@pytest.mark.parametrize(
    ("dtype", "precision", "told"),
    [
        (np.float64, None, "the gradients are float64"),
        (np.float32, None, "float32, and the error bars include that rounding: compute them in float64"),
        (np.float64, "float32", "float32, and the error bars include that rounding: compute them in float64"),
        (np.float32, "float64", "float32, and the error bars include that rounding: keep them in float64"),
    ],
)
def test_float64_is_advised_where_it_was_not_used(dtype, precision, told):
    network = Network([Dense(3)])
    params = network_examples.parameters(network, (6,), np.random.default_rng(0))
    grads = {name: array.astype(dtype) for name, array in torch_network.gradients(network, params, X, Y)[1].items()}
    line = _panel(fastcheck.check_network(network, params, grads, X, Y, precision=precision))["double precision"]
    assert told in line.text
    assert line.status == ("done" if dtype is np.float64 and precision is None else "note")


def test_where_nothing_is_checked_nothing_is_told_of_it():
    network = Network([Dense(3)])
    report = fastcheck.check_network(network, _scaled(1.0), _scaled(1.0), np.eye(3), np.arange(3), only=[])
    assert "no dimension was checked" in report.summary()
    assert _panel(report)["double precision"].status == "done"
