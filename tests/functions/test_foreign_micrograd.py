"""micrograd: numbers that know their gradients; those of a perceptron that are not reset add up, and that is found."""

import numpy as np
import pytest
from foreign import Foreign, normals

import fastcheck

engine = pytest.importorskip("micrograd.engine")
nn = pytest.importorskip("micrograd.nn")


def _values(array):
    return np.array([engine.Value(float(one)) for one in array.reshape(-1)], dtype=object).reshape(array.shape)


def _read(values, what):
    return np.array([getattr(one, what) for one in np.reshape(values, -1)], dtype=float).reshape(np.shape(values))


def _pair(function):
    """Return forward and backward of a function of arrays of values."""

    def backward(v, *arrays):
        inputs = [_values(one) for one in arrays]
        (function(*inputs) * v).sum().backward()
        return [_read(one, "grad") for one in inputs]

    return lambda *arrays: _read(function(*map(_values, arrays)), "data"), backward


def _relu(values):
    return np.array([one.relu() for one in values.reshape(-1)], dtype=object).reshape(values.shape)


FUNCTIONS = {
    "layer": (
        lambda x, w, b: _relu(x @ w + b),
        lambda x, w, b: x @ w + b,
        normals((2, 3), (3, 4), (4,)),
    ),
    "normalisation": (
        lambda x: x / ((x * x).sum() + 0.1) ** 0.5,
        lambda x: x / ((x * x).sum() + 0.11) ** 0.5,
        normals((5,)),
    ),
    "powers": (lambda x: x**3 - 2 / (x**2 + 1), lambda x: x**3 + 2 / (x**2 + 1), normals((2, 3))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_micrograds_gradients_pass_and_those_of_another_function_fail(name):
    function, other, inputs = FUNCTIONS[name]
    forward, backward = _pair(function)
    Foreign(forward, backward, inputs, {"another function": _pair(other)[1]}).judge()


def _perceptron(resets=lambda network: network.zero_grad()):
    """The loss of a perceptron at its parameters, and its gradient."""
    network, (samples, targets) = nn.MLP(2, [4, 1]), normals((5, 2), (5,), seed=3)

    def loss_at(params):
        for value, number in zip(network.parameters(), params, strict=True):
            value.data = float(number)
        errors = [network(row.tolist()) - target for row, target in zip(samples, targets, strict=True)]
        return sum(error * error for error in errors)

    def grad(params):
        loss = loss_at(params)
        resets(network)
        loss.backward()
        return _read(network.parameters(), "grad")

    return lambda params: loss_at(params).data, grad, normals((len(network.parameters()),))[0]


def test_a_perceptron_and_one_whose_gradients_are_not_reset():
    assert fastcheck.check_gradient(*_perceptron())
    report = fastcheck.check_gradient(*_perceptron(resets=lambda network: None))
    assert report.verdict == "fail"
    assert "the second call" in " ".join(finding.words for finding in report.health)
