"""Networks from TOML: what a file means, and the line, the key and the suggestion of every refusal."""

import subprocess
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import examples

from fastcheck import FastcheckError
from fastcheck.networks.file import read_network
from fastcheck.networks.layers import KINDS, Add, BatchNorm, Concat, Conv, Dense, Flatten, MaxPool, ReLU
from fastcheck.networks.network import LEARNT, Network

CONV = '[[layer]]\nkind = "conv"\nout_channels = 8\nkernel_size = [3, 3]\n'
RELU = '[[layer]]\nkind = "relu"\n'
ADD = '[[layer]]\nkind = "add"\n'

GOOD = """
loss = "multiclass_hinge"  # of Weston and Watkins
margin = 2
reduction = "sum"
l1 = 1e-3

[l2]
stem = 1e-4
"stem.bias" = 0
dense1 = 1

[[layer]]
kind = "conv"
name = "stem"
out_channels = 4
kernel_size = [3, 3]
stride = 1
padding = [[1, 1], [0, 2]]
bias = true

[[layer]]
kind = "batch_norm"
eps = 1

[[layer]]
kind = "relu"

[[layer]]
kind = "conv"
out_channels = 4
kernel_size = 3
padding = "same"

[[layer]]
kind = "add"
other = "relu1"

[[layer]]
kind = "conv"
out_channels = 4
kernel_size = 3
padding = "same"
shares = "conv1"

[[layer]]
kind = "concat"
other = ["add1", "relu1"]

[[layer]]
kind = "max_pool"
kernel_size = 2

[[layer]]
kind = "flatten"

[[layer]]
kind = "dense"
out_features = 3
"""

SAME = Network(
    [
        Conv(4, (3, 3), stride=1, padding=((1, 1), (0, 2)), name="stem"),
        BatchNorm(eps=1.0),
        ReLU(),
        Conv(4, 3, padding="same"),
        Add("relu1"),
        Conv(4, 3, padding="same", shares="conv1"),
        Concat(("add1", "relu1")),
        MaxPool(2),
        Flatten(),
        Dense(3),
    ],
    "multiclass_hinge",
    l2={"stem": 1e-4, "stem.bias": 0, "dense1": 1},
    l1=1e-3,
    margin=2,
    reduction="sum",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("networks") / "net.toml"


def _read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_network(path)


def _refusal(path, text):
    with pytest.raises(FastcheckError) as refused:
        _read(path, text)
    told = str(refused.value)
    assert told.isprintable()
    assert told.startswith(str(path))
    return told.removeprefix(str(path))


def _described(network):
    learnt = list(network.parameter_shapes((2, 8, 8)))
    return network.layers, network.sources, network.loss, network.reduction, network.margin, network.penalties(learnt)


def test_a_file_is_the_network_that_python_would_make(path):
    assert _described(_read(path, GOOD)) == _described(SAME)


def test_what_a_file_leaves_out_is_as_in_python(path):
    assert _described(_read(path, CONV)) == _described(Network([Conv(8, (3, 3))]))


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n")])
def test_marks_and_line_ends_of_other_systems_are_read(path, text):
    assert _described(_read(path, text)) == _described(SAME)


def test_layers_may_stand_in_an_inline_array(path):
    network = _read(
        path, 'layer = [\n  {kind = "conv", out_channels = 8, kernel_size = [3, 3]},\n  {kind = "relu"},\n]\n'
    )
    assert _described(network) == _described(Network([Conv(8, (3, 3)), ReLU()]))


def test_the_path_may_be_a_string(path):
    path.write_text(RELU)
    assert read_network(str(path)).names == ("relu1",)


def test_importing_it_leaves_pydantic_alone():
    code = "import fastcheck.networks.file, sys; assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


REFUSALS = {
    "unknown kind": (
        CONV + '[[layer]]\nkind = "ReLU"',
        6,
        "kind is 'ReLU' (did you mean 'relu'?): expected conv, conv_transpose, dense",
    ),
    "kind of the wrong type": (
        "[[layer]]\nkind = 3",
        2,
        "kind is 3: expected conv, conv_transpose, dense, embedding, max_pool",
    ),
    "no kind": (RELU + '[[layer]]\nname = "a"', 3, "layer has no key 'kind': expected conv, conv_transpose, dense"),
    "misspelt kind": ('[[layer]]\n\nkibd = "conv"', 3, "layer has the unknown key 'kibd' (did you mean 'kind'?)"),
    "unknown key of the file": (
        "\nmargn = 1\n" + CONV,
        2,
        "unknown key 'margn' (did you mean 'margin'?): expected layer, loss",
    ),
    "misspelt layer": (
        RELU.replace("layer", "layers"),
        1,
        "unknown key 'layers' (did you mean 'layer'?): expected layer",
    ),
    "unknown key of a layer": (
        RELU + CONV + "kernel_sise = 3",
        7,
        "conv has the unknown key 'kernel_sise' (did you mean 'kernel_size'?): expected kind, name, input, shares,",
    ),
    "key of the file in a layer": (CONV + 'loss = "logistic"', 5, "'loss': it belongs to the network, above the first"),
    "table in a layer": (RELU + "[layer.extra]\na = 1", 3, "relu has the unknown key 'extra'"),
    "missing key": (
        RELU + '[[layer]]\nkind = "conv"\nout_channels = 3\n',
        3,
        "conv has no key 'kernel_size': expected an integer or an array of integers",
    ),
    "string for numbers": (
        CONV.replace("[3, 3]", '"3"'),
        4,
        "kernel_size is '3': expected an integer or an array of integers",
    ),
    "array of strings": (
        CONV.replace("[3, 3]", '[\n3,\n"3"]'),
        4,
        "kernel_size is [3, '3']: expected an integer or an",
    ),
    "fraction": (CONV.replace("8", "8.5"), 3, "out_channels is 8.5: expected an integer"),
    "boolean for a number": (CONV.replace("8", "true"), 3, "out_channels is true: expected an integer"),
    "boolean for a fraction": ('[[layer]]\nkind = "dropout"\np = false', 3, "p is false: expected a finite number"),
    "number for a boolean": (CONV + "bias = 1", 5, "bias is 1: expected true or false"),
    "date": (CONV + "name = 1979-05-27", 5, "name is datetime.date(1979, 5, 27): expected a string"),
    "padding in a word": (
        CONV + 'padding = "sane"',
        5,
        "padding is 'sane' (did you mean 'same'?): expected an integer, 'same', 'valid' or an array of integers or",
    ),
    "padding of three sides": (
        CONV + "padding = [[1, 1, 1], 1]",
        5,
        "padding is [[1, 1, 1], 1]: expected an integer, 'same'",
    ),
    "one of few words": (
        '[[layer]]\nkind = "gelu"\napproximate = "tan"',
        3,
        "approximate is 'tan' (did you mean 'tanh'?): expected 'none' or 'tanh'",
    ),
    "long value": (CONV + f'padding = "{"a" * 1000}"', 5, f"padding is '{'a' * 28}...{'a' * 27}': expected"),
    "enormous value": (CONV + f"bias = 0x1{'0' * 5000}", 5, "bias is an integer of thousands of digits: expected true"),
    "loss": (
        'loss = "softmax_crossentropy"\n' + CONV,
        1,
        "loss is 'softmax_crossentropy' (did you mean 'softmax_cross_entropy'?): expected one of softmax_cross_entropy",
    ),
    "loss of the wrong type": ("loss = 1\n" + CONV, 1, "loss is 1: expected a string"),
    "reduction": ('\nreduction = "average"\n' + CONV, 2, "reduction is 'average': expected one of mean, sum"),
    "margin": ("\n\nmargin = -1\n" + CONV, 3, "margin is -1.0: expected a finite number of at least 0"),
    "margin of the wrong type": ('margin = "1"\n' + CONV, 1, "margin is '1': expected a finite number"),
    "margin of nan": ("margin = nan\n" + CONV, 1, "margin is nan: expected a finite number"),
    "l2 without end": ("l2 = inf\n" + CONV, 1, "l2 is inf: expected a finite number or a table of finite numbers"),
    "l1 of nan": ("[l1]\nconv1 = nan\n" + CONV, 2, "l1['conv1'] is nan: expected a finite number"),
    "a fraction of nan": ('[[layer]]\nkind = "dropout"\np = nan', 3, "p is nan: expected a finite number"),
    "margin beyond floats": (f"margin = 1{'0' * 400}\n" + CONV, 1, "expected a finite number"),
    "l2": ("l2 = -1\n" + CONV, 1, "l2 is -1.0: expected a finite number of at least 0"),
    "l2 of the wrong type": (
        "l2 = [1]\n" + CONV,
        1,
        "l2 is [1]: expected a finite number or a table of finite numbers",
    ),
    "l2 of no layer": ("[l2]\n\nconvl = 1\n" + CONV, 3, "l2 names 'convl' (did you mean 'conv1'?): expected conv1"),
    "l2 of a layer without parameters": (
        "l2.relu1 = 1\n" + RELU,
        1,
        "l2 names 'relu1': a relu layer has no parameters",
    ),
    "l1 below zero": (CONV + "[l1]\n'conv1.bias' = -2", 6, "l1['conv1.bias'] is -2.0: expected a finite number of at"),
    "l1 that is no number": ('[l1]\nconv1 = "a"\n' + CONV, 2, "l1['conv1'] is 'a': expected a finite number"),
    "l2 without quotes": (
        "[l2]\nconv1.bias = 0\n" + CONV,
        2,
        """is {'bias': 0}: expected a finite number (the name of a tensor stands in quotes: "conv1.bias")""",
    ),
    "no layers": ("margin = 1\nlayer = []", 2, "it has no layer: expected a [[layer]] table for each layer"),
    "nothing": ("", 1, "it has no layer: expected a [[layer]] table"),
    "one table": ('[layer]\nkind = "relu"', 1, "layer is {'kind': 'relu'}: expected a [[layer]] table for each layer"),
    "layer that is no table": ("layer = [\n{kind='relu'},\n3]", 3, "layer is 3: expected a [[layer]] table"),
    "inline layer": (
        'layer = [\n  {kind = "relu"},\n  {kind = "elu", alpha = "1"},\n]',
        3,
        "alpha is '1': expected a finite number",
    ),
    "name twice": (
        CONV + 'name = "a"\n' + RELU + '\nname = "a"',
        9,
        "has the name 'a', as another layer has: expected",
    ),
    "name of a tensor": (
        RELU + 'name = "a.bias"',
        3,
        "has the name 'a.bias': expected printable characters that",
    ),
    "other that does not exist": (
        CONV + ADD + 'other = "conv2"',
        7,
        "layer 'add1' takes 'conv2' (did you mean 'conv1'?), which does not exist: expected one of x, conv1",
    ),
    "one of others that does not exist": (
        CONV + ADD + 'other = [\n"x",\n"y"]',
        9,
        "layer 'add1' takes 'y', which does not",
    ),
    "input that does not exist": (
        CONV + RELU + 'input = "convl"',
        7,
        "takes 'convl' (did you mean 'conv1'?), which does",
    ),
    "parameters of a layer that does not exist": (
        CONV + CONV.replace("[3, 3]", "3") + '\nshares = "conv3"',
        10,
        "layer 'conv2' shares 'conv3' (did you mean 'conv1'?): expected an earlier conv layer",
    ),
    "cycle": (
        ADD + 'other = "relu1"\n' + RELU,
        3,
        "takes 'relu1', which does not come before it: that would be a cycle",
    ),
    "an embedding of results": (
        RELU + '[[layer]]\nkind = "embedding"\nnum_embeddings = 4\nembedding_dim = 2',
        3,
        "layer 'embedding1' is an embedding: expected its input to be 'x', integers",
    ),
    "no other": (RELU + ADD, 3, "add: other is (): expected the name of another layer, or several"),
    "empty other": (RELU + ADD + "other = []", 5, "add: other is (): expected the name of another layer"),
    "layer that leads nowhere": (
        CONV + RELU + '[[layer]]\nkind = "relu"\ninput = "conv1"',
        5,
        "layer 'relu1' leads nowhere: no later layer takes its output",
    ),
    "names that would move a terminal's cursor": (
        RELU + 'name = "\\u001b[2J\\n"\n' + ADD + 'other = "relu1"',
        3,
        "layers[0] has the name '\\x1b[2J\\n': expected printable characters",
    ),
    "keys that would": (
        RELU + '"\\u001b\\n" = 1',
        3,
        "relu has the unknown key '\\x1b\\n': expected kind, name, input",
    ),
    "integer beyond Python's": ("a = 1\nb = 1" + "_0" * 5000, 2, "it has an integer of 5001 digits: expected fewer"),
    "key twice": (RELU + 'kind = "elu"', 3, "it is not TOML: Cannot overwrite a value"),
    "end too early": (CONV + "padding = [1,\n2\n\n", 6, "it is not TOML: Unclosed array, at the end of the file"),
    "text that is not UTF-8": (RELU.encode() + b'name = "\xe9"', 3, "it has the byte 0xe9: expected text in UTF-8"),
}


@pytest.mark.parametrize(("text", "line", "told"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_say_where_what_and_what_was_expected(path, text, line, told):
    refusal = _refusal(path, text)
    assert refusal.startswith(f", line {line}: ")
    assert told in refusal


def test_syntax_errors_say_the_column_as_well(path):
    assert _refusal(path, "a = 1\nb == 2").startswith(", line 2, column 4: it is not TOML: Invalid value")


def test_files_that_nest_too_deeply_are_refused(path):
    assert "nested too deeply" in _refusal(path, "a = " + "[" * 5000)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.toml", "absent.toml cannot be read: No such file or directory"),
        ("", "cannot be read: Is a directory"),
        ("a\nb\x1b", "a\\nb\\x1b cannot be read: No such file"),
        ("a\0b", "a\\x00b cannot be read: embedded null byte"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, told):
    with pytest.raises(FastcheckError) as refused:
        read_network(tmp_path / name)
    assert told in str(refused.value)
    assert str(refused.value).isprintable()


NOISE = [
    '# [[layer]] kind = "bad"\n',
    "\n  \t\n",
    '[[layer]]  # one [[layer]]\nkind = "relu" # bad = 1\n',
    '  [[ layer ]]\n  "kind" = """\\\n   relu"""\n',
    "[[layer]]\nkind='conv'\nout_channels = 1\nkernel_size = [ # ]\n 3,\n\n]\n",
    '[["layer"]]\r\nkind = "leaky_relu"\r\n',
    '[[layer]]\nname = """\n[[layer]]\nbad = 1\n"quoted\\"""""\nkind = "elu"\n',
    "[[layer]]\nname = '''\n[[layer]]\nbad = 1 # it''s '''''\nkind = 'tanh'\n",
    '[["\\u006cayer"]]\nkind = "silu"\n"\\u006eame" = "a]#"\n',
]


@given(noise=st.lists(st.sampled_from(NOISE), unique=True), above=st.sampled_from(["", "margin = 1\n", "l2.a = 1\n"]))
@settings(max_examples=examples(150))
def test_lines_are_right_whatever_stands_above(path, noise, above):
    text = above + "".join(noise) + '[[layer]]\nkind = "relu"\n# bad\n'
    refusal = _refusal(path, text + "  'bad' = 1\n" + "".join(noise))
    assert refusal.startswith(f", line {text.count(chr(10)) + 1}: relu has the unknown key 'bad'")


def _values(kind):
    """A strategy for what a field of some type may be."""
    whole = st.integers(-(2**70), 2**70)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of([_values(option) for option in get_args(kind) if option is not type(None)])
    if get_origin(kind) is tuple:
        return st.lists(_values(get_args(kind)[0]), min_size=1, max_size=3).map(tuple)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is Any:
        sides = st.one_of(whole, st.tuples(whole, whole))
        return st.one_of(whole, st.sampled_from(["same", "valid"]), st.lists(sides).map(tuple))
    return {
        bool: st.booleans(),
        int: whole,
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.just("x"),
    }[kind]


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1).filter(
    lambda name: name != "x" and name.isprintable()
)


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    return repr(value)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=examples(40))
def test_every_kind_can_be_written_with_every_field(path, kind, data):
    hints = get_type_hints(KINDS[kind])
    values = {field.name: data.draw(_values(hints[field.name]), field.name) for field in fields(KINDS[kind])}
    del values["shares"]
    values["name"] = data.draw(NAMES.filter(lambda name: name != "first"), "name")
    tables = [{"kind": kind, **values}]
    if issubclass(KINDS[kind], LEARNT) and kind != "embedding" and data.draw(st.booleans(), "shared"):
        values["shares"] = "first"
        tables = [tables[0] | {"name": "first"}, tables[0] | {"shares": "first", "input": "first"}]
        values["input"] = "first"
    lines = [[f"{key} = {_toml(value)}" for key, value in table.items()] for table in tables]
    text = "\n".join(line for table in lines for line in ["[[layer]]", *data.draw(st.permutations(table))])
    layer = _read(path, text).layers[-1]
    assert layer == KINDS[kind](**values)
    assert hash(layer) == hash(KINDS[kind](**values))


WORDS = [
    *(
        "[[layer]]\n",
        "[layer]\n",
        "[l2]\n",
        "layer",
        "kind",
        "name",
        "input",
        "shares",
        "other",
        "l2",
        "loss",
        "padding",
        '"conv1.bias"',
    ),
    *("conv", '"conv"', '"relu"', '"add"', '"conv1"', '"relu1"', '"x"', "true", "3", "-1.5", "nan", "1979-05-27", '""'),
    *(" = ", "=", ".", ",", "[", "]", "{", "}", "\n", "\n", "#", "'", '"""', '"\\n"', "\x1b", "\u2028", "\x00"),
    *(CONV, RELU, ADD, 'other = "conv1"\n', 'name = "\\u001b\\n"\n', 'input = "relu1"\n', "layer = [{kind = "),
]


def _told(path):
    """What a file is refused with, or its path where it is not."""
    try:
        read_network(path)
    except FastcheckError as error:
        return str(error)
    return str(path)


@given(st.one_of(st.text(), st.binary(), st.lists(st.sampled_from(WORDS)).map("".join)))
def test_junk_is_refused_in_one_line(path, junk):
    path.write_bytes(junk if isinstance(junk, bytes) else junk.encode())
    told = _told(path)
    assert told.isprintable()
    assert told.startswith(str(path))
