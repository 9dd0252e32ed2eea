"""The networks that checks are measured by: right gradients are right, points are hard, and faults are faults."""

import numpy as np
import pytest
import torch_network
from hard_networks import FAMILIES, HALF, NORMS, TYPES, draw, family_of, rounded
from network_faults import ARRAYS, COMPUTED, FAULTS, FINE, Planting, planted

from fastcheck.networks.layers import KINDS
from fastcheck.networks.network import LOSSES, REDUCTIONS

SEEDS = range(700, 700 + 12 * len(FAMILIES))
SMOOTH = set(KINDS) - {"relu", "leaky_relu", "elu", "prelu", "max_pool"}


@pytest.fixture(scope="module")
def drawn():
    return [draw(seed) for seed in SEEDS]


def test_the_same_seed_draws_the_same_network(drawn):
    for seed, one in zip(SEEDS[:18], drawn, strict=False):
        same = draw(seed)
        assert same.described == one.described
        for name, grad in one.grads.items():
            np.testing.assert_array_equal(same.grads[name], grad)
    assert len({one.described for one in drawn}) > 0.95 * len(drawn)


def test_everything_is_drawn(drawn):
    assert [one.family for one in drawn] == [family_of(seed) for seed in SEEDS]
    assert {one.family for one in drawn} == set(FAMILIES)
    # An embedding takes integers, which no circumstance makes hard.
    assert {kind for one in drawn for kind in one.layers} == set(KINDS) - {"embedding"}
    assert {one.network.loss for one in drawn} == set(LOSSES)
    assert {one.network.reduction for one in drawn} == set(REDUCTIONS)
    assert {one.computed for one in drawn} == set(TYPES)
    assert {len(one.x) for one in drawn} == {1, 3, 4, 16}
    assert {one.x.ndim - 2 for one in drawn} == {0, 1, 2, 3}
    assert sum(any(layer.shares for layer in one.network.layers) for one in drawn) > 10
    depths = [sum(kind in ("dense", "conv") for kind in one.layers) for one in drawn]
    assert min(depths) <= 3
    assert max(depths) >= 24


def test_points_are_numbers_of_the_type_that_computes_the_gradient(drawn):
    for one in drawn:
        for array in (one.x, *one.params.values()):
            np.testing.assert_array_equal(rounded(array, one.computed), array)
        dtype = "float32" if one.computed == "bfloat16" else one.computed
        assert {grad.dtype.name for grad in one.grads.values()} == {dtype}
        if one.computed in HALF:
            for grad in one.grads.values():
                np.testing.assert_array_equal(rounded(grad, one.computed), grad)


def test_gradients_in_double_precision_are_those_of_differences(drawn):
    """Along a direction of all parameters, where nothing has a kink."""
    rng, compared = np.random.default_rng(0), 0
    for one in drawn:
        if not set(one.layers) <= SMOOTH or one.network.loss == "multiclass_hinge" or "l1" in one.family:
            continue
        directions = {name: rng.normal(size=grad.shape) for name, grad in one.truth.items()}
        values = []
        for step in (-1e-6, 1e-6):
            params = {name: array + step * directions.get(name, 0.0) for name, array in one.params.items()}
            values.append(float(torch_network.objective(one.network, params, one.x, one.y, one.masks)))
        numeric = (values[1] - values[0]) / 2e-6
        terms = np.concatenate([(one.truth[name] * directions[name]).ravel() for name in one.truth])
        room = 1e-5 * np.abs(terms).sum() + 1e-9 * max(np.abs(values))
        assert numeric == pytest.approx(terms.sum(), rel=0, abs=room), one.described
        compared += 1
    assert compared > 40


def test_narrow_types_are_near_the_gradient_in_double_precision(drawn):
    for one in drawn:
        off, size = (
            np.sqrt(np.mean(np.concatenate([np.ravel(array) for array in arrays]) ** 2))
            for arrays in ([one.grads[name].astype(float) - one.truth[name] for name in one.truth], one.truth.values())
        )
        most = {"float64": 0, "float32": 0.01, "float16": 0.3, "bfloat16": 0.3}
        assert off <= most[one.computed] * size + 1e-6, one.described


def test_points_are_hard_as_they_say(drawn):
    holds = {
        "equal_points": lambda one: (one.x == one.x[:1]).all(),
        "constant_images": lambda one: (
            np.ptp(one.x.reshape(*one.x.shape[: min(2, one.x.ndim - 1)], -1), axis=-1).max() == 0
        ),
        "few_values": lambda one: len(np.unique(one.x)) < 257 and one.x.min() >= 0,
        "zero_last": lambda one: (_last_weight(one) == 0).all(1).any(),
        "zero_gamma": lambda one: "zero gammas" not in one.described or _has_zero_gamma(one),
        "dead": lambda one: "dead units" not in one.described or min(map(np.min, one.params.values())) <= -20,
        "scales": lambda one: not 0.01 < np.abs(one.x).max() < 100 or "times" in one.described,
        "zeros_with_l1": lambda one: any((array == 0).any() for array in one.params.values()),
    }
    for one in drawn:
        if one.family in holds:
            assert holds[one.family](one), one.described
    kinked = [one for one in drawn if one.family == "zeros"]
    assert sum(_at_kinks(one) for one in kinked) > 0.5 * len(kinked)


def _last_weight(one):
    return one.params[f"{one.network.layers[-1].name}.weight"]


def _has_zero_gamma(one):
    names = [f"{layer.name}.weight" for layer in one.network.layers if layer.kind in NORMS]
    return any((one.params[name] == 0).any() for name in names if name in one.params)


def _at_kinks(one):
    """Return whether a relu's argument is exactly 0."""
    found = torch_network.activations(one.network, one.params, one.x, one.masks)
    layers = zip(one.network.layers, one.network.sources, strict=True)
    return any((found[taken[0]] == 0).any() for layer, taken in layers if "relu" in layer.kind)


def test_faults_are_wrong_and_nothing_else_is(drawn):
    made = set()
    for seed, one in zip(SEEDS, drawn, strict=True):
        if one.family == "depth" or seed % 2:
            continue
        for kind, wrong in planted(one, seed, 4, 3):
            made.add(kind)
            changed = [name for name, right in one.grads.items() if not np.array_equal(wrong[name], right)]
            assert changed, (one.described, kind)
            if kind in ARRAYS:
                assert len(changed) == 1
            assert all(wrong[name].dtype == right.dtype for name, right in one.grads.items())
            least = 9e-7 if "1e-6" in kind else 9e-4 if "1e-3" in kind else 0.8 * FINE[one.computed]
            assert any((_off(wrong[name], one, name) > least).any() for name in changed), (one.described, kind)
    assert set(ARRAYS) <= made
    assert len(made & set(COMPUTED)) > 30
    assert set(FAULTS) >= made


def _off(wrong, one, name):
    """Return the errors of entries that were changed, beside themselves or what is least of any that is not zero."""
    here, truth = wrong != one.grads[name], one.truth[name]
    return np.abs(wrong.astype(float) - truth)[here] / np.maximum(np.abs(truth[here]), 1e-12)


def test_a_derivative_that_is_zero_beside_rounding_is_no_place_for_a_fault():
    seed = next(seed for seed in SEEDS if family_of(seed) == "large_biases" and draw(seed).computed == "float64")
    one = draw(seed)
    at = Planting(one, np.random.default_rng(0))
    normalised = next(name for name in one.network.names if name.startswith("batch_norm"))
    before = one.network.layers[one.network.names.index(normalised) - 1].name
    assert not at.telling(f"{before}.bias", 2.0).any()
    assert at.telling(f"{before}.weight", 2.0).any()
