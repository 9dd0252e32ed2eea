"""The gradients of the function that a forward pass with a mistake computes: right ones, of another function."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.precision import Precision
from fastcheck.convolutions import error_bars
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import Problem, gradient, grouped, of_operands, slope

_OPERANDS = {"input": "x", "weight": "w", "bias": "bias"}
"""The attributes of a problem that hold a case's operands."""


@dataclass(frozen=True)
class _Gather:
    """A rearrangement of an array: each entry is a multiple of one that was there, or zero.

    Attributes
    ----------
    places : int64 array, flat
        Where each entry comes from.
    factors : float64 array, flat
    shape : tuple of int
        Before it was rearranged.
    """

    places: np.ndarray
    factors: np.ndarray
    shape: Shape

    def back(self, rearranged: np.ndarray, sizes: bool = False) -> np.ndarray:
        """Return the gradient of the array before, from that of the rearranged one; or a bound on its terms' sum."""
        factors = np.abs(self.factors) if sizes else self.factors
        total = np.bincount(self.places, factors * rearranged.reshape(-1), int(np.prod(self.shape)))
        return total.reshape(self.shape)

    @property
    def copies(self) -> int:
        """The most places that an entry is in."""
        return max(1, int(np.bincount(self.places[self.factors != 0], minlength=1).max()))


def right_gradients(
    case: ConvCase, variant: Variant, factor: float, output: np.ndarray | None, pool: Executor
) -> list[str] | None:
    """Return which of a case's gradients are those of what a variant of the forward pass computes, rounding aside.

    Parameters
    ----------
    case : ConvCase
    variant : Variant
        Of the forward pass.
    factor : float
        What the output is multiplied by besides.
    output : array or None
        What the variant computes, where that is known.
    pool : Executor

    Returns
    -------
    list of str or None
        Names, in the order of the case; None where the variant is no rearrangement, so that its gradients are not known
        here.
    """
    if variant.gradient is not gradient:
        return None
    problem = of_operands(case)
    changed = variant.within(variant.before(problem))
    gathers = {name: _gather_of(case, variant, name) for name in case.grads}
    raw = gradient(changed, "output", pool)
    if output is None:
        output = factor * variant.after(raw).reshape(case.geometry.output_shape)
    after = None if variant.slope else _gather(variant.after, raw.shape)
    if any(one is None for one in gathers.values()) or (after is None and variant.slope is None):
        return None
    sloped, most = _cotangents(case, output, _magnitude(changed, pool))
    v, size = (_before(grouped(one, case.geometry.groups), raw, variant, after, factor) for one in (sloped, most))
    changed = replace(changed, sources=())
    signed, sizes = changed.having(v=v), _sizes(changed).having(v=np.abs(size))
    found = list[str]()
    for name, gather in gathers.items():
        assert gather is not None
        grad, bound = gather.back(_of_operand(signed, name, pool)), gather.back(_of_operand(sizes, name, pool), True)
        bar = _bar(case, name, grad, bound, gather.copies)
        found += [name] if (np.abs(case.grads[name] - grad) <= bar).all() else []
    return found


def _gather_of(case: ConvCase, variant: Variant, name: str) -> _Gather | None:
    """Return how a variant rearranges an operand; None where it does not only rearrange it."""

    def rearranged(operand: np.ndarray) -> np.ndarray:
        other = copy(case)
        setattr(other, name, operand)
        return np.asarray(getattr(variant.within(variant.before(of_operands(other))), _OPERANDS[name]))

    return _gather(rearranged, case.operand(name).shape)


def _gather(rearrange: Callable[[np.ndarray], np.ndarray], shape: Shape) -> _Gather | None:
    """Return a linear rearrangement, found by numbering the entries; None where it is none."""
    count = int(np.prod(shape))
    numbered, ones = rearrange(np.arange(1.0, 1 + count).reshape(shape)), rearrange(np.ones(shape))
    factors = np.ascontiguousarray(ones).reshape(-1)
    numbers = np.ascontiguousarray(numbered).reshape(-1) / np.where(factors, factors, 1.0)
    places = np.rint(numbers).astype(np.int64) - 1
    places[factors == 0] = 0
    if not ((places >= 0) & (places < count)).all():
        return None
    trial = np.random.default_rng(0).standard_normal(shape)
    made = np.ascontiguousarray(rearrange(trial)).reshape(-1)
    return _Gather(places, factors, shape) if np.array_equal(made, factors * trial.reshape(-1)[places]) else None


def _before(
    cotangent: np.ndarray, raw: np.ndarray, variant: Variant, after: _Gather | None, factor: float
) -> np.ndarray:
    """Return a cotangent of what a variant does last as that of the convolution's own output."""
    if variant.slope is not None:
        return factor * cotangent * variant.slope(raw)
    assert after is not None
    return factor * after.back(cotangent)


def _cotangents(case: ConvCase, output: np.ndarray, magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cotangent of the output, and a bound on the terms that it is computed from."""
    if case.loss == "vjp":
        return case.grad_output, np.abs(case.grad_output)
    bend = np.ones_like(output) if case.loss == "relu" else np.maximum(1.0, magnitude.reshape(output.shape))
    return case.grad_output * slope(case.loss, output), np.abs(case.grad_output) * bend


def _magnitude(problem: Problem, pool: Executor) -> np.ndarray:
    """Return the sum of the sizes of each output's terms."""
    return gradient(_sizes(problem), "output", pool)


def _sizes(problem: Problem) -> Problem:
    return replace(
        problem, big=np.abs(problem.big), small=np.abs(problem.small), w=np.abs(problem.w), bias=np.abs(problem.bias)
    )


def _of_operand(problem: Problem, name: str, pool: Executor) -> np.ndarray:
    """Return the gradient of a rearranged operand; that of the bias is of every output's own."""
    return problem.v if name == "bias" else gradient(problem, name, pool)


def _bar(case: ConvCase, name: str, grad: np.ndarray, magnitude: np.ndarray, copies: int) -> np.ndarray:
    geometry = case.geometry
    outputs = len(case.grad_output) * int(np.prod(case.grad_output.shape[2:]))
    terms = copies * (geometry.filters // geometry.groups * geometry.taps if name == "input" else outputs)
    terms += 0 if case.loss == "vjp" else 2 * geometry.terms + 8  # of the output, at which the slope is taken
    factors = (case.input, case.weight, case.grad_output)
    declared = case.declared_precision(f"grad_{name}")
    return error_bars.forward_bar(grad, magnitude, terms, Precision.of(case.grads[name].dtype, declared, factors))
