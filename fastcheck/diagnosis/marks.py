"""Sets of a tensor's entries that the arrays around it mark: by their signs, by the largest, by what integers name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastcheck.diagnosis.around import Around, aligned
from fastcheck.diagnosis.evidence import Evidence

_LEAST = 12
"""Entries that must be in a set, and outside: of fewer, chance makes one of many sets."""


def marked(evidence: Evidence, around: Around) -> str:
    """Return words for the set that is exactly what fails; nothing without one."""
    failing = evidence.failing
    if min(np.count_nonzero(failing), np.count_nonzero(~failing)) < _LEAST:
        return ""
    sets = (*_by_value(evidence, around), *_by_index(evidence, around))
    return next((words for words, mask in sets if np.array_equal(mask, failing)), "")


def _by_value(evidence: Evidence, around: Around) -> Iterator[tuple[str, np.ndarray]]:
    arrays = [(evidence.name, evidence.value)] if evidence.value is not None else []
    arrays += [*around.inputs.items(), *around.integers.items(), *around.outputs.items()]
    for name, array in arrays:
        for one in aligned(array, evidence.shape):
            values = one.reshape(-1)[evidence.dims]
            for words, mask in (
                ("negative", values < 0),
                ("positive", values > 0),
                ("0", values == 0),
                ("not 0", values != 0),
            ):
                yield f"exactly where {name} is {words}", mask
            for axis, size in enumerate(evidence.shape):
                if size > 1:
                    largest = one == one.max(axis=axis, keepdims=True)
                    yield f"exactly where {name} is the largest along axis {axis}", largest.reshape(-1)[evidence.dims]


def _by_index(evidence: Evidence, around: Around) -> Iterator[tuple[str, np.ndarray]]:
    index = np.unravel_index(evidence.dims, evidence.shape)
    for name, array in around.integers.items():
        for axis, size in enumerate(evidence.shape):
            if array.dtype.kind == "b" or not array.size or array.min() < 0 or array.max() >= size:
                continue
            times = np.bincount(array.reshape(-1).astype(np.int64), minlength=size)[index[axis]]
            where = f"exactly at the indices of axis {axis} that {name} names"
            yield f"{where} several times", times > 1
            yield where, times > 0
            yield f"exactly at the indices of axis {axis} that {name} does not name", times == 0
