"""Suites from TOML: what a file means, and the line, the key and the suggestion of every refusal."""

import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

from fastcheck import FastcheckError
from fastcheck.batch.run import jobs
from fastcheck.batch.suite.entries import (
    ConvEntry,
    FunctionEntry,
    GradientEntry,
    NetworkEntry,
    NpzEntry,
    TorchEntry,
    UserFunction,
)
from fastcheck.batch.suite.file import read_suite
from fastcheck.common.errors import LONGEST
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request
from fastcheck.workloads.published import NETWORKS

EXAMPLE = """
[defaults]
seed = 0
dims = "all"                 # or a number, or "auto"
backward = "reference"       # or "torch"
[[case]]
name = "conv3_1"
conv = {in = 128, out = 256, kernel = 3, stride = 1, padding = 1}
input = [1, 128, 56, 56]
[[case]]
name = "mine"
npz = "cases/mine.npz"
[[case]]
name = "grid"
conv = {in = 16, out = 16, kernel = 3}
input = [2, 16, 20, 20]
grid = {stride = [1, 2], groups = [1, 4, 16], dtype = ["float64", "float32"]}   # expands to 12 named cases
[[case]]
zoo = "resnet50"
[[case]]
network = "nets/digits.toml"
"""

CONV = '[[case]]\nname = "a"\nconv = {in = 4, out = 6, kernel = 3}\ninput = [2, 4, 8, 8]\n'
NPZ = '[[case]]\nnpz = "cases/mine.npz"\n'
ZOO = '[[case]]\nzoo = "c3d"\n'
NETWORK = '[[case]]\nnetwork = "nets/digits.toml"\n'
SEEDED = NETWORK + "input = [2, 1, 8, 8]\n"

FILES = ("cases/mine.npz", "nets/digits.toml", *(f"nets/digits.{key}.npz" for key in ("params", "grads", "data")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of `FILES` beside a suite."""
    folder = tmp_path_factory.mktemp("suites")
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def read(folder):
    """Reads a suite, with options."""
    path = folder / "night.toml"

    def read(text, **options):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_suite(path, **options)

    return read


@pytest.fixture(scope="module")
def refusal(read, folder):
    """What a suite is refused with, after its path."""

    def refusal(text, **options):
        with pytest.raises(FastcheckError) as refused:
            read(text, **options)
        told, path = str(refused.value), str(folder / "night.toml")
        assert told.isprintable()
        assert told.startswith(path)
        return told.removeprefix(path)

    return refusal


def _conv(name, data=None, request=None, tensors=("input", "weight", "bias"), **changes):
    """The entry of CONV."""
    arguments = {key: changes.pop(key) for key in ("stride", "padding", "dilation", "groups") if key in changes}
    shapes = changes.pop("input", (2, 4, 8, 8)), changes.pop("weight", (6, 4, 3, 3))
    rest = {"bias": True, "backward": "reference", "dtype": "float64", "loss": "vjp", **changes}
    geometry = ConvGeometry.of(*shapes, **arguments)
    return ConvEntry(
        name=name, request=request or Request(), geometry=geometry, tensors=tensors, data=data or name, **rest
    )


def _network(folder, name="digits", request=None, **changes):
    return NetworkEntry(name, request or Request(), folder / "nets/digits.toml", "nets/digits.toml", **changes)


def _arrays(folder):
    return {key: folder / f"nets/digits.{key}.npz" for key in ("params", "grads", "data")}


def _names(suite):
    return [entry.name for entry in suite.entries]


def test_a_suite_of_every_kind(read, folder):
    suite = read(EXAMPLE)
    request = Request(seed=0, dims="all")
    layers = [
        ConvEntry(
            name=f"resnet50/{layer.name}",
            request=request,
            geometry=layer.geometry(),
            bias=False,
            tensors=("weight",),
            backward="reference",
            dtype="float64",
            loss="vjp",
            data=f"resnet50/{layer.name}",
        )
        for layer in NETWORKS["resnet50"].layers
    ]
    assert suite.name == "night"
    assert suite.text == EXAMPLE
    assert suite.entries == (
        _conv("conv3_1", request=request, input=(1, 128, 56, 56), weight=(256, 128, 3, 3), padding=1),
        NpzEntry("mine", request, folder / "cases/mine.npz", "cases/mine.npz"),
        *(
            _conv(
                f"grid/stride={stride},groups={groups},dtype={dtype}",
                f"grid/stride={stride},groups={groups}",
                request,
                input=(2, 16, 20, 20),
                weight=(16, 16 // groups, 3, 3),
                stride=stride,
                groups=groups,
                dtype=dtype,
            )
            for stride in (1, 2)
            for groups in (1, 4, 16)
            for dtype in ("float64", "float32")
        ),
        *layers,
        _network(folder, request=request, **_arrays(folder)),
    )
    assert len(layers) == 53


def test_its_name_may_be_given(read):
    assert read('name = "every night"\n' + CONV).name == "every night"


def test_tables_of_their_own_line_ends_and_marks_of_other_systems(read):
    text = CONV.replace("conv = {in = 4, out = 6, kernel = 3}\n", "") + "[case.conv]\nin = 4\nout = 6\nkernel = 3\n"
    assert read(text).entries == (_conv("a"),)
    assert read("\ufeff" + CONV.replace("\n", "\r\n")).entries == (_conv("a"),)


def test_every_key_of_a_convolution(read):
    text = """
    [[case]]
    name = "all"
    input = [2, 4, 9, 8]
    conv = {in = 4, out = 6, kernel = [3, 1], stride = [2, 1], padding = [[1, 0], 2], dilation = 2, bias = false}
    seed = 3
    dims = 20
    step = 1
    evaluator = "local"
    kinks = "exclude"
    backward = "torch"
    dtype = "float16"
    tensors = ["weight", "input"]
    loss = "tanh"
    """
    (entry,) = read(text).entries
    assert entry == _conv(
        "all",
        request=Request(3, 20, 1.0, "local", "exclude"),
        tensors=("input", "weight"),
        input=(2, 4, 9, 8),
        weight=(6, 4, 3, 1),
        stride=(2, 1),
        padding=((1, 0), (2, 2)),
        dilation=2,
        bias=False,
        backward="torch",
        dtype="float16",
        loss="tanh",
    )
    assert isinstance(entry.request.step, float)


@pytest.mark.parametrize(("padding", "same"), [('"same"', 1), ('"valid"', 0), ("2", 2), ("[2, 1]", (2, 1))])
def test_paddings(read, padding, same):
    assert read(CONV.replace("= 3}", f"= 3, padding = {padding}}}")).entries == (_conv("a", padding=same),)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rank_is_that_of_the_input(read, rank):
    sizes = (2, 4, *(8,) * rank)
    text = CONV.replace("[2, 4, 8, 8]", str(list(sizes)))
    assert read(text).entries == (_conv("a", input=sizes, weight=(6, 4, *(3,) * rank)),)


def test_networks(read, folder):
    beside = _network(folder, **_arrays(folder))
    assert read(NETWORK).entries == (beside,)
    other = NETWORK + 'params = "nets/digits.params.npz"\ngrads = "nets/digits.grads.npz"\ndata = "cases/mine.npz"\n'
    arrays = {**_arrays(folder), "data": folder / "cases/mine.npz"}
    assert read(other).entries == (_network(folder, **arrays),)
    assert read(SEEDED).entries == (_network(folder, input=(2, 1, 8, 8)),)
    full = SEEDED + 'burn_in = 20\nname = "trained"\nevaluator = "full"\nseed = 1'
    request = Request(seed=1, evaluator="full")
    assert read(full).entries == (_network(folder, "trained", request, input=(2, 1, 8, 8), burn_in=20),)


def test_a_grid_of_a_network(read, folder):
    text = SEEDED + "grid = {seed = [1, 2], burn_in = [0, 5]}"
    assert read(text).entries == tuple(
        _network(folder, f"digits/seed={seed},burn_in={steps}", Request(seed=seed), input=(2, 1, 8, 8), burn_in=steps)
        for seed in (1, 2)
        for steps in (0, 5)
    )
    paths = (
        NETWORK
        + 'params = "cases/mine.npz"\ndata = "cases/mine.npz"\ngrid.grads = ["cases/mine.npz", "nets/digits.toml"]'
    )
    assert [entry.grads for entry in read(paths).entries] == [folder / "cases/mine.npz", folder / "nets/digits.toml"]


@pytest.mark.parametrize("network", NETWORKS)
def test_published_networks_are_their_layers(read, network):
    text = f'[[case]]\nname = "all"\nzoo = "{network}"\nbatch = 2\ntensors = ["bias", "weight", "input"]\nseed = 4'
    entries = read(text).entries
    layers = NETWORKS[network].layers
    assert [(entry.name, entry.data) for entry in entries] == [(f"all/{x.name}", f"{network}/{x.name}") for x in layers]
    assert [entry.geometry for entry in entries] == [layer.geometry(2) for layer in layers]
    assert [entry.bias for entry in entries] == [layer.bias for layer in layers]
    for entry, layer in zip(entries, layers, strict=True):
        assert entry.tensors == (("input", "weight", "bias") if layer.bias else ("input", "weight"))
        assert entry.request == Request(seed=4)


def test_layers_of_a_published_network_and_its_grid(read):
    text = (
        ZOO
        + 'layers = ["conv3*", "conv1a"]\ngrid = {batch = [1, 2], dtype = ["float64", "float32"]}\ntensors = ["bias"]'
    )
    entries = read(text).entries
    names = ("conv1a", "conv3a", "conv3b")
    layers = {layer.name: layer for layer in NETWORKS["c3d"].layers}
    expected = [
        (f"c3d/batch={batch},dtype={dtype}/{name}", layers[name].geometry(batch), dtype, f"c3d/{name}", ("bias",))
        for batch in (1, 2)
        for dtype in ("float64", "float32")
        for name in names
    ]
    assert [(one.name, one.geometry, one.dtype, one.data, one.tensors) for one in entries] == expected


def test_a_case_wins_over_defaults_and_a_grid_over_both(read):
    defaults = '[defaults]\nseed = 1\nstep = 0.5\ntensors = ["weight"]\nloss = "relu"\ndtype = "float32"\n'
    text = defaults + CONV + 'seed = 2\ntensors = ["input"]\ngrid = {dtype = ["float16"], loss = ["tanh"]}\n' + ZOO
    first, second, *_ = read(text).entries
    assert first == _conv(
        "a/dtype=float16,loss=tanh", "a/loss=tanh", Request(2, step=0.5), ("input",), dtype="float16", loss="tanh"
    )
    assert (second.request, second.tensors) == (Request(1, step=0.5), ("weight",))
    assert (second.loss, second.dtype) == ("relu", "float32")


def test_defaults_are_for_the_kinds_that_know_them(read, folder):
    text = '[defaults]\nevaluator = "delta"\ndtype = "float32"\nkinks = "exclude"\n' + NPZ + SEEDED + CONV
    request = Request(kinks="exclude")
    npz, network, conv = read(text).entries
    assert npz.request == Request(evaluator="delta", kinks="exclude")
    assert network == _network(folder, request=request, input=(2, 1, 8, 8))
    assert conv == _conv("a", request=Request(evaluator="delta", kinks="exclude"), dtype="float32")
    npz, network = read(text.replace('"delta"', '"network"').removesuffix(CONV)).entries
    assert (npz.request, network.request) == (request, Request(evaluator="network", kinks="exclude"))


def test_backward_passes_of_the_users_are_named_and_looked_up_in_the_suites_folder(read, folder):
    text = '[defaults]\nbackward = "own.mine:Layer.backward"\n' + CONV + ZOO + "layers = ['conv1a']\n" + NPZ
    conv, layer, _ = read(text).entries
    assert conv.backward == layer.backward == ("own.mine:Layer.backward", folder)
    reference, own = read(CONV + 'grid.backward = ["reference", "mine:backward"]').entries
    assert (reference.name, reference.backward) == ("a/backward=reference", "reference")
    assert (own.name, own.backward, own.data) == ("a/backward=mine:backward", ("mine:backward", folder), reference.data)


@pytest.mark.parametrize("kind", [GradientEntry, FunctionEntry, TorchEntry])
def test_what_functions_describe(read, folder, kind):
    word = kind.__name__.removesuffix("Entry").lower()
    text = f'[defaults]\nevaluator = "delta"\ndims = "all"\n[[case]]\n{word} = "mine:logistic"\n'
    (entry,) = read(text).entries
    assert entry == kind("mine:logistic", Request(dims="all"), UserFunction("mine:logistic", folder))
    named = read(text + 'name = "logistic"\nstep = 0.5\ngrid = {seed = [1, 2], dims = [3]}').entries
    assert [(one.name, one.request) for one in named] == [
        (f"logistic/seed={seed},dims=3", Request(seed, 3, 0.5)) for seed in (1, 2)
    ]


def test_default_tensors_are_those_that_a_case_has(read):
    text = (
        '[defaults]\ntensors = ["bias", "weight"]\n'
        + CONV
        + "grid.bias = [true, false]\n"
        + '[[case]]\nzoo = "resnet50"'
    )
    first, second, third, *_ = read(text).entries
    assert (first.tensors, second.tensors, third.tensors) == (("weight", "bias"), ("weight",), ("weight",))
    assert (first.bias, second.bias) == (True, False)


LABELS = {
    "stride": ("[1, [1, 2]]", ["1", "1x2"]),
    "padding": ('[[[0, 1], 2], [1, 1], "same"]', ["0:1x2", "1x1", "same"]),
    "bias": ("[true, false]", ["true", "false"]),
    "tensors": ('[["weight"], ["weight", "input"]]', ["weight", "weight+input"]),
    "step": ('[1, 0.5, 1e-3, "auto"]', ["1", "0.5", "0.001", "auto"]),
}


@pytest.mark.parametrize("key", LABELS)
def test_names_tell_values(read, key):
    values, labels = LABELS[key]
    names = _names(read(CONV + f"grid = {{{key} = {values}}}"))
    assert names == [f"a/{key}={label}" for label in labels]


HOSTILE = [
    "'",
    '"',
    "a\nb",
    "\x1b[2J",
    "<script>alert(1)</script>",
    "../../etc",
    "\x00",
    "\u202e",
    "a/b=c,d",
    "  ",
    "-" * 999,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_may_be_anything_and_are_told_safely(read, refusal, name):
    escaped = "".join(f"\\U{ord(letter):08x}" for letter in name)
    text = CONV.replace('"a"', f'"{escaped}"')
    assert read(text + "grid.seed = [1]").entries[0].name == f"{name}/seed=1"
    assert read(f'name = "{escaped}"\n' + text).name == name
    shown = repr(name) if len(name) < 100 else repr(name)[:25]
    assert f": two cases have the name {shown}" in refusal(text + text)
    assert f", line 1: case {shown}" in refusal(text.replace("= 3}", "= 30}"))


REFUSALS = {
    "nothing": ("", 1, "it has no case: expected a [[case]] table for each case"),
    "one table": ("[case]\nzoo = 'c3d'", 1, "case is {'zoo': 'c3d'}: expected a [[case]] table for each case"),
    "case that is no table": ("case = [\n{zoo='c3d'},\n3]", 3, "case is 3: expected a [[case]] table for each case"),
    "misspelt case": (
        "[[cases]]\nzoo = 'c3d'",
        1,
        "the suite has the unknown key 'cases' (did you mean 'case'?): expected name, defaults, case",
    ),
    "default above all tables": (
        "\nseed = 1\n" + CONV,
        2,
        "the suite has the unknown key 'seed': it belongs in [defaults] or a [[case]]",
    ),
    "key of a case above all tables": (
        "zoo = 'c3d'",
        1,
        "the suite has the unknown key 'zoo': it belongs in a [[case]]",
    ),
    "name of the wrong type": ("name = 1\n" + CONV, 1, "name is 1: expected a string"),
    "empty name": ("name = ''\n" + CONV, 1, "name is '': expected at least a character"),
    "defaults that are no table": (
        "defaults = 3\n" + CONV,
        1,
        "defaults is 3: expected a table of seed, dims, step, evaluator, kinks, backward, dtype, tensors, loss",
    ),
    "misspelt default": (
        "[defaults]\n\nsed = 1\n" + CONV,
        3,
        "defaults has the unknown key 'sed' (did you mean 'seed'?): "
        "expected seed, dims, step, evaluator, kinks, backward, dtype, tensors, loss",
    ),
    "default of cases": (
        "[defaults]\nbatch = 1\n",
        2,
        "defaults has the unknown key 'batch': it belongs in a [[case]]",
    ),
    "default that no kind knows": (
        "[defaults]\nevaluator = 'dleta'\n" + CONV,
        2,
        "evaluator is 'dleta' (did you mean 'delta'?): expected 'auto', 'full', 'local', 'delta' or 'network'",
    ),
    "no kind": (
        NPZ + "[[case]]\nname = 'a'\nseed = 1",
        3,
        "case has no kind: expected one of the keys conv, npz, zoo, network, gradient, function, torch",
    ),
    "misspelt kind": (
        "[[case]]\nseed = 1\nconvv = {}",
        3,
        "case has the unknown key 'convv' (did you mean 'conv'?): "
        "expected one of the keys conv, npz, zoo, network, gradient, function, torch",
    ),
    "two kinds": (
        NPZ + "zoo = 'c3d'",
        3,
        "case has npz and zoo: expected one of the keys conv, npz, zoo, network, gradient, function, torch",
    ),
    "unknown key of a case": (
        NPZ + CONV + "inptu = 3",
        7,
        "this conv case has the unknown key 'inptu' (did you mean 'input'?): expected name, conv, seed, dims, step, "
        "evaluator, kinks, backward, dtype, tensors, loss, input, grid",
    ),
    "key of other kinds": (NPZ + "batch = 1", 3, "this npz case has the unknown key 'batch': zoo cases have it"),
    "key of several other kinds": (
        NETWORK + "tensors = ['bias']",
        3,
        "this network case has the unknown key 'tensors': conv and zoo cases have it",
    ),
    "key of conv beside it": (
        CONV + "stride = 2",
        5,
        "this conv case has the unknown key 'stride': it belongs in conv = {...}",
    ),
    "key beside conv in it": (
        CONV.replace("= 3}", "= 3, seed = 1}"),
        3,
        "conv has the unknown key 'seed': it belongs in the case, beside conv",
    ),
    "unknown key of conv": (
        CONV.replace("= 3}", "= 3, strides = 1}"),
        3,
        "conv has the unknown key 'strides' (did you mean 'stride'?): "
        "expected in, out, kernel, stride, padding, dilation, groups, bias",
    ),
    "conv that is no table": (
        "[[case]]\nname = 'a'\nconv = 3",
        3,
        "conv is 3: expected a table of in, out, kernel, stride, padding, dilation, groups, bias",
    ),
    "conv without kernel": (
        CONV.replace(", kernel = 3", ""),
        3,
        "conv has no key 'kernel': expected an integer or an array of integers",
    ),
    "conv without in": (CONV.replace("in = 4, ", ""), 3, "conv has no key 'in': expected an integer"),
    "conv without out": (CONV.replace("out = 6, ", ""), 3, "conv has no key 'out': expected an integer"),
    "conv without input": (
        CONV.replace("input = [2, 4, 8, 8]\n", ""),
        1,
        "this conv case has no key 'input': expected [N, C, spatial...]",
    ),
    "conv without name": (
        NPZ + CONV.replace('name = "a"\n', ""),
        3,
        "this conv case has no key 'name': expected a string",
    ),
    "name of a case of the wrong type": (CONV.replace('"a"', "1"), 2, "name is 1: expected a string"),
    "empty name of a case": (CONV.replace('"a"', '""'), 2, "name is '': expected at least a character"),
    "in of the wrong type": (CONV.replace("in = 4", "in = 4.0"), 3, "in is 4.0: expected an integer"),
    "no channels": (CONV.replace("in = 4", "in = 0"), 3, "in is 0: expected an integer of at least 1"),
    "kernel in a word": (
        CONV.replace("= 3}", "= '3'}"),
        3,
        "kernel is '3': expected an integer or an array of integers",
    ),
    "padding in a wrong word": (
        CONV.replace("= 3}", "= 3, padding = 'sane'}"),
        3,
        "padding is 'sane' (did you mean 'same'?): "
        "expected an integer, 'same', 'valid' or an array of integers or pairs of integers",
    ),
    "bias of the wrong type": (CONV.replace("= 3}", "= 3, bias = 1}"), 3, "bias is 1: expected true or false"),
    "input of the wrong type": (
        CONV.replace("2, 4, 8", '2, 4, "8"'),
        4,
        "input is [2, 4, '8', 8]: expected an array of integers",
    ),
    "input of two axes": (
        CONV.replace("[2, 4, 8, 8]", "[2, 4]"),
        4,
        "input is [2, 4]: expected 3 to 5 sizes, [N, C, spatial...]",
    ),
    "input of no size": (
        CONV.replace("8, 8", "8, -8"),
        4,
        "input[3] is -8: expected an integer of at least 1",
    ),
    "input of other channels": (
        CONV.replace("[2, 4,", "[2, 8,"),
        4,
        "case 'a': input is [2, 8, 8, 8]: axis 1 (channels) is 8, expected 4, as in conv.in",
    ),
    "kernel of another rank": (
        NPZ + CONV.replace("= 3}", "= [3, 3, 3]}"),
        3,
        "case 'a': kernel is (3, 3, 3): expected one integer, or 2 of them, one per spatial axis",
    ),
    "empty kernel": (CONV.replace("= 3}", "= 0}"), 1, "case 'a': kernel is 0: expected an integer of at least 1"),
    "kernel that is too large": (
        CONV.replace("= 3}", "= 9}"),
        1,
        "case 'a': weight is larger than the padded input along height (axis 2): "
        "the dilated kernel spans 9, the padded input 8",
    ),
    "groups that do not divide": (
        CONV.replace("= 3}", "= 3, groups = 3}"),
        1,
        "case 'a': groups is 3: it must divide the 4 input channels (input axis 1)",
    ),
    "more groups than channels": (
        CONV.replace("= 3}", "= 3, groups = 8}"),
        1,
        "case 'a': groups is 8: it must divide the 4 input channels (input axis 1)",
    ),
    "no groups": (CONV.replace("= 3}", "= 3, groups = 0}"), 3, "groups is 0: expected an integer of at least 1"),
    "no stride": (
        CONV.replace("= 3}", "= 3, stride = 0}"),
        1,
        "case 'a': stride is 0: expected an integer of at least 1",
    ),
    "geometry in a grid": (
        NPZ + CONV + "grid = {groups = [1, 2],\n stride = [1, 0]}".replace("\n", ""),
        3,
        "case 'a/groups=1,stride=0': stride is 0: expected an integer of at least 1",
    ),
    "negative seed": (CONV + "seed = -1", 5, "seed is -1: expected an integer of at least 0"),
    "seed of the wrong type": (CONV + "seed = true", 5, "seed is true: expected an integer"),
    "enormous seed": (
        CONV + f"seed = 0x1{'0' * 5000}",
        5,
        "seed is an integer of thousands of digits: expected 64-bit integers",
    ),
    "enormous stride": (
        CONV.replace("= 3}", f"= 3, stride = [1, {2**63}]}}"),
        3,
        f"stride is [1, {2**63}]: expected 64-bit integers",
    ),
    "no dims": (CONV + "dims = 0", 5, "dims is 0: expected an integer of at least 1"),
    "dims in a wrong word": (
        CONV + "dims = 'al'",
        5,
        "dims is 'al' (did you mean 'all'?): expected an integer, 'all' or 'auto'",
    ),
    "negative step": (CONV + "step = -1", 5, "step is -1.0: expected a positive finite number"),
    "infinite step": (CONV + "step = inf", 5, "step is inf: expected a finite number or 'auto'"),
    "step in a wrong word": (
        CONV + "step = 'aut'",
        5,
        "step is 'aut' (did you mean 'auto'?): expected a finite number or 'auto'",
    ),
    "evaluator of networks": (
        CONV + "evaluator = 'network'",
        5,
        "evaluator is 'network': expected 'auto', 'full', 'local' or 'delta'",
    ),
    "evaluator of convolutions": (
        SEEDED + "evaluator = 'delta'",
        4,
        "evaluator is 'delta': expected 'auto', 'network' or 'full'",
    ),
    "kinks": (NPZ + "kinks = 'wide'", 3, "kinks is 'wide' (did you mean 'widen'?): expected 'widen' or 'exclude'"),
    "backward": (
        ZOO + "backward = 'pytorch'",
        3,
        "backward is 'pytorch' (did you mean 'torch'?): "
        "expected 'reference', 'torch' or a function, as 'package.module:function'",
    ),
    "backward that is no function": (
        ZOO + "backward = 'mine.backward'",
        3,
        "backward is 'mine.backward': expected 'reference', 'torch' or a function, as 'package.module:function'",
    ),
    "path for a function": (
        CONV + "grid.backward = ['reference', 'mine.py:backward()']",
        5,
        "grid.backward[1] is 'mine.py:backward()': "
        "expected 'reference', 'torch' or a function, as 'package.module:function'",
    ),
    "gradient that is no function": (
        "[[case]]\ngradient = 'mine'",
        2,
        "gradient is 'mine': expected a function, as 'package.module:function'",
    ),
    "key of a convolution beside a function": (
        "[[case]]\ngradient = 'mine:f'\nevaluator = 'full'",
        3,
        "this gradient case has the unknown key 'evaluator': conv and npz and zoo and network cases have it",
    ),
    "dtype": (
        ZOO + "dtype = 'float46'",
        3,
        "dtype is 'float46' (did you mean 'float64'?): expected 'float64', 'float32' or 'float16'",
    ),
    "loss": (
        CONV + "loss = 'tan'",
        5,
        "loss is 'tan' (did you mean 'tanh'?): expected 'vjp', 'square', 'relu' or 'tanh'",
    ),
    "misspelt tensor": (
        CONV + "tensors = ['input', 'wieght']",
        5,
        "tensors is ['input', 'wieght'] (did you mean 'weight'?): expected an array of 'input', 'weight' or 'bias'",
    ),
    "tensors that are no array": (
        CONV + "tensors = 'bias'",
        5,
        "tensors is 'bias': expected an array of 'input', 'weight' or 'bias'",
    ),
    "no tensors": (CONV + "tensors = []", 5, "tensors is []: expected at least an entry"),
    "bias that there is none of": (
        CONV.replace("= 3}", "= 3, bias = false}") + "tensors = ['bias', 'weight']",
        5,
        "case 'a': tensors is ['weight', 'bias'], and conv has no bias: expected 'input' or 'weight'",
    ),
    "bias that there is none of in a grid": (
        CONV + "tensors = ['bias']\ngrid = {bias = [true, false]}",
        5,
        "case 'a/bias=false': tensors is ['bias'], and conv has no bias: expected 'input' or 'weight'",
    ),
    "default tensors that leave nothing": (
        "[defaults]\ntensors = ['bias']\n" + CONV.replace("= 3}", "= 3, bias = false}"),
        3,
        "case 'a': tensors is ['bias'], and conv has no bias: expected 'input' or 'weight'",
    ),
    "network that is not published": (
        "[[case]]\nzoo = 'resnet5'",
        2,
        "zoo is 'resnet5' (did you mean 'resnet50'?): "
        "expected alexnet, vgg16, resnet50, mobilenet_v2, convnext_t, audio, c3d",
    ),
    "layer that is not published": (
        ZOO + "layers = [\n'conv1a',\n'conv9a']",
        5,
        "no layer is named 'conv9a' (did you mean 'conv5a'?): expected names such as conv1a",
    ),
    "no layers": (ZOO + "layers = []", 3, "layers is []: expected at least an entry"),
    "layers without such a tensor": (
        "[[case]]\nzoo = 'resnet50'\ntensors = ['bias']",
        3,
        "nothing is left to check in resnet50: no chosen layer has bias",
    ),
    "layers without a default tensor": (
        "[defaults]\ntensors = ['bias']\n[[case]]\nzoo = 'resnet50'",
        4,
        "nothing is left to check in resnet50: no chosen layer has bias",
    ),
    "layer in a grid": (
        ZOO + "grid = {layers = [['conv1a'], ['conv1a',\n'conv9a']]}",
        4,
        "no layer is named 'conv9a' (did you mean 'conv5a'?): expected names such as conv1a",
    ),
    "no batch": (ZOO + "batch = 0", 3, "batch is 0: expected an integer of at least 1"),
    "path of the wrong type": ("[[case]]\nnpz = 3", 2, "npz is 3: expected a string"),
    "network of two kinds of data": (
        SEEDED + "grads = 'nets/digits.grads.npz'",
        4,
        "this network case has grads and input: expected params, grads and data, or input",
    ),
    "network without data": (
        NPZ + NETWORK + "params = 'a'\ngrads = 'b'",
        3,
        "this network case has no key 'data': expected params, grads and data, or input",
    ),
    "burn-in without input": (
        NETWORK + "burn_in = 3",
        3,
        "burn_in needs input, which the case does not have",
    ),
    "input without data points": (
        NETWORK + "input = [3]",
        3,
        "input is [3]: expected at least 2 sizes, [N, ...]",
    ),
    "negative burn-in": (SEEDED + "burn_in = -1", 4, "burn_in is -1: expected an integer of at least 0"),
    "grid that is no table": (CONV + "grid = [1]", 5, "grid is [1]: expected a table of arrays"),
    "misspelt key of a grid": (
        CONV + "grid = {strid = [1]}",
        5,
        "grid has the unknown key 'strid' (did you mean 'stride'?): expected in, out, kernel, stride, padding, "
        "dilation, groups, bias, seed, dims, step, evaluator, kinks and 5 more",
    ),
    "key of other kinds in a grid": (
        NPZ + "grid = {batch = [1]}",
        3,
        "grid has the unknown key 'batch': zoo cases have it",
    ),
    "kind in a grid": (
        ZOO + "grid = {zoo = ['c3d']}",
        3,
        "grid has the unknown key 'zoo': it belongs in the case itself",
    ),
    "key of conv in its grid as well": (
        CONV + "\n[case.grid]\nkernel = [1]",
        7,
        "grid has the key 'kernel', which the case has too: expected one of them",
    ),
    "key of a case in its grid as well": (
        NPZ + "seed = 1\ngrid.seed = [2]",
        4,
        "grid has the key 'seed', which the case has too: expected one of them",
    ),
    "empty axis": (NPZ + "grid = {seed = []}", 3, "grid.seed is []: expected an array of at least one value"),
    "axis that is no array": (NPZ + "grid = {seed = 1}", 3, "grid.seed is 1: expected an array of at least one value"),
    "value of a grid": (
        CONV + "grid = {dtype = [\n'float64',\n'flaot32']}",
        7,
        "grid.dtype[1] is 'flaot32' (did you mean 'float32'?): expected 'float64', 'float32' or 'float16'",
    ),
    "small value of a grid": (
        NPZ + "grid = {seed = [0, -1]}",
        3,
        "grid.seed[1] is -1: expected an integer of at least 0",
    ),
    "name twice": (
        NPZ + CONV + "\n" + CONV,
        8,
        "two cases have the name 'a', the first on line 3: expected distinct names",
    ),
    "name of a grid's case": (
        CONV.replace('"a"', '"a/seed=1"') + CONV + "grid.seed = [0, 1]",
        5,
        "two cases have the name 'a/seed=1', the first on line 1: expected distinct names",
    ),
    "value twice": (
        NPZ + "grid = {seed = [1, 1]}",
        1,
        "two cases have the name 'mine/seed=1', the first on line 1: expected distinct names",
    ),
    "stem twice": (NPZ + NPZ, 3, "two cases have the name 'mine', the first on line 1: expected distinct names"),
    "key that would move a terminal's cursor": (
        '[[case]]\nzoo = "c3d"\n"\\u001b\\n" = 1',
        3,
        "this zoo case has the unknown key '\\x1b\\n': expected name, zoo, seed, dims, step, evaluator, kinks, "
        "backward, dtype, tensors, loss, batch, layers, grid",
    ),
    "key twice": (CONV + "seed = 1\nseed = 2", 6, "it is not TOML: Cannot overwrite a value, at the end of the file"),
    "text that is not UTF-8": (CONV.encode() + b'x = "\xe9"', 5, "it has the byte 0xe9: expected text in UTF-8"),
}


@pytest.mark.parametrize(("text", "line", "told"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_say_where_what_and_what_was_expected(refusal, text, line, told):
    assert refusal(text) == f", line {line}: {told}"


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FastcheckError, match=r"absent\.toml cannot be read: No such file or directory"):
        read_suite(tmp_path / "absent.toml")


INSIDE = "expected a path inside the suite's folder (--allow-outside allows others)"


@pytest.fixture
def suites(tmp_path):
    """A folder with a suite's folder in it, and files and links inside and outside."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in-law").mkdir()
    for name in ("out.npz", "in-law/x.npz", "in/x.npz", "in/sub/x.npz"):
        (tmp_path / name).touch()
    (tmp_path / "in/inner.npz").symlink_to("sub/x.npz")
    (tmp_path / "in/outer.npz").symlink_to(tmp_path / "out.npz")
    (tmp_path / "in/law").symlink_to(tmp_path / "in-law")
    (tmp_path / "in/loop.npz").symlink_to("loop.npz")
    (tmp_path / "in/gone.npz").symlink_to("nowhere.npz")
    os.mkfifo(tmp_path / "in/fifo.npz")
    return tmp_path


def _read_npz(suites, path, **options):
    suite = suites / "in/suite.toml"
    suite.write_text(f"[[case]]\nnpz = '{path}'\n")
    return read_suite(suite, **options)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("x.npz", "in/x.npz"),
        ("sub/x.npz", "in/sub/x.npz"),
        ("./sub/../x.npz", "in/x.npz"),
        ("inner.npz", "in/sub/x.npz"),
    ],
)
def test_paths_inside_are_read(suites, path, real):
    (entry,) = _read_npz(suites, path).entries
    assert (entry.path, entry.shown) == (suites / real, path)


LEAVING = {
    "../out.npz": "which leaves the suite's folder by '..'",
    "sub/../../out.npz": "which leaves the suite's folder by '..'",
    "../in/x.npz": "which leaves the suite's folder by '..'",
    "../in-law/x.npz": "which leaves the suite's folder by '..'",
    "outer.npz": "which leaves the suite's folder by a symbolic link",
    "law/x.npz": "which leaves the suite's folder by a symbolic link",
    "law/../out.npz": "which leaves the suite's folder by a symbolic link",
}


@pytest.mark.parametrize("path", LEAVING)
def test_paths_that_leave_the_folder_are_refused_unless_they_may(suites, path):
    with pytest.raises(FastcheckError) as refused:
        _read_npz(suites, path)
    assert str(refused.value) == f"{suites / 'in/suite.toml'}, line 2: npz is {path!r}, {LEAVING[path]}: {INSIDE}"
    (entry,) = _read_npz(suites, path, allow_outside=True).entries
    assert entry.path == (suites / "in" / path).resolve()
    assert entry.path.is_file()


@pytest.mark.parametrize("name", ["out.npz", "in/x.npz"])
def test_absolute_paths_are_refused_unless_they_may(suites, name):
    with pytest.raises(FastcheckError, match=r"line 2: npz is '/.*, which is absolute: expected a path inside"):
        _read_npz(suites, suites / name)
    (entry,) = _read_npz(suites, suites / name, allow_outside=True).entries
    assert entry.path == suites / name


@pytest.mark.parametrize("allow_outside", [True, False])
@pytest.mark.parametrize(
    "path", ["absent.npz", "gone.npz", "loop.npz", "x.npz/x.npz", "a" * 40 + "/" + "b" * 5000, "sub", "", "fifo.npz"]
)
def test_files_that_are_missing_or_none_concern_their_case_alone(suites, path, allow_outside):
    (entry,) = _read_npz(suites, path, allow_outside=allow_outside).entries
    assert entry.path == Path(os.path.realpath(suites / "in" / path))
    with pytest.raises(FastcheckError) as refused:
        jobs.read(entry)
    assert str(refused.value).startswith(str(entry.path)[:100])
    assert " cannot be read: " in str(refused.value)
    assert len(str(refused.value)) <= LONGEST


def test_every_path_of_a_network_stays_inside(refusal):
    for key in ("params", "grads", "data"):
        paths = dict.fromkeys(("params", "grads", "data"), "cases/mine.npz") | {key: "../x"}
        text = NETWORK + "".join(f"{other} = '{path}'\n" for other, path in paths.items())
        line = 3 + list(paths).index(key)
        assert refusal(text) == f", line {line}: {key} is '../x', which leaves the suite's folder by '..': {INSIDE}"
    assert refusal(NETWORK.replace("nets/", "/nets/")) == (
        f", line 2: network is '/nets/digits.toml', which is absolute: {INSIDE}"
    )
    grid = NETWORK + "params = 'cases/mine.npz'\ngrads = 'cases/mine.npz'\ngrid.data = ['cases/mine.npz',\n'../x']"
    assert refusal(grid) == f", line 6: data is '../x', which leaves the suite's folder by '..': {INSIDE}"


def test_paths_with_null_characters_are_refused(refusal):
    assert refusal('[[case]]\nnpz = "a\\u0000b"') == ", line 2: npz is 'a\\x00b': expected the path of a file"


def test_a_suite_whose_own_folder_is_a_link_is_read(suites):
    (suites / "link").symlink_to("in")
    (suites / "in/suite.toml").write_text("[[case]]\nnpz = 'x.npz'\n")
    assert read_suite(suites / "link/suite.toml").entries[0].path == suites / "in/x.npz"


def test_a_suite_in_the_working_folder_is_read(suites, monkeypatch):
    monkeypatch.chdir(suites / "in")
    Path("suite.toml").write_text("[[case]]\nnpz = 'x.npz'\n")
    assert read_suite("suite.toml").entries[0].path == suites / "in/x.npz"


def test_many_cases_are_refused_before_any_is_made(refusal, read):
    axes = ", ".join(f"{key} = {list(range(1, 1001))}" for key in ("seed", "dims", "in", "out"))
    text = NPZ + f"[[case]]\nname = 'a'\nconv.kernel = 1\ninput = [1, 1, 1]\ngrid = {{{axes}}}\n" + ZOO
    assert refusal(text) == (
        ", line 7: it has 1,000,000,000,009 cases once expanded, 1,000,000,000,000 of them from this one: "
        "expected at most 100,000 (--yes allows more)"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (NPZ + CONV + "grid = {seed = [1, 2, 3], stride = [1, 2]}", 7),
        (ZOO, 8),
        (ZOO + "grid = {seed = [1, 2]}", 16),
        (ZOO + "grid = {seed = [1, 2], layers = [['conv1a'], ['conv3*', 'conv1a']]}", 8),
        (
            "[[case]]\nzoo = 'resnet50'\n"
            "grid = {tensors = [['weight'], ['input', 'bias']], layers = [['conv1'], ['*']]}",
            108,
        ),
    ],
)
def test_counts_are_exact(read, refusal, text, count):
    assert len(read(text, most=count).entries) == count
    assert len(read(text, most=None).entries) == count
    assert f": it has {count} cases once expanded" in refusal(text, most=count - 1)


def test_layers_that_have_no_such_tensor_do_not_count(read, refusal, monkeypatch):
    layers = NETWORKS["c3d"].layers[:1] + NETWORKS["resnet50"].layers[:2]
    monkeypatch.setitem(NETWORKS, "c3d", type(NETWORKS["c3d"])("made for tests", layers))
    text = ZOO + "grid.tensors = [['bias'], ['weight']]"
    assert len(read(text, most=4).entries) == 4
    assert "it has 4 cases" in refusal(text, most=3)


VALUES = {
    "stride": ["1", "2", "[1, 2]", "[2, 1]"],
    "padding": ["0", "1", "[0, 1]", "[[0, 1], 1]", '"valid"'],
    "groups": ["1", "2", "4"],
    "dilation": ["1", "2", "[1, 2]"],
    "bias": ["true", "false"],
    "seed": ["0", "1", "2"],
    "dims": ["5", '"all"', '"auto"'],
    "step": ["1", "0.5", '"auto"'],
    "backward": ['"torch"', '"reference"'],
    "dtype": ['"float16"', '"float64"'],
    "loss": ['"vjp"', '"relu"'],
    "tensors": ['["weight"]', '["weight", "input"]'],
}


@st.composite
def _grids(draw):
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    return {key: draw(st.lists(st.sampled_from(VALUES[key]), min_size=1, unique=True)) for key in keys}


@given(grid=_grids(), most=st.integers(0, 300))
@settings(max_examples=examples(150))
def test_a_grid_is_the_product_of_its_axes(read, refusal, grid, most):
    text = CONV.replace("out = 6", "out = 8")
    axes = ", ".join(f"{key} = [{', '.join(values)}]" for key, values in grid.items())
    count = math.prod(map(len, grid.values()))
    if count > most:
        assert f"it has {count} cases once expanded" in refusal(f"{text}grid = {{{axes}}}", most=most)
    entries = read(f"{text}grid = {{{axes}}}", most=count).entries
    assert len({entry.name for entry in entries}) == len(entries) == count
    data = math.prod(len(values) for key, values in grid.items() if key not in ("dtype", "backward"))
    assert len({entry.data for entry in entries}) == data
    for entry, point in zip(entries, product(*grid.values()), strict=True):
        table = {
            key: value for key, value in zip(grid, point, strict=True) if key in "stride padding groups dilation bias"
        }
        single = text.replace("= 3}", "".join(["= 3", *(f", {key} = {value}" for key, value in table.items()), "}"]))
        beside = "".join(f"{key} = {value}\n" for key, value in zip(grid, point, strict=True) if key not in table)
        (alone,) = read(single + beside).entries
        assert {**vars(entry), "name": "a", "data": "a"} == vars(alone)


WORDS = [
    *(
        "[defaults]\n",
        "[[case]]\n",
        "[case]\n",
        "[case.grid]\n",
        "[case.conv]\n",
        "name",
        "seed",
        "dims",
        "grid",
        "conv",
    ),
    *("zoo", "npz", "network", "layers", "tensors", "input", '"c3d"', '"cases/mine.npz"', '"nets/digits.toml"', '"a"'),
    *(
        " = ",
        ".",
        ",",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "1",
        "-1",
        "0.5",
        "true",
        "1979-05-27",
        '"bias"',
        '"auto"',
        '"\\u001b\\n"',
    ),
    *(CONV, NPZ, ZOO, NETWORK, SEEDED, "grid = {seed = [0, 1]}\n", "grid = {stride = [1, 2],", "[1, 4, 8]"),
]


def _told(read, text):
    """What a suite is refused with, or how many entries it has."""
    try:
        return str(len(read(text).entries))
    except FastcheckError as error:
        return str(error)


@given(st.one_of(st.text(), st.binary(), st.lists(st.sampled_from(WORDS)).map("".join)))
def test_junk_is_refused_in_one_line(read, junk):
    assert _told(read, junk).isprintable()


def test_reading_imports_neither_numba_nor_a_framework_and_importing_no_pydantic():
    code = "import fastcheck.batch.suite.file, sys; assert not {'pydantic', 'numba', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
