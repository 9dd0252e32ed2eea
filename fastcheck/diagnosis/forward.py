"""What a forward pass did that differs from the declared convolution, and which function the gradients belong to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from copy import copy
from dataclasses import replace

import numpy as np

from fastcheck.common import machine
from fastcheck.common.precision import narrow_type
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.forward import Outputs
from fastcheck.diagnosis.evidence import Diagnosis, Evidence
from fastcheck.diagnosis.fitted import fitted, is_in_part
from fastcheck.diagnosis.forward_catalogue import FORWARD_CATALOGUE, OUTPUT
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import of_operands
from fastcheck.diagnosis.shape import described
from fastcheck.diagnosis.trial import Trial, diagnosed
from fastcheck.diagnosis.variant_vjp import right_gradients
from fastcheck.reports.layout import joined
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import UNKNOWN

_COMFORTABLE = 100
"""Outputs whose largest entry lies between 2^-100 and 2^100 are compared as they are: their squares do not overflow."""

_IN_OUTPUTS = (
    ("this gradient", "the output"),
    ("the gradient", "the output"),
    ("a gradient", "an output"),
    ("gradients", "values"),
    ("backward", "forward"),
)
"""What patterns say of a gradient, and of an output."""

Function = tuple[str, Variant, float]
"""What a forward pass may compute: the bug in words, the variant, and a factor of its output."""


def explained(case: ConvCase, report: Report, counts: dict[str, float]) -> Report:
    """Return a report with what the forward pass did, where the declared output differs."""
    if report.forward is None or report.forward.passed:
        return report
    with ThreadPoolExecutor(machine.default_threads()) as pool, np.errstate(all="ignore"):
        words = _in_words(Outputs.of(case, pool), counts, pool)
    return replace(report, forward=replace(report.forward, diagnosis=words))


def _in_words(outputs: Outputs, counts: dict[str, float], pool: Executor) -> dict[str, str]:
    evidence, case = _scaled(outputs)
    problem = of_operands(case)
    trials = [Trial(case, problem, evidence, pool, FORWARD_CATALOGUE)]
    replayed = list(diagnosed(trials, FORWARD_CATALOGUE))
    functions = [
        (one.candidate.bug, one.candidate.variant, one.candidate.factor) for _, fits in replayed for one in fits
    ]
    patterns = [_of_output(one) for one in fitted({OUTPUT: evidence}, counts=counts)]
    found = sorted([*(one for one, _ in replayed), *patterns], key=is_in_part)
    scale = _scale(evidence)
    if not functions and scale:
        functions.append((found[0].bug if found else f"the output is multiplied by {scale:.6g}", Variant(), scale))
    words = _named(found, outputs) if found else _rounded(outputs) or _unknown(outputs)
    belongs, bug = _of_gradients(outputs, functions, pool)
    if bug:
        words = _named(sorted(found, key=lambda one: one.bug != bug), outputs)
    shape = described(evidence, case.geometry.axis_names)
    return words | {"shape": shape, "gradients": belongs}


def _scaled(outputs: Outputs) -> tuple[Evidence, ConvCase]:
    """Return the outputs as evidence, and their case; those of an extreme size times a power of two."""
    case, arrays = outputs.case, (outputs.declared, outputs.computed, outputs.bar())
    exponent = math.frexp(max(float(np.abs(one).max()) for one in arrays[:2]))[1]
    if abs(exponent) > _COMFORTABLE:
        case = copy(case)
        case.input, case.bias = np.ldexp(case.input, -exponent), np.ldexp(case.bias, -exponent)
        arrays = tuple(np.ldexp(one, -exponent) for one in arrays)
    declared, computed, bar = arrays
    return Evidence(OUTPUT, declared, np.arange(declared.size), computed.reshape(-1), bar.reshape(-1)), case


def _of_output(pattern: Diagnosis) -> Diagnosis:
    """Return a pattern of any array in the words of an output."""
    bug, advice = pattern.bug, pattern.advice
    for old, new in _IN_OUTPUTS:
        bug, advice = bug.replace(old, new), advice.replace(old, new)
    return pattern._replace(bug=bug, advice=advice)


def _named(found: Sequence[Diagnosis], outputs: Outputs) -> dict[str, str]:
    first, *others = found
    evidence = f"{first.evidence}; the difference is {outputs.largest()}"
    if others:
        evidence += f"; the same array comes of: {'; '.join(one.bug for one in others)}"
    return {"bug": first.bug, "evidence": evidence, "try": first.advice}


def _unknown(outputs: Outputs) -> dict[str, str]:
    return outputs.unnamed() | {"bug": UNKNOWN}


def _rounded(outputs: Outputs) -> dict[str, str] | None:
    """Return what is said where the output is stored, and rounded, as in a coarser precision than was expected."""
    apart, name = np.abs(outputs.declared - outputs.computed), narrow_type(outputs.declared, outputs.precision)
    if name and (apart <= outputs.bar(name)).all():
        return {
            "bug": f"the output differs as rounding in {name} would, and {outputs.precision} was expected",
            "evidence": f"all values are {name}'s, which explains the difference, {outputs.largest()}",
            "try": f"if it was computed so, give precision='{name}' (--precision {name})",
        }
    return None


def _scale(evidence: Evidence) -> float:
    """Return the factor of the whole output; 0 where there is none."""
    declared, computed = evidence.analytic.reshape(-1), evidence.numeric
    size = float(np.vdot(computed, computed))
    scale = float(np.vdot(computed, declared)) / size if size else 0.0
    apart = np.abs(declared - scale * computed)
    return scale if (apart <= max(1.0, abs(scale)) * evidence.error_bar).all() else 0.0


def _of_gradients(outputs: Outputs, functions: Sequence[Function], pool: Executor) -> tuple[str, str]:
    """Return which function's gradients were given, in words, and the bug by which that function is known."""
    case = outputs.case
    names = list(case.grads)
    of_declared = right_gradients(case, Variant(), 1.0, outputs.computed, pool) or []
    bug, of_own = max(_owners(outputs, functions, pool), key=lambda one: len(one[1]), default=("", None))
    if of_own is None:
        return _of_one(names, of_declared), ""
    if of_own == of_declared == names:
        return f"{_given(names)} right for both functions", bug
    if of_own == names:
        return f"{_given(names)} right for what the forward pass computes: declare that, or change both passes", bug
    if of_declared == names:
        return _of_one(names, of_declared), ""
    return _neither(names, of_own, of_declared), bug


def _owners(outputs: Outputs, functions: Sequence[Function], pool: Executor) -> Iterator[tuple[str, list[str]]]:
    for bug, variant, factor in functions:
        own = right_gradients(outputs.case, variant, factor, outputs.declared, pool)
        if own is not None:
            yield bug, own


def _given(names: Sequence[str]) -> str:
    several = len(names) > 1
    return f"the gradient{'s' * several} of {joined(names)} {'are' if several else 'is'}"


def _of_one(names: Sequence[str], right: Sequence[str]) -> str:
    """Return which gradients are those of the declared convolution."""
    if list(right) == list(names):
        words = "those" if len(names) > 1 else "that"
        return f"{_given(names)} {words} of the declared convolution: only the forward pass differs"
    wrong = [name for name in names if name not in right]
    also = f", and {_given(right)}" if right else ""
    return f"{_given(wrong)} not of the declared convolution either{also}"


def _neither(names: Sequence[str], of_own: Sequence[str], of_declared: Sequence[str]) -> str:
    """Return which gradients belong to which function, where not all belong to one."""
    own = [name for name in of_own if name not in of_declared]
    declared = [name for name in of_declared if name not in of_own]
    parts = [
        f"{_given(own)} right for what the forward pass computes" if own else "",
        f"{_given(declared)} right for the declared convolution" if declared else "",
    ]
    wrong = [name for name in names if name not in of_own and name not in of_declared]
    return "; ".join([*filter(None, parts), *([f"{_given(wrong)} right for neither"] if wrong else [])])
