"""Wrong gradients that are the right ones of another convolution than the declared one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from fastcheck.convolutions import cost
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.forward_catalogue import FORWARD_CATALOGUE
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import of_operands
from fastcheck.diagnosis.trial import MOST_CONFIRMED, SMALL, Candidate, Found
from fastcheck.diagnosis.variant_vjp import compared
from fastcheck.reports.layout import joined

_BOTH = {"input", "weight"}
"""Gradients that must both be given and fail: one alone may be anything."""


def of_other_function(
    case: ConvCase, failed: Failed, found: Sequence[tuple[Diagnosis, list[Found]]], pool: Executor
) -> list[Diagnosis]:
    """Return the diagnoses of a convolution's gradients, and whether all are right for another function.

    Parameters
    ----------
    case : ConvCase
    failed : mapping of str to Evidence
    found : sequence
        The diagnoses, and the mistakes that each is about. Forward passes with these are tried.
    pool : Executor
    """
    diagnoses = [diagnosis for diagnosis, _ in found]
    if not failed.keys() >= _BOTH:
        return diagnoses
    function = next(_functions(case, found, pool), None)
    if function is None:
        return diagnoses
    if diagnoses and set(diagnoses[0].tensors) == set(failed):
        right = "; these are the right gradients of a forward pass with the same mistake"
        return [diagnoses[0]._replace(evidence=diagnoses[0].evidence + right), *diagnoses[1:]]
    return [_diagnosis(failed, function), *diagnoses]


def _functions(case: ConvCase, found: Sequence[tuple[Diagnosis, list[Found]]], pool: Executor) -> Iterator[Candidate]:
    """Yield forward passes with one of these mistakes whose gradients are those of the case."""
    names = {fit.candidate.hypothesis.name for _, fits in found for fit in fits}
    if case.loss != "vjp":  # whose slope at another output hides what else is wrong
        names |= {hypothesis.name for hypothesis in FORWARD_CATALOGUE}
    problem, left = of_operands(case), max(MOST_CONFIRMED, SMALL // cost.forward(case.geometry))
    for hypothesis in FORWARD_CATALOGUE:
        for variant in hypothesis.variants(problem) if hypothesis.name in names else ():
            if left == 0:
                return
            left -= 1
            if _is_of(case, variant, pool):
                yield Candidate(hypothesis, variant)


def _is_of(case: ConvCase, variant: Variant, pool: Executor) -> bool:
    """Return whether all gradients are those of a variant of the forward pass; the first that is not decides."""
    answers = compared(case, variant, 1.0, None, pool)
    return sum(1 for _ in itertools.takewhile(lambda one: one[1], answers)) == len(case.grads)


def _diagnosis(failed: Failed, function: Candidate) -> Diagnosis:
    count = sum(int(np.count_nonzero(evidence.failing)) for evidence in failed.values())
    return Diagnosis(
        bug=f"the right gradients, but of another function than the declared convolution: {function.bug}",
        evidence=f"the gradients of that function equal {joined(list(failed))}, in which {count:,} entries fail, "
        "within rounding",
        advice=f"if that function is meant, declare it; if not, {function.advice}",
        tensors=tuple(failed),
        explained=1.0,
        residual=0.0,
    )
