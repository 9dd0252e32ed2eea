"""Values that are clipped, rounded, squared, or have lost their signs or sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Compared, Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, same

_FLAT = 3
"""Fewer derivatives may be zero by chance."""

_SIGNS = 5
"""Fewer failing entries may have one sign, and all passing ones the other, by chance."""


def flat(part: Evidence, known: Known) -> Proposals:
    """Derivatives that are all zero, where the gradient is not."""
    zero = np.abs(part.numeric) <= part.error_bar
    if zero.all() and np.count_nonzero(part.failing) >= _FLAT:
        yield Hypothesis({}, lambda one: Compared(one.numeric, np.zeros(len(one.dims)), one.error_bar))


def value_clip(part: Evidence, known: Known) -> Proposals:
    """Values clipped on one side or on both."""
    low, high = float(part.analytic.min()), float(part.analytic.max())
    wrong = part.numeric[part.failing]
    below, above = bool((wrong < low).any()), bool((wrong > high).any())
    if not (below or above) or (0 in (low, high) and len(wrong) < _SIGNS):
        return
    words = f"is clipped to between {low:.6g} and {high:.6g}"
    if below and above and abs(low + high) <= 1e-6 * high:
        words = f"is clipped at {high:.6g} in size"
    elif not above:
        words = "has its negative values set to zero" if low == 0 else f"is clipped to at least {low:.6g}"
    elif not below:
        words = "has its positive values set to zero" if high == 0 else f"is clipped to at most {high:.6g}"
    free = (below and low != 0) + (above and high != 0)
    yield Hypothesis({"words": words}, same(lambda one: np.clip(one.numeric, low, high)), free=free)


def absolute(part: Evidence, known: Known) -> Proposals:
    """Absolute values."""
    if np.count_nonzero(part.failing) >= _SIGNS:
        yield Hypothesis({}, same(lambda one: np.abs(one.numeric)))


def squares(part: Evidence, known: Known) -> Proposals:
    """Squares."""

    def compare(one: Evidence) -> Compared:
        return Compared(one.seen, np.square(one.numeric), one.error_bar * np.maximum(1.0, 2 * np.abs(one.numeric)))

    yield Hypothesis({}, compare)


def signs(part: Evidence, known: Known) -> Proposals:
    """Signs alone, with one size."""
    size = float(np.median(np.abs(part.seen)))

    def compare(one: Evidence) -> Compared:
        unknown = np.abs(one.numeric) <= one.error_bar
        signs = np.where(unknown, np.clip(np.rint(one.seen / size), -1, 1), np.sign(one.numeric))
        return Compared(one.seen, size * signs, one.error_bar)

    words = {"times": "" if size == 1 else f", times {size:.6g}"}
    yield Hypothesis(words, compare, free=int(size != 1))


def flushed(part: Evidence, known: Known) -> Proposals:
    """Zeros in the place of all values below some size."""
    failing, sizes = part.failing, np.abs(part.numeric)
    largest = float(sizes[failing].max())
    least = float(sizes[~failing & (part.seen != 0)].min(initial=np.inf))
    if np.count_nonzero(failing) < _SIGNS or not largest < least:
        return
    near = [name for name, smallest in _LEAST.items() if smallest / 4 <= largest <= smallest]
    of = f", which is near the least number of {near[0]}" if near else ""
    words = {"size": f"{largest:.3g}", "of": of}
    yield Hypothesis(words, same(lambda one: np.where(np.abs(one.numeric) <= largest, 0.0, one.numeric)), free=1)


def rounded(part: Evidence, known: Known) -> Proposals:
    """Values rounded to a narrower type."""
    for name, to in _ROUNDINGS.items():

        def compare(one: Evidence, to: Callable[[np.ndarray], np.ndarray] = to) -> Compared:
            low, high = to(one.numeric - one.error_bar), to(one.numeric + one.error_bar)
            return Compared(one.seen, np.clip(one.seen, low, high), one.error_bar + (high - low))

        yield Hypothesis({"type": name}, compare, tried=len(_ROUNDINGS))


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    significand, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(significand, 8)), exponent - 8)


_LEAST = {
    "float16 (6e-08)": 2.0**-24,
    "float16 without its smallest numbers (6e-05)": 2.0**-14,
    "float32 (1e-38)": 2.0**-126,
}
"""The smallest numbers of types, by words for them."""

_ROUNDINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda values: values.astype(np.float32).astype(np.float64),
    "float16": lambda values: values.astype(np.float16).astype(np.float64),
    "bfloat16": _to_bfloat16,
}
