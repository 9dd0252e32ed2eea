"""The gradients of the function that a forward pass with a mistake computes: right ones, of another function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
from fastcheck.engine import random_signs
from fastcheck.engine.magnitudes import rms

_OPERANDS = {"input": "x", "weight": "w", "bias": "bias"}
"""The attributes of a problem that hold a case's operands."""


_LARGE = 2**17
"""Entries of an operand from which its gradient is compared by sums: entry by entry takes much memory."""

_SUMS = 12
"""Sums of a large gradient with random signs: an entry that is wrong is missed with a chance of 2^-12."""


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
    """Return which of a case's gradients are those of what a variant of the forward pass computes.

    None where they are not known: see `compared`, which has the parameters.
    """
    answers = dict(compared(case, variant, factor, output, pool))
    return [name for name, right in answers.items() if right] if len(answers) == len(case.grads) else None


def compared(
    case: ConvCase, variant: Variant, factor: float, output: np.ndarray | None, pool: Executor
) -> Iterator[tuple[str, bool]]:
    """Yield whether each of a case's gradients is that of what a variant of the forward pass computes, rounding aside.

    Gradients of operands that the variant does not only rearrange are not known here: it ends there.

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
    """
    if variant.gradient is not gradient:
        return
    problem = of_operands(case)
    changed = variant.within(variant.before(problem))
    raw = gradient(changed, "output", pool)
    if output is None:
        output = factor * variant.after(raw).reshape(case.geometry.output_shape)
    after = None if variant.slope else _gather(variant.after, raw.shape)
    if after is None and variant.slope is None:
        return
    sloped, most = _cotangents(case, output, _magnitude(changed, pool))
    v, size = (_before(grouped(one, case.geometry.groups), raw, variant, after, factor) for one in (sloped, most))
    changed = replace(changed, sources=())
    for name in case.grads:
        signed = _of_operand(changed.having(v=v), name, pool)
        if case.operand(name).size > _LARGE:
            yield name, _is_right_along_signs(case, variant, name, signed)
            continue
        gather = _gather(_rearrange(case, variant, name), case.operand(name).shape)
        if gather is None:
            return
        bound = gather.back(_of_operand(_sizes(changed).having(v=np.abs(size)), name, pool), True)
        grad = gather.back(signed)
        yield name, bool((np.abs(case.grads[name] - grad) <= _bar(case, name, grad, bound, gather.copies)).all())


def _is_right_along_signs(case: ConvCase, variant: Variant, name: str, changed: np.ndarray) -> bool:
    """Return whether a large gradient has the sums with random signs that it should have.

    The sum of its entries with signs is that of the rearranged operand's gradient with the rearranged signs. Any entry
    that is off by more than twice what rounding allows changes one of two such sums by more than that.
    """
    given, rearrange, allowed = case.grads[name], _rearrange(case, variant, name), _rounding(case, name)
    for number in range(_SUMS):
        drawn = random_signs.signs(0, number, 0, given.size).reshape(given.shape)
        own = math.fsum(float((row * one).sum()) for row, one in zip(given, drawn, strict=True))
        moved = rearrange(drawn.astype(np.float64)).reshape(changed.shape)
        others = math.fsum(float((row * one).sum()) for row, one in zip(changed, moved, strict=True))
        if not abs(own - others) <= allowed:
            return False
    return True


def _rounding(case: ConvCase, name: str) -> float:
    """Return how far a sum of a gradient's entries with random signs may be off by rounding."""
    grad = case.grads[name]
    typical = np.array(rms(grad))
    size = typical * 4 * math.sqrt(_terms(case, name, 1))  # of terms with signs at random, which cancel
    return 8 * math.sqrt(grad.size) * float(_bar(case, name, typical, size, 1))


def _rearrange(case: ConvCase, variant: Variant, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return what a variant does to an operand."""

    def rearranged(operand: np.ndarray) -> np.ndarray:
        other = copy(case)
        setattr(other, name, operand)
        return np.asarray(getattr(variant.within(variant.before(of_operands(other))), _OPERANDS[name]))

    return rearranged


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
    factors = (case.input, case.weight, case.grad_output)
    precision = Precision.of(case.grads[name].dtype, case.declared_precision(f"grad_{name}"), factors)
    return error_bars.forward_bar(grad, magnitude, _terms(case, name, copies), precision)


def _terms(case: ConvCase, name: str, copies: int) -> int:
    """Return the most terms that an entry of a gradient adds up."""
    geometry = case.geometry
    outputs = len(case.grad_output) * int(np.prod(case.grad_output.shape[2:]))
    terms = copies * (geometry.filters // geometry.groups * geometry.taps if name == "input" else outputs)
    return terms + (0 if case.loss == "vjp" else 2 * geometry.terms + 8)  # of the output, where the slope is taken
