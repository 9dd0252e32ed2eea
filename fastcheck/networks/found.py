"""What one step tells of some dimensions of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Found:
    """What one step tells of some dimensions: the numeric value, and parts of its bar.

    ``right`` and ``left`` are the data loss's one-sided slopes, and ``at_point`` tells which dimensions cross a kink of
    it at the point itself.
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
        """Bound on what arithmetic explains, the gradient's own rounding left aside."""
        whole: np.ndarray = self.roundoff + self.truncation + self.crossed + self.jump
        return whole

    def take(self, places: np.ndarray, other: Found) -> np.ndarray:
        """Replace entries by others where those have the narrower bar; return which."""
        better = other.bar < self.bar[places]
        found: np.ndarray = places[better]
        self.put(found, other.of(better))
        return found

    def put(self, places: np.ndarray, other: Found) -> None:
        """Replace entries by others."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[places] = getattr(other, name)

    def of(self, chosen: np.ndarray) -> Found:
        """Return some of the entries."""
        return Found(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def plus(self, added: tuple[np.ndarray, ...]) -> Found:
        """Add the difference of a penalty: its value, round-off, what crossings change, jumps and kinks."""
        value, roundoff, crossed, jump, kinks = added
        return Found(
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
