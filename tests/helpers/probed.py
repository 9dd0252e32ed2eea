"""Programs for probes, in NumPy: they read the points of a folder, and write outputs and a gradient there."""

import json
from pathlib import Path

import numpy as np

from fastcheck.cli.main import status


class Program:
    """A forward and a backward of named arrays, as a program that reads and writes raw files.

    Parameters
    ----------
    folder : path
        Where the start point and the points lie.
    forward : callable
        Takes a dict of arrays, and returns an array.
    backward : callable
        Takes that dict and a cotangent, and returns a dict of gradients.
    params : dict of str to array
    dtype : NumPy type
        Of all that it stores and computes.
    """

    def __init__(self, folder, forward, backward, params, dtype=np.float64):
        self.folder, self.forward, self.backward, self.dtype = Path(folder), forward, backward, np.dtype(dtype)
        self.probes = self.folder / "probes"
        self.params = {name: np.asarray(array, dtype) for name, array in params.items()}
        self.shape = np.shape(forward(self.params))
        np.savez(self.folder / "inputs.npz", **self.params)

    def probe(self, *options):
        """Write the points, and return the status."""
        output = [] if self.shape == () else ["--output", f"y={'x'.join(map(str, self.shape))}"]
        inputs = str(self.folder / "inputs.npz")
        return status(["probe", inputs, "--out", str(self.probes), *output, *map(str, options)])

    def manifest(self):
        return json.loads((self.probes / "probes.json").read_text())

    def points(self):
        """Return the arrays of all points by name."""
        manifest = self.manifest()
        return {
            one["name"]: np.fromfile(self.probes / one["file"], one["dtype"]).reshape(-1, *one["shape"])
            for one in manifest["tensors"]
        }

    def run(self, change=lambda grads: None, spoil=lambda outputs: None):
        """Evaluate all points; ``change`` the gradient and ``spoil`` the outputs before they are written."""
        points, count = self.points(), self.manifest()["count"]
        still = {name: array for name, array in self.params.items() if name not in points}
        outputs = np.array(
            [self.forward(still | {name: stack[k] for name, stack in points.items()}) for k in range(count)], self.dtype
        )
        spoil(outputs)
        name = "output" if self.shape == () else "y"
        outputs.tofile(self.probes / f"{name}.bin")
        cotangent = np.ones(self.shape, self.dtype)
        if (self.probes / f"grad_{name}.bin").exists():
            cotangent = np.fromfile(self.probes / f"grad_{name}.bin", self.dtype).reshape(self.shape)
        grads = {key: np.array(grad, self.dtype) for key, grad in self.backward(self.params, cotangent).items()}
        change(grads)
        for key, grad in grads.items():
            grad.tofile(self.probes / f"grad_{key}.bin")

    def judge(self, *options):
        """Judge the gradient; return the status and the JSON report."""
        path = self.folder / "report.json"
        path.unlink(missing_ok=True)
        code = status(["judge", str(self.probes), "--json", str(path), *map(str, options)])
        return code, json.loads(path.read_text()) if path.exists() else None


def perceptron(bend, rng, samples=12, inputs=9, hidden=8, outputs=5):
    """Return the forward, backward and params of y = bend(x w + b) v; ``bend`` gives an activation and its slope."""
    params = {
        "x": rng.normal(size=(samples, inputs)),
        "w": rng.normal(size=(inputs, hidden)) / 3,
        "b": rng.normal(size=hidden),
        "v": rng.normal(size=(hidden, outputs)) / 3,
    }

    def forward(p):
        return bend(p["x"] @ p["w"] + p["b"])[0] @ p["v"]

    def backward(p, dy):
        a, slope = bend(p["x"] @ p["w"] + p["b"])
        dz = dy @ p["v"].T * slope
        return {"x": dz @ p["w"].T, "w": p["x"].T @ dz, "b": dz.sum(0), "v": a.T @ dy}

    return forward, backward, params


def tanh(z):
    return np.tanh(z), 1 - np.tanh(z) ** 2


def relu(z):
    return np.maximum(z, 0), (z > 0).astype(z.dtype)
