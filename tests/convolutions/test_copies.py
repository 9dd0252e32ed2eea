"""Padding modes: PyTorch's and plain loops' gradients pass, wrong ones do not, in every way to check."""

import functools
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_examples import Layer, layer, operands
from searches import examples

import fastcheck
from fastcheck import FastcheckError
from fastcheck.adapters.torch import conv_backward
from fastcheck.cli.main import status
from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.npz_case import load_case
from fastcheck.workloads import seeded

F = torch.nn.functional
TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MODULES = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
PHI = {"vjp": lambda z: z, "square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}
NAMES = ("input", "weight", "bias")
MODES = ("reflect", "replicate", "circular")


@st.composite
def padded_layers(draw):
    """Small layers of every rank with as much padding per side as their mode has; the mode beside them."""
    mode, rank = draw(st.sampled_from(MODES)), draw(st.integers(1, 3))
    groups, axes = draw(st.sampled_from([1, 1, 2])), []
    for _ in range(rank):
        size, s, d, k = draw(st.integers(2, 4)), *(draw(st.integers(1, 3)) for _ in range(3))
        most = {"reflect": size - 1, "circular": size}.get(mode, 3)
        low, high = draw(st.integers(0, most)), draw(st.integers(0, most))
        axes.append((size, min(k, (size + low + high - 1) // d + 1), s, (low, high), d))
    sizes, taps, stride, padding, dilation = zip(*axes, strict=True)
    channels, filters = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    shapes = (draw(st.integers(1, 2)), groups * channels, *sizes), (groups * filters, channels, *taps)
    return Layer(*shapes, stride, padding, dilation, groups), mode


def _padded(x, padding, mode):
    return F.pad(x, [side for pair in reversed(padding) for side in pair], "constant" if mode == "zeros" else mode)


def _forward(layer, mode, x, w, b):
    return TORCH[len(layer.stride)](
        _padded(x, layer.padding, mode), w, b, layer.stride, 0, layer.dilation, layer.groups
    )


def _case(layer, mode, loss="vjp", dtype=np.float64, change=None, seed=0, **changes):
    """A case with PyTorch's output and gradients, which ``change`` may spoil."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in operands(layer, seed, dtype)]
    out = _forward(layer, mode, *tensors)
    v = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(out.shape).astype(dtype))
    found = torch.autograd.grad((v * PHI[loss](out)).sum(), tensors)
    grads = {name: grad.numpy().copy() for name, grad in zip(NAMES, found, strict=True)}
    if change is not None:
        change(grads)
    arrays = dict(zip(NAMES, tensors, strict=True)) | {"grad_output": v, "output": out, "grads": grads}
    return fastcheck.ConvCase(**(arrays | layer.arguments | {"padding_mode": mode, "loss": loss} | changes))


def _rest(layer):
    return {name: value for name, value in layer.arguments.items() if name != "padding"}


PLANE = Layer((2, 4, 6, 5), (6, 2, 3, 3), (1, 2), ((1, 2), (2, 1)), (1, 1), 2)
LINE = layer((2, 3, 9), (4, 3, 5), padding=4)
SOLID = layer((1, 2, 3, 4, 3), (3, 2, 2, 3, 3), padding=2)
WIDE = layer((1, 6, 20, 20), (8, 6, 3, 3), padding=1)
LAYERS = {"plane": PLANE, "line": LINE, "solid": SOLID, "wide": WIDE}
"""In the line, and in all of the solid, an output may meet several copies of an input."""


@given(padded_layers())
def test_every_geometry_has_pytorchs_outputs_and_gradients(drawn):
    layer, mode = drawn
    x, w, b = operands(layer)
    geometry = ConvGeometry.of(layer.input_shape, layer.weight_shape, **layer.arguments, padding_mode=mode)
    case = _case(layer, mode)
    looped = naive.padded_forward(x, w, b, layer.padding, mode, **_rest(layer))
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_allclose(passes.convolve(geometry, x, w, b, pool), looped, rtol=0, atol=1e-12)
        ours = passes.backward(geometry, x, w, case.grad_output, pool)
    theirs = conv_backward(geometry, x, w, case.grad_output, 1, NAMES)
    for name, right in naive.padded_backward(x, w, case.grad_output, layer.padding, mode, **_rest(layer)).items():
        for grads in (ours, theirs, case.grads):
            np.testing.assert_allclose(grads[name], right, rtol=0, atol=1e-12)


@given(padded_layers(), st.sampled_from([*PHI]))
def test_every_geometry_is_differenced_alike_by_every_evaluator(drawn, loss):
    case, numeric = _case(*drawn, loss), {}
    for evaluator in ("delta", "local", "full"):
        report = fastcheck.check(case, dims="all", evaluator=evaluator, keep=True)
        assert report.passed, report.summary()
        for name, tensor in report.tensors.items():
            assert np.array_equal(tensor.dims, np.arange(tensor.dims_total))
            np.testing.assert_allclose(tensor.numeric, case.grads[name].ravel(), rtol=1e-6, atol=1e-7)
            numeric.setdefault(name, []).append(tensor.numeric)
    if loss == "vjp":
        for delta, local, full in numeric.values():
            np.testing.assert_allclose(delta, local, rtol=0, atol=1e-11)
            np.testing.assert_allclose(local, full, rtol=0, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
@pytest.mark.parametrize("mode", ["zeros", *MODES])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_modules_of_pytorch(rank, mode, padding):
    padding = padding[:1] * rank if isinstance(padding, tuple) else padding
    module = MODULES[rank](2, 3, 4, padding=padding, padding_mode=mode).double()
    x = torch.randn(2, 2, *(6, 5, 4)[:rank], dtype=torch.float64, requires_grad=True)
    y = module(x)
    v = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, module.weight, module.bias], v)
    arrays = {"input": x, "weight": module.weight, "bias": module.bias, "grad_output": v, "output": y}
    grads = dict(zip(NAMES, found, strict=True))
    check = functools.partial(fastcheck.ConvCase, **arrays, padding=padding, padding_mode=mode)
    report = fastcheck.check(check(grads=grads), dims="all")
    assert report.passed, report.summary()
    grads["input"] = grads["input"] * (1 + 1e-9)
    assert fastcheck.check(check(grads=grads), dims="all").tensors["input"].verdict == "fail"


@pytest.mark.parametrize("evaluator", ["delta", "local"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", PHI)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layer", [PLANE, SOLID], ids=["plane", "solid"])
def test_gradients_pass_and_slightly_wrong_ones_do_not(layer, mode, loss, dtype, evaluator):
    report = fastcheck.check(_case(layer, mode, loss, dtype), dims=300, evaluator=evaluator)
    assert report.passed, report.summary()
    relative = 1e-6 if dtype == np.float64 else 3e-2
    for name in NAMES:

        def change(grads, name=name):
            grads[name] *= 1 + relative

        report = fastcheck.check(_case(layer, mode, loss, dtype, change), dims=300, evaluator=evaluator)
        assert [tensor.verdict == "fail" for tensor in report.tensors.values()] == [one == name for one in NAMES]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_corner_slightly_wrong_is_named(name, mode):
    """The entry beside the corner has copies under every mode but replicate, which copies the corner."""
    layer = LAYERS[name]
    place = (0, 1, *(1 if mode == "reflect" else 0 for _ in layer.stride))

    def change(grads):
        grads["input"][place] *= 1 + 1e-11

    report = fastcheck.check(_case(layer, mode, change=change), dims="all")
    assert report.tensors["input"].beyond_error_bar == 1
    assert report.tensors["input"].worst[0].index == place


def _of_padded(layer, mode, v):
    """The padded input's gradient, and the index that each of its entries has in the input."""
    x, w, _ = operands(layer)
    whole, sources = naive.padded(x, layer.padding, mode)
    still = ((0, 0),) * len(layer.stride)
    return naive.backward(whole, w, v, padding=still, **_rest(layer))["input"], sources


def _cropped(layer, mode, v):
    """Copies are not accumulated: what belongs to the padding is dropped."""
    whole, _ = _of_padded(layer, mode, v)
    inside = (slice(low, low + size) for (low, _), size in zip(layer.padding, layer.input_shape[2:], strict=True))
    return whole[(..., *inside)]


def _last_copy_alone(layer, mode, v):
    """An assignment in place of a sum."""
    whole, sources = _of_padded(layer, mode, v)
    grad = np.zeros(layer.input_shape)
    for position, entry in sources.items():
        grad[entry] = whole[position]
    return grad


def _of_another_mode(other, layer, mode, v):
    x, w, _ = operands(layer)
    return naive.padded_backward(x, w, v, layer.padding, other, **_rest(layer))["input"]


MISTAKES = {"copies are dropped": _cropped, "the last copy alone": _last_copy_alone} | {
    f"as if {other}": functools.partial(_of_another_mode, other) for other in MODES
}


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("mode", MODES)
def test_mistakes_are_rejected(mode, mistake, evaluator):
    layer = Layer((2, 2, 5, 4), (3, 2, 3, 3), (1, 1), ((1, 2), (2, 1)), (1, 1), 1)
    wrong = MISTAKES[mistake](layer, mode, _case(layer, mode).grad_output)
    report = fastcheck.check(
        _case(layer, mode, change=lambda grads: grads.update(input=wrong)), dims="all", evaluator=evaluator
    )
    right = mistake == f"as if {mode}"
    assert {name: tensor.verdict for name, tensor in report.tensors.items()} == {
        "input": "pass" if right else "fail",
        "weight": "pass",
        "bias": "pass",
    }


def test_copies_whose_weights_cancel():
    """An input that its copies' weights make count for nothing: the bar is that of the sum of its parts."""
    layer = Layer((1, 1, 2), (1, 1, 3), (1,), ((0, 2),), (1,), 1)
    weight = np.array([[[0.3, -0.1, -0.2]]])
    for x in (np.array([[[1.0, 3.0]]]), np.array([[[1e-9, 1e9]]])):
        case = functools.partial(fastcheck.ConvCase, x, weight, padding=layer.padding, padding_mode="replicate")
        v = np.array([[[1.0, 7.0]]])
        right = naive.padded_backward(x, weight, v, layer.padding, "replicate", **_rest(layer))["input"]
        summed = v[0, 0, 0] * (-0.1 - 0.2) + v[0, 0, 1] * (0.3 - 0.1 - 0.2)  # in another order
        for last in (right[0, 0, 1], summed):
            grads = {"input": np.array([[[right[0, 0, 0], last]]])}
            assert fastcheck.check(case(grad_output=v, grads=grads), dims="all").passed
        grads = {"input": np.array([[[right[0, 0, 0], summed + 1e-14]]])}
        assert not fastcheck.check(case(grad_output=v, grads=grads), dims="all").passed


@pytest.mark.parametrize("mode", MODES)
def test_directions_pass_and_find_a_wrong_border(mode):
    assert fastcheck.check(_case(WIDE, mode), dims=20, directions=8).directions["failing"] == 0
    place = (0, 3, 1 if mode == "reflect" else 0, 7)

    def change(grads):
        grads["input"][place] += 0.1

    report = fastcheck.check(_case(WIDE, mode, change=change), dims=20, directions=8)
    assert report.tensors["input"].worst[0].index == place
    assert report.tensors["weight"].verdict == "pass"


@pytest.mark.parametrize("loss", ["vjp", "tanh"])
@pytest.mark.parametrize("mode", MODES)
def test_a_sample_is_differenced_as_part_of_the_whole(mode, loss):
    case = _case(PLANE, mode, loss)
    whole = fastcheck.check(case, dims="all", keep=True).tensors["input"]
    few = fastcheck.check(case, dims={"input": 37}, keep=True).tensors["input"]
    assert len(few.dims) == 37
    np.testing.assert_allclose(few.numeric, whole.numeric[few.dims], rtol=1e-10, atol=1e-11)


def test_wrong_moves_of_copies_fail_the_audit(monkeypatch):
    """The audit moves every copy in the padded input itself."""
    from fastcheck.convolutions import copies

    case = _case(WIDE, "reflect")
    summed = copies.Moved.summed
    monkeypatch.setattr(copies.Moved, "summed", lambda self, weights: summed(self, weights) * 1.001)
    believed = fastcheck.check(case, dims="all", keep=True).tensors["input"].numeric
    case.grads["input"] = believed.reshape(case.grads["input"].shape)
    report = fastcheck.check(case, dims="all").tensors["input"]
    assert (report.beyond_error_bar, report.verdict) == (0, "error")
    assert report.audit["disagreements"] > 1


@pytest.mark.parametrize("mode", MODES)
def test_kinks_that_copies_cross_are_counted(mode):
    made = _case(PLANE, mode, "relu")
    crossed = [
        fastcheck.check(made, dims="all", step=0.2, evaluator=evaluator).tensors["input"].kinks
        for evaluator in ("delta", "local", "full")
    ]
    assert crossed[0] == crossed[1] == crossed[2] > 0
    excluded = fastcheck.check(made, dims="all", step=0.2, kinks="exclude").tensors["input"]
    assert (excluded.excluded, excluded.beyond_error_bar) == (crossed[0], 0)


@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
def test_a_copied_input_that_no_step_changes_is_moved_by_more(evaluator):
    x, v = np.array([[[2.0**80, 1.0, 1.0]]]), np.ones((1, 1, 5))
    case = functools.partial(fastcheck.ConvCase, x, np.ones((1, 1, 1)), padding=1, padding_mode="replicate")
    for last, verdict in ((2.0, "pass"), (2.0 + 1e-9, "fail")):
        made = case(grad_output=v, grads={"input": np.array([[[2.0, 1.0, last]]])})
        assert fastcheck.check(made, dims="all", evaluator=evaluator).tensors["input"].verdict == verdict


@pytest.mark.parametrize("other", ["zeros", *MODES])
@pytest.mark.parametrize("mode", ["zeros", *MODES])
def test_a_wrong_mode_of_the_output_is_named(mode, other):
    tensors = map(torch.from_numpy, operands(PLANE))
    report = fastcheck.check(_case(PLANE, mode, output=_forward(PLANE, other, *tensors)), dims=5)
    assert report.forward.passed == (mode == other)
    if mode != other:
        bug = f"the padding is that of another mode: padding_mode {other!r}"
        assert report.forward.diagnosis["bug"] == bug


def test_files_and_the_command_line(tmp_path, capfd):
    case = _case(PLANE, "reflect")
    arrays = {name: case.operand(name) for name in NAMES} | {"grad_output": case.grad_output, "output": case.output}
    arrays |= {f"grad_{name}": grad for name, grad in case.grads.items()} | PLANE.arguments
    file = tmp_path / "layer.npz"
    np.savez(file, **arrays, padding_mode="reflect")
    assert load_case(file).geometry == case.geometry
    assert status(["conv", str(file), "--dims", "all"]) == 0
    assert status(["conv", str(file), "--dims", "all", "--padding-mode", "circular"]) == 1
    np.savez(file, **arrays)
    assert status(["conv", str(file), "--dims", "all", "--padding-mode", "reflect"]) == 0
    np.savez(file, **arrays, padding_mode=1)
    capfd.readouterr()
    assert status(["conv", str(file)]) == 2
    assert "padding_mode has dtype int64" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        (WIDE, {"padding_mode": "symmetric"}, "padding_mode is 'symmetric': expected one of zeros, reflect, repl"),
        (WIDE, {"padding_mode": "edge"}, "padding_mode is 'edge' .did you mean 'replicate'"),
        (WIDE, {"padding_mode": "wrap"}, "padding_mode is 'wrap' .did you mean 'circular'"),
        (WIDE, {"padding": 20}, r"padding is \(20, 20\) along axis 2, whose size is 20: .*'reflect' has at most 19"),
        (WIDE, {"padding": 21, "padding_mode": "circular"}, "'circular' has at most 20"),
        (
            layer((1, 6, 9), (6, 6, 3), padding=1),
            {"transposed": True},
            "padding_mode is 'reflect': expected 'zeros', as a transposed convolution",
        ),
        (WIDE, {"padding": 0}, "padding 1 gives 20: add padding=1"),
    ],
)
def test_refused(layer, changes, message):
    with pytest.raises(FastcheckError, match=message):
        _case(layer, "reflect", **changes)


@pytest.mark.parametrize("mode", MODES)
def test_without_padding_a_mode_changes_nothing(mode):
    case = _case(layer((1, 2, 5, 5), (3, 2, 3, 3)), mode)
    assert case.plain.case is case
    assert fastcheck.check(case, dims="all").passed


@pytest.mark.parametrize("backward", ["reference", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_seeded_cases(mode, backward):
    geometry = ConvGeometry.of((2, 4, 5, 6), (4, 4, 3, 2), padding=(2, 1), padding_mode=mode)
    with ThreadPoolExecutor(1) as pool:
        case = seeded.conv_case(geometry, "a", 0, bias=True, tensors=NAMES, backward=backward, loss="tanh", pool=pool)
    assert fastcheck.check(case, dims="all").passed


@pytest.mark.search
@settings(max_examples=examples(300))
@given(padded_layers(), st.sampled_from([*PHI]), st.sampled_from([np.float64, np.float32]), st.integers(0, 2**31))
def test_no_right_gradient_is_beyond_its_bar(drawn, loss, dtype, seed):
    report = fastcheck.check(_case(*drawn, loss, dtype, seed=seed), dims="all")
    assert all(not tensor.beyond_error_bar for tensor in report.tensors.values()), report.summary()
