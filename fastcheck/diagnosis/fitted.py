"""Patterns fitted to a gradient and its derivatives alone: factors, penalties, clipping, rounding, other orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fastcheck.diagnosis import factors, rearranged
from fastcheck.diagnosis.evidence import Diagnosis, Evidence, Failed
from fastcheck.diagnosis.hypotheses import Compared, Fit, Hypothesis, Known, at, fits, part_of
from fastcheck.reports.layout import joined

_Proposals = Iterator[Hypothesis]

_FEW = 32
"""Entries on which one of many rearrangements is tried first."""

_ROUND = 3e-6
"""A norm is a round number if it is so close to one, relatively: programs add 1e-6 where they divide by it."""

_CLOSE = 1e-5
"""A factor that was fitted beside a penalty has a meaning if it is so close to its value, relatively."""

_SIGNS = 5
"""Fewer failing entries may have one sign, and all passing ones the other, by chance."""

_IN_PART = "where it fails, the gradient"

_ADVISED = "{advice}"


class Pattern(NamedTuple):
    """What a program may do to any gradient.

    Attributes
    ----------
    name : str
    propose : callable
        Takes a part of a tensor's evidence, and what else is known; yields hypotheses.
    bug, advice : str
        The sentences, into which a hypothesis's words are filled.
    unless : tuple of str
        Patterns of which this one is a weaker form: it is left out where one of them fits.
    """

    name: str
    propose: Callable[[Evidence, Known], _Proposals]
    bug: str
    advice: str
    unless: tuple[str, ...] = ()


@np.errstate(all="ignore")
def fitted(
    failed: Failed, others: Mapping[str, np.ndarray] | None = None, counts: Mapping[str, float] | None = None
) -> list[Diagnosis]:
    """Return the patterns that fit tensors that failed, those first that explain most, the simplest first.

    A pattern fits a tensor if it explains nearly all failing entries within their bars, and breaks nearly none of the
    others. Patterns that make the same array of it are all returned.

    Parameters
    ----------
    failed : mapping of str to Evidence
    others : mapping of str to arrays, optional
        Gradients of tensors that are right, which a failed one may hold in place of its own.
    counts : mapping of str to float, optional
        Numbers of the problem that a gradient may be divided by: {"N": 8, "output pixels": 49}.
    """
    known = Known(failed, others or {}, counts or {})
    found: dict[tuple[int, str, str], dict[str, Fit]] = {}
    for name, evidence in failed.items():
        for row, bug, advice, fit in _of_tensor(evidence, known):
            found.setdefault((row, bug, advice), {}).setdefault(name, fit)
    total = sum(int(np.count_nonzero(evidence.failing)) for evidence in failed.values())
    ranked = sorted(found, key=lambda key: (-_explained(found[key]) / total, key[0]))
    return [_diagnosis(bug, advice, found[row, bug, advice]) for row, bug, advice in ranked]


def _of_tensor(evidence: Evidence, known: Known) -> Iterator[tuple[int, str, str, Fit]]:
    """Yield the patterns that fit a tensor: the number, both sentences, and the fit.

    Where one explains all, another that misses a few makes another array.
    """
    if not evidence.failing.any():
        return
    part, found, named = part_of(evidence), list[tuple[int, str, str, Fit]](), set[str]()
    for row, pattern in enumerate(PATTERNS):
        if not named & set(pattern.unless):
            fitting = list(_of_pattern(pattern, part, evidence, known))
            named |= {pattern.name} if fitting else set()
            found += [(row, *sentences, fit) for sentences, fit in fitting]
    least = min((fit.missed for *_, fit in found), default=0)
    yield from (one for one in found if one[3].missed <= 2 * least)


def _of_pattern(
    pattern: Pattern, part: Evidence, whole: Evidence, known: Known
) -> Iterator[tuple[tuple[str, str], Fit]]:
    """Yield the hypotheses of one pattern that fit a tensor: both sentences, and the fit."""
    for hypothesis in pattern.propose(part, known):
        fit = _confirmed(hypothesis, part, whole)
        if fit is not None:
            yield (pattern.bug.format(**hypothesis.words), pattern.advice.format(**hypothesis.words)), fit


def _confirmed(hypothesis: Hypothesis, part: Evidence, whole: Evidence) -> Fit | None:
    """Return how well a hypothesis fits all of the evidence; None where it does not, or not even a part."""
    fit = fits(hypothesis, part)
    return fit if fit is None or part is whole else fits(hypothesis, whole)


def _explained(by: Mapping[str, Fit]) -> int:
    return sum(fit.explained for fit in by.values())


def _diagnosis(bug: str, advice: str, by: Mapping[str, Fit]) -> Diagnosis:
    """Return a pattern that fits some tensors."""
    failing, explained = sum(fit.failing for fit in by.values()), _explained(by)
    count = f"all {failing:,}" if explained == failing else f"{explained:,} of {failing:,}"
    entries = f"{count} entries that fail" if failing > 1 else "the only entry that fails"
    residual = math.hypot(*(fit.left for fit in by.values())) / math.hypot(*(fit.gap for fit in by.values()))
    evidence = f"explains {entries} in {joined(list(by))}, within the error bars"
    return Diagnosis(bug, evidence, advice, tuple(by), explained / failing, residual)


def is_in_part(diagnosis: Diagnosis) -> bool:
    """Return whether a diagnosis says what failing entries have in common, and not why these fail and others do not."""
    return diagnosis.bug.startswith(_IN_PART)


# What is proposed


def _same(predict: Callable[[Evidence], np.ndarray], widened: float = 1.0) -> Callable[[Evidence], Compared]:
    """Return the comparison of the gradient itself with a prediction, inside bars that are so many times as wide."""
    return lambda one: Compared(one.seen, predict(one), one.error_bar * widened)


def _zeros(part: Evidence, known: Known) -> _Proposals:
    if not part.analytic.any():
        yield Hypothesis({}, _same(lambda one: np.zeros(len(one.dims))))


def _factor(part: Evidence) -> float:
    return float(factors.fitted(part, part.seen, part.numeric)[0])


def _times(factor: float) -> Callable[[Evidence], Compared]:
    return _same(lambda one: factor * one.numeric, max(1.0, abs(factor)))


def _named_factor(part: Evidence, known: Known) -> _Proposals:
    tried = factors.number_of_meanings(known.counts)
    for meaning in factors.meanings(_factor(part), known.counts):
        words = {"words": meaning.words, "advice": meaning.advice}
        yield Hypothesis(words, _times(meaning.value), tried=tried)


def _where_it_fails(hypothesis: Hypothesis) -> Hypothesis:
    """Return a hypothesis on the failing entries alone."""

    def compare(one: Evidence) -> Compared:
        observed, predicted, allowed = hypothesis.compare(one)
        return Compared(observed, np.where(one.failing, predicted, observed), allowed)

    return hypothesis._replace(compare=compare)


def _part_zero(part: Evidence, known: Known) -> _Proposals:
    yield _where_it_fails(Hypothesis({}, _same(lambda one: np.zeros(len(one.dims)))))


def _part_named_factor(part: Evidence, known: Known) -> _Proposals:
    yield from map(_where_it_fails, _named_factor(at(part, part.failing), known))


def _part_factor(part: Evidence, known: Known) -> _Proposals:
    yield from map(_where_it_fails, _any_factor(at(part, part.failing), known))


def _norm_clip(part: Evidence, known: Known) -> _Proposals:
    factor = _factor(part)
    if not 0 < factor < 1:
        return
    failed = [evidence.analytic for evidence in known.failed.values()]
    for arrays, words in (
        ([part.analytic], "it"),
        (failed, "all that fail"),
        ([*failed, *known.others.values()], "all"),
    ):
        norm = math.sqrt(sum(float(np.vdot(array, array)) for array in arrays))
        limit = _round(norm)
        if limit and (len(arrays) > 1 or words == "it"):
            yield Hypothesis({"limit": f"{limit:g}", "of": words}, _times(factor), free=1)
            return


def _round(norm: float) -> float:
    """Return the round number that a norm is: of one digit, or of two with a 5 at the end; 0 where it is none."""
    if not 0 < norm < math.inf:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(norm * (1 + _ROUND))) - 1)
    tens = round(norm / unit)
    return tens * unit if tens % 5 == 0 and (tens % 10 == 0 or tens < 100) and _near(norm, tens * unit) else 0.0


def _near(norm: float, limit: float) -> bool:
    return abs(norm - limit) <= _ROUND * limit


def _any_factor(part: Evidence, known: Known) -> _Proposals:
    factor = _factor(part)
    if math.isfinite(factor):
        yield Hypothesis({"factor": factors.shown(factor)}, _times(factor), free=1)


def _relative(part: Evidence) -> float:
    """Return the size of a typical bar, relative to the gradient's: what is added to it is rounded like this too."""
    size = float(np.sqrt(np.mean(np.square(part.numeric))))
    return float(np.median(part.error_bar)) / size if size else 0.0


def _plus(
    part: Evidence, added: Callable[[Evidence], np.ndarray], factor: float = 1.0
) -> Callable[[Evidence], Compared]:
    """Return the comparison with a multiple of the derivative plus something."""
    relative, widened = _relative(part), max(1.0, abs(factor))

    def compare(one: Evidence) -> Compared:
        more = added(one)
        return Compared(one.seen, factor * one.numeric + more, widened * one.error_bar + relative * np.abs(more))

    return compare


def _parameter(one: Evidence) -> np.ndarray:
    """Return the tensor's own values at the dimensions that were differenced; nan where they are not known."""
    return np.full(len(one.dims), np.nan) if one.value is None else one.value.reshape(-1)[one.dims]


def _penalty(part: Evidence, known: Known) -> _Proposals:
    (c,) = factors.fitted(part, part.seen - part.numeric, _parameter(part))
    if not math.isfinite(c):
        return
    decay = {"decay": factors.shown(abs(c)), "twice": factors.shown(2 * abs(c)), "half": factors.shown(abs(c) / 2)}
    missing = (
        "{decay} times the parameter is missing: the penalty's gradient (or half of it, for a weight decay of {twice}; "
        "or it has the wrong sign, for {half})"
    )
    extra = "{decay} times the parameter is too much: a penalty that the loss does not have, or one that counts twice"
    words = {"words": (missing if c < 0 else extra).format(**decay)}
    yield Hypothesis(words, _plus(part, lambda one: c * _parameter(one)), free=1)


def _named_factor_and_penalty(part: Evidence, known: Known) -> _Proposals:
    factor, c = _two(part)
    tried = factors.number_of_meanings(known.counts)
    for meaning in factors.meanings(factor, known.counts):
        if abs(meaning.value - factor) <= _CLOSE * abs(factor):
            yield _scaled_and_penalised(part, meaning.words, meaning.value, c, tried)


def _factor_and_penalty(part: Evidence, known: Known) -> _Proposals:
    factor, c = _two(part)
    if math.isfinite(factor):
        yield _scaled_and_penalised(part, f"is multiplied by {factors.shown(factor)}", factor, c, 1)


def _two(part: Evidence) -> tuple[float, float]:
    """Return a factor and a multiple of the parameter that make the gradient; nan where they are not known."""
    factor, c = factors.fitted(part, part.seen, part.numeric, _parameter(part))
    return float(factor), float(c)


def _scaled_and_penalised(part: Evidence, words: str, factor: float, c: float, tried: int) -> Hypothesis:
    compare = _plus(part, lambda one: c * _parameter(one), factor)
    does = "added" if c > 0 else "taken away"
    return Hypothesis({"words": words, "c": factors.shown(abs(c)), "does": does}, compare, free=2, tried=tried)


def _constant(part: Evidence, known: Known) -> _Proposals:
    (k,) = factors.fitted(part, part.seen - part.numeric, np.ones(len(part.dims)))
    if math.isfinite(k):
        yield Hypothesis({"k": factors.shown(k)}, _plus(part, lambda one: np.full(len(one.dims), k)), free=1)


def _value_clip(part: Evidence, known: Known) -> _Proposals:
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
    yield Hypothesis({"words": words}, _same(lambda one: np.clip(one.numeric, low, high)), free=free)


def _absolute(part: Evidence, known: Known) -> _Proposals:
    if np.count_nonzero(part.failing) >= _SIGNS:
        yield Hypothesis({}, _same(lambda one: np.abs(one.numeric)))


def _squares(part: Evidence, known: Known) -> _Proposals:
    def compare(one: Evidence) -> Compared:
        return Compared(one.seen, np.square(one.numeric), one.error_bar * np.maximum(1.0, 2 * np.abs(one.numeric)))

    yield Hypothesis({}, compare)


def _signs(part: Evidence, known: Known) -> _Proposals:
    size = float(np.median(np.abs(part.seen)))

    def compare(one: Evidence) -> Compared:
        unknown = np.abs(one.numeric) <= one.error_bar
        return Compared(one.seen, np.where(unknown, one.seen, size * np.sign(one.numeric)), one.error_bar)

    words = {"times": "" if size == 1 else f", times {size:.6g}"}
    yield Hypothesis(words, compare, free=int(size != 1))


def _rounded(part: Evidence, known: Known) -> _Proposals:
    for name, to in _ROUNDINGS.items():

        def compare(one: Evidence, to: Callable[[np.ndarray], np.ndarray] = to) -> Compared:
            low, high = to(one.numeric - one.error_bar), to(one.numeric + one.error_bar)
            return Compared(one.seen, np.clip(one.seen, low, high), one.error_bar + (high - low))

        yield Hypothesis({"type": name}, compare, tried=len(_ROUNDINGS))


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    significand, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(significand, 8)), exponent - 8)


_ROUNDINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda values: values.astype(np.float32).astype(np.float64),
    "float16": lambda values: values.astype(np.float16).astype(np.float64),
    "bfloat16": _to_bfloat16,
}


def _exchanged(part: Evidence, known: Known) -> _Proposals:
    for name, other in known.failed.items():
        if name == part.name or other.shape != part.shape:
            continue
        forth = Hypothesis({}, _found_in(other.analytic), tried=len(known.failed))
        if fits(forth, part) is None:
            continue
        back = fits(Hypothesis({}, _found_in(part.analytic)), part_of(other)) is not None
        first, second = sorted((part.name, name))
        exchanged, stored = f"of {first} and {second} are exchanged", f"of {part.name} is stored as that of {name}"
        yield forth._replace(words={"words": f"the gradients {exchanged}" if back else f"the gradient {stored}"})


def _found_in(array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the derivative with another array: the gradient may have been put there."""
    return lambda one: Compared(array.reshape(-1)[one.dims], one.numeric, one.error_bar)


def _another(part: Evidence, known: Known) -> _Proposals:
    for name, array in known.others.items():
        if array.shape == part.shape and name != part.name:
            yield Hypothesis({"other": name}, _held(array), tried=len(known.others))


def _held(array: np.ndarray) -> Callable[[Evidence], Compared]:
    """Return the comparison of the gradient with another array."""
    return _same(lambda one: array.reshape(-1)[one.dims])


def _rearranged(part: Evidence, known: Known) -> _Proposals:
    every = rearranged.rearrangements(part.shape)
    failing = np.flatnonzero(part.failing)
    some = failing[:: max(1, len(failing) // _FEW)]
    numeric, bar, dims, flat = part.numeric[some], part.error_bar[some], part.dims[some], part.analytic.reshape(-1)
    for one in every:
        observed, predicted = _placed(flat, one.places(dims), numeric)
        if np.count_nonzero(np.abs(observed - predicted) <= bar) >= 0.9 * len(some):
            yield Hypothesis({"words": one.words, "advice": one.advice}, _moved(one), tried=len(every))


def _placed(flat: np.ndarray, places: np.ndarray, numeric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values at the places where entries have gone, and what these should be: zero, for entries lost."""
    lost = places < 0
    return flat[np.where(lost, -1 - places, places)], np.where(lost, 0.0, numeric)


def _moved(one: rearranged.Rearrangement) -> Callable[[Evidence], Compared]:
    def compare(evidence: Evidence) -> Compared:
        flat = evidence.analytic.reshape(-1)
        return Compared(*_placed(flat, one.places(evidence.dims), evidence.numeric), evidence.error_bar)

    return compare


_OF_DECAY = (
    "compare the penalty in the loss with its gradient: its factor, its 2 or 1/2, its sign, and where it is added"
)
_REACHED = "look at how the code reaches the entries that fail: the ends of a loop or slice, an index"

_FACTORS = ("zeros", "named factor", "norm clip", "factor")

_OF_BOTH = "look for a scale that acts on the data's part of the loss and not on the penalty, or the reverse"

PATTERNS = (
    Pattern(
        "zeros",
        _zeros,
        "the gradient is zero everywhere: it was never written",
        "look for an array that is allocated and not filled, a gradient that is not returned, or a detached graph",
    ),
    Pattern("named factor", _named_factor, "the gradient {words}", _ADVISED),
    Pattern(
        "norm clip",
        _norm_clip,
        "the gradient is clipped by norm: the norm of {of} is {limit}",
        "check the gradient before it is clipped, or leave the clipping out",
    ),
    Pattern(
        "factor",
        _any_factor,
        "the gradient has a factor of {factor} everywhere",
        "look for a scale that is missing or applied twice: a temperature, a learning rate, a gradient scaler",
        ("named factor", "norm clip", "zeros"),
    ),
    Pattern("penalty", _penalty, "{words}", _OF_DECAY),
    Pattern(
        "constant",
        _constant,
        "the gradient has {k} added to every entry",
        "look for an accumulator that does not start at zero, or an epsilon or a shift that is added to the gradient",
    ),
    Pattern(
        "value clip",
        _value_clip,
        "the gradient {words}",
        "check the gradient before it is clipped; look for a clamp or a ReLU applied to the gradient itself",
        ("zeros",),
    ),
    Pattern(
        "absolute values",
        _absolute,
        "the gradient has lost its signs: all values are absolute",
        "look for abs, or for the square root of a square",
    ),
    Pattern(
        "squares",
        _squares,
        "every value of the gradient is squared",
        "look for the squares that an optimizer keeps, or a factor applied to itself",
    ),
    Pattern(
        "signs",
        _signs,
        "the gradient holds only the signs of its values{times}",
        "look for sign() in the backward pass, or the update of an optimizer in place of the gradient",
        ("zeros",),
    ),
    Pattern(
        "rounded",
        _rounded,
        "the gradient is rounded to {type}",
        "look for a cast or a buffer of {type}; if it was meant, give precision='{type}'",
        ("zeros",),
    ),
    Pattern(
        "exchanged",
        _exchanged,
        "{words}",
        "look at the order in which gradients are returned and unpacked",
    ),
    Pattern(
        "another",
        _another,
        "this is the gradient of {other}",
        "look at the order in which gradients are returned and unpacked, and at a name that is used twice",
    ),
    Pattern("rearranged", _rearranged, "the gradient {words}", _ADVISED, ("zeros",)),
    Pattern(
        "part zero",
        _part_zero,
        f"{_IN_PART} is zero: never written, or set to zero",
        f"{_REACHED}, a mask",
        (*_FACTORS, "value clip"),
    ),
    Pattern(
        "part named factor",
        _part_named_factor,
        f"{_IN_PART} {{words}}",
        f"{_REACHED}, one that is used twice; {{advice}}",
        (*_FACTORS, "absolute values"),
    ),
    Pattern(
        "part factor",
        _part_factor,
        f"{_IN_PART} has a factor of {{factor}}",
        "look for a scale that is applied to these entries alone",
        (*_FACTORS, "value clip", "absolute values", "part zero", "part named factor"),
    ),
    Pattern(
        "named factor and penalty",
        _named_factor_and_penalty,
        "the gradient {words}, with {c} times the parameter {does}",
        _OF_BOTH,
        (*_FACTORS, "penalty"),
    ),
    Pattern(
        "factor and penalty",
        _factor_and_penalty,
        "the gradient {words}, with {c} times the parameter {does}",
        _OF_BOTH,
        (*_FACTORS, "penalty", "named factor and penalty"),
    ),
)
"""The patterns, cheapest and simplest first."""
