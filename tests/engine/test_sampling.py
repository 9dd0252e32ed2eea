"""Which dimensions are checked."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer
from scipy.stats import hypergeom

import fastcheck
from fastcheck import FastcheckError
from fastcheck.engine import sampling
from fastcheck.metrics import reach


def _choose(dims, shapes, seed=0, work=1):
    return sampling.choose(dims, shapes, dict.fromkeys(shapes, work), seed)


def _border(indices):
    return {tuple(tap) for tap in indices if any(t in (0, 2) for t in tap)}


@pytest.mark.parametrize("seed", range(20))
def test_64_dims_of_a_layer_of_64_filters_meet_all_filters_and_border_taps(seed):
    shape = (64, 3, 3, 3)
    index = np.stack(np.unravel_index(_choose(64, {"weight": shape}, seed)["weight"], shape), axis=1)
    assert len(index) == 64
    assert set(index[:, 0]) == set(range(64))
    assert set(index[:, 1]) == {0, 1, 2}
    assert len(_border(index[:, 2:])) == 8


def test_the_same_holds_of_a_whole_check():
    made = case(layer((1, 3, 6, 6), (64, 3, 3, 3), padding=1))
    weight_only = case(layer((1, 3, 6, 6), (64, 3, 3, 3), padding=1), grads={"weight": made.grads["weight"]})
    tensor = fastcheck.check(weight_only, dims=64, keep=True).tensors["weight"]
    index = np.stack(np.unravel_index(tensor.dims, tensor.shape), axis=1)
    assert set(index[:, 0]) == set(range(64))
    assert len(_border(index[:, 2:])) == 8


@given(st.lists(st.integers(1, 6), max_size=3))
def test_three_of_four_positions_are_at_the_border_where_there_are_enough(spatial):
    positions = sampling._positions(tuple(spatial), 4, np.random.default_rng(0))
    places = np.stack(np.unravel_index(positions, spatial)) if spatial else np.zeros((0, 1))
    ends = np.array(spatial).reshape(-1, 1) - 1
    border = ((ends > 0) & ((places == 0) | (places == ends))).any(axis=0)
    at_border = np.prod(spatial) - np.prod([size - 2 if size > 1 else 1 for size in spatial])
    assert len(set(positions.tolist())) == len(positions)
    assert border[: min(3, int(at_border))].all()


def test_weight_and_bias_meet_every_filter_together():
    chosen = _choose(64, {"weight": (64, 3, 3, 3), "bias": (64,)})
    assert len(chosen["weight"]) + len(chosen["bias"]) == 64
    filters = set(chosen["weight"] // 27) | set(chosen["bias"])
    assert filters == set(range(64))


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple),
    count=st.integers(1, 300),
    seed=st.integers(0, 2**31),
)
def test_a_sample_is_distinct_ascending_and_of_the_size_asked_for(shape, count, seed):
    size = int(np.prod(shape))
    drawn = sampling.stratified(shape, count, np.random.default_rng(seed))
    assert len(drawn) == min(count, size)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < size
    if count >= shape[0]:
        assert set(np.unravel_index(drawn, shape)[0]) == set(range(shape[0]))


def test_a_seed_decides_the_sample():
    shapes = {"input": (2, 8, 20, 20), "weight": (16, 8, 3, 3)}
    one, same, other = (_choose(100, shapes, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in shapes)
    assert not np.array_equal(one["weight"], other["weight"])


def test_a_total_is_spread_and_what_a_small_tensor_cannot_take_is_passed_on():
    chosen = _choose(100, {"input": (1, 9, 9), "weight": (50, 2), "bias": (5,)})
    counts = {name: len(dims) for name, dims in chosen.items()}
    assert counts["bias"] == 5
    assert sum(counts.values()) == 100
    assert abs(counts["input"] - counts["weight"]) <= 1
    assert sum(map(len, _choose(10**9, {"weight": (4, 4)}).values())) == 16


def test_auto_takes_all_where_that_is_cheap_and_samples_where_not():
    shapes = {"weight": (64, 64, 3, 3)}
    assert len(_choose("auto", shapes, work=1000)["weight"]) == 36864
    assert sampling.AUTO_SAMPLE <= len(_choose("auto", shapes, work=10**9)["weight"]) < 36864


def test_every_tensor_can_have_its_own():
    counts = _choose({"weight": "all", "bias": 3}, {"input": (1, 2, 5), "weight": (9, 2, 3), "bias": (9,)})
    assert [len(counts[name]) for name in ("input", "weight", "bias")] == [10, 54, 3]


@pytest.mark.parametrize("dims", [0, -1, 1.5, True, "some", None, {"weight": 0}, {"wieght": 3}])
def test_refused(dims):
    with pytest.raises(FastcheckError, match="dims"):
        _choose(dims, {"weight": (3, 3)})


@pytest.mark.parametrize("total", [1, 2, 7, 20])
def test_the_chance_of_meeting_no_wrong_dimension_is_that_of_counting_samples(total):
    for drawn, wrong in itertools.product(range(1, total + 1), range(total + 1)):
        samples = list(itertools.combinations(range(total), drawn)) if total < 9 else None
        whole = math.comb(total, drawn)
        without = math.comb(total - wrong, drawn)
        if samples is not None:
            assert (len(samples), sum(min(one) >= wrong for one in samples)) == (whole, without)
        assert reach.chance_of_none(total, drawn, wrong) == pytest.approx(without / whole, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("total", "drawn"),
    [(1, 1), (20, 19), (108, 1), (10_368, 32), (10_368, 10_367), (2_400_000, 1024), (10**9, 5 * 10**8)],
)
def test_fewer_wrong_dimensions_than_are_told_would_be_missed_more_often(total, drawn):
    told = reach.least_met(total, drawn)
    for wrong in {told - 1, told}:
        chance = reach.chance_of_none(total, drawn, wrong)
        assert chance == pytest.approx(hypergeom.pmf(0, total, wrong, drawn), rel=1e-6)
        assert (chance <= 0.05 * (1 + 1e-9)) == (wrong == told)


def test_what_a_sample_would_have_missed_is_told_of_every_kind_of_case():
    layers = layer((1, 3, 6, 6), (64, 3, 3, 3), padding=1)
    told = "all 64 checked of 1,728 lie within what the arithmetic can explain; had 78 or more been wrong, 95 % of"
    few = fastcheck.check(case(layers), dims={"weight": 64, "input": "all", "bias": "all"})
    assert told in few.summary()
    assert "all 108 lie within what the arithmetic can explain; " in few.summary()
    assert few.tensors["bias"].reason == "all 64 lie within what the arithmetic can explain"
    excluded = case(layers, loss="relu", grads={"bias": _relu_bias(layers)}, output=None)
    half = fastcheck.check(excluded, dims=32, step=0.1, kinks="exclude").tensors["bias"]
    assert 0 < half.excluded < 32
    assert half.reason == f"all {half.dims_checked} checked of 64 lie within what the arithmetic can explain"
    x = np.linspace(-1, 1, 2100)
    function = fastcheck.check_gradient(lambda p: float(p @ p), lambda p: 2 * p, x, dims=100)
    assert (
        "all 100 checked of 2,100 lie within what the arithmetic can explain; had 61 or more been" in function.summary()
    )
    wrong = fastcheck.check_gradient(lambda p: float(p @ p), lambda p: 3 * p, x, dims=100)
    assert "been wrong" not in wrong.summary()


def _relu_bias(layers):
    made = case(layers)
    return (made.grad_output * (made.output > 0)).sum(axis=(0, 2, 3))
