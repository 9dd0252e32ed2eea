"""Pairs of gradients for ``compare``."""

import numpy as np
from mutation import changed_bytes
from npy_files import TOKENS, archive, changed_archive, changed_array, lying, npy
from trials import Trial


def prepare():
    """Return what makes a pair of files."""
    numbers = np.random.default_rng(0)
    base = {"conv1.weight": numbers.standard_normal((3, 2, 2)), "conv1.bias": numbers.standard_normal(3)}
    base["x"] = np.float32(numbers.standard_normal((2, 3)))

    def make(rng, folder):
        several = rng.random() < 0.5
        arrays = base if several else base[rng.choice(tuple(base))]
        files = {"a": arrays, "n": arrays}
        data = {name: archive(one) if several else npy(one) for name, one in files.items()}
        wrong = False
        for name in rng.choice(("a", "n", "an")):
            data[name], worse = _changed(rng, arrays, several)
            wrong |= worse
        for name, content in data.items():
            (folder / name).write_bytes(content)
        return Trial(["compare", "a", "n", *rng.choice(((), (), ("--json", "-"), ("--table", "t.csv")))], wrong)

    return make


def _changed(rng, arrays, several):
    """Return the bytes of a file, and whether it has numbers that are not finite."""
    if several:
        return changed_archive(rng, arrays, npy(arrays["x"])), False
    what = rng.choice(("bytes", "header", "array", "array"))
    if what == "bytes":
        return changed_bytes(rng, npy(arrays), TOKENS), False
    if what == "header":
        return lying(rng, arrays), False
    array = changed_array(rng, arrays)
    return npy(array), array.dtype.kind == "f" and not np.isfinite(array).all()
