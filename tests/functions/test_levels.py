"""Quotients and bars of several entries are those of the search for the step, entry by entry."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck.functions.levels import EXACT, Levels
from fastcheck.functions.step_search import ROUGH, Level, estimate

FUNCTIONS = {
    "smooth": lambda t: np.sin(3 * t),
    "linear": lambda t: 0.7 * t,
    "a kink nearby": lambda t: np.abs(t - 1e-4) - 1e-4,
    "a kink here": np.abs,
    "kinks that hide each other": lambda t: np.abs(t - 1e-4) - np.abs(t + 1e-4),
    "steps": lambda t: np.floor(t * 1e4) / 1e4,
}


def _levels(function, values, steps, noise):
    """Levels of h, 2h and 4h as arrays, and one by one; ``values`` are where the function's argument is 0."""
    points = np.array([values + side * 2.0**power * steps for power in range(3) for side in (1, -1)])
    changes = function(points - values)
    arrays = Levels.of(values, points, changes, noise, np.sign(steps))
    singles = []
    for k, (x, step) in enumerate(zip(values, np.abs(steps), strict=True)):
        low, high = (0, 1) if steps[k] < 0 else (1, 0)
        singles.append(
            [
                Level.of(
                    2.0**power * step,
                    (points[2 * power + low, k], x, points[2 * power + high, k]),
                    (changes[2 * power + low, k], 0.0, changes[2 * power + high, k]),
                    noise[k],
                )
                for power in range(3)
            ]
        )
    return arrays, singles


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=30, deadline=None)
@given(st.integers(-30, -3), st.integers(0, 1000), st.sampled_from([1e-16, 1e-12, 1e-8]))
def test_arrays_are_the_estimates_one_by_one(name, exponent, seed, noise):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=8)
    steps = 2.0**exponent * rng.choice([-1.0, 1.0], 8)
    arrays, singles = _levels(FUNCTIONS[name], values, steps, np.full(8, noise))
    for points in (3, 5):
        numeric, bar, shift = arrays.estimates(points, ROUGH)
        for k, levels in enumerate(singles):
            one = estimate(*levels, points)._replace(safety=ROUGH)
            if one.kinked:
                assert math.isnan(bar[k])
            else:
                assert numeric[k] == pytest.approx(one.numeric, rel=1e-13, abs=1e-300)
                assert bar[k] == pytest.approx(one.bar, rel=1e-9)
                # Larger steps are tried two powers of two further.
                assert np.sign(shift[k]) == np.sign(one.shift()) or one.growth > 1


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("exponent", [-24, -18, -12, -6])
def test_two_steps_settle_only_what_round_off_decides(name, exponent):
    steps = np.array([1.0, -1.0]) * 2.0**exponent
    (central, jump, roundoff), _ = _levels(FUNCTIONS[name], np.array([0.3, -1.1]), steps, np.full(2, 1e-16))
    outer = Levels(central[::2], jump[::2], roundoff[::2])
    numeric, bar, _ = outer.exact(ROUGH)
    if name == "linear":
        assert np.isfinite(bar).all()
    settled = np.isfinite(bar)
    assert (bar[settled] <= EXACT * outer.roundoff[0][settled]).all()
    if name in ("smooth", "linear"):
        assert (np.abs(numeric - (3.0 if name == "smooth" else 0.7))[settled] <= bar[settled]).all()
    if name == "a kink here":
        assert not settled.any()
