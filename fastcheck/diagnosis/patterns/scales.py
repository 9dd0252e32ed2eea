"""Zeros, and factors of a whole gradient or of the entries that fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis import factors
from fastcheck.diagnosis.around import cotangent_of
from fastcheck.diagnosis.counts import ROOT
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known, at
from fastcheck.diagnosis.patterns.pattern import Proposals, same, where_it_fails

_ROUND = 3e-6
"""A norm is a round number if it is so close to one, relatively: programs add 1e-6 where they divide by it."""


def zeros(part: Evidence, known: Known) -> Proposals:
    """Zeros everywhere."""
    if not part.analytic.any():
        yield Hypothesis({}, same(lambda one: np.zeros(len(one.dims))))


def factor_of(part: Evidence) -> float:
    """Return the factor that fits best."""
    return float(factors.fitted(part, part.seen, part.numeric)[0])


def times(factor: float) -> Callable[[Evidence], Compared]:
    """Return the comparison with a multiple of the derivative."""
    return same(lambda one: factor * one.numeric, max(1.0, abs(factor)))


def named_factor(part: Evidence, known: Known) -> Proposals:
    """A factor that has a meaning."""
    tried = factors.number_of_meanings(known.counts)
    for meaning in factors.meanings(factor_of(part), known.counts):
        words = {"words": meaning.words, "advice": meaning.advice}
        yield Hypothesis(words, times(meaning.value), tried=tried)


def any_factor(part: Evidence, known: Known) -> Proposals:
    """Any factor."""
    factor = factor_of(part)
    if math.isfinite(factor):
        yield Hypothesis({"factor": factors.shown(factor)}, times(factor), free=1)


def part_zero(part: Evidence, known: Known) -> Proposals:
    """Zeros where it fails."""
    yield where_it_fails(Hypothesis({}, same(lambda one: np.zeros(len(one.dims)))))


def part_named_factor(part: Evidence, known: Known) -> Proposals:
    """A factor that has a meaning, where it fails."""
    # A root belongs to a whole gradient, as the scale of attention does.
    counts = {name: value for name, value in known.counts.items() if not name.startswith(ROOT)}
    yield from map(where_it_fails, named_factor(at(part, part.failing), replace(known, counts=counts)))


def part_factor(part: Evidence, known: Known) -> Proposals:
    """Any factor, where it fails."""
    yield from map(where_it_fails, any_factor(at(part, part.failing), known))


def scalar_cotangent(part: Evidence, known: Known) -> Proposals:
    """The gradient of an output that is one number, without its cotangent."""
    cotangents = known.around.cotangents
    for output, array in cotangents.items():
        if len(cotangents) == array.size == 1 and array.item() not in (0, 1):
            yield Hypothesis({"of": cotangent_of(output)}, times(1 / array.item()))


def flat_in_part(part: Evidence, known: Known) -> Proposals:
    """Derivatives that are zero wherever it fails, and not elsewhere, where the gradient is not."""
    failing = part.failing
    if (part.numeric[~failing] != 0).any() and (np.abs(part.numeric) <= part.error_bar)[failing].all():
        yield where_it_fails(Hypothesis({}, lambda one: Compared(one.numeric, np.zeros(len(one.dims)), one.error_bar)))


def norm_clip(part: Evidence, known: Known) -> Proposals:
    """A factor that makes a norm a round number."""
    factor = factor_of(part)
    if not 0 < factor < 1:
        return
    failed = [evidence.analytic for evidence in known.failed.values()]
    for arrays, words in (
        ([part.analytic], "it"),
        (failed, "all that fail"),
        ([*failed, *known.others.values()], "all"),
    ):
        norm = math.sqrt(sum(float(np.vdot(array, array)) for array in arrays))
        limit = _round(norm)
        if limit and (len(arrays) > 1 or words == "it"):
            yield Hypothesis({"limit": f"{limit:g}", "of": words}, times(factor), free=1)
            return


def _round(norm: float) -> float:
    """Return the round number that a norm is: of one digit, or of two with a 5 at the end; 0 where it is none."""
    if not 0 < norm < math.inf:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(norm * (1 + _ROUND))) - 1)
    tens = round(norm / unit)
    return tens * unit if tens % 5 == 0 and (tens % 10 == 0 or tens < 100) and _near(norm, tens * unit) else 0.0


def _near(norm: float, limit: float) -> bool:
    return abs(norm - limit) <= _ROUND * limit
