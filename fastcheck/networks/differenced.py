"""The result of one step for some dimensions of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class DifferencedBlock:
    """Numeric values of some dimensions, and the components of their error bars.

    Attributes
    ----------
    numeric : float64 array
        Two-sided difference quotients.
    roundoff, truncation, crossed, jump : float64 arrays
        Components of the bar: the differences' round-off, their truncation, what crossed kinks can change, and half of
        the interval between the one-sided slopes where a kink is at the point itself.
    kinks : int64 array
        Number of kinks between -h and +h.
    right, left : float64 arrays
        One-sided slopes of the data loss.
    at_point : bool array
        Which dimensions cross a kink of the data loss at the point itself.
    """

    numeric: np.ndarray
    roundoff: np.ndarray
    truncation: np.ndarray
    crossed: np.ndarray
    jump: np.ndarray
    kinks: np.ndarray
    right: np.ndarray
    left: np.ndarray
    at_point: np.ndarray

    @property
    def bar(self) -> np.ndarray:
        """Bound on the error that arithmetic alone can explain, the gradient's own rounding aside."""
        return self.roundoff + self.truncation + self.crossed + self.jump

    def take(self, rows: np.ndarray, other: DifferencedBlock) -> np.ndarray:
        """Replace rows by another block's where its bar is narrower; return the replaced rows."""
        narrower = other.bar < self.bar[rows]
        replaced: np.ndarray = rows[narrower]
        self.put(replaced, other.of(narrower))
        return replaced

    def put(self, rows: np.ndarray, other: DifferencedBlock) -> None:
        """Replace rows by another block's."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(other, name)

    def of(self, chosen: np.ndarray) -> DifferencedBlock:
        """Return the chosen rows."""
        return DifferencedBlock(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def plus(self, added: tuple[np.ndarray, ...]) -> DifferencedBlock:
        """Add the difference of a penalty: its value, round-off, effect of crossed kinks, jumps and kinks."""
        value, roundoff, crossed, jump, kinks = added
        return DifferencedBlock(
            self.numeric + value,
            self.roundoff + roundoff,
            self.truncation,
            self.crossed + crossed,
            self.jump + jump,
            self.kinks + kinks,
            self.right,
            self.left,
            self.at_point,
        )
