"""Quotients and error bars of several entries at once, as arrays.

The formulas are those of `fastcheck.functions.step_search`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcheck.common.precision import U
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


class Levels(NamedTuple):
    """`fastcheck.functions.step_search.Level` of several entries: a row for each step, the smallest first."""

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


def exponents_of(values: np.ndarray) -> np.ndarray:
    """Return `fastcheck.functions.step_search.exponent_of` of arrays."""
    return np.frexp(values)[1].astype(np.int64) - 1
