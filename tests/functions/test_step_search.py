"""The model of step and error for black boxes."""

import math

import numpy as np
import pytest

from fastcheck.functions.step_search import NOISES, Level, Search, better, estimate


def _search(function, x=0.0, noise=0.0, stencil="auto", least=-1000, most=-2):
    asked = []

    def level(k):
        asked.append(k)
        low, high = x - math.ldexp(1, k), x + math.ldexp(1, k)
        values = tuple(float(function(place)) for place in (low, x, high))
        return Level.of(math.ldexp(1, k), (low, x, high), values, noise)

    return Search(level, stencil, least, most), asked


@pytest.mark.parametrize("points", [3, 5])
def test_a_single_kink_is_covered_wherever_it_lies(points):
    """Truncation and kink together bound what it does to the difference, for every distance in units of the step."""
    for distance in np.concatenate([[0, 1e-9], np.linspace(1e-3, 5, 20001)]):
        steps = np.array([1.0, 2.0, 4.0])
        ramp = np.maximum(steps - distance, 0)
        near, middle, far = (Level(h, r / (2 * h), r / h, 0.0) for h, r in zip(steps, ramp, strict=True))
        found = estimate(near, middle, far, points)
        assert abs(found.numeric) <= found.truncation + found.kink + 1e-15, distance


@pytest.mark.parametrize(("points", "order", "safety"), [(3, 2, 3), (5, 4, 15)])
def test_truncation_is_bounded_several_times_over(points, order, safety):
    search, _ = _search(np.exp, x=1.0, stencil=points)
    for exponent in (-5, -6, -7):
        (found,) = search.at(exponent)
        error = abs(found.numeric - math.e)
        assert found.order == order
        assert found.truncation / error == pytest.approx(safety, rel=0.03)
    errors = [search.at(exponent)[0].truncation for exponent in (-5, -6)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.02)


@pytest.mark.parametrize("stencil", [3, 5, "auto"])
@pytest.mark.parametrize("start", [-40, -17, -4])
def test_the_search_balances_the_parts_wherever_it_starts(stencil, start):
    search, asked = _search(np.exp, x=1.0, noise=2.0**-53 * math.e, stencil=stencil)
    found = search.best(start, rounds=12)
    assert abs(found.numeric - math.e) <= found.bar < (2e-9 if stencil == 3 else 1e-11)
    assert len(asked) == len(set(asked)) <= 20


def test_a_balanced_start_takes_three_steps_and_no_more():
    search, asked = _search(np.exp, x=1.0, noise=2.0**-53 * math.e)
    typical = round(math.log2(search.best(-17, rounds=12).step))
    search, asked = _search(np.exp, x=1.0, noise=2.0**-53 * math.e)
    search.best(typical)
    assert len(asked) <= 4


def test_a_larger_step_is_taken_where_there_is_no_truncation():
    for function in (lambda x: 3 * x, lambda x: x * x - 1):
        search, _ = _search(function, x=0.3, noise=1e-16)
        assert search.best(-17, rounds=12).step == 2.0**-2


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-7, 1e-10, 1e-12])
def test_the_step_shrinks_until_a_kink_is_out_of_reach(distance):
    search, _ = _search(lambda x: max(x - distance, 0.0), noise=1e-17)
    found = search.best(-8, rounds=8)
    assert (found.numeric, found.kinked, found.jump) == (0.0, False, 0.0)
    assert found.step < distance
    assert found.bar < 0.01


def test_a_kink_at_the_point_is_told_with_its_interval():
    search, asked = _search(lambda x: abs(x) + 0.5 * x + np.sin(x), noise=1e-16)
    found = search.best(-8)
    assert found.kinked
    assert found.numeric == pytest.approx(1.5, abs=1e-9)
    assert found.jump == pytest.approx(1.0, abs=1e-9)
    assert min(asked) < -20  # looked at with much smaller steps, and still there


def test_steps_at_which_a_kink_looks_smaller_than_it_is_are_not_believed():
    search, _ = _search(lambda x: np.sin(1e6 * abs(x)), noise=1e-16)
    found = search.best(-8, rounds=8)  # where the sine has turned many times
    assert found.kinked
    assert found.jump == pytest.approx(1e6, rel=1e-3)


def test_noise_hides_a_kink_and_the_bar_covers_both_slopes():
    search, _ = _search(lambda x: 1000 + max(x - 1e-15, 0.0), noise=1e-13)
    found = search.best(-8)
    assert found.kinked
    assert found.numeric - found.bar <= 0
    assert found.numeric + found.bar >= 1


def test_a_smaller_step_is_believed_where_two_contradict_each_other():
    search, _ = _search(lambda x: np.sin(2 * math.pi * 2**10 * x), noise=1e-16)
    (aliased, _), (right, _) = search.at(-9), search.at(-22)
    assert aliased.numeric == pytest.approx(0, abs=1e-9)
    assert better(aliased, right) is better(right, aliased) is right
    closer = search.closer(aliased, 3)[0]
    assert closer.step == 2.0**-12
    assert abs(closer.numeric - 2 * math.pi * 2**10) <= closer.bar


def test_it_leaves_what_is_not_finite_behind():
    search, _ = _search(lambda x: math.log(x) if x > 0 else math.nan, x=2.0**-30, noise=1e-16)
    assert abs(search.best(-3, rounds=8).numeric - 2.0**30) < 1
    search, asked = _search(lambda x: x if x == 0 else math.inf, noise=1e-16)
    assert search.best(-3) is None
    assert asked == sorted(asked, reverse=True)


def test_uneven_steps_are_divided_by_as_realised():
    x, step = 1e8, 1e-5  # x + step is rounded by up to 7e-9
    places = (x - step, x, x + step)
    found = Level.of(step, places, tuple((place - x) * (1 + place - x) for place in places), 0.0)
    assert abs(found.central - 1) <= found.roundoff
    assert found.roundoff < 1e-7
    assert Level.of(step, (0.0, 1.0, 2.0), (-1e308, 0.0, 1e308), 0.0) is None
    assert Level.of(1.0, (-1.0, 0.0, 1.0), (0.0, 0.0, 0.0), 1.0).roundoff == NOISES
