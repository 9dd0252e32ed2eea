"""Whether directions alone settle that a gradient is right."""

import numpy as np
import pytest

from fastcheck.functions import settled
from fastcheck.functions.vjp import Vjp
from fastcheck.functions.vjp_case import VjpCase

X = np.random.default_rng(0).standard_normal((4, 30))


def case(forward, backward, x=X):
    return VjpCase(Vjp(forward, backward, [x]))


def tanh_backward(g, x):
    return g * (1 - np.tanh(x) ** 2)


def test_a_right_gradient_is_settled_in_fewer_calls_than_it_has_entries_to_both_sides():
    calls = 0

    def forward(x):
        nonlocal calls
        calls += 1
        return np.tanh(x)

    assert settled.by_directions(case(forward, tanh_backward), seed=0)
    assert calls < 2 * X.size


@pytest.mark.parametrize("error", [1e-5, -3.0, np.nan, np.inf])
def test_one_wrong_entry_is_not_settled(error):
    def backward(g, x):
        grad = tanh_backward(g, x)
        grad[2, 7] += error
        return grad

    assert not settled.by_directions(case(np.tanh, backward), seed=0)


def test_a_right_gradient_that_directions_see_too_little_of_is_not_settled():
    x = np.where(np.arange(120) % 2, 1e-9, 1.0) * X.ravel()  # kinks within every usable step
    assert not settled.by_directions(case(np.abs, lambda g, x: g * np.sign(x), x), seed=0)


def test_a_gradient_of_zeros_is_not_settled():
    assert not settled.by_directions(case(lambda x: 0 * x + 1, lambda g, x: 0 * g), seed=0)


def test_a_finding_about_backward_is_not_settled():
    total = np.zeros_like(X)

    def adds_up(g, x):
        nonlocal total
        total = total + tanh_backward(g, x)
        return total

    assert not settled.by_directions(case(np.tanh, adds_up), seed=0)
