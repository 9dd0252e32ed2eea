"""Contributions that are assigned where they should be added: one of several counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fastcheck.diagnosis.hypotheses import Hypothesis
from fastcheck.diagnosis.patterns.terms import Terms

_MOVES = 1e-9
"""An entry moves an output if the derivative is so large, relative to the largest by that entry."""


def one_of_several(terms: Terms) -> Iterator[Hypothesis]:
    """Yield that one contribution to each entry counts, or their mean."""
    right = terms.right
    size = np.abs(right).max(axis=1, keepdims=True)
    moving = np.abs(right) > _MOVES * size
    if moving.sum(axis=1).max() < 2:
        return
    rows, count = np.arange(len(right)), np.maximum(moving.sum(axis=1), 1)
    last = right.shape[1] - 1 - np.argmax(moving[:, ::-1], axis=1)
    for which, sums in (
        ("the last one counts", right[rows, last]),
        ("the first one counts", right[rows, np.argmax(moving, axis=1)]),
        ("their mean counts", right.sum(axis=1) / count),
        ("the largest one counts", right[rows, np.argmax(np.where(moving, right, -np.inf), axis=1)]),
    ):
        words = {
            "words": f"where several outputs depend on one entry, only {which}, not their sum",
            "advice": "look for = where += is needed: overlapping windows, an index that occurs several times, a loop; "
            "NumPy's a[index] += b adds once per index, np.add.at adds all",
        }
        yield terms.summed(words, sums, np.abs(right).max(axis=1), tried=4)


def named_rows(
    terms: Terms, integers: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]
) -> Iterator[Hypothesis]:
    """Yield that of the outputs whose places name the same index only some count."""
    if len(cotangents) != 1:
        return
    ((_, cotangent),) = cotangents.items()
    for name, index in integers.items():
        if index.dtype.kind not in "iu" or not index.size or cotangent.shape[: index.ndim] != index.shape:
            continue
        weights = _by_occurrence(index.reshape(-1))
        behind = cotangent.size // index.size
        for which, weight in weights.items():
            words = {
                "words": f"where {name} names a row several times, only {which} counts, and not the sum",
                "advice": "look for grad[index] = or += where np.add.at, index_add or scatter_add is needed",
            }
            yield terms.hypothesis(
                words, terms.cotangent * np.repeat(weight, behind), tried=len(weights) * len(integers)
            )


def _by_occurrence(index: np.ndarray) -> dict[str, np.ndarray]:
    """Return weights of places by how often, and where first and last, their value occurs."""
    _, first, inverse, counts = np.unique(index, return_index=True, return_inverse=True, return_counts=True)
    _, last = np.unique(index[::-1], return_index=True)
    firsts, lasts = np.zeros(len(index)), np.zeros(len(index))
    firsts[first], lasts[len(index) - 1 - last] = 1, 1
    return {"the last occurrence": lasts, "the first occurrence": firsts, "their mean": 1 / counts[inverse.reshape(-1)]}
