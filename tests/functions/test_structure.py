"""The argument ``structure``: what is refused, in one clear line each."""

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F

from fastcheck import FastcheckError, check_vjp

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(2, 3, 5, 5)), RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=4)


def _conv(x, w, b, scale=None):
    out = F.conv2d(*map(torch.as_tensor, (x, w, b)), padding=1).numpy()
    return out if scale is None else out * scale


def _refused(inputs, structure, forward=_conv):
    backward = lambda v, *inputs: tuple(map(np.zeros_like, inputs))  # noqa: E731
    with pytest.raises(FastcheckError) as caught:
        check_vjp(forward, backward, inputs, structure=structure)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 240
    return message


REFUSED = {
    "elementwize": "structure is 'elementwize' (did you mean 'elementwise'?)",
    "per sample": "(did you mean 'per_sample'?)",
    "conv(1, 1)": "expected arguments by name, as in 'conv(stride=1, padding=0",
    "conv(stride=1": "expected arguments by name",
    "conv(stride=f())": "expected arguments by name",
    "conv(strides=2)": "(did you mean 'stride'?)",
    "conv(stride=0)": "stride is 0: expected an integer of at least 1",
    "conv()": "gives (2, 4, 3, 3), but output has shape (2, 4, 5, 5)",
    "conv(padding=1, groups=3)": "groups",
    "elementwise": "input 0 has shape (2, 3, 5, 5) and output (2, 4, 5, 5): expected the same shape",
    "per_sample": "input 1 has shape (4, 3, 3, 3) and output (2, 4, 5, 5): expected one first axis",
}


@pytest.mark.parametrize("structure", REFUSED)
def test_words(structure):
    assert REFUSED[structure] in _refused((X, W, B), structure)


def test_inputs_by_name():
    assert "structure names 'input 3'" in _refused((X, W, B), {"input 3": "conv(padding=1)"})
    assert "did you mean" in _refused((X, W, B), {"input0": "conv(padding=1)"})
    message = _refused((X, W, B), scipy.sparse.eye_array(200, 150))
    assert "structure is one pattern of shape (200, 150) for 3 inputs: expected a dict of them" in message


def test_patterns_of_another_shape():
    x = RNG.normal(size=(3, 2))
    forward = lambda x: x.sum(1)  # noqa: E731
    assert "shape (5, 6): expected (3, 6), a row for each output" in _refused(x, np.ones((5, 6)), forward)
    assert "(it is transposed)" in _refused(x, scipy.sparse.csr_array(np.ones((6, 3))), forward)
    assert "structure is 3: expected 'elementwise'" in _refused(x, 3, forward)
    assert "expected 'elementwise'" in _refused(x, np.ones(6), forward)


def test_inputs_that_are_no_part_of_the_convolution():
    scale = RNG.normal(size=(5, 5))
    message = _refused((X, W, B, scale), "conv(padding=1)")
    assert "input 3 has shape (5, 5): expected an input, a weight or a bias; give a dict" in message
    assert "an input and a weight" in _refused((B,), "conv", lambda b: b)


def test_an_input_and_a_weight_that_cannot_be_told_apart():
    x, w = RNG.normal(size=(2, 2, 3, 3)), RNG.normal(size=(2, 2, 3, 3))
    message = _refused((x, w), "conv", lambda x, w: F.conv2d(*map(torch.as_tensor, (x, w))).numpy())
    assert "input 0, input 1 may each be its input: expected shapes that tell which" in message


def test_none_of_a_dict_is_left_alone():
    def backward(v, x, w, b):
        x, w, b = (torch.as_tensor(one).requires_grad_() for one in (x, w, b))
        out = F.conv2d(x, w, b, padding=1)
        return tuple(one.numpy() for one in torch.autograd.grad(out, (x, w, b), torch.as_tensor(np.array(v))))

    structure = {"input 0": None, "input 1": " conv( padding = 1 ) ", "input 2": None}
    report = check_vjp(_conv, backward, (X[:1, :, :2, :2], W, B), structure=structure)
    assert report.passed
    assert list(report.structure) == ["input 1"]
    assert report.requested["structure"] == structure
    assert [one.evaluator for one in report.tensors.values()] == ["full", "coloured", "full"]
