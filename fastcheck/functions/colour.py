"""One colour: entries that share no output, moved together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.functions.entry import LEAST
from fastcheck.functions.levels import Levels
from fastcheck.functions.moves import Moves
from fastcheck.functions.noise import Noise
from fastcheck.functions.step_search import NOISES


class Intrusion(NamedTuple):
    """An output that moved though no moved entry owns it: the entries' values then, and its flat index."""

    values: np.ndarray
    output: int


class Colour:
    """The entries of a colour.

    Parameters
    ----------
    moves : Moves
    dims : int64 array
        Their flat indices.
    steps : float64 array
        Of each, the smallest step; negative where its own side is that of smaller values.
    owners : int64 array
        `fastcheck.functions.patterns.Pattern.owners` of the dims.
    noises : Noise
        The rounding of the outputs.

    Attributes
    ----------
    intrusion : Intrusion or None
        The first one.
    """

    def __init__(self, moves: Moves, dims: np.ndarray, steps: np.ndarray, owners: np.ndarray, noises: Noise) -> None:
        self._moves, self._dims, self._steps, self._noises = moves, dims, steps, noises
        self._excluded, self._owned = np.flatnonzero(owners < 0), np.flatnonzero(owners >= 0)
        self._owned = self._owned[np.argsort(owners[self._owned], kind="stable")]
        self._owning, self._starts = np.unique(owners[self._owned], return_index=True)
        self._moving = np.zeros(len(owners), bool)
        self._changes: dict[tuple[int, int], np.ndarray] = {}
        self.intrusion: Intrusion | None = None

    def levels(self, powers: Sequence[int]) -> Levels | None:
        """Difference with steps of 2^power times the smallest; return None where the function raises."""
        sides = [(power, side) for power in powers for side in (1, -1)]
        if not all(self._change(*side) for side in sides):
            return None
        points = np.array([self._values(*side) for side in sides])
        changes = np.array([self._changes[side] for side in sides])
        return Levels.of(self._moves.values[self._dims], points, changes, self._noise(), np.sign(self._steps))

    def _values(self, power: int, side: int) -> np.ndarray:
        return self._moves.values[self._dims] + side * 2.0**power * self._steps

    def _change(self, power: int, side: int) -> bool:
        """Move all entries, and note the change of the loss that each makes; return whether the function has values."""
        if (power, side) not in self._changes:
            values = self._values(power, side)
            terms = self._moves.terms(self._dims, values)
            if terms is None:
                return False
            self._moving |= terms != 0
            moved = self._excluded[self._noises.moved(terms[self._excluded], self._excluded)]
            if moved.size and self.intrusion is None:
                self.intrusion = Intrusion(values, int(moved[0]))
            self._changes[power, side] = self._sums(terms)
        return True

    def _sums(self, terms: np.ndarray) -> np.ndarray:
        """Return the sum of each entry's terms."""
        sums = np.zeros(len(self._dims))
        if self._owned.size:
            with np.errstate(all="ignore"):
                sums[self._owning] = np.add.reduceat(terms[self._owned], self._starts)  # pairwise, unlike bincount
        return sums

    def _noise(self) -> np.ndarray:
        """Return the standard deviation of each entry's rounding, that of the outputs which it moves."""
        each = np.where(self._moving, self._noises.each, 0.0)
        largest = float(each.max(initial=0.0)) or 1.0  # divided by before squaring, so that nothing overflows
        noise = largest * np.sqrt(self._sums((each / largest) ** 2))
        if self._noises.declared.any():
            noise = np.maximum(noise, self._sums(np.where(self._moving, self._noises.declared, 0.0)) / NOISES)
        return np.maximum(noise, LEAST)
