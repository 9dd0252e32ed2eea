"""Error bars: never exceeded by a correct gradient, and tight enough to see a wrong one."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from layers import case, layer, operands, torch_forward

import fastcheck
from fastcheck.step import Precision, Structure, Sums, automatic, error_bar, roundings

LAYER = layer((2, 6, 11, 11), (8, 3, 3, 3), stride=1, padding=1, groups=2)


def _random(rng, shape):
    return rng.standard_normal(shape)


def _sparse(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.1)


def _constant(rng, shape):
    return np.full(shape, rng.standard_normal())


def _positive(rng, shape):
    return rng.random(shape) + 0.5


def _bytes(rng, shape):
    return rng.integers(0, 256, shape) / 255


def _wide(rng, shape):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-8, 8, shape)


def _cancelling(rng, shape):
    values = rng.standard_normal(shape)
    values.flat[1::2] = -values.flat[: values.size - 1 : 2][: values.flat[1::2].size]
    return values


def _subnormal(rng, shape):
    return np.where(rng.random(shape) < 0.3, 5e-324 * rng.integers(1, 9, shape), rng.standard_normal(shape))


def _one_large(rng, shape):
    values = rng.standard_normal(shape)
    values.flat[0] = 1e6
    return values


KINDS = [_random, _sparse, _constant, _positive, _bytes, _wide, _cancelling, _subnormal, _one_large]


def _made(a_layer, kinds, scale, dtype, seed):
    rng = np.random.default_rng(seed)
    # float32 cannot hold the smallest float64: its own rounding of operands is not the gradient's fault.
    x, w = (
        kind(rng, shape).astype(dtype)
        for kind, shape in zip(kinds, (a_layer.input_shape, a_layer.weight_shape), strict=False)
    )
    b = rng.standard_normal(w.shape[0]).astype(dtype)
    x = (x * scale).astype(dtype)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    out = torch_forward(a_layer, *tensors)
    v = kinds[2](rng, out.shape).astype(dtype)
    grads = torch.autograd.grad(out, tensors, torch.from_numpy(v))
    return fastcheck.ConvCase(
        x,
        w,
        b,
        grad_output=v,
        grads={name: grad.numpy() for name, grad in zip(("input", "weight", "bias"), grads, strict=True)},
        output=out.detach().numpy(),
        **a_layer.arguments,
    )


@pytest.mark.jit
@pytest.mark.parametrize("evaluator", ["local", "full"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_correct_gradient_lies_outside(dtype, evaluator):
    layers = [LAYER, layer((1, 3, 30, 30), (2, 3, 3, 3), stride=2), layer((2, 4, 200), (4, 4, 9), dilation=3)]
    for seed, kinds in enumerate(itertools.product(KINDS, repeat=3)):
        if seed % (3 if evaluator == "local" else 23):
            continue
        scale = 10.0 ** ((seed % 3 - 1) * 8) if _wide not in kinds else 1.0
        made = _made(layers[seed % 3], kinds, scale, dtype, seed)
        report = fastcheck.check(made, dims=200, evaluator=evaluator, seed=seed, threads=1)
        assert report.passed, (seed, [kind.__name__ for kind in kinds], report.summary())


@pytest.mark.jit
@pytest.mark.parametrize("step", ["auto", 1e-2, 1e-5, 1e-9, 1e-14])
def test_bars_hold_at_any_step(step):
    report = fastcheck.check(case(LAYER), dims="all", step=step)
    assert report.passed, report.summary()
    assert report.requested["step"] == step
    if step != "auto":
        assert {tensor.step for tensor in report.tensors.values()} == {step}


@pytest.mark.jit
def test_bars_are_tight():
    report = fastcheck.check(case(LAYER), dims="all", keep=True)
    for tensor in report.tensors.values():
        used = np.abs(tensor.analytic - tensor.numeric) / tensor.error_bar
        assert np.median(used) > 1e-3
        assert np.median(tensor.error_bar / np.abs(tensor.analytic)) < 1e-12


@pytest.mark.jit
@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-12), (np.float32, 1e-3)])
def test_one_weight_slightly_wrong_is_caught_and_named(dtype, relative):
    made = case(LAYER, dtype=dtype)
    weight = np.array(made.grads["weight"])
    place = np.unravel_index(np.argsort(np.abs(weight), axis=None)[weight.size // 2], weight.shape)
    weight[place] *= 1 + relative
    report = fastcheck.check(case(LAYER, dtype=dtype, grads=made.grads | {"weight": weight}), dims="all")
    assert report.verdict == "fail"
    assert report.tensors["weight"].beyond_error_bar == 1
    assert report.tensors["weight"].worst[0].index == place
    assert report.tensors["input"].verdict == report.tensors["bias"].verdict == "pass"


@pytest.mark.jit
def test_float16_and_declared_precisions():
    x, w, b = (array.astype(np.float16) for array in operands(LAYER))
    exact = case(LAYER, input=x, weight=w, bias=b, grads={"bias": b}, output=None)
    tensors = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in (x, w, b)]
    v = torch.from_numpy(exact.grad_output)
    grads = torch.autograd.grad(torch_forward(LAYER, *tensors), tensors, v)
    names = ("input", "weight", "bias")
    half = {name: grad.numpy().astype(np.float16) for name, grad in zip(names, grads, strict=True)}
    brain = {name: grad.to(torch.bfloat16).to(torch.float32).numpy() for name, grad in zip(names, grads, strict=True)}
    shared = {"input": x, "weight": w, "bias": b, "output": None}
    assert fastcheck.check(case(LAYER, grads=half, **shared)).passed
    assert fastcheck.check(case(LAYER, grads=brain, precision="bfloat16", **shared)).passed
    assert not fastcheck.check(case(LAYER, grads=brain, **shared)).passed
    wrong = {name: (grad * np.float16(1.1)).astype(np.float16) for name, grad in half.items()}
    assert not fastcheck.check(case(LAYER, grads=wrong, **shared)).passed


@pytest.mark.jit
def test_operands_rounded_to_a_narrower_type_widen_the_bar():
    """Gradients computed in float32 from operands that the case has in float64 carry the operands' rounding."""
    x, w, b = operands(LAYER)
    narrow = case(LAYER, dtype=np.float32)
    wide = {"input": x, "weight": w, "bias": b, "output": None}
    made = case(LAYER, grads=dict(narrow.grads), grad_output=case(LAYER).grad_output, **wide)
    assert Precision.of(np.dtype("f4"), None, (np.dtype("f8"), np.dtype("f4"))).rounded_operands == 1
    report = fastcheck.check(made)
    assert report.tensors["bias"].norm_ratio < 1e-6
    assert report.passed, report.summary()


def _sums(n):
    one = np.array([1.0])
    return Sums(one, one, one / n, one * n, 0 * one, 0 * one, one)


def test_repeated_data_widen_the_bar():
    precision = Precision("float64", 0)
    smooth = error_bar(_sums(10_000.0), 1, precision, Structure(1, 1), Structure(1, 1), 10_000)
    alike = error_bar(_sums(10_000.0), 1, precision, Structure(300, 1), Structure(200, 1), 10_000)
    assert alike > 5 * smooth


def test_structure_counts_equal_and_close_magnitudes():
    values = np.array([0.0, 0.0, 1.0, -1.0, 1.0 + 1e-10, 3.0])
    assert Structure.of(values, 1e-12) == Structure(2, 2)
    assert Structure.of(values, 1e-8) == Structure(2, 3)
    assert Structure.of(np.zeros(4), 1e-8) == Structure(0, 0)


def test_the_automatic_step_is_a_power_of_two_that_follows_scale():
    values = np.random.default_rng(0).standard_normal(1000)
    step = automatic(values, values)
    assert np.log2(step) == round(np.log2(step))
    assert automatic(values * 2.0**30, values) == step * 2.0**30
    assert automatic(values, values * 2.0**30) == step / 2.0**30
    assert automatic(np.zeros(3), values) == 1.0
    assert automatic(values, None) == automatic(values, np.ones(3))


def test_roundings_of_a_blocked_sum():
    assert roundings(9, 64) == 9 + 1
    assert roundings(4608, 64) == 64 + 72


def test_every_precision_has_its_units():
    for name in ("float64", "float32", "tf32", "float16", "bfloat16"):
        precision = replace(Precision("float64", 2), name=name)
        assert 0 < precision.accumulator <= 2.0**-24
        assert precision.operand >= 2 * precision.accumulator
