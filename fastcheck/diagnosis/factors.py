"""Factors between two gradients: their size, and what a factor of that size may mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.diagnosis.counts import ROOT
from fastcheck.diagnosis.evidence import Evidence

_NEAR = 1e-2
"""A meaning is tried if its factor is so close to the fitted one, relatively: as close as bfloat16 tells."""

_TRIMMED = 3
"""Number of least-squares fits, each without the entries that the one before leaves far off."""


class Meaning(NamedTuple):
    """What a factor may mean.

    Attributes
    ----------
    value : float
    words : str
        "divided by N (8)".
    advice : str
    """

    value: float
    words: str
    advice: str


_CONSTANTS = (
    ("ln 10", math.log(10), "look for log10 in place of the natural logarithm, or decibels"),
    ("ln 2", math.log(2), "look for log2 or exp2 in place of the natural functions"),
    ("the square root of 2 pi", math.sqrt(2 * math.pi), "look at the normal density's constant"),
    ("pi", math.pi, "look for an angle in other units"),
)

_DROPOUTS = (0.1, 0.2, 0.25, 0.3, 0.4)
"""Usual rates of dropout whose 1 - p is no simpler number."""

_MEAN = "look for a mean where the loss takes a sum, or one mean too many"
_SUM = "look for a sum where the loss takes a mean, or a division that is missing"
_ROOT = "look for a scale like the 1 / sqrt(d) of attention: it belongs once in each pass"
_DROPOUT = "look for a constant that forward has and backward lacks, or the reverse, such as the 1 / (1 - p) of dropout"
_TWICE = "look for a 1/2 of the forward pass, a gradient that is added to stale values, or two paths that each add all"
_HALF = "look for the 2 of a square's derivative, a mean over two, or a symmetric half that is not added"


def meanings(factor: float, counts: Mapping[str, float]) -> Iterator[Meaning]:
    """Yield what a factor of the whole gradient may mean, the likeliest first; both signs.

    Parameters
    ----------
    factor : float
        As fitted; what is yielded has the exact value.
    counts : mapping of str to float
        Numbers of the problem by name.
    """
    sign = math.copysign(1.0, factor)
    for value, words, advice in _positive(counts):
        if abs(abs(factor) - value) <= _NEAR * value:
            wrong = " and has the opposite sign" if sign < 0 else ""
            yield Meaning(sign * value, words + wrong, advice + (", and for a wrong sign" if sign < 0 else ""))
    if abs(factor + 1) <= _NEAR:
        yield Meaning(-1.0, "has the opposite sign", "look for a minus that is missing or one too many")


def _positive(counts: Mapping[str, float]) -> Iterator[Meaning]:
    yield Meaning(
        2.0, "is twice what it should be: a factor of 1/2 is missing, or it is added or counted twice", _TWICE
    )
    yield Meaning(0.5, "is half of what it should be", _HALF)
    for value, names in _by_value(counts).items():
        of_root = names.startswith(ROOT)
        yield Meaning(1 / value, f"is divided by {names} ({value:,.6g})", _ROOT if of_root else _MEAN)
        yield Meaning(value, f"is multiplied by {names} ({value:,.6g})", _ROOT if of_root else _SUM)
    for name, value, advice in _CONSTANTS:
        yield Meaning(value, f"is multiplied by {name}", advice)
        yield Meaning(1 / value, f"is divided by {name}", advice)
    for rate in _DROPOUTS:
        words = f"by {1 - rate:g}: a constant such as a temperature, or the 1 - p of a dropout of {rate:g}"
        yield Meaning(1 - rate, f"is multiplied {words}", _DROPOUT)
        yield Meaning(1 / (1 - rate), f"is divided {words}", _DROPOUT)


def _by_value(counts: Mapping[str, float]) -> dict[float, str]:
    """Return the names of each number that a factor can show: several that are equal are alternatives."""
    names: dict[float, list[str]] = {}
    for name, value in counts.items():
        if 0 < value < math.inf and value != 1:
            names.setdefault(float(value), []).append(name)
    return {value: " or ".join(some) for value, some in names.items()}


def number_of_meanings(counts: Mapping[str, float]) -> int:
    """Return how many factors have a meaning."""
    return 2 * sum(1 for _ in _positive(counts)) + 1


def shown(factor: float) -> str:
    """Return a factor with four digits, or with two that tell it from one."""
    apart = abs(abs(factor) - 1)
    digits = 2 + math.ceil(-math.log10(apart)) if 0 < apart < math.inf else 4
    return f"{factor:.{min(max(digits, 4), 15)}g}"


@np.errstate(all="ignore")
def fitted(evidence: Evidence, target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """Return the coefficients with which columns add up to a target, weighted by the bars; nan if not known.

    Entries that the others contradict are left out.

    Parameters
    ----------
    evidence : Evidence
    target, *columns : float64 arrays, shape (n,)
    """
    least = 1e-16 * float(np.abs(evidence.numeric).max(initial=0.0)) + float(np.finfo(float).tiny)
    bar = np.maximum(evidence.error_bar, least)
    typical = float(np.median(bar))
    weight = typical / bar
    finite = np.isfinite(target)
    used, found = finite, np.zeros(len(columns))
    for _ in range(_TRIMMED):
        step = _step(np.stack([(column * weight)[used] for column in columns], axis=1), (target * weight)[used], found)
        if step is None:
            return np.full(len(columns), np.nan)
        found = found + step
        left = np.abs(target - _sum(found, columns)) * weight
        used = finite & (left <= max(typical, 10 * float(np.median(left[finite]))))
    return found


def _sum(found: np.ndarray, columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.add.reduce([factor * column for factor, column in zip(found, columns, strict=True)])


def _step(matrix: np.ndarray, target: np.ndarray, found: np.ndarray) -> np.ndarray | None:
    """Return what is to be added to coefficients; None where the columns leave them open."""
    scale = np.abs(matrix).max(axis=0, initial=0.0)
    if len(matrix) < len(found) or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    step, _, rank, _ = np.linalg.lstsq(matrix / scale, target - matrix @ found, rcond=1e-8)
    return step / scale if rank == len(found) else None
