"""Error bars: never exceeded by a correct gradient, and tight enough to see a wrong one."""

import itertools
import math
from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from data_kinds import KINDS, wide
from data_kinds import made as made_of
from layer_examples import case, layer, operands, torch_forward
from onednn import without_onednn
from searches import part

import fastcheck
from fastcheck.common.precision import Precision
from fastcheck.convolutions.error_bars import Bars, roundings, window
from fastcheck.convolutions.steps import automatic
from fastcheck.engine.magnitudes import SAMPLE, Structure, rms
from fastcheck_kernels import error_bars as bar_kernel

LAYER = layer((2, 6, 11, 11), (8, 3, 3, 3), stride=1, padding=1, groups=2)


@pytest.mark.jit
@pytest.mark.search
@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_correct_gradient_lies_outside(dtype, evaluator):
    layers = [LAYER, layer((1, 3, 30, 30), (2, 3, 3, 3), stride=2), layer((2, 4, 200), (4, 4, 9), dilation=3)]
    every = {"delta": 1, "local": 3, "full": 23}[evaluator]
    for seed, kinds in part(list(enumerate(itertools.product(KINDS, repeat=3)))[::every]):
        scale = 10.0 ** ((seed % 3 - 1) * 8) if wide not in kinds else 1.0
        made = made_of(layers[seed % 3], kinds, scale, dtype, seed)
        report = fastcheck.check(made, dims=200, evaluator=evaluator, seed=seed, threads=1)
        assert report.passed, (seed, [kind.__name__ for kind in kinds], report.summary())


@pytest.mark.jit
@pytest.mark.parametrize("step", ["auto", 1e-2, 1e-5, 1e-9])
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
    single = np.float32(0.1) * np.ones(3)
    assert Precision.of(np.dtype("f4"), None, (np.full(3, 0.1), single)).rounded_operands == 1
    assert Precision.of(np.dtype("f8"), None, (np.full(3, 0.1), single)).rounded_operands == 0
    assert Precision.of(np.dtype("f4"), "bfloat16", (single, np.ones(3))).rounded_operands == 1
    report = fastcheck.check(made)
    assert report.tensors["bias"].norm_ratio < 1e-6
    assert report.passed, report.summary()


def _sums(n):
    """T1 of one, from so many terms of one size."""
    return np.array([1.0, 1 / n, n, 0.0, 0.0, 0.0]).reshape(6, 1)


def test_repeated_data_widen_the_bar():
    precision = Precision("float64", 0)
    one = np.ones(1)
    smooth = Bars(1, precision, Structure(1, 1), Structure(1, 1), 10_000)(one, _sums(10_000.0))[0]
    alike = Bars(1, precision, Structure(300, 1), Structure(200, 1), 10_000)(one, _sums(10_000.0))[0]
    assert alike > 5 * smooth


def _quotient(rng, least, most, first, dtype):
    """Return v and x with 1,000 products between two sizes, behind a large one."""
    terms = np.append(first, rng.uniform(least, most, 999))
    v = rng.uniform(0.9, 1.1, 1000).astype(dtype)
    return v, (terms / v).astype(dtype)


def _near(rng):
    """Return numbers of float32 within a relative window of 2.4e-4, few of them equal."""
    return (0.1 * (1 + rng.integers(0, 2000, 100_000) * 2.0**-23)).astype(np.float32)


def _sorted(rng):
    """Return v and x whose products come in descending order: partial sums are far larger than the result."""
    v = rng.uniform(0.9, 1.1, 1_000_000)
    return v, np.sort(rng.standard_normal(v.size))[::-1] / v


RULES = {
    "repeated": lambda rng: (
        rng.choice(np.float32([0.1, 0.3, 0.7]), 100_000),
        rng.choice(np.float32([0.2, 0.9]), 100_000),
    ),
    "crowded": lambda rng: (_near(rng), _near(rng)),
    "few large terms": lambda rng: _quotient(rng, 0.5, 0.53, 1e6, np.float32),
    "absorbed": lambda rng: _quotient(rng, 0.055, 0.06, 1e15, np.float64),
    "partial sums": _sorted,
}
"""Data of which sums in their own type, term after term, need a rule of the bar (docs/error-bars.md)."""


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_bar_is_needed(rule):
    """Without the rule the bar is exceeded."""
    v, x = RULES[rule](np.random.default_rng(0))
    n, precision, terms = len(v), Precision(v.dtype.name, 0), v.astype(float) * x.astype(float)
    numeric = np.array([math.fsum(terms)])
    error = abs(float(np.cumsum(v * x)[-1]) - numeric[0])
    sizes, within = np.abs(terms), window(n, precision)
    small = sizes < precision.tiny * sizes.sum()
    sums = np.array([sizes.sum(), terms @ terms, n, sizes[small].sum(), np.count_nonzero(small), 0.0]).reshape(6, 1)
    bars = Bars(1, precision, Structure.of(v.astype(float), within), Structure.of(x.astype(float), within), n)
    assert error < bars(numeric, sums)[0]
    if rule == "repeated":
        bars = replace(bars, v=Structure.none(), x=Structure.none())
    elif rule in ("crowded", "few large terms"):
        bars._model[bar_kernel.CROWDED if rule == "crowded" else bar_kernel.PEAKED] = 0
    elif rule == "absorbed":
        sums[[bar_kernel.ABSORBED, bar_kernel.ABSORBED_TERMS]] = 0
    unneeded = 0.75 * bars._model[bar_kernel.UNIT] * math.sqrt(n) * sizes.sum() if rule == "partial sums" else 0.0
    assert error > bars(numeric, sums)[0] - unneeded


def test_structure_counts_equal_and_close_magnitudes():
    values = np.array([0.0, 0.0, 1.0, -1.0, 1.0 + 1e-10, 3.0])
    assert Structure.of(values, 1e-12) == Structure(2, 2)
    assert Structure.of(values, 1e-8) == Structure(2, 3)
    assert Structure.of(np.zeros(4), 1e-8) == Structure(0, 0)


def test_structure_of_a_large_array_is_judged_by_a_sample():
    rng = np.random.default_rng(0)
    smooth = rng.standard_normal(10 * SAMPLE)
    assert Structure.of(smooth, 1e-14).multiplicity == 1
    shades = rng.integers(1, 256, 10 * SAMPLE) / 255
    assert Structure.of(shades, 1e-14).multiplicity == np.bincount((shades * 255).round().astype(int)).max()
    single = Structure.of(smooth.astype(np.float32).astype(np.float64), 1e-5)
    exact = Structure._counted(smooth, 1e-5)
    assert exact.crowd <= single.crowd < 10 * exact.crowd


def test_the_automatic_step_is_a_power_of_two_that_follows_scale():
    values = np.random.default_rng(0).standard_normal(1000)
    size = rms(values)
    step = automatic(size, size)
    assert np.log2(step) == round(np.log2(step))
    assert automatic(rms(values * 2.0**30), size) == step * 2.0**30
    assert automatic(size, rms(values * 2.0**30)) == step / 2.0**30
    assert automatic(rms(np.zeros(3)), size) == 1.0
    assert automatic(size, None) == automatic(size, rms(np.ones(3)))


def test_roundings_of_a_blocked_sum():
    assert roundings(9, 64) == 9 + 1
    assert roundings(4608, 64) == 64 + 72


def test_every_precision_has_its_units():
    for name in ("float64", "float32", "tf32", "float16", "bfloat16"):
        precision = replace(Precision("float64", 2), name=name)
        assert 0 < precision.accumulator <= 2.0**-24
        assert precision.operand >= 2 * precision.accumulator


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pytorchs_half_precision_backward_lies_inside(dtype):
    """It rounds each sample's weight gradient and each tap's input gradient before it adds them."""
    names = ("input", "weight", "bias")
    for a_layer in (LAYER, layer((8, 3, 12, 12), (4, 3, 5, 5)), layer((2, 12, 9, 9), (12, 1, 3, 3), groups=12)):
        tensors = [torch.from_numpy(array).to(dtype).requires_grad_() for array in operands(a_layer)]
        with without_onednn():
            out = torch_forward(a_layer, *tensors)
            v = torch.from_numpy(np.random.default_rng(1).standard_normal(out.shape)).to(dtype)
            grads = dict(zip(names, torch.autograd.grad(out, tensors, v), strict=True))
        store = torch.float16 if dtype == torch.float16 else torch.float32

        def case_of(grads, tensors=tensors, v=v, store=store, a_layer=a_layer):
            x, w, b, cotangent = (t.detach().to(store).numpy() for t in (*tensors, v))
            found = {name: grad.to(store).numpy() for name, grad in grads.items()}
            precision = None if dtype == torch.float16 else "bfloat16"
            arguments = a_layer.arguments | {"precision": precision}
            return fastcheck.ConvCase(x, w, b, grad_output=cotangent, grads=found, **arguments)

        report = fastcheck.check(case_of(grads), dims=500)
        assert report.passed, report.summary()
        assert not fastcheck.check(case_of({"weight": grads["weight"] * 1.25})).passed


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_results_stored_narrower_than_computed(dtype):
    """``precision`` says how a pass computed; the array's own dtype still rounds what it stores."""
    made = case(LAYER)
    stored = {name: grad.astype(dtype) for name, grad in made.grads.items()}
    for precision in ("float64", "float32", None):
        assert fastcheck.check(case(LAYER, grads=stored, precision=precision, output=None)).passed


SCALES = list(itertools.product([1e-300, 1e-160, 1e-20, 1.0, 1e17, 1e160, 1e300], repeat=2))


@pytest.mark.jit
@pytest.mark.search
@pytest.mark.parametrize(("x_scale", "w_scale"), part(SCALES))
def test_correct_gradients_pass_at_any_scale(x_scale, w_scale):
    a_layer = layer((1, 4, 7, 7), (6, 2, 3, 3), padding=1, stride=2, groups=2)
    x, w, b = operands(a_layer)
    v = np.random.default_rng(1).standard_normal((1, 6, 4, 4))
    right = naive.backward(x, w, v, **a_layer.arguments)
    for v_scale in (1e-300, 1.0, 1e300):
        bars = {"input": v_scale * w_scale, "weight": v_scale * x_scale, "bias": v_scale}
        # Scales are multiplied in logarithms: neither the gradient nor anything on the way may leave float64.
        logs = {"input": math.log10(v_scale) + math.log10(w_scale), "weight": math.log10(v_scale) + math.log10(x_scale)}
        grads = {name: right[name] * bars[name] for name in right if -290 < logs.get(name, 0) < 295}
        arguments = {"grad_output": v * v_scale, "grads": grads, **a_layer.arguments}
        made = fastcheck.ConvCase(x * x_scale, w * w_scale, b * min(1e300, x_scale * w_scale), **arguments)
        for evaluator in ("local", "full"):
            report = fastcheck.check(made, dims="all", evaluator=evaluator, threads=1)
            assert report.passed, report.summary()
        assert not fastcheck.check(
            fastcheck.ConvCase(
                x * x_scale, w * w_scale, b * 0, **arguments | {"grads": {n: 1.001 * g for n, g in grads.items()}}
            )
        ).passed


def test_an_automatic_step_is_never_lost_in_an_entry():
    ones = np.full((1, 1, 5), 1e20)
    zero = np.zeros((1, 1, 3))
    v = np.ones((1, 1, 3))
    grads = {"input": np.zeros((1, 1, 5)), "weight": np.full((1, 1, 3), 3e20)}
    report = fastcheck.check(fastcheck.ConvCase(ones, zero, grad_output=v, grads=grads), dims="all")
    assert report.passed, report.summary()


def test_an_input_that_no_output_sees_has_derivative_zero():
    a_layer = layer((1, 1, 6), (1, 1, 1), stride=2)
    x, w, b = operands(a_layer)
    x[..., 1] = 1e20
    v = np.ones((1, 1, 3))
    grads = naive.backward(x, w, v, **a_layer.arguments)
    arguments = {"grad_output": v, **a_layer.arguments}
    assert fastcheck.check(fastcheck.ConvCase(x, w, b, grads=grads, **arguments)).passed
    grads["input"][..., 1] = 1e-9
    report = fastcheck.check(fastcheck.ConvCase(x, w, b, grads=grads, **arguments))
    assert report.tensors["input"].first_beyond == (0, 0, 1)


@pytest.mark.jit  # as Python, NumPy warns of the overflow that the kernel is to report
def test_a_gradient_beyond_float64_is_bad_input():
    x, w = np.full((1, 1, 3), 1e200), np.ones((1, 1, 1))
    made = fastcheck.ConvCase(x, w, grad_output=x, grads={"weight": np.ones((1, 1, 1))})
    with pytest.raises(fastcheck.FastcheckError, match=r"the derivative by weight at index \[0, 0, 0\] overflows"):
        fastcheck.check(made)
    output = np.ones((1, 1, 3))
    huge = fastcheck.ConvCase(x, x[..., :1], grad_output=w * output, grads={"bias": [1.0]}, bias=[0.0], output=output)
    with pytest.raises(fastcheck.FastcheckError, match="the forward pass overflows float64"):
        fastcheck.check(huge)


@pytest.mark.jit
def test_full_sees_what_local_sees():
    """The bar of `full` is that of the affected outputs, not of all that it evaluates."""
    a_layer = layer((1, 3, 60, 60), (16, 3, 3, 3))
    made = case(a_layer, output=None)
    scaled = {name: grad * (1 + 1e-11) for name, grad in made.grads.items()}
    beyond = {
        evaluator: fastcheck.check(case(a_layer, grads=scaled, output=None), dims=60, evaluator=evaluator)
        for evaluator in ("local", "full")
    }
    for name, tensor in beyond["local"].tensors.items():
        assert tensor.verdict == "fail"
        assert beyond["full"].tensors[name].beyond_error_bar == tensor.beyond_error_bar


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("loss", ["vjp", "relu", "tanh"])
def test_products_that_underflow_are_allowed_for(evaluator, loss):
    """A subnormal cotangent: its products with a move vanish in the differences, and not in the gradient."""
    a_layer = layer((1, 2, 3, 4), (3, 2, 1, 2))
    x, w, b = (np.abs(array) for array in operands(a_layer))
    b *= 1e-6
    x *= 1e-6  # makes the step small
    v = np.full((1, 3, 3, 3), 3e-323)
    v[0, 0, 0, 0] = 1.0
    slope = 1 if loss != "tanh" else 1 - np.tanh(naive.forward(x, w, b, **a_layer.arguments)) ** 2
    grads = naive.backward(x, w, v * slope, **a_layer.arguments)
    made = fastcheck.ConvCase(x, w, b, grad_output=v, grads=grads, loss=loss, **a_layer.arguments)
    report = fastcheck.check(made, dims="all", evaluator=evaluator)
    assert report.passed, report.summary()


@pytest.mark.jit
@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_a_gradient_stored_in_a_wider_type_than_it_was_computed_in_is_told_as_that(dtype, name):
    """NumPy has no bfloat16, so people save its numbers in float32; and float32's in float64."""
    tensors = [torch.from_numpy(array).to(dtype).requires_grad_() for array in operands(LAYER)]
    with without_onednn():
        out = torch_forward(LAYER, *tensors)
        v = torch.from_numpy(np.random.default_rng(1).standard_normal(out.shape)).to(dtype)
        grads = torch.autograd.grad(out, tensors, v)
    x, w, b, cotangent, *found = (one.detach().double().numpy() for one in (*tensors, v, *grads))
    arguments = LAYER.arguments | {"grad_output": cotangent, "grads": {"weight": found[1]}}
    report = fastcheck.check(fastcheck.ConvCase(x, w, b, **arguments), dims="all")
    assert report.verdict == "fail"
    assert f"give precision='{name}'" in report.tensors["weight"].advice
    declared = fastcheck.ConvCase(x, w, b, precision=name, **arguments)
    assert fastcheck.check(declared, dims="all").passed
    wrong = fastcheck.ConvCase(x, w, b, **arguments | {"grads": {"weight": -found[1]}})
    assert "precision=" not in fastcheck.check(wrong, dims="all").tensors["weight"].advice
