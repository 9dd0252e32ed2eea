"""The evaluator ``delta``: its differences are computed, right for every geometry, and confirmed independently."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from layer_examples import case, layer, layers, operands, torch_forward

import fastcheck
from fastcheck.common import machine
from fastcheck.convolutions import lowering, memory, passes
from fastcheck.convolutions.audit import Audit
from fastcheck.convolutions.delta_input import InputDelta
from fastcheck.convolutions.delta_weight import WeightDelta
from fastcheck.convolutions.reevaluation import Reevaluation
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine import folding, magnitudes
from fastcheck.engine.differences import Differences
from fastcheck.metrics import tally
from fastcheck.workloads import zoo
from fastcheck.workloads.published import NETWORKS
from fastcheck_kernels import delta

TENSORS = ("input", "weight", "bias")
WIDE = layer((1, 6, 20, 20), (8, 6, 3, 3), padding=1)
NARROW = layer((2, 8, 7, 7), (256, 8, 3, 3), padding=1)
DEPTHWISE = layer((2, 12, 15, 15), (12, 1, 3, 3), stride=2, padding=1, groups=12)
BATCH = layer((3, 6, 6, 7, 8), (8, 3, 3, 2, 3), stride=2, padding=1, dilation=1, groups=2)


def _evaluators(made, pool):
    scaled = ScaledOperands.of(made)
    output = passes.output(scaled, made.geometry, pool)
    yield "input", InputDelta(made, scaled, output, "auto", pool)
    for tensor in ("weight", "bias"):
        yield tensor, WeightDelta(made, scaled, tensor, output, "auto", pool)


@given(layers())
def test_quotients_are_the_naive_vjp_for_any_geometry(a_layer):
    x, w, b = operands(a_layer)
    v = np.random.default_rng(1).standard_normal(naive.forward(x, w, b, **a_layer.arguments).shape)
    right = naive.backward(x, w, v, **a_layer.arguments)
    made = fastcheck.ConvCase(x, w, b, grad_output=v, grads=right, **a_layer.arguments)
    report = fastcheck.check(made, dims="all", evaluator="delta", keep=True)
    assert report.passed, report.summary()
    for name, tensor in report.tensors.items():
        assert np.array_equal(tensor.dims, np.arange(tensor.dims_total))
        np.testing.assert_allclose(tensor.numeric, right[name].ravel(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("a_layer", [WIDE, NARROW, DEPTHWISE, BATCH])
def test_a_sample_is_differenced_as_part_of_the_whole(a_layer):
    made = case(a_layer)
    rng = np.random.default_rng(0)
    with ThreadPoolExecutor(2) as pool:
        for tensor, evaluator in _evaluators(made, pool):
            size = made.operand(tensor).size
            whole = [evaluator(block) for block in evaluator.blocks(range(size))]
            dims = np.concatenate([part.dims for part in whole])
            assert np.array_equal(np.sort(dims), np.arange(size))
            numeric = np.empty(size)
            numeric[dims] = np.concatenate([part.numeric for part in whole])
            few = np.sort(rng.choice(size, min(size, 40), replace=False))
            sampled = [evaluator(block) for block in evaluator.blocks(few)]
            assert np.array_equal(np.concatenate([part.dims for part in sampled]), few)
            found = np.concatenate([part.numeric for part in sampled])
            np.testing.assert_allclose(found, numeric[few], rtol=1e-10, atol=1e-11)


def test_wide_and_narrow_maps_take_their_own_forms():
    with ThreadPoolExecutor(1) as pool:
        forms = {}
        for name, a_layer in (("wide", WIDE), ("narrow", NARROW), ("depthwise", DEPTHWISE)):
            forms[name] = dict(_evaluators(case(a_layer), pool))["weight"]._narrow
    assert forms == {"wide": False, "narrow": True, "depthwise": False}


@pytest.mark.parametrize("a_layer", [WIDE, NARROW, DEPTHWISE])
@pytest.mark.parametrize("tensor", TENSORS)
def test_one_entry_slightly_wrong_is_caught_and_named(a_layer, tensor):
    made = case(a_layer)
    wrong = np.array(made.grads[tensor])
    place = np.unravel_index(np.argsort(np.abs(wrong), axis=None)[wrong.size // 2], wrong.shape)
    wrong[place] *= 1 + 1e-11
    report = fastcheck.check(case(a_layer, grads=made.grads | {tensor: wrong}), dims="all", evaluator="delta")
    assert report.verdict == "fail"
    assert report.tensors[tensor].beyond_error_bar == 1
    assert report.tensors[tensor].first_beyond == report.tensors[tensor].worst[0].index == place


def test_moves_far_below_an_ulp_give_zero():
    """Folded into 2d, the difference would not be zero."""
    size = 72
    z, v = np.full(size, 1.0), np.full(size, 3.0)
    moves = np.full(size, 1e-30)
    out = np.empty((1, 9))
    layout, tile = np.array([size // 2, 1, 0]), np.array([0, 1, 0, 9])
    delta.reduce(z, v, moves, np.arange(9, dtype=np.uint64), layout, tile, 1.0, out)
    assert (out == 0).all()
    delta.reduce(z, v, moves, np.arange(9, dtype=np.uint64), layout, np.array([0, 1, 0, 2]), 1.0, out[:, :2])
    assert (out == 0).all()
    whole = np.zeros(5, dtype=np.uint64)
    sums = np.ones((5, 16))
    delta.spread(z, v, whole[:3], moves, whole, whole, whole[:3], 1.0, sums)
    assert (sums == 0).all()


@pytest.mark.parametrize("a_layer", [WIDE, NARROW, DEPTHWISE, BATCH])
def test_shifted_offsets_fail_the_audit(monkeypatch, a_layer):
    """The audit knows nothing of the lowering: a gradient that agrees with wrong differences does not pass."""
    lay_out, offset = lowering.Planes.of, lowering.Planes.offset

    def with_room(*arguments):
        planes = lay_out(*arguments)
        return replace(planes, size=planes.size + 1)

    monkeypatch.setattr(lowering.Planes, "of", with_room)
    monkeypatch.setattr(lowering.Planes, "offset", lambda self, shifts: offset(self, shifts) + 1)
    with ThreadPoolExecutor(2) as pool:
        made = case(a_layer)
        believed = {}
        for tensor, evaluator in _evaluators(made, pool):
            believed[tensor] = np.empty(made.operand(tensor).shape)
            for block in evaluator.blocks(range(believed[tensor].size)):
                found = evaluator(block)
                believed[tensor].flat[found.dims] = found.numeric
    report = fastcheck.check(case(a_layer, grads=believed, output=None), dims="all", evaluator="delta")
    for tensor in ("input", "weight"):
        assert report.tensors[tensor].beyond_error_bar == 0
        assert report.tensors[tensor].verdict == "error"
        assert report.tensors[tensor].audit["disagreements"] > 1
    assert report.tensors["bias"].verdict == "pass"  # a bias has no offsets
    assert (report.verdict, report.exit_code) == ("error", 3)


def test_either_half_of_the_audit_suffices(monkeypatch):
    made = case(WIDE)
    right = WeightDelta.__call__
    planted = {}

    def one_wrong(self, block):
        found = right(self, block)
        if self._tensor == "weight" and len(found.dims):
            numeric = found.numeric.copy()
            numeric[planted["place"]] += 1e-6
            return found._replace(numeric=numeric)
        return found

    monkeypatch.setattr(WeightDelta, "__call__", one_wrong)
    audited = Audit(made, ScaledOperands.of(made), made.output, "weight", range(432), "auto", 0)._dims
    for planted["place"], told in (
        (np.setdiff1d(np.arange(432), audited)[:1], 1),  # only the direction meets it
        (audited[:1], 2),
    ):
        report = fastcheck.check(made, dims={"weight": "all", "input": 1, "bias": 1}, evaluator="delta")
        assert report.tensors["weight"].audit["disagreements"] == told
        assert report.tensors["weight"].verdict == report.verdict == "error"


def test_the_audit_is_in_the_report():
    report = fastcheck.check(case(WIDE), dims="all")
    for tensor in report.tensors.values():
        assert tensor.evaluator == "delta"
        assert tensor.audit["dims"] == min(32, tensor.dims_total)
        assert tensor.audit["disagreements"] == 0
        direction = tensor.audit["direction"]
        assert abs(direction["difference"]) <= direction["error_bar"] < 1e-6 * abs(direction["full"])
    assert report.run["audit_seconds"] > 0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.jit
def test_every_kind_of_layer_is_left_to_delta(network):
    """No quiet fallback: the smallest layers of every network, and strided, dilated and depthwise ones among them."""
    smallest = sorted(
        NETWORKS[network].layers, key=lambda a: int(np.prod(a.geometry(1).output_shape)) * a.geometry(1).terms
    )
    names = [a_layer.name for a_layer in smallest[:2]]
    found = zoo.run(network, layers=names, tensors=TENSORS, dims=40)
    assert found.passed
    assert {t.evaluator for report in found.cases.values() for t in report.tensors.values()} == {"delta"}


def test_all_weights_of_vgg16_are_meant_by_all():
    shapes = [a_layer.geometry(1).weight_shape for a_layer in NETWORKS["vgg16"].layers]
    chosen = [
        fastcheck.engine.sampling.choose("all", {"weight": shape}, {"weight": 1}, 0)["weight"] for shape in shapes
    ]
    assert sum(map(len, chosen)) == 14_710_464
    assert all(isinstance(dims, range) for dims in chosen)  # no list of 14 million indices


@pytest.mark.parametrize("tensors", [("weight", "bias"), ("input",)])
@pytest.mark.parametrize(
    "a_layer",
    [
        layer((1, 32, 96, 96), (32, 32, 3, 3), padding=1),
        layer((1, 16, 6, 40, 40), (24, 16, 3, 3, 3), padding=1),
        layer((1, 48, 8000), (48, 48, 2), dilation=4),
        layer((4, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64),
    ],
)
@pytest.mark.jit
def test_memory_stays_within_the_promise(a_layer, tensors):
    made = case(a_layer, output=None)
    alone = case(a_layer, grads={name: made.grads[name] for name in tensors}, output=None)
    fastcheck.check(alone, dims=8, threads=2)  # compiles
    held = sum(a.nbytes for a in (made.input, made.weight, made.bias, made.grad_output, *alone.grads.values()))
    tracemalloc.start()
    try:
        fastcheck.check(alone, dims="all", threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held + peak <= memory.needed_bytes(alone.geometry, tensors)
    assert held + peak <= memory.needed_bytes(alone.geometry, tensors) - machine.OVERHEAD + 24 * 2**20


def test_planes_that_padding_makes_too_large_are_refused():
    x, w, v = np.ones((1, 1, 5, 4)), np.ones((1, 1, 2, 2)), np.ones((1, 1, 5, 4))
    arguments = {"grad_output": v, "padding": "same", "dilation": 2**31 - 1}
    grads = {"input": np.zeros_like(x), "weight": np.zeros_like(w), "bias": np.array([20.0])}
    made = fastcheck.ConvCase(x, w, np.zeros(1), grads=grads, **arguments)
    with pytest.raises(fastcheck.FastcheckError, match=r"padding makes planes of [\d,]+ bytes"):
        fastcheck.check(made)
    assert fastcheck.check(made, evaluator="local").passed
    wrong = fastcheck.ConvCase(x, w, np.zeros(1), grads=grads | {"weight": np.ones_like(w)}, **arguments)
    assert fastcheck.check(wrong, evaluator="local").verdict == "fail"


def test_sizes_are_found_once_a_case(monkeypatch):
    sized, find = [], magnitudes.rms
    monkeypatch.setattr(magnitudes, "rms", lambda values: sized.append(values.shape) or find(values))
    assert fastcheck.check(case(layer((2, 6, 9, 9), (8, 6, 3, 3), padding=1))).passed
    assert len(sized) == 5  # output, input, weight, cotangent, and the filters' bounds


@pytest.mark.parametrize(
    ("a_layer", "pieces"),
    [
        (layer((1, 3, 6, 6), (4, 3, 3, 3)), 1),
        pytest.param(layer((1, 32, 40, 40), (64, 32, 3, 3)), 4, marks=pytest.mark.jit),
    ],
)
def test_an_audit_is_cut_where_that_is_worth_a_thread(monkeypatch, a_layer, pieces):
    audited, evaluate = [], Reevaluation.__call__
    monkeypatch.setattr(Reevaluation, "__call__", lambda self, dims: audited.append(len(dims)) or evaluate(self, dims))
    assert fastcheck.check(case(a_layer), dims={"input": 1, "weight": 32, "bias": 1}, evaluator="delta").passed
    weight = [size for size in audited if size > 1]
    assert weight == [32 // pieces] * pieces


@pytest.mark.parametrize("seed", range(7))
def test_the_compiled_fold_is_numpys(seed):
    rng = np.random.default_rng(seed)
    size = (1, 9, 1000, 5000)[seed % 4]
    numeric = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 3, size)
    analytic = numeric * (1 + 10.0 ** rng.uniform(-17, 1, size) * rng.choice([-1, 1], size))
    bar = np.abs(numeric) * 10.0 ** rng.uniform(-16, 0.5, size)
    numeric[rng.random(size) < 0.1] = 0.0
    analytic[rng.random(size) < 0.1] = 0.0
    bar[rng.random(size) < 0.05] = 0.0
    dims = np.sort(rng.choice(10 * size, size, replace=False))
    if seed == 5:
        analytic[3] = np.nan
    if seed == 6:
        numeric[:] = analytic[:] = 0.0
    ours, numpys = (
        folding.merge([folding.fold(Differences(dims, numeric, bar), analytic)]),
        tally.fold(dims, analytic, numeric, bar),
    )
    assert ours.norm_ratio == pytest.approx(numpys.norm_ratio, rel=1e-12, nan_ok=True)
    counts = ("dims", "unresolved", "hidden", "sign_mismatches", "beyond", "non_finite")
    for name in (*counts, "max_ratio", "max_ratio_resolved"):
        assert getattr(ours, name) == getattr(numpys, name), name
    assert (ours.histogram, ours.first_beyond) == (numpys.histogram, numpys.first_beyond)
    assert [finding.dim for finding in ours.worst] == [finding.dim for finding in numpys.worst]


PHI = {"square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}


def _curved(a_layer, loss, dtype=np.float64, change=lambda grads: None, **arguments):
    """A case of a curved loss with PyTorch's gradients."""
    x, w, b = operands(a_layer, 0, dtype)
    tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in (x, w, b)]
    out = torch_forward(a_layer, *tensors)
    v = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    found = torch.autograd.grad(PHI[loss](out), tensors, torch.from_numpy(v))
    grads = dict(zip(TENSORS, (grad.numpy().copy() for grad in found), strict=True))
    change(grads)
    return fastcheck.ConvCase(x, w, b, grad_output=v, grads=grads, loss=loss, **a_layer.arguments, **arguments)


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", PHI)
@pytest.mark.parametrize("a_layer", [layer((2, 4, 8, 8), (6, 2, 3, 3), padding=1, groups=2), DEPTHWISE, BATCH])
@pytest.mark.jit
def test_curved_losses(a_layer, loss, dtype, evaluator):
    dims = 60 if evaluator == "full" else 400
    report = fastcheck.check(_curved(a_layer, loss, dtype), dims=dims, evaluator=evaluator)
    assert report.passed, report.summary()
    relative = 1e-6 if dtype == np.float64 else 3e-2

    def wrong(grads):
        for grad in grads.values():
            grad *= 1 + relative

    assert not fastcheck.check(_curved(a_layer, loss, dtype, wrong), dims=dims, evaluator=evaluator).passed


@pytest.mark.parametrize("evaluator", ["delta", "local"])
def test_kinks_are_counted_and_widened_or_excluded(evaluator):
    a_layer = layer((1, 2, 8, 8), (3, 2, 3, 3))
    made = _curved(a_layer, "relu")
    widened = fastcheck.check(made, dims="all", step=0.05, evaluator=evaluator)
    excluded = fastcheck.check(made, dims="all", step=0.05, evaluator=evaluator, kinks="exclude")
    assert widened.verdict == "inconclusive"  # with this step most bars are as wide as the values
    assert excluded.passed
    assert fastcheck.check(made, dims="all", evaluator=evaluator).passed
    for name, tensor in widened.tensors.items():
        assert tensor.kinks > 0
        assert tensor.beyond_error_bar == 0
        assert "kinks='exclude'" in tensor.advice
        assert (tensor.excluded, tensor.dims_checked) == (0, tensor.dims_total)
        left = excluded.tensors[name]
        assert (left.excluded, left.kinks) == (tensor.kinks, tensor.kinks)
        assert left.dims_checked == tensor.dims_total - tensor.kinks
    assert fastcheck.check(made, dims="all", step=1e-9, evaluator=evaluator).tensors["weight"].kinks == 0
    crossing = _curved(a_layer, "relu", change=lambda grads: grads["weight"].__imul__(1.5))
    assert not fastcheck.check(crossing, dims="all", evaluator=evaluator).passed


def test_losses_and_kinks_are_checked():
    with pytest.raises(fastcheck.FastcheckError, match=r"loss is 'tanhh' \(did you mean 'tanh'"):
        case(WIDE, loss="tanhh")
    with pytest.raises(fastcheck.FastcheckError, match="kinks is 'drop': expected one of widen, exclude"):
        fastcheck.check(case(WIDE), kinks="drop")
