"""Random signs and the weights of tensors: independent, even, and balanced by what the gradient promises."""

import numpy as np
import pytest

from fastcheck.engine.random_signs import RANGE, Weights, moves, signs
from fastcheck.functions.case import FunctionCase

RNG = np.random.default_rng(0)
PARAMS = {"large": RNG.normal(size=(40, 30)), "small": RNG.normal(size=7) * 1e3, "unused": RNG.normal(size=5)}
GRADS = {"large": RNG.normal(size=(40, 30)), "small": RNG.normal(size=7) * 1e-4, "unused": np.zeros(5)}


def _case(scale=1.0):
    params = {name: scale * array for name, array in PARAMS.items()}
    grads = {name: array / scale for name, array in GRADS.items()}
    return FunctionCase(lambda p: sum(float((grads[name] * p[name]).sum()) for name in p), grads, params), grads


def test_signs_are_even_and_differ_between_directions_and_tensors():
    drawn = np.array([signs(0, number, position, 10_001) for number in range(3) for position in range(2)], float)
    assert set(np.unique(drawn)) == {-1, 1}
    products = np.abs(drawn @ drawn.T / 10_001 - np.eye(6))
    assert products.max() < 0.05
    assert np.abs(drawn.mean(1)).max() < 0.05


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_every_entry_has_a_sign(size):
    assert set(np.abs(signs(3, 1, 2, size))) == {1}


def test_moves_are_signs_times_the_weight():
    case, _ = _case()
    found = moves(case.params, 5, 2, {"large": 0.5, "small": 2.0, "unused": 1.0})
    assert np.array_equal(found["small"], 2.0 * signs(5, 2, 1, 7))
    assert found["large"].shape == (40, 30)


def test_a_tensor_moves_less_the_more_its_gradient_promises():
    case, grads = _case()
    balanced = Weights(case, grads).balanced
    relative = {name: weight / case.size(name) for name, weight in balanced.items()}
    assert max(relative.values()) == pytest.approx(1.0)
    assert relative["large"] < relative["small"] <= relative["unused"] <= RANGE * relative["large"] * (1 + 1e-12)


def test_weights_scale_with_the_parameters():
    one, other = (Weights(*_case(scale)) for scale in (1.0, 2.0**40))
    for name in PARAMS:
        assert other.balanced[name] == pytest.approx(2.0**40 * one.balanced[name])
        assert other.own[name] == pytest.approx(2.0**40 * one.own[name])


def test_own_sizes_change_the_loss_as_much_as_balanced_ones():
    case, grads = _case()
    weights = Weights(case, grads)

    def change(several):
        return np.sqrt(sum(weight**2 * (grads[name] ** 2).sum() for name, weight in several.items()))

    assert change(weights.own) == pytest.approx(change(weights.balanced))


def test_without_any_gradient_tensors_move_by_their_own_size():
    case, grads = _case()
    zeros = {name: np.zeros_like(grad) for name, grad in grads.items()}
    assert Weights(case, zeros).balanced == {name: case.size(name) for name in PARAMS}
