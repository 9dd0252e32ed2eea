"""What a sample of a network leaves out: one wrong entry in a layer that is not sampled is named, right ones agree."""

import numpy as np
import pytest
import torch_network
from hard_networks import draw
from network_examples import parameters, targets

import fastcheck
from fastcheck.engine.directions import COUNT, GUARDS, SPARE
from fastcheck.networks.layers import Conv, Dense, Flatten, MaxPool, ReLU, Tanh
from fastcheck.networks.network import Network

pytestmark = pytest.mark.jit

SHAPE = (2, 8, 8)
UNSAMPLED = "conv2.weight"


def _case(activation=Tanh, seed=0, dtype="float64", **options):
    """The arguments of a check of a convolutional network, with PyTorch's gradient."""
    layers = [Conv(6, 3), activation(), Conv(8, 3), activation(), MaxPool(2), Flatten(), Dense(5)]
    network, rng = Network(layers, **({"loss": "softmax_cross_entropy"} | options)), np.random.default_rng(seed)
    params = parameters(network, SHAPE, rng)
    params = {name: array.astype(dtype).astype(np.float64) for name, array in params.items()}
    x = rng.standard_normal((5, *SHAPE)).astype(dtype).astype(np.float64)
    y = targets(network, network.shapes(SHAPE)[-1], 5, rng)
    grads = torch_network.gradients(network, params, x, y, dtype=getattr(torch_network.torch, dtype))[1]
    return network, params, grads, x, y


def _off(case, name, index, size):
    """The same with one entry off, by a fraction of the tensor's typical size."""
    network, params, grads, x, y = case
    grads = {key: grad.copy() for key, grad in grads.items()}
    grads[name][index] += size * np.sqrt(np.mean(grads[name].astype(np.float64) ** 2))
    return network, params, grads, x, y


def _check(case, **options):
    few = dict.fromkeys(case[2], 2)
    return fastcheck.check_network(*case, **({"dims": few} | options))


def _directions(report):
    return [phase.directions for phase in report.phases.values()]


@pytest.mark.parametrize(("activation", "dtype", "most"), [(Tanh, "float64", 1e-5), (ReLU, "float64", 1e-3)])
def test_a_right_gradient_agrees_within_a_stated_limit(activation, dtype, most):
    report = _check(_case(activation, dtype=dtype))
    (directions,) = _directions(report)
    assert report.passed
    assert (directions["failing"], directions["count"], directions["guards"]) == (0, COUNT, SPARE + GUARDS)
    assert all(0 < limit <= most for limit in directions["relative_limit"].values())
    assert f"{COUNT} directions over all {directions['dims']:,} dimensions agree" in " ".join(str(report).split())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_right_gradients_of_narrower_types_agree(dtype):
    network, params, grads, x, y = _case()
    case = network, params, {name: grad.astype("float32") for name, grad in grads.items()}, x, y
    if dtype != "float32":
        grads = torch_network.gradients(network, params, x, y, dtype=getattr(torch_network.torch, dtype))[1]
        case = network, params, grads, x, y
    report = _check(case, precision=dtype)
    assert _directions(report)[0]["failing"] == 0
    assert report.verdict != "fail"


@pytest.mark.parametrize(("activation", "size"), [(Tanh, 1.0), (Tanh, 1e-4), (ReLU, 1.0), (ReLU, 0.01)])
def test_one_wrong_entry_in_a_layer_that_is_hardly_sampled_is_named(activation, size):
    case = _off(_case(activation), UNSAMPLED, (5, 3, 1, 2), size)
    assert _check(case, directions=0).passed
    report = _check(case)
    flat = int(np.ravel_multi_index((5, 3, 1, 2), case[2][UNSAMPLED].shape))
    assert report.verdict == "fail"
    assert _directions(report)[0]["named"] == {UNSAMPLED: [flat]}
    assert [one.index for one in report.tensors[UNSAMPLED].worst if one.verdict == "fail"] == [(5, 3, 1, 2)]
    assert all(tensor.passed for name, tensor in report.tensors.items() if name != UNSAMPLED)
    (finding,) = (one for phase in report.phases.values() for one in phase.health if one.name == "directions")
    assert finding.words.endswith(f"{UNSAMPLED}[5, 3, 1, 2] alone explains it, and all else agrees")
    assert "alone explains it" in " ".join(str(report).split())


def test_errors_above_the_limit_are_seen_and_far_below_it_are_not():
    limit = max(_directions(_check(_case()))[0]["relative_limit"].values())
    assert not _check(_off(_case(), UNSAMPLED, (0, 1, 2, 0), 4 * limit)).passed
    assert _check(_off(_case(), UNSAMPLED, (0, 1, 2, 0), limit / 1e4)).passed


@pytest.mark.parametrize("penalty", [{"l2": 0.01}, {"l1": 0.01}, {"l2": 0.02, "l1": 0.005}])
def test_both_phases_of_a_regularised_network_share_the_calls(penalty):
    case = _case(**penalty)
    first, second = _directions(_check(case))
    assert first["failing"] == second["failing"] == 0
    assert first["calls"] == second["calls"]
    wrong = _check(_off(case, UNSAMPLED, (5, 3, 1, 2), 0.1))
    assert wrong.verdict == "fail"
    assert all(set(one["named"]) == {UNSAMPLED} for one in _directions(wrong))


def test_only_what_is_checked_is_covered():
    report = _check(_off(_case(), UNSAMPLED, (0, 0, 0, 0), 1.0), only=["conv1"], dims=3)
    (directions,) = _directions(report)
    assert set(directions["relative_limit"]) == {"conv1.weight", "conv1.bias"}
    assert report.passed


def test_by_default_only_what_a_sample_leaves_out_is_covered():
    assert _directions(_check(_case(), dims="all")) == [None]
    assert _directions(_check(_case(), directions=0)) == [None]
    assert _directions(_check(_case(), dims="all", directions=4))[0]["chance_of_missing"] == 2.0**-4


def test_a_wrong_loss_is_not_followed_by_directions():
    report = _check(_case(), loss=1e3)
    assert report.verdict == "fail"
    assert _directions(report) == [None]


def test_the_report_is_the_same_on_any_number_of_threads():
    case = _off(_case(ReLU), UNSAMPLED, (1, 1, 1, 1), 0.1)
    one, other = (_directions(_check(case, threads=threads)) for threads in (1, 3))
    assert one == other


@pytest.mark.search
def test_right_gradients_of_hard_networks_never_contradict_directions():
    for seed in range(424_000, 424_030):
        hard = draw(seed)
        precision = hard.computed if hard.computed == "bfloat16" else None
        options = {"masks": hard.masks, "precision": precision, "dims": len(hard.grads)}
        report = fastcheck.check_network(hard.network, hard.params, hard.grads, hard.x, hard.y, **options, directions=5)
        assert [one["failing"] for one in _directions(report)] == [0] * len(report.phases), hard.described
