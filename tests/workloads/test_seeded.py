"""Seeded convolutions: equal names give equal data, every dtype and loss passes, and a wrong cotangent does not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from layer_examples import layers

import fastcheck
from fastcheck.batch.run.scheduler import InlineExecutor
from fastcheck.convolutions.case import LOSSES, TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.workloads import seeded

GEOMETRY = ConvGeometry.of((2, 4, 7, 6), (6, 2, 3, 3), stride=(2, 1), padding=((0, 2), (1, 1)), groups=2)


def made(geometry=GEOMETRY, name="data", seed=0, **options):
    return seeded.conv_case(
        geometry, name, seed, **{"bias": True, "tensors": TENSORS, "pool": InlineExecutor()} | options
    )


@pytest.mark.parametrize("backward", seeded.BACKWARDS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_dtype_and_loss_passes(backward, dtype, loss):
    case = made(backward=backward, dtype=dtype, loss=loss)
    assert {array.dtype.name for array in case.grads.values()} == {dtype}
    assert fastcheck.check(case, dims="all").verdict in ("pass", "inconclusive" if dtype == "float16" else "pass")


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_the_cotangent_of_another_loss_fails(loss):
    case = made()
    case.loss = loss
    assert fastcheck.check(case, dims="all").verdict == "fail"


def test_data_depend_on_name_seed_and_shapes_alone():
    first, again = made(), made(backward="torch", tensors=("weight",))
    for name in ("input", "weight", "bias", "grad_output"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(made(seed=1), name)).any()
        assert (getattr(first, name) != getattr(made(name="other"), name)).any()
    assert list(again.grads) == ["weight"]


def test_single_precision_rounds_the_same_data():
    first, single = made(), made(dtype="float32")
    np.testing.assert_array_equal(single.input, first.input.astype(np.float32))


@given(layers())
def test_pytorch_computes_in_the_dtype_that_is_asked_for(layer):
    geometry = ConvGeometry.of(layer.input_shape, layer.weight_shape, **layer.arguments)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-4)):
        ours, theirs = (made(geometry, backward=backward, dtype=dtype) for backward in seeded.BACKWARDS)
        for name in TENSORS:
            np.testing.assert_allclose(
                ours.grads[name], theirs.grads[name], rtol=0, atol=tolerance * max(1, abs(ours.grads[name]).max())
            )


def test_pytorchs_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    made(backward="torch", threads=1)
    assert torch.get_num_threads() == before
