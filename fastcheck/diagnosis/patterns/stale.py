"""Gradients that an earlier call left behind, in the place of this call's or beneath it."""

from __future__ import annotations

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, corrected


def earlier_call(part: Evidence, known: Known) -> Proposals:
    """The second call returns the right gradient."""
    later = known.around.later.get(part.name)
    if later is not None:
        yield Hypothesis({}, corrected(part, later))


def added_to_earlier(part: Evidence, known: Known) -> Proposals:
    """The second call adds the right gradient to what the first one returned."""
    later = known.around.later.get(part.name)
    if later is not None:
        yield Hypothesis({}, corrected(part, later - part.analytic))
