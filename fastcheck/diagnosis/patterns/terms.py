"""Derivatives of all outputs by some entries of a tensor: the terms whose weighted sums are its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known, at

_FAILING, _PASSING = 48, 16
"""Entries that fail, and others, whose derivatives are differenced: four calls each."""

_MOST = 2**21
"""Largest number of derivatives that are kept, 8 bytes each."""

_MOST_NOISE = 0.9
"""Noise of an entry is at least so many entries' noise: along one cotangent it may be small by chance."""

_LOUDER = 16.0
"""What is noise along one cotangent may be so many times as much along another."""

_NEAR = 1e-4
"""An entry is used if its derivatives sum to the one that was differenced with the check's own care, so closely."""


@dataclass(frozen=True)
class Terms:
    """Derivatives of all outputs by some entries of a tensor.

    Attributes
    ----------
    entries : Evidence
        Those entries.
    columns : float64 array, shape (entries, outputs)
    cotangent : float64 array, shape (outputs,)
    noise : float64 array, shape (entries,)
        How far the sum of terms may be from the derivative.
    """

    entries: Evidence
    columns: np.ndarray
    cotangent: np.ndarray
    noise: np.ndarray

    @property
    def unsure(self) -> np.ndarray:
        """How far the sum of terms may be from the gradient."""
        return self.entries.error_bar + self.noise

    @cached_property
    def right(self) -> np.ndarray:
        """The terms whose sums are the derivatives."""
        return self.columns * self.cotangent

    def hypothesis(self, words: Mapping[str, str], cotangent: np.ndarray, tried: int) -> Hypothesis:
        """Return the hypothesis that the gradient is the sum of other terms, with another cotangent."""
        terms = self.columns * cotangent
        return self.summed(words, terms.sum(axis=1), np.linalg.norm(terms, axis=1), tried, self._noise(cotangent))

    def summed(
        self, words: Mapping[str, str], sums: np.ndarray, sizes: np.ndarray, tried: int, noise: np.ndarray | float = 0.0
    ) -> Hypothesis:
        """Return the hypothesis that the gradient is some array, made of terms of these sizes."""
        usual = np.linalg.norm(self.right, axis=1)
        larger = np.maximum(1.0, np.divide(sizes, usual, out=np.ones_like(usual), where=usual > 0))
        allowed = self.unsure * larger + noise
        return Hypothesis(words, lambda one: Compared(one.seen, sums, allowed), tried=tried, only=self.entries)

    def _noise(self, cotangent: np.ndarray) -> np.ndarray:
        """Return the noise of sums with a cotangent, by what that of the cotangent itself leaves."""
        moving = self.columns != 0
        usual, now = (np.sqrt(moving @ np.square(one)) for one in (self.cotangent, cotangent))
        return np.divide(_LOUDER * self.noise * now, usual, out=np.zeros_like(usual), where=usual > 0)


def terms_of(part: Evidence, known: Known) -> Terms | None:
    """Difference the derivatives of all outputs by some entries; None where that is not possible."""
    around = known.around
    size = sum(array.size for array in around.outputs.values())
    if around.columns is None or not size:
        return None
    most, random = _MOST // size, np.random.default_rng(0)
    places = []
    for chosen, count in ((part.failing, min(_FAILING, 3 * most // 4)), (~part.failing, min(_PASSING, most // 4))):
        every = np.flatnonzero(chosen)
        places.append(every if len(every) <= count else random.choice(every, count, replace=False))
    entries = at(part, np.sort(np.concatenate(places)))
    columns = around.columns(part.name, entries.dims)
    cotangent = np.concatenate([around.cotangents[name].reshape(-1) for name in around.outputs])
    return _reliable(entries, columns, cotangent)


def _reliable(entries: Evidence, columns: np.ndarray, cotangent: np.ndarray) -> Terms | None:
    """Keep the entries whose terms sum to the derivative that is known; None where these are too few."""
    off = np.abs(columns @ cotangent - entries.numeric)
    typical = float(np.median(np.linalg.norm(columns * cotangent, axis=1)))
    good = np.isfinite(columns).all(axis=1) & (off <= entries.error_bar + _NEAR * typical)
    if not (good & entries.failing).any():
        return None
    noise = 2 * off + 2 * float(np.quantile(off[good], _MOST_NOISE)) + 1e-12 * typical
    return Terms(at(entries, good), columns[good], cotangent, noise[good])
