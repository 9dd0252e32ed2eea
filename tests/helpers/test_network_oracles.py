"""The oracles of networks against each other, and every planted mistake against the right gradient."""

import naive_network
import numpy as np
import pytest
import torch_network
from network_examples import CASES
from planted_network import MISTAKES, planted

from fastcheck.networks.layers import KINDS, Conv, Dense, Flatten, LeakyReLU, MaxPool, ReLU
from fastcheck.networks.network import LOSSES, Network

pytestmark = pytest.mark.jit

STEP = 1e-5


@pytest.mark.parametrize("name", CASES)
def test_plain_loops_agree_with_pytorch(name):
    network, params, x, y, masks = CASES[name](0)
    wanted = torch_network.activations(network, params, x, masks)
    for layer, found, right in zip(
        network.layers, naive_network.activations(network, params, x, masks), wanted, strict=True
    ):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-12, atol=1e-13, err_msg=layer.name)
    found = naive_network.objective(network, params, x, y, masks)
    assert found == pytest.approx(torch_network.objective(network, params, x, y, masks).item(), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_differences_agree_with_autograd(name):
    network, params, x, y, masks = CASES[name](1)
    right = torch_network.gradients(network, params, x, y, masks)[1]
    rng, smooth = np.random.default_rng(2), naive_network.smooth(network)
    for tensor in rng.permutation(list(network.parameter_shapes(x.shape[1:])))[:5]:
        index = int(rng.integers(params[tensor].size))
        if not smooth and naive_network.crossings(network, params, x, tensor, index, STEP, masks, y):
            continue
        numeric = naive_network.derivative(network, params, x, y, tensor, index, STEP, masks)
        assert numeric == pytest.approx(right[tensor].flat[index], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_wrong(name):
    case, gradients, _ = MISTAKES[name]
    network, params, x, y, masks = CASES[case](0)
    right, wrong = torch_network.gradients(network, params, x, y, masks)[1], gradients(network, params, x, y, masks)
    assert {tensor: grad.shape for tensor, grad in wrong.items()} == network.parameter_shapes(x.shape[1:])
    scale = max(np.linalg.norm(grad) for grad in right.values())
    assert any(np.linalg.norm(wrong[tensor] - grad) > 1e-6 * scale for tensor, grad in right.items())


@pytest.mark.parametrize("name", CASES)
def test_planting_the_right_function_changes_nothing(name):
    network, params, x, y, masks = CASES[name](0)
    functions = {**torch_network.LAYERS, **torch_network.LOSSES, "penalty": torch_network.penalty}
    replaced = {kind: planted(kind, right) for kind, right in functions.items()}
    value, right = torch_network.gradients(network, params, x, y, masks)
    same, found = torch_network.gradients(network, params, x, y, masks, replaced=replaced)
    assert same == value
    for tensor, grad in right.items():
        np.testing.assert_allclose(found[tensor], grad, rtol=1e-12, atol=1e-14)


def test_the_penalty_is_left_out_where_told():
    network, params, x, y, masks = CASES["l2_l1_groups"](0)
    added = naive_network.penalty(network, params)
    assert added == pytest.approx(torch_network.penalty(network, torch_network.tensors(params)).item(), rel=1e-12)
    for oracle in (naive_network, torch_network):
        whole, bare = (float(oracle.objective(network, params, x, y, masks, told)) for told in (True, False))
        assert whole - bare == pytest.approx(added, rel=1e-12)
    slopes = [naive_network.derivative(network, params, x, y, "conv1.weight", 0, STEP, masks, t) for t in (True, False)]
    w = params["conv1.weight"].flat[0]
    assert slopes[0] - slopes[1] == pytest.approx(0.3 * w + 0.2 * np.sign(w), rel=1e-8)


def test_every_kind_and_loss_has_a_case_and_a_mistake():
    networks = [make(0)[0] for make in CASES.values()]
    assert {layer.kind for network in networks for layer in network.layers} == set(KINDS)
    assert {network.loss for network in networks} == set(LOSSES)
    for kind in (*KINDS, *LOSSES, "l2", "l1"):
        assert any(name.startswith(f"{kind}_") for name in MISTAKES), kind


@pytest.mark.parametrize("name", ["cnn", "resnet", "l2_l1_groups"])
def test_single_precision_is_near(name):
    network, params, x, y, masks = CASES[name](0)
    value, right = torch_network.gradients(network, params, x, y, masks)
    single, found = torch_network.gradients(network, params, x, y, masks, dtype=torch_network.torch.float32)
    assert single == pytest.approx(value, rel=1e-5)
    for tensor, grad in right.items():
        assert found[tensor].dtype == np.float32
        np.testing.assert_allclose(found[tensor], grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kink", [ReLU(), LeakyReLU(0.1)])
def test_a_sign_that_changes_is_found(kink):
    network = Network([Dense(2), kink, Dense(1)], "squared_error")
    params = {
        "dense1.weight": np.array([[1.0], [1.0]]),
        "dense1.bias": np.array([-2.0 + 1e-3, 5.0]),
        "dense2.weight": np.ones((1, 2)),
        "dense2.bias": np.zeros(1),
    }
    x = np.array([[7.0], [2.0]])
    (found,) = naive_network.crossings(network, params, x, "dense1.bias", (0,), 1e-2)
    assert (found.layer, found.unit, found.kind) == (network.layers[1].name, (1, 0), "sign")
    np.testing.assert_allclose([found.minus, found.at, found.plus], [-9e-3, 1e-3, 1.1e-2])
    assert naive_network.crossings(network, params, x, "dense1.bias", (0,), 1e-4) == []
    assert naive_network.crossings(network, params, x, "dense2.bias", (0,), 1e-2) == []


def test_a_winner_that_changes_is_found():
    network = Network([Conv(1, 2), MaxPool(2), Flatten(), Dense(1)], "squared_error")
    params = _ones(network, (1, 3)) | {"conv1.weight": np.array([[[1.0, 1e-3]]])}
    # The convolution gives 1 + w and 1 + 2w.
    x = np.array([[[1.0, 1.0, 2.0]]])
    (found,) = naive_network.crossings(network, params, x, "conv1.weight", (0, 0, 1), 1e-2)
    assert (found.layer, found.unit, found.kind) == ("max_pool1", (0, 0, 0), "winner")
    assert (found.minus, found.at, found.plus) == (((0, 0, 0),), ((0, 0, 1),), ((0, 0, 1),))
    assert naive_network.crossings(network, params, x, "conv1.weight", (0, 0, 1), 1e-4) == []


def test_winners_that_tie_are_all_found():
    network = Network([Conv(1, 1), ReLU(), MaxPool(2), Flatten(), Dense(1)], "squared_error")
    params = _ones(network, (1, 2)) | {"conv1.bias": np.array([-1.0])}
    signs, winners = naive_network.crossings(network, params, np.array([[[0.5, 1.0]]]), "conv1.bias", 0, 0.1)
    assert (signs.layer, signs.unit) == ("relu1", (0, 0, 1))
    assert (winners.minus, winners.plus) == (((0, 0, 0), (0, 0, 1)), ((0, 0, 1),))


def test_a_hinge_that_changes_is_found():
    network = Network([Dense(3)], "multiclass_hinge", margin=0.5)
    params = {"dense1.weight": np.zeros((3, 2)), "dense1.bias": np.array([0.0, 0.5 + 1e-3, -2.0])}
    x, y = np.ones((2, 2)), np.array([1, 2])
    # The first point's term of class 0 is -1e-3; the true class has none.
    (found,) = naive_network.crossings(network, params, x, "dense1.bias", 0, 1e-2, y=y)
    assert (found.layer, found.unit, found.kind) == ("multiclass_hinge", (0, 0), "sign")
    np.testing.assert_allclose([found.minus, found.at, found.plus], [-1.1e-2, -1e-3, 9e-3])
    assert naive_network.crossings(network, params, x, "dense1.bias", 0, 1e-4, y=y) == []


def _ones(network, input_shape):
    return {name: np.ones(shape) for name, shape in network.parameter_shapes(input_shape).items()}
