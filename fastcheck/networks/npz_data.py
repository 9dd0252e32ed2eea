"""A network's data points in ``.npz`` files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.array_file import Archive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.npz import archive_of
from fastcheck.common.npz_names import Wanted
from fastcheck.common.opened import Opened, Source, opened

_DATA, _MASK = ("x", "y"), "mask."


class NetworkData(NamedTuple):
    """Data of a check: data points, targets, the declared loss if there is one, and dropout masks."""

    x: np.ndarray
    y: np.ndarray
    loss: float | None
    masks: dict[str, np.ndarray]


def load_network_data(path: Source) -> NetworkData:
    """Read a network's data points from an ``.npz`` file.

    Parameters
    ----------
    path : path
        It has keys ``x`` and ``y``, and optionally ``loss`` and, for dropout layers, ``mask.LAYER``.

    Returns
    -------
    NetworkData

    Raises
    ------
    FastcheckError
        If the file cannot be read, a key is missing or unknown, or the loss is not one number.
    """
    with opened(path) as file:
        archive = _data_archive(file)
        arrays = {key: archive.array(key) for key in archive.keys}
    masks = {key.removeprefix(_MASK): array for key, array in arrays.items() if key.startswith(_MASK)}
    return NetworkData(arrays["x"], arrays["y"], _number("loss", arrays["loss"]) if "loss" in arrays else None, masks)


class DataOutline(NamedTuple):
    """The headers of a network's data: the shape of x, and the dropout layers that have a mask."""

    x: Shape
    masked: tuple[str, ...]


def network_data_outline(path: Source) -> DataOutline:
    """Read the headers of a network's data, and no more; raises as `load_network_data` does."""
    with opened(path) as file:
        archive = _data_archive(file)
        masked = (key.removeprefix(_MASK) for key in archive.keys if key.startswith(_MASK))
        return DataOutline(archive.header("x").shape, tuple(masked))


def _data_archive(file: Opened) -> Archive:
    archive = archive_of(file, Wanted((*_DATA, "loss", f"{_MASK}LAYER"), (_MASK,)))
    for key in _DATA:
        if key not in archive.keys:
            raise FastcheckError(f"{file} has no key {key!r}: expected {' and '.join(_DATA)}")
    return archive


def _number(key: str, array: np.ndarray) -> float:
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise FastcheckError(f"{key} has dtype {array.dtype} and shape {array.shape}: expected one number")
    return float(array.reshape(()))
