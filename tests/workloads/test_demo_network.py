"""The network demo ends as it says, and every unit that it names crosses by the plain-loop oracle as well."""

import naive_network
import numpy as np
import pytest
import torch_network

from fastcheck import FastcheckError
from fastcheck.workloads import demo_network as demo

pytestmark = pytest.mark.jit

UNITS = 4
"""Units of an explanation that the oracle looks at: plain loops over the whole network take a while."""


@pytest.fixture(scope="module")
def data():
    return demo.digits()


@pytest.mark.parametrize("seed", [0, 1])
def test_scenes_end_as_they_say_and_explanations_are_true(data, seed):
    params = demo.trained(*data, seed)
    reports = [demo.checked(scene, params, *data, seed=seed) for scene in demo.SCENES]
    assert [report.verdict for report in reports] == [scene.expected for scene in demo.SCENES]
    usual, practised, wrong = reports
    # The mystery: most weights of the first layer agree in many digits, some in few; and good practice solves it.
    first = usual.tensors["conv1.weight"].digits
    assert first["median"] >= 9
    assert first["min"] <= 4
    assert all(usual.tensors[f"dense2.{name}"].digits["median"] >= 9 for name in ("weight", "bias"))
    assert practised.tensors["conv1.weight"].digits["min"] > first["min"] + 3
    assert not practised.explanations
    _true(usual, params, data[0])
    assert usual.explanations[0].crossings
    few = [one for one in usual.explanations if one.digits < 5]
    assert few
    assert all(one.quiet_digits > one.digits + 3 for one in few)
    # The bug looks alike, crosses nothing, and no step makes it smaller.
    assert {name for name, tensor in wrong.tensors.items() if tensor.verdict == "fail"} == {
        "conv1.weight",
        "conv1.bias",
    }
    assert {one.sweep["reading"] for one in wrong.explanations} == {"coding mistake"}


def _true(report, params, x):
    """Every named unit changes its sign or its winners between -h and +h, told by plain loops."""
    checked = 0
    for found in report.explanations:
        assert found.crossings or found.digits > 7
        for crossing in found.crossings[:UNITS]:
            point, *unit = crossing["unit"]
            oracle = naive_network.crossings(demo.NETWORK, params, x[[point]], found.tensor, found.index, found.step)
            match = [
                one
                for one in oracle
                if (one.layer, one.kind, list(one.unit[1:])) == (crossing["layer"], crossing["kind"], unit)
            ]
            assert len(match) == 1, crossing
            if crossing["kind"] == "sign":
                assert (match[0].minus > 0) != (match[0].plus > 0)
                assert match[0].at == pytest.approx(crossing["at"], abs=1e-9)
            else:
                assert set(match[0].minus) != set(match[0].plus)
            checked += 1
    assert checked


def test_the_backward_pass_by_hand_is_that_of_pytorch(data):
    x, y = data[0][:20], data[1][:20]
    params = demo.trained(*data, 0)
    right = torch_network.gradients(demo.NETWORK, params, x, y, regularised=False)[1]
    for name, grad in demo.backward(params, x, y).items():
        assert np.abs(grad - right[name]).max() <= 1e-13
    wrong = demo.backward(params, x, y, wrong_winner=True)
    assert {name for name in wrong if np.abs(wrong[name] - right[name]).max() > 1e-6} == {"conv1.weight", "conv1.bias"}


def test_a_missing_extra_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(FastcheckError, match=r'pip install "\.\[demo\]" in a clone of fastcheck'):
        demo.digits()
