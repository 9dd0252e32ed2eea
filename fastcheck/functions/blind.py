"""Inputs and cotangents with which wrong code gives right gradients: equal entries, a single sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def equal_inputs(params: Arrays, label: Callable[[str], str]) -> Iterator[str]:
    """Yield the inputs whose entries are all equal; vectors aside, since biases and scales often are."""
    for name, array in params.items():
        if array.ndim > 1 and is_constant(array):
            yield f"all entries of {label(name)} are {array.flat[0]:.6g}"


def constant_cotangent(cotangents: Arrays) -> Iterator[str]:
    """Yield that the cotangent of every output has equal entries."""
    if all(map(is_constant, cotangents.values())):
        yield "the cotangent is constant"


def single_sample(inputs: Arrays, outputs: Arrays, label: Callable[[str], str]) -> Iterator[str]:
    """Yield the inputs whose first axis has one entry, where it is the outputs' too."""
    if outputs and all(array.ndim > 1 and len(array) == 1 for array in outputs.values()):
        for name, array in inputs.items():
            if array.ndim > 1 and len(array) == 1:
                yield f"{label(name)} is a single sample"


def is_constant(array: np.ndarray) -> bool:
    """Return whether there are several entries, and all are equal."""
    return array.size > 1 and bool((array == array.flat[0]).all())
