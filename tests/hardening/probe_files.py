"""Start points for ``probe``, and for ``judge`` its folder with what a program wrote there."""

import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from mutation import changed_bytes, changed_tree
from npy_files import TOKENS, archive, changed_archive, changed_array, lying, npy
from trials import Trial

from fastcheck.probes.manifest import NAME
from fastcheck.probes.probe import Probes

_X, _W = np.linspace(-1, 1, 6).reshape(2, 3), np.float32([[0.5, -1.0], [0.25, 2.0], [1.5, 0.75]])


@functools.cache
def base():
    """Return the files of a folder, in which a program wrote the outputs and the gradient of y = x w, by name."""
    with tempfile.TemporaryDirectory() as folder:
        probes = Path(folder) / "probes"
        Probes({"x": _X, "w": _W, "labels": np.arange(3)}, outputs={"y": (2, 2)}, count=3).write(
            probes, False, lambda stage, done, total: None
        )
        x = np.fromfile(probes / "x.bin").reshape(-1, 2, 3)
        w = np.fromfile(probes / "w.bin", np.float32).reshape(-1, 3, 2).astype(float)
        dy = np.fromfile(probes / "grad_y.bin", np.float32).reshape(2, 2).astype(float)
        np.save(probes / "y.npy", x @ w)
        (dy @ w[0].T).tofile(probes / "grad_x.bin")
        np.savez(probes / "more.npz", w=x[0].T @ dy)
        return {path.name: path.read_bytes() for path in probes.iterdir()}


_JUDGE = ["judge", "probes", "--grads", "probes", "--grads", "probes/more.npz"]


def prepare():
    """Return what makes a start point, or a folder with one file that is wrong."""
    files = base()

    def make(rng, folder):
        if rng.random() < 0.3:
            arrays = {"x": _X, "w": _W, "labels": np.arange(3)}
            (folder / "inputs.npz").write_bytes(changed_archive(rng, arrays, files["y.npy"]))
            options = rng.choice(((), ("--only", "w"), ("--format", "npy")))
            return Trial(["probe", "inputs.npz", "--out", "out", "--directions", "2", *options])
        (folder / "probes").mkdir()
        name = rng.choice((*files, NAME, NAME, "y.npy"))
        for each, content in files.items():
            (folder / "probes" / each).write_bytes(_changed(rng, each, content) if each == name else content)
        return Trial([*_JUDGE, *rng.choice(((), ("--json", "-"), ("--verbose",)))])

    return make


def _changed(rng, name, content):
    what = rng.random()
    if name == NAME and what < 0.7:
        return json.dumps(changed_tree(rng, json.loads(content))).encode()
    if name == "y.npy" and what < 0.7:
        array = np.load(io.BytesIO(content))
        return lying(rng, array) if what < 0.3 else npy(changed_array(rng, array))
    if name == "more.npz" and what < 0.7:
        return changed_archive(rng, {"w": np.load(io.BytesIO(content))["w"]}, archive({"w": _X}))
    return changed_bytes(rng, content, TOKENS)
