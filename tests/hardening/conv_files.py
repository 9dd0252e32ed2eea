"""Convolution cases for ``conv`` and ``sweep``."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from npy_files import archive, changed_archive, changed_array, odd_option
from trials import Trial

from fastcheck.common.precision import PRECISIONS
from fastcheck.convolutions.case import LOSSES, TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.workloads import seeded

_LAYERS = (
    ((1, 2, 4, 4), (2, 2, 3, 3), {"padding": 1}, "float64", "vjp"),
    ((2, 2, 7), (4, 1, 3), {"stride": 2, "groups": 2}, "float32", "relu"),
    ((1, 1, 3, 4, 3), (2, 1, 2, 2, 2), {"dilation": 1}, "float64", "tanh"),
    ((2, 1, 5, 4), (1, 1, 2, 2), {"padding": "same"}, "float16", "square"),
)

_OPTIONS = ("stride", "padding", "dilation", "groups")


@functools.cache
def cases():
    """Return small convolutions with right gradients, as arrays by name."""
    with ThreadPoolExecutor(1) as pool:
        return [_arrays(*one, pool) for one in _LAYERS]


def _arrays(input_shape, weight_shape, options, dtype, loss, pool):
    geometry = ConvGeometry.of(
        input_shape, weight_shape, **{**dict.fromkeys(_OPTIONS[::2], 1), "padding": 0, "groups": 1, **options}
    )
    case = seeded.conv_case(geometry, "base", 0, bias=True, tensors=TENSORS, dtype=dtype, loss=loss, pool=pool)
    arrays = {name: case.operand(name) for name in TENSORS} | {"grad_output": case.grad_output}
    arrays |= {f"grad_{name}": grad for name, grad in case.grads.items()}
    return {name: array.astype(dtype) for name, array in arrays.items()} | {"loss": np.array(loss), **options}


def prepare():
    """Return what makes a file."""
    bases = cases()

    def make(rng, folder):
        arrays = dict(rng.choice(bases))
        wrong = False
        what = rng.choice(("option", "gradient", "file", "file"))
        if what == "option":
            arrays[rng.choice(_OPTIONS)] = odd_option(rng)
            arrays[rng.choice(("loss", "precision"))] = np.array(rng.choice((*LOSSES, *PRECISIONS)))
        elif what == "gradient":
            name = f"grad_{rng.choice(TENSORS)}"
            arrays[name] = changed_array(rng, arrays[name])
            wrong = arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all()
        other = archive(rng.choice(bases))
        (folder / "case.npz").write_bytes(changed_archive(rng, arrays, other) if what == "file" else archive(arrays))
        return Trial([*_command(rng, wrong), "--threads", "1"], wrong)

    return make


def _command(rng, wrong):
    if rng.random() < 0.1 and not wrong:
        return ["sweep", "case.npz", "--dims", "1", "--steps", "1,1e-3,1e-6,1e-9"]
    dims = "all" if wrong else rng.choice(("all", "5"))
    output = rng.choice(((), (), ("--map",), ("--json", "-"), ("--table", "t.csv")))
    return ["conv", "case.npz", "--dims", dims, *output]
