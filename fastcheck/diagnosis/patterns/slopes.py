"""Slopes and masks of functions that act on each entry by itself, met with the cotangent: wrong, missing or twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fastcheck.diagnosis import factors
from fastcheck.diagnosis.around import aligned, cotangent_of
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, corrected, replayed

_Named = Iterator[tuple[str, np.ndarray]]

_TELLING = 5
"""Entries that fail, and others, from which a mask is more than chance."""


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


def _normal(t: np.ndarray) -> np.ndarray:
    """Return the distribution function of the normal law."""
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(t / math.sqrt(2)))


def _gelu(t: np.ndarray) -> np.ndarray:
    return _normal(t) + t * np.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def _tanh_gelu(t: np.ndarray) -> np.ndarray:
    inner = np.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3))
    return 0.5 * (1 + inner) + 0.5 * t * (1 - inner**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * t**2)


SLOPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "t": lambda t: t,
    "1 - t": lambda t: 1 - t,
    "t (1 - t)": lambda t: t * (1 - t),
    "1 - t^2": lambda t: 1 - t * t,
    "t^2": np.square,
    "2 t": lambda t: 2 * t,
    "3 t^2": lambda t: 3 * t * t,
    "1 / t": lambda t: 1 / t,
    "1 / t^2": lambda t: 1 / t**2,
    "1 / (2 t)": lambda t: 0.5 / t,
    "1 / (2 sqrt(t))": lambda t: 0.5 / np.sqrt(t),
    "exp(t)": np.exp,
    "cos(t)": np.cos,
    "sin(t)": np.sin,
    "tanh(t)": np.tanh,
    "1 - tanh(t)^2": lambda t: 1 - np.tanh(t) ** 2,
    "sigmoid(t)": _sigmoid,
    "sigmoid(t) (1 - sigmoid(t))": lambda t: _sigmoid(t) * (1 - _sigmoid(t)),
    "the slope of SiLU (swish) at t": lambda t: _sigmoid(t) * (1 + t * (1 - _sigmoid(t))),
    "the slope of GELU at t": _gelu,
    "the slope of GELU's tanh approximation at t": _tanh_gelu,
    "the slope of ELU at t": lambda t: np.where(t > 0, 1, np.exp(np.minimum(t, 0))),
    "the slope of log(1 + t^2) at t": lambda t: 2 * t / (1 + t * t),
    "the sign of t": np.sign,
}
"""Slopes that programs write, of some array t; with both signs."""

_MASKS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "where t is positive": lambda t: t > 0,
    "where t is at least 0": lambda t: t >= 0,
    "where t is negative": lambda t: t < 0,
    "where t lies between -1 and 1": lambda t: np.abs(t) < 1,
    "where t lies between 0 and 6": lambda t: (t > 0) & (t < 6),
    "where t lies between 0 and 1": lambda t: (t > 0) & (t < 1),
    "where t is at least 1 in size": lambda t: np.abs(t) >= 1,
}
"""Masks that programs write, of some array t."""


def operand_missing(part: Evidence, known: Known) -> Proposals:
    """The gradient is right once it is multiplied by another array."""
    for name, array in (every := list(_operands(part, known))):
        yield Hypothesis({"name": name}, corrected(part, part.analytic * array), tried=len(every))


def operand_too_many(part: Evidence, known: Known) -> Proposals:
    """The gradient is the derivative times another array."""
    for name, array in (every := list(_operands(part, known))):

        def compare(one: Evidence, array: np.ndarray = array) -> Compared:
            factor = array.reshape(-1)[one.dims]
            return Compared(one.seen, factor * one.numeric, one.error_bar * np.maximum(1.0, np.abs(factor)))

        yield Hypothesis({"name": name}, compare, tried=len(every))


def _operands(part: Evidence, known: Known) -> _Named:
    """Yield other inputs, and outputs, as they meet a tensor's entries; none that is one number throughout."""
    arrays = {name: array for name, array in known.around.inputs.items() if name != part.name}
    for name, array in (arrays | dict(known.around.outputs)).items():
        if np.ptp(array) if array.size else 0.0:
            yield from ((name, one) for one in aligned(array, part.shape))


def handed_on(part: Evidence, known: Known) -> Proposals:
    """The cotangent itself, or its negative."""
    for name, cotangent in _cotangents(part, known):
        yield Hypothesis({"of": name}, replayed(part, cotangent), tried=2)
        yield Hypothesis({"of": f"-{name}"}, replayed(part, -cotangent), tried=2)


def other_slope(part: Evidence, known: Known) -> Proposals:
    """The cotangent times the slope of another function, or at another array."""
    tensors = [(name, array) for name, array in _tensors(part, known) if not name.startswith("grad_output")]
    for of, cotangent in _cotangents(part, known):
        for words, slope in _few_of(part, cotangent, tensors):
            yield Hypothesis(
                {"of": of, "slope": words}, replayed(part, cotangent * slope()), tried=_MANY * len(tensors)
            )


def _few_of(
    part: Evidence, cotangent: np.ndarray, tensors: list[tuple[str, np.ndarray]]
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Yield the slopes that fit some of the entries that fail, as they are computed for all."""
    some = part.dims[part.failing][:_TELLING]
    seen, few = part.analytic.reshape(-1)[some], cotangent.reshape(-1)[some]
    for name, array in tensors:
        at = array.reshape(-1)[some]
        for words, slope in SLOPES.items():
            for sign, before in ((1, ""), (-1, "-")):
                apart = np.abs(sign * slope(at) * few - seen)
                if (apart <= _CLOSE * np.abs(seen)).all():
                    yield f"{before}({_of(words, name)})" if sign < 0 else _of(words, name), _later(slope, array, sign)


def _later(slope: Callable[[np.ndarray], np.ndarray], array: np.ndarray, sign: int) -> Callable[[], np.ndarray]:
    return lambda: sign * slope(array)


_CLOSE = 1e-2
"""Slopes are computed for all entries if they are so close on a few, relatively: as close as bfloat16 tells."""

_MANY = 2 * len(SLOPES)


def _of(words: str, name: str) -> str:
    """Return words with a name in the place of t."""
    if words in ("t", "1 - t", "2 t") and name.isidentifier():
        return words.replace("t", name)
    return (
        words.replace("t is", f"{name} is").replace("t lies", f"{name} lies")
        if words.startswith("where")
        else (f"{words}, where t is {name}" if words != "t" else name)
    )


def masked(part: Evidence, known: Known) -> Proposals:
    """The cotangent where some array has a sign, and zero elsewhere."""
    masks = list(_masks(part, known))
    for of, cotangent in _cotangents(part, known):
        for where, mask in masks:
            yield Hypothesis({"of": of, "where": where}, replayed(part, cotangent * mask), tried=len(masks))


def mask_too_many(part: Evidence, known: Known) -> Proposals:
    """The derivative where some array has a sign, and zero elsewhere."""
    masks = list(_masks(part, known))
    for where, mask in masks:
        yield Hypothesis({"where": where}, _kept_where(mask), tried=len(masks))


def _masks(part: Evidence, known: Known) -> Iterator[tuple[str, np.ndarray]]:
    """Yield masks of all arrays, each once: words for where they are true, and the mask."""
    for name, array in _tensors(part, known):
        seen = set[bytes]()
        for words, true in _MASKS.items():
            mask = true(array)
            few = mask.reshape(-1)[part.dims]
            if _tells(few) and few.tobytes() not in seen:
                seen.add(few.tobytes())
                yield _of(words, name), mask


def _kept_where(chosen: np.ndarray) -> Callable[[Evidence], Compared]:
    flat = chosen.reshape(-1)
    return lambda one: Compared(one.seen, np.where(flat[one.dims], one.numeric, 0.0), one.error_bar)


def _tells(mask: np.ndarray) -> bool:
    return bool(min(np.count_nonzero(mask), np.count_nonzero(~mask)) >= _TELLING)


def leaky_slope(part: Evidence, known: Known) -> Proposals:
    """Another slope on the negative side, of leaky units."""
    own = part.value
    if own is None:
        return
    negative = own.reshape(-1)[part.dims] < 0
    if min(np.count_nonzero(negative), np.count_nonzero(~negative)) < _TELLING:
        return
    for of, cotangent in _cotangents(part, known):
        at = cotangent.reshape(-1)[part.dims]
        slope, right = (float(np.median(values[negative] / at[negative])) for values in (part.seen, part.numeric))
        words = {"of": of, "slope": factors.shown(slope), "right": factors.shown(right), "name": part.name}
        predicted = np.where(own < 0, slope * cotangent, cotangent)
        yield Hypothesis(words, replayed(part, predicted), free=1)


def cotangent_forgotten(part: Evidence, known: Known) -> Proposals:
    """The slope alone: the derivative divided by the cotangent."""
    yield from _by_cotangent(part, known, lambda n, v: n / v)


def cotangent_twice(part: Evidence, known: Known) -> Proposals:
    """The derivative times the cotangent."""
    yield from _by_cotangent(part, known, lambda n, v: n * v)


def slope_twice(part: Evidence, known: Known) -> Proposals:
    """The cotangent times the square of the slope."""
    yield from _by_cotangent(part, known, lambda n, v: n * n / v)


def _by_cotangent(part: Evidence, known: Known, made: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Proposals:
    for name, cotangent in _cotangents(part, known):
        flat = cotangent.reshape(-1)

        def compare(one: Evidence, flat: np.ndarray = flat) -> Compared:
            v, n = flat[one.dims], one.numeric
            predicted = made(n, v)
            steeper = np.abs(made(n + one.error_bar, v) - predicted) + np.abs(made(n - one.error_bar, v) - predicted)
            return Compared(one.seen, np.where(v == 0, one.seen, predicted), one.error_bar + steeper)

        yield Hypothesis({"of": name}, compare)


def _cotangents(part: Evidence, known: Known) -> _Named:
    """Yield the cotangents as they meet the tensor's entries, by name."""
    for output, cotangent in known.around.cotangents.items():
        for one in aligned(cotangent, part.shape):
            yield cotangent_of(output), one


def _tensors(part: Evidence, known: Known) -> _Named:
    """Yield all arrays as they meet the tensor's entries, by name, its own values first."""
    around = known.around
    arrays = [(part.name, part.value)] if part.value is not None else []
    arrays += [(name, array) for name, array in around.inputs.items() if name != part.name]
    arrays += around.outputs.items()
    arrays += [(cotangent_of(output), array) for output, array in around.cotangents.items()]
    for name, array in arrays:
        for one in aligned(array, part.shape):
            yield name, one
