"""Operands brought to a common scale by powers of two, so that no intermediate result overflows or underflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.convolutions.case import ConvCase
from fastcheck.engine import magnitudes, steps

_COMFORTABLE = 100
"""An array whose largest entry lies between 2^-100 and 2^100 is used as it is, without a copy."""

_MOST = 900
"""Arrays are scaled by at most 2^900: steps for an array of subnormal numbers scaled to one would leave float64."""

_DEGREE = {"vjp": 1, "square": 2, "relu": 1, "tanh": 1}
"""The loss's power of a scale of the outputs. Tanh has none, so its outputs are not scaled."""


@dataclass(frozen=True)
class ScaledOperands:
    """A case's arrays times powers of two.

    Attributes
    ----------
    input, weight, bias, grad_output : float64 arrays
        The case's arrays, each times 2^-exponent.
    exponents : dict of str to int
        Exponents of ``"input"``, ``"weight"``, ``"bias"`` (which is that of the output too) and ``"grad_output"``.
    """

    input: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    grad_output: np.ndarray
    exponents: dict[str, int]
    _known: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def exponent_of(self, tensor: str, loss: str) -> int:
        """Return the exponent of a gradient: the case's gradient is that of the scaled operands times 2^exponent."""
        outputs = self.exponents["bias"] * _DEGREE[loss]
        return self.exponents["grad_output"] + outputs - self.exponents[tensor]

    def step_of(self, tensor: str, given: float) -> float:
        """Return the step of the scaled operand that corresponds to a step of the case's own.

        Raises
        ------
        FastcheckError
            If the step moves no output, since the bias is so much larger than all products.
        """
        step = float(np.ldexp(given, -self.exponents[tensor]))
        if not step:
            raise FastcheckError(f"step is {given!r}: too small to change any output, because the bias dominates")
        return step

    def cached(self, key: tuple[str, ...], find: Callable[[], Any]) -> Any:
        """Return the value that find() has for a key; it depends on the operands alone, and is found once."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def rms(self, name: str, values: np.ndarray | None = None) -> float:
        """Return `magnitudes.rms` of an operand, or of values that depend on the operands alone; it is found once."""
        return self.cached(("rms", name), lambda: magnitudes.rms(getattr(self, name) if values is None else values))

    @classmethod
    def of(cls, case: ConvCase) -> ScaledOperands:
        """Scale the operands of a case where their size requires it."""
        x, w, v = (_exponent(array) for array in (case.input, case.weight, case.grad_output))
        bias = _largest(case.bias) if case.bias.any() else -math.inf
        if case.loss == "tanh":
            # Tanh depends on the outputs' own scale, unless they are so small that it is linear.
            w = min(-x, _largest(case.weight) + _COMFORTABLE)
            w = -x if bias > x + w - _COMFORTABLE // 2 else w
        elif bias > x + w + 2 * _COMFORTABLE:
            w = _exponent(case.bias) - x  # the bias alone decides the scale of the outputs
        exponents = {"input": x, "weight": w, "bias": x + w, "grad_output": v}
        arrays = {
            name: _scaled(array, exponents[name])
            for name, array in (
                ("input", case.input),
                ("weight", case.weight),
                ("bias", case.bias),
                ("grad_output", case.grad_output),
            )
        }
        return cls(**arrays, exponents=exponents)


def _largest(array: np.ndarray) -> int:
    """Return the exponent of the largest entry, 0 where all are 0."""
    return math.frexp(max(float(array.max()), -float(array.min())))[1]


def _exponent(array: np.ndarray) -> int:
    exponent = _largest(array)
    return steps.within(exponent, _MOST) if abs(exponent) > _COMFORTABLE else 0


def _scaled(array: np.ndarray, exponent: int) -> np.ndarray:
    if not exponent:
        return array
    return np.ldexp(array, -exponent)
