"""Losses that bend: what the slopes of a narrow type may err by, kinks at the point, steps that come closer."""

import itertools
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from data_kinds import any_layer
from layer_examples import layer, torch_forward
from onednn import without_onednn
from searches import part

import fastcheck
from fastcheck.common.precision import SMALLEST, UNITS
from fastcheck.convolutions.case import TENSORS
from fastcheck.convolutions.delta_curved import CurvedDelta
from fastcheck.convolutions.reevaluation import Reevaluation

EVALUATORS = ("delta", "local", "full")
TYPES = {name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16")}
NARROW = ("float16", "bfloat16")
PHI = {"square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh, "vjp": lambda z: z}
ONE = layer((2, 4, 6, 6), (3, 4, 1, 1))
THREE = layer((2, 4, 5, 5), (3, 4, 3, 3), padding=1)


def array_of(tensor):
    """As `ConvCase` takes it: NumPy has no bfloat16."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def made(a_layer, loss, name, arrays, v=None, factor=1.0, **changes):
    """A case with PyTorch's gradients in a type, times a factor; ``arrays`` are input, weight and bias."""
    leaves = [torch.tensor(np.asarray(array)).to(TYPES[name]).requires_grad_() for array in arrays]
    with without_onednn() if name in NARROW else nullcontext():
        out = torch_forward(a_layer, *leaves)
        v = np.random.default_rng(1).standard_normal(tuple(out.shape)) if v is None else v
        v = torch.tensor(np.asarray(v)).to(TYPES[name])
        found = torch.autograd.grad(PHI[loss](out), leaves, v)
    grads = {tensor: array_of(grad * factor) for tensor, grad in zip(TENSORS, found, strict=True)}
    x, w, b, v = map(array_of, (*leaves, v))
    precision = "bfloat16" if name == "bfloat16" else None
    arguments = {"grad_output": v, "grads": grads, "loss": loss, "precision": precision} | a_layer.arguments
    return fastcheck.ConvCase(x, w, b, **arguments | changes)


def random(a_layer, seed=0, scale=1.0, bias=1.0):
    """Operands whose outputs have a standard deviation of about ``scale``, beside the bias."""
    rng = np.random.default_rng(seed)
    terms = math.prod(a_layer.weight_shape[1:])
    x, w = rng.standard_normal(a_layer.input_shape) * scale, rng.standard_normal(a_layer.weight_shape)
    return x, w / math.sqrt(terms), rng.standard_normal(a_layer.weight_shape[0]) * bias


def checked(case, **options):
    return fastcheck.check(case, dims="all", threads=1, **options)


@pytest.mark.jit
@pytest.mark.parametrize("evaluator", ["delta", "local"])
@pytest.mark.parametrize("name", ["float32", *NARROW])
@pytest.mark.parametrize("loss", ["tanh", "square"])
def test_pytorchs_gradients_in_a_narrow_type_pass(loss, name, evaluator):
    """Of a t that is rounded, 1 - t^2 is off by u / (1 - t^2) of itself."""
    for a_layer, scale in itertools.product((ONE, THREE), (1.0, 3.0)):
        operands = random(a_layer, 0, scale)
        report = checked(made(a_layer, loss, name, operands), evaluator=evaluator)
        assert report.passed, (scale, report.summary())
        wrong = made(a_layer, loss, name, operands, factor=1.05 if name == "float32" else 1.3)
        assert checked(wrong, evaluator=evaluator).verdict == "fail"


def _rounded(name):
    """Return what rounds an array to a type."""
    return lambda array: torch.tensor(array).to(TYPES[name]).double().numpy()


def _eager(z, v, to):
    t = to(np.tanh(to(z)))
    return to(v * (1 - t * t))


def _stepwise(z, v, to):
    t = to(np.tanh(to(z)))
    return to(v * to(1 - to(t * t)))


def _fused(z, v, to):
    return to(v * (1 - to(np.tanh(z)) ** 2))


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("backward", [_eager, _stepwise, _fused])
def test_the_error_of_one_slope_is_inside_its_bar_and_the_bar_is_no_wider_than_that(backward, name):
    """Each input moves one output, z = high + low, which is between the numbers of the type."""
    to, unit = _rounded(name), UNITS[name]
    high = to(np.linspace(-9, 9, 1801))
    low = to(np.random.default_rng(0).uniform(-1, 1, high.size) * np.abs(high) * unit)
    v = to(np.random.default_rng(1).standard_normal(high.size))
    w, slope = np.ones((1, 2, 1)), 1 / np.cosh(high + low) ** 2
    grads = {"input": np.tile(backward(high + low, v, to), (1, 2, 1))}
    arguments = {"grad_output": v[None, None], "loss": "tanh", "precision": name}
    case = fastcheck.ConvCase(np.stack([high, low])[None], w, grads=grads, **arguments)
    report = checked(case, keep=True)
    found = report.tensors["input"]
    assert found.beyond_error_bar == 0
    bars = (found.error_bar.reshape(2, -1).max(axis=0) - 3 * SMALLEST[name]) / np.abs(v)
    assert (bars <= 6 * unit)[np.abs(high) < 1].all()
    assert (bars <= 9 * unit).all()
    assert (bars <= 4 * slope + 1e-2 * unit)[slope < unit / 8].all()  # where t is rounded to one
    nearly = np.tile(v * (1 - np.abs(np.tanh(high + low))), (1, 2, 1))
    wrong = fastcheck.ConvCase(case.input, w, grads={"input": nearly}, **arguments)
    assert checked(wrong).verdict == "fail"


@pytest.mark.jit
@pytest.mark.parametrize("name", NARROW)
def test_slopes_that_are_rounded_to_few_numbers_err_as_the_operand_does(name):
    """Outputs within a few spacings of -3: how far their slopes are rounded goes with the input that makes them."""
    one = layer((2, 1, 30, 30), (1, 1, 1, 1))
    for seed, spacings in itertools.product(range(2), (2, 16)):
        x, w = random(one, seed)[0], np.full((1, 1, 1, 1), spacings * UNITS[name])
        v = np.random.default_rng(seed).random((2, 1, 30, 30)) + 0.5
        report = checked(made(one, "tanh", name, (x, w, [-3.0]), v))
        assert not any(tensor.beyond_error_bar for tensor in report.tensors.values()), (seed, spacings)
        wrong = checked(made(one, "tanh", name, (x, w, [-3.0]), v, factor=3.0))
        assert wrong.tensors["bias"].verdict == "fail"


@pytest.mark.jit
@pytest.mark.search
@pytest.mark.parametrize("name", TYPES)
def test_no_right_gradient_lies_outside(name):
    failed = 0
    for seed in part(list(range(200))):
        rng = np.random.default_rng([18, seed])
        loss = ("tanh", "relu", "square")[seed % 3]
        a_layer = any_layer(rng, 2**8)
        operands = random(a_layer, seed, 10.0 ** rng.integers(-4, 4), rng.choice([0.0, 1.0, 30.0]))
        case = made(a_layer, loss, name, operands)
        if not all(np.isfinite(grad).all() for grad in case.grads.values()):
            continue
        report = fastcheck.check(case, dims=60, threads=1, seed=seed)
        assert report.verdict in ("pass", "inconclusive"), (seed, loss, report.summary())
        case.grads = {tensor: -grad for tensor, grad in case.grads.items()}
        for tensor in fastcheck.check(case, dims=60, threads=1, seed=seed, keep=True).tensors.values():
            failed += tensor.verdict == "fail"
            hidden = (np.abs(tensor.kept.analytic) <= tensor.kept.error_bar).all()
            assert not tensor.passed or tensor.subgradients or hidden, (seed, loss)
    assert failed > 10


@pytest.mark.jit
@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("believed", [1.0, 0.0, 5.0, -1.0])
def test_a_layer_whose_units_are_all_saturated_is_inconclusive(believed, name):
    """Its gradient is as good as zero, and so is a multiple of it."""
    x, w, b = random(THREE)
    operands = (np.abs(x) + 1) * 1e3, np.abs(w), b
    for evaluator in ("delta", "local"):
        report = checked(made(THREE, "tanh", name, operands, factor=believed), evaluator=evaluator)
        for tensor in report.tensors.values():
            assert tensor.verdict == "inconclusive"
            assert tensor.undecided == tensor.dims_checked
            assert tensor.reason.endswith("since the tanh is saturated")


@pytest.mark.jit
@pytest.mark.parametrize("evaluator", ["delta", "local"])
def test_a_layer_with_units_that_are_not_saturated_is_judged(evaluator):
    """One in a hundred or so has a slope; the gradients of the others are zero beside theirs."""
    a_layer = layer((4, 2, 20, 20), (3, 2, 3, 3))
    operands = random(a_layer, scale=100.0)
    assert checked(made(a_layer, "tanh", "float64", operands), evaluator=evaluator).passed
    for believed in (0.0, 1.05, -1.0):
        report = checked(made(a_layer, "tanh", "float64", operands, factor=believed), evaluator=evaluator)
        assert {tensor.verdict for tensor in report.tensors.values()} == {"fail"}


def test_outputs_that_see_no_input_do_not_decide_how_wide_a_bar_may_be():
    """The units in the padding are far from saturated, and no weight and no input moves them."""
    padded = layer((1, 2, 4, 4), (3, 2, 2, 2), padding=3)
    x, w, b = random(padded)
    operands = (np.abs(x) + 1) * 1e3, np.abs(w) + 1, b
    report = checked(made(padded, "tanh", "float64", operands))
    assert report.tensors["bias"].verdict == "pass"
    assert {report.tensors[name].verdict for name in ("input", "weight")} == {"inconclusive"}
    wrong = checked(made(padded, "tanh", "float64", operands, factor=1.05))
    assert wrong.tensors["bias"].verdict == "fail"


PADDED = layer((1, 2, 4, 4), (3, 2, 2, 2), padding=3)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_smaller_step_is_tried_where_kinks_are_crossed(evaluator):
    """Outputs in the padding are the bias, of about one, and a step for outputs of a million crosses their kinks."""
    x, w, b = random(PADDED)
    operands = x * 1e6, w, b
    assert checked(made(PADDED, "relu", "float64", operands), evaluator=evaluator).passed
    for believed in (0.0, 1.05, -1.0):
        wrong = checked(made(PADDED, "relu", "float64", operands, factor=believed), evaluator=evaluator)
        assert wrong.tensors["bias"].verdict == "fail"
    coarse = checked(made(PADDED, "relu", "float64", operands), evaluator=evaluator, step=8.0)
    assert coarse.tensors["bias"].verdict == "inconclusive"  # a step that is given is the only one


@pytest.mark.parametrize(("scale", "steps"), [(1.0, 1), (1e6, 3)])
@pytest.mark.parametrize(("kind", "evaluator"), [(CurvedDelta, "delta"), (Reevaluation, "local")])
def test_only_what_kinks_leave_undecided_is_differenced_again(monkeypatch, kind, evaluator, scale, steps):
    taken, cached = set(), kind.with_step
    monkeypatch.setattr(kind, "with_step", lambda self, dims, h: taken.add(h) or cached(self, dims, h))
    x, w, b = random(PADDED)
    case = made(PADDED, "relu", "float64", (x * scale, w, b))
    case.grads = {"bias": case.grads["bias"]}
    assert checked(case, evaluator=evaluator).passed
    assert len(taken) == steps


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("believed", [1.0, -1.0])
def test_an_output_that_a_move_outweighs_is_at_no_kink(believed, evaluator):
    """Beside outputs of 1e150 no step is small enough for those in the padding: nothing is told, and nothing passes."""
    x, w, b = random(PADDED)
    report = checked(made(PADDED, "relu", "float64", (x * 1e150, w, b), factor=believed), evaluator=evaluator)
    tensor = report.tensors["bias"]
    assert (tensor.verdict, tensor.subgradients) == ("inconclusive", 0)
    assert report.tensors["weight"].verdict == ("pass" if believed > 0 else "fail")


def _at_zero(x, w, v, grad):
    """A layer of two outputs, relu(w0 x) and relu(w1 x) at x = 0, each with a cotangent of its own."""
    w, v = np.reshape(w, (2, 1, 1)), np.reshape(v, (1, 2, 1))
    return fastcheck.ConvCase(
        np.full((1, 1, 1), x), w, loss="relu", grad_output=v, grads={"input": np.full((1, 1, 1), grad)}
    )


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(
    ("w", "v", "right", "wrong"),
    [
        ((1.0, 2.0), (1.0, 1.0), (0.0, 1.5, 3.0), (-0.01, 3.01)),
        ((1.0, -1.0), (1.0, 1.0), (-1.0, 0.0, 1.0), (-1.01, 1.01)),
        # relu(x) - relu(-x), whose slope is one: a backward pass that takes one part of both has anything up to two.
        ((1.0, -1.0), (1.0, -1.0), (0.0, 1.0, 2.0), (-0.01, 2.01)),
        ((1.0, 1.0), (1.0, -1.0), (0.0,), (-0.5, 0.5)),
    ],
)
def test_outputs_exactly_at_a_kink_have_their_slopes_together(w, v, right, wrong, evaluator):
    for grad in right:
        assert checked(_at_zero(0.0, w, v, grad), evaluator=evaluator).passed, grad
    for grad in wrong:
        assert checked(_at_zero(0.0, w, v, grad), evaluator=evaluator).verdict == "fail", grad


@pytest.mark.jit
def test_outputs_in_the_padding_do_not_choose_one_by_one():
    """Without a bias they are zero exactly: as many as the others, and together a slope of the size of one."""
    a_layer = layer((1, 2, 9, 9), (4, 2, 3, 3), padding=4)
    x, w, _ = random(a_layer, bias=0.0)
    operands = np.abs(x), np.abs(w), np.zeros(4)
    v = np.random.default_rng(3).standard_normal((1, 4, 15, 15))
    report = checked(made(a_layer, "relu", "float64", operands, v))
    assert report.passed
    for factor in (-1.0, 3.0):
        wrong = checked(made(a_layer, "relu", "float64", operands, v, factor))
        assert wrong.tensors["bias"].verdict == "fail"


@pytest.mark.jit
def test_numbers_of_a_type_that_underflow_are_allowed_for():
    """Outputs and their cotangents may lose half the least number of float16 each."""
    operands = random(ONE, scale=1e-4, bias=0.0)
    assert not checked(made(ONE, "square", "float16", operands)).tensors["input"].beyond_error_bar
    wrong = checked(made(ONE, "square", "float16", operands, factor=1.5))
    assert wrong.tensors["bias"].verdict == "fail"


@pytest.mark.jit
def test_partial_sums_of_a_type_that_underflow_are_allowed_for():
    a_layer = layer((8, 2, 5, 5), (2, 2, 3, 3))
    for seed in range(2):
        x, w, _ = random(a_layer, seed)
        v = np.random.default_rng(seed).standard_normal((8, 2, 3, 3)) * 1e-4
        report = checked(made(a_layer, "vjp", "float16", (x * 1e-3, w, np.zeros(2)), v))
        assert not any(tensor.beyond_error_bar for tensor in report.tensors.values()), report.summary()
        wrong = checked(made(a_layer, "vjp", "float16", (x * 1e-3, w, np.zeros(2)), v, factor=3.0))
        assert wrong.verdict == "fail"


@pytest.mark.jit
def test_a_bar_is_wide_in_the_measure_of_its_type():
    """A sum of terms of one sign is its own measure: two hundredths of it are no more than bfloat16 leaves."""
    a_layer = layer((4, 2, 60, 60), (3, 2, 1, 1))
    v = np.random.default_rng(1).random((4, 3, 60, 60)) + 0.5
    for factor, verdict in ((1.0, "pass"), (1.1, "fail")):
        case = made(a_layer, "vjp", "bfloat16", random(a_layer), v, factor)
        case.grads = {"bias": case.grads["bias"]}
        assert checked(case).verdict == verdict


@pytest.mark.jit
@pytest.mark.parametrize("loss", ["tanh", "square", "relu"])
def test_outputs_of_operands_that_a_type_rounds_are_known_to_that(loss):
    """The slopes are those at outputs of rounded operands, even where the terms of a gradient hold none of them."""
    outside, failed = 0, 0
    for seed in range(8):
        operands = random(ONE, seed, bias=0.0)
        narrow = made(ONE, loss, "bfloat16", operands)
        exact = dict(zip(TENSORS, operands, strict=True)) | {"grad_output": narrow.grad_output, "loss": loss}
        for factor in (1, 3):
            grads = {"bias": narrow.grads["bias"] * np.float32(factor)}
            report = checked(fastcheck.ConvCase(**exact, grads=grads, precision="bfloat16", **ONE.arguments))
            outside += report.tensors["bias"].beyond_error_bar if factor == 1 else 0
            failed += report.verdict == "fail"
    assert (outside, failed) == (0, 8)
