"""Suites in TOML for ``run``: nearly all are planned alone, a few are run."""

import functools
import tempfile
import tomllib
from pathlib import Path

from conv_files import cases
from mutation import VALUES, changed_bytes, changed_tree
from network_files import FILES, networks
from npy_files import archive
from toml_text import toml
from trials import Trial

SUITE = """
name = "night"
[defaults]
dims = 16
backward = "reference"
[[case]]
name = "grid"
conv = {in = 2, out = 2, kernel = 2, padding = [[0, 1]]}
input = [1, 2, 4]
grid = {stride = [1, 2], dtype = ["float64", "float32"]}
[[case]]
npz = "mine.npz"
step = 0.5
[[case]]
network = "net.toml"
[[case]]
name = "seeded"
network = "net.toml"
input = [2, 1, 4, 4]
"""

_GRADIENT = '[[case]]\ngradient = "absent_module:logistic"\nseed = 1\n'
_ZOO = '[[case]]\nzoo = "c3d"\nlayers = ["conv1*"]\n'

_TOKENS = (
    *(
        b"[[case]]",
        b"[case]",
        b"[defaults]",
        b"name",
        b"conv",
        b"input",
        b"grid",
        b"npz",
        b"network",
        b"zoo",
        b"gradient",
        b"params",
    ),
    *(
        b"dims",
        b"step",
        b"seed",
        b"kinks",
        b"evaluator",
        b"tensors",
        b"dtype",
        b"loss",
        b"batch",
        b"layers",
        b"burn_in",
        b"groups",
    ),
    *(
        b'"all"',
        b'"auto"',
        b"[1, 2]",
        b"[]",
        b"{}",
        b'"../x"',
        b'"mine.npz"',
        b"= {",
        b".",
        b"'''",
        b'"""',
        b"\\u0000",
        b"\xff",
    ),
    *(b"0x" + b"f" * 5000, b"1" * 5000, b"nan", b"1e999", b"1979-05-27", b"[" * 3000),
)

_WORDS = (
    "mine.npz",
    "net.toml",
    "grid",
    "float16",
    "all",
    "auto",
    "exclude",
    "delta",
    "full",
    "torch?",
    "mine:backward",
    "mine:",
    [1, 2],
    ["input"],
    [["x"]],
)


@functools.cache
def files():
    """Return what a suite's folder holds beside it: bytes by name."""
    with tempfile.TemporaryDirectory() as folder:
        text, arrays = networks(Path(folder))[0]
    found = {f"net.{name}.npz": archive(arrays[name]) for name in FILES}
    return found | {"net.toml": text.encode(), "mine.npz": archive(cases()[0])}


def prepare():
    """Return what makes a suite."""
    beside = files()
    texts = (SUITE, SUITE + _ZOO, SUITE + _GRADIENT)

    def make(rng, folder):
        really = rng.random() < 0.03
        text = SUITE if really else rng.choice(texts)
        if rng.random() < 0.3:
            data = changed_bytes(rng, text.encode(), _TOKENS, SUITE.encode())
        else:
            data = toml(changed_tree(rng, tomllib.loads(text), (*VALUES, *_WORDS)))
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        (folder / "suite.toml").write_bytes(data)
        options = ["--out", "out", "--timeout", "5"] if really else ["--dry-run"]
        return Trial(["run", "suite.toml", *options, "--threads", "1"])

    return make
