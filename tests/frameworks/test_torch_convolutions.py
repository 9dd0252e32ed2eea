"""Convolution modules are checked exhaustively by the evaluators for convolutions, whatever their backward is."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fastcheck

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def _check(module, x, **options):
    return fastcheck.torch.check(module, x, progress=False, **options)


def _input(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_every_geometry_passes_exhaustively(data):
    rank = data.draw(st.integers(1, 3))
    groups = data.draw(st.sampled_from([1, 2]))
    kernel, stride, dilation = (data.draw(st.integers(1, 2)) for _ in range(3))
    padding = data.draw(st.sampled_from([0, 1, "same"] if stride == 1 else [0, 1]))
    bias = data.draw(st.booleans())
    module = KINDS[rank](2, 4, kernel, stride, padding, dilation, groups, bias)
    report = _check(module, _input(2, 2, *[5] * rank).requires_grad_(data.draw(st.booleans())))
    assert report.passed
    assert report.forward.passed
    assert {one.evaluator for one in report.tensors.values()} == {"delta"}
    assert all(one.dims_checked == one.dims_total for one in report.tensors.values())


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_transposed_and_padded_ones_pass_exhaustively(data):
    rank, groups = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2]))
    stride, dilation = (data.draw(st.integers(1, 2)) for _ in range(2))
    if data.draw(st.booleans()):
        extra = data.draw(st.integers(0, max(stride, dilation) - 1))
        module = TRANSPOSED[rank](2, 4, 2, stride, data.draw(st.integers(0, 1)), extra, groups, dilation=dilation)
    else:
        mode = data.draw(st.sampled_from(["reflect", "replicate", "circular"]))
        module = KINDS[rank](2, 4, 2, stride, 1, dilation, groups, padding_mode=mode)
    report = _check(module, _input(2, 2, *[4] * rank).requires_grad_())
    assert report.passed
    assert report.forward.passed
    assert all(one.dims_checked == one.dims_total for one in report.tensors.values())


class Function(torch.autograd.Function):
    """A convolution with a backward of its own."""

    @staticmethod
    def forward(ctx, x, w, wrong):
        ctx.save_for_backward(x, w)
        ctx.wrong = wrong
        return F.conv2d(x, w, padding=1)

    @staticmethod
    def backward(ctx, grad_output):
        x, w = ctx.saved_tensors
        grad_weight = nn.grad.conv2d_weight(x, w.shape, grad_output, padding=1).clone()
        grad_weight[2, 1, 0, 0] *= 1 + ctx.wrong
        if ctx.wrong < 0:  # reads the cotangent as if it were contiguous
            flat = grad_output.as_strided((grad_output.numel(),), (1,), grad_output.storage_offset())
            grad_weight = nn.grad.conv2d_weight(x, w.shape, flat.reshape(grad_output.shape), padding=1)
        return nn.grad.conv2d_input(x.shape, w, grad_output, padding=1), grad_weight, None


class Own(nn.Conv2d):
    wrong = 0.0

    def forward(self, x):
        return Function.apply(x, self.weight, self.wrong)


@pytest.mark.parametrize("wrong", [0.0, 1e-9, 0.5])
def test_a_subclass_with_its_own_backward_is_differenced_at_every_weight(wrong):
    module = Own(3, 4, 3, padding=1, bias=False)
    module.wrong = wrong
    report = _check(module, _input(2, 3, 6, 6))
    assert report.tensors["weight"].dims_checked == 108
    failing = [entry.index for entry in report.tensors["weight"].worst if entry.verdict == "fail"]
    assert failing == ([(2, 1, 0, 0)] if wrong else [])


def test_findings_about_the_backward_itself_are_in_the_report():
    module = Own(3, 4, 3, padding=1, bias=False)
    module.wrong = -1.0
    report = _check(module, _input(2, 3, 6, 6))
    assert report.tensors["weight"].passed
    assert report.verdict == "fail"
    assert any("cotangent" in finding.name for finding in report.health)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def test_a_subclass_that_computes_something_else_is_a_module_like_any_other():
    report = _check(Standardised(2, 3, 2), _input(1, 2, 4, 4))
    assert report.passed
    assert report.tensors["weight"].evaluator == "full"


def test_one_sample_without_an_axis_for_it():
    report = _check(nn.Conv2d(2, 3, 2), _input(2, 4, 4).requires_grad_())
    assert report.passed
    assert report.tensors["input"].shape == (1, 2, 4, 4)


def test_a_cotangent_may_be_given():
    module, v = Own(3, 4, 3, padding=1, bias=False), torch.zeros(2, 4, 6, 6)
    module.wrong = 0.5
    assert not _check(module, _input(2, 3, 6, 6)).passed
    v[:, 0] = 1  # the wrong weight belongs to another filter
    assert _check(module, _input(2, 3, 6, 6), grad_output=v).passed


def test_what_only_functions_have_is_checked_as_a_function():
    assert _check(nn.Conv2d(2, 3, 2), _input(1, 2, 4, 4), stencil=3).tensors["weight"].evaluator == "full"
