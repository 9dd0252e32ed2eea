"""Published networks layer by layer: correct gradients pass, wrong ones fail, and nothing is lost on the way."""

import json
import signal
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from layer_examples import layers, operands

from fastcheck import FastcheckError, adapters
from fastcheck.adapters.torch import conv_backward
from fastcheck.common import machine
from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.workloads import seeded, zoo
from fastcheck.workloads.published import NETWORKS, ConvLayer, PublishedNetwork
from fastcheck_kernels import conv

TINY = PublishedNetwork(
    "made for tests in 2000",
    (
        ConvLayer("stem", (2, 7, 7), (4, 2, 3, 3), 2, 1, 1, 1, True),
        ConvLayer("stack.0.causal", (3, 16), (2, 3, 2), 1, ((4, 0),), 4, 1, False),
        ConvLayer("stack.1.depthwise", (3, 4, 4, 4), (3, 1, 2, 2, 2), 1, 0, 1, 3, True),
    ),
)
NAMES = [layer.name for layer in TINY.layers]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", TINY)


@pytest.mark.parametrize("backward", seeded.BACKWARDS)
def test_every_dimension_of_a_tiny_network(backward, run, tmp_path):
    path = tmp_path / "tiny.json"
    code, out, err = run("zoo", "tiny", "--backward", backward, "--tensors", "weight,input,bias", "--json", path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["pass", name] for name in NAMES]
    checked = (72 + 98 + 4) + (12 + 48) + (24 + 192 + 3)
    assert f"{checked} dimensions in " in lines[-2]
    assert lines[-1] == "PASS: all 3 cases pass"
    data = json.loads(path.read_text())
    assert [case["name"] for case in data["cases"]] == NAMES
    assert [list(case["tensors"]) for case in data["cases"]] == [
        *(["input", "weight", "bias"], ["input", "weight"], ["input", "weight", "bias"]),
    ]
    for case in data["cases"]:
        assert case["forward"] is None
        assert all(tensor["dims_checked"] == tensor["dims_total"] for tensor in case["tensors"].values())
    assert data["cases"][1]["operands"] == {
        "input": [1, 3, 16],
        "weight": [2, 3, 2],
        "output": [1, 2, 16],
        "stride": [1],
        "padding": [[4, 0]],
        "dilation": [4],
        "groups": 1,
        "loss": "vjp",
        "precision": "float64",
    }
    code, shown, _ = run("show", path)
    assert code == 0
    assert shown.splitlines()[1:-1] == lines[lines.index(shown.splitlines()[1]) :]  # the titles differ
    assert shown.splitlines()[-1].startswith(f"tiny: 3 of 3 pass; {checked} dimensions in ")
    assert run("show", path, "--json", "-")[1] == path.read_text()


SMALL = [
    ("alexnet", "conv4"),
    ("vgg16", "conv5_3"),
    ("resnet50", "layer4.0.downsample.0"),
    ("mobilenet_v2", "features.14.conv.1.0"),
    ("convnext_t", "stages.3.0.dwconv"),
    ("audio", "dilated_stack.layer9.gate"),
    ("c3d", "conv5b"),
]


@pytest.mark.jit
@pytest.mark.parametrize("backward", seeded.BACKWARDS)
@pytest.mark.parametrize(("network", "layer"), SMALL)
def test_a_layer_of_each_network(network, layer, backward):
    suite = zoo.run(network, backward=backward, layers=[layer], tensors=("weight", "input", "bias"), dims=24)
    assert suite.passed
    assert list(suite.cases) == [layer]
    assert sum(tensor.dims_checked for tensor in suite.cases[layer].tensors.values()) == 24


def test_a_wrong_backward_fails_and_pytorchs_does_not_depend_on_it(monkeypatch, run):
    right = conv.weight_vjp

    def wrong(x, v, geometry, low, high, out):
        right(x, v, geometry, low, high, out)
        out[low:high] *= 1 + 1e-9

    monkeypatch.setattr(conv, "weight_vjp", wrong)
    code, out, _ = run("zoo", "tiny")
    assert code == 1
    assert f"tiny   FAIL: 3 of 3 cases fail: {NAMES[0]}, {NAMES[1]} and {NAMES[2]}" in " ".join(out.split("\n"))
    assert "FAIL: weight is wrong in all 72 entries" in out
    assert run("zoo", "tiny", "--backward", "torch")[0] == 0
    assert run("zoo", "tiny", "--tensors", "bias,input")[0] == 0


def test_a_wrong_pytorch_fails(monkeypatch):
    monkeypatch.setattr(torch.autograd, "grad", lambda output, operands, v: [torch.zeros_like(o) for o in operands])
    suite = zoo.run("tiny", backward="torch")
    assert [case.verdict for case in suite.cases.values()] == ["fail"] * 3


@given(layers())
def test_both_backwards_agree(layer):
    geometry = ConvGeometry.of(layer.input_shape, layer.weight_shape, **layer.arguments)
    x, w, _ = operands(layer)
    v = np.random.default_rng(2).standard_normal(geometry.output_shape)
    theirs = conv_backward(geometry, x, w, v, 1, ("input", "bias", "weight"))
    with ThreadPoolExecutor(1) as pool:
        ours = passes.backward(geometry, x, w, v, pool)
    assert set(theirs) == set(ours) == {"input", "bias", "weight"}
    for name, gradient in theirs.items():
        assert gradient.shape == geometry.shape_of(name)
        np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=1e-10)


def test_pytorch_gets_as_many_threads_as_asked_for_and_its_own_back(monkeypatch):
    before, told = torch.get_num_threads(), []
    forward = adapters.torch._forward
    monkeypatch.setattr(
        adapters.torch, "_forward", lambda *a, **k: told.append(torch.get_num_threads()) or forward(*a, **k)
    )
    zoo.run("tiny", backward="torch", layers=["stem"], threads=3, dims=3)
    assert (told, torch.get_num_threads()) == ([3], before)


def test_a_missing_pytorch_is_told(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fastcheck.adapters.torch")
    monkeypatch.delattr(adapters, "torch")
    assert 'pip install ".[torch]" in a clone of fastcheck' in refused("zoo", "tiny", "--backward", "torch")


def test_only_what_is_asked_for_is_computed(monkeypatch):
    monkeypatch.setattr(conv, "adjoint", None)
    case = zoo.make_case("tiny", TINY.layers[0], ("bias", "weight"))
    assert set(case.grads) == {"weight", "bias"}
    assert case.output is None
    with pytest.raises(TypeError):
        zoo.make_case("tiny", TINY.layers[0], ("input",))


def test_data_depend_on_seed_network_and_layer_alone():
    stem = TINY.layers[0]

    def start(network, layer, **options):
        return zoo.make_case(network, layer, ("bias",) if layer.bias else ("weight",), **options).input.flat[0]

    first = start("tiny", stem)
    assert start("tiny", stem, backward="torch", threads=2) == first
    assert len({first, start("tiny", stem, seed=1), start("vgg16", stem), start("tiny", TINY.layers[1])}) == 4
    code = (
        "from fastcheck import zoo; from fastcheck.workloads.published import NETWORKS\n"
        "print(repr(float(zoo.make_case('vgg16', NETWORKS['vgg16'].layers[-1], ('bias',)).input.flat[0])))"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(again.stdout) == start("vgg16", NETWORKS["vgg16"].layers[-1])


def test_data_are_scaled_as_by_he():
    layer = ConvLayer("wide", (64, 12, 12), (64, 64, 3, 3), 1, 1, 1, 1, True)
    case = zoo.make_case("tiny", layer, ("bias",), batch=2)
    assert case.input.shape == (2, 64, 12, 12)
    assert case.input.std() == pytest.approx(1, rel=0.05)
    assert case.grad_output.std() == pytest.approx(1, rel=0.05)
    assert case.weight.std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.05)


def test_the_report_does_not_depend_on_threads():
    def told(threads):
        cases = zoo.run("tiny", threads=threads, seed=3).to_dict()["cases"]
        return [{key: value for key, value in case.items() if key != "run"} for case in cases]

    assert told(1) == told(3)


def test_layers_are_chosen_by_names_and_patterns(run):
    def chosen(*patterns):
        code, out, _ = run("zoo", "tiny", "--dims", 2, "--layers", ",".join(patterns), "--json", "-")
        assert code == 0
        return [case["name"] for case in json.loads(out)["cases"]]

    assert chosen("stack.*") == NAMES[1:]
    assert chosen("stack.1.depthwise", "stem") == [NAMES[0], NAMES[2]]  # in the network's order
    assert chosen("*") == NAMES


def test_json_alone_on_standard_output(run):
    code, out, err = run("zoo", "tiny", "--dims", "5", "--seed", 7, "--step", 0.5, "--evaluator", "full", "--json", "-")
    assert (code, err) == (0, "")
    case = json.loads(out)["cases"][0]
    requested = {"step": 0.5, "evaluator": "full", "dims": 5, "kinks": "widen", "directions": 0}
    assert (case["seed"], case["requested"]) == (7, requested)


def test_a_layer_that_crashes_is_an_error_and_the_others_go_on(monkeypatch, run, tmp_path):
    make = zoo.make_case

    def crash(network, layer, *arguments, **options):
        if layer.name == NAMES[1]:
            raise RuntimeError("broken\nin two lines")
        return make(network, layer, *arguments, **options)

    monkeypatch.setattr(zoo, "make_case", crash)
    code, out, err = run("zoo", "tiny", "--json", tmp_path / "r.json")
    assert (code, err) == (3, "")
    assert f"{NAMES[1]} ERROR: RuntimeError: broken in two lines" in " ".join(out.split())
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["pass", "error", "pass"]
    assert out.splitlines()[-1] == f"ERROR: 1 of 3 cases could not be checked: {NAMES[1]}; 2 pass"
    cases = json.loads((tmp_path / "r.json").read_text())["cases"]
    assert [case["verdict"] for case in cases] == ["pass", "error", "pass"]
    assert cases[1]["operands"]["weight"] == [2, 3, 2]
    assert cases[1]["requested"] == cases[0]["requested"]
    assert run("show", tmp_path / "r.json")[0] == 3


def _interrupted():
    signal.raise_signal(signal.SIGINT)


def _interrupted_in_a_compiler():
    """Where Ctrl-C comes out as some other exception."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise SystemError("lost") from None


@pytest.mark.parametrize("interrupt", [_interrupted, _interrupted_in_a_compiler])
def test_ctrl_c_leaves_what_was_found(interrupt, monkeypatch, run, tmp_path):
    make = zoo.make_case

    def interrupted(network, layer, *arguments, **options):
        if layer.name == NAMES[1]:
            interrupt()
        return make(network, layer, *arguments, **options)

    monkeypatch.setattr(zoo, "make_case", interrupted)
    code, out, err = run("zoo", "tiny", "--json", tmp_path / "r.json")
    assert (code, err) == (130, "")
    assert "interrupted: only the cases and dimensions reached are counted" in out
    data = json.loads((tmp_path / "r.json").read_text())
    assert (data["interrupted"], data["verdict"]) == (True, "inconclusive")
    assert [case["name"] for case in data["cases"]] == NAMES[:1]
    assert run("show", tmp_path / "r.json")[0] == 130


def test_ctrl_c_within_a_layer_keeps_its_part(monkeypatch):
    def progress(stage, done, total):
        if stage == f"{NAMES[1]}: weight":
            raise KeyboardInterrupt

    suite = zoo.run("tiny", progress=progress)
    assert suite.exit_code == 130
    assert [case.interrupted for case in suite.cases.values()] == [False, True]


def test_layers_stream(monkeypatch):
    """When a layer is made, nothing is left of the one before."""
    make, alive = zoo.make_case, []

    def watched(*arguments, **options):
        assert [array() for array in alive] == [None] * len(alive)
        case = make(*arguments, **options)
        alive.extend(weakref.ref(array) for array in (case.input, case.grad_output, *case.grads.values()))
        return case

    monkeypatch.setattr(zoo, "make_case", watched)
    assert zoo.run("tiny").passed
    assert len(alive) == 11


def test_what_cannot_fit_is_refused_before_anything_is_made(monkeypatch, refused):
    monkeypatch.setattr(zoo, "make_case", None)
    told = refused("zoo", "vgg16", "--batch", 100_000)
    assert "conv1_1 with input shape (100000, 3, 224, 224) needs " in told
    assert "bytes, and " in told
    monkeypatch.setattr(machine, "available_bytes", lambda: 10**9)
    assert "conv1_2 with" in refused("zoo", "vgg16", "--batch", 8, "--layers", "conv1_2,conv5_3")


BAD_ARGUMENTS = {
    "a network": (["vgg61"], "network is 'vgg61' (did you mean 'vgg16'?): expected one of alexnet, vgg16"),
    "a layer": (["tiny", "--layers", "stme"], "no layer is named 'stme' (did you mean 'stem'?)"),
    "a pattern": (["tiny", "--layers", "stem,layer9.*"], "no layer is named 'layer9.*'"),
    "a tensor": (
        ["tiny", "--tensors", "wieght"],
        "'wieght' (did you mean 'weight'?): expected one of input, weight, bias",
    ),
    "no tensor": (["resnet50", "--tensors", "bias"], "no chosen layer has bias"),
    "a backward": (["tiny", "--backward", "jax"], "'jax' is not one of 'reference', 'torch'"),
    "dims": (["tiny", "--dims", "0"], "dims is 0: expected"),
    "a step": (["tiny", "--step", "1e-40"], "the smallest usable step is"),
    "a batch": (["tiny", "--batch", "0"], "--batch"),
    "a folder": (["tiny", "--json", "no/such/folder/r.json"], "cannot be written"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name, refused):
    arguments, message = BAD_ARGUMENTS[name]
    assert message in refused("zoo", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backward": "numpy"}, "backward is 'numpy'"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"tensors": ()}, "nothing is left to check"),
        ({"evaluator": "locla"}, "did you mean 'local'"),
    ],
)
def test_bad_arguments_in_python(arguments, message):
    with pytest.raises(FastcheckError, match=message):
        zoo.run("tiny", **arguments)


def test_help_names_every_network(run, monkeypatch):
    monkeypatch.delitem(NETWORKS, "tiny")
    shown = run("zoo", "--help")[1]
    assert all(name in shown for name in NETWORKS)


def test_progress_names_the_layer():
    stages = []
    zoo.run("tiny", progress=lambda stage, done, total: stages.append(stage))
    assert {stage.split(": ")[0] for stage in stages} == set(NAMES)
    assert f"{NAMES[2]}: bias" in stages
