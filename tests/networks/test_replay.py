"""Replays of the backward pass: without a mistake they are the reference gradient."""

import numpy as np
import pytest
from network_examples import CASES

from fastcheck.networks.case import Point
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.mistakes.row import Carried, back
from fastcheck.networks.passes import Passes
from fastcheck.networks.replay import Replay


def replayed(baseline, mistakes):
    found = {}

    def arrive(name, gradient):
        found[name] = gradient
        return True

    replay = Replay(baseline)
    assert replay.run(mistakes, arrive)
    return found, replay


def baseline_of(case, repeat=1):
    network, params, x, y, masks = CASES[case](0)
    masks = {name: np.concatenate([mask] * repeat) for name, mask in masks.items()}
    point = Point.of(network, params, np.concatenate([x] * repeat), np.concatenate([y] * repeat), masks or None)
    return Baseline.of(Passes(point), 0)


def references(baseline):
    tensors = baseline.passes.program.tensors
    return {name: tensor.of(baseline.gradient) for name, tensor in tensors.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_replay_without_mistakes_is_the_reference(case):
    baseline = baseline_of(case)
    right = references(baseline)
    found, _ = replayed(baseline, {})
    assert {*found} == {*right}
    for name, reference in right.items():
        scale = np.abs(reference).max()
        np.testing.assert_allclose(found[name], reference, rtol=1e-14, atol=1e-15 * scale, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_rows_that_hand_back_what_is_right_change_nothing(case):
    baseline = baseline_of(case, repeat=1 if "batch_norm" in case else 7)  # several chunks
    rows = range(1, len(baseline.passes.program.nodes))
    found, replay = replayed(baseline, {row: lambda row: Carried(row.right, row.grads) for row in rows})
    assert replay.made == {*rows}
    for name, reference in references(baseline).items():
        scale = np.abs(reference).max()
        np.testing.assert_allclose(found[name], reference, rtol=1e-12, atol=1e-12 * scale, err_msg=name)


def test_a_replay_that_begins_at_a_row_is_that_of_the_whole():
    baseline = baseline_of("cnn")
    rows = len(baseline.passes.program.nodes)
    double = {3: lambda row: back(2 * row.right[0])}
    whole, _ = replayed(baseline, double)
    replay, found = Replay(baseline), {}
    replay.start({}, 4)
    for _ in range(2):  # a replay leaves what the next one begins with
        found.clear()
        assert replay.run(double, lambda name, gradient: found.update({name: gradient}) is None)
        assert {*found} == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
        for name, gradient in found.items():
            np.testing.assert_array_equal(gradient, whole[name])
    np.testing.assert_allclose(found["conv1.weight"], 2 * references(baseline)["conv1.weight"])
    assert rows > 4


def test_a_replay_ends_where_it_is_told_to():
    seen = []

    def arrive(name, gradient):
        seen.append(name)
        return name != "conv2.weight"

    assert not Replay(baseline_of("cnn")).run({}, arrive)
    assert seen[-1] == "conv2.weight"
    assert "conv1.weight" not in seen


def test_a_mistake_of_the_loss_reaches_everything():
    baseline = baseline_of("cnn")
    rows = len(baseline.passes.program.nodes)
    found, replay = replayed(baseline, {rows: lambda row: back(3 * row.v)})
    assert replay.made == {rows}
    for name, reference in references(baseline).items():
        np.testing.assert_allclose(found[name], 3 * reference, rtol=1e-12, atol=1e-15)
