"""The comparison of a declared loss with the computed one, before any gradient is checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastcheck.common.arrays import floating, is_tensor
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import quoted
from fastcheck.common.precision import UNITS, U
from fastcheck.networks.error_bars import SAFETY, Baseline
from fastcheck.networks.network import Penalty
from fastcheck.reports.tensor_report import ForwardReport


def compared(loss: Any, baseline: Baseline, penalties: Mapping[str, Penalty], precision: str | None) -> ForwardReport:
    """Compare a declared loss with the data points' loss, and with the whole objective.

    Parameters
    ----------
    loss : float, or tensor of one
    baseline : Baseline
    penalties : mapping of str to Penalty
    precision : str or None
        Precision of the declared loss. Without it, a loss that float32 can hold counts as float32's.

    Raises
    ------
    FastcheckError
        If the declared loss is not a number.
    """
    if is_tensor(loss):  # which may have a gradient, and a type that a number does not show
        loss, given = floating("loss", loss)
        precision = precision or (given if given == "bfloat16" else None)
    try:
        declared = float(loss)
    except (TypeError, ValueError, OverflowError):
        raise FastcheckError(f"loss is {quoted(loss)}: expected the number that your forward pass returned") from None
    if not math.isfinite(declared):
        attempt = "look for a logarithm of zero, a division by zero or an overflow in the forward pass"
        evidence = f"the declared loss is {declared}; the computed one is {baseline.passes.loss():.9g}"
        diagnosis = {"bug": "a loss that is not finite", "evidence": evidence, "try": attempt}
        return ForwardReport("fail", math.inf, diagnosis)
    data, penalty = baseline.passes.loss(), regularisation(baseline, penalties)
    unit = UNITS[precision or ("float32" if _of_float32(loss, declared) else "float64")]
    bar = 4 * SAFETY * baseline.roundoff.evaluated * unit / U + 64 * unit * (abs(data) + abs(penalty))
    nearest = min((data, data + penalty), key=lambda value: abs(declared - value))
    apart = abs(declared - nearest)
    ratio = apart / abs(declared + nearest) if declared + nearest else (math.inf if apart else 0.0)
    if apart <= bar:
        return ForwardReport("pass", ratio, None)
    for bug, value, attempt in _mistakes(baseline, data, penalty):
        if abs(declared - value) <= bar:
            evidence = f"the declared loss, {declared:.9g}, is that of {bug}; the computed one is {nearest:.9g}"
            return ForwardReport("fail", ratio, {"bug": bug, "evidence": evidence, "try": attempt})
    message = (
        f"the declared loss, {declared:.9g}, differs from the computed one, {nearest:.9g}, by more than rounding, "
        f"{bar:.1g}"
    )
    attempt = "compare the layers' outputs one by one: the two networks are different functions"
    return ForwardReport("fail", ratio, {"bug": "another function", "evidence": message, "try": attempt})


def _of_float32(loss: Any, declared: float) -> bool:
    """Return whether a loss was computed in float32: by its type, or by low bits that hardly vanish in float64."""
    if isinstance(loss, (np.float32, np.float16)):
        return True
    significand, _ = math.frexp(declared)
    return declared != 0 and significand * 2**24 % 1 == 0 and significand * 2**10 % 1 != 0


def regularisation(baseline: Baseline, penalties: Mapping[str, Penalty]) -> float:
    """Return the regularisation's part of the objective; infinity where it overflows."""
    params = baseline.passes.point.params
    with np.errstate(over="ignore"):
        parts = [
            penalty.l2 / 2 * float((params[name] ** 2).sum()) + penalty.l1 * float(np.abs(params[name]).sum())
            for name, penalty in penalties.items()
        ]
    try:
        return math.fsum(parts)
    except OverflowError:
        return math.inf


def _mistakes(baseline: Baseline, data: float, penalty: float) -> Iterator[tuple[str, float, str]]:
    """Yield likely mistakes: a name, the loss that the mistake gives, and what to do."""
    points = len(baseline.passes.point.x)
    whole = "mean" if baseline.passes.point.network.reduction == "mean" else "sum"
    scale, other = (points, "sum") if whole == "mean" else (1 / points, "mean")
    reduce = f"set reduction={other!r}, or take the {whole} as the network does"
    yield f"the {other} over data points where the network takes the {whole}", scale * data, reduce
    yield f"the {other} over data points where the network takes the {whole}", scale * data + penalty, reduce
    half = "the regularisation here is l2 / 2 * sum(w^2): double l2, or halve yours"
    yield "regularisation without its factor of a half", data + 2 * penalty, half
    yield "half of the regularisation", data + penalty / 2, half
    yield "a loss twice as large", 2 * data, "look for a factor of two (a squared error is halved here)"
    yield "half the loss", data / 2, "look for a factor of two (a squared error is halved here)"
    yield "logarithms to base 2", data / math.log(2), "use natural logarithms"
