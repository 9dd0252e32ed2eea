"""What single outputs contribute to a gradient: some that do not count, or count twice, and cotangents that changed.

The gradient of an entry is the sum over all outputs of the output's derivative by it, times the output's cotangent. For
some entries the derivatives of all outputs are differenced here; then any wrong sum can be replayed.
"""

from __future__ import annotations

import itertools

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Known, fits
from fastcheck.diagnosis.patterns import assigned, cotangents, weights
from fastcheck.diagnosis.patterns.pattern import Proposals
from fastcheck.diagnosis.patterns.terms import terms_of


def contributions(part: Evidence, known: Known) -> Proposals:
    """What may have become of single outputs' contributions: the simplest kind of which one fits."""
    terms, around = terms_of(part, known), known.around
    if terms is None:
        return
    for kind in (
        assigned.named_rows(terms, around.integers, around.cotangents),
        weights.weighted_outputs(terms, around.cotangents),
        itertools.chain(weights.simple_indices(terms, around.cotangents), assigned.one_of_several(terms)),
        cotangents.other_cotangents(terms, around.outputs, around.cotangents),
        weights.any_indices(terms, around.cotangents),
    ):
        fitting = [one for one in kind if fits(one, terms.entries) is not None]
        if fitting:
            yield from fitting
            return
