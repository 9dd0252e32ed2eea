"""Broken forward passes, planted in NumPy and PyTorch, are named; so is the function that the gradients are of."""

import broken_layers
import naive
import numpy as np
import planted_backward
import planted_forward
import pytest
import torch
from planted_forward import NARROW, PLANTS
from searches import SIZE

import fastcheck
from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.forward_catalogue import FORWARD_CATALOGUE

EVERY = [pytest.param(bug, plant, id=plant.__name__) for bug, plants in PLANTS.items() for plant in plants]
GEOMETRIES = 20 if SIZE == "whole" else 2


def diagnosis(case):
    report = fastcheck.check(case, dims=1)
    return None if report.forward.passed else report.forward.diagnosis


def is_named(case, bug):
    """Whether the first diagnosis is this one, or one of those that make the same array."""
    found = diagnosis(case)
    return found["bug"].startswith(bug) or f": {bug}" in found["evidence"] or f"; {bug}" in found["evidence"]


@pytest.mark.parametrize(("bug", "plant"), EVERY)
def test_a_planted_mistake_is_named(bug, plant):
    cases = [broken_layers.with_output(plant, seed) for seed in range(GEOMETRIES)]
    named = [is_named(case, bug) for case in cases]
    assert np.mean(named) >= 0.95, [diagnosis(one)["bug"] for one, right in zip(cases, named, strict=True) if not right]


@pytest.mark.parametrize(("bug", "plant"), [one for one in EVERY if one.values[1] not in NARROW])
def test_a_planted_mistake_is_named_in_float32(bug, plant):
    cases = [broken_layers.with_output(plant, seed, np.float32) for seed in range(GEOMETRIES)]
    assert np.mean([is_named(case, bug) for case in cases]) >= 0.85


@pytest.mark.parametrize(("bug", "plant"), EVERY)
def test_a_name_is_given_to_what_fits_only(bug, plant):
    case = broken_layers.with_output(plant, 0)
    case.output *= 1 + 1e-6 * np.random.default_rng(0).standard_normal(case.output.shape)
    assert diagnosis(case)["bug"].startswith("not one of the known patterns")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_name(seed, dtype):
    def noisy(layer, x, w, b, z):
        return z * (1 + 1e-3 * np.random.default_rng(seed).standard_normal(z.shape))

    assert diagnosis(broken_layers.with_output(noisy, seed, dtype))["bug"] == "not one of the known patterns"


@pytest.mark.parametrize("seed", range(10))
def test_the_planted_forward_is_right(seed):
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng, ranks=(1, 2))
    x, w, _ = broken_layers.operands(layer, rng)
    b = rng.standard_normal(len(w))
    right = naive.forward(x, w, b, **layer.arguments)
    np.testing.assert_allclose(planted_forward.forward(x, w, b, **layer.arguments), right, atol=1e-12)
    assert diagnosis(broken_layers.of_output(layer, x, w, b, right)) is None
    assert diagnosis(broken_layers.of_output(layer, x, w, b, right * (1 + 1e-9))) is not None


def test_a_sample_that_is_wrong_is_where_the_report_says():
    def third_sample(layer, x, w, b, z):
        return (
            z + np.where(np.arange(len(z)) == 2, 1e-3, 0).reshape(-1, *(1,) * (z.ndim - 1)) * np.sin(z)
            if len(z) > 3
            else None
        )

    found = diagnosis(broken_layers.with_output(third_sample, 0))
    assert found["bug"] == "not one of the known patterns"
    assert found["shape"].startswith("only sample 2")


OWN = {
    "the kernel is flipped": lambda x, w, b: torch.nn.functional.conv2d(x, w.flip(2, 3), b, 2, 1, 1, 2),
    "the padding is that of another mode": lambda x, w, b: torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (1, 1, 1, 1), "reflect"), w, b, 2, 0, 1, 2
    ),
    "the bias is added several times": lambda x, w, b: torch.nn.functional.conv2d(x, w, 2 * b, 2, 1, 1, 2),
    "the bias is missing": lambda x, w, b: torch.nn.functional.conv2d(x, w, None, 2, 1, 1, 2) + 0 * b.sum(),
    "groups are paired wrongly": lambda x, w, b: torch.nn.functional.conv2d(x.flip(1), w, b, 2, 1, 1, 2),
    "the output is half": lambda x, w, b: torch.nn.functional.conv2d(x, w, b, 2, 1, 1, 2) / 2,
    "the output is that of an activation": lambda x, w, b: torch.relu(torch.nn.functional.conv2d(x, w, b, 2, 1, 1, 2)),
    "rows or columns of the output are never written": lambda x, w, b: torch.nn.functional.pad(
        torch.nn.functional.conv2d(x, w, b, 2, 1, 1, 2)[..., :-1], (0, 1)
    ),
}


def _of_torch(function, loss=lambda z: z):
    """Operands, cotangent, and a function's output and gradients, of torch's automatic differentiation."""
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape) for shape in ((2, 2, 7, 6), (4, 1, 3, 3), (4,))]
    leaves = [torch.from_numpy(one).requires_grad_() for one in arrays]
    z = function(*leaves)
    v = rng.standard_normal((2, 4, 4, 3))
    found = torch.autograd.grad(loss(z), leaves, torch.from_numpy(v))
    grads = {name: grad.numpy() for name, grad in zip(("input", "weight", "bias"), found, strict=True)}
    return arrays, v, z.detach().numpy(), grads


def _right(x, w, b):
    return torch.nn.functional.conv2d(x, w, b, 2, 1, 1, 2)


def _case(arrays, v, z, grads, **more):
    return fastcheck.ConvCase(*arrays, stride=2, padding=1, groups=2, grad_output=v, grads=grads, output=z, **more)


BOTH = [(bug, loss) for bug in OWN for loss in ("vjp", "tanh", "square", "relu")]
BOTH.remove(("the output is that of an activation", "relu"))  # relu twice is relu

LOSSES = {"vjp": lambda z: z, "tanh": torch.tanh, "square": lambda z: z**2 / 2, "relu": torch.relu}


@pytest.mark.parametrize(("bug", "loss"), BOTH)
def test_right_gradients_of_another_function_are_said_to_be_that(bug, loss):
    arrays, v, z, grads = _of_torch(OWN[bug], LOSSES[loss])
    *_, declared = _of_torch(_right, LOSSES[loss])
    found = diagnosis(_case(arrays, v, z, grads, loss=loss))
    assert found["bug"].startswith(bug)
    assert found["gradients"].endswith("right for what the forward pass computes: declare that, or change both passes")
    for name, grad in grads.items():  # a wrong sibling
        if not np.allclose(grad, declared[name]):
            wrong = grad.copy()
            wrong.flat[0] += 1e-6 * np.abs(declared[name]).max()
            words = diagnosis(_case(arrays, v, z, {**grads, name: wrong}, loss=loss))["gradients"]
            assert f"the gradient of {name} is right for neither" in words


@pytest.mark.parametrize(("bug", "loss"), BOTH)
def test_the_declared_convolutions_gradients_are_said_to_be_that(bug, loss):
    arrays, v, z, own = _of_torch(OWN[bug], LOSSES[loss])
    *_, grads = _of_torch(_right, LOSSES[loss])
    changed = [name for name in grads if not np.allclose(own[name], grads[name])]
    found = diagnosis(_case(arrays, v, z, {name: grads[name] for name in changed}, loss=loss))
    assert "of the declared convolution: only the forward pass differs" in found["gradients"]
    wrong = grads[changed[0]] * (1 + 1e-6)
    words = diagnosis(_case(arrays, v, z, {**grads, changed[0]: wrong}, loss=loss))["gradients"]
    assert "only the forward pass" not in words


def test_gradients_of_a_forward_pass_that_has_no_name_are_still_those_of_the_declared_convolution():
    arrays, v, z, grads = _of_torch(_right)
    other = z + np.sin(np.arange(z.size)).reshape(z.shape)
    found = diagnosis(_case(arrays, v, other, grads))
    assert found["bug"] == "not one of the known patterns"
    assert found["gradients"].endswith("are those of the declared convolution: only the forward pass differs")
    found = diagnosis(_case(arrays, v, other, {**grads, "weight": 2 * grads["weight"]}))
    assert found["gradients"].startswith("the gradient of weight is not of the declared convolution either")


@pytest.mark.parametrize("seed", range(10))
def test_gradients_are_those_of_any_planted_function_in_float32(seed):
    """A true convolution with its own backward pass, and with the declared convolution's."""
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng)
    x, w, v = (one.astype(np.float32) for one in broken_layers.operands(layer, rng))
    space = tuple(range(2, w.ndim))
    turned = np.flip(w, space)
    z = planted_forward.forward(x, turned, np.zeros(len(w), np.float32), **layer.arguments)
    if np.array_equal(turned, w):
        return
    own = planted_backward.backward(x, turned, v, **layer.arguments)
    own["weight"] = np.flip(own["weight"], space)
    right = planted_backward.backward(x, w, v, **layer.arguments)
    for grads, words in ((own, "right for what the forward"), (right, "those of the declared convolution")):
        given = {name: np.ascontiguousarray(grads[name]) for name in ("input", "weight")}
        case = fastcheck.ConvCase(x, w, **layer.arguments, grad_output=v, grads=given, output=z)
        assert words in diagnosis(case)["gradients"]


def test_a_transposed_convolution_is_named_too():
    rng = np.random.default_rng(3)
    x, w, b = rng.standard_normal((2, 6, 4, 3)), rng.standard_normal((6, 2, 3, 2)), rng.standard_normal(4)
    arguments = {"stride": (2, 3), "padding": (1, 1), "output_padding": (1, 0), "groups": 2, "dilation": (2, 1)}
    tensors = [torch.from_numpy(one) for one in (x, w, b)]
    convolve = torch.nn.functional.conv_transpose2d
    right = convolve(*tensors, **arguments).numpy()
    flipped = convolve(tensors[0], tensors[1].flip(2, 3), tensors[2], **arguments).numpy()
    repeated = np.repeat(np.repeat(x, 2, 2), 3, 3)
    repeated = convolve(torch.from_numpy(repeated), *tensors[1:], padding=1, groups=2, dilation=(2, 1)).numpy()
    given = {**arguments, "transposed": True, "grad_output": rng.standard_normal(right.shape), "grads": {"bias": b}}
    for output, bug in (
        (flipped, "the kernel is flipped"),
        (right - b.reshape(1, 4, 1, 1), "the bias is missing"),
        (repeated[..., : right.shape[2], : right.shape[3]], "the input is repeated"),
    ):
        found = diagnosis(fastcheck.ConvCase(x, w, b, **given, output=np.ascontiguousarray(output)))
        assert found["bug"].startswith(bug)
    assert fastcheck.check(fastcheck.ConvCase(x, w, b, **given, output=right), dims=1).forward.passed


def test_overlapping_windows_of_a_transposed_convolution_that_overwrite_are_named():
    rng = np.random.default_rng(4)
    x, w, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 2, 3)), rng.standard_normal(2)
    output = np.zeros((2, 2, 9))
    for o in range(4):
        output[:, :, 2 * o : 2 * o + 3] = np.einsum("nf,fck->nck", x[:, :, o], w)
    output += b.reshape(1, 2, 1)
    case = fastcheck.ConvCase(
        x, w, b, stride=2, transposed=True, grad_output=rng.standard_normal((2, 2, 9)), grads={"bias": b}, output=output
    )
    assert diagnosis(case)["bug"] == (
        "overlapping windows overwrite each other in the output: the last window that meets an entry wins"
    )


def test_the_catalogue_is_in_order():
    keys = [hypothesis.name for hypothesis in FORWARD_CATALOGUE]
    assert len(set(keys)) == len(keys)
    assert len({hypothesis.bug for hypothesis in FORWARD_CATALOGUE}) == len(keys)
    assert all(hypothesis.tensors == ("output",) for hypothesis in FORWARD_CATALOGUE)
    assert not {one.name for one in CATALOGUE if "output" in one.tensors}
