"""Operands brought to a common scale by powers of two, so that nothing in between overflows or underflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck import step
from fastcheck.cases.conv import ConvCase

_COMFORTABLE = 100
"""An array whose largest entry is within 2^-100 and 2^100 is left as it is, and not copied."""


@dataclass(frozen=True)
class ScaledOperands:
    """A case's arrays times powers of two.

    Attributes
    ----------
    input, weight, bias, grad_output : float64 arrays
        Each is the case's own times 2^-exponent.
    exponents : dict of str to int
        Of ``"input"``, ``"weight"``, ``"bias"`` (which is that of the output) and ``"grad_output"``.
    """

    input: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    grad_output: np.ndarray
    exponents: dict[str, int]
    _known: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: tuple[str, ...], find: Callable[[], Any]) -> Any:
        """Return what is known of the operands under a key, and find it first where nothing is."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def rms(self, name: str, values: np.ndarray | None = None) -> float:
        """Return `fastcheck.step.rms` of an operand, or of values that the operands alone decide: found once."""
        found: float = self.once(("rms", name), lambda: step.rms(getattr(self, name) if values is None else values))
        return found

    @classmethod
    def of(cls, case: ConvCase) -> ScaledOperands:
        """Scale the operands of a case where their size asks for it."""
        x, w, v = (_exponent(array) for array in (case.input, case.weight, case.grad_output))
        if case.loss != "vjp":
            x = w = 0  # of a curved loss the outputs' own scale matters
        if case.bias.any() and math.frexp(float(np.abs(case.bias).max()))[1] > x + w + 2 * _COMFORTABLE:
            x = w = 0  # the bias decides the scale of the outputs: scaled with the others it would overflow
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


def _exponent(array: np.ndarray) -> int:
    largest = max(float(array.max()), -float(array.min()))
    exponent = math.frexp(largest)[1]
    return exponent if largest > 0 and abs(exponent) > _COMFORTABLE else 0


def _scaled(array: np.ndarray, exponent: int) -> np.ndarray:
    if not exponent:
        return array
    scaled: np.ndarray = np.ldexp(array, -exponent)
    return scaled
