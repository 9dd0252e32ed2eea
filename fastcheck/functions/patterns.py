"""Which outputs depend on which entries of an input, and colours: entries of one colour share no output."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastcheck.common.arguments import Shape


class Pattern(Protocol):
    """The outputs that each entry of an input can move.

    Attributes
    ----------
    words : str
        What a report calls it.
    """

    @property
    def words(self) -> str: ...

    @property
    def count(self) -> int:
        """The number of colours of all entries."""
        ...

    def colours(self, dims: np.ndarray) -> np.ndarray:
        """Return a number for each flat index of an entry: those with equal numbers share no output."""
        ...

    def owners(self, dims: np.ndarray) -> np.ndarray:
        """Return, for every output, the position in ``dims`` of the entry that moves it; -1 where none does.

        Parameters
        ----------
        dims : int64 array
            Flat indices of entries of one colour.
        """
        ...


@dataclass(frozen=True)
class Relation:
    """How an index of the input, along one of its axes, limits an index of the output, along one of its own.

    Entry x moves output o only where ``out * o - own * x`` is one of first, first + every, ..., last.
    """

    axis: int
    out: int = 1
    own: int = 1
    first: int = 0
    last: int = 0
    every: int = 1

    def apart(self, length: int) -> set[int]:
        """Return the distances, below the axis' length, at which two entries may move the same output."""
        moves = range(self.every, self.last - self.first + 1, self.every)
        return {move // abs(self.own) for move in moves if not move % self.own and move < length * abs(self.own)}

    def owner(self, entries: np.ndarray, length: int) -> np.ndarray:
        """Return, for every output index, the one of these entries that may move it; -1 where none does."""
        moves = np.arange(self.first, self.last + 1, self.every)[:, None] + self.own * entries
        outputs, rest = np.divmod(moves, self.out)
        usable = (rest == 0) & (outputs >= 0) & (outputs < length)
        table = np.full(length, -1, dtype=np.int64)
        table[outputs[usable]] = np.broadcast_to(entries, moves.shape)[usable]
        return table


@dataclass(frozen=True)
class OfOutput:
    """How one output depends on an input.

    Attributes
    ----------
    shape : tuple of int
    relations : tuple of Relation or None, or None
        One for each axis of the input, which is None where any index moves any output. None in place of the tuple says
        that no entry moves the output.
    """

    shape: Shape
    relations: tuple[Relation | None, ...] | None


@dataclass(frozen=True)
class Axes:
    """A pattern that is a product of relations between axes.

    Attributes
    ----------
    words : str
    shape : tuple of int
        The input's, perhaps with axes split; at least one axis.
    outputs : tuple of OfOutput
        In the order in which outputs lie one after another.
    """

    words: str
    shape: Shape
    outputs: tuple[OfOutput, ...]

    @functools.cached_property
    def periods(self) -> Shape:
        """By axis, the distance whose multiples lie between entries of one colour; the axis' length if there is none.

        With no dependence at all, entries share no output at any distance.
        """
        return tuple(self._period(axis, length) for axis, length in enumerate(self.shape))

    @property
    def count(self) -> int:
        """The number of colours of all entries."""
        return math.prod(self.periods)

    def colours(self, dims: np.ndarray) -> np.ndarray:
        """Return a number for each flat index of an entry: those with equal numbers share no output."""
        index = np.unravel_index(dims, self.shape)
        within = tuple(entries % period for entries, period in zip(index, self.periods, strict=True))
        return np.ravel_multi_index(within, self.periods)

    def owners(self, dims: np.ndarray) -> np.ndarray:
        """Return, for every output, the position in ``dims`` of the entry that moves it; -1 where none does."""
        positions = np.full(math.prod(self.shape), -1, dtype=np.int64)
        positions[dims] = np.arange(len(dims))
        entries = [np.unique(along) for along in np.unravel_index(dims, self.shape)]
        return np.concatenate([self._owner(one, entries, positions).reshape(-1) for one in self.outputs])

    def _owner(self, output: OfOutput, entries: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
        if output.relations is None:
            return np.full(output.shape, -1, dtype=np.int64)
        flat, known = np.zeros((1,) * len(output.shape), dtype=np.int64), np.array(True)
        for axis, relation in enumerate(output.relations):
            step = math.prod(self.shape[axis + 1 :])
            if relation is None:  # one colour has one index along it
                flat = flat + step * int(entries[axis][0])
                continue
            table = relation.owner(entries[axis], output.shape[relation.axis])
            along = table.reshape([-1 if axis == relation.axis else 1 for axis in range(len(output.shape))])
            flat, known = flat + step * along, known & (along >= 0)
        return np.broadcast_to(np.where(known, positions[np.where(known, flat, 0)], -1), output.shape)

    def _period(self, axis: int, length: int) -> int:
        apart: set[int] = set()
        for output in self.outputs:
            if output.relations is not None:
                relation = output.relations[axis]
                if relation is None:
                    return length
                apart |= relation.apart(length)
        if len(apart) == max(apart, default=0):  # every distance up to the largest
            return min(len(apart) + 1, length)
        return next((m for m in range(2, length) if not any(one % m == 0 for one in apart)), length)


@dataclass(frozen=True)
class Sparse:
    """A pattern by columns: of the entries of an input, each with the outputs that it moves.

    Attributes
    ----------
    words : str
    starts : int64 array, shape (entries + 1,)
    rows : int64 array
        Flat indices of outputs: those of entry j are rows[starts[j]:starts[j + 1]].
    outputs : int
        Number of outputs.
    """

    words: str
    starts: np.ndarray
    rows: np.ndarray
    outputs: int

    @functools.cached_property
    def count(self) -> int:
        """The number of colours of all entries."""
        return int(self.colours(np.arange(len(self.starts) - 1)).max(initial=-1)) + 1

    def colours(self, dims: np.ndarray) -> np.ndarray:
        """Give each entry, in turn, the first colour that none of its outputs has.

        Coleman and Moré (1983) call this the sequential algorithm, for the graph in which two entries are neighbours if
        they share an output.
        """
        taken = [0] * self.outputs  # sets of colours, as bits
        result = np.zeros(len(dims), dtype=np.int64)
        for position, dim in enumerate(dims.tolist()):
            rows = self.rows[self.starts[dim] : self.starts[dim + 1]].tolist()
            union = 0
            for row in rows:
                union |= taken[row]
            free = ~union & (union + 1)
            for row in rows:
                taken[row] |= free
            result[position] = free.bit_length() - 1
        return result

    def owners(self, dims: np.ndarray) -> np.ndarray:
        """Return, for every output, the position in ``dims`` of the entry that moves it; -1 where none does."""
        owner = np.full(self.outputs, -1, dtype=np.int64)
        for position, dim in enumerate(dims.tolist()):
            owner[self.rows[self.starts[dim] : self.starts[dim + 1]]] = position
        return owner
