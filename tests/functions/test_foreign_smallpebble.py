"""SmallPebble: its operations are right, but for one, whose fault is found."""

import pytest
from foreign import normals, of_two

import fastcheck

pebble = pytest.importorskip("smallpebble")


def _forward(function):
    return lambda *arrays: function(*map(pebble.Variable, arrays)).array


def _vjp(function):
    def backward(v, *arrays):
        variables = [pebble.Variable(one) for one in arrays]
        gradients = pebble.get_gradients(pebble.sum(pebble.mul(function(*variables), pebble.Variable(v))))
        return [gradients[one] for one in variables]

    return backward


def _classifier(x, w, softmax=pebble.softmax):
    return pebble.neg(pebble.log(softmax(pebble.matmul(x, w))))


FUNCTIONS = {
    "convolution": (
        lambda x, w: pebble.conv2d(x, w, "SAME", (2, 2)),
        lambda x, w: pebble.conv2d(x, pebble.getitem(w, (slice(None, None, -1),)), "SAME", (2, 2)),
        normals((2, 5, 5, 2), (3, 3, 2, 3)),
    ),
    "max pool": (
        lambda x: pebble.maxpool2d(x, 2, 2, "VALID", (2, 2)),
        lambda x: pebble.getitem(x, (slice(None), slice(None, None, 2), slice(None, None, 2))),
        normals((1, 4, 4, 2)),
    ),
    "matrices": (
        pebble.matmul,
        lambda x, w: pebble.matmul(pebble.getitem(x, (slice(None, None, -1),)), w),
        normals((3, 4), (4, 2)),
    ),
    "quotient": (pebble.div, lambda x, y: pebble.div(y, x), normals((3, 4), (3, 4))),
    "classifier": (
        _classifier,
        lambda x, w: _classifier(x, w, lambda z: pebble.softmax(z, 0)),
        normals((3, 4), (4, 2)),
    ),
    "leaky relu": (pebble.leaky_relu, lambda x: pebble.leaky_relu(x, 0.01), normals((3, 4))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_smallpebbles_gradients_pass_and_those_of_another_function_fail(name):
    function, other, inputs = FUNCTIONS[name]
    of_two(_vjp, _forward, function, other, inputs).judge()


def test_a_fault_of_smallpebble_is_found():
    """Replacing entries clears their cotangent in place, before the gradient of what they are replaced by is read."""

    def function(x, y):
        return pebble.setat(x, (slice(1, 3),), y)

    report = fastcheck.check_vjp(_forward(function), _vjp(function), normals((5, 2), (2, 2)))
    assert report.tensors["input 0"].passed
    assert report.tensors["input 1"].verdict == "fail"
    assert all(entry.analytic == 0 for entry in report.tensors["input 1"].worst)
