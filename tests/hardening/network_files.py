"""Networks in TOML with their parameters, gradients and data, for ``network``."""

import tempfile
import tomllib
from pathlib import Path

import numpy as np
from mutation import VALUES, changed_bytes, changed_tree
from npy_files import archive, changed_archive, changed_array
from toml_text import toml
from trials import Trial

import fastcheck
from fastcheck.networks.case import Point
from fastcheck.networks.file import read_network
from fastcheck.networks.layers import KINDS
from fastcheck.networks.passes import Passes
from fastcheck.networks.training import whole_gradient
from fastcheck.workloads import seeded

_MAPS = """
l2 = 0.01
[[layer]]
kind = "conv"
out_channels = 2
kernel_size = 2
[[layer]]
kind = "batch_norm"
[[layer]]
kind = "relu"
name = "act"
[[layer]]
kind = "conv"
out_channels = 2
kernel_size = 2
padding = 1
name = "more"
[[layer]]
kind = "conv"
out_channels = 2
kernel_size = 2
shares = "more"
[[layer]]
kind = "max_pool"
kernel_size = 2
stride = 1
ceil_mode = true
[[layer]]
kind = "flatten"
[[layer]]
kind = "dense"
out_features = 2
"""

_FEATURES = """
loss = "squared_error"
reduction = "sum"
l1 = {"dense1.weight" = 0.001}
[[layer]]
kind = "dense"
out_features = 3
[[layer]]
kind = "tanh"
name = "t"
[[layer]]
kind = "dense"
out_features = 3
[[layer]]
kind = "add"
other = "t"
[[layer]]
kind = "dropout"
p = 0.3
[[layer]]
kind = "layer_norm"
"""

_SHAPES = {_MAPS: (3, 1, 4, 4), _FEATURES: (3, 2)}

_TOKENS = (
    *(
        b"[[layer]]",
        b"[layer]",
        b"kind",
        b"name",
        b"input",
        b"shares",
        b"other",
        b'"x"',
        b"loss",
        b"l2",
        b"margin",
        b"frozen",
        b"eps",
    ),
    *(
        b"kernel_size",
        b"padding",
        b"stride",
        b"dilation",
        b"groups",
        b"bias",
        b"[1, 2]",
        b"[[0, 1]]",
        b'"same"',
        b"= {",
        b".",
    ),
    *(
        b"0x" + b"f" * 5000,
        b"1" * 5000,
        b"nan",
        b"1e999",
        b"1979-05-27",
        b"'''",
        b'"""',
        b"\\u0000",
        b"\xff",
        b"[" * 3000,
    ),
)

_WORDS = (
    *KINDS,
    "same",
    "x",
    "conv1",
    "act",
    "softmax_cross_entropy",
    "logistic",
    "multiclass_hinge",
    "mean",
    [[0, 1]],
)

FILES = ("params", "grads", "data")


def networks(folder):
    """Return small networks: a text, and right params, grads and data as arrays by name."""
    return [_network(text, folder) for text in _SHAPES]


def _network(text, folder):
    (folder / "net.toml").write_text(text)
    network = read_network(folder / "net.toml")
    params, x, y = seeded.network_point(network, _SHAPES[text], 0)
    params |= {name: np.ones(shape) for name, shape in network.buffer_shapes(x.shape[1:]).items()}
    point = Point.of(network, params, x, y)
    return text, {"params": params, "grads": whole_gradient(Passes(point)), "data": {"x": x, "y": y}}


def checked(folder):
    """Return the report of a network."""
    _, arrays = _network(_FEATURES, folder)
    return fastcheck.check_network(
        read_network(folder / "net.toml"),
        arrays["params"],
        arrays["grads"],
        *arrays["data"].values(),
        dims=8,
        threads=1,
    )


def prepare():
    """Return what makes a network's files."""
    with tempfile.TemporaryDirectory() as folder:
        bases = networks(Path(folder))

    def make(rng, folder):
        text, arrays = rng.choice(bases)
        data, files = text.encode(), {name: archive(one) for name, one in arrays.items()}
        wrong = False
        what = rng.choice(("text", "tree", "tree", "file", "gradient"))
        if what == "text":
            data = changed_bytes(rng, data, _TOKENS, rng.choice(bases)[0].encode())
        elif what == "tree":
            data = toml(changed_tree(rng, tomllib.loads(text), (*VALUES, *_WORDS)))
        elif what == "file":
            name = rng.choice(FILES)
            files[name] = changed_archive(rng, arrays[name], files["data"])
        else:
            name = rng.choice(tuple(arrays["grads"]))
            changed = changed_array(rng, arrays["grads"][name])
            files["grads"] = archive(arrays["grads"] | {name: changed})
            wrong = changed.dtype.kind == "f" and not np.isfinite(changed).all()
        (folder / "net.toml").write_bytes(data)
        for name, content in files.items():
            (folder / f"{name}.npz").write_bytes(content)
        return Trial(["network", "net.toml", *_given(), *_options(rng, wrong)], wrong)

    return make


def _given():
    return [part for name in FILES for part in (f"--{name}", f"{name}.npz")]


def _options(rng, wrong):
    dims = "all" if wrong else rng.choice(("8", "9"))
    return [
        "--threads",
        "1",
        "--dims",
        dims,
        *rng.choice(((), (), ("--explain",), ("--map",), ("--json", "-"), ("--table", "t.csv"))),
    ]
