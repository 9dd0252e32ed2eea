"""Broken backward passes, planted in plain NumPy, are named; what no known mistake makes has no name."""

from concurrent.futures import ThreadPoolExecutor

import broken_layers
import layer_examples
import naive
import numpy as np
import planted_backward
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planted_backward import PLANTS
from searches import SIZE, examples

import fastcheck
from fastcheck.convolutions import passes
from fastcheck.diagnosis import problem
from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.convolutions import replayed
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import Block
from fastcheck.diagnosis.replay import Replays, grouped_shape

EVERY = [pytest.param(name, plant, id=plant.__name__) for name, plants in PLANTS.items() for plant in plants]
SEEDS = range(20 if SIZE == "whole" else 3)


def diagnoses(case, **options):
    return replayed(case, broken_layers.failed(case, **{"dims": "all", **options}))


def names(case, **options):
    """The catalogue's names of what a case's failures are diagnosed as."""
    bugs = {hypothesis.bug: hypothesis.name for hypothesis in CATALOGUE}
    return [next(name for bug, name in bugs.items() if one.bug.startswith(bug)) for one in diagnoses(case, **options)]


@pytest.mark.parametrize(("name", "plant"), EVERY)
def test_a_planted_mistake_is_named(name, plant):
    cases = [broken_layers.planted(plant, seed) for seed in SEEDS]
    assert [name in names(case) for case in cases] == [True] * len(cases)


@pytest.mark.parametrize(("name", "plant"), EVERY)
def test_a_planted_mistake_is_named_in_float32(name, plant):
    cases = [broken_layers.planted(plant, seed, np.float32) for seed in range(20 if SIZE == "whole" else 1)]
    cases = [case for case in cases if case is not None]
    assert sum(name in names(case) for case in cases) >= 0.85 * len(cases)


@pytest.mark.parametrize(("name", "plant"), EVERY)
def test_a_name_is_given_to_what_fits_only(name, plant):
    case = broken_layers.planted(plant, 0)
    rng = np.random.default_rng(0)
    case.grads = {name: grad * (1 + 1e-6 * rng.standard_normal(grad.shape)) for name, grad in case.grads.items()}
    assert names(case) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_name(seed):
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng)
    x, w, v = broken_layers.operands(layer, rng)
    right = planted_backward.backward(x, w, v, **layer.arguments)
    grads = {n: right[n] * (1 + 1e-3 * rng.standard_normal(right[n].shape)) for n in ("input", "weight", "bias")}
    case = fastcheck.ConvCase(x, w, np.zeros(len(w)), **layer.arguments, grad_output=v, grads=grads)
    assert set(broken_layers.failed(case, dims="all")) == {"input", "weight", "bias"}
    assert names(case) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_planted_backward_is_right(seed):
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng, ranks=(1, 2))
    x, w, v = broken_layers.operands(layer, rng)
    right, found = naive.backward(x, w, v, **layer.arguments), planted_backward.backward(x, w, v, **layer.arguments)
    for name, grad in right.items():
        np.testing.assert_allclose(found[name], grad, atol=1e-12)


def test_one_cause_of_two_failures_is_one_diagnosis():
    case = broken_layers.planted(planted_backward.stride_missing, 0)
    first = diagnoses(case)[0]
    assert first.bug.startswith("the stride is missing")
    assert first.tensors == ("input", "weight")
    assert first.explained == 1
    assert first.residual < 1e-12


@pytest.mark.parametrize(
    "plant",
    [
        planted_backward.kernel_flipped,
        planted_backward.weight_gradient_stored_hwio,
        planted_backward.windows_overwritten,
        planted_backward.samples_not_transposed,
    ],
)
def test_a_sample_of_the_entries_is_enough(plant):
    case = broken_layers.planted(plant, 1, ranks=(2,))
    failed = broken_layers.failed(case, dims="all")
    for name, whole in failed.items():
        some = np.sort(np.random.default_rng(0).permutation(len(whole.dims))[: len(whole.dims) // 5])
        failed[name] = Evidence(name, whole.analytic, whole.dims[some], whole.numeric[some], whole.error_bar[some])
        assert not failed[name].is_whole
    assert [one.bug for one in replayed(case, failed)] == [one.bug for one in diagnoses(case)]
    assert replayed(case, failed)


def test_a_mistake_together_with_a_factor_is_named():
    plant = planted_backward.averaged(planted_backward.cotangent_flipped)
    for seed in SEEDS:
        case = broken_layers.planted(plant, seed, ranks=(2, 3))
        assert names(case) == ["cotangent flipped"]
        factor = f"and the gradient is multiplied by {1 / len(case.input):.6g}"
        assert diagnoses(case)[0].bug == f"the cotangent is flipped in the weight gradient: {factor}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_operands_of_two_bytes_whose_products_are_summed_in_float32_are_named(dtype):
    rng = np.random.default_rng(7)
    x, w, v = (rng.standard_normal(shape) for shape in ((4, 6, 12, 11), (5, 6, 3, 3), (4, 5, 10, 9)))
    leaves = [torch.from_numpy(one).to(dtype).float().requires_grad_() for one in (x, w)]
    rounded = torch.autograd.grad(torch.nn.functional.conv2d(*leaves), leaves, torch.from_numpy(v).to(dtype).float())
    grads = {name: grad.double().numpy() for name, grad in zip(("input", "weight"), rounded, strict=True)}
    case = fastcheck.ConvCase(x, w, grad_output=v, grads=grads)
    name = str(dtype).removeprefix("torch.")
    assert [one.bug for one in diagnoses(case)] == [f"operands are rounded to a narrower type: all operands to {name}"]
    assert diagnoses(case)[0].tensors == ("input", "weight")


def test_a_factor_alone_is_no_mistake_of_the_catalogue():
    for seed in range(10):
        plant = planted_backward.averaged(lambda layer, x, w, v, right: right)
        case = broken_layers.planted(plant, seed)
        assert set(broken_layers.failed(case, dims="all")) == {"weight"}
        assert names(case) == []


SLOPES = {
    "relu": lambda z: (z > 0).astype(float),
    "square": lambda z: z,
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
}


def _curved(loss, slope, w=None):
    """A layer under a loss, with the gradients of a backward pass that has this slope, and perhaps another kernel."""
    layer = layer_examples.layer((3, 4, 7, 6), (6, 2, 3, 2), stride=2, padding=1, groups=2)
    x, weight, b = layer_examples.operands(layer)
    z = naive.forward(x, weight, b, **layer.arguments)
    v = np.random.default_rng(5).standard_normal(z.shape)
    grads = naive.backward(x, weight if w is None else w(weight), v * slope(z), **layer.arguments)
    return fastcheck.ConvCase(x, weight, b, **layer.arguments, loss=loss, grad_output=v, grads=grads)


@pytest.mark.parametrize("loss", SLOPES)
def test_a_missing_slope_is_named(loss):
    found = diagnoses(_curved(loss, lambda z: np.ones_like(z)))
    assert found[0].bug == "the slope of the loss is missing or wrong"
    assert set(found[0].tensors) == {"input", "weight", "bias"}


def test_a_slope_that_is_multiplied_twice_is_named():
    assert names(_curved("tanh", lambda z: SLOPES["tanh"](z) ** 2)) == ["slope"]
    assert names(_curved("tanh", lambda z: 1 - z**2)) == ["slope"]


@pytest.mark.parametrize("loss", SLOPES)
def test_other_mistakes_are_named_under_a_loss(loss):
    assert names(_curved(loss, SLOPES[loss])) == []
    assert names(_curved(loss, SLOPES[loss], lambda w: w[:, :, ::-1, ::-1])) == ["kernel flipped"]


TRANSPOSED = {
    "kernel flipped": ({"input"}, lambda x, w, v, a: naive.transposed_backward(x, w[:, :, ::-1, ::-1], v, **a)),
    "stride missing": (
        {"input", "weight"},
        lambda x, w, v, a: naive.transposed_backward(x, w, v, **a | {"stride": (1, 1)}),
    ),
    "dilation missing": (
        {"input", "weight"},
        lambda x, w, v, a: naive.transposed_backward(x, w, v, **a | {"dilation": (1, 1)}),
    ),
    "padding missing": (
        {"input", "weight"},
        lambda x, w, v, a: naive.transposed_backward(x, w, v, **a | {"padding": ((0, 0), (0, 0))}),
    ),
    "channels not swapped": (
        {"input"},
        lambda x, w, v, a: naive.transposed_backward(
            x, w.reshape(2, 2, 3, *w.shape[2:]).swapaxes(1, 2).reshape(w.shape), v, **a
        ),
    ),
    "one sample": ({"weight", "bias"}, lambda x, w, v, a: naive.transposed_backward(x[-1:], w, v[-1:], **a)),
    "cotangent flipped": ({"weight"}, lambda x, w, v, a: naive.transposed_backward(x, w, v[:, :, ::-1, ::-1], **a)),
}
"""What is wrong, in which gradients, and how they are computed."""


@pytest.mark.parametrize("name", TRANSPOSED)
def test_mistakes_of_a_transposed_convolution_are_named(name):
    rng = np.random.default_rng(3)
    arguments = {"stride": (2, 3), "padding": ((1, 1), (1, 1)), "dilation": (2, 1), "groups": 2}
    x, w = rng.standard_normal((2, 6, 4, 3)), rng.standard_normal((6, 2, 3, 2))
    v = rng.standard_normal(naive.transposed_shape(x, w, **arguments, output_padding=(1, 0)))
    right = naive.transposed_backward(x, w, v, **arguments)
    wrong, compute = TRANSPOSED[name]
    grads = right | {n: grad for n, grad in compute(x, w, v, arguments).items() if n in wrong}
    case = fastcheck.ConvCase(
        x, w, np.zeros(4), **arguments, output_padding=(1, 0), transposed=True, grad_output=v, grads=grads
    )
    assert set(broken_layers.failed(case, dims="all")) == wrong
    assert diagnoses(case)[0].bug.startswith(next(one.bug for one in CATALOGUE if one.name == name))
    assert set(diagnoses(case)[0].tensors) == wrong


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_gradient_of_padding_that_is_dropped_is_named(mode):
    rng = np.random.default_rng(4)
    x, w, padding = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2)), ((1, 1), (2, 0))
    v = rng.standard_normal((2, 4, 3, 6))
    arguments = {"stride": (2, 1), "dilation": (1, 1), "groups": 1}
    right = naive.padded_backward(x, w, v, padding, mode, **arguments)
    dropped = naive.backward(x, w, v, padding=padding, **arguments)["input"]
    flipped = naive.padded_backward(x, w[:, :, ::-1, ::-1], v, padding, mode, **arguments)["input"]
    for wrong, name in ((dropped, "padding mode ignored"), (flipped, "kernel flipped")):
        given = {"grad_output": v, "grads": {**right, "input": wrong}, "padding": padding, "padding_mode": mode}
        assert names(fastcheck.ConvCase(x, w, np.zeros(4), **arguments, **given)) == [name]


@given(layer=layer_examples.layers(), mode=st.sampled_from(["zeros", "circular", "replicate", "transposed"]))
@settings(max_examples=examples(100))
def test_every_replay_has_the_shape_of_the_gradient(layer, mode):
    """Whatever the layer; nothing is raised, and a right gradient equals the replay without a mistake."""
    case = _right_case(layer, mode)
    assume(case is not None)
    with ThreadPoolExecutor(1) as pool:
        found = problem.of_case(case, pool)
        for name, grad in case.grads.items():
            shape = grouped_shape(found, name)
            block = Block(*(slice(1),) * 4, slice(2))
            replays = Replays(found, name, block, lambda shape=shape: np.ones(shape), pool)
            np.testing.assert_allclose(replays.whole(Variant()).reshape(grad.shape), grad, atol=1e-10)
            for hypothesis in CATALOGUE:
                for variant in hypothesis.variants(found) if name in hypothesis.tensors else ():
                    part = replays.of_block(variant)
                    assert part.shape == replays.cut(np.ones(shape)).shape, (hypothesis.name, variant.detail)
                    assert np.isfinite(part).all()


def _right_case(layer, mode):
    """A case with right gradients, of plain loops; None if the layer cannot be of this mode."""
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal(layer.input_shape), rng.standard_normal(layer.weight_shape)
    arguments = layer.arguments
    if mode == "transposed":
        x = rng.standard_normal((len(x), len(w), *x.shape[2:]))
        shape = naive.transposed_shape(x, w, **arguments, output_padding=(0,) * (w.ndim - 2))
        if min(shape) < 1:
            return None
        v = rng.standard_normal(shape)
        grads, more = naive.transposed_backward(x, w, v, **arguments), {"transposed": True}
    else:
        v = rng.standard_normal(naive.output_shape(x, w, layer.stride, layer.padding, layer.dilation))
        if mode == "circular" and any(max(pair) > size for pair, size in zip(layer.padding, x.shape[2:], strict=True)):
            return None
        more = {"padding_mode": mode}
        grads = naive.backward(x, w, v, **arguments)
        if mode != "zeros":
            still = {name: value for name, value in arguments.items() if name != "padding"}
            grads = naive.padded_backward(x, w, v, layer.padding, mode, **still)
    bias = np.zeros(v.shape[1])
    return fastcheck.ConvCase(x, w, bias, **arguments, **more, grad_output=v, grads=grads)


def test_a_diagnosis_costs_about_one_pass_more_than_it_confirms(monkeypatch):
    rng = np.random.default_rng(6)
    x, w = rng.standard_normal((1, 64, 14, 14)), rng.standard_normal((64, 64, 3, 3))
    v = rng.standard_normal((1, 64, 14, 14))
    arguments = [torch.from_numpy(one) for one in (v, x, w[:, :, ::-1, ::-1].copy())]
    gradients = torch.ops.aten.convolution_backward(
        *arguments, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 2 + [False]
    )
    work, original = [], passes.backward

    def counted(geometry, *operands):
        work.append(np.prod(geometry.output_shape) * geometry.terms / (v.size * 64 * 9))
        return original(geometry, *operands)

    case = fastcheck.ConvCase(x, w, padding=1, grad_output=v, grads={"input": gradients[0].numpy()})
    failed = broken_layers.failed(case, dims="all")
    monkeypatch.setattr(problem.passes, "backward", counted)
    assert [one.bug for one in replayed(case, failed)] == ["the kernel is flipped in the input gradient"]
    assert 1 <= sum(work) < 1 + len(work) / 32
    assert sum(one == 1 for one in work) == 1


def test_the_catalogue_is_in_order():
    keys = [hypothesis.name for hypothesis in CATALOGUE]
    assert len(set(keys)) == len(keys)
    assert len({hypothesis.bug for hypothesis in CATALOGUE}) == len(keys)
    planted = {*PLANTS, "slope", "padding mode ignored"}
    assert set(keys) - planted == {"stride and dilation missing", "padding of another convolution"}
