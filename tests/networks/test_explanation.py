"""Explanations of a network's dimensions: which are explained, and words that contradict neither sweep nor truth."""

import network_examples
import numpy as np
import pytest
import searches
import torch_network

import fastcheck
from fastcheck.networks import explanation
from fastcheck.reports.tensor_report import Kept

pytestmark = pytest.mark.jit

NAMES = (
    *("cnn", "relu", "max_pool", "multiclass_hinge", "leaky_relu", "elu", "resnet", "layer_norm_maps", "l1", "add"),
    *("layer_norm_features", "batch_norm_features", "conv_2d", "conv_depthwise", "squared_error", "concat_several"),
)
CASES = [(name, seed, step) for seed in range(2) for name in NAMES for step in ("auto", 0.05)]


def _explained(name, seed=0, change=lambda grads: None, **options):
    """Check right gradients after a change to them, and explain what is found."""
    network, params, x, y, masks = network_examples.CASES[name](seed)
    grads = torch_network.gradients(network, params, x, y, masks)[1]
    change(grads)
    options = {"masks": masks, "dims": 30, "explain": True, "threads": 1} | options
    return fastcheck.check_network(network, params, grads, x, y, **options)


def _scaling(name, factor):
    return lambda grads: grads.update({name: factor * grads[name]})


@pytest.mark.search
@pytest.mark.parametrize(("name", "seed", "step"), searches.part(CASES))
def test_words_contradict_neither_the_sweep_nor_the_truth(name, seed, step):
    right = _explained(name, seed, step=step)
    assert right.verdict != "fail", right.summary()
    for found in right.explanations:
        assert found.sweep["reading"] != "coding mistake", found.words
        assert "not the whole reason" not in found.words
    for place, tensor in enumerate(right.tensors):
        report = _explained(name, seed, _scaling(tensor, (1.01, 1.001, -1.0)[place % 3]), step=step)
        for found in report.explanations:
            mistaken = found.sweep["reading"] == "coding mistake"
            assert not (mistaken and "no bug" in found.words), found.words
            assert mistaken or report.tensors[found.tensor].verdict != "fail", found.words
            assert not mistaken or found.tensor == tensor


def test_one_tensor_that_is_wrong_is_explained_wherever_it_is():
    for tensor in ("conv1.weight", "conv2.bias", "dense1.weight"):
        report = _explained("cnn", change=_scaling(tensor, 1.01))
        assert {found.tensor for found in report.explanations} == {tensor}
        assert {found.sweep["reading"] for found in report.explanations} == {"coding mistake"}
    assert {found.tensor for found in _explained("cnn").explanations} == {"conv1.weight"}


def test_of_many_that_fail_those_nearest_the_loss_are_explained():
    def wrong(grads):
        for array in grads.values():
            array *= -1

    report = _explained("cnn", change=wrong)
    assert all(tensor.verdict == "fail" for tensor in report.tensors.values())
    assert [found.tensor for found in report.explanations] == list(report.tensors)[-explanation.SHOWN :]


def test_a_phase_that_fails_alone_is_the_one_explained():
    network, params, x, y, _ = network_examples.CASES["l2"](0)
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]
    report = _explained("l2", data_grads=data | {"dense2.bias": 1.01 * data["dense2.bias"]})
    assert [phase.verdict for phase in report.phases.values()] == ["fail", "pass"]
    assert {(found.tensor, found.sweep["reading"]) for found in report.explanations} == {
        ("dense2.bias", "coding mistake")
    }


def test_kinks_are_no_excuse_for_a_gradient_that_is_wrong_beside_them():
    """At a step this large both are in the difference; without the kinks the mistake is left."""
    said = {}
    for factor in (1.0, 1.01):
        report = _explained("resnet", change=_scaling("conv1.weight", factor), step=0.05)
        quiet = [found for found in report.explanations if found.quiet_step is not None]
        assert quiet
        assert all(found.quiet_digits > found.digits for found in quiet)
        said[factor] = {": no bug." in found.words for found in quiet if found.tensor == "conv1.weight"}
    assert said == {1.0: {True}, 1.01: {False}}


def test_what_is_not_finite_is_explained_first():
    for wrong in (np.nan, np.inf, -np.inf):
        kept = Kept(np.arange(3), np.array([1.0, wrong, 2.0]), np.array([1.0, 1.0, 2.1]), np.full(3, 0.5))
        assert explanation._worst(kept) == [1]
        beside = Kept(kept.dims, kept.analytic, kept.numeric, np.full(3, 0.01))
        assert explanation._worst(beside) == [1, 2]


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_the_entry_that_is_not_finite_is_named_and_no_right_one_beside_it(wrong):
    report = _explained("cnn", change=lambda grads: grads["dense1.weight"].__setitem__((0, 1), wrong), dims="all")
    assert [(found.tensor, found.index) for found in report.explanations] == [("dense1.weight", (0, 1))]
    assert f"The analytic value is {wrong}" in report.explanations[0].words


def test_what_is_inconclusive_is_explained_where_nothing_fails():
    """Rounding of a large penalty in float32 hides the data loss."""
    network, params, x, y, _ = network_examples.CASES["l2"](0)
    network = fastcheck.Network(network.layers, l2={"dense2": 1e6})
    right = torch_network.gradients(network, params, x, y)[1]
    expected = ((np.float32, "dense2.weight", "inconclusive"), (np.float64, "dense1.weight", "pass"))
    for dtype, tensor, verdict in expected:
        grads = {name: array.astype(dtype) for name, array in right.items()}
        report = fastcheck.check_network(network, params, grads, x, y, dims=30, explain=True, threads=1)
        assert report.phases["data loss"].verdict == verdict
        assert {found.tensor for found in report.explanations} == {tensor}


def test_no_digits_are_no_negative_zero():
    report = _explained("cnn", change=_scaling("dense1.weight", 0.0))
    assert all("agrees to 0.0 digits" in found.words for found in report.explanations)


def test_dimensions_outside_their_bars_are_explained_first():
    bars = np.array([1e-9, 0.5, 1e-9, 1e-9])
    kept = Kept(np.arange(4), np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.4, 2.1, -3.0]), bars)
    assert explanation._worst(kept) == [3, 2]
    inside = Kept(kept.dims, kept.analytic, kept.numeric, 10 * np.ones(4))
    assert explanation._worst(inside) == [3, 1, 2]
