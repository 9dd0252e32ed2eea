"""The pattern of a function, found from a few entries: nan and a large move show which outputs depend on each.

nan reaches the outputs through masks and saturated units, a move those that test for nan. From a few entries, relations
between axes are read (`fastcheck.functions.patterns.Relation`), and further entries must agree with them. Where axes
show nothing, a small input is probed entry by entry.

What is found this way is no proof, and is audited like a structure that was declared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.engine import sampling
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.moves import Moves
from fastcheck.functions.patterns import Axes, OfOutput, Pattern, Relation, Sparse
from fastcheck.functions.step_search import NOISES

PROBED = 24
"""Entries that relations between axes are read from, and as many that must agree with them, in each round."""

ROUNDS = 3
"""Times that entries which do not agree are added to those that relations are read from."""

EACH = 2048
"""Largest input whose entries are probed one by one: that takes two calls each, where differencing takes six."""

STRIDES = 8
"""Largest ratio of the indices of two axes that are related."""

GAIN = 2
"""Entries in a colour, on average, from which a pattern is worth using."""


class Detected(NamedTuple):
    """A pattern, None where none was found that saves calls; and the number of calls that it took."""

    pattern: Pattern | None
    calls: int


def detected(case: FunctionCase, name: str, outputs: Sequence[Shape], seed: int) -> Detected:
    """Find the outputs that each entry of a tensor can move.

    Parameters
    ----------
    case : FunctionCase
        One whose loss is a sum of terms, one for each output.
    name : str
        The tensor.
    outputs : sequence of tuples of int
        Shapes of the outputs, in the order of the terms.
    seed : int
    """
    probe = _Probe(case, name)
    shape = case.params[name].shape or (1,)
    size = math.prod(shape)
    drawn = sampling.stratified(shape, min(size, (ROUNDS + 1) * PROBED), np.random.default_rng([seed, size]))
    order = np.random.default_rng([seed, size, 1]).permutation(np.asarray(drawn))
    known = {dim: probe(dim) for dim in order[:PROBED].tolist()}
    for start in range(PROBED, (ROUNDS + 1) * PROBED, PROBED):
        pattern = _along_axes(shape, tuple(_fitted(known, shape, outputs)))
        if pattern.count * GAIN > size:
            break
        new = {dim: probe(dim) for dim in order[start : start + PROBED].tolist()}
        if all(not (moved & (pattern.owners(np.array([dim])) < 0)).any() for dim, moved in new.items()):
            return Detected(pattern, probe.calls)
        known |= new
    if size <= EACH:
        known |= {dim: probe(dim) for dim in range(size) if dim not in known}
        columns = [np.flatnonzero(known[dim]) for dim in range(size)]
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in columns])])
        sparse = Sparse("detect: entries", starts, np.concatenate(columns), sum(map(math.prod, outputs)))
        if sparse.count * GAIN <= size:
            return Detected(sparse, probe.calls)
    return Detected(None, probe.calls)


def _along_axes(shape: Shape, outputs: tuple[OfOutput, ...]) -> Axes:
    """Return the pattern of these relations, whose words name the axes that have one."""
    pattern = Axes("", shape, outputs)
    related = [str(axis) for axis, length in enumerate(shape) if pattern.periods[axis] < length]
    return replace(pattern, words=f"detect: ax{'i' if len(related) == 1 else 'e'}s {', '.join(related)}")


class _Probe:
    """Tells which outputs depend on an entry, by two calls."""

    def __init__(self, case: FunctionCase, name: str) -> None:
        self._moves, self._size = Moves(case, name), case.size(name)
        self._still = NOISES * case.least_noise + 2 * case.declared_errors

    @property
    def calls(self) -> int:
        return self._moves.calls

    def __call__(self, dim: int) -> np.ndarray:
        """Return which outputs depend on the entry."""
        dims, value = np.array([dim]), float(self._moves.values[dim])
        far = value + math.copysign(max(abs(value), self._size) / 4, value)
        seen = [self._moves.terms(dims, np.array([other])) for other in (math.nan, far)]
        moved = [~(np.abs(terms) <= self._still) for terms in seen if terms is not None]
        return np.any(moved, axis=0) if moved else np.zeros(self._still.shape, bool)


class _Fit(NamedTuple):
    """A relation between two axes, and how large a part of the input's axis lies between entries of one colour."""

    part: float
    axis: int
    relation: Relation


def _fitted(known: dict[int, np.ndarray], shape: Shape, outputs: Sequence[Shape]) -> Iterator[OfOutput]:
    """Yield the narrowest relations of an input's axes to those of each output."""
    indices = np.stack(np.unravel_index(np.array(list(known)), shape), axis=1)
    ends = np.cumsum([math.prod(output) for output in outputs])
    for output, end in zip(outputs, ends.tolist(), strict=True):
        moved = np.stack([one[end - math.prod(output) : end].reshape(output) for one in known.values()])
        seen = moved.reshape(len(moved), -1).any(1)
        if not seen.any():
            yield OfOutput(output, None)
            continue
        relations: list[Relation | None] = [None] * len(shape)
        fits = sorted(_fits(indices[seen], moved[seen], shape, output), key=lambda fit: fit.part)
        for fit in fits:
            if relations[fit.axis] is None and all(one is None or one.axis != fit.relation.axis for one in relations):
                relations[fit.axis] = fit.relation
        yield OfOutput(output, tuple(relations))


def _fits(indices: np.ndarray, moved: np.ndarray, shape: Shape, output: Shape) -> Iterator[_Fit]:
    """Yield the relations that hold for all probed entries and let some entries of an axis share a colour."""
    for along, other in enumerate(output):
        rest = tuple(axis + 1 for axis in range(len(output)) if axis != along)
        touched = np.logical_or.reduce(moved, axis=rest)  # a row for each probed entry
        lowest, highest = touched.argmax(1), other - 1 - touched[:, ::-1].argmax(1)
        for axis, length in enumerate(shape):
            for out, own in _ratios(length, other):
                entries = own * indices[:, axis]
                first, last = int((out * lowest - entries).min()), int((out * highest - entries).max())
                part = ((last - first) // own + 1) / length
                if part < 1:
                    yield _Fit(part, axis, Relation(along, out, own, first, last))


def _ratios(length: int, other: int) -> Iterator[tuple[int, int]]:
    """Yield the ratios that two axes of these lengths may have, both 1 first."""
    yield 1, 1
    if other < length:
        yield from ((out, 1) for out in range(2, min(STRIDES, length // other + 1) + 1))
    else:
        yield from ((1, own) for own in range(2, min(STRIDES, other // length + 1) + 1))
