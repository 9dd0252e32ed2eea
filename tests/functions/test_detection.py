"""Patterns that are found from a few entries: those of common functions, and none where there is none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastcheck import check_vjp
from fastcheck.functions.detection import PROBED, ROUNDS

pytestmark = pytest.mark.jit

RNG = np.random.default_rng(0)


def _pair(function):
    """Forward and backward of arrays, by PyTorch."""

    def forward(*inputs):
        return function(*map(torch.as_tensor, inputs)).numpy()

    def backward(v, *inputs):
        made = [torch.as_tensor(one).requires_grad_() for one in inputs]
        grads = torch.autograd.grad(function(*made), made, torch.as_tensor(np.array(v)))
        return tuple(one.numpy() for one in grads)

    return forward, backward


def _attention(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v


FOUND = {
    "elementwise": (torch.tanh, [(7, 8)], [1]),
    "linear": (lambda x, w, b: x @ w + b, [(6, 5), (5, 4), (4,)], [5, 5, 1]),
    "convolution": (lambda x, w: F.conv2d(x, w, padding=1), [(2, 2, 9, 9), (4, 2, 3, 3)], [18, 18]),
    "strided": (lambda x, w: F.conv1d(x, w, stride=2), [(2, 2, 21), (4, 2, 3)], [6, 6]),
    "transposed": (lambda x, w: F.conv_transpose1d(x, w, stride=3), [(2, 2, 12), (2, 3, 3)], [2, 6]),
    "pooling": (lambda x: F.max_pool2d(x, 2), [(2, 3, 8, 8)], [4]),
    "upsampling": (lambda x: F.interpolate(x, scale_factor=2), [(2, 3, 12)], [1]),
    "attention": (_attention, [(2, 7, 3), (2, 5, 3), (2, 5, 2)], [3, 15, 5]),
    "softmax": (lambda x: torch.softmax(x, 0), [(5, 9)], [5]),
    "transposition": (lambda x: torch.sin(x).T, [(9, 8)], [1]),
    "flip": (lambda x: torch.sin(x).flip(0), [(40,)], [1]),
    "triangle": (lambda x: torch.stack([x[:2].prod(), x[2:5].sum(), x[5:].prod()]), [(9,)], [4]),
}


@pytest.mark.parametrize("name", FOUND)
def test_patterns_of_common_functions(name):
    function, shapes, colours = FOUND[name]
    forward, backward = _pair(function)
    inputs = [RNG.normal(size=shape) for shape in shapes]
    report = check_vjp(forward, backward, inputs, structure="detect", keep=True)
    assert report.passed, report.summary()
    assert report.health == ()
    assert [one.get("colours") for one in report.structure.values()] == colours

    largest = [np.abs(one.analytic).argmax() for one in report.tensors.values()]

    def wrong(v, *inputs):
        grads = [grad.copy() for grad in backward(v, *inputs)]
        for grad, dim in zip(grads, largest, strict=True):
            grad.flat[dim] *= 1 + 1e-6
        return tuple(grads)

    report = check_vjp(forward, wrong, inputs, structure="detect")
    assert [one.beyond_error_bar for one in report.tensors.values()] == [1] * len(shapes)


def test_a_large_input_takes_a_few_calls():
    forward, backward = _pair(torch.sin)
    report = check_vjp(forward, backward, RNG.normal(size=(100, 90)), structure="detect")
    assert report.passed
    assert report.tensors["input 0"].dims_checked == 9000
    assert report.structure["input 0"]["detecting"] <= 2 * (ROUNDS + 1) * PROBED


def test_where_there_is_none_every_entry_is_moved_by_itself():
    forward, backward = _pair(lambda x: torch.softmax(x, 0))
    report = check_vjp(forward, backward, RNG.normal(size=12), structure="detect")
    assert report.passed
    assert report.structure == {"input 0": {"structure": None, "detecting": 24}}
    assert report.tensors["input 0"].evaluator == "full"
    assert "no structure was found in 24 calls" in str(report)


def test_masks_hide_no_dependence():
    """Where moves show nothing behind a mask, nan does, and the other way around."""
    forward, backward = _pair(lambda x: torch.where(x > 0, x, torch.zeros(())) * torch.relu(x.flip(0)))
    x = np.where(np.arange(51) % 2, 1.0, -1.0) * RNG.uniform(1, 2, 51)
    report = check_vjp(forward, backward, x, structure="detect")
    assert report.passed
    assert report.health == ()
