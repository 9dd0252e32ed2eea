"""Verdicts of networks at hard points: right gradients pass there, and wrong ones that bars might hide fail."""

from types import SimpleNamespace

import network_examples
import numpy as np
import pytest
import searches
import torch
import torch_network

import fastcheck
from fastcheck.common.precision import UNITS
from fastcheck.networks import flips
from fastcheck.networks.case import Point
from fastcheck.networks.layers import (
    ELU,
    GELU,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastcheck.networks.local_errors import LocalErrors
from fastcheck.networks.network import Network
from fastcheck.networks.passes import Passes, row_of

pytestmark = pytest.mark.jit

ACTIVATIONS = {
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
    "softplus": Softplus(),
    "elu": ELU(),
    "silu": SiLU(),
    "gelu": GELU(),
    "gelu_tanh": GELU("tanh"),
}


def _drawn(layers, shape, points, rng, spread=1.0, **options):
    """Return a case whose dense layers have results of about unit size, at first times ``spread``."""
    network = Network(layers, **options)
    params = {}
    for name, of in network.parameter_shapes(shape).items():
        scale = 1 / np.sqrt(np.prod(of[1:])) if name.endswith("weight") and len(of) > 1 else 0.1
        params[name] = scale * rng.normal(size=of) + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    params[next(iter(params))] *= spread
    x = rng.normal(size=(points, *shape))
    return SimpleNamespace(network=network, params=params, x=x, y=rng.integers(0, 3, points))


def _rounded(case, dtype=np.float32):
    """Return the same with numbers of a type."""
    params = {name: array.astype(dtype).astype(np.float64) for name, array in case.params.items()}
    return SimpleNamespace(network=case.network, params=params, x=case.x.astype(dtype).astype(np.float64), y=case.y)


def _gradients(case, dtype=torch.float64):
    return torch_network.gradients(case.network, case.params, case.x, case.y, dtype=dtype)[1]


def _check(case, grads, **options):
    return fastcheck.check_network(
        case.network, case.params, grads, case.x, case.y, **({"threads": 1, "keep": True} | options)
    )


def _scaled(grads, name, factor):
    return {**grads, name: (grads[name] * factor).astype(grads[name].dtype)}


# Rounding of activations


@pytest.mark.parametrize("spread", [2.0, 8.0])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_float32_through_saturated_units_is_right(kind, spread):
    for seed in range(5):
        case = _rounded(
            _drawn([Dense(5), ACTIVATIONS[kind], Dense(4)], (6,), 3, np.random.default_rng(seed), spread=spread)
        )
        grads = _gradients(case, torch.float32)
        report = _check(case, grads)
        assert report.verdict == "pass", report.summary()
        assert _check(case, _scaled(grads, "dense1.weight", 1.02)).verdict == "fail"


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_local_errors_are_those_of_pytorch_in_float32(kind):
    network = Network([Dense(1, bias=False), ACTIVATIONS[kind], Dense(1, bias=False)], loss="squared_error")
    z = np.linspace(-12, 12, 4001, dtype=np.float32).astype(np.float64)[:, None]
    params = {"dense1.weight": np.ones((1, 1)), "dense2.weight": np.ones((1, 1))}
    passes = Passes(Point.of(network, params, z, np.zeros_like(z)))
    passes.gradient()
    errors, slopes = [], []
    for chunk in passes.chunks:
        found = LocalErrors.of(passes, chunk, "float32")
        v = np.abs(row_of(passes, chunk, chunk.cotangents, 2))[0, 0, : chunk.points]
        errors += row_of(passes, chunk, found.results, 2)[0, 0, : chunk.points].tolist()
        slopes += (row_of(passes, chunk, found.cotangents, 1)[0, 0, : chunk.points] / np.maximum(v, 1e-30)).tolist()
    x = [torch.tensor(z[:, 0], dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64)]
    results = [torch_network.LAYERS[kind.removesuffix("_tanh")](ACTIVATIONS[kind], [one], {}, None) for one in x]
    gradients = [torch.autograd.grad(one.sum(), own)[0] for one, own in zip(results, x, strict=True)]
    for (low, high), bound in ((results, errors), (gradients, slopes)):
        apart = np.abs(low.detach().double().numpy() - high.detach().numpy()) / UNITS["float32"]
        ratio = apart / (np.array(bound) + 1e-3)
        assert ratio.max() < 5, z[np.argmax(ratio)]  # of deviations, eight of which are in a bar
        assert kind == "elu" or np.median(ratio[apart > 0]) > 0.02  # an elu's slope may come from its result


def test_a_unit_in_its_tail_widens_no_other_bar():
    for at, dtype in ((-8.0, np.float64), (-6.0, np.float64), (-5.0, np.float32)):
        case = _drawn([Dense(5), GELU(), Dense(3)], (6,), 4, np.random.default_rng(0))
        case.params["dense1.weight"][0] *= 0.1
        case.params["dense1.bias"][0] = at
        case = _rounded(case, dtype)
        grads = _gradients(case, torch.float32 if dtype is np.float32 else torch.float64)
        report = _check(case, grads)
        assert report.passed, report.summary()
        widest = max(float(tensor.error_bar.max()) for tensor in report.tensors.values())
        assert widest < (1e-9 if dtype is np.float64 else 1e-5)
        for name in ("dense1.weight", "dense2.weight"):
            assert _check(case, _scaled(grads, name, 1.05)).verdict == "fail"


# Losses


@pytest.mark.parametrize("rows", [0, 2])
def test_a_hinge_of_a_zero_layer_is_right(rows):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        case = _drawn([Dense(5), Tanh(), Dense(3)], (6,), 4, rng, loss="multiclass_hinge")
        case.params["dense2.bias"][:] = 0
        case.params["dense2.weight"][rows:] = 0
        grads = _gradients(case)
        report = _check(case, grads)
        assert report.passed, report.summary()
        assert _check(case, _scaled(grads, "dense2.weight", 1 + 1e-6)).verdict == "fail"


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "logistic"])
def test_a_saturated_loss_hides_no_sign(loss):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        case = _drawn([Dense(5), Tanh(), Dense(3)], (6,), 4, rng, loss=loss)
        case.params["dense2.weight"] *= 10 ** rng.uniform(0.5, 2.3)
        if loss == "logistic":
            case.y = rng.integers(0, 2, (4, 3)).astype(float)
        grads = _gradients(case)
        report = _check(case, grads)
        assert report.passed, report.summary()
        largest = max(float(np.abs(grad).max()) for grad in grads.values())
        assert all(float(tensor.error_bar.max()) < 1e-6 * largest for tensor in report.tensors.values())
        assert _check(case, {name: -grad for name, grad in grads.items()}).verdict == "fail"


def test_a_loss_moves_without_cancelling():
    network = Network([Dense(3, bias=False)], reduction="sum")
    z = np.array([[60.0, 0.0, 2.0]])
    case = SimpleNamespace(network=network, params={"dense1.weight": z.T.copy()}, x=np.ones((1, 1)), y=np.array([0]))
    small = np.exp(np.array([-60.0, -58.0]))
    right = np.array([-small.sum(), *small])[:, None] / (1 + small.sum())
    report = _check(case, {"dense1.weight": right})
    assert report.verdict == "inconclusive"  # what p - 1 leaves of the label's is rounding
    np.testing.assert_allclose(report.tensors["dense1.weight"].numeric, right[:, 0], rtol=1e-7)


# Statistics of equal values


def _equal(rng, image):
    if image:
        case = _drawn([Conv(3, 3), BatchNorm(), ReLU(), Flatten(), Dense(3)], (2, 5, 5), 3, rng)
        case.x = np.broadcast_to(case.x[:, :, :1, :1], case.x.shape).copy()
        case.x[:] = case.x[:1]
    else:
        case = _drawn([Dense(5), BatchNorm(), Tanh(), Dense(3)], (6,), 4, rng)
        case.x[:] = case.x[:1]
    case.params["batch_norm1.bias"] = rng.uniform(0.2, 1.0, case.params["batch_norm1.bias"].shape)
    return case


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("image", [False, True])
def test_equal_values_before_a_batch_normalisation(image, dtype):
    for seed in range(8):
        case = _rounded(_equal(np.random.default_rng(seed), image), dtype)
        grads = _gradients(case, torch.float32 if dtype is np.float32 else torch.float64)
        report = _check(case, grads)
        assert report.verdict in ("pass", "inconclusive"), report.summary()
        if report.verdict == "inconclusive":
            assert all("batch_norm1" in t.reason for t in report.tensors.values() if t.verdict == "inconclusive")
        last = list(grads)[-2]
        assert _check(case, _scaled(grads, last, 1.01)).verdict == "fail"


def test_a_float32_bias_before_a_batch_normalisation():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        case = _drawn([Dense(5), BatchNorm(), Tanh(), Dense(3)], (6,), 4, rng)
        case.params["dense1.bias"][:] = 10
        case = _rounded(case)
        grads = _gradients(case, torch.float32)
        report = _check(case, grads)
        assert report.passed, report.summary()
        wrong = {**grads, "dense1.bias": grads["dense1.bias"] + np.float32(1e-3)}
        assert _check(case, wrong).verdict == "fail"


# Kinks at the point


@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.2)])
def test_zero_gammas_before_a_kink(activation):
    layers = [Dense(5), BatchNorm(), activation, Dense(5), Tanh(), Dense(3)]
    for seed in range(12):
        case = _drawn(layers, (6,), 4, np.random.default_rng(seed))
        for tensor in ("weight", "bias"):
            case.params[f"batch_norm1.{tensor}"][:] = 0
        grads = _gradients(case)
        report = _check(case, grads)
        assert report.passed, report.summary()
        assert sum(tensor.subgradients for tensor in report.tensors.values()) > 0
        wrong = {**grads, "batch_norm1.bias": grads["batch_norm1.bias"] + 5.0}
        assert _check(case, wrong).verdict == "fail"


@pytest.mark.parametrize(
    ("value", "words"),
    [(-1.0, ""), (0.0, "not a derivative"), (-2.0, "not a derivative"), (-1.99, None), (-0.5, None), (0.5, None)],
)
def test_kinks_that_cancel_leave_one_slope(value, words):
    network = Network([Dense(1), Dense(2), ReLU(), Dense(1)], loss="squared_error")
    params = {name: np.zeros(shape) for name, shape in network.parameter_shapes((1,)).items()}
    params["dense2.weight"][:, 0], params["dense3.weight"][0] = (1, -1), (1, -1)
    case = SimpleNamespace(network=network, params=params, x=np.ones((1, 1)), y=np.ones((1, 1)))
    report = _check(case, {**_gradients(case), "dense1.bias": np.array([value])})
    tensor = report.tensors["dense1.bias"]
    assert tensor.verdict == ("fail" if words is None else "pass")
    assert words is None or words in tensor.reason


def test_units_whose_piece_rounding_decides_are_flipped_one_by_one():
    case = _drawn([Dense(4), ReLU(), Dense(3)], (6,), 1, np.random.default_rng(0))
    case.params["dense1.bias"][1] -= (case.params["dense1.weight"] @ case.x[0] + case.params["dense1.bias"])[1] - 1e-17
    passes = Passes(Point.of(case.network, case.params, case.x, case.y))
    gradient = passes.gradient()
    sizes = [np.full_like(chunk.cached, 1e-15) for chunk in passes.chunks]
    least, most = flips.doubted(passes, sizes, 0)
    other = {**case.params, "dense1.bias": case.params["dense1.bias"].copy()}
    slopes = []
    for by in (1e-6, -1e-6):
        other["dense1.bias"][1] = case.params["dense1.bias"][1] + by
        slopes.append(torch_network.gradients(case.network, other, case.x, case.y)[1])
    for name, tensor in passes.program.tensors.items():
        both = [slope[name].reshape(-1) for slope in slopes]
        np.testing.assert_allclose(tensor.of(gradient + least), np.minimum(*both), atol=1e-5)
        np.testing.assert_allclose(tensor.of(gradient + most), np.maximum(*both), atol=1e-5)


def test_a_unit_that_rounding_switches_on_has_rounding_of_its_own():
    """Zero weights before a batch normalisation: its results are rounding, and so is what a relu makes of their sign.

    Where float32 takes a unit to be on, its cotangents are rounded and divided by sqrt(eps), and its value is not zero.
    """
    switched = 0
    for seed in range(12):
        case = _drawn([Dense(4), Dense(5), BatchNorm(), ReLU(), Dense(3)], (4,), 3, np.random.default_rng(seed))
        case.params["dense2.weight"][:] = 0
        case.params["dense2.bias"] *= 10
        case.params["batch_norm1.bias"][:] = 0
        case = _rounded(case)
        grads = _gradients(case, torch.float32)
        truth = _gradients(case)
        switched += bool((np.abs(grads["batch_norm1.bias"] - truth["batch_norm1.bias"]) > 1e-3).any())
        report = _check(case, grads)
        # Of tensors whose derivative is a sum over rounding, nothing can be told.
        verdicts = {name: tensor.verdict for name, tensor in report.tensors.items()}
        assert "fail" not in verdicts.values(), report.summary()
        assert verdicts["dense3.bias"] == "pass"
        assert _check(case, _scaled(grads, "dense3.bias", 1.05)).verdict == "fail"
    assert switched > 2


# Depth, and half precision


@pytest.mark.parametrize(("points", "equal"), [(4, False), (64, True)])
def test_deep_relu_networks_are_right(points, equal):
    layers = [layer for _ in range(20) for layer in (Dense(6), ReLU())]
    for seed in range(6 if searches.SIZE == "whole" else 2):
        rng = np.random.default_rng(seed)
        case = _drawn([*layers, Dense(3)], (6,), points, rng)
        for name in case.params:
            case.params[name] *= np.sqrt(2) if name.endswith("weight") else 1.0
        if equal:
            case.x[:] = case.x[:1]
        grads = _gradients(case)
        report = _check(case, grads)
        assert report.passed, report.summary()
        assert _check(case, _scaled(grads, "dense20.weight", 1 + 1e-6)).verdict == "fail"


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_through_a_network(kind):
    dtype = getattr(torch, kind)
    for seed in range(6):
        activation = (ReLU(), Tanh(), GELU())[seed % 3]
        case = _drawn([Dense(8), activation, Dense(6), activation, Dense(4)], (6,), 8, np.random.default_rng(seed))
        for arrays in (case.params, {"x": case.x}):
            for array in arrays.values():
                array[:] = torch.tensor(array).to(dtype).double().numpy()
        leaves = {name: torch.tensor(array).to(dtype).requires_grad_() for name, array in case.params.items()}
        loss = torch_network.objective(case.network, leaves, torch.tensor(case.x).to(dtype), case.y)
        found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        grads = {name: (grad.numpy() if kind == "float16" else grad.float().numpy()) for name, grad in found.items()}
        precision = "bfloat16" if kind == "bfloat16" else None
        report = _check(case, grads, precision=precision)
        assert report.verdict != "fail", report.summary()
        assert sum(tensor.passed for tensor in report.tensors.values()) >= 4
        assert _check(case, _scaled(grads, "dense2.weight", 1.1), precision=precision).verdict == "fail"


# Steps beyond the scale on which a loss bends


@pytest.mark.parametrize("outlier", [1e5, 1e7, 1e9])
@pytest.mark.parametrize("activation", [ReLU(), Tanh()])
def test_an_outlier_hides_no_gradient_of_the_others(activation, outlier):
    for seed in range(3):
        case = _drawn([Dense(5), LayerNorm(), activation, Dense(3)], (6,), 3, np.random.default_rng(seed))
        case.x[0, 0] = outlier
        grads = _gradients(case)
        right = _check(case, grads, only=["dense1.bias"])
        expected = ("pass",) if outlier == 1e5 else ("pass", "inconclusive")
        assert right.verdict in expected, right.summary()
        wrong = _check(case, {**grads, "dense1.bias": 0 * grads["dense1.bias"]}, only=["dense1.bias"])
        assert wrong.verdict in (("fail",) if outlier == 1e5 else ("fail", "inconclusive", "error"))


def test_outputs_of_one_class_far_away_overflow_nothing():
    for seed in range(3):
        case = _drawn([Dense(3)], (6,), 3, np.random.default_rng(seed))
        case.params["dense1.weight"] *= 1e8
        assert _check(case, _gradients(case)).verdict in ("pass", "inconclusive")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_terms_of_the_hinge_at_their_kink_widen_no_other_bar(dtype):
    network = Network([Dense(3)], loss="multiclass_hinge")
    params = {"dense1.weight": np.array([[1.0, 0], [0, 1], [1, 1]]), "dense1.bias": np.zeros(3)}
    x, y = np.array([[1.0, 2], [1, -1], [2, 1]]), np.array([0, 1, 2])  # two terms are exactly zero
    case = SimpleNamespace(network=network, params=params, x=x, y=y)
    grads = {name: grad.astype(dtype) for name, grad in _gradients(case).items()}
    report = _check(case, grads)
    assert report.passed, report.summary()
    assert float(report.tensors["dense1.weight"].error_bar.max()) < 1
    assert _check(case, _scaled(grads, "dense1.weight", 1.01)).verdict == "fail"


@pytest.mark.parametrize("at_zero", [0.0, 1.0])
def test_one_slope_at_all_kinks_passes(at_zero):
    for seed in range(5):
        case = _drawn([Dense(5), ReLU(), Dense(3)], (6,), 4, np.random.default_rng(seed))
        case.params["dense1.weight"][:2], case.params["dense1.bias"][:] = 0, 0
        first, last = case.params["dense1.weight"], case.params["dense2.weight"]
        z = case.x @ first.T
        h = np.maximum(z, 0)
        p = np.exp(h @ last.T + case.params["dense2.bias"])
        p /= p.sum(1, keepdims=True)
        p[np.arange(4), case.y] -= 1
        v = p / 4 @ last * np.where(z == 0, at_zero, z > 0)
        grads = {"dense1.weight": v.T @ case.x, "dense1.bias": v.sum(0)}
        grads |= {"dense2.weight": (p / 4).T @ h, "dense2.bias": (p / 4).sum(0)}
        report = _check(case, grads)
        assert report.passed, report.summary()
        assert _check(case, _scaled(grads, "dense1.weight", 3.0)).verdict == "fail"


def test_a_layer_concatenated_with_itself_moves_two_channels():
    layers = [Conv(2, 1), Tanh(name="t"), Concat("t"), Flatten(), Dense(3)]
    case = _drawn(layers, (3, 4), 4, np.random.default_rng(0))
    grads = _gradients(case)
    report = _check(case, grads)
    assert report.passed, report.summary()
    assert _check(case, _scaled(grads, "conv1.weight", 1.01)).verdict == "fail"


# Layers that mix channels, and learned slopes

MIXED = [
    *("group_norm_maps", "group_norm_one", "group_norm_features", "group_norm_plain", "instance_norm"),
    *("instance_norm_affine", "softmax_features", "softmax_maps", "softmax_last"),
    *("prelu", "prelu_channels", "prelu_maps", "prelu_maps_channels"),
]


@pytest.mark.parametrize("name", MIXED)
def test_float32_through_layers_that_mix_channels_is_right(name):
    for seed in range(8):
        network, params, x, y, _ = network_examples.CASES[name](seed)
        case = _rounded(SimpleNamespace(network=network, params=params, x=x, y=y))
        grads = _gradients(case, torch.float32)
        report = _check(case, grads, dims="all")
        assert report.passed, report.summary()
        first = next(iter(grads))
        assert _check(case, _scaled(grads, first, 1.02), dims="all").verdict == "fail"


@pytest.mark.parametrize("spread", [1.0, 8.0, 30.0])
def test_local_errors_of_a_softmax_are_those_of_pytorch_in_float32(spread):
    """Results, and what is handed back, against eight deviations: the number in a bar."""
    rng = np.random.default_rng(0)
    z, v = (spread * rng.normal(size=(400, 6)), rng.normal(size=(400, 6)))
    z, v = (array.astype(np.float32).astype(np.float64) for array in (z, v))
    network = Network([Dense(6, bias=False), Softmax(), Dense(1, bias=False)], loss="squared_error", reduction="sum")
    params = {"dense1.weight": np.eye(6), "dense2.weight": np.ones((1, 6))}
    passes = Passes(Point.of(network, params, z, np.zeros((400, 1))))
    passes.gradient()
    found = []
    for chunk in passes.chunks:
        row_of(passes, chunk, chunk.cotangents, 2)[:, 0, : chunk.points] = v[len(found) : len(found) + chunk.points].T
        row_of(passes, chunk, chunk.cotangents, 1)[:] = 0
        errors = LocalErrors.of(passes, chunk, "float32")
        pairs = (row_of(passes, chunk, array, row) for array, row in ((errors.results, 2), (errors.cotangents, 1)))
        found += zip(*(part[:, 0, : chunk.points].T for part in pairs), strict=True)
    bounds = np.swapaxes(np.array(found), 0, 1)
    results = [torch.tensor(z, dtype=dtype).softmax(1) for dtype in (torch.float32, torch.float64)]
    backs = [
        torch._softmax_backward_data(torch.tensor(v, dtype=dtype), results[0].to(dtype), 1, dtype)
        for dtype in (torch.float32, torch.float64)
    ]
    for (low, high), bound in zip((results, backs), bounds, strict=True):
        apart = np.abs(low.double().numpy() - high.numpy()) / UNITS["float32"]
        ratio = apart / (bound + 1e-30)
        assert ratio.max() < 4
        assert np.median(ratio[apart > 0]) > 0.005


def test_groups_of_one_value_are_named():
    case = _drawn([Conv(4, 1), GroupNorm(2), Tanh(), Flatten(), Dense(3)], (2, 3), 3, np.random.default_rng(0))
    case.params["conv1.weight"][:] = 0
    case.params["conv1.bias"][:] = [2.0, 2.0, 3.0, 1.0]
    report = _check(case, _gradients(case))
    assert report.verdict != "fail"
    assert "group_norm1 (3 of 6 groups of channels, over all data points)" in str(report.hygiene)


@pytest.mark.parametrize("slopes", [1, 5])
def test_a_prelu_exactly_at_its_kink(slopes):
    for seed in range(5):
        case = _drawn([Dense(5), PReLU(slopes), Dense(3)], (6,), 4, np.random.default_rng(seed))
        case.params["dense1.weight"][:2], case.params["dense1.bias"][:2] = 0, 0
        case.params["prelu1.weight"] = np.full(slopes, 0.25)
        grads = _gradients(case)
        report = _check(case, grads)
        assert report.passed, report.summary()
        assert sum(tensor.subgradients for tensor in report.tensors.values()) > 0
        assert report.tensors["prelu1.weight"].kinks == 0  # at zero the slope changes nothing
        assert _check(case, _scaled(grads, "prelu1.weight", 1 + 1e-6)).verdict == "fail"
