"""Gradients in the place of others, and entries in the place of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.diagnosis import rearranged
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known, fits, part_of
from fastcheck.diagnosis.patterns.pattern import Proposals, same

_FEW = 32
"""Entries on which one of many rearrangements is tried first."""


def exchanged(part: Evidence, known: Known) -> Proposals:
    """The gradient of another tensor that failed."""
    for name, other in known.failed.items():
        if name == part.name or other.shape != part.shape:
            continue
        forth = Hypothesis({}, _found_in(other.analytic), tried=len(known.failed))
        if fits(forth, part) is None:
            continue
        back = fits(Hypothesis({}, _found_in(part.analytic)), part_of(other)) is not None
        first, second = sorted((part.name, name))
        exchanged, stored = f"of {first} and {second} are exchanged", f"of {part.name} is stored as that of {name}"
        yield forth._replace(words={"words": f"the gradients {exchanged}" if back else f"the gradient {stored}"})


def _found_in(array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the derivative with another array: the gradient may have been put there."""
    return lambda one: Compared(array.reshape(-1)[one.dims], one.numeric, one.error_bar)


def another(part: Evidence, known: Known) -> Proposals:
    """The gradient of a tensor that is right."""
    for name, array in known.others.items():
        if array.shape == part.shape and name != part.name:
            yield Hypothesis({"other": name}, _held(array), tried=len(known.others))


def _held(array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the gradient with another array."""
    return same(lambda one: array.reshape(-1)[one.dims])


def rearrangements(part: Evidence, known: Known) -> Proposals:
    """Entries that have gone elsewhere."""
    every = rearranged.rearrangements(part.shape)
    failing = np.flatnonzero(part.failing)
    some = failing[:: max(1, len(failing) // _FEW)]
    numeric, bar, dims, flat = part.numeric[some], part.error_bar[some], part.dims[some], part.analytic.reshape(-1)
    for one in every:
        observed, predicted = _placed(flat, one.places(dims), numeric)
        if np.count_nonzero(np.abs(observed - predicted) <= bar) >= 0.9 * len(some):
            yield Hypothesis({"words": one.words, "advice": one.advice}, _moved(one), tried=len(every))


def _placed(flat: np.ndarray, places: np.ndarray, numeric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values at the places where entries have gone, and what these should be: zero, for entries lost."""
    lost = places < 0
    return flat[np.where(lost, -1 - places, places)], np.where(lost, 0.0, numeric)


def _moved(one: rearranged.Rearrangement) -> Callable[[Evidence], Compared]:
    def compare(evidence: Evidence) -> Compared:
        flat = evidence.analytic.reshape(-1)
        return Compared(*_placed(flat, one.places(evidence.dims), evidence.numeric), evidence.error_bar)

    return compare
