"""Layers that share parameters: one tensor whose gradient is the sum over its uses, and which moves all of them."""

import network_examples
import numpy as np
import pytest
import torch
import torch_network
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

import fastcheck
from fastcheck import FastcheckError
from fastcheck.networks import round_off_noise
from fastcheck.networks.case import Point
from fastcheck.networks.full import Full
from fastcheck.networks.layers import (
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Flatten,
    GroupNorm,
    LayerNorm,
    PReLU,
    ReLU,
    Softmax,
    Tanh,
)
from fastcheck.networks.network import Network
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.networks.passes import Passes
from fastcheck_kernels import columns

SHARED = [name for name in network_examples.CASES if name.startswith("shared")]


def _case(name, seed=0, **options):
    network, params, x, y, masks = network_examples.CASES[name](seed)
    return network, params, torch_network.gradients(network, params, x, y, masks, **options)[1], x, y


@st.composite
def sharing(draw):
    """Networks of layers that take any earlier one and may share its parameters; on features or on maps."""
    maps = draw(st.booleans())
    makes = [lambda **own: Tanh(), lambda **own: BatchNorm(**own), lambda **own: LayerNorm(**own)]
    makes += [lambda **own: GroupNorm(2, **own), lambda **own: PReLU(**own), lambda **own: PReLU(4, **own)]
    makes += [lambda **own: GroupNorm(4 if maps else 1, 0.1, affine=False), lambda **own: Softmax()]
    if maps:
        makes += [lambda **own: Conv(4, 3, padding=1, **own), lambda **own: Conv(4, 1, groups=4, bias=False, **own)]
        makes += [lambda **own: Conv(4, 3, padding=1, groups=2, **own)]
    else:
        makes += [lambda **own: Dense(4, **own), lambda **own: Dense(4, bias=False, **own)]
    chosen, layers = [], []
    for position in range(draw(st.integers(2, 7))):
        which = draw(st.integers(0, len(makes) - 1))
        alike = [name for other, name in chosen if other == which]
        shares = draw(st.sampled_from([None, *alike])) if alike and which not in (0, 6, 7) else None
        layer = makes[which](**({"shares": shares} if shares else {})).named(f"l{position}")
        source = draw(st.sampled_from(["x", *(one.name for one in layers)]))
        layers.append(_taking(layer, source))
        if shares is None:
            chosen.append((which, layer.name))
    taken = {layer.input for layer in layers}
    ends = [layer.name for layer in layers if layer.name not in taken]
    layers.append(Tanh(input=ends[0]))
    if len(ends) > 1:
        layers.append(Concat(tuple(ends[1:])))
    return Network([*layers, *([Flatten()] if maps else []), Dense(3)]), (4, 3, 2) if maps else (4,)


def _taking(layer, source):
    return type(layer)(**{**vars(layer), "input": source})


@pytest.mark.jit
@settings(max_examples=examples(150), deadline=None)
@given(sharing(), st.integers(0, 2**16))
def test_gradients_and_differences_of_any_sharing_are_those_of_all_uses(drawn, seed):
    network, shape = drawn
    rng = np.random.default_rng(seed)
    params = network_examples.parameters(network, shape, rng)
    x, y = rng.standard_normal((4, *shape)), rng.integers(0, 3, 4)
    passes = Passes(Point.of(network, params, x, y))
    loss, grads = torch_network.gradients(network, params, x, y)
    assert passes.loss() == pytest.approx(loss, rel=1e-12)
    found = passes.named(passes.gradient())
    size = max(np.abs(grad).max() for grad in grads.values())
    for name, grad in grads.items():
        np.testing.assert_allclose(found[name], grad, rtol=1e-9, atol=1e-12 * size, err_msg=name)
        dims = np.unique(rng.integers(0, grad.size, 5))
        moved = PartialEvaluation(passes, name)(dims, 1e-4)[:, columns.NUMERIC]
        np.testing.assert_allclose(moved, Full(passes, name, 0.0).numeric(dims, 1e-4), rtol=1e-7, atol=1e-13 * size)


@pytest.mark.jit
@pytest.mark.parametrize("name", SHARED)
def test_full_and_network_find_the_same(name):
    network, params, grads, x, y = _case(name, 3)
    for step in ("auto", 1e-3):
        fast, full = (
            fastcheck.check_network(
                network, params, grads, x, y, dims="all", evaluator=way, step=step, keep=True, threads=1
            )
            for way in ("network", "full")
        )
        assert "fail" not in (fast.verdict, full.verdict)
        for tensor, there in full.tensors.items():
            here = fast.tensors[tensor]
            assert here.kinks == there.kinks
            assert (np.abs(here.numeric - there.numeric) <= here.error_bar + there.error_bar).all()


@pytest.mark.jit
@pytest.mark.parametrize("name", SHARED)
def test_what_a_sample_leaves_out_of_a_shared_tensor_is_seen_along_directions(name):
    network, params, grads, x, y = _case(name, 5)
    few = dict.fromkeys(grads, 1)
    assert fastcheck.check_network(network, params, grads, x, y, dims=few, threads=1).passed
    shared = next(layer.shares for layer in network.layers if layer.shares)
    wrong = {**grads, f"{shared}.weight": 0.99 * grads[f"{shared}.weight"]}
    assert fastcheck.check_network(network, params, wrong, x, y, dims=few, threads=1).verdict == "fail"


@pytest.mark.jit
@pytest.mark.parametrize("name", SHARED)
def test_gradients_in_float32_pass_and_may_not_be_far_off(name):
    for seed in range(3):
        network, params, _, x, y = _case(name, seed)
        params, x = ({key: _single(array) for key, array in params.items()}, _single(x))
        grads = torch_network.gradients(network, params, x, y, dtype=torch.float32)[1]
        report = fastcheck.check_network(network, params, grads, x, y, dims="all", threads=1)
        assert report.passed, report.summary()
        shared = next(layer.shares for layer in network.layers if layer.shares)
        wrong = {**grads, f"{shared}.weight": np.float32(1.01) * grads[f"{shared}.weight"]}
        assert fastcheck.check_network(network, params, wrong, x, y, dims="all", threads=1).verdict == "fail"


def _single(array):
    return array.astype(np.float32).astype(np.float64)


@pytest.mark.jit
def test_every_use_is_rounded_by_itself():
    network, params, _, x, y = _case("shared_three_times")
    passes = Passes(Point.of(network, params, x, y))
    noisy = round_off_noise._params(passes, "float32", np.random.default_rng(0))
    copies = [noisy[copy] / passes.params[copy] - 1 for copy in passes.program.tensors["f.weight"].copies]
    assert len(copies) == 4
    assert np.abs(np.corrcoef(copies) - np.eye(4)).max() < 0.95
    assert all(0 < np.abs(copy).max() < 1e-9 for copy in copies)


@pytest.mark.jit
def test_a_difference_between_two_uses_is_right_in_float32():
    """Two nearly equal inputs of one layer, of which the difference alone counts."""
    layers = [
        *(Dense(6, name="left"), Dense(6, input="x", name="right")),
        *(Dense(5, input="left", name="f"), Tanh(name="one"), Dense(5, input="right", shares="f"), Tanh(name="other")),
        *(Concat("one"), Dense(3, name="last")),
    ]
    network = Network(layers)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        params = network_examples.parameters(network, (4,), rng)
        for name in ("weight", "bias"):
            params[f"right.{name}"] = params[f"left.{name}"] * (1 + 1e-4 * rng.standard_normal())
        params["last.weight"][:, 5:] = -params["last.weight"][:, :5]
        params["f.bias"] += 3.0
        params, x = {name: _single(array) for name, array in params.items()}, _single(rng.standard_normal((4, 4)))
        y = rng.integers(0, 3, 4)
        grads = torch_network.gradients(network, params, x, y, dtype=torch.float32)[1]
        report = fastcheck.check_network(network, params, grads, x, y, dims="all", threads=1)
        assert report.verdict in ("pass", "inconclusive"), report.summary()
        wrong = {**grads, "last.bias": np.float32(1.01) * grads["last.bias"]}
        assert fastcheck.check_network(network, params, wrong, x, y, dims="all", threads=1).verdict == "fail"


def test_a_shared_tensor_belongs_to_the_layer_that_it_was_made_for():
    network = Network([Dense(4, name="f"), ReLU(), Dense(4, bias=False, shares="f"), Dense(3)], l2=0.5)
    assert [*network.parameter_shapes((4,))] == ["f.weight", "f.bias", "dense2.weight", "dense2.bias"]
    assert [*network.penalties([*network.parameter_shapes((4,))])] == ["f.weight", "dense2.weight"]
    assert network.described()["layers"][2] == "dense1 (dense, shares f)"
    assert [*network.initial((4,))] == [*network.parameter_shapes((4,))]


REFUSALS = {
    "a layer that does not exist": (
        [Dense(4), Dense(4, shares="dense3")],
        (4,),
        r"layer 'dense2' shares 'dense3' \(did you mean 'dense1'\?\): expected an earlier dense layer with parameters "
        r"of its own: dense1",
    ),
    "a later layer": (
        [Dense(4, shares="b"), Dense(4, name="b")],
        (4,),
        r"layer 'dense1' shares 'b': expected an earlier dense layer with parameters of its own$",
    ),
    "another kind": (
        [Conv(2, 1), Flatten(), Dense(4, shares="conv1")],
        (2, 2),
        r"layer 'dense1' shares 'conv1': expected an earlier dense layer",
    ),
    "one that shares itself": (
        [Dense(4), Dense(4, shares="dense1"), Dense(4, shares="dense2")],
        (4,),
        r"shares 'dense2' \(did you mean 'dense1'\?\)",
    ),
    "nothing to share": (
        [Dense(4), Tanh(shares="dense1")],
        (4,),
        r"layer 'tanh1' shares 'dense1': a tanh layer has no",
    ),
    "another shape": (
        [Dense(4), Dense(3), Dense(4, shares="dense1")],
        (4,),
        r"layer 'dense3' shares 'dense1', whose weight does not fit: it has \(4, 4\), expected \(4, 3\)",
    ),
    "no bias to share": (
        [Dense(4, bias=False), Dense(4, shares="dense1")],
        (4,),
        r"layer 'dense2' shares 'dense1', whose bias does not fit: it has none, expected \(4,\)",
    ),
    "no statistics to share": (
        [Dense(4), BatchNorm(), BatchNorm(frozen=True, shares="batch_norm1")],
        (4,),
        r"layer 'batch_norm2' shares 'batch_norm1', whose running_mean does not fit: it has none",
    ),
}


@pytest.mark.parametrize(("layers", "shape", "told"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_shared_is_refused(layers, shape, told):
    with pytest.raises(FastcheckError, match=told):
        _arrays(layers, shape)


def _arrays(layers, shape):
    network = Network(layers)
    return network.parameter_shapes(shape) | network.buffer_shapes(shape)


def test_regularisation_names_the_layer_that_owns():
    with pytest.raises(FastcheckError, match="l2 names 'dense2': expected 'dense1', whose parameters it uses"):
        Network([Dense(4), Dense(4, shares="dense1")], l2={"dense2": 0.1})
