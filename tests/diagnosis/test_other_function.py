"""Gradients that are all right for one other function are said to be that, and only these."""

import numpy as np
import pytest
import torch

import fastcheck
from fastcheck.diagnosis import variant_vjp

conv2d = torch.nn.functional.conv2d

FUNCTIONS = {
    "the kernel is flipped: this is a true convolution": lambda x, w, b: conv2d(x, w.flip(2, 3), b, padding=1),
    "the kernel's spatial axes are mixed up": lambda x, w, b: conv2d(x, w.transpose(2, 3), b, padding=1),
    "the kernel is read in another order": lambda x, w, b: conv2d(
        x, w.reshape(6, 3, 3, 4).permute(0, 3, 1, 2), b, padding=1
    ),
}
"""Functions whose gradients of input and weight have no single mistake in common."""


def _reflected(x, w, b):
    return conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), "reflect"), w, b)


LOSSES = {"vjp": lambda z: z, "tanh": torch.tanh, "relu": torch.relu}


def _report(function, loss="vjp", spoil=lambda grads: grads):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((2, 4, 7, 6), (6, 4, 3, 3), (6,))]
    leaves = [torch.from_numpy(one).requires_grad_() for one in arrays]
    v = rng.standard_normal((2, 6, 7, 6))
    found = torch.autograd.grad(LOSSES[loss](function(*leaves)), leaves, torch.from_numpy(v))
    grads = spoil({name: grad.numpy() for name, grad in zip(("input", "weight", "bias"), found, strict=True)})
    return fastcheck.check(fastcheck.ConvCase(*arrays, padding=1, grad_output=v, grads=grads, loss=loss))


OPENING = "the right gradients, but of another function than the declared convolution: "


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bug", FUNCTIONS)
def test_right_gradients_of_another_function_are_one_diagnosis(bug, loss):
    report = _report(FUNCTIONS[bug], loss)
    wrong = [name for name, tensor in report.tensors.items() if not tensor.passed]
    assert {"input", "weight"} <= {*wrong}
    for name in wrong:
        assert report.tensors[name].diagnosis["bug"].startswith(OPENING + bug)


@pytest.mark.parametrize("name", ["input", "weight", "bias"])
@pytest.mark.parametrize("bug", FUNCTIONS)
def test_they_are_not_where_one_gradient_is_wrong_for_it(bug, name):
    def spoil(grads):
        wrong = grads[name].copy()
        wrong.flat[3] += 1e-6
        return {**grads, name: wrong}

    report = _report(FUNCTIONS[bug], spoil=spoil)
    assert not report.passed
    for tensor in report.tensors.values():
        assert tensor.passed or OPENING not in str(tensor.diagnosis)


def test_one_mistake_of_both_says_so_too():
    report = _report(_reflected)
    for name in ("input", "weight"):
        diagnosis = report.tensors[name].diagnosis
        assert diagnosis["bug"].startswith("the input is padded with copies of its entries")
        assert diagnosis["evidence"].endswith("these are the right gradients of a forward pass with the same mistake")


def test_a_mistake_of_one_gradient_is_not_another_function():
    right = lambda x, w, b: conv2d(x, w, b, padding=1)  # noqa: E731
    turned = lambda grads: {**grads, "weight": np.ascontiguousarray(grads["weight"][:, :, ::-1, ::-1])}  # noqa: E731
    assert OPENING not in str(_report(right, spoil=turned).tensors["weight"].diagnosis)


@pytest.mark.parametrize("bug", FUNCTIONS)
def test_large_gradients_are_compared_by_sums_with_the_same_outcome(bug, monkeypatch):
    monkeypatch.setattr(variant_vjp, "_LARGE", 0)
    test_right_gradients_of_another_function_are_one_diagnosis(bug, "vjp")
    for name in ("input", "weight", "bias"):
        test_they_are_not_where_one_gradient_is_wrong_for_it(bug, name)
