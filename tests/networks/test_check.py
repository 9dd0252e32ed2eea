"""Whole networks: every layer kind and loss passes with PyTorch's gradients, and fails with its wrong sibling."""

import math
from types import SimpleNamespace

import network_examples
import numpy as np
import planted_network
import pytest
import torch_network
from numba import config

import fastcheck
from fastcheck.networks import job, loss_check, penalty
from fastcheck.networks.layers import Dense, Tanh
from fastcheck.networks.network import Penalty


def _case(name, seed=0):
    network, params, x, y, masks = network_examples.CASES[name](seed)
    loss, grads = torch_network.gradients(network, params, x, y, masks)
    return network, params, grads, x, y, masks, loss


DIMS = 24 if config.DISABLE_JIT else "all"
FEW = (
    *("conv_1d", "conv_groups", "conv_3d", "max_pool_padded", "avg_pool_padded", "global_avg_pool", "cnn"),
    *("batch_norm_maps", "batch_norm_frozen", "layer_norm_maps", "dropout_maps", "add_projection", "concat_several"),
    *("group_norm_maps", "instance_norm_affine", "softmax_maps", "prelu", "prelu_maps_channels", "shared_conv_wide"),
    *("shared_prelu", "shared_layer_norm", "shared_batch_norm"),
    *("leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus"),
    *("squared_error", "multiclass_hinge", "logistic", "l2_l1_groups"),
)
"""Cases that have every kind of layer between them: enough, with few dimensions, where kernels run as Python."""


@pytest.mark.parametrize("name", FEW if config.DISABLE_JIT else network_examples.CASES)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.jit)])
def test_a_correct_gradient_passes(name, seed):
    network, params, grads, x, y, masks, loss = _case(name, seed)
    report = fastcheck.check_network(network, params, grads, x, y, masks=masks, loss=loss, dims=DIMS)
    assert report.passed, report.summary()
    for tensor in report.tensors.values():
        # Some gradients are zero, as of a bias before a normalisation: there ratios are noise.
        assert tensor.norm_ratio < 1e-8 or tensor.kinks or tensor.unresolved == tensor.dims_checked, report.summary()
        assert tensor.audit["dims"]
        assert tensor.audit["disagreements"] == 0


@pytest.mark.jit
@pytest.mark.parametrize("mistake", planted_network.MISTAKES)
def test_a_planted_mistake_fails(mistake):
    planted = planted_network.MISTAKES[mistake]
    network, params, _, x, y, masks, loss = _case(planted.case)
    wrong = planted.gradients(network, params, x, y, masks)
    report = fastcheck.check_network(network, params, wrong, x, y, masks=masks, loss=loss, dims="all")
    assert report.verdict == "fail", report.summary()
    right = torch_network.gradients(network, params, x, y, masks)[1]
    scale = max(np.abs(grad).max() for grad in right.values())  # that of a bias before a normalisation is noise
    for name, tensor in report.tensors.items():
        same = np.abs(wrong[name] - right[name]).max() <= 1e-13 * scale
        assert (tensor.verdict == "pass") == same, (name, tensor.reason)


def test_regularisation_that_overflows_is_never_a_failure():
    """NumPy's warnings are errors here."""
    network = fastcheck.Network([Dense(3), Tanh(), Dense(2)], l2=1e200)
    rng = np.random.default_rng(0)
    params = network_examples.parameters(network, (4,), rng)
    x, y = rng.standard_normal((3, 4)), np.array([0, 1, 1])
    grads = torch_network.gradients(network, params, x, y, {})[1]
    report = fastcheck.check_network(network, params, grads, x, y)
    assert report.verdict == "inconclusive"
    assert "swamps the data loss" in str(report.hygiene)


def test_an_objective_beyond_float64_is_infinite():
    def whole(*entries):
        params = {f"w{place}": np.array([entry]) for place, entry in enumerate(entries)}
        baseline = SimpleNamespace(passes=SimpleNamespace(point=SimpleNamespace(params=params)))
        return loss_check.regularisation(baseline, dict.fromkeys(params, Penalty(2.0, 0.0)))

    assert whole(3.0, 4.0) == 25.0
    assert whole(1e200) == whole(1.3e154, 1.3e154) == math.inf  # a square, and the sum of two


def test_differences_of_a_penalty_overflow_quietly():
    for w in (0.0, 1e200, -1e308):
        value, *_ = penalty.difference(Penalty(1e200, 1e200), np.array([w]), 1e150)
        assert w == 0 or not np.isfinite(value).any()
    assert np.isinf(penalty.gradient(Penalty(1e200, 0.0), np.array([1e200]))).all()
    half = {"w": np.ones(1, np.float16)}
    ones, zeros = {"w": np.ones(1)}, {"w": np.zeros(1)}
    assert np.isinf(job._without(half, {"w": Penalty(1e6, 0.0)}, ones, zeros)["w"]).all()
