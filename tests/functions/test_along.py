"""The loss along lines on which many entries move: moved and restored, counted, and left unchanged by the loss."""

import numpy as np
import pytest

from fastcheck import FastcheckError
from fastcheck.functions.along import LossLine, Surroundings
from fastcheck.functions.case import FunctionCase

PARAMS = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
GRADS = {"a": np.array([2.0, 4.0]), "b": np.array([27.0])}


def _case(loss=lambda p: (p["a"] ** 2).sum() + (p["b"] ** 3).sum()):
    return FunctionCase(loss, GRADS, PARAMS)


def test_tensors_move_and_return():
    near = Surroundings(_case())
    assert near.value({"a": np.array([1.0, 0.0])}, 0.5) == 1.5**2 + 4 + 27
    assert near.value({"b": np.array([1.0])}, -1.0) == 1 + 4 + 8
    assert near.value({}, 1.0) == 32
    assert near.calls == 3


def test_a_level_is_the_difference_along_the_line():
    line = LossLine(Surroundings(_case()), {"a": np.array([1.0, -1.0]), "b": np.array([1.0])}, 25.0, 0.0)
    level = line.level(-10)
    assert level.central == pytest.approx(25.0 + 2.0**-20, rel=1e-12)
    assert level.jump == pytest.approx(2.0**-10 * (2 + 2 + 18), rel=1e-6)


def test_outside_the_domain_there_is_no_level():
    case = FunctionCase(lambda p: float(np.log(p["a"]).sum()), {"a": 1 / PARAMS["a"]}, {"a": PARAMS["a"]})
    assert LossLine(Surroundings(case), {"a": np.ones(2)}, 1.5, 0.0).level(1) is None


def test_a_loss_that_changes_an_unmoved_tensor_is_refused():
    def loss(p):
        if p["b"][0] != 3:
            p["a"] += 1
        return p["a"].sum()

    near = Surroundings(_case(loss))
    near.value({"b": np.array([1.0])}, 0.5)
    with pytest.raises(FastcheckError, match="loss changes"):
        near.case.refuse_changes(next(near.restored()), "loss")
