"""Transposed convolutions: PyTorch's and plain loops' gradients pass, wrong ones do not, in every way to check."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

import fastcheck
from fastcheck import FastcheckError
from fastcheck.adapters.torch import conv_backward
from fastcheck.cli.main import status
from fastcheck.common import machine
from fastcheck.convolutions import memory, passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.npz_case import load_case
from fastcheck.reports.axes import planes_of
from fastcheck.workloads import seeded

F = torch.nn.functional
TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
PHI = {"vjp": lambda z: z, "square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}
NAMES = ("input", "weight", "bias")


@dataclass(frozen=True)
class Layer:
    """The arguments of a transposed convolution, with one entry for each spatial axis."""

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def arguments(self):
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names} | {"transposed": True}

    @property
    def naive(self):
        """The arguments as plain loops take them."""
        sides = tuple((both, both) for both in self.padding)
        return {"stride": self.stride, "padding": sides, "dilation": self.dilation, "groups": self.groups}


@st.composite
def layers(draw, most=4):
    """Small transposed layers of every rank with any stride, padding, output padding, dilation and groups."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    axes = []
    for _ in range(rank):
        s, d, k, size = (draw(st.integers(1, 3)) for _ in range(4))
        more = draw(st.integers(0, max(s, d) - 1))
        whole = (size - 1) * s + d * (k - 1) + 1 + more
        axes.append((size, k, s, draw(st.integers(0, min(most, (whole - 1) // 2))), more, d))
    sizes, taps, stride, padding, output_padding, dilation = zip(*axes, strict=True)
    channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shapes = (draw(st.integers(1, 2)), groups * channels, *sizes), (groups * channels, filters, *taps)
    return Layer(*shapes, stride, padding, output_padding, dilation, groups)


def _operands(layer, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = layer.input_shape, layer.weight_shape, (layer.weight_shape[1] * layer.groups,)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def _forward(layer, x, w, b):
    parameters = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
    return TORCH[len(layer.stride)](x, w, b, *parameters)


def _case(layer, loss="vjp", dtype=np.float64, change=None, seed=0, **changes):
    """A case with PyTorch's output and gradients, which ``change`` may spoil."""
    operands = [torch.from_numpy(array).requires_grad_() for array in _operands(layer, seed, dtype)]
    out = _forward(layer, *operands)
    v = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(out.shape).astype(dtype))
    grads = torch.autograd.grad((v * PHI[loss](out)).sum(), operands)
    found = {name: grad.numpy().copy() for name, grad in zip(NAMES, grads, strict=True)}
    if change is not None:
        change(found)
    arrays = dict(zip(NAMES, operands, strict=True)) | {"grad_output": v, "output": out, "grads": found}
    return fastcheck.ConvCase(**(arrays | layer.arguments | {"loss": loss} | changes))


PLANE = Layer((2, 6, 5, 4), (6, 2, 3, 4), (2, 3), (1, 2), (1, 0), (1, 2), groups=2)
LINE = Layer((2, 3, 9), (3, 4, 5), (3,), (2,), (1,), (1,))
SOLID = Layer((1, 2, 3, 3, 2), (2, 3, 2, 3, 3), (2, 1, 2), (0, 1, 1), (1, 0, 1), (1, 1, 1))
CROPPED = Layer((1, 2, 6, 6), (2, 3, 1, 2), (2, 2), (3, 2), (1, 0), (1, 1))
WIDE = Layer((1, 8, 20, 20), (8, 16, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1))
LAYERS = {"plane": PLANE, "line": LINE, "solid": SOLID, "cropped": CROPPED, "wide": WIDE}


@given(layers())
def test_every_geometry_has_pytorchs_outputs_and_gradients(layer):
    x, w, b = _operands(layer)
    geometry = ConvGeometry.of(layer.input_shape, layer.weight_shape, **layer.arguments)
    case = _case(layer)
    assert (
        geometry.output_shape
        == case.output.shape
        == naive.transposed_shape(x, w, output_padding=layer.output_padding, **layer.naive)
    )
    looped = naive.transposed_forward(x, w, b, output_padding=layer.output_padding, **layer.naive)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_allclose(passes.convolve(geometry, x, w, b, pool), looped, rtol=0, atol=1e-12)
        ours = passes.backward(geometry, x, w, case.grad_output, pool)
    theirs = conv_backward(geometry, x, w, case.grad_output, 1, NAMES)
    for name, right in naive.transposed_backward(x, w, case.grad_output, **layer.naive).items():
        for grads in (ours, theirs, case.grads):
            np.testing.assert_allclose(grads[name], right, rtol=0, atol=1e-12)


@given(layers(), st.sampled_from([*PHI]))
def test_every_geometry_is_differenced_alike_by_every_evaluator(layer, loss):
    case, numeric = _case(layer, loss), {}
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


@pytest.mark.parametrize("evaluator", ["delta", "local"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", PHI)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_gradients_pass_and_slightly_wrong_ones_do_not(layer, loss, dtype, evaluator):
    report = fastcheck.check(_case(layer, loss, dtype), dims=300, evaluator=evaluator)
    assert report.passed, report.summary()
    assert report.forward.passed
    relative = 1e-6 if dtype == np.float64 else 3e-2
    for name in NAMES:

        def change(grads, name=name):
            grads[name] *= 1 + relative

        report = fastcheck.check(_case(layer, loss, dtype, change), dims=300, evaluator=evaluator)
        assert [tensor.verdict == "fail" for tensor in report.tensors.values()] == [one == name for one in NAMES]


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("tensor", NAMES)
def test_one_entry_slightly_wrong_is_named(layer, tensor):
    right = _case(layer).grads[tensor]
    order = np.argsort(np.abs(right), axis=None)
    place = np.unravel_index(order[-np.count_nonzero(right) // 2], right.shape)  # the median of those that count

    def change(grads):
        grads[tensor][place] *= 1 + 1e-11

    report = fastcheck.check(_case(layer, change=change), dims="all")
    assert report.tensors[tensor].beyond_error_bar == 1
    assert report.tensors[tensor].worst[0].index == place


def _spoilt(layer, x, w, v, mistake):
    """Gradients of a transposed convolution, with a mistake that people make."""
    arguments, space = layer.naive, tuple(range(2, w.ndim))
    right = naive.transposed_backward(x, w, v, **arguments)
    flipped = naive.transposed_backward(x, np.flip(w, space).copy(), v, **arguments)
    exchanged = w.reshape(layer.groups, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
    kept = v.copy()
    for axis, more in enumerate(layer.output_padding, 2):
        kept[(slice(None),) * axis + (slice(kept.shape[axis] - more, None),)] = 0
    ones = (1,) * len(layer.stride)
    wrong = {
        "the output padding forgotten": lambda: naive.transposed_backward(x, w, kept, **arguments),
        "the input's kernel flipped": lambda: {**right, "input": flipped["input"]},
        "the weight's gradient flipped": lambda: {**right, "weight": np.flip(right["weight"], space).copy()},
        "the channels exchanged": lambda: {
            **right,
            "input": naive.transposed_backward(x, exchanged, v, **arguments)["input"],
        },
        "the stride forgotten": lambda: naive.transposed_backward(x, w, v, **arguments | {"stride": ones}),
        "the dilation forgotten": lambda: naive.transposed_backward(x, w, v, **arguments | {"dilation": ones}),
        "the padding forgotten": lambda: naive.transposed_backward(x, w, v, **arguments | {"padding": ((0, 0),) * 2}),
        "one sample alone": lambda: {
            **right,
            "weight": naive.transposed_backward(x[:1], w, v[:1], **arguments)["weight"],
        },
    }
    return wrong[mistake]()


@pytest.mark.parametrize(
    ("mistake", "spoilt"),
    [
        ("the output padding forgotten", {"input", "weight", "bias"}),
        ("the input's kernel flipped", {"input"}),
        ("the weight's gradient flipped", {"weight"}),
        ("the channels exchanged", {"input"}),
        ("the stride forgotten", {"input", "weight"}),
        ("the dilation forgotten", {"input", "weight"}),
        ("the padding forgotten", {"input", "weight"}),
        ("one sample alone", {"weight"}),
    ],
)
@pytest.mark.parametrize("evaluator", ["delta", "local", "full"])
def test_mistakes_are_rejected(mistake, spoilt, evaluator):
    layer = Layer((2, 4, 4, 5), (4, 2, 3, 3), (2, 2), (1, 1), (1, 1), (2, 1), groups=2)
    x, w, _ = _operands(layer)
    right = _case(layer)
    wrong = _spoilt(layer, x, w, right.grad_output, mistake)
    report = fastcheck.check(_case(layer, change=lambda grads: grads.update(wrong)), dims="all", evaluator=evaluator)
    assert {name for name, tensor in report.tensors.items() if tensor.verdict == "fail"} == spoilt


def test_directions_pass_and_find_a_wrong_entry():
    assert fastcheck.check(_case(WIDE), dims=20, directions=8).directions["failing"] == 0
    place = (5, 11, 2, 3)

    def change(grads):
        grads["weight"][place] += 0.1

    report = fastcheck.check(_case(WIDE, change=change), dims=20, directions=8)
    assert report.tensors["weight"].worst[0].index == place
    assert report.tensors["input"].verdict == "pass"


@pytest.mark.parametrize("tensor", NAMES)
def test_a_sample_is_differenced_as_part_of_the_whole(tensor):
    case = _case(PLANE)
    whole = fastcheck.check(case, dims="all", keep=True).tensors[tensor]
    few = fastcheck.check(case, dims={tensor: 7}, keep=True).tensors[tensor]
    assert len(few.dims) == min(7, len(whole.dims))
    np.testing.assert_allclose(few.numeric, whole.numeric[few.dims], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("tensor", ["input", "weight"])
def test_places_that_are_wrong_fail_the_audit(monkeypatch, tensor):
    """The audit runs the forward pass, and knows nothing of how inputs and outputs are split into planes."""
    from fastcheck.convolutions import lowering

    offset = lowering.Planes.offset
    monkeypatch.setattr(lowering.Planes, "offset", lambda self, shifts: max(0, offset(self, shifts) - 1))
    case = _case(WIDE)
    believed = fastcheck.check(case, dims="all", keep=True).tensors[tensor].numeric
    case.grads[tensor] = believed.reshape(case.grads[tensor].shape)
    report = fastcheck.check(case, dims="all").tensors[tensor]
    assert report.beyond_error_bar == 0
    assert report.verdict == "error"
    assert report.audit["disagreements"] > 1


def test_inputs_move_no_more_outputs_than_those_of_a_plain_layer():
    """Of the inserted zeros none is differenced, and no output but those that an input reaches."""
    geometry = ConvGeometry.of((1, 8, 20, 20), (8, 16, 4, 4), stride=2, padding=1, transposed=True)
    assert geometry.products_per_dimension("input") // geometry.terms == 16 * 16
    assert geometry.products_per_dimension("weight") // geometry.terms == 40 * 40
    assert geometry.most_terms("weight") == 20 * 20
    assert (geometry.terms, geometry.met) == (8 * 16, 8 * 4)


@pytest.mark.parametrize(
    ("declared", "bug"),
    [
        (lambda layer, x, w, b: _forward(layer, x, w, 0 * b), "the bias is missing"),
        (lambda layer, x, w, b: _forward(layer, x, w.flip(2, 3), b), "the kernel is flipped"),
        (lambda layer, x, w, b: torch.roll(_forward(layer, x, w, b), 1, 0), "samples have each other's outputs"),
        (
            lambda layer, x, w, b: F.conv_transpose2d(x, w, b, 2, (0, 2))[:, :, 2:],
            "a parameter of one spatial axis is used for another: the padding along width",
        ),
    ],
)
def test_a_wrong_output_is_named(declared, bug):
    layer = Layer((2, 3, 5, 5), (3, 4, 3, 4), (2, 2), (1, 2), (0, 0), (1, 1))
    operands = map(torch.from_numpy, _operands(layer))
    report = fastcheck.check(_case(layer, output=declared(layer, *operands)))
    assert report.verdict == "fail"
    assert report.forward.diagnosis["bug"].startswith(bug)


def _saved(path, layer, **changes):
    case = _case(layer)
    arrays = {name: case.operand(name) for name in NAMES} | {"grad_output": case.grad_output, "output": case.output}
    arrays |= {f"grad_{name}": grad for name, grad in case.grads.items()} | layer.arguments | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.jit
def test_files_and_the_command_line(tmp_path, capfd):
    file = _saved(tmp_path / "layer.npz", PLANE)
    assert load_case(file).geometry == _case(PLANE).geometry
    assert status(["conv", str(file), "--dims", "all"]) == 0
    options = ["--stride", "2,3", "--padding", "1,2", "--dilation", "1,2", "--groups", "2"]
    bare = _saved(tmp_path / "bare.npz", PLANE, **dict.fromkeys(PLANE.arguments))
    assert status(["conv", str(bare), *options, "--transposed", "--output-padding", "1,0"]) == 0
    wrong = _saved(tmp_path / "wrong.npz", PLANE, grad_weight=1.001 * _case(PLANE).grads["weight"])
    assert status(["conv", str(wrong), "--dims", "all"]) == 1
    capfd.readouterr()
    assert status(["conv", str(bare), *options, "--output-padding", "1,0"]) == 2
    assert "output_padding is [1, 0]: only a transposed convolution has one" in capfd.readouterr().err


def test_numbers_of_other_languages_stand_for_truth_values(tmp_path):
    for value in (1, np.int32(1), np.True_, np.array(True), np.array(1)):
        assert load_case(_saved(tmp_path / "layer.npz", PLANE, transposed=value)).geometry.transposed
    with pytest.raises(FastcheckError, match="transposed is 2: expected True or False"):
        load_case(_saved(tmp_path / "layer.npz", PLANE, transposed=2))


def test_channels_last_kernels_are_kerass():
    """Keras' Conv2DTranspose has kernels (taps..., C_out, C_in)."""
    layer = Layer((2, 3, 4, 5), (3, 2, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    case = _case(layer)
    arrays = {"input": case.input, "grad_output": case.grad_output, "output": case.output}
    turned = {name: np.moveaxis(array, 1, -1) for name, array in arrays.items()}
    grads = case.grads | {"input": np.moveaxis(case.grads["input"], 1, -1), "weight": case.grads["weight"].T}
    grads["weight"] = np.transpose(case.grads["weight"], (2, 3, 1, 0))
    weight = np.transpose(case.weight, (2, 3, 1, 0))
    last = fastcheck.ConvCase(weight=weight, bias=case.bias, grads=grads, layout="NHWC", **turned, **layer.arguments)
    assert last.geometry == case.geometry
    assert fastcheck.check(last, dims="all").passed
    grads["weight"] = np.ascontiguousarray(grads["weight"][::-1])
    wrong = fastcheck.ConvCase(weight=weight, bias=case.bias, grads=grads, layout="NHWC", **turned, **layer.arguments)
    assert fastcheck.check(wrong, dims="all").tensors["weight"].verdict == "fail"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transposed": "yes"}, "transposed is 'yes': expected True or False"),
        (
            {"transposed": False},
            "output_padding is .*: only a transposed convolution has one; expected transposed=True",
        ),
        ({"output_padding": (2, 0)}, r"output_padding is \(2, 0\): expected less than the stride 2 or the dilation 1"),
        ({"output_padding": -1}, "output_padding is -1: expected an integer of at least 0"),
        ({"padding": "same"}, "padding is 'same', which frameworks read in their own ways"),
        ({"padding": 40}, "padding leaves no output along height .axis 2.: a transposed convolution of this input has"),
        ({"groups": 4}, "groups is 4: it must divide the 6 input channels"),
        ({"bias": np.zeros(2)}, r"bias has shape \(2,\): axis 0 \(filter\) is 2, expected 4"),
        ({"output_padding": (0, 0)}, "axis 2 .height. is .*, expected .* with transposed, stride .*, output_padding 0"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(FastcheckError, match=message):
        _case(PLANE, **changes)


SQUARE = Layer((2, 3, 5, 5), (3, 4, 4, 4), (2, 2), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("layer", "changes", "remedy"),
    [
        (SQUARE, {"output_padding": 0}, "output_padding 1 gives 11: add output_padding=1"),
        (SQUARE, {"transposed": False, "output_padding": 0}, "add transposed=True, output_padding=1"),
        (SQUARE, {"padding": 0}, "padding 1 gives 11: add padding=1"),
        (PLANE, {"groups": 1}, "add groups=2"),
        (
            SQUARE,
            {"weight": np.zeros((4, 3, 4, 4)), "grads": {"weight": np.zeros((4, 3, 4, 4))}},
            "give weight and grad_weight as .transpose(1, 0, 2, 3): input channels come first",
        ),
        (
            SQUARE,
            {"weight": np.zeros((4, 4, 4, 3)), "grads": {"weight": np.zeros((4, 4, 4, 3))}},
            "give weight and grad_weight as .transpose(3, 2, 0, 1): HWOI becomes IOHW",
        ),
    ],
)
def test_a_refusal_names_the_remedy(layer, changes, remedy):
    with pytest.raises(FastcheckError) as refused:
        _case(layer, **changes)
    assert remedy in str(refused.value)


def test_memory_counts_the_plain_operands(monkeypatch):
    geometry = ConvGeometry.of((2, 3, 8, 8), (3, 4, 3, 3), stride=2, transposed=True)
    own = [2 * 3 * 8 * 8, 3 * 4 * 9, 4, 2 * 2 * 4 * 17 * 17, 2 * 3 * 8 * 8]
    more = 2 * (2 * 3 * 15 * 15 + 3 * 4 * 9)
    needed = memory.needed_bytes(geometry, ("input",))
    assert needed == 16 * (sum(own) + more) + machine.OVERHEAD
    monkeypatch.setattr(machine, "available_bytes", lambda: needed - 1)
    with pytest.raises(FastcheckError, match=f"needs {needed:,} bytes"):
        memory.refuse_what_cannot_fit("up", geometry, ("input",))


def test_axes_are_named_for_what_they_are():
    operands = fastcheck.check(_case(PLANE), dims=10).operands
    assert operands["transposed"] is True
    assert tuple(operands["output_padding"]) == (1, 0)
    assert planes_of("weight", PLANE.weight_shape, operands)[0].names == ("channel", "filter")


def test_an_overflow_is_told_with_the_cases_own_index():
    x, w, v = np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.full((1, 1, 8), 1e200)
    w[0, 0, 1] = 1e200
    v[0, 0, :5] = 0.0
    case = fastcheck.ConvCase(x, w, stride=2, transposed=True, grad_output=v, grads={"input": np.zeros((1, 1, 4))})
    with pytest.raises(FastcheckError, match=r"the derivative by input at index \[0, 0, 2\] overflows float64"):
        fastcheck.check(case, dims="all")


@pytest.mark.parametrize("backward", ["reference", "torch"])
@pytest.mark.parametrize("loss", PHI)
def test_seeded_cases(backward, loss):
    geometry = ConvGeometry.of((2, 4, 5, 6), (4, 3, 3, 2), stride=2, padding=1, output_padding=1, transposed=True)
    make = functools.partial(seeded.conv_case, geometry, "up", 0, bias=True, tensors=NAMES, loss=loss)
    with ThreadPoolExecutor(1) as pool:
        assert fastcheck.check(make(backward=backward, pool=pool), dims="all").passed


def test_a_sweep_reads_the_users_own_entries():
    def change(grads):
        grads["weight"][1, 0, 2, 1] *= 1.01

    swept = fastcheck.sweep(_case(PLANE, change=change), tensor="weight", dims=1)
    assert swept.curves[0].index == (1, 0, 2, 1)


@pytest.mark.search
@settings(max_examples=examples(300))
@given(layers(most=6), st.sampled_from([*PHI]), st.sampled_from([np.float64, np.float32]), st.integers(0, 2**31))
def test_no_right_gradient_is_beyond_its_bar(layer, loss, dtype, seed):
    report = fastcheck.check(_case(layer, loss, dtype, seed=seed), dims="all")
    assert all(not tensor.beyond_error_bar for tensor in report.tensors.values()), report.summary()
