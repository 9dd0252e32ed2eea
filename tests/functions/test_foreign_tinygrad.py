"""tinygrad, on its device that is Python alone: its gradients are right, those of another function are wrong."""

import numpy as np
import pytest
from foreign import normals, of_two

tinygrad = pytest.importorskip("tinygrad")


@pytest.fixture(autouse=True)
def _python_alone():
    """Neither a compiler nor its cache on disk."""
    with tinygrad.Context(DEV="PYTHON", CACHELEVEL=0):
        yield


def _tensor(array):
    return tinygrad.Tensor(np.ascontiguousarray(array))


def _forward(function):
    return lambda *arrays: function(*map(_tensor, arrays)).numpy()


def _vjp(function):
    def backward(v, *arrays):
        tensors = [_tensor(one) for one in arrays]
        return [one.numpy() for one in function(*tensors).gradient(*tensors, gradient=_tensor(v))]

    return backward


FUNCTIONS = {  # Python takes milliseconds for an operation
    "softmax": (lambda x: x.softmax(1), lambda x: x.softmax(0), normals((2, 2))),
    "layer": (lambda x, w: (x @ w).relu(), lambda x, w: x @ w, normals((2, 2), (2, 1))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tinygrads_gradients_pass_and_those_of_another_function_fail(name):
    function, other, inputs = FUNCTIONS[name]
    of_two(_vjp, _forward, function, other, inputs).judge()
