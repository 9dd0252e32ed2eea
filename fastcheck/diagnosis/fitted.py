"""Patterns fitted to gradients that failed: which of the table's explain what fails, inside the error bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from fastcheck.diagnosis.around import Around
from fastcheck.diagnosis.evidence import Diagnosis, Evidence, Failed
from fastcheck.diagnosis.hypotheses import Fit, Hypothesis, Known, fits, part_of
from fastcheck.diagnosis.patterns.pattern import IN_PART, Pattern
from fastcheck.diagnosis.patterns.table import PATTERNS
from fastcheck.reports.layout import joined


@np.errstate(all="ignore")
def fitted(
    failed: Failed,
    others: Mapping[str, np.ndarray] | None = None,
    counts: Mapping[str, float] | None = None,
    around: Around | None = None,
) -> list[Diagnosis]:
    """Return the patterns that fit tensors that failed, those first that explain most, the simplest first.

    A pattern fits a tensor if it explains nearly all failing entries within their bars, and breaks nearly none of the
    others. Patterns that make the same array of it are all returned.

    Parameters
    ----------
    failed : mapping of str to Evidence
    others : mapping of str to arrays, optional
        Gradients of tensors that are right, which a failed one may hold in place of its own.
    counts : mapping of str to float, optional
        Numbers of the problem that a gradient may be divided by: {"N": 8, "output pixels": 49}.
    around : Around, optional
        The arrays around the gradients, of a function.
    """
    known = Known(failed, others or {}, counts or {}, around or Around())
    found: dict[tuple[int, str, str], dict[str, Fit]] = {}
    for name, evidence in failed.items():
        for row, bug, advice, fit in _of_tensor(evidence, known):
            found.setdefault((row, bug, advice), {}).setdefault(name, fit)
    total = sum(int(np.count_nonzero(evidence.failing)) for evidence in failed.values())
    ranked = sorted(found, key=lambda key: (-_explained(found[key]) / total, key[0]))
    return [_diagnosis(bug, advice, found[row, bug, advice]) for row, bug, advice in ranked]


def _of_tensor(evidence: Evidence, known: Known) -> Iterator[tuple[int, str, str, Fit]]:
    """Yield the patterns that fit a tensor: the number, both sentences, and the fit.

    Where one explains all, another that misses a few makes another array.
    """
    if not evidence.failing.any():
        return
    part, found, named = part_of(evidence), list[tuple[int, str, str, Fit]](), set[str]()
    for row, pattern in enumerate(PATTERNS):
        if not named & set(pattern.unless):
            fitting = list(_of_pattern(pattern, part, evidence, known))
            named |= {pattern.name} if fitting else set()
            found += [(row, *sentences, fit) for sentences, fit in fitting]
    least = min((fit.missed for *_, fit in found), default=0)
    yield from (one for one in found if one[3].missed <= 2 * least)


def _of_pattern(
    pattern: Pattern, part: Evidence, whole: Evidence, known: Known
) -> Iterator[tuple[tuple[str, str], Fit]]:
    """Yield the hypotheses of one pattern that fit a tensor: both sentences, and the fit."""
    for hypothesis in pattern.propose(part, known):
        fit = _confirmed(hypothesis, part, whole)
        if fit is not None:
            yield (pattern.bug.format(**hypothesis.words), pattern.advice.format(**hypothesis.words)), fit


def _confirmed(hypothesis: Hypothesis, part: Evidence, whole: Evidence) -> Fit | None:
    """Return how well a hypothesis fits all of the evidence; None where it does not, or not even a part."""
    if hypothesis.only is not None:
        return _extended(fits(hypothesis, hypothesis.only), whole)
    fit = fits(hypothesis, part)
    return fit if fit is None or part is whole else fits(hypothesis, whole)


def _extended(fit: Fit | None, whole: Evidence) -> Fit | None:
    """Return a fit on some entries as one on all, of which these are a sample."""
    if fit is None:
        return None
    failing = int(np.count_nonzero(whole.failing))
    return fit._replace(failing=failing, explained=round(failing * fit.explained / fit.failing), of_some=True)


def _explained(by: Mapping[str, Fit]) -> int:
    return sum(fit.explained for fit in by.values())


def _diagnosis(bug: str, advice: str, by: Mapping[str, Fit]) -> Diagnosis:
    """Return a pattern that fits some tensors."""
    failing, explained = sum(fit.failing for fit in by.values()), _explained(by)
    every = "both" if failing == 2 else f"all {failing:,}"
    count = every if explained == failing else f"{explained:,} of {failing:,}"
    entries = f"{count} entries that fail" if failing > 1 else "the only entry that fails"
    residual = math.hypot(*(fit.left for fit in by.values())) / math.hypot(*(fit.gap for fit in by.values()))
    some = ", as far as was looked at" if any(fit.of_some for fit in by.values()) else ""
    evidence = f"explains {entries} in {joined(list(by))}, within the error bars{some}"
    return Diagnosis(bug, evidence, advice, tuple(by), explained / failing, residual)


def is_in_part(diagnosis: Diagnosis) -> bool:
    """Return whether a diagnosis says what failing entries have in common, and not why these fail and others do not."""
    return diagnosis.bug.startswith(IN_PART)
