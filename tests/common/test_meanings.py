"""Arrays and options as people have them: taken and judged right, or refused with the remedy.

The variants are from CS231n's notebooks, PyTorch's modules and state_dicts, Keras layers, and files of other languages.
"""

import pickle
from collections import namedtuple

import network_examples
import numpy as np
import pytest
import torch
import torch_network
from layer_examples import layer, operands, torch_gradients

import fastcheck
from fastcheck import FastcheckError
from fastcheck.cli.main import status
from fastcheck.common.meanings import meant, remark
from fastcheck.convolutions.npz_case import case_outline, load_case
from fastcheck.networks.file import read_network
from fastcheck.networks.layers import BatchNorm, Conv, Dense, Flatten, ReLU
from fastcheck.reports.files import read_pair, read_report

pytestmark = pytest.mark.jit

THREE_LINES = 240 - len("fastcheck: ")

KERNELS = ("weight", "grad_weight")
GRADS = ("grad_input", "grad_weight", "grad_bias")


def _arrays(of, dtype=np.float64, **arguments):
    """The arrays of a layer by our names, with PyTorch's gradients, and the arguments that a file says."""
    x, w, b = operands(of, dtype=dtype)
    out, v, grads = torch_gradients(of, x, w, b)
    arrays = {"input": x, "weight": w, "bias": b, "output": out, "grad_output": v}
    return arrays | {f"grad_{name}": grad for name, grad in grads.items()} | arguments


LAYER = _arrays(layer((2, 3, 7, 6), (4, 3, 3, 3), stride=2, padding=1), stride=2, padding=1)
UNTOLD = {name: array for name, array in LAYER.items() if name not in ("stride", "padding")}
OPTIONS = np.array({"stride": 2, "pad": 1}, dtype=object)
SAME = _arrays(layer((2, 3, 7, 6), (4, 3, 3, 3), padding=1), padding="SAME")
LINE = _arrays(layer((2, 3, 9), (4, 3, 3), padding=1), padding=1)
SOLID = _arrays(layer((1, 2, 4, 5, 3), (3, 2, 2, 2, 2)))
DEEP = _arrays(layer((2, 4, 6, 6), (4, 1, 3, 3), groups=4), groups=4)
WIDE = _arrays(layer((2, 5, 7, 6), (4, 5, 3, 3), padding=1), padding=1)
SHORT = _arrays(layer((2, 3, 7, 6), (4, 3, 3, 3), stride=2, padding=1), np.float32, stride=2, padding=1)

CS231N = {"input": "x", "weight": "w", "bias": "b", "output": "out", "grad_output": "dout"}
CS231N |= {"grad_input": "dx", "grad_weight": "dw", "grad_bias": "db"}
CAPITALS = {"input": "X", "weight": "W", "output": "Z", "grad_output": "dZ", "grad_input": "dX", "grad_weight": "dW"}
STATE_DICT = {"weight": "conv1.weight", "bias": "conv1.bias", "grad_weight": "conv1.weight.grad"}
STATE_DICT |= {"grad_bias": "conv1.bias.grad"}


def _named(arrays, names):
    return {names.get(name, name): array for name, array in arrays.items()}


def _last(arrays, **arguments):
    """The same arrays, channels-last."""
    kernel, activation = lambda a: np.moveaxis(a, (0, 1), (-1, -2)), lambda a: np.moveaxis(a, 1, -1)
    turn = {"weight": kernel, "grad_weight": kernel}
    turn |= dict.fromkeys(("input", "output", "grad_output", "grad_input"), activation)
    return {name: turn[name](array) if name in turn else array for name, array in arrays.items()} | arguments


def _each(arrays, change):
    """The same with every array of numbers changed."""
    return {name: change(array) if np.ndim(array) else array for name, array in arrays.items()}


def _without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


def _bits(array):
    """The bits of bfloat16 numbers."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(torch.bfloat16)
    return tensor.view(torch.int16).numpy().view(np.uint16)


BFLOAT16 = _each(
    _arrays(layer((2, 3, 7, 6), (4, 3, 3, 3), padding=1), np.float32, padding=1),
    lambda array: torch.from_numpy(array).to(torch.bfloat16),
)
"""Tensors of a layer whose input and weight are rounded to bfloat16, and whose results are computed from those."""
BFLOAT16 |= dict(
    zip(
        ("output", "grad_input", "grad_weight", "grad_bias"),
        (
            torch.nn.functional.conv2d(BFLOAT16["input"], BFLOAT16["weight"], BFLOAT16["bias"], padding=1),
            *torch.ops.aten.convolution_backward(
                *(BFLOAT16[name] for name in ("grad_output", "input", "weight")),
                *([4], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3),
            ),
        ),
        strict=True,
    )
)


def _file(arrays, **options):
    """What reads these arrays from a file."""

    def read(folder, spoilt=None):
        given = dict(arrays)
        if spoilt is not None:
            own = (options.get("keys") or {}).get("grad_weight", "grad_weight")
            given[own] = spoilt(given[own])
        np.savez(folder / "case.npz", **given)
        return fastcheck.check(load_case(folder / "case.npz", **options), dims="all", threads=1)

    return read


def _case(arrays, **options):
    """What makes a case of these arrays in Python."""

    def read(folder, spoilt=None):
        given = {name: array for name, array in arrays.items() if name not in GRADS}
        grads = {name.removeprefix("grad_"): arrays[name] for name in GRADS if name in arrays}
        if spoilt is not None:
            grads["weight"] = spoilt(grads["weight"])
        return fastcheck.check(fastcheck.ConvCase(**given, grads=grads, **options), dims="all", threads=1)

    return read


class _Converts:
    """Another library's array."""

    def __init__(self, values):
        self._values = values
        self.shape = values.shape

    def __array__(self, dtype=None, copy=None):
        return self._values if dtype is None else self._values.astype(dtype)


def _tensor(array, **options):
    return torch.tensor(np.ascontiguousarray(array), **options)


def _function(params, convert=lambda grads: grads, dtype=np.float64):
    """What checks the gradient of sum(w^2) + 3 sum(b) at params in some form."""
    keys = list(params) if isinstance(params, dict) else range(len(params))

    def loss(p):
        first, second = p.values() if isinstance(p, dict) else p
        assert type(p) is type(params)
        assert isinstance(first, np.ndarray)
        return float((first**2).sum() + 3 * second.sum())

    def read(folder, spoilt=None):
        first, second = (_plain(params[key]) for key in keys)
        grads = [(2 * first).astype(dtype), np.full_like(second, 3, dtype)]
        grads[0] = spoilt(grads[0]) if spoilt else grads[0]
        made = dict(zip(params, grads, strict=True)) if isinstance(params, dict) else tuple(grads)
        return fastcheck.check_gradient(loss, convert(made), params)

    return read


def _plain(array):
    return array.detach().double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, dtype=float)


W, B = np.arange(6.0).reshape(2, 3) + 1, np.ones(3)
Pair = namedtuple("Pair", "w b")


def _compared(make):
    def read(folder, spoilt=None):
        given = spoilt(W) if spoilt else W
        return fastcheck.compare(make(given), make(W))

    return read


def _network(name="batch_norm_frozen", change=lambda params: params, grads=lambda grads: grads, data=lambda a: a):
    """What checks one of the example networks with its parameters, gradients and data in some form."""

    def read(folder, spoilt=None):
        network, params, x, y, masks = network_examples.CASES[name](0)
        right = torch_network.gradients(network, params, x, y, masks)[1]
        first = next(iter(right))
        if spoilt is not None:
            right[first] = spoilt(right[first])
        return fastcheck.check_network(network, change(params), grads(right), data(x), data(y), masks=masks, threads=1)

    return read


def _counted(params):
    layers = [name.removesuffix(".running_mean") for name in params if name.endswith(".running_mean")]
    return params | {f"{name}.num_batches_tracked": np.array(7) for name in layers}


def _with_statistics(params):
    """Parameters with running statistics of the batch normalisations, which training does not read."""
    layers = [name.removesuffix(".weight") for name in params if name.startswith("batch_norm") and "weight" in name]
    statistics = {f"{name}.running_mean": np.full_like(params[f"{name}.weight"], 3) for name in layers}
    return params | statistics | {name.replace("mean", "var"): array for name, array in statistics.items()}


def _nested(arrays):
    nested = {}
    for name, array in arrays.items():
        of, _, tensor = name.rpartition(".")
        nested.setdefault(of, {})[tensor] = array
    return nested


def _tensors(arrays):
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return {name: one.requires_grad_() if one.is_floating_point() else one for name, one in tensors.items()}


TAKEN = {
    "our names": _file(LAYER),
    "CS231n's names": _file(_named(LAYER, CS231N), keys=CS231N),
    "capital letters": _file(_without(_named(LAYER, CAPITALS), "grad_bias"), keys=CAPITALS),
    "a state_dict's names, and what else it has": _file(
        _named(LAYER, STATE_DICT) | {"bn1.running_mean": np.zeros(4), "bn1.num_batches_tracked": np.array(3)},
        keys=STATE_DICT,
    ),
    "arrays of one's own": _file(LAYER | {"lr": 0.1, "epoch": 3}, ignore_extra=True),
    "conv_param, its numbers given": _file(UNTOLD | {"conv_param": OPTIONS}, stride=2, padding=1),
    "conv_param and keys, its numbers given": _file(
        _named(UNTOLD, CS231N) | {"conv_param": OPTIONS}, keys=CS231N, stride=2, padding=1
    ),
    "conv_param beside stride and padding": _file(LAYER | {"conv_param": OPTIONS}),
    "pad beside padding that is given": _file(UNTOLD | {"stride": 2, "pad": 7}, padding=1),
    "Keras: NHWC, kernels HWIO": _file(_last(LAYER), layout="NHWC"),
    "layout in the file": _file(_last(LAYER, layout="NHWC")),
    "layout of a line": _file(_last(LINE), layout="NWC"),
    "NHWC of a line": _file(_last(LINE), layout="NHWC"),
    "layout of a solid": _file(_last(SOLID), layout="NDHWC"),
    "channels-last depthwise": _file(_last(DEEP), layout="NHWC"),
    "Keras: names and layout": _file(
        _named(_last(LAYER), {"weight": "kernel"}), keys={"weight": "kernel"}, layout="NHWC"
    ),
    "Fortran-ordered": _file(_each(LAYER, np.asfortranarray)),
    "big-endian": _file(_each(LAYER, lambda array: array.astype(array.dtype.newbyteorder(">")))),
    "float32": _file(SHORT),
    "float16 gradients": _file(LAYER | {name: LAYER[name].astype(np.float16) for name in GRADS}),
    "bfloat16's bits": _file(_each(BFLOAT16, lambda one: _bits(one.float().numpy())), precision="bfloat16"),
    "bfloat16 as NumPy saves it": _file(_each(BFLOAT16, lambda one: _bits(one.float().numpy()).view("V2"))),
    "float stride": _file(LAYER | {"stride": 2.0, "padding": np.array([1.0, 1.0])}),
    "padding SAME in capitals": _file(SAME),
    "padding of each side": _file(LAYER | {"padding": np.array([[1, 1], [1, 1]])}),
    "tensors that require a gradient": _case(_each(LAYER, lambda array: _tensor(array, requires_grad=True))),
    "parameters of a module": _case(LAYER | {"weight": torch.nn.Parameter(_tensor(LAYER["weight"]))}),
    "bfloat16 tensors": _case(BFLOAT16),
    "float16 tensors": _case(LAYER | {name: _tensor(LAYER[name]).half() for name in GRADS}),
    "float32 tensors": _case(_each(SHORT, _tensor)),
    "permuted tensors": _case(_each(_last(LAYER), _tensor) | {"stride": 2, "padding": 1}, layout="NHWC"),
    "nested lists": _case(_each(LAYER, np.ndarray.tolist)),
    "another library's arrays": _case(_each(LAYER, _Converts)),
    "NumPy's integers": _case(LAYER | {"stride": np.int64(2), "padding": np.array(1)}),
    "no bias": _case(_without(LAYER, "bias", "output", "grad_bias")),
    "a dict of tensors": _function({"w": _tensor(W, requires_grad=True), "b": _tensor(B)}, _tensors),
    "a list of arrays": _function([W, B], list),
    "a tuple of tensors": _function((_tensor(W), _tensor(B)), lambda grads: tuple(map(_tensor, grads))),
    "a named tuple": _function(Pair(W, B)),
    "float32 tensors of a function": _function([_tensor(W).float(), _tensor(B).float()], list, np.float32),
    "bfloat16 tensors of a function": _function(
        [_tensor(W).bfloat16(), _tensor(B).bfloat16()], lambda grads: [_tensor(one).bfloat16() for one in grads]
    ),
    "two tensors to compare": _compared(_tensor),
    "two lists to compare": _compared(lambda array: [array, B]),
    "bfloat16 to compare": _compared(lambda array: _tensor(array).bfloat16()),
    "a state_dict of a network": _network(change=lambda params: _tensors(_counted(params))),
    "a state_dict in training": _network(
        "batch_norm_maps", lambda params: _tensors(_counted(_with_statistics(params)))
    ),
    "parameters nested by layer": _network(change=_nested, grads=_nested),
    "tensors of a network": _network("relu", _tensors, _tensors, torch.from_numpy),
    "bfloat16 gradients of a network": _network(
        "relu", grads=lambda grads: {name: _tensor(array).bfloat16() for name, array in grads.items()}
    ),
}
"""What is taken as it is."""


def _spoilt(array):
    """A gradient with one entry of the wrong sign and another size, whatever it is stored in."""
    if isinstance(array, torch.Tensor):
        wrong = array.detach().clone()
        wrong.view(-1)[wrong.abs().argmax()] *= -3
        return wrong
    if isinstance(array, list):
        return _spoilt(np.array(array)).tolist()
    if isinstance(array, _Converts):
        return _Converts(_spoilt(np.asarray(array)))
    wrong = np.array(array)
    if wrong.dtype.kind in "uV":
        wrong.view(np.uint16).reshape(-1)[:3] ^= 0x8000  # the sign
        return wrong
    wrong.flat[np.abs(wrong).argmax()] *= -3
    return wrong


@pytest.mark.parametrize("name", TAKEN)
def test_what_people_have_is_taken_and_judged_right(name, tmp_path):
    right = TAKEN[name](tmp_path)
    assert right.passed, right.summary()
    assert TAKEN[name](tmp_path, _spoilt).verdict == "fail"


def _network_file(text):
    def read(folder):
        (folder / "net.toml").write_text(text)
        return read_network(folder / "net.toml")

    return read


def _kind(kind, options=""):
    return _network_file(f'[[layer]]\nkind = "{kind}"\n{options}')


CONV = '[[layer]]\nkind = "conv"\nout_channels = 4\nkernel_size = 3\n'
NET = fastcheck.Network([Conv(4, 3, name="conv"), BatchNorm(name="bn"), ReLU(), Flatten(), Dense(3, name="fc")])
PARAMS = NET.initial((2, 5, 7))
X, Y = np.ones((6, 2, 5, 7)), np.array([0, 1, 2, 0, 1, 2])
MLP = fastcheck.Network([Dense(8, name="a"), ReLU(), Dense(3, name="b")])
FLAT = MLP.initial((5,))


def _point(network=NET, params=PARAMS, x=X, y=Y, change=None, grads=None):
    given = params | (change or {})
    return lambda folder: fastcheck.check_network(network, given, grads or given, x, y)


def _gradient(grad, params=None):
    return lambda folder: fastcheck.check_gradient(lambda p: 1.0, grad, np.ones(3) if params is None else params)


def _saved(save, read=load_case, name="file.npz"):
    """What reads a file that something else wrote."""

    def written(folder):
        with open(folder / name, "wb") as file:  # NumPy adds an ending to names
            save(file)
        return read(folder / name)

    return written


def _loss(loss):
    return lambda folder: fastcheck.check_gradient(loss, np.ones(3), np.ones(3))


REFUSED = {
    "CS231n's names": (
        _file(_named(LAYER, CS231N)),
        "keys=dict(input='x', weight='w', bias='b', output='out', grad_output='dout', grad_input='dx', "
        "grad_weight='dw', grad_bias='db')",
    ),
    "capital letters": (
        _file(_named(LAYER, CAPITALS)),
        "keys=dict(input='X', weight='W', output='Z'",
    ),
    "dW": (
        _file(_named(LAYER, {"grad_weight": "dW"})),
        "'grad_weight'?): rename it, or give keys=dict(",
    ),
    "dy": (_file(_named(LAYER, {"grad_output": "dy"})), "keys=dict(grad_output='dy'"),
    "weight_grad": (_file(_named(LAYER, {"grad_weight": "weight_grad"})), "keys=dict(grad_weight='weight_grad'"),
    "grad_w": (_file(_named(LAYER, {"grad_weight": "grad_w"})), "keys=dict(grad_weight='grad_w'"),
    "pad": (_file(_named(LAYER, {"padding": "pad"})), "keys=dict(padding='pad'"),
    "kernel": (_file(_named(LAYER, {"weight": "kernel"})), "keys=dict(weight='kernel'"),
    "kernel_size": (_file(LAYER | {"kernel_size": 3}), "the arrays' shapes say it: leave it out"),
    "a state_dict": (_file(_named(LAYER, STATE_DICT)), "keys=dict(weight='conv1.weight', bias='conv1.bias'"),
    "one key of two": (_file(_named(LAYER, CS231N), keys={"input": "x"}), "keys=dict(input='x', weight='w'"),
    "a key that is not there": (_file(LAYER, keys={"weight": "wieght"}), "no key 'wieght' (did you mean 'weight'?)"),
    "a name that is none": (_file(LAYER, keys={"kernel": "weight"}), "(did you mean 'weight'?)"),
    "conv_param": (_file(UNTOLD | {"conv_param": OPTIONS}), "'conv_param': give its numbers as stride and padding"),
    "conv_param among CS231N's names": (
        _file(_named(UNTOLD, CS231N) | {"conv_param": OPTIONS}),
        "grad_bias='db'), and conv_param's numbers as stride and padding",
    ),
    "conv_param with keys": (
        _file(_named(UNTOLD, CS231N) | {"conv_param": OPTIONS}, keys=CS231N),
        "'conv_param': give its numbers as stride and padding",
    ),
    "cfg with keys": (_file(_named(UNTOLD, CS231N) | {"cfg": (2, 1)}, keys=CS231N), "'cfg': give its numbers as"),
    "half of hparams": (_file(UNTOLD | {"hparams": (2, 1)}, stride=2), "'hparams': give its numbers as padding"),
    "conv_stride with keys": (
        _file(_named(UNTOLD, CS231N) | {"conv_stride": 2, "conv_pad": 1}, keys=CS231N),
        "grad_bias='db', stride='conv_stride', padding='conv_pad')",
    ),
    "strd": (_file(UNTOLD | {"strd": 2, "padd": 1}), "keys=dict(stride='strd', padding='padd')"),
    "step": (_file(UNTOLD | {"step": 2, "zero_padding": 1}), "keys=dict(stride='step', padding='zero_padding')"),
    "stride_h": (_file(UNTOLD | {"stride_h": 2, "stride_w": 2}), "keys=dict(stride='stride_h')"),
    "stride_w": (
        _file(UNTOLD | {"stride_h": 2, "stride_w": 2}, keys={"stride": "stride_h"}),
        "'stride_w' (did you mean 'stride'?): give stride",
    ),
    "arrays without names": (
        _file({f"arr_{number}": W for number in range(3)}),
        "np.savez(file, input=..., ",
    ),
    "a learning rate": (_file(LAYER | {"lr": 0.1}), "ignore_extra=True ignores it"),
    "an output padding": (_file(LAYER | {"output_padding": 1}), "expected transposed=True too"),
    "a deconvolution": (_file(LAYER | {"deconv": True}), "ConvCase(transposed=True)"),
    "NHWC": (_file(_last(LAYER)), "the arrays look channels-last: add layout='NHWC' (--layout NHWC)"),
    "NWC": (_case(_last(LINE)), "layout='NHWC'"),
    "NCHW called NHWC": (_file(LAYER, layout="NHWC"), "the arrays look channels-first: leave layout out"),
    "HWIO with NCHW": (
        _case(LAYER | {name: _last(LAYER)[name] for name in ("weight", "grad_weight")}),
        "give weight and grad_weight as .transpose(3, 2, 0, 1)",
    ),
    "weights (in, out)": (
        _case(LAYER | {name: LAYER[name].swapaxes(0, 1) for name in ("weight", "grad_weight")}),
        "give weight and grad_weight as .transpose(1, 0, 2, 3)",
    ),
    "OIHW with NHWC": (
        _case(_last(LAYER) | {name: LAYER[name] for name in KERNELS}, layout="NHWC"),
        "give weight and grad_weight as .transpose(2, 3, 1, 0): OIHW becomes HWIO",
    ),
    "a weight OIHW with NHWC": (
        _case(_last(LAYER) | {"weight": LAYER["weight"]}, layout="NHWC"),
        "give weight as .transpose(2, 3, 1, 0): OIHW becomes HWIO",
    ),
    "OHWI with NHWC": (
        _case(_last(WIDE) | {name: np.moveaxis(WIDE[name], 1, -1) for name in KERNELS}, layout="NHWC"),
        "give weight and grad_weight as .transpose(1, 2, 3, 0): OHWI becomes HWIO",
    ),
    "OHWI with NCHW": (
        _case(WIDE | {name: np.moveaxis(WIDE[name], 1, -1) for name in KERNELS}),
        "give weight and grad_weight as .transpose(0, 3, 1, 2): OHWI becomes OIHW",
    ),
    "x and w exchanged": (
        _case(LAYER | {"input": LAYER["weight"], "weight": LAYER["input"]}),
        "input and weight look exchanged",
    ),
    "an output of another size": (
        _case(LAYER | {"grad_output": LAYER["grad_output"][:, :, :, :2]}),
        "is 2, expected 3 in (2, 4, 4, 3) with stride 2, padding 1",
    ),
    "a gradient of no bias": (_case(_without(LAYER, "bias")), "the case has no bias: give bias too (bias=b)"),
    "a number for an array": (_case(LAYER | {"grad_output": 1}), "grad_output is 1: expected an array of float64, "),
    "a list of integers": (_gradient(None, [1, 2]), "; np.array(params, float) converts it"),
    "a mask for a gradient": (_gradient(W > 0, W), "grad has dtype bool: expected float64, float32, float16 or bfl"),
    "a tensor of integers": (_gradient(None, torch.arange(3)), "; params.double() converts it"),
    "a file of torch.save": (_saved(lambda file: torch.save(_tensor(W), file)), "is a file of torch.save: expected an"),
    "an .npy file": (_saved(lambda file: np.save(file, W)), "is an .npy file, of one array: expected an .npz file"),
    "a pickle": (_saved(lambda file: pickle.dump(W, file)), "is a pickle: expected an .npz file, as np.savez(file, "),
    "a pickle to compare": (
        _saved(lambda file: pickle.dump(W, file), lambda path: read_pair(path, path)),
        "is a pickle: expected an .npy file, as np.save(file, array) writes",
    ),
    "a suite for a report": (
        _saved(lambda file: file.write(b"name = 1"), read_report, "suite.toml"),
        "suite.toml is TOML: expected a folder of `fastcheck run`, or its --json report",
    ),
    "arrays for a network": (
        _saved(lambda file: np.savez(file, W), read_network),
        "the file is a zip file (.npz): expected a TOML file",
    ),
    "an unknown layout": (_case(LAYER, layout="HWCN"), "did you mean"),
    "a layout of another rank": (_case(LAYER, layout="NWC"), "expected 3 axes"),
    "Keras' depthwise kernels": (
        _case(
            _last(_without(DEEP, "groups"))
            | {name: _last(DEEP)[name].reshape(3, 3, 4, 1) for name in ("weight", "grad_weight")},
            layout="NHWC",
        ),
        "a depthwise kernel needs .reshape(3, 3, 1, 4), its gradient too, and groups=4",
    ),
    "no padding": (
        _file(_without(LAYER, "padding")),
        "expected 3 with padding 0 (not in the file); padding 1 gives 4: add padding=1",
    ),
    "neither stride nor padding": (_file(_without(LAYER, "padding", "stride")), "add stride=2, padding=1"),
    "no groups": (_file(_without(DEEP, "groups")), "with groups 1 (not in the file): add groups=4"),
    "no padding in Python": (_case(_without(LAYER, "padding")), "padding 0 (the default); padding 1 gives 4"),
    "a single sample": (_case(_each(LAYER, lambda a: a[0] if a.ndim == 4 and len(a) == 2 else a)), "give input[None]"),
    "a dense layer": (_case(dict.fromkeys(("input", "weight", "grad_output", "grad_weight"), W)), "check_gradient"),
    "stride 2.5": (_file(LAYER | {"stride": 2.5}), "stride is 2.5: expected an integer"),
    "SAME with a stride": (_file(LAYER | {"padding": "SAME"}), "expected the zeros of each side"),
    "integers": (_case(LAYER | {"input": LAYER["input"].astype(int)}), "input.astype(float)"),
    "complex": (_case(LAYER | {"input": LAYER["input"] + 0j}), "input has dtype complex128"),
    "uint16 of what?": (
        _case(LAYER | {"weight": _bits(LAYER["weight"])}),
        "precision='bfloat16' (--precision bfloat16)",
    ),
    "float8": (_case(LAYER | {"weight": _tensor(LAYER["weight"]).to(torch.float8_e4m3fn)}), "torch.float8_e4m3fn"),
    "one byte of void": (_case(LAYER | {"weight": np.zeros((4, 3, 3, 3), "V1")}), "weight has dtype |V1"),
    "a sparse tensor": (_case(LAYER | {"weight": _tensor(LAYER["weight"]).to_sparse()}), "expected its .to_dense()"),
    "a complex tensor": (_case(LAYER | {"weight": _tensor(LAYER["weight"]) + 0j}), "weight has dtype complex128"),
    "a tensor without values": (_case(LAYER | {"weight": torch.ones(4, 3, 3, 3, device="meta")}), "meta device"),
    "a gradient that is None": (_case(LAYER | {"grad_weight": None}), "grad_weight is None: autograd did not reach it"),
    "grads by name": (_case(LAYER | {"grad_weight": {"w": W}}), "grad_weight is a mapping, of 'w': expected an array"),
    "None from a function": (_gradient({"w": None}, {"w": np.ones(3)}), "grad['w'] is None: autograd did not reach it"),
    "nested parameters": (_gradient(None, {"a": {"w": np.ones(3)}}), "params['a'] is a mapping, of 'w': expected"),
    "a list in a dict": (_gradient(None, {"a": [W, B]}), "params['a'] is a list of arrays: expected one array"),
    "too few gradients": (_gradient([W], [W, B]), "grad has 1 entries: expected 2 arrays, like params"),
    "a module": (_gradient(None, torch.nn.Linear(2, 3)), "dict(params.named_parameters())"),
    "a generator": (_gradient(None, torch.nn.Linear(2, 3).parameters()), "list(params)"),
    "a generator of names": (
        _gradient(None, torch.nn.Linear(2, 3).named_parameters()),
        "params is a generator: expected arrays, such as dict(model.named_parameters())",
    ),
    "pairs of names and tensors": (
        _gradient(None, list(torch.nn.Linear(2, 3).named_parameters())),
        "params[0] is a pair of a name and an array: give dict(params)",
    ),
    "pairs for a gradient": (_gradient([("w", W)], {"w": W}), "grad[0] is a pair of a name and an array: give dict(g"),
    "a counter": (
        _gradient({"1.weight": W}, {"1.weight": W, "1.num_batches_tracked": np.array(3)}),
        "'1.num_batches_tracked', a counter and not a parameter: give params as dict(model.named_parameters())",
    ),
    "a statistic": (
        _gradient({"1.weight": W}, {"1.weight": W, "1.running_mean": B}),
        "grad has no '1.running_mean', a statistic and not a parameter: give params as dict(model.named_parameters())",
    ),
    "what torch.autograd.grad returns": (
        _gradient((_tensor(W),), _tensor(W)),
        "grad has shape (1, 2, 3): expected (2, 3), that of params; torch.autograd.grad returns a tuple: give grad[0]",
    ),
    "a tuple for names": (_gradient((W, B), {"w": W, "b": B}), "and params a mapping: give dict(zip(params, grad))"),
    "a function without return": (_gradient(lambda p: None), "grad returns None at the start point: is its return mi"),
    "a loss without return": (_loss(lambda p: None), "expected one number; is its return missing?"),
    "a loss and a gradient": (_loss(lambda p: (1.0, 2 * p)), "its first element is one: return that alone"),
    "several losses": (_loss(lambda p: p), "such as (v * output).sum() with a fixed v, the grad_output"),
    "tol": (lambda folder: fastcheck.check_gradient(None, None, None, tol=1e-5), "fastcheck has no tolerance"),
    "h": (lambda folder: fastcheck.check_gradient(None, None, None, h=1e-5), "no argument 'h' (did you mean 'step'?)"),
    "x and w": (lambda folder: fastcheck.ConvCase(x=W, w=W), "ConvCase has no argument 'x' (did you mean 'input'?)"),
    "deconvolution": (
        _case(LAYER, deconvolution=True),
        "'deconvolution': a transposed convolution is a case, ConvCase(",
    ),
    "transpose": (_case(LAYER, transpose=True), "no argument 'transpose' (did you mean 'transposed'?)"),
    "rtol to compare": (lambda folder: fastcheck.compare(W, W, rtol=0.1), "fastcheck has no tolerance"),
    "parameters of a network by keyword": (
        lambda folder: fastcheck.check_network(NET, PARAMS, PARAMS, X, Y, eps=1e-5),
        "check_network has no argument 'eps' (did you mean 'step'?)",
    ),
    "another name": (_gradient({"W": W}, {"w": W}), "grad has the key 'W' (did you mean 'w'?)"),
    "Linear": (_kind("Linear"), "did you mean 'dense'?"),
    "Dense": (_kind("Dense"), "did you mean 'dense'?"),
    "Conv2d": (_kind("Conv2d"), "did you mean 'conv'?"),
    "BatchNorm2d": (_kind("BatchNorm2d"), "did you mean 'batch_norm'?"),
    "MaxPool2d": (_kind("MaxPool2d"), "did you mean 'max_pool'?"),
    "GlobalAveragePooling2D": (_kind("GlobalAveragePooling2D"), "did you mean 'global_avg_pool'?"),
    "LSTM": (_kind("LSTM"), "fastcheck has no such layer; fastcheck.check_gradient checks any function"),
    "MultiHeadAttention": (_kind("MultiHeadAttention"), "check_gradient"),
    "Embedding": (_kind("nn.Embedding"), "did you mean 'embedding'?"),
    "Bilinear": (_kind("nn.Bilinear"), "check_gradient"),
    "ConvTranspose2d": (_kind("ConvTranspose2d"), "did you mean 'conv_transpose'?"),
    "Softmax": (_kind("Softmax"), "did you mean 'softmax'?"),
    "LogSoftmax": (_kind("LogSoftmax"), "the loss has it"),
    "GroupNorm": (_kind("GroupNorm"), "did you mean 'group_norm'?"),
    "InstanceNorm2d": (_kind("InstanceNorm2d"), "did you mean 'instance_norm'?"),
    "PReLU": (_kind("nn.PReLU"), "did you mean 'prelu'?"),
    "filters": (_network_file(CONV.replace("out_channels", "filters")), "did you mean 'out_channels'?"),
    "size": (_network_file(CONV.replace("kernel_size", "size")), "did you mean 'kernel_size'?"),
    "units": (_kind("dense", "units = 3"), "did you mean 'out_features'?"),
    "an activation of a layer": (_kind("dense", 'out_features = 3\nactivation = "relu"'), "a layer of its own"),
    "CrossEntropyLoss": (_network_file(f'loss = "CrossEntropyLoss"\n{CONV}'), "did you mean 'softmax_cross_entropy'?"),
    "MSELoss": (_network_file(f'loss = "MSELoss"\n{CONV}'), "did you mean 'squared_error'?"),
    "gamma": (
        _point(params=_without(PARAMS, "bn.weight"), change={"bn.gamma": np.ones(4)}),
        "did you mean 'bn.weight'?",
    ),
    "a dense weight (in, out)": (
        _point(change={"fc.weight": PARAMS["fc.weight"].T}),
        "has shape (60, 3): expected (out, in) = (3, 60): give its transpose, and its gradient's",
    ),
    "a gradient (in, out)": (
        _point(grads=PARAMS | {"fc.weight": PARAMS["fc.weight"].T}),
        "grads['fc.weight'] has shape (60, 3): expected (out, in) = (3, 60): give its transpose",
    ),
    "a kernel HWIO": (
        _point(change={"conv.weight": PARAMS["conv.weight"].transpose(2, 3, 1, 0)}),
        "(HWIO); give .transpose(3, 2, 0, 1), and its gradient's",
    ),
    "images without channels": (
        _point(change={"conv.weight": PARAMS["conv.weight"][:, :1]}, x=X[:, 0]),
        "x has no channel axis: give x[:, None]",
    ),
    "images NHWC": (_point(x=X.transpose(0, 2, 3, 1)), "x looks channels-last: give x.transpose(0, 3, 1, 2)"),
    "data points in columns": (_point(MLP, FLAT, np.ones((5, 6))), "x has its data points in columns: give x.T"),
    "one-hot labels": (_point(y=np.eye(3)[Y]), "they look one-hot: give y.argmax(axis=1)"),
    "one-hot labels in columns": (_point(y=np.eye(3, dtype=int)[Y].T), "give y.argmax(axis=0)"),
    "a column of labels": (_point(y=Y[:, None]), "give y.ravel()"),
    "labels as floats": (_point(y=Y.astype(float)), "give y.astype(int)"),
    "labels from 1": (_point(y=Y + 1), "they look counted from 1: give y - 1"),
    "a module for parameters": (
        lambda folder: fastcheck.check_network(MLP, torch.nn.Linear(5, 3), {}, X, Y),
        "such as its .state_dict()",
    ),
    "names of one's own, weights (in, out)": (
        _point(MLP, {f"{name[2]}{name[0]}": array.T for name, array in FLAT.items()}, np.ones((6, 5))),
        "rename 'wa' to 'a.weight', and so on; the arrays fit in this order",
    ),
    "a Sequential's names": (
        _point(
            MLP, dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), FLAT.values(), strict=True)), np.ones((6, 5))
        ),
        "rename '0.weight' to 'a.weight', or name its layer '0', and so on; the arrays fit in this order",
    ),
}
"""What is refused, and what the refusal must say."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_refused_with_the_remedy_in_three_lines(name, tmp_path):
    read, remedy = REFUSED[name]
    with pytest.raises(FastcheckError) as refused:
        read(tmp_path)
    told = str(refused.value).replace(f"{tmp_path}/", "")
    assert remedy in told
    assert len(told) <= THREE_LINES
    assert "\n" not in told


def test_there_are_as_many_variants_as_were_promised():
    assert len(TAKEN) + len(REFUSED) >= 46


def test_the_command_line_takes_what_a_refusal_tells(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.savez("case.npz", **_named(_last(LAYER), CS231N) | {"lr": 0.1})
    assert status(["conv", "case.npz"]) == 2
    keys = capfd.readouterr().err.split("give ")[1].split()
    assert status(["conv", "case.npz", *keys]) == 2
    layout = capfd.readouterr().err.rsplit("(", 1)[1].strip(")\n").split()
    assert status(["conv", "case.npz", *keys, *layout, "--dims", "all"]) == 0
    assert "layout: the arrays were read as NHWC; indices here are" in " ".join(capfd.readouterr().out.split())
    np.savez(
        "case.npz", **_named(_last(LAYER), CS231N) | {"dw": _last({"weight": _spoilt(LAYER["grad_weight"])})["weight"]}
    )
    assert status(["conv", "case.npz", *keys, *layout, "--dims", "all"]) == 1
    np.savez("case.npz", **LAYER | {"grad_wight": 1})
    assert status(["conv", "case.npz"]) == 2
    assert status(["conv", "case.npz", "--ignore-extra", "--dims", "9"]) == 0
    capfd.readouterr()


def test_the_command_line_takes_conv_param_by_its_numbers(tmp_path, monkeypatch, capfd):
    """Stride 1 and padding 0 fit this layer as well, and make its right gradients wrong."""
    monkeypatch.chdir(tmp_path)
    layers = _arrays(layer((4, 3, 5, 5), (2, 3, 3, 3), stride=2, padding=1))
    np.savez("case.npz", **_named(layers, CS231N) | {"conv_param": OPTIONS})
    assert status(["conv", "case.npz"]) == 2
    told = capfd.readouterr().err.split("give ")[1]
    assert told.endswith(", and conv_param's numbers as --stride and --padding\n")
    keys = told.split(", and")[0].split()
    assert status(["conv", "case.npz", *keys]) == 2
    assert "'conv_param': give its numbers as --stride and --padding" in capfd.readouterr().err
    assert status(["conv", "case.npz", *keys, "--padding", "1"]) == 2
    assert "'conv_param': give its numbers as --stride\n" in capfd.readouterr().err
    assert status(["conv", "case.npz", *keys, "--stride", "2", "--padding", "1"]) == 0
    np.savez("case.npz", **_named(layers | {"grad_input": _spoilt(layers["grad_input"])}, CS231N), conv_param=OPTIONS)
    assert status(["conv", "case.npz", *keys, "--stride", "2", "--padding", "1"]) == 1


def test_a_default_stride_and_padding_are_noted(tmp_path):
    plain = _arrays(layer((2, 3, 7, 6), (4, 3, 3, 3)))
    for read in (_file(plain), _case(plain)):
        notes = [finding.words for finding in read(tmp_path).health]
        assert notes == ["2x3x7x6 * 4x3x3x3, with stride 1 and padding 0, the defaults"]
    for read in (_file(plain | {"stride": 1, "padding": 0}), _file(plain, stride=1, padding=0), TAKEN["our names"]):
        assert not read(tmp_path).health


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--pad", "--padding"),
        ("--strides", "--stride"),
        ("--deconv", "transposed=True"),
        ("--output-pad", "--output-padding"),
        ("--kernel-size", "leave it"),
    ],
)
def test_unknown_options_are_told_by_their_meaning(option, told, capfd):
    assert status(["conv", "case.npz", option, "2"]) == 2
    assert told in capfd.readouterr().err


@pytest.mark.parametrize(("file", "command"), [("layer.npz", "conv"), ("suite.toml", "run"), ("report.json", "show")])
def test_a_file_without_a_command_is_told_which_takes_it(file, command, capfd):
    assert status([file]) == 2
    assert f"No such command '{file}': did you mean fastcheck {command} {file}?" in capfd.readouterr().err


def test_long_names_of_a_file_are_told_whole_or_not_at_all(tmp_path):
    long = {name: f"encoder.layer1.block0.{name}" for name in LAYER if name not in ("stride", "padding")}
    with pytest.raises(FastcheckError) as refused:
        _file(_named(LAYER, long))(tmp_path)
    told = str(refused.value).split("keys=")[1]
    assert told == "dict(" + ", ".join(f"{name}={long[name]!r}" for name in ("input", "weight", "bias")) + ", ...)"


def test_the_layout_of_a_file_is_known_from_its_headers(tmp_path):
    np.savez(tmp_path / "case.npz", **_last(LAYER, layout="NHWC"))
    assert case_outline(tmp_path / "case.npz").geometry == load_case(tmp_path / "case.npz").geometry
    assert case_outline(tmp_path / "case.npz").geometry.input_shape == (2, 3, 7, 6)


def test_keys_are_pairs(capfd):
    assert status(["conv", "case.npz", "--keys", "weight"]) == 2
    assert "expected names and the file's keys, such as weight=w,grad_weight=dW" in capfd.readouterr().err


def test_what_names_mean_depends_on_the_names_there_are():
    assert meant("kernel", ("weight", "stride")) == "weight"
    assert meant("kernel", ("kernel_size", "stride")) == "kernel_size"
    assert meant("dW", ("weight", "bias")) == "weight"
    assert meant("dW1", ("weight", "grad_weight")) == "grad_weight"
    assert meant("y", ("output",)) == "output"
    assert meant("labels", ("x", "y")) == "y"
    for name in ("dense", "gadget", "", ".", "d", "wieght"):
        assert meant(name, ("input", "weight", "grad_weight")) is None
    assert remark("conv") == ""


def test_a_counter_of_batches_is_ignored_with_a_note():
    note = next(line for line in TAKEN["a state_dict of a network"](None).hygiene if line.topic == "parameters")
    assert note.text == "batch_norm1.num_batches_tracked ignored: they count batches, and no result needs them"
    notes = [line for line in TAKEN["a state_dict in training"](None).hygiene if line.topic == "parameters"]
    assert notes[1].text == (
        "batch_norm1.running_mean, batch_norm1.running_var ignored: in training the batch has its own; frozen=True "
        "(frozen = true) uses them"
    )
    assert "parameters" not in [line.topic for line in TAKEN["parameters nested by layer"](None).hygiene]


def test_the_command_line_names_the_order_of_x_before_it_reads_arrays(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").write_text(
        f'{CONV}[[layer]]\nkind = "flatten"\n[[layer]]\nkind = "dense"\nout_features = 3\n'
    )
    params = read_network("net.toml").initial((2, 5, 7))
    np.savez("params.npz", **params)
    np.savez("data.npz", x=X.transpose(0, 2, 3, 1), y=Y)
    arguments = ["--params", "params.npz", "--grads", "params.npz", "--data", "data.npz"]
    assert status(["network", "net.toml", *arguments]) == 2
    assert "x looks channels-last: give x.transpose(0, 3, 1, 2)" in capfd.readouterr().err


def test_a_loss_is_called_with_arrays_and_the_refusal_says_so():
    with pytest.raises(FastcheckError, match=r"called with NumPy arrays \(torch.as_tensor makes tensors\)") as refused:
        fastcheck.check_gradient(lambda p: torch.sum(p["w"]), {"w": W}, {"w": _tensor(W)})
    assert len(str(refused.value)) <= THREE_LINES


def test_tensors_of_a_list_are_named_by_their_position():
    report = _function([W, B], list)(None, _spoilt)
    assert {name: one.verdict for name, one in report.tensors.items()} == {"params[0]": "fail", "params[1]": "pass"}
    report = fastcheck.compare([W, B], [W, 2 * B])
    assert {name: one.verdict for name, one in report.tensors.items()} == {"gradient[0]": "pass", "gradient[1]": "fail"}


def test_a_tensor_of_bfloat16_is_judged_as_one_and_others_are_not():
    """Half of a bfloat16's unit is rounding to it, and a mistake of a float32."""
    assert TAKEN["bfloat16 tensors"](None).passed
    assert _case(BFLOAT16 | {"grad_weight": BFLOAT16["grad_weight"].float()})(None).tensors["weight"].verdict == "fail"
    grads = 2 * W * (1 + 2.0**-10)
    for tensor, verdict in ((_tensor(grads).bfloat16(), "pass"), (_tensor(grads).float(), "fail")):
        assert fastcheck.check_gradient(lambda p: float((p**2).sum()), tensor, W).verdict == verdict


ROUNDINGS = {
    "float32": lambda x, w: torch.nn.functional.conv2d(x.float(), w.float()).double(),
    "bfloat16": lambda x, w: torch.nn.functional.conv2d(x.bfloat16(), w.bfloat16()).double(),
    "tf32": lambda x, w: torch.nn.functional.conv2d(_tf32(x), _tf32(w)).float().double(),
}


def _tf32(tensor):
    """Numbers rounded to ten bits after the first."""
    significand, exponent = np.frexp(tensor.numpy())
    return torch.from_numpy(np.ldexp(np.rint(significand * 2**11) / 2**11, exponent))


@pytest.mark.parametrize("precision", ROUNDINGS)
def test_an_output_that_was_rounded_is_told_as_that(precision):
    x, w = (_tensor(LAYER[name]) for name in ("input", "weight"))
    right = torch.nn.functional.conv2d(x, w)
    arrays = {"input": x, "weight": w, "grad_output": right, "grads": {"bias": torch.einsum("ncij->c", right)}}
    arrays |= {"bias": np.zeros(4)}
    rounded = ROUNDINGS[precision](x, w)
    forward = fastcheck.check(fastcheck.ConvCase(**arrays, output=rounded), dims=9).forward
    rounded_so = "all operands to float16" if precision == "tf32" else f"rounding in {precision} would"
    assert rounded_so in forward.diagnosis["bug"]
    advice = "or 'tf32'" if precision == "tf32" else f"give precision='{precision}' (--precision {precision})"
    assert advice in forward.diagnosis["try"]
    again = fastcheck.check(fastcheck.ConvCase(**arrays, output=rounded, precision=precision), dims=9)
    assert again.forward.verdict == "pass"
    rounded[0, 0, 0, 0] += 1
    wrong = fastcheck.check(fastcheck.ConvCase(**arrays, output=rounded), dims=9).forward
    assert "rounding" not in wrong.diagnosis["bug"]


def test_tensorflows_padding_is_named():
    x, w = (_tensor(LAYER[name]) for name in ("input", "weight"))
    x = x[:, :, :6, :6]
    output = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 1, 0, 1)), w, stride=2)
    arrays = {"input": x, "weight": w, "grad_output": output, "output": output, "grads": {"weight": torch.ones_like(w)}}
    forward = fastcheck.check(fastcheck.ConvCase(**arrays, stride=2, padding=1), dims=9).forward
    assert "TensorFlow" in forward.diagnosis["bug"]
    assert forward.diagnosis["try"] == "give padding=((0, 1), (0, 1))"
    assert fastcheck.check(fastcheck.ConvCase(**arrays, stride=2, padding=((0, 1),) * 2), dims=9).forward is not None
