"""fastcheck.torch.gradcheck takes the arguments of torch.autograd.gradcheck, and finds what that one passes."""

import inspect
import pickle

import pytest
import torch
from torch import nn
from torch_operators import FAULTS, operators, wrong

import fastcheck
from fastcheck import FastcheckError, GradientMismatchError
from fastcheck.torch import GradcheckError, gradcheck, gradgradcheck

X = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
SMALL = operators(40)


@pytest.mark.parametrize("mine", [gradcheck, gradgradcheck])
def test_the_arguments_and_defaults_are_pytorchs(mine):
    theirs = inspect.signature(getattr(torch.autograd, mine.__name__)).parameters
    own = inspect.signature(mine).parameters
    assert [name for name in own if name != "seed"] == list(theirs)
    for name, parameter in theirs.items():
        assert (own[name].default, own[name].kind) == (parameter.default, parameter.kind)


@pytest.mark.parametrize("name", SMALL)
def test_operators_pass_both_and_their_faults_only_the_other(name):
    function, inputs = SMALL[name]
    assert gradcheck(function, inputs)
    faulty = wrong(function, FAULTS["all by 1e-4"])
    assert torch.autograd.gradcheck(faulty, inputs, raise_exception=False)
    assert not gradcheck(faulty, inputs, raise_exception=False)


def test_a_failure_raises_both_exceptions_with_the_report():
    with pytest.raises(GradcheckError, match=r"^input 0 9 of 9 wrong\n\nFAIL: input 0 is wrong") as error:
        gradcheck(wrong(torch.tanh, FAULTS["all by 1e-4"]), X)
    assert isinstance(error.value, torch.autograd.gradcheck.__globals__["GradcheckError"])
    assert isinstance(error.value, GradientMismatchError)
    assert error.value.report.verdict == "fail"
    assert pickle.loads(pickle.dumps(error.value)).report.verdict == "fail"


def test_a_single_tensor_a_module_and_random_numbers_are_taken():
    assert gradcheck(torch.tanh, X)
    assert gradcheck(nn.Linear(9, 2), X)
    assert gradcheck(nn.Dropout(), X)


def test_one_wrong_entry_among_many_is_found():
    x = torch.randn(50, 50, dtype=torch.float64, requires_grad=True)
    assert gradcheck(torch.tanh, x)
    assert not gradcheck(wrong(torch.tanh, FAULTS["an entry by 1e-4"]), x, raise_exception=False)


def test_outputs_that_differ_within_nondet_tol():
    calls = []

    def wavering(x):
        calls.append(1)
        return x.sin() + 1e-6 * (len(calls) % 3)

    assert gradcheck(wavering, X, nondet_tol=1e-5)
    halved = wrong(torch.sin, lambda grad: grad / 2)
    assert not gradcheck(lambda x: wavering(x) + halved(x), X, nondet_tol=1e-5, raise_exception=False)


class Cube(torch.autograd.Function):
    """x^3, whose backward is right, and whose second derivative may not be."""

    factor = 6.0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad_output):
        return Slope.apply(grad_output, *ctx.saved_tensors)


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_output, x):
        ctx.save_for_backward(grad_output, x)
        return 3 * x**2 * grad_output

    @staticmethod
    def backward(ctx, second):
        grad_output, x = ctx.saved_tensors
        return 3 * x**2 * second, Cube.factor * x * grad_output * second


@pytest.mark.parametrize("factor", [6.0, 6.001])
def test_second_derivatives(monkeypatch, factor):
    monkeypatch.setattr(Cube, "factor", factor)
    assert gradcheck(Cube.apply, X)
    assert gradgradcheck(Cube.apply, X, raise_exception=False) == (factor == 6.0)
    assert gradgradcheck(Cube.apply, X, torch.ones(9).double(), raise_exception=False) == (factor == 6.0)


def test_second_derivatives_of_several_inputs():
    a, b = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradgradcheck(lambda a, b: (a @ b.sin(), a.exp()), (a, b))
    with pytest.raises(FastcheckError, match="grad_outputs has 1 tensors: expected 2"):
        gradgradcheck(lambda a, b: (a @ b.sin(), a.exp()), (a, b), a)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"check_forward_ad": True}, "check_forward_ad is True, which is not supported: compare torch.func.jvp"),
        ({"check_batched_grad": True}, "check_batched_grad is True, which is not supported: check torch.func.vmap"),
        ({"check_backward_ad": False}, "check_backward_ad is False"),
        ({"masked": True}, "masked is True"),
        ({"epsilon": 1e-5}, "gradcheck has no argument 'epsilon'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(options, words):
    with pytest.raises(FastcheckError, match=words):
        gradcheck(torch.tanh, X, **options)


@pytest.mark.parametrize("inputs", [torch.ones(3), (torch.ones(3), 2), (), torch.arange(3)])
def test_inputs_without_a_gradient_are_refused(inputs):
    with pytest.raises(FastcheckError, match="inputs has no tensor that requires a gradient"):
        gradcheck(lambda *several: several[0], inputs)


def test_the_word_to_change_is_one():
    assert fastcheck.torch.gradcheck is gradcheck
