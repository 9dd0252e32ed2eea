"""Diagnoses of whole networks: the bug's name, the layer that is the culprit, and the layers behind it."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import network_bugs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_network
from network_examples import CASES, masks_of, parameters, targets
from planted_network import MISTAKES
from searches import SIZE
from torch_network import LAYERS

import fastcheck
from fastcheck.common.interrupts import Interrupts
from fastcheck.diagnosis.diagnosed import UNKNOWN
from fastcheck.engine import coordinator
from fastcheck.engine.hosting import hosted
from fastcheck.engine.pipeline import Session
from fastcheck.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    Tanh,
)

SEEDS = range(3 if SIZE == "whole" else 1)


def check(network, params, grads, x, y, masks=None, **options):
    return fastcheck.check_network(network, params, grads, x, y, masks=masks or None, threads=1, **options)


def point(layers, shape=(2, 5, 5), points=4, seed=0, **options):
    """Return a network at a random point: (network, params, x, y, masks)."""
    network, rng = fastcheck.Network(layers, **options), np.random.default_rng(seed)
    params = parameters(network, shape, rng)
    y = targets(network, network.shapes(shape)[-1], points, rng)
    return network, params, rng.standard_normal((points, *shape)), y, masks_of(network, shape, points, rng)


def wrong(at, kind, names, function):
    """Return gradients with a mistake in the named layers of a kind."""
    network, params, x, y, masks = at
    replaced = network_bugs.in_layers(names, kind, function)
    return network_bugs.right(network, params, x, y, masks, replaced=replaced)


def named(report):
    return {name: network_bugs.said(one) for name, one in network_bugs.told(report).items()}


# In short, every second mistake in float32.
IN_TURNS = list(zip(MISTAKES, itertools.cycle((torch.float64, torch.float32)), strict=False))
PLANTED = list(itertools.product(MISTAKES, (torch.float64, torch.float32)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "dtype"), PLANTED if SIZE == "whole" else IN_TURNS)
def test_every_planted_mistake_is_named(name, dtype, seed):
    network, params, x, y, masks = CASES[MISTAKES[name].case](seed)
    grads = network_bugs.gradients(name, network, params, x, y, masks, dtype)
    every = named(check(network, params, grads, x, y, masks))
    assert every
    assert any(network_bugs.SAID[name] in words for words in every.values()), every


@pytest.mark.parametrize("case", [*CASES][:: 1 if SIZE == "whole" else 9])
def test_noise_has_no_name(case):
    network, params, x, y, masks = CASES[case](1)
    grads = network_bugs.with_noise(network_bugs.right(network, params, x, y, masks), 3)
    told = network_bugs.told(check(network, params, grads, x, y, masks))
    assert told
    assert {one["bug"] for one in told.values()} == {UNKNOWN}
    assert all(one["culprit"] for one in told.values())


CNN = [
    *(Conv(3, 3, padding=1), ReLU(), Conv(4, 3, padding=1), ReLU(), MaxPool(2), Flatten()),
    *(Dense(6), ReLU(), Dense(3)),
]


def passes(layer, inputs, tensors, mask):
    return inputs[0].clone()


@pytest.mark.parametrize(
    ("names", "place", "failing"),
    [
        ({"relu1"}, "at relu1; conv1 lies behind and receives the wrong cotangent", {"conv1"}),
        ({"relu2"}, "at relu2; conv1 and conv2 lie behind and receive the wrong cotangent", {"conv1", "conv2"}),
        (
            {"relu3"},
            "at relu3; conv1, conv2 and dense1 lie behind and receive the wrong cotangent",
            {"conv1", "conv2", "dense1"},
        ),
    ],
)
def test_one_layer_is_the_culprit_and_those_behind_it_are_victims(names, place, failing):
    at = point(CNN)
    network, params, x, y, _ = at
    told = network_bugs.told(check(network, params, wrong(at, "relu", names, passes), x, y))
    assert {name.rpartition(".")[0] for name in told} == failing
    for one in told.values():
        assert one["bug"] == f"the slope is missing: the cotangent is passed on as it is, in {min(names)}"
        assert one["culprit"] == place
        assert "kept from the forward pass" in one["try"]


def test_the_same_mistake_in_all_layers_is_one_diagnosis():
    at = point(CNN)
    network, params, x, y, _ = at
    report = check(network, params, wrong(at, "relu", {"relu1", "relu2", "relu3"}, passes), x, y)
    bugs = {one["bug"] for one in network_bugs.told(report).values()}
    assert bugs == {"the slope is missing: the cotangent is passed on as it is, in relu1, relu2 and relu3"}


def test_mistakes_in_two_of_three_layers():
    at = point(CNN)
    network, params, x, y, _ = at
    every = named(check(network, params, wrong(at, "relu", {"relu1", "relu3"}, passes), x, y))
    assert len(every) == 6
    assert all("the slope is missing" in words for words in every.values())
    assert not any("relu2" in words for words in every.values())


def test_two_different_mistakes_are_both_named():
    network, params, x, y, masks = point(CNN)
    replaced = network_bugs.in_layers({"relu3"}, "relu", passes)
    replaced |= network_bugs.in_layers({"max_pool1"}, "max_pool", lambda layer, i, t, m: F.avg_pool2d(i[0], 2))
    grads = network_bugs.right(network, params, x, y, masks, replaced=replaced)
    every = named(check(network, params, grads, x, y))
    assert "the slope is missing" in every["dense1.weight"]
    assert "as that of an average, in max_pool1" in every["conv2.weight"]
    assert "as that of an average, in max_pool1" in every["conv1.weight"]


def test_a_mistake_beside_missing_regularisation():
    at = point(CNN, l2=0.1)
    network, params, x, y, masks = at
    replaced = network_bugs.in_layers({"relu2"}, "relu", passes)
    grads = torch_network.gradients(network, params, x, y, masks, regularised=False, replaced=replaced)[1]
    told = network_bugs.told(check(network, params, grads, x, y))
    assert "in relu2; besides, the gradient has none of the regularisation's" in told["conv1.weight"]["bug"]
    assert "in relu2" in told["conv2.bias"]["bug"]
    assert "besides" not in told["conv2.bias"]["bug"]
    assert told["dense2.weight"]["bug"] == "the gradient has none of the regularisation's, and is right otherwise"


def test_gradients_of_each_phase_are_explained_by_themselves():
    at = point(CNN, l2=0.1)
    network, params, x, y, masks = at
    right = network_bugs.right(network, params, x, y, masks)
    data = torch_network.gradients(
        network, params, x, y, masks, regularised=False, replaced=network_bugs.in_layers({"relu2"}, "relu", passes)
    )[1]
    report = check(network, params, right, x, y, data_grads=data)
    first, second = report.cases.values()
    assert "in relu2" in first.tensors["conv1.weight"].diagnosis["bug"]
    assert second.passed
    assert all(tensor.diagnosis is None for tensor in second.tensors.values())


RESIDUAL = [
    *(Conv(3, 3, padding=1, name="stem"), ReLU(name="skip"), Conv(3, 3, padding=1, name="one"), ReLU()),
    *(Conv(3, 3, padding=1, name="two"), Add("skip", name="join"), ReLU(), GlobalAvgPool(), Dense(3)),
]


def test_a_skip_without_its_gradient_is_found_by_the_graph():
    at = point(RESIDUAL)
    network, params, x, y, _ = at
    told = network_bugs.told(check(network, params, wrong(at, "add", {"join"}, passes), x, y))
    assert {*told} == {"stem.weight", "stem.bias"}
    assert "the skip, or another later branch, gets nothing back, in join" in told["stem.weight"]["bug"]
    assert told["stem.weight"]["culprit"] == "at join; stem lies behind and receives the wrong cotangent"


def test_a_block_that_hands_nothing_back_to_an_input_read_twice():
    at = point(RESIDUAL)
    network, params, x, y, _ = at
    grads = wrong(at, "conv", {"one"}, lambda layer, i, t, m: LAYERS["conv"](layer, [i[0].detach()], t, m))
    words = named(check(network, params, grads, x, y))
    assert {*words} == {"stem.weight", "stem.bias"}
    assert "what it hands back is lost: its input is read by other layers too, in one" in words["stem.weight"]


def test_an_unknown_mistake_says_what_lies_between():
    at = point(CNN)
    network, params, x, y, _ = at
    grads = wrong(at, "max_pool", {"max_pool1"}, lambda layer, i, t, m: F.max_pool2d(torch.sin(3 * i[0]), 2))
    told = network_bugs.told(check(network, params, grads, x, y))
    assert {name.rpartition(".")[0] for name in told} == {"conv1", "conv2"}
    for one in told.values():
        assert one["bug"] == UNKNOWN
        assert one["culprit"] == (
            "at what lies between the loss and conv2, the first wrong layer on the way back: relu2, max_pool1, "
            "flatten1 and what dense1 hands back (dense1, right in its own gradients); conv1 lies behind and receives "
            "the wrong cotangent"
        )


def test_a_wrong_weight_gradient_has_no_victims():
    at = point(CNN)
    network, params, x, y, masks = at
    grads = network_bugs.right(network, params, x, y, masks)
    grads["conv2.weight"] = np.ascontiguousarray(grads["conv2.weight"][..., ::-1, ::-1])
    told = network_bugs.told(check(network, params, grads, x, y))
    assert {*told} == {"conv2.weight"}
    assert "flipped" in told["conv2.weight"]["bug"]
    grads["conv2.weight"] = np.sin(5 * grads["conv2.weight"])
    told = network_bugs.told(check(network, params, grads, x, y))
    assert told["conv2.weight"]["bug"] == UNKNOWN
    assert told["conv2.weight"]["culprit"].startswith(
        "at conv2's own gradient of weight: the layers behind it are right"
    )


OTHERS = {
    "relu of another layer": (
        CNN,
        "relu",
        {"relu2"},
        lambda layer, i, t, m: i[0] * (i[0] <= 0),
        "the mask is inverted, in relu2",
    ),
    "sigmoid twice": (
        [Dense(5), Sigmoid(), Dense(3)],
        "sigmoid",
        {"sigmoid1"},
        lambda layer, i, t, m: torch.sigmoid(torch.sigmoid(i[0].detach()) + i[0] - i[0].detach()),
        "the sigmoid is applied once more to the output, in sigmoid1",
    ),
    "tanh of the input": (
        [Dense(5), Tanh(), Dense(3)],
        "tanh",
        {"tanh1"},
        lambda layer, i, t, m: i[0] * (1 - i[0].detach() ** 2),
        "the input is used in 1 - y^2, which is of the output, in tanh1",
    ),
    "sums in batch norm": (
        [Dense(5), BatchNorm(), ReLU(), Dense(3)],
        "batch_norm",
        {"batch_norm1"},
        lambda layer, i, t, m: _norm_with_sums(layer, i[0], t),
        "sums are used where averages are right, in batch_norm1",
    ),
    "layer norm over channels": (
        [Conv(3, 2), LayerNorm(), Tanh(), Flatten(), Dense(3)],
        "layer_norm",
        {"layer_norm1"},
        lambda layer, i, t, m: (
            t["weight"] * F.layer_norm(i[0].movedim(1, -1), i[0].shape[1:2]).movedim(-1, 1) + t["bias"]
        ),
        "statistics are taken over channels alone, at each position, in layer_norm1",
    ),
    "average pool assigned": (
        [Conv(3, 2), AvgPool(2, stride=1), Tanh(), Flatten(), Dense(3)],
        "avg_pool",
        {"avg_pool1"},
        lambda layer, i, t, m: _average_of_last_windows(i[0]),
        "where windows of the average overlap, the last one's part replaces the others', in avg_pool1",
    ),
    "dropout inverted": (
        [Dense(5), Dropout(0.4), Dense(3)],
        "dropout",
        {"dropout1"},
        lambda layer, i, t, m: i[0] * (1 - m) / (1 - layer.p),
        "the mask is inverted: what was dropped is kept, in dropout1",
    ),
    "dense takes the input before the activation": (
        [Dense(5), ReLU(), Dense(4), Tanh(), Dense(3)],
        "dense",
        {"dense2"},
        None,
        "the weight's gradient takes the layer's input before the activation in front of it, in dense2",
    ),
}
"""Mistakes beside those of `planted_network`: layers, kind, mistaken ones, function, what is said."""


def _norm_with_sums(layer, x, tensors):
    """The slope with sums over data points where averages are right."""
    unit = (x - x.mean(0)) / (x.var(0, correction=0) + layer.eps).sqrt()
    inverse = 1 / (x.var(0, correction=0) + layer.eps).sqrt().detach()
    held = unit.detach()
    weight = tensors["weight"]
    # g - count * mean(g) - unit * count * mean(g * unit), times inverse
    back = inverse * x - inverse * x.sum(0) - inverse * ((x * held).sum(0)) * held
    return weight.detach() * back + weight * held + tensors["bias"]


def _average_of_last_windows(x):
    """Each pixel counts in the last 2 x 2 window that has it."""
    rows, columns = x.shape[2] - 1, x.shape[3] - 1
    out = 0
    for i in range(2):
        for j in range(2):
            part = x[:, :, i : i + rows, j : j + columns]
            last_row = torch.arange(rows) == rows - 1
            last_column = torch.arange(columns) == columns - 1
            kept = (last_row | (i == 0))[:, None] & (last_column | (j == 0))[None]
            out = out + torch.where(kept, part, part.detach()) / 4
    return out


@pytest.mark.parametrize("name", [name for name in OTHERS if OTHERS[name][3]])
def test_other_mistakes(name):
    layers, kind, names, function, words = OTHERS[name]
    at = point(layers, (5,) if layers[0].kind == "dense" else (2, 4, 4), points=5)
    network, params, x, y, masks = at
    every = named(check(network, params, wrong(at, kind, names, function), x, y, masks))
    assert every
    assert all(words in said for said in every.values()), every


def test_the_input_before_the_activation():
    network, params, x, y, _ = point(OTHERS["dense takes the input before the activation"][0], (5,))
    grads = network_bugs.right(network, params, x, y, None)
    before, *_ = torch_network.activations(network, params, x)
    # The cotangent of dense2's output, from its bias gradients one data point at a time.
    v = np.stack([network_bugs.right(network, params, x[[n]], y[[n]], None)["dense2.bias"] for n in range(len(x))])
    grads["dense2.weight"] = v.T @ before.numpy() / len(x)
    every = named(check(network, params, grads, x, y))
    assert {*every} == {"dense2.weight"}
    assert OTHERS["dense takes the input before the activation"][4] in every["dense2.weight"]


def test_an_embedding_whose_first_use_counts():
    network, params, x, y, _ = point([Embedding(4, 3), Tanh(), Flatten(), Dense(3)], (6,))
    x = np.random.default_rng(0).integers(0, 4, x.shape).astype(float)
    flat = torch.as_tensor(x).reshape(-1)
    first = ~(flat[:, None] == flat[None]).tril(-1).any(-1).reshape(x.shape)
    at = network, params, x, y, None
    grads = wrong(
        at,
        "embedding",
        {"embedding1"},
        lambda layer, i, t, m: LAYERS["embedding"](layer, i, t, m) * first[:, None],
    )
    every = named(check(network, params, grads, x, y))
    assert "the gradient of its first use alone, in embedding1" in every["embedding1.weight"]


def test_patterns_that_are_fitted():
    at = point(CNN)
    network, params, x, y, masks = at
    right = network_bugs.right(network, params, x, y, masks)
    words = named(check(network, params, {name: 1.7 * grad for name, grad in right.items()}, x, y))
    assert {words[name].partition(";")[0] for name in right} == {"the gradient has a factor of 1.7 everywhere"}
    norm = np.sqrt(sum(np.sum(grad**2) for grad in right.values()))
    words = named(check(network, params, {name: grad / (4 * norm) for name, grad in right.items()}, x, y))
    assert all("clipped by norm: the norm of all that fail is 0.25" in words[name] for name in right)


def test_zeros_everywhere_are_not_taken_for_a_layer_that_hands_nothing_back():
    network, params, x, y, _ = point(CNN)
    told = network_bugs.told(check(network, params, {name: np.zeros(one.shape) for name, one in params.items()}, x, y))
    assert {one["bug"] for one in told.values()} == {"the gradient is zero everywhere: it was never written"}


def test_exchanged_gradients():
    at = point([Dense(4), Tanh(), Dense(4), Tanh(), Dense(3)], (4,))
    network, params, x, y, masks = at
    grads = network_bugs.right(network, params, x, y, masks)
    grads["dense1.weight"], grads["dense2.weight"] = grads["dense2.weight"], grads["dense1.weight"]
    words = named(check(network, params, grads, x, y))
    assert {*words} == {"dense1.weight", "dense2.weight"}
    assert all("the gradients of dense1.weight and dense2.weight are exchanged" in said for said in words.values())


def test_only_some_tensors_are_checked():
    at = point(CNN)
    network, params, x, y, _ = at
    told = network_bugs.told(check(network, params, wrong(at, "relu", {"relu2"}, passes), x, y, only=["conv1"]))
    assert {*told} == {"conv1.weight", "conv1.bias"}
    assert "in relu2" in network_bugs.said(told["conv1.weight"])


def test_the_report_says_it():
    at = point(CNN)
    network, params, x, y, _ = at
    report = check(network, params, wrong(at, "relu", {"relu2"}, passes), x, y)
    text = " ".join(str(report).split())
    assert ": the slope is missing: the cotangent is passed on as it is, in relu2; computed again" in text
    wrongs = "conv2.bias, conv1.weight, conv2.weight and conv1.bias"
    assert f"look first ({wrongs}): at relu2; conv1 and conv2 lie behind and receive the wrong cotangent" in text
    data = json.loads(json.dumps(report.to_dict()))
    tensors = data["cases"][-1]["tensors"]
    assert tensors["conv1.weight"]["diagnosis"]["culprit"].startswith("at relu2")
    assert tensors["dense1.weight"]["diagnosis"] is None


def test_a_right_gradient_has_no_diagnosis():
    network, params, x, y, masks = point(CNN)
    report = check(network, params, network_bugs.right(network, params, x, y, masks), x, y)
    assert report
    assert not network_bugs.told(report)


def test_a_check_that_a_suite_hosts_is_diagnosed_too():
    at = point(CNN)
    network, params, x, y, _ = at
    with ThreadPoolExecutor(1) as pool, hosted(lambda pipeline, settings: _in_a_suite(pipeline, settings, pool)):
        report = check(network, params, wrong(at, "relu", {"relu2"}, passes), x, y)
    assert not report
    assert all("in relu2" in network_bugs.said(one) for one in network_bugs.told(report).values())


def _in_a_suite(pipeline, settings, pool):
    return coordinator.run_in(pipeline, Session(settings, pool, Interrupts()))
