"""The functions that black boxes are measured by: right gradients are right, and wrong ones wrong."""

import numpy as np
import pytest
from hard_functions import ERRORS, FAMILIES, Bfloat16, draw, each, mistaken, named, planted, to_bfloat16

import fastcheck

SEEDS = range(100, 150)


def _point(function):
    return each(lambda array: np.array(array, np.float64), function.params)


def _slopes(function, grad=None):
    """Return a gradient as float64 arrays by name."""
    found = (grad or function.grad)(_point(function))
    return {name: np.asarray(array, np.float64) for name, array in named(found).items()}


def _off(function, slopes):
    """Return how many tolerances each entry of a gradient is from the derivative by a complex step."""
    truth, allowed = named(function.by_complex_step()), named(function.tolerance())
    return {
        name: np.abs(found - truth[name]) / np.maximum(allowed[name], np.finfo(float).tiny)
        for name, found in slopes.items()
    }


@pytest.fixture(autouse=True)
def _quiet():
    """As where a check calls them."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_a_complex_step(family):
    for seed in SEEDS:
        function = draw(family, seed)
        assert np.isfinite(float(function.loss(_point(function))))
        slopes = _slopes(function)
        assert {name: array.shape for name, array in slopes.items()} == {
            name: array.shape for name, array in named(function.params).items()
        }
        off = _off(function, slopes)
        assert max(share.max() for share in off.values()) <= 1, (function.described, off)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_draws_the_same_function(family):
    one, same, other = (draw(family, seed) for seed in (7, 7, 8))
    assert one.described == same.described != other.described
    for name, slopes in _slopes(one).items():
        np.testing.assert_array_equal(slopes, _slopes(same)[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_errors_are_errors_and_nothing_else(family):
    made = set()
    for seed in SEEDS:
        function = draw(family, seed)
        right, truth, allowed = _slopes(function), named(function.by_complex_step()), named(function.tolerance())
        for error in ERRORS:
            wrong = planted(function, error, np.random.default_rng(seed))
            if wrong is None:
                continue
            made.add(error)
            assert callable(wrong.grad) == callable(function.given) != function.as_array
            slopes = _slopes(function, wrong.grad if callable(wrong.grad) else lambda _, wrong=wrong: wrong.grad)
            beyond = [
                np.abs(slopes[name] - truth[name])[places] > np.maximum(allowed[name][places], 0)
                for name, places in wrong.places.items()
            ]
            assert np.concatenate(beyond).any(), (function.described, error)
            for name, places in wrong.places.items():
                np.testing.assert_array_equal(slopes[name][~places], right[name][~places])
    # The rounding of float32 is as large as that.
    expected = set(ERRORS) - ({"one entry by 1e-6"} if family == "precision" else set())
    assert made | {"a value for a zero"} >= expected


def test_a_zero_gets_a_value_in_some_families():
    found = [
        planted(draw(family, seed), "a value for a zero", np.random.default_rng(0))
        for family in FAMILIES
        for seed in SEEDS
    ]
    wrong = [one for one in found if one is not None]
    assert 10 < len(wrong) < len(found) / 2
    assert all(sum(int(places.sum()) for places in one.places.values()) == 1 for one in wrong)


def _is_subgradient(function, slopes, rng):
    """Tell whether slopes lie between the one-sided ones of the loss in every one of many directions."""
    at, start = _point(function), float(function.loss(_point(function)))
    entries = np.eye(at.size).reshape(-1, *at.shape)
    for direction in (*entries, *rng.normal(size=(30, *at.shape))):
        step = 1e-7
        sides = [sign * (float(function.loss(at + sign * step * direction)) - start) / step for sign in (1, -1)]
        room = 1e-4 * (1 + np.abs(slopes).max())
        if not min(sides) - room <= (slopes * direction).sum() <= max(sides) + room:
            return False
    return True


def test_on_a_kink_gradients_are_subgradients_and_known_mistakes_are_none():
    rng, checked, rejected = np.random.default_rng(0), 0, 0
    for seed in range(150):
        function = draw("kinks", seed)
        if function.slack is None:
            continue
        checked += 1
        assert _is_subgradient(function, _slopes(function)["params"], rng), function.described
        for name in function.mistakes:
            rejected += 1
            assert not _is_subgradient(function, _slopes(function, function.mistakes[name])["params"], rng), name
    assert checked > 30
    assert rejected > 10


def test_known_mistakes_are_no_gradients():
    names = set()
    for family in FAMILIES:
        for seed in SEEDS:
            function = draw(family, seed)
            for name in function.mistakes:
                names.add(name)
                off = _off(function, _slopes(function, function.mistakes[name]))
                places = mistaken(function, name).places
                assert function.slack is not None or all((off[key][places[key]] > 1).all() for key in off)
                assert any(where.any() for where in places.values())
    assert names == {"the slope beyond a kink", "1 to every winner", "the second term forgotten"}


def test_declared_accuracies_hold_and_undeclared_ones_show():
    declared, undeclared = 0, 0
    for seed in SEEDS:
        function = draw("noise", seed)
        losses = np.array([float(function.loss(_point(function))) for _ in range(5)])
        if not function.options:
            undeclared += 1
            assert np.ptp(losses) > 0
            continue
        declared += 1
        exact = float(function.exact(_point(function)))
        bound = function.options.get("noise", function.options.get("relative_noise", 0.0) * abs(exact))
        assert 0 < abs(losses[0] - exact) <= 1.001 * bound
    assert min(declared, undeclared) > 5


def test_gradients_of_low_precision_are_off_by_its_roundings():
    seen = set()
    for seed in SEEDS:
        function = draw("precision", seed)
        found = named(function.grad(_point(function)))
        name = function.options.get("precision") or next(iter(found.values())).dtype.name
        seen.add(name)
        unit = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
        truth = named(function.by_complex_step())
        errors = [
            np.abs(np.asarray(found[key], np.float64) - truth[key]).max() / np.abs(truth[key]).max() for key in found
        ]
        assert unit / 100 < max(errors) < 50 * unit
    assert seen == {"float32", "float16", "bfloat16"}


def test_bfloat16_rounds_to_eight_bits_and_ties_to_even():
    ulp = 2.0**-7
    given = np.array([1, 1 + ulp / 2, 1 + 1.5 * ulp, 1 + 0.51 * ulp, -1 - 0.49 * ulp, 3e-3], np.float32)
    np.testing.assert_array_equal(to_bfloat16(given)[:5], [1, 1, 1 + 2 * ulp, 1 + ulp, -1])
    array = to_bfloat16(np.random.default_rng(0).normal(size=(3, 4)))
    for result in (array @ array.T, np.exp(array), array.sum(0), 1 / array, array[0] * 3, np.concatenate([*array])):
        assert isinstance(result, Bfloat16)
        significands = np.frexp(np.asarray(result, np.float64))[0] * 2**8
        np.testing.assert_array_equal(significands, np.rint(significands))


def test_outside_their_domains_losses_raise_or_are_no_numbers():
    raised, not_numbers = 0, 0
    for seed in SEEDS:
        function = draw("domains", seed)
        point = _point(function)
        for place in range(point.size):
            moved = point.copy()
            moved.flat[place] += 50 * np.sign(moved.flat[place])
            for there in (moved, -moved, point - (moved - point)):
                try:
                    not_numbers += bool(np.isnan(function.loss(there)))
                except (ValueError, np.linalg.LinAlgError):
                    raised += 1
    assert min(raised, not_numbers) > 20


def test_points_and_gradients_are_what_a_check_takes():
    for family in FAMILIES:
        function = draw(family, 3)
        assert fastcheck.FunctionCase(lambda _: 0.0, function.given, function.params).grads
