"""The rounding noise of a user's loss and of its analytic gradient, measured along seeded directions."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.precision import SMALLEST, UNITS, U, fits_bits
from fastcheck.functions import ecnoise
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES as NOISES_OF_VALUES

LOSS_SPACINGS = tuple(2.0**-k for k in (46, 41, 30, 22, 13, 10, 7))
"""Spacings of neighbouring samples, as fractions of the entries: tens of roundings of float64, then thousands, with
few kinks in between. The larger ones are for losses that round their argument."""

LOSS_SAMPLES = 9
"""Samples along each direction: the largest number that Moré and Wild recommend."""

DIRECTIONS = 2
"""Directions in which a tensor is perturbed, each to both sides, since a unit may be flat on one; the largest noise
counts. One is enough for a tensor of a function with many parameters."""

UNKNOWN = 2.0**-64
"""First spacing for a tensor of zeros, whose scale is unknown."""

GRADIENT_SPACINGS = (2.0**-46, 2.0**-40, 2.0**-22)
"""Spacings for the gradient, as fractions of the entries. The last is for a gradient computed in float32: even its
parameters then differ by whole roundings."""

HALF_SPACINGS = (2.0**-13, 2.0**-10, 2.0**-7)
"""Further spacings for a gradient computed in half precision. Any other would meet kinks at these."""

GRADIENT_SAMPLES = 7
"""Calls of the gradient for each spacing: the smallest number that Moré and Wild recommend."""

NOISES = 20.0
"""Standard deviations by which an entry of the gradient may be off. Its noise is estimated from seven samples only, and
roundings that are the same in all of them (those of data) stay hidden: they are assumed to be as large again."""

HALF_NOISES = 15.0
"""The same for a function in half precision, which rounds its argument: that exposes every rounding, and its noise is
measured on both sides."""

UNMEASURED = 3.0
"""Further factor where the gradient is an array, whose noise cannot be measured. With it, correct gradients of
attention and recurrent layers in float32 and in half precision came to at most 0.95 of their bars, in 5,000 cases
(`tests/helpers/hard_functions.py`)."""

SHARED, SHARED_HALF = 1 / 12, 1 / 6
"""Smallest size of the terms of an array's entries, as a fraction of the largest change of the loss: what a backward
pass carries from one tensor to the next is larger than what remains of it in some. The second is for half precision,
where this matters more."""

_SINGLE = UNITS["float32"]


@dataclass(frozen=True)
class Noise:
    """The rounding of a loss where a tensor is perturbed: of each of its terms, or of its value.

    Attributes
    ----------
    each : float64 array
        Standard deviations, 0 where none shows; without axes where the loss is one number.
    declared : float64 array
        Declared bounds on errors, of the same shape.
    """

    each: np.ndarray
    declared: np.ndarray

    @functools.cached_property
    def whole(self) -> float:
        """The standard deviation of the loss's rounding where all terms move."""
        return self._of(self.each, self.declared)

    def of(self, moving: np.ndarray) -> float:
        """Return the standard deviation where some terms move: the others cancel in a difference."""
        return self._of(self.each[moving], self.declared[moving])

    def moved(self, terms: np.ndarray, which: Any = ...) -> np.ndarray:
        """Return which terms changed by more than their rounding, which an FFT, say, spreads over all of them.

        Parameters
        ----------
        terms : float64 array
            Changes of some terms, or of all.
        which : int64 array, optional
            Their positions.
        """
        moved: np.ndarray = ~(np.abs(terms) <= NOISES_OF_VALUES * self.each[which] + 2 * self.declared[which])
        return moved

    @staticmethod
    def _of(each: np.ndarray, declared: np.ndarray) -> float:
        largest = float(each.max(initial=0.0)) or 1.0  # divided by before squaring, so that nothing overflows
        return max(largest * float(np.linalg.norm(each / largest)), float(declared.sum()) / NOISES_OF_VALUES)


def of_loss(case: FunctionCase, name: str, seed: int) -> Noise:
    """Measure the loss's rounding where a tensor is perturbed.

    It bounds the noise in the differences of one dimension: perturbing one entry changes fewer roundings than
    perturbing all.
    """
    count = 1 if case.has_many else DIRECTIONS
    return _of_loss(case, [name], np.random.default_rng([seed, *name.encode()]), count)


def of_loss_where_all_move(case: FunctionCase, seed: int) -> Noise:
    """Measure the loss's rounding where all tensors are perturbed, along one direction: it bounds that of each."""
    return _of_loss(case, list(case.params), np.random.default_rng(seed), 1)


def _of_loss(case: FunctionCase, names: Sequence[str], rng: np.random.Generator, count: int) -> Noise:
    arrays = case.copies()
    zeros = not any(case.params[name].any() for name in names)
    spacings = (UNKNOWN, *LOSS_SPACINGS) if zeros else LOSS_SPACINGS
    each, seen = case.least_noise, list[np.ndarray]()
    for _ in range(count):
        direction = {name: _direction(case, name, rng) for name in names}
        for sign in (1, -1):

            def sample(distance: float, sign: int = sign, direction: Arrays = direction) -> np.ndarray:
                _move(case, arrays, direction, sign * distance)
                values = case.sample(arrays, lambda: _away(case, names[0]))
                seen.extend([values] * (values.ndim == 0))
                return values

            each = np.fmax(each, ecnoise.measured(sample, LOSS_SAMPLES, spacings, more=1))
    if each.ndim == 0:
        return Noise(np.fmax(each, _rounding(np.array(seen))), case.declared_errors)
    for part, sizes in case.parts():
        with np.errstate(divide="ignore"):
            each[part] = np.fmax(each[part], _typical(each[part], 1 / sizes))
    return Noise(each, case.declared_errors)


def _rounding(values: np.ndarray) -> float:
    """Return the rounding of values that are float32 numbers; 0 where they need more bits, or as few as counts do.

    With a large constant added, such a loss may be the same number at all samples, which then show no noise.
    """
    values = values[np.isfinite(values)]
    return float(np.abs(values).max(initial=0.0)) * _SINGLE / math.sqrt(3) if _is_single(values) else 0.0


def of_gradient(case: FunctionCase, seed: int) -> dict[str, np.ndarray]:
    """Return a bound on the rounding of every entry of the analytic gradient.

    It has the unit round-off of the gradient's arithmetic, relative to the entry or to a typical one; and, where the
    gradient is a function, the noise of that function, of the entry itself or of a typical one.

    Returns
    -------
    dict of str to float64 array
        Shaped as params.
    """
    measured: Arrays = {}
    if case.has_function:
        measured = _pooled_noise(case, seed) if case.is_large else _gradient_noise(case, seed)
    return {name: _bound(case, name, measured.get(name)) + 2 * case.wavering[name] for name in case.grads}


def _bound(case: FunctionCase, name: str, measured: np.ndarray | None) -> np.ndarray:
    grad = case.grads[name]
    values = np.where(np.isfinite(grad), np.abs(grad.astype(np.float64)), 0.0)
    reach = _reach(case, name, values)
    result = case.half_unit(name)
    # Of an array only the type is known: any intermediate result may be rounded to it.
    unit = max(_unit(grad, case.declared_precision(name)), result if measured is None else 0.0)
    deviation = unit * np.maximum(values, _typical(values, reach))
    if measured is None:
        shared = (SHARED_HALF if result else SHARED) * case.promised / case.size(name)
        bound = NOISES * UNMEASURED * np.maximum(deviation, unit * shared)
    else:
        measured = np.where(np.isfinite(measured), measured, 0.0)
        deviation = np.maximum(deviation, np.maximum(measured, _typical(measured, reach)))
        bound = (HALF_NOISES if result else NOISES) * deviation
        if unit > U:  # behind a saturated unit, roundings are large, and the same at all samples
            bound = np.maximum(bound, NOISES * unit * case.carried / case.size(name))
    return bound + result * values + SMALLEST[case.precision_of(name)]


def _reach(case: FunctionCase, name: str, slopes: np.ndarray) -> np.ndarray:
    """Return the scale on which each entry moves.

    That is the typical size; for a small entry its own size; for a zero, the move that changes the loss as much as
    other entries do.
    """
    size, own = case.size(name), np.abs(case.params[name])
    with np.errstate(all="ignore"):
        guessed = np.where(slopes > 0, np.fmin(size, case.promised / slopes), size)
    return np.where(case.small(name), np.where(own > 0, own, guessed), size)


def _typical(values: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return a typical size for every entry: the root mean square of the values, or of their effects on the loss.

    The second, the root mean square of value * reach divided by the entry's own reach, is invariant under rescaling
    of entries. Where all entries have one scale, both are the same; otherwise the smaller one counts.
    """
    with np.errstate(all="ignore"):  # sizes at the ends of the range of numbers
        scaled = _mean(values * reach) / reach
    return np.fmin(scaled, _mean(values))


def _unit(grad: np.ndarray, precision: str | None) -> float:
    """Return the unit round-off of the arithmetic behind an array: half precision is assumed to be summed in float32.

    float64 numbers that fit float32, and need more of its bits than counts and half precision do, are attributed to
    float32.
    """
    if precision is not None:
        return U if precision == "float64" else _SINGLE
    return unit_of_values(grad)


def unit_of_values(values: np.ndarray) -> float:
    """Return the unit round-off that the type of an array, or its values, show."""
    if values.dtype != np.float64:
        return _SINGLE
    return _SINGLE if _is_single(values[np.isfinite(values)]) else U


def _is_single(values: np.ndarray) -> bool:
    return fits_bits(values, 24) and not fits_bits(values, 18)


def _half(case: FunctionCase, name: str) -> bool:
    """Return whether a gradient has half precision, by its type or by its values."""
    grad = case.grads[name]
    values = grad[np.isfinite(grad)].astype(np.float64)
    return case.half_unit(name) > 0 or (fits_bits(values, 11) and not fits_bits(values, 5))


def _mean(values: np.ndarray) -> float:
    """Return the root mean square, without overflow."""
    largest = float(values.max())
    if not math.isfinite(largest):
        return math.inf
    return largest * math.sqrt(float(np.mean((values / largest) ** 2))) if largest else 0.0


def _gradient_noise(case: FunctionCase, seed: int) -> dict[str, np.ndarray]:
    arrays = case.copies()
    rng = np.random.default_rng(seed)
    directions = {name: _direction(case, name, rng) for name in case.params}
    total = sum(array.size for array in case.params.values())

    def sample(distance: float, side: float = 1.0) -> np.ndarray:
        _move(case, arrays, directions, side * distance)
        grads = case.gradient(arrays)
        if grads is None:
            return np.full(total, np.nan)
        return np.concatenate([grads[name].astype(np.float64).ravel() for name in case.params])

    half = any(_half(case, name) for name in case.grads)
    spacings = GRADIENT_SPACINGS + HALF_SPACINGS * half
    flat = ecnoise.measured(sample, GRADIENT_SAMPLES, spacings, rounded=half)
    if half or np.isnan(flat).all():  # few roundings, or outside its domain
        back = ecnoise.measured(lambda distance: sample(distance, -1.0), GRADIENT_SAMPLES, spacings, rounded=half)
        flat = np.where(np.isnan(flat + back), np.fmax(flat, back), np.hypot(flat, back) / math.sqrt(2))
    ends = np.cumsum([array.size for array in case.params.values()])[:-1]
    parts = zip(case.params.items(), np.split(flat, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


def _pooled_noise(case: FunctionCase, seed: int) -> dict[str, np.ndarray]:
    """Estimate the noise of a large gradient from its second differences alone, with two calls for each spacing.

    An entry's own estimate has one sample; that of a typical entry, from all of them, is sharp.
    """
    arrays, rng = case.copies(), np.random.default_rng(seed)
    directions = {name: _direction(case, name, rng) for name in case.params}
    half = any(_half(case, name) for name in case.grads)
    for spacing in GRADIENT_SPACINGS + HALF_SPACINGS * half:
        sides = []
        for side in (spacing, -spacing):
            _move(case, arrays, directions, side)
            grads = case.gradient(arrays)
            if grads is None:
                return {}
            sides.append(grads)
        differing = sum(np.count_nonzero(sides[0][name] != sides[1][name]) for name in case.params)
        if differing > sum(grad.size for grad in case.grads.values()) / 2:
            break
    return {
        name: np.abs(np.float64(sides[0][name]) + sides[1][name] - 2 * np.float64(grad)) / math.sqrt(6)
        for name, grad in case.grads.items()
    }


def _direction(case: FunctionCase, name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a seeded direction that moves every entry by between half of its own size and all of it.

    Zeros stay, unless all entries are zero, so that none leaves a domain that ends there. The lengths vary, since
    equal ones may lie in step with roundings.
    """
    values = case.params[name]
    sizes = np.abs(values) if values.any() else np.full(values.shape, case.size(name))
    return sizes * rng.uniform(0.5, 1.0, values.shape) * rng.choice([-1.0, 1.0], values.shape)


def _move(case: FunctionCase, arrays: Arrays, directions: Arrays, distance: float) -> None:
    with np.errstate(over="ignore"):  # the loss is refused where it is not finite there
        for name, direction in directions.items():
            arrays[name][...] = case.params[name] + distance * direction


def _away(case: FunctionCase, name: str) -> str:
    return f"where its noise is measured, at slightly perturbed {case.label(name)}"
