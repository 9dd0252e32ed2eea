"""Backward passes of published packages for PyTorch, through fastcheck.torch: entmax, and a gradient reversal."""

import pytest
import torch
from torch_operators import FAULTS, wrong

import fastcheck

entmax = pytest.importorskip("entmax")
pytorch_revgrad = pytest.importorskip("pytorch_revgrad")

X = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
ALPHA = torch.tensor([[1.3], [1.5], [1.8]], dtype=torch.float64, requires_grad=True)
LABELS = torch.tensor([0, 6, 3])

FUNCTIONS = {
    "sparsemax": (entmax.sparsemax, [X]),
    "entmax15": (entmax.entmax15, [X]),
    "entmax_bisect": (entmax.entmax_bisect, [X, ALPHA]),
    "normmax_bisect": (entmax.normmax_bisect, [X]),
    "sparsemax_loss": (lambda x: entmax.sparsemax_loss(x, LABELS), [X]),
    "entmax15_loss": (lambda x: entmax.entmax15_loss(x, LABELS), [X]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_entmax_is_right_and_its_mistakes_are_found(name):
    function, inputs = FUNCTIONS[name]
    report = fastcheck.torch.check(function, *inputs, progress=False)
    assert report.passed, report
    assert all(one.dims_checked == one.dims_total for one in report.tensors.values())
    assert fastcheck.torch.gradcheck(function, inputs)
    for fault in FAULTS.values():
        report = fastcheck.torch.check(wrong(function, fault), *inputs, progress=False)
        assert report.tensors["input 0"].verdict == "fail"


def test_a_reversed_gradient_has_the_opposite_sign():
    report = fastcheck.torch.check(pytorch_revgrad.RevGrad(), X, progress=False)
    assert report.verdict == "fail"
    assert "-1" in report.tensors["input 0"].advice
    assert fastcheck.torch.check(torch.nn.Identity(), X, progress=False).passed
