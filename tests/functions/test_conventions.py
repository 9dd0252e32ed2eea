"""What check_vjp refuses, each in one line of at most three lines of a terminal."""

import numpy as np
import pytest
import torch

from fastcheck import FastcheckError, check_vjp

X, W = np.linspace(0.2, 1.7, 6).reshape(2, 3), np.linspace(-1, 1, 3)


def _forward(x, w):
    return x * w


def _backward(v, x, w):
    return v * w, (v * x).sum(0)


def _one(x):
    return np.sin(x)


def _slope(v, x):
    return v * np.cos(x)


def _raises(*arguments):
    raise KeyError("no such\nlayer")


class _Grows:
    """An output with one row more in every call."""

    def __init__(self):
        self.rows = 1

    def __call__(self, x):
        self.rows += 1
        return np.ones((self.rows, 1)) * x.sum()


def _later(x):
    return np.sin(x) if np.array_equal(x, X) else np.sin(x)[:1]


NAN = np.where(X > 1.5, np.nan, X)


@pytest.mark.parametrize(
    ("forward", "backward", "inputs", "message"),
    [
        (3, _slope, X, "forward is 3: expected a function of the inputs"),
        (_one, X, X, "backward is array.*: expected a function of the inputs"),
        (_one, _slope, 0.5, "inputs is 0.5: expected an array, or a tuple, list or dict of arrays"),
        (_one, _slope, None, "inputs is None: expected an array"),
        (_one, _slope, (one for one in [X]), "inputs is <generator .*: expected an array"),
        (_one, _slope, (), "inputs holds nothing: expected at least one array of floating-point numbers"),
        (_one, _slope, np.arange(3), "inputs holds int64: expected at least one array of floating-point numbers"),
        (_forward, _backward, (np.arange(3), 2.0), "inputs holds int64, float: expected at least one array"),
        (_forward, _backward, {0: X, 1: W}, r"inputs has the key 0: expected names \(str\), passed as keywords"),
        (_one, _slope, np.array([X, None], object), "input 0 has dtype object: expected numbers"),
        (_one, lambda v, x: v + 1j, X, "backward's gradient of input 0 is complex: expected real numbers, as input 0"),
        (_one, _slope, np.ma.masked_array(X), "input 0 is a masked array"),
        (_one, _slope, NAN, r"input 0 is nan at index \[1, 2\]: expected finite numbers"),
        (_one, _slope, {"x": NAN}, r"inputs\['x'\] is nan at index \[1, 2\]: expected finite numbers"),
        (_one, _slope, np.zeros((0, 3)), r"input 0 is empty: it has shape \(0, 3\)"),
        (_forward, _backward, (X, [W, W]), "input 1 is a list of arrays: expected each array as an input"),
        (_forward, _backward, (X, {"w": W}), "input 1 is a dict of arrays: expected each array as an input"),
        (_forward, _backward, (X, X[0]), "input 0 and input 1 share memory: expected arrays of their own"),
        (_forward, _backward, {"x": X, "w": X[1]}, r"inputs\['x'\] and inputs\['w'\] share memory"),
        (_raises, _slope, X, "forward raises KeyError at the start point: 'no such.*layer'"),
        (lambda x: None, _slope, X, "forward returns None at the start point: expected an array"),
        (lambda x: iter([x]), _slope, X, "forward returns a list_iterator at the start point: expected an array"),
        (lambda x: "y", _slope, X, "output of forward has dtype <U1|forward returns str at the start"),
        (lambda x: x > 0, _slope, X, "forward returns bool at the start point: expected arrays of floating-point"),
        (lambda x: x * (1 if np.array_equal(x, X) else 1j), _slope, X, "output of forward is complex where its no"),
        (lambda x: x * (1j if np.array_equal(x, X) else 1), lambda v, x: x, X, "output of forward is real where its"),
        (lambda x: np.array([x, None], object), _slope, X, "output of forward has dtype object"),
        (lambda x: (x, {"x": x}), _slope, X, r"output 1 of forward is a dict .*: expected an array \(has_cache=True"),
        (lambda x: np.log(x - x), _slope, X, r"output of forward is -inf at index \[0, 0\]: expected finite numbers"),
        (lambda x: x[:0], _slope, X, "forward returns empty arrays at the start point"),
        (_Grows(), _slope, X, r"output of forward has shape \(4, 1\) at the start point: expected \(2, 1\), as in"),
        (_later, _slope, X, r"output of forward has shape \(1, 3\) .*: expected \(2, 3\), as in forward's first"),
        (_one, _raises, X, "backward raises KeyError at the start point: 'no such.*layer'"),
        (_one, lambda v, x: v[0], X, r"backward's gradient of input 0 has shape \(3,\): expected \(2, 3\), that of"),
        (_one, lambda v, x: None, X, "backward returns None for input 0: expected at least one gradient"),
        (_one, lambda v, x: v > 0, X, "backward's gradient of input 0 has dtype bool: expected float64"),
        (_one, lambda v, x: v.astype(object), X, "backward's gradient of input 0 has dtype object"),
        (_one, lambda v, x: (v, v), X, "backward returns 2 gradients: expected a gradient of the input"),
        (_one, lambda v, x: iter([v]), X, "backward returns a list_iterator: expected a gradient of the input"),
        (_forward, lambda v, x, w: v, (X, W), "backward returns one float64 array: expected 2 gradients, one per in"),
        (_forward, lambda v, x, w: (v, v, v), (X, W), "backward returns 3 gradients: expected 2 gradients"),
        (_forward, lambda v, x, w: (g for g in (v, v)), (X, W), "backward returns a generator: expected 2 gradients"),
        (_forward, lambda v, x, w: (None, None), (X, W), "backward returns None for input 0, input 1: expected at"),
        (_forward, lambda v, x, w: None, (X, W), "backward returns None: expected 2 gradients"),
        (_forward, lambda v, x, w: {"x": v}, {"x": X, "w": W}, "backward returns no gradient of 'w': expected a dict"),
        (
            _forward,
            lambda v, x, w: {"x": v, "weight": v},
            {"x": X, "w": W},
            r"backward returns a gradient of 'weight' \(did you mean 'w'\?\): expected a dict of gradients, of x, w",
        ),
    ],
)
def test_bad_input_gets_one_line(forward, backward, inputs, message):
    with pytest.raises(FastcheckError, match=message) as told:
        check_vjp(forward, backward, inputs)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) <= 240
    if "raises" in message:
        assert isinstance(told.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"has_cache": True}, r"forward returns a ndarray: expected \(output, cache\), as has_cache=True says"),
        ({"has_cache": 1}, "has_cache is 1: expected True or False"),
        ({"grad_output": X[0]}, r"grad_output has shape \(3,\): expected \(2, 3\), that of output"),
        ({"grad_output": [X, X]}, r"grad_output has shape \(2, 2, 3\)"),
        ({"grad_output": NAN}, "grad_output has entries that are nan or infinite"),
        ({"grad_output": X > 1}, "grad_output has dtype bool"),
        ({"reference": 3}, "reference is 3: expected a function of the inputs"),
        ({"reference": _raises}, "reference raises KeyError at the start point"),
        ({"reference": lambda x: x.sum()}, r"output of reference has shape \(\) at the start point: expected \(2, 3\)"),
        ({"reference": lambda x: (x, x)}, "reference returns 2 outputs at the start point: expected 1"),
        ({"noise": 0}, "noise is 0: expected a positive finite number"),
        ({"relative_noise": -1.0}, "relative_noise is -1.0"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"stencil": 4}, "stencil is 4: expected 'auto', 3 or 5"),
        ({"dims": {"input 1": 3}}, r"dims names 'input 1' \(did you mean 'input 0'\?\)"),
        ({"step": "big"}, "step is 'big': expected 'auto' or a positive finite number"),
        ({"step": 1e-17}, "step is 1e-17: adding it does not change the largest entry of input 0"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(FastcheckError, match=message) as told:
        check_vjp(_one, _slope, X, **options)
    assert len(str(told.value)) <= 240


@pytest.mark.parametrize("grad_output", [{"y": X}, {"z": X, "y": X}, X])
def test_the_cotangents_of_several_outputs_are_like_these(grad_output):
    def forward(x):
        return {"y": np.sin(x), "s": x.sum()}

    def backward(v, x):
        return v["y"] * np.cos(x) + v["s"]

    with pytest.raises(FastcheckError, match=r"grad_output is .*: expected a dict of output\['y'\], output\['s'\]"):
        check_vjp(forward, backward, X, grad_output=grad_output)
    assert check_vjp(forward, backward, X, grad_output={"s": np.array(0.3), "y": X}).passed
    with pytest.raises(FastcheckError, match=r"grad_output is array.*: expected 2 arrays, like the outputs"):
        check_vjp(lambda x: (x, x), lambda v, x: v[0] + v[1], X, grad_output=X)


def test_columns_of_one_array_share_no_entry():
    wide = np.arange(1.0, 13.0).reshape(3, 4)
    report = check_vjp(lambda a, b: a * b, lambda v, a, b: (v * b, v * a), (wide[:, :2], wide[:, 2:]))
    assert report.passed
    assert check_vjp(_one, _slope, np.broadcast_to(1.5, (2, 2))).passed


def test_tensors_are_refused_as_arrays_are():
    for tensor, message in (
        (torch.arange(3), "inputs holds int64: expected at least one array"),
        (torch.tensor([1.0, torch.nan]), r"input 0 is nan at index \[1\]"),
    ):
        with pytest.raises(FastcheckError, match=message):
            check_vjp(torch.sin, lambda v, x: v * torch.cos(x), tensor)


def test_named_tuples_come_back_as_such():
    import collections

    pair = collections.namedtuple("pair", "mean scale")

    def backward(v, x):
        return v.mean / x.size + v.scale * 2 * x

    report = check_vjp(lambda x: pair(np.array(x.mean()), np.array((x**2).sum())), backward, X)
    assert report.passed, report.summary()
