"""fastcheck.torch.check: functions and modules of PyTorch, right ones pass and wrong ones fail, in one line."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_operators import FAULTS, operators, wrong

import fastcheck
from fastcheck import FastcheckError

SMALL = operators(60)


def _check(function, *inputs, **options):
    return fastcheck.torch.check(function, *inputs, progress=False, **options)


def _leaf(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def _words(report):
    return {finding.name: finding.words for finding in report.health}


@pytest.mark.parametrize("name", SMALL)
def test_operators_pass_and_faults_of_1e_4_fail(name):
    function, inputs = SMALL[name]
    report = _check(function, *inputs)
    assert report.passed, report
    assert list(report.tensors) == [f"input {number}" for number in range(len(inputs))]
    for fault in FAULTS.values():
        report = _check(wrong(function, fault), *inputs)
        assert report.verdict == "fail"
        assert not report.tensors["input 0"].passed


def test_importing_fastcheck_does_not_import_pytorch():
    code = (
        "import sys, fastcheck; assert 'torch' not in sys.modules; fastcheck.torch.check; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'torhc'"):
        fastcheck.torhc  # noqa: B018


# Inputs


def test_only_tensors_that_require_a_gradient_are_differentiated():
    x, w = _leaf(4, 3), _leaf(3, 2, seed=1)
    assert list(_check(torch.matmul, x.detach(), w).tensors) == ["input 1"]
    assert list(_check(torch.matmul, x.detach(), w.detach()).tensors) == ["input 0", "input 1"]


def test_a_single_tuple_holds_the_inputs():
    x, w = _leaf(4, 3), _leaf(3, 2, seed=1)
    assert list(_check(torch.matmul, (x, w)).tensors) == ["input 0", "input 1"]


def test_integers_and_other_objects_are_passed_on():
    table, rows = _leaf(5, 3), torch.tensor([0, 2, 2, 4])
    assert _check(F.embedding, rows, table).passed
    assert _check(lambda x, axis, scale: scale * x.sum(axis), table, 0, 2.5).passed

    class Assigned(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows, table):
            ctx.save_for_backward(rows, table)
            return table[rows]

        @staticmethod
        def backward(ctx, grad_output):
            rows, table = ctx.saved_tensors
            grad = torch.zeros_like(table)
            grad[rows] = grad_output  # = in place of +=
            return None, grad

    report = _check(Assigned.apply, rows, table)
    assert report.verdict == "fail"
    table = report.tensors["input 1"]
    assert {one.index[0] for one in table.worst if one.verdict == "fail"} == {2}
    assert "where input 0 names a row several times, only the last occurrence" in str(table.diagnosis)


def test_float32_is_converted_and_the_report_says_so():
    report = _check(torch.tanh, _leaf(20, dtype=torch.float32))
    assert report.passed
    assert "inputs in float32 were converted to float64" in _words(report)["double precision"]
    assert report.tensors["input 0"].norm_ratio < 1e-11
    assert "double precision" not in _words(_check(torch.tanh, _leaf(20)))


def test_constants_are_converted_with_the_inputs():
    mask = torch.ones(3, dtype=torch.float32)
    assert _check(torch.matmul, _leaf(3, dtype=torch.float32), mask).passed


class OnlyFloat32(torch.autograd.Function):
    """x^3 as a kernel that takes nothing but float32."""

    factor = 3.0

    @classmethod
    def forward(cls, ctx, x):
        if x.dtype != torch.float32:
            raise TypeError("kernel compiled for fp32")
        ctx.save_for_backward(x)
        return x**3

    @classmethod
    def backward(cls, ctx, grad_output):
        (x,) = ctx.saved_tensors
        return cls.factor * x**2 * grad_output


class Wrong32(OnlyFloat32):
    factor = 3.01


def test_a_function_of_float32_alone_is_checked_against_a_reference():
    x = _leaf(30, dtype=torch.float32)
    report = _check(OnlyFloat32.apply, x, reference=lambda x: x**3)
    assert report.passed
    assert report.tensors["input 0"].norm_ratio > 1e-10  # that of float32
    assert _check(Wrong32.apply, x, reference=lambda x: x**3).verdict == "fail"
    assert _check(OnlyFloat32.apply, x, reference=lambda x: x**2).verdict == "fail"
    with pytest.raises(FastcheckError, match="needs reference=, the same function in float64: kernel compiled"):
        _check(OnlyFloat32.apply, x)


def test_a_function_may_change_its_inputs():
    assert _check(lambda x: x.mul_(2).sin_(), _leaf(7)).passed


# Outputs


class InPlace(torch.autograd.Function):
    """The square, by a backward that writes its result into what forward saved."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return x.mul_(2).mul_(grad_output)


class Doubled(torch.autograd.Function):
    """Twice the input, which forward changes; it says so, or not."""

    @staticmethod
    def forward(ctx, x, says_so):
        x.mul_(2)
        if not says_so:
            return x.clone()
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad_output):
        return 2 * grad_output, None


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (InPlace.apply, "backward changes input 0 in place, and autograd does not know of it"),
        (lambda x: Doubled.apply(x, False), "forward changes input 0 in place, and autograd does not know of it"),
    ],
)
def test_changes_in_place_behind_autograds_back_fail(function, words):
    report = _check(function, _leaf(3, 3))
    assert report.verdict == "fail"
    assert words in str(report)
    assert not fastcheck.torch.gradcheck(function, _leaf(3, 3), raise_exception=False)


@pytest.mark.parametrize("function", [lambda x: Doubled.apply(x, True), nn.ReLU(inplace=True), lambda x: x.exp_()])
def test_changes_in_place_that_autograd_knows_of_pass_without_a_word(function):
    report = _check(function, _leaf(3, 3))
    assert report.passed
    assert not report.health


def test_what_does_not_require_a_gradient_is_named():
    x, w = _leaf(4, 3), _leaf(3, 2, seed=1)
    assert _words(_check(torch.matmul, x.detach(), w))["not checked"] == "input 0 does not require a gradient"
    assert "not checked" not in _words(_check(torch.matmul, x, w))
    assert "not checked" not in _words(_check(torch.matmul, x.detach(), w.detach()))  # then all are


class Negated(torch.autograd.Function):
    """The negative, with a factor in the gradient."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return -x

    @staticmethod
    def backward(ctx, grad_output):
        return -grad_output * ctx.factor, None


@pytest.mark.parametrize("error", [1e-6, 1e-9])
def test_numbers_of_float32_that_are_only_copied_count_as_exact(error):
    x = _leaf(5, 5, dtype=torch.float32)
    assert _check(lambda x: Negated.apply(x, 1.0), x).passed
    assert _check(lambda x: Negated.apply(x, 1.0 + error), x).verdict == "fail"
    rounded = _check(lambda x: Negated.apply(x.float().double(), 1.0 + error), x)  # computes in float32 indeed
    assert rounded.verdict != "fail"


def test_outputs_in_any_form():
    x = _leaf(6)
    for function in (
        lambda x: (x.sin(), x.cos()),
        lambda x: {"a": x.sin(), "b": [x.exp(), (x * 2,)]},
        lambda x: (x.sin(), None, 3, x.argmax()),
        lambda x: x.topk(3),
    ):
        assert _check(function, x).passed
    assert _check(lambda x: {"a": x.sin(), "b": wrong(torch.exp, FAULTS["all by 1e-4"])(x)}, x).verdict == "fail"


def test_a_cotangent_may_be_given_in_the_form_of_the_outputs():
    x, v = _leaf(6), torch.zeros(6)
    right = (torch.ones(6), v)
    function = wrong(torch.exp, FAULTS["all by 1e-4"])
    assert _check(lambda x: (x.sin(), function(x)), x, grad_output=right).passed
    assert _check(lambda x: (x.sin(), function(x)), x, grad_output=(v, torch.ones(6))).verdict == "fail"


def test_a_detached_output_does_not_count_and_the_report_says_so():
    report = _check(lambda x: (x.sin(), x.detach() ** 2), _leaf(6))
    assert report.passed
    assert "output 1 does not require a gradient" in _words(report)["detached output"]


def test_none_for_an_input_counts_as_zeros():
    class Forgotten(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, grad_output):
            return grad_output * ctx.saved_tensors[1], None

    report = _check(Forgotten.apply, _leaf(5), _leaf(5, seed=1))
    assert report.verdict == "fail"
    assert report.tensors["input 0"].passed
    assert "autograd returns None for input 1" in _words(report)["no gradient"]


# Random numbers, state


def test_random_numbers_are_the_same_in_every_call_and_the_generator_is_restored():
    before = torch.get_rng_state()
    report = _check(lambda x: F.dropout(x.sin(), 0.5), _leaf(40))
    assert report.passed
    assert "random numbers" in _words(report)
    assert torch.equal(torch.get_rng_state(), before) or _drawn_once(before)
    assert "random numbers" not in _words(_check(torch.sin, _leaf(4)))


def _drawn_once(before):
    """Whether the generator's state is what one call of the function leaves."""
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    F.dropout(torch.ones(40, dtype=torch.float64), 0.5)
    return torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("function", [F.dropout, lambda x: x * torch.rand_like(x)])
def test_random_numbers_in_the_order_of_the_inputs_memory(function):
    assert _check(function, _leaf(3, 4)).passed
    assert _check(lambda x: Negated.apply(function(x), 1.001), _leaf(3, 4)).verdict == "fail"


def test_a_strided_cotangent_that_is_read_wrongly_is_found():
    class Contiguous(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad_output):
            flat = grad_output.as_strided((grad_output.numel(),), (1,), grad_output.storage_offset())
            return 2 * flat.reshape(grad_output.shape)

    x = _leaf(4, 5)
    assert torch.autograd.gradcheck(Contiguous.apply, x)
    report = _check(Contiguous.apply, x)
    assert report.verdict == "fail"
    assert any("cotangent" in name for name in _words(report))


# Modules


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 3)).double()


def test_a_module_is_checked_by_its_parameters_names_and_stays_as_it_is():
    module, x = _network(), _leaf(8, 5).detach()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = _check(module, x)
    assert report.passed
    assert list(report.tensors) == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
    assert "training mode" in _words(report)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert module.training
    assert all(value.grad is None and value.requires_grad for value in module.parameters())


def test_a_module_in_eval_mode_and_its_input():
    report = _check(_network().eval(), _leaf(8, 5))
    assert report.passed
    assert "input 0" in report.tensors
    assert not {"training mode", "random numbers"} & set(_words(report))


def test_a_frozen_parameter_is_not_checked():
    module = _network()
    module[0].weight.requires_grad_(False)
    assert "0.weight" not in _check(module, _leaf(8, 5).detach()).tensors


class Scaled(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.function = wrong(lambda scale, x, shift: scale * x.sin() + shift, change)

    def forward(self, x):
        return self.function(self.scale, x, self.shift)


def test_a_wrong_backward_within_a_module_is_found_by_parameter():
    report = _check(Scaled(FAULTS["an entry by 1e-4"]), torch.rand(3, 4))
    assert report.verdict == "fail"
    assert [name for name, one in report.tensors.items() if not one.passed] == ["scale"]


def test_shared_parameters_are_one_tensor():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    report = _check(module, torch.rand(3, 4))
    assert report.passed
    assert list(report.tensors) == ["0.weight", "0.bias", "2.bias"]


def test_a_module_may_have_a_module_or_a_function_for_reference():
    module = nn.Linear(4, 3)
    x = torch.rand(5, 4, requires_grad=True)
    assert _check(module, x, reference=nn.Linear(4, 3)).passed
    assert _check(module, x, reference=lambda x, weight, bias: x @ weight.T + bias).passed
    assert _check(module, x, reference=lambda x, weight, bias: x @ weight.T - bias).verdict == "fail"


def test_a_large_module_is_covered_by_directions():
    module = nn.Linear(300, 300).double()
    report = _check(module, torch.rand(2, 300, dtype=torch.float64))
    assert report.passed
    assert report.directions["dims"] == 300 * 301


# Second derivatives and forward mode, as functions of their own


def test_the_backward_pass_is_a_function_that_can_be_checked():
    x, v = _leaf(6), _leaf(6, seed=1)

    def backward(x, v):
        return torch.autograd.grad(x.tanh(), x, v, create_graph=True)[0]

    assert _check(backward, x, v).passed


# Bad input


@pytest.mark.parametrize(
    ("function", "inputs", "words"),
    [
        (torch.ones(3), [torch.ones(3)], "expected a function of tensors or a module, then its inputs"),
        (OnlyFloat32, [torch.ones(3)], "is the class OnlyFloat32: give OnlyFloat32.apply"),
        (torch.tanh, [], "inputs are nothing: expected a tensor of floating-point numbers"),
        (torch.tanh, [3], "inputs are int"),
        (torch.tanh, [torch.arange(3)], "inputs are Tensor: expected a tensor of floating-point numbers"),
        (torch.tanh, [torch.eye(3).to_sparse()], r"input 0 is a sparse tensor, torch.sparse_coo: expected its .to_den"),
        (torch.tanh, [torch.ones(3, device="meta")], "input 0 is a tensor on the meta device, which has no"),
        (torch.tanh, [torch.tensor([1.0, float("nan")])], "finite"),
        (lambda x: x.detach(), [torch.ones(3)], r"no output of the function \(float64\) requires a gradient"),
        (torch.argmax, [torch.ones(3)], r"no output of the function \(int64\)"),
        (lambda x: x.numpy(force=True), [torch.ones(3)], "the function returns no tensor"),
        (lambda x: None, [torch.ones(3)], "the function returns no tensor"),
        (
            lambda x: x @ torch.ones(2, 2).double(),
            [torch.ones(3)],
            "the function raises RuntimeError at the start point: ",
        ),
        (nn.LazyLinear(3), [torch.ones(3)], "weight has no shape yet: call the module once"),
        (nn.Linear(3, 3, device="meta"), [torch.ones(3)], "weight is a tensor on the meta device"),
    ],
)
def test_bad_input_is_refused_in_one_line(function, inputs, words):
    with pytest.raises(FastcheckError, match=words) as error:
        _check(function, *inputs)
    assert "\n" not in str(error.value)


def test_a_reference_with_other_outputs_is_refused():
    with pytest.raises(FastcheckError, match="reference returns no output 1"):
        _check(lambda x: (x.sin(), x.cos()), _leaf(3), reference=lambda x: (x.sin(),))
    with pytest.raises(FastcheckError, match="reference is 3"):
        _check(torch.sin, _leaf(3), reference=3)


def test_unknown_arguments_are_refused():
    with pytest.raises(FastcheckError, match="check has no argument 'eps'"):
        _check(torch.sin, _leaf(3), eps=1e-6)


def test_threads_take_the_callers_number_of_threads():
    """A thread of its own begins with another number; a check may not depend on it."""
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        _check(lambda x: (seen.append(torch.get_num_threads()), x.sin())[1], _leaf(3))
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_partial_functions_and_keyword_arguments():
    assert _check(functools.partial(F.layer_norm, normalized_shape=(4,)), _leaf(3, 4)).passed
    assert np.isfinite(_check(torch.sin, _leaf(3)).tensors["input 0"].norm_ratio)
