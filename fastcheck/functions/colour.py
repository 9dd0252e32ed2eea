"""One colour: entries that share no output, moved together; their quotients and error bars, as arrays.

The formulas are those of `fastcheck.functions.step_search`, for all entries of a colour at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import U
from fastcheck.functions.entry import LEAST
from fastcheck.functions.moves import Moves
from fastcheck.functions.noise import Noise
from fastcheck.functions.step_search import CLEAR, NEARLY, NOISES, NOISY_JUMP

EXACT = 4.0
"""Largest ratio of a bar to its round-off with which two steps are enough: the rest of the bar is hardly larger then,
and a third step would not make it smaller."""


LARGER, FAR_OFF = 2, -4
"""Powers of two by which to change a step whose bar is round-off alone, and one at which no value is finite."""


class Estimates(NamedTuple):
    """Derivatives, their error bars, and the powers of two by which steps should change to balance these: arrays."""

    numeric: np.ndarray
    bar: np.ndarray
    shift: np.ndarray


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


class Levels(NamedTuple):
    """`fastcheck.functions.step_search.Level` of each entry of a colour: a row for each step, the smallest first."""

    central: np.ndarray
    jump: np.ndarray
    roundoff: np.ndarray

    @classmethod
    def of(
        cls, values: np.ndarray, points: np.ndarray, changes: np.ndarray, noise: np.ndarray, sides: np.ndarray
    ) -> Levels:
        """Difference changes of the loss.

        Parameters
        ----------
        values : float64 array
            Of the entries, where the loss is 0.
        points, changes : float64 arrays
            Two rows for each step: other values, and the loss there, first to each entry's own side and then to the
            other one.
        noise : float64 array
            Standard deviation of each entry's changes.
        sides : float64 array
            1 where an entry's own side is that of larger values, else -1.
        """
        with np.errstate(all="ignore"):
            moves = points - values
            slopes = changes / moves
            width = points[::2] - points[1::2]
            central = (changes[::2] - changes[1::2]) / width
            jump = sides * (slopes[::2] - slopes[1::2])
            uneven = np.abs(moves[::2] + moves[1::2]) / np.abs(width)
            noisy = np.maximum(noise, U / 2 * np.maximum(np.abs(changes[::2]), np.abs(changes[1::2])))
            return cls(central, jump, NOISES * noisy * 2 / np.abs(width) + np.abs(jump) * uneven)

    def exact(self, safety: float) -> Estimates:
        """Estimate from steps h and 4h where round-off is most of the error bar; elsewhere the bar is nan.

        The difference of the two quotients is fifteen times the error of a smooth function's.
        """
        numeric, roundoff, jump = self.central[0], self.roundoff[0], np.abs(4 * self.jump[0] - self.jump[1]) / 3
        bar = roundoff + safety * (np.abs(self.central[1] - numeric) + jump / 2)
        exact = (bar <= EXACT * roundoff) & (jump / 2 <= CLEAR * roundoff)
        return Estimates(numeric, np.where(exact, bar, np.nan), np.full(numeric.shape, LARGER))

    @np.errstate(all="ignore")
    def estimates(self, points: int, safety: float) -> Estimates:
        """Estimate from steps h, 2h and 4h, by three points or five; the bar is nan where a kink shows.

        See `fastcheck.functions.step_search.estimate`.
        """
        first, second = 2 * self.jump[:2] - self.jump[1:]
        fine, coarse = np.abs(np.diff(self.central, axis=0))
        near, middle, far = self.central
        if points == 3:
            numeric, roundoff = near, self.roundoff[0]
            truncation = _measured(fine, coarse, 4, roundoff)
            jump = _measured(np.abs(first), np.abs(second), 8, NOISY_JUMP * roundoff)
        else:
            numeric = (4 * near - middle) / 3
            roundoff = (4 * self.roundoff[0] + self.roundoff[1]) / 3
            truncation = _cancelled(np.abs((4 * middle - far) / 3 - numeric), fine)
            jump = _cancelled(np.abs((8 * first - second) / 7), np.abs(first))
        kinked = (np.abs(first) / 2 > CLEAR * self.roundoff[0]) & (np.abs(first) > np.abs(second) / 2)
        bar = np.where(kinked, np.nan, roundoff + safety * (truncation + jump / 2))
        explained = truncation + jump / 2 * (jump / 2 > CLEAR * roundoff)
        smaller = np.minimum(np.round((np.log2(roundoff) - np.log2(explained)) / points), 0)
        powers = np.where(explained <= roundoff / 2, LARGER, np.where(np.isfinite(smaller), smaller, FAR_OFF))
        return Estimates(numeric, bar, np.where(kinked, 0, powers).astype(np.int64))


def _measured(fine: np.ndarray, coarse: np.ndarray, decay: int, noise: np.ndarray) -> np.ndarray:
    """Return `fastcheck.functions.step_search._measured` of arrays."""
    return np.where(coarse <= 2 * decay * np.maximum(fine, noise), np.maximum(fine, coarse / decay), coarse)


def _cancelled(rest: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return `fastcheck.functions.step_search._cancelled` of arrays."""
    return np.where(rest <= whole / NEARLY, rest, np.maximum(rest, whole))
