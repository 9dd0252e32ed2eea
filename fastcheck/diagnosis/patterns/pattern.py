"""What a pattern is, and what patterns share: predictions of a gradient, and comparisons with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known
from fastcheck.engine.magnitudes import rms

Proposals = Iterator[Hypothesis]

IN_PART = "where it fails, the gradient"

_ALIKE = 2.0
"""Typical bars by which what is computed in a gradient's place may differ from it."""

_LEAST = 2.0**-50
"""The least rounding of it, relatively."""


class Pattern(NamedTuple):
    """What a program may do to any gradient.

    Attributes
    ----------
    name : str
    propose : callable
        Takes a part of a tensor's evidence, and what else is known; yields hypotheses.
    bug, advice : str
        The sentences, into which a hypothesis's words are filled.
    unless : tuple of str
        Patterns of which this one is a weaker form: it is left out where one of them fits.
    """

    name: str
    propose: Callable[[Evidence, Known], Proposals]
    bug: str
    advice: str
    unless: tuple[str, ...] = ()


def same(predict: Callable[[Evidence], np.ndarray], widened: float = 1.0) -> Callable[[Evidence], Compared]:
    """Return the comparison of the gradient itself with a prediction, inside bars that are so many times as wide."""
    return lambda one: Compared(one.seen, predict(one), one.error_bar * widened)


def where_it_fails(hypothesis: Hypothesis) -> Hypothesis:
    """Return a hypothesis on the failing entries alone."""

    def compare(one: Evidence) -> Compared:
        observed, predicted, allowed = hypothesis.compare(one)
        return Compared(observed, np.where(one.failing, predicted, observed), allowed)

    return hypothesis._replace(compare=compare)


def relative(part: Evidence) -> float:
    """Return the size of a typical bar, relative to the gradient's: what is added to it is rounded like this too."""
    moving = part.numeric != 0
    size = rms(part.numeric[moving])
    return float(np.median(part.error_bar[moving])) / size if size else 0.0


def replayed(part: Evidence, array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the gradient with an array that was computed in its place, rounded as it is."""
    return _rounded_alike(part, array, lambda one: one.seen)


def corrected(part: Evidence, array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the derivative with an array that should be it: what the gradient lacks is added."""
    return _rounded_alike(part, array, lambda one: one.numeric)


def _rounded_alike(
    part: Evidence, array: np.ndarray, observed: Callable[[Evidence], np.ndarray]
) -> Callable[[Evidence], Compared]:
    flat, rounding = array.reshape(-1), _ALIKE * max(relative(part), _LEAST)

    def compare(one: Evidence) -> Compared:
        predicted, seen = flat[one.dims], observed(one)
        size = np.maximum(np.abs(one.seen), np.abs(predicted)) + rms(predicted)
        return Compared(seen, predicted, one.error_bar + rounding * size)

    return compare


def plus(
    part: Evidence, added: Callable[[Evidence], np.ndarray], factor: float = 1.0
) -> Callable[[Evidence], Compared]:
    """Return the comparison with a multiple of the derivative plus something."""
    rounding, widened = relative(part), max(1.0, abs(factor))

    def compare(one: Evidence) -> Compared:
        more = added(one)
        return Compared(one.seen, factor * one.numeric + more, widened * one.error_bar + rounding * np.abs(more))

    return compare


def parameter(one: Evidence) -> np.ndarray:
    """Return the tensor's own values at the dimensions that were differenced; nan where they are not known."""
    return np.full(len(one.dims), np.nan) if one.value is None else one.value.reshape(-1)[one.dims]
