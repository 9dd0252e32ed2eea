"""Whether a complex gradient is right under the other convention: the most common mistake is a missing conjugate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from fastcheck.functions.along import LossOfArrays
from fastcheck.functions.state import Arrays
from fastcheck.functions.vjp import Vjp
from fastcheck.metrics import vjp_health
from fastcheck.metrics.health import HealthFinding

LINES = 3
"""Lines along which both gradients are compared with a difference quotient."""

STEP = 2.0**-17
"""Move of each entry, as a fraction of a typical one: about the cube root of a rounding."""

FAR, NEAR = 1e-3, 1e-5
"""Fractions of a slope's size: a gradient that is off by more is wrong, by less probably right."""


def other_convention(
    case: LossOfArrays, grads: Arrays, vjp: Vjp, read: Callable[[Any], Arrays]
) -> Iterator[HealthFinding]:
    """Yield a finding if a complex gradient is wrong, and right under the other convention.

    Parameters
    ----------
    case : LossOfArrays
    grads : dict of str to array
        Its gradient.
    vjp : Vjp
        The same functions under the other convention.
    read : callable
        Takes gradients as `Vjp.gradients` returns them, and returns arrays.
    """
    with suppress(Exception):  # of a backward that raises for this cotangent
        call = vjp.backpropagated(vjp.inputs.arrays, vjp.cotangent)
        if _explains(case, grads, read(vjp.gradients(call.returned))):
            yield vjp_health.other_convention(vjp.convention)


def _explains(case: LossOfArrays, grads: Arrays, others: Arrays) -> bool:
    """Whether other gradients are near the difference quotients along lines, from which the case's own are far."""
    rng = np.random.default_rng(LINES)
    for _ in range(LINES):
        line = {name: rng.choice([-1.0, 1.0], array.shape) * case.size(name) for name, array in case.params.items()}
        quotient = _quotient(case, line)
        size = math.sqrt(sum(np.sum((step * grads[name]) ** 2) for name, step in line.items()))
        own, other = (abs(quotient - _slope(gradients, line)) for gradients in (grads, others))
        if not (own > FAR * size and other < NEAR * size):
            return False
    return True


def _quotient(case: LossOfArrays, line: Arrays) -> float:
    """Return the two-sided difference quotient along a line."""
    ends = [{name: array + side * STEP * line[name] for name, array in case.params.items()} for side in (1, -1)]
    right, left = (case.value(end, lambda: "near the start point") for end in ends)
    return (right - left) / (2 * STEP)


def _slope(gradients: Arrays, line: Arrays) -> float:
    return float(sum(np.sum(step * gradients[name]) for name, step in line.items()))
