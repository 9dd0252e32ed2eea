"""Masked arrays are refused at every door: without their masks all entries would count."""

import numpy as np
import pytest
from layer_examples import case, layer

import fastcheck
from fastcheck import FastcheckError
from fastcheck.networks.layers import Dense, Dropout

LAYER = layer((1, 2, 5, 5), (3, 2, 3, 3))
GOOD = case(LAYER)
OPERANDS = {name: getattr(GOOD, name) for name in ("input", "weight", "bias", "grad_output", "output")}

NETWORK = fastcheck.Network([Dropout(0.5), Dense(3)])
PARAMS = NETWORK.initial((4,))
POINT = {"x": np.ones((2, 4)), "y": np.array([0, 2]), "masks": {"dropout1": np.ones((2, 4))}}
POINT |= {"params": PARAMS, "grads": {name: np.zeros_like(array) for name, array in PARAMS.items()}}


def _masked(array):
    return np.ma.masked_array(array, np.arange(array.size).reshape(array.shape) == 1)


def _with(arrays, name):
    return arrays | {name: _masked(arrays[name])}


def _conv(name):
    return lambda: fastcheck.ConvCase(**_with(OPERANDS, name), grads=GOOD.grads)


def _network(**changes):
    return lambda: fastcheck.check_network(NETWORK, **(POINT | changes), threads=1)


def _gradient(**changes):
    arguments = {"loss": lambda p: float((p**2).sum()), "grad": np.full(3, 2.0), "params": np.ones(3)}
    return lambda: fastcheck.check_gradient(**(arguments | changes))


DOORS = {
    **{name: _conv(name) for name in OPERANDS},
    "grad_weight": lambda: fastcheck.ConvCase(**OPERANDS, grads=_with(GOOD.grads, "weight")),
    "params": _gradient(params=_masked(np.ones(3))),
    "params['w']": lambda: fastcheck.check_gradient(
        lambda p: float(p["w"].sum()), {"w": np.ones(3)}, {"w": _masked(np.ones(3))}
    ),
    "grad": _gradient(grad=_masked(2 * np.ones(3))),
    "loss returns": _gradient(loss=lambda p: np.ma.masked),
    "x": _network(x=_masked(POINT["x"])),
    "y": _network(y=_masked(POINT["y"])),
    "masks['dropout1']": _network(masks=_with(POINT["masks"], "dropout1")),
    "params['dense1.weight']": _network(params=_with(PARAMS, "dense1.weight")),
    "grads['dense1.weight']": _network(grads=_with(POINT["grads"], "dense1.weight")),
    "analytic gradient": lambda: fastcheck.compare(_masked(np.ones(3)), np.ones(3)),
    "numeric w": lambda: fastcheck.compare({"w": np.ones(3)}, {"w": _masked(np.ones(3))}),
}
"""What takes arrays, by how its refusal begins."""


@pytest.mark.parametrize("name", DOORS)
def test_masked_arrays_are_refused(name):
    with pytest.raises(FastcheckError, match="masked array") as refused:
        DOORS[name]()
    assert str(refused.value).startswith(f"{name} ")


def test_the_same_arrays_without_masks_are_taken():
    fastcheck.ConvCase(**OPERANDS, grads=GOOD.grads)
    _network()()
    assert _gradient()().passed
    assert fastcheck.compare(np.ones(3), np.ones(3)).passed


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, np.uint32), (np.float16, np.uint16)])
def test_a_signalling_nan_is_no_more_than_a_nan(dtype, bits):
    """NumPy's warnings are errors here."""
    wrong = np.ones(3, dtype)
    wrong.view(bits)[1] = {np.uint32: 0x7F800001, np.uint16: 0x7C01}[bits]
    assert "1 of 3 analytic values are nan" in fastcheck.compare(wrong, np.ones(3)).tensors["gradient"].reason
    report = fastcheck.check_gradient(lambda p: float(p @ p) / 2, wrong, np.ones(3))
    assert report.tensors["params"].first_beyond == (1,)
    with pytest.raises(FastcheckError, match=r"params is nan at index \[1\]"):
        fastcheck.check_gradient(lambda p: float(p @ p), np.ones(3), wrong)
