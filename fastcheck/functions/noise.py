"""What rounding does to a user's loss and to the analytic gradient, measured along seeded directions."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.common.precision import SMALLEST, UNITS, U
from fastcheck.functions import ecnoise
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES as NOISES_OF_VALUES

LOSS_SPACINGS = tuple(2.0**-k for k in (46, 41, 30, 22, 13, 10, 7))
"""Fractions of the entries by which neighbouring samples are apart: tens of roundings of float64, then thousands, and
few kinks. Larger ones are for losses that round their argument."""

LOSS_SAMPLES = 9
"""Samples along each direction, and the number that Moré and Wild recommend at most."""

DIRECTIONS = 2
"""Directions in which a tensor is moved, forth and back, since a unit may be flat on one side; the largest noise
counts."""

UNKNOWN = 2.0**-64
"""The first spacing for a tensor of zeros, whose scale is not known."""

GRADIENT_SPACINGS = (2.0**-46, 2.0**-40, 2.0**-22)
"""The last for a gradient that is computed in float32: there even its parameters differ by roundings."""

HALF_SPACINGS = (2.0**-13, 2.0**-10, 2.0**-7)
"""More for one that is computed in half precision. Others would meet kinks at these."""

GRADIENT_SAMPLES = 7
"""Calls of the gradient for each spacing, the least that Moré and Wild recommend."""

NOISES = 20.0
"""Standard deviations that an entry of the gradient may be off by. Its noise is known from seven samples only, and
roundings that are the same at all of them (those of data) are not seen: they are taken to be as large again."""

HALF_NOISES = 15.0
"""The same of a function in half precision: it rounds its argument, which shows all, and is measured to both sides."""

UNMEASURED = 3.0
"""Times as many where the gradient is an array, whose noise cannot be measured: correct ones of attention and recurrent
layers, in float32 and in halves, came to 0.95 of their bars with this in 5,000 (`tests/helpers/hard_functions.py`)."""

SHARED, SHARED_HALF = 1 / 12, 1 / 6
"""Part of the largest change of the loss that an array's entries are taken to be sums of, at least: what a backward
pass carries from one tensor to the next is larger than what is left of it in some. In half precision that counts."""

_SINGLE = UNITS["float32"]


def of_loss(case: FunctionCase, name: str, seed: int) -> float:
    """Return the standard deviation of the loss's rounding where a tensor is moved, 0 where nothing is seen of it.

    The differences of a dimension meet no more of it: moving one entry changes fewer roundings than moving all.
    """
    arrays = case.copies()
    rng = np.random.default_rng([seed, *name.encode()])
    spacings = LOSS_SPACINGS if case.params[name].any() else (UNKNOWN, *LOSS_SPACINGS)
    levels, seen = [case.scatter, case.accuracy / NOISES_OF_VALUES], list[float]()
    for _ in range(DIRECTIONS):
        direction = _direction(case, name, rng)
        for side in (direction, -direction):

            def sample(distance: float, side: np.ndarray = side) -> np.ndarray:
                _move(case, arrays, {name: side}, distance)
                seen.append(case.value(arrays, lambda: _away(case, name)))
                return np.array(seen[-1])

            levels.append(float(ecnoise.measured(sample, LOSS_SAMPLES, spacings, more=1)))
    return max(*(level for level in levels if not math.isnan(level)), _rounding(np.array(seen)))


def _rounding(values: np.ndarray) -> float:
    """Return the deviation that values in float32 have, 0 where they use more bits, or as few as counts do.

    Beside a large constant such a loss may be the same number wherever it was sampled.
    """
    values = values[np.isfinite(values)]
    return float(np.abs(values).max(initial=0.0)) * _SINGLE / math.sqrt(3) if _is_single(values) else 0.0


def of_gradient(case: FunctionCase, seed: int) -> dict[str, np.ndarray]:
    """Return a bound on what rounding does to every entry of the analytic gradient.

    The unit round-off of its arithmetic, relative to the entry or to a typical one; and, where the gradient is a
    function, the noise of that function, the entry's own or a typical one.

    Returns
    -------
    dict of str to float64 array
        Shaped as params.
    """
    measured = _gradient_noise(case, seed) if case.has_function else {}
    return {name: _bound(case, name, measured.get(name)) + 2 * case.wavering[name] for name in case.grads}


def _bound(case: FunctionCase, name: str, measured: np.ndarray | None) -> np.ndarray:
    grad = case.grads[name]
    values = np.where(np.isfinite(grad), np.abs(grad.astype(np.float64)), 0.0)
    reach = _reach(case, name, values)
    result = case.half_unit(name)
    # Of arrays nothing is known but their type: every rounding on the way may be one of it.
    unit = max(_unit(grad, case.precision), result if measured is None else 0.0)
    deviation = unit * np.maximum(values, _typical(values, reach))
    if measured is None:
        shared = (SHARED_HALF if result else SHARED) * case.promised / case.size(name)
        bound = NOISES * UNMEASURED * np.maximum(deviation, unit * shared)
    else:
        measured = np.where(np.isfinite(measured), measured, 0.0)
        deviation = np.maximum(deviation, np.maximum(measured, _typical(measured, reach)))
        bound = (HALF_NOISES if result else NOISES) * deviation
    found: np.ndarray = bound + result * values + SMALLEST[case.precision_of(name)]
    return found


def _reach(case: FunctionCase, name: str, slopes: np.ndarray) -> np.ndarray:
    """Return how far entries move, those that are small by themselves; zeros as far as others change the loss."""
    size, own = case.size(name), np.abs(case.params[name])
    with np.errstate(all="ignore"):
        guessed = np.where(slopes > 0, np.fmin(size, case.promised / slopes), size)
    found: np.ndarray = np.where(case.small(name), np.where(own > 0, own, guessed), size)
    return found


def _typical(values: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return a typical size for every entry: the root mean square, of the values or of what they do to the loss.

    The second, value times reach over the entry's own reach, does not change when entries are rescaled. Where all have
    one scale both are alike; else the smaller one counts.
    """
    with np.errstate(all="ignore"):  # sizes at the ends of the range of numbers
        scaled = _mean(values * reach) / reach
    found: np.ndarray = np.fmin(scaled, _mean(values))
    return found


def _unit(grad: np.ndarray, precision: str | None) -> float:
    """Return the unit round-off of the arithmetic that made an array: halves are taken to be summed in float32.

    float64 numbers that fit float32, and use more of it than counts and halves do, come from there.
    """
    if precision is not None:
        return U if precision == "float64" else _SINGLE
    if grad.dtype != np.float64:
        return _SINGLE
    return _SINGLE if _is_single(grad[np.isfinite(grad)]) else U


def _is_single(values: np.ndarray) -> bool:
    significands = np.frexp(values)[0]
    return _fits(significands, 24) and not _fits(significands, 18)


def _half(case: FunctionCase, name: str) -> bool:
    """Tell whether a gradient is one of half precision, by its type or by its values."""
    grad = case.grads[name]
    significands = np.frexp(grad[np.isfinite(grad)].astype(np.float64))[0]
    return case.half_unit(name) > 0 or (_fits(significands, 11) and not _fits(significands, 5))


def _fits(significands: np.ndarray, bits: int) -> bool:
    scaled = np.ldexp(significands, bits)
    return bool((scaled == np.rint(scaled)).all())


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
        found = case.gradient(arrays)
        if found is None:
            return np.full(total, np.nan)
        return np.concatenate([found[name].astype(np.float64).ravel() for name in case.params])

    half = any(_half(case, name) for name in case.grads)
    spacings = GRADIENT_SPACINGS + HALF_SPACINGS * half
    flat = ecnoise.measured(sample, GRADIENT_SAMPLES, spacings, rounded=half)
    if half or np.isnan(flat).all():  # few roundings, or outside of its domain
        back = ecnoise.measured(lambda distance: sample(distance, -1.0), GRADIENT_SAMPLES, spacings, rounded=half)
        flat = np.where(np.isnan(flat + back), np.fmax(flat, back), np.hypot(flat, back) / math.sqrt(2))
    ends = np.cumsum([array.size for array in case.params.values()])[:-1]
    parts = zip(case.params.items(), np.split(flat, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


def _direction(case: FunctionCase, name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a seeded direction in which every entry moves by half of its own size to all of it.

    Zeros stay, unless there is nothing else, so that no entry leaves a domain that ends at zero. The lengths differ
    since equal ones may lie in step with roundings.
    """
    values = case.params[name]
    sizes = np.abs(values) if values.any() else np.full(values.shape, case.size(name))
    direction: np.ndarray = sizes * rng.uniform(0.5, 1.0, values.shape) * rng.choice([-1.0, 1.0], values.shape)
    return direction


def _move(case: FunctionCase, arrays: Arrays, directions: Arrays, distance: float) -> None:
    with np.errstate(over="ignore"):  # the loss is refused where it is not finite there
        for name, direction in directions.items():
            arrays[name][...] = case.params[name] + distance * direction


def _away(case: FunctionCase, name: str) -> str:
    return f"where its noise is measured, at {case.label(name)} moved a little"
