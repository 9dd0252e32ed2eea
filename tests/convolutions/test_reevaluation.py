"""Evaluators against each other, against PyTorch's gradients, and with wrong siblings."""

from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import planted
import pytest
from hypothesis import given, settings
from layer_examples import case, layer, layers, operands
from searches import examples

import fastcheck
from fastcheck.convolutions import passes, reevaluation
from fastcheck_kernels import difference

RICH = layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, dilation=2, groups=2)


@settings(max_examples=examples(80))
@given(a_layer=layers(most=3))
def test_correct_gradients_pass_in_any_geometry(a_layer):
    made = case(a_layer)
    for evaluator in ("local", "full"):
        report = fastcheck.check(made, dims=120, evaluator=evaluator, threads=1)
        assert report.passed, report.summary()
        assert report.forward.verdict == "pass"


@settings(max_examples=examples(80))
@given(a_layer=layers(most=3))
def test_local_finds_what_full_finds(a_layer):
    made = case(a_layer)
    local = fastcheck.check(made, dims=90, evaluator="local", keep=True, threads=1)
    full = fastcheck.check(made, dims=90, evaluator="full", keep=True, threads=1)
    for name, tensor in local.tensors.items():
        other = full.tensors[name]
        assert tensor.step == other.step
        assert np.array_equal(tensor.dims, other.dims)
        assert (np.abs(tensor.numeric - other.numeric) <= tensor.error_bar + other.error_bar).all()


@pytest.mark.jit
@pytest.mark.parametrize("evaluator", ["local", "full"])
@pytest.mark.parametrize("mistake", planted.MISTAKES, ids=lambda mistake: mistake.__name__)
def test_every_planted_mistake_is_caught_where_it_is(mistake, evaluator):
    x, w, b = operands(RICH)
    v = np.random.default_rng(1).standard_normal(naive.output_shape(x, w, RICH.stride, RICH.padding, RICH.dilation))
    right = naive.backward(x, w, v, **RICH.arguments)
    shared = {"input": x, "weight": w, "bias": b, "grad_output": v, **RICH.arguments}
    assert fastcheck.check(fastcheck.ConvCase(**shared, grads=right), evaluator=evaluator).passed
    report = fastcheck.check(fastcheck.ConvCase(**shared, grads=mistake(RICH, x, w, v)), evaluator=evaluator)
    assert {name for name, tensor in report.tensors.items() if tensor.verdict == "fail"} == planted.MISTAKES[mistake]


def test_the_numeric_gradient_is_not_the_reference_kernels_own():
    """A wrong reference backward must disagree with the differences: neither is made from the other."""
    made = case(RICH)
    weight = np.array(made.grads["weight"])
    weight.flat[17] += np.abs(weight).max()
    report = fastcheck.check(case(RICH, grads={"weight": weight}), dims="all", keep=True)
    found = report.tensors["weight"]
    assert found.beyond_error_bar == 1
    assert found.first_beyond == np.unravel_index(17, weight.shape)
    np.testing.assert_allclose(found.numeric, made.grads["weight"].ravel(), rtol=1e-10, atol=1e-12)


def test_entries_are_restored_from_their_saved_values(monkeypatch):
    """x + h - h is not x: an operand that drifts would show in what a thread works on."""
    made = case(RICH)
    seen = []
    original = reevaluation.difference.perturb

    def watched(slot, whole, dims, h, operands, *rest):
        seen.append((slot, whole, operands))
        original(slot, whole, dims, h, operands, *rest)

    monkeypatch.setattr(reevaluation.difference, "perturb", watched)
    for evaluator in ("full", "local"):
        assert fastcheck.check(made, dims=300, threads=1, step=0.1, evaluator=evaluator).passed
    assert {slot for slot, _, _ in seen} == {0, 1, 2}
    for slot, whole, worked_on in seen:
        for place, (before, after) in enumerate(zip((made.input, made.weight, made.bias), worked_on, strict=True)):
            assert np.array_equal(before.ravel(), after.ravel())
            assert np.shares_memory(before, after) == (not whole or place != slot)


def test_affected_outputs_are_exactly_those_that_change():
    made = case(RICH)
    geometry = made.geometry
    shapes = np.array([geometry.lift(a).shape for a in (made.input, made.weight, made.grad_output)], dtype=np.int64)
    arguments = RICH.arguments
    rng = np.random.default_rng(0)
    for slot, name in enumerate(("input", "weight")):
        array = made.operand(name)
        for dim in rng.choice(array.size, 25, replace=False):
            moved = array.copy()
            moved.flat[dim] += 1.0
            x, w = (moved, made.weight) if name == "input" else (made.input, moved)
            before = naive.forward(made.input, made.weight, made.bias, **arguments)
            changed = np.argwhere(geometry.lift(naive.forward(x, w, made.bias, **arguments) != before))
            region = np.empty((5, 3), dtype=np.int64)
            difference.affected(slot, int(dim), shapes, geometry.vector(), region)
            grid = [range(low, low + count * step, step) for low, count, step in region]
            covered = {tuple(i) for i in np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 5).tolist()}
            assert {tuple(i) for i in changed.tolist()} == covered


def test_magnitude_bounds_every_output():
    made = case(RICH)
    with ThreadPoolExecutor(2) as pool:
        assert (
            np.abs(passes.output(made, made.geometry, pool))
            <= passes.magnitude(made, made.geometry, pool) * (1 + 1e-14)
        ).all()
