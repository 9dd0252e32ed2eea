"""What a network is lowered to means the same to the kernels, and its passes are PyTorch's."""

import network_examples
import numpy as np
import pytest
import torch_network
from hypothesis import given
from hypothesis import strategies as st

from fastcheck.networks import program
from fastcheck.networks.case import Point
from fastcheck.networks.evaluator import BLOCK_WORK, blocks_of
from fastcheck.networks.layers import Conv, Dense, Flatten, MaxPool, ReLU
from fastcheck.networks.network import LOSSES, Network
from fastcheck.networks.partial import PartialEvaluation, work
from fastcheck.networks.passes import CHUNK, Passes, lowered, pieces
from fastcheck_kernels import columns, layers, losses, tile


def test_kinds_and_columns_have_the_kernels_numbers():
    assert {kind: getattr(layers, kind.upper()) for kind in program.NODE_KINDS} == {
        kind: place for place, kind in enumerate(program.NODE_KINDS)
    }
    assert {name: getattr(columns, name.upper()) for name in program.COLUMNS} == {
        name: place for place, name in enumerate(program.COLUMNS)
    }
    assert len(program.COLUMNS) == columns.COLUMNS
    numbers = (losses.SOFTMAX, losses.SQUARED, losses.HINGE, losses.LOGISTIC)
    assert dict(zip(LOSSES, numbers, strict=True)) == {name: place for place, name in enumerate(LOSSES)}


@pytest.mark.jit
@pytest.mark.parametrize("name", network_examples.CASES)
def test_loss_and_reference_gradient_are_pytorchs(name):
    described, params, x, y, masks = network_examples.CASES[name](0)
    loss, grads = torch_network.gradients(described, params, x, y, masks, regularised=False)
    passes = Passes(Point.of(described, params, x, y, masks))
    assert passes.loss() == pytest.approx(loss, rel=1e-12)
    for tensor, gradient in passes.named(passes.gradient()).items():
        size = max(np.abs(grads[other]).max() for other in grads)
        np.testing.assert_allclose(gradient, grads[tensor], rtol=1e-10, atol=1e-12 * size, err_msg=tensor)


@pytest.mark.parametrize("count", [1, 5, 16, 23])
def test_data_points_go_through_in_chunks_of_powers_of_two(count):
    described, params, x, y, _ = network_examples.CASES["dense"](0)
    places = np.arange(count) % len(x)
    point = Point.of(described, params, x[places], y[places])
    chunks = pieces(point)
    assert np.concatenate(chunks).tolist() == list(range(count))
    assert all(len(chunk) & (len(chunk) - 1) == 0 and len(chunk) <= CHUNK for chunk in chunks)
    whole = np.mean([Passes(Point.of(described, params, x[[i]], y[[i]])).loss() for i in places])
    assert Passes(point).loss() == pytest.approx(whole, rel=1e-13)


def test_batch_statistics_take_all_data_points_at_once():
    described, params, x, y, _ = network_examples.CASES["batch_norm_maps"](0)
    assert [len(chunk) for chunk in pieces(Point.of(described, params, x, y))] == [len(x)]


def test_rooms_are_used_again_and_never_shared_while_read():
    described = Network([Conv(4, 3), ReLU(), Conv(4, 3), ReLU(), Conv(4, 3), MaxPool(2), Flatten()])
    params = described.initial((2, 12, 12))
    found = lowered(Point.of(described, params, np.ones((1, 2, 12, 12)), np.array([0])))
    lanes = 16
    places, size = program.arena(found, 1, lanes)
    kinds = [node.kind for node in found.nodes]
    assert kinds == ["input", "conv", "relu", "conv", "relu", "conv", "max_pool", "flatten"]
    assert size < sum(node.entries for node in found.nodes) * lanes
    # The moved channel of the first layer and of its relu is one, whichever it is.
    assert places[1, 1] == places[2, 1] == 0
    assert all(places[place, 1] >= found.nodes[place].columns["pixels"] * lanes for place in (3, 4, 5))
    for place in range(2, 7):
        source = found.nodes[place].columns["a"]
        ends = [
            (places[one, 0], places[one, 0] + max(places[one, 1], 1) * found.nodes[one].columns["channels"])
            for one in (source, place)
        ]
        assert ends[0][1] <= ends[1][0] or ends[1][1] <= ends[0][0]


@given(
    size=st.integers(1, 20_000), cost=st.integers(1, 10**9), group=st.integers(1, 300), dims_per_pass=st.integers(1, 64)
)
def test_blocks_fill_the_lanes_and_have_whole_channels(size, cost, group, dims_per_pass):
    blocks = blocks_of(range(size), cost, group, dims_per_pass)
    assert [dim for block in blocks for dim in block] == list(range(size))
    each = len(blocks[0]) if len(blocks) > 1 else max(dims_per_pass, size)
    assert all(len(block) == each for block in blocks[:-1])
    assert each >= min(group, dims_per_pass)  # a lane that is empty takes as long as one that is not
    assert each <= max(dims_per_pass, BLOCK_WORK / cost) or len(blocks) == 1
    if len(blocks) > 1:
        assert each % group == 0 or each % dims_per_pass == 0


@pytest.mark.jit
def test_expensive_dimensions_of_one_data_point_are_evaluated_together():
    same = (Conv(16, 3, padding=1), ReLU())
    network = Network([*same, *same, Conv(64, 3), Flatten(), Dense(3)])
    rng = np.random.default_rng(0)
    point = Point.of(network, network.initial((2, 24, 24)), rng.standard_normal((1, 2, 24, 24)), np.array([1]))
    passes = Passes(point)
    assert work(passes.program, "conv1.weight", 1) > BLOCK_WORK / 2
    assert PartialEvaluation(passes, "conv1.weight").dims_per_pass == tile.LANES  # each sign fills a tile
