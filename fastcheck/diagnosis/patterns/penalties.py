"""Penalties that are missing, doubled or of the wrong sign, alone or with a factor, and constants."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.diagnosis import factors
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, parameter, plus

_CLOSE = 1e-5
"""A factor that was fitted beside a penalty has a meaning if it is so close to its value, relatively."""


def penalty(part: Evidence, known: Known) -> Proposals:
    """A multiple of the parameter, too much or missing."""
    (c,) = factors.fitted(part, part.seen - part.numeric, parameter(part))
    if not math.isfinite(c):
        return
    decay = {"decay": factors.shown(abs(c)), "twice": factors.shown(2 * abs(c)), "half": factors.shown(abs(c) / 2)}
    missing = (
        "{decay} times the parameter is missing: the penalty's gradient (or half of it, for a weight decay of {twice}; "
        "or it has the wrong sign, for {half})"
    )
    extra = "{decay} times the parameter is too much: a penalty that the loss does not have, or one that counts twice"
    words = {"words": (missing if c < 0 else extra).format(**decay)}
    yield Hypothesis(words, plus(part, lambda one: c * parameter(one)), free=1)


def named_factor_and_penalty(part: Evidence, known: Known) -> Proposals:
    """A factor that has a meaning, and a multiple of the parameter."""
    factor, c = _two(part)
    tried = factors.number_of_meanings(known.counts)
    for meaning in factors.meanings(factor, known.counts):
        if abs(meaning.value - factor) <= _CLOSE * abs(factor):
            yield _scaled_and_penalised(part, meaning.words, meaning.value, c, tried)


def factor_and_penalty(part: Evidence, known: Known) -> Proposals:
    """Any factor, and a multiple of the parameter."""
    factor, c = _two(part)
    if math.isfinite(factor):
        yield _scaled_and_penalised(part, f"is multiplied by {factors.shown(factor)}", factor, c, 1)


def _two(part: Evidence) -> tuple[float, float]:
    """Return a factor and a multiple of the parameter that make the gradient; nan where they are not known."""
    factor, c = factors.fitted(part, part.seen, part.numeric, parameter(part))
    return float(factor), float(c)


def _scaled_and_penalised(part: Evidence, words: str, factor: float, c: float, tried: int) -> Hypothesis:
    compare = plus(part, lambda one: c * parameter(one), factor)
    does = "added" if c > 0 else "taken away"
    return Hypothesis({"words": words, "c": factors.shown(abs(c)), "does": does}, compare, free=2, tried=tried)


def constant(part: Evidence, known: Known) -> Proposals:
    """The same number added to every entry."""
    (k,) = factors.fitted(part, part.seen - part.numeric, np.ones(len(part.dims)))
    if math.isfinite(k):
        yield Hypothesis({"k": factors.shown(k)}, plus(part, lambda one: np.full(len(one.dims), k)), free=1)
