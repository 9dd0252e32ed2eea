"""Functions that are convolutions are recognised by what they return, and their mistakes named as a convolution's."""

import broken_layers
import numpy as np
import planted_backward
import planted_forward
import pytest
import torch
import torch.nn.functional as F
from planted_backward import PLANTS
from searches import SIZE

import fastcheck
from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.recognised import convolution_in
from fastcheck.functions.vjp import Vjp
from fastcheck.functions.vjp_case import VjpCase

EVERY = [
    pytest.param(name, plant, id=plant.__name__)
    for name, plants in PLANTS.items()
    for plant in (plants if SIZE == "whole" else plants[:1])
]


def _forward(layer):
    return lambda x, w, b: planted_forward.forward(x, w, b, **layer.arguments)


def _recognised(forward, *inputs):
    zeros = [np.zeros_like(one) for one in inputs]
    return convolution_in(VjpCase(Vjp(forward, lambda g, *inputs: zeros, list(inputs))))


@pytest.mark.parametrize("seed", range(20))
def test_a_convolution_is_recognised_with_what_it_computes(seed):
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng, ranks=(1, 2))
    x, w, v = broken_layers.operands(layer, rng)
    b = rng.standard_normal(len(w))
    found = _recognised(_forward(layer), x, w, b)
    assert found.names == {"input": "input 0", "weight": "input 1", "bias": "input 2"}
    geometry = found.case.geometry
    arguments = {name: getattr(geometry, name) for name in ("stride", "padding", "dilation", "groups")}
    np.testing.assert_allclose(planted_forward.forward(x, w, b, **arguments), _forward(layer)(x, w, b), rtol=1e-12)
    assert v.shape == geometry.output_shape


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, w, b: np.tanh(
            planted_forward.forward(x, w, b, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=1)
        ),
        lambda x, w, b: planted_forward.forward(
            x, w[..., ::-1], b, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=1
        ),
        lambda x, w, b: planted_forward.forward(
            x, w, 2 * b, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=1
        ),
    ],
)
def test_what_is_no_convolution_is_not(forward):
    rng = np.random.default_rng(0)
    assert _recognised(forward, *(rng.standard_normal(shape) for shape in ((2, 3, 5, 5), (4, 3, 3, 3), (4,)))) is None


def test_other_functions_are_not_looked_at():
    rng = np.random.default_rng(0)
    assert _recognised(np.matmul, rng.standard_normal((3, 4)), rng.standard_normal((4, 5))) is None
    assert _recognised(np.add, rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))) is None


# A function's gradient whose values are those of float32 counts as computed in float32.
@pytest.mark.parametrize(
    ("name", "plant"), [one for one in EVERY if one.values[1] is not planted_backward.gradient_stored_in_float32]
)
def test_a_planted_mistake_is_named(name, plant):
    (hypothesis,) = (one for one in CATALOGUE if one.name == name)
    case = next(filter(None, (broken_layers.planted(plant, seed, ranks=(1, 2)) for seed in range(10))))
    x, w, b = (case.operand(one) for one in ("input", "weight", "bias"))
    geometry = case.geometry
    arguments = {one: getattr(geometry, one) for one in ("stride", "padding", "dilation", "groups")}

    def backward(v, x, w, b):
        layer = broken_layers.Layer(x.shape, w.shape, *arguments.values())
        right = planted_backward.backward(x, w, v, **arguments)
        wrong = plant(layer, x, w, v, right)
        return [wrong[one] for one in ("input", "weight", "bias")]

    report = fastcheck.check_vjp(
        lambda x, w, b: planted_forward.forward(x, w, b, **arguments),
        backward,
        [x, w, b],
        grad_output=case.grad_output,
        dims=120,
    )
    assert report.verdict == "fail"
    said = [f"{one.diagnosis['bug']}; {one.diagnosis['evidence']}" for one in report.tensors.values() if one.diagnosis]
    assert any(hypothesis.bug in one for one in said), said


class Flipped(torch.autograd.Function):
    """A convolution with stride 2, whose input gradient takes the kernel flipped."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, stride=2, padding=1)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dx = torch.nn.grad.conv2d_input(x.shape, w.flip(2, 3), g, 2, 1)
        return dx, torch.nn.grad.conv2d_weight(x, w.shape, g, 2, 1)


def test_a_convolution_in_pytorch_is_named_with_its_own_tensors():
    random = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((2, 3, 7, 7), (4, 3, 3, 3)))
    report = fastcheck.torch.check(Flipped.apply, x, w, progress=False)
    diagnosis = report.tensors["input 0"].diagnosis
    assert diagnosis["bug"] == "the kernel is flipped in the input gradient"
    assert "input 0 equals the gradient" in diagnosis["evidence"]
    assert report.tensors["input 1"].passed
