"""What a sample of a convolution leaves out: one wrong weight of thousands is named, right gradients agree."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import Layer, case, layer, layers, operands, torch_forward

import fastcheck
from fastcheck import ConvCase, FastcheckError
from fastcheck.convolutions import pipeline
from fastcheck.convolutions.gradient_errors import gradient_errors
from fastcheck.engine.directions import COUNT, GUARDS
from fastcheck.reports.reader import from_json

pytestmark = pytest.mark.jit

LAYER = layer((1, 32, 12, 12), (64, 32, 3, 3), padding=1)
"""It has 18,432 weights."""

PHI = {"vjp": lambda z: z, "square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}

LIMITS = {
    "vjp": {"float64": 1e-6, "float32": 1.0, "float16": 300.0},
    "square": {"float64": 1e-4, "float32": 10.0},
    "relu": {"float64": 0.05, "float32": 100.0},
    "tanh": {"float64": 1e-3, "float32": 30.0},
}
"""Largest limit of detection, as a fraction of a typical entry, by loss and type."""


def _curved(a_layer, loss, dtype, seed=0):
    """The arguments of a case of any loss, with PyTorch's gradients in a type."""
    rng = np.random.default_rng(seed)
    x, w, b = operands(a_layer, seed)
    w /= np.sqrt(np.prod(w.shape[1:]))
    tensors = [torch.tensor(array, dtype=getattr(torch, dtype)).requires_grad_() for array in (x, w, b)]
    z = torch_forward(a_layer, *tensors)
    v = torch.tensor(rng.standard_normal(z.shape), dtype=z.dtype)
    grads = torch.autograd.grad(PHI[loss](z), tensors, v)
    x, w, b, v = (one.detach().double().numpy() for one in (*tensors, v))
    named = dict(zip(("input", "weight", "bias"), (grad.numpy() for grad in grads), strict=True))
    return {"input": x, "weight": w, "bias": b, "loss": loss, "grad_output": v, "grads": named, **a_layer.arguments}


def _off(arguments, name, index, size):
    """The same with one entry off, by a fraction of the tensor's typical size."""
    grads = {key: grad.copy() for key, grad in arguments["grads"].items()}
    grads[name][index] += size * np.sqrt(np.mean(grads[name].astype(np.float64) ** 2))
    return arguments | {"grads": grads}


def _check(arguments, **options):
    return fastcheck.check(ConvCase(**arguments), **({"dims": 200} | options))


@pytest.mark.parametrize(("loss", "dtype"), [(loss, dtype) for loss, limits in LIMITS.items() for dtype in limits])
def test_a_right_gradient_agrees_within_a_stated_limit(loss, dtype):
    report = _check(_curved(LAYER, loss, dtype))
    directions = report.directions
    assert report.passed
    assert directions["failing"] == 0
    assert (directions["count"], directions["chance_of_missing"]) == (COUNT, 2.0**-COUNT)
    assert directions["guards"] == GUARDS
    assert directions["dims"] == 18_432 + 32 * 144 + 64
    assert all(0 < limit <= LIMITS[loss][dtype] for limit in directions["relative_limit"].values())
    assert f"{COUNT} directions over all 23,104 dimensions agree" in " ".join(str(report).split())


@pytest.mark.parametrize(
    ("loss", "size"), [("vjp", 1.0), ("vjp", 1e-4), ("square", 1e-2), ("relu", 1.0), ("tanh", 0.1)]
)
def test_one_wrong_weight_of_thousands_is_named_and_differenced(loss, size):
    arguments = _off(_curved(LAYER, loss, "float64"), "weight", (17, 5, 1, 1), size)
    assert _check(arguments, directions=0).passed
    report = _check(arguments)
    assert report.verdict == "fail"
    assert report.directions["named"] == {"weight": [int(np.ravel_multi_index((17, 5, 1, 1), LAYER.weight_shape))]}
    assert [one.index for one in report.tensors["weight"].worst if one.verdict == "fail"] == [(17, 5, 1, 1)]
    assert report.tensors["input"].passed
    assert report.tensors["bias"].passed
    (finding,) = (one for one in report.health if one.name == "directions")
    assert finding.words.endswith("weight[17, 5, 1, 1] alone explains it, and all else agrees")


@pytest.mark.parametrize("loss", ["vjp", "square", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bounds_on_rounding_without_differences_are_those_of_the_error_bars(loss, dtype, monkeypatch):
    found = {}

    def kept(*arguments):
        found.update(gradient_errors(*arguments))
        return found

    monkeypatch.setattr(pipeline, "gradient_errors", kept)
    arguments = _curved(layer((2, 4, 7, 7), (8, 4, 3, 3), padding=1), loss, dtype)
    report = _check(arguments, dims="all", directions=1, evaluator="local", keep=True)
    for name, tensor in report.tensors.items():
        ratios = found[name].reshape(-1)[tensor.dims] / tensor.error_bar
        assert ratios.min() > 0.99
        assert np.median(ratios) < 3


@pytest.mark.parametrize("evaluator", ["local", "full"])
def test_every_evaluator_has_directions(evaluator):
    small = layer((1, 2, 6, 6), (4, 2, 3, 3))
    arguments = _curved(small, "vjp", "float64")
    assert _check(arguments, dims=4, evaluator=evaluator).directions["failing"] == 0
    wrong = _check(_off(arguments, "input", (0, 1, 2, 3), 1e-3), dims=4, evaluator=evaluator)
    assert wrong.directions["named"] == {"input": [51]}


@pytest.mark.parametrize("loss", ["vjp", "tanh", "square"])
@pytest.mark.parametrize("name", ["input", "weight", "bias"])
def test_errors_above_the_limit_are_seen_and_far_below_it_are_not(loss, name):
    arguments = _curved(layer((2, 4, 7, 7), (8, 4, 3, 3)), loss, "float64")
    report = _check(arguments, dims=3, keep=True)
    limit, sampled = report.directions["relative_limit"][name], report.tensors[name].dims
    beyond = next(dim for dim in range(arguments[name].size) if dim not in sampled)
    index = np.unravel_index(beyond, arguments[name].shape)
    assert not _check(_off(arguments, name, index, 4 * limit), dims=3).passed
    assert _check(_off(arguments, name, index, limit / 1e4), dims=3).passed


def test_a_single_wrong_entry_in_float32_is_found_where_it_is_large():
    arguments = _curved(layer((1, 4, 6, 6), (8, 4, 3, 3)), "vjp", "float32")
    assert _check(arguments, dims=3).passed
    report = _check(_off(arguments, "weight", (3, 2, 1, 1), 1.0), dims=3)
    assert report.directions["named"] == {"weight": [130]}
    assert report.verdict == "fail"


def test_an_error_within_an_entrys_own_wide_bar_fails_by_directions():
    strided = Layer((2, 5, 5), (10, 5, 2), (3,), ((2, 1),), (2,), 1)
    arguments, options = _curved(strided, "relu", "float64", 130), {"dims": 3, "seed": 130}
    limit = _check(arguments, **options).directions["relative_limit"]["weight"]
    report = _check(_off(arguments, "weight", (3, 0, 1), 1.05 * limit), **options, keep=True)
    tensor = report.tensors["weight"]
    (own,) = (row for row, dim in enumerate(tensor.dims) if dim == 31)
    assert abs(tensor.analytic[own] - tensor.numeric[own]) <= tensor.error_bar[own]
    assert report.directions["named"] == {"weight": [31]}
    assert report.verdict == tensor.verdict == "fail"
    assert report.directions["chance_of_missing"] == 2.0**-COUNT


@pytest.mark.parametrize("factor", [0.0, -1.0, 1 + 1e-5])
def test_a_tensor_that_is_wrong_as_a_whole_fails_however_few_entries_are_sampled(factor):
    arguments = _curved(LAYER, "vjp", "float64")
    grads = arguments["grads"] | {"weight": factor * arguments["grads"]["weight"]}
    report = _check(arguments | {"grads": grads}, dims={"input": 1, "weight": 1, "bias": 1})
    assert report.verdict == "fail"
    assert set(report.directions["named"]) == {"weight"}


@given(layers(), st.integers(0, 2**31), st.sampled_from([*PHI]), st.sampled_from(["float64", "float32"]))
def test_right_gradients_of_any_layer_agree_and_large_errors_do_not(a_layer, seed, loss, dtype):
    arguments = _curved(a_layer, loss, dtype, seed)
    report = _check(arguments, dims=1, directions=3, seed=seed % 1000)
    assert report.directions["failing"] == 0
    assert report.verdict != "fail"
    limits = report.directions["limit_of_detection"]
    name = ("input", "weight", "bias")[seed % 3]
    if np.isfinite(limits[name]):
        grads = {key: grad.astype(np.float64) for key, grad in arguments["grads"].items()}
        grads[name].flat[seed % grads[name].size] += 1e3 * limits[name]
        assert _check(arguments | {"grads": grads}, dims=1, directions=20, seed=seed % 1000).verdict != "pass"


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_the_limit_scales_with_the_operands(scale):
    small = layer((1, 3, 6, 6), (4, 3, 3, 3))
    plain = _curved(small, "vjp", "float64")
    grads = plain["grads"] | {name: scale * plain["grads"][name] for name in ("weight",)}
    scaled = plain | {"input": scale * plain["input"], "bias": scale * plain["bias"], "grads": grads}
    one, other = (_check(arguments, dims=3).directions for arguments in (plain, scaled))
    assert one["failing"] == other["failing"] == 0
    for name, limit in one["relative_limit"].items():
        assert 0.1 * limit < other["relative_limit"][name] < 10 * limit


def test_operands_at_the_ends_of_float64_have_no_directions_and_no_claim():
    x, w, _ = operands(layer((1, 2, 5, 5), (2, 2, 3, 3)))
    arguments = case(layer((1, 2, 5, 5), (2, 2, 3, 3)))
    grads = {"weight": arguments.grads["weight"] * 1e250}
    report = fastcheck.check(ConvCase(x * 1e250, w, grad_output=arguments.grad_output, grads=grads), dims=3)
    assert report.directions["chance_of_missing"] == 1.0
    assert "directions" not in str(report)


def test_by_default_only_what_a_sample_leaves_out_is_covered():
    arguments = _curved(layer((1, 2, 6, 6), (4, 2, 3, 3)), "vjp", "float64")
    assert _check(arguments, dims="all").directions is None
    assert _check(arguments, dims=5, directions=0).directions is None
    assert _check(arguments, dims="all", directions=3).directions["chance_of_missing"] == 2.0**-3
    assert "directions" not in _check(arguments, dims=5).requested
    assert _check(arguments, dims=5, directions=7).requested["directions"] == 7


def test_a_layer_whose_forward_passes_take_long_has_directions_where_asked(monkeypatch):
    arguments = _curved(LAYER, "vjp", "float64")
    monkeypatch.setattr(pipeline.sampling, "AUTO_WORK", 1e8)
    assert fastcheck.check(ConvCase(**arguments), dims=20).directions is None
    assert fastcheck.check(ConvCase(**arguments), dims=20, directions=2).directions["count"] == 2


def test_a_wrong_output_is_not_followed_by_directions():
    wrong = case(layer((1, 2, 6, 6), (4, 2, 3, 3)))
    wrong.output = wrong.output + 1
    assert fastcheck.check(wrong, dims=3).directions is None


def test_the_report_is_the_same_on_any_number_of_threads_and_reads_back():
    arguments = _off(_curved(LAYER, "relu", "float64"), "weight", (1, 2, 0, 0), 1.0)
    reports = [_check(arguments, threads=threads) for threads in (1, 3)]
    data = [json.loads(report.to_json()) for report in reports]
    for one in data:
        del one["run"]
    assert data[0] == data[1]
    assert from_json(reports[0].to_json()).to_json() == reports[0].to_json()


@pytest.mark.parametrize("directions", [-1, 2.5, "many", None])
def test_bad_numbers_of_directions_are_refused(directions):
    with pytest.raises(FastcheckError, match="directions is"):
        _check(_curved(layer((1, 1, 3), (1, 1, 2)), "vjp", "float64"), directions=directions)


def test_progress_is_told_direction_by_direction():
    told = []
    arguments = _curved(layer((1, 2, 6, 6), (4, 2, 3, 3)), "vjp", "float64")
    _check(arguments, dims=4, directions=3, progress=lambda *stage: told.append(stage))
    assert [stage[1:] for stage in told if stage[0] == "directions"] == [(0, 0), *((k + 1, 5) for k in range(5))]
