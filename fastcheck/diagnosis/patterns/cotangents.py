"""Cotangents that are changed before a backward pass uses them: forgotten, squared, rearranged, repeated."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from fastcheck.diagnosis import rearranged
from fastcheck.diagnosis.around import cotangent_of
from fastcheck.diagnosis.hypotheses import Hypothesis
from fastcheck.diagnosis.patterns.terms import Terms


def other_cotangents(
    terms: Terms, outputs: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]
) -> Iterator[Hypothesis]:
    """Yield cotangents that are changed before they are used, of one output or of all."""
    v, y = terms.cotangent, np.concatenate([outputs[name].reshape(-1) for name in outputs])
    every = [*_by_value(v, y), *_by_place(cotangents)]
    for words, advice, cotangent in every:
        if np.isfinite(cotangent).all():
            yield terms.hypothesis({"words": f"the gradient {words}", "advice": advice}, cotangent, tried=len(every))


_FORGOTTEN = "look at where grad_output enters: every path from an output to this gradient multiplies by it once"

_SLOPE = "look at the last step of the forward pass: its slope belongs once between grad_output and the rest"


def _by_value(v: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield cotangents whose values are changed, with words and advice."""
    yield "does not contain grad_output: it is that of a cotangent of ones", _FORGOTTEN, np.ones_like(v)
    yield "contains the square of grad_output", _FORGOTTEN, v * v
    yield "contains the absolute values of grad_output", _FORGOTTEN, np.abs(v)
    yield "contains only the signs of grad_output", _FORGOTTEN, np.sign(v)
    yield "contains the output in place of grad_output", _FORGOTTEN, y
    yield "contains grad_output times the output", _SLOPE, v * y
    with np.errstate(all="ignore"):
        for name, slope in (
            ("y (1 - y), as of a sigmoid", y * (1 - y)),
            ("1 - y^2, as of a tanh", 1 - y * y),
            ("y, as of exp", y),
            ("1 - y", 1 - y),
            ("1 / (2 y), as of a square root", 0.5 / y),
            ("y^2, as of 1 / x", y * y),
        ):
            yield f"lacks the slope of the last step: {name}, y being the output", _SLOPE, v / slope
            yield f"contains the slope of the last step twice: {name}, y being the output", _SLOPE, v * slope
        yield (
            "has the slope y (1 - y) of a sigmoid in place of tanh's 1 - y^2, y being the output",
            _SLOPE,
            v * (y * (1 - y) / (1 - y * y)),
        )
        yield (
            "has the slope 1 - y^2 of tanh in place of a sigmoid's y (1 - y), y being the output",
            _SLOPE,
            v * ((1 - y * y) / (y * (1 - y))),
        )
    yield "contains grad_output only where the output is positive", _SLOPE, v * (y > 0)


def _by_place(cotangents: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield cotangents that are rearranged, or repeated along an axis, or exchanged, with words and advice."""
    for name, cotangent in cotangents.items():
        for words, advice, other in _rearranged(cotangent_of(name), cotangent):
            yield words, advice, _joined({**cotangents, name: other})
    for one, second in itertools.combinations(cotangents, 2):
        if cotangents[one].shape == cotangents[second].shape:
            both = f"has {cotangent_of(one)} and {cotangent_of(second)} exchanged"
            exchanged = {**cotangents, one: cotangents[second], second: cotangents[one]}
            yield both, "look at the order in which grad_output is unpacked", _joined(exchanged)


def _joined(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def _rearranged(name: str, cotangent: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    dims = np.arange(cotangent.size)
    for one in rearranged.likeliest(cotangent.shape):
        places, moved = one.places(dims), np.zeros(cotangent.size)
        moved[places[places >= 0]] = cotangent.reshape(-1)[places >= 0]
        yield f"is that of a {name} which {one.words.replace('right', name)}", one.advice, moved
    for axis, size in enumerate(cotangent.shape):
        if size == 1:
            continue
        for words, made in (
            (f"the first index along axis {axis}", cotangent.take([0], axis)),
            (f"the last index along axis {axis}", cotangent.take([-1], axis)),
            (f"the mean over axis {axis}", cotangent.mean(axis=axis, keepdims=True)),
            (f"the sum over axis {axis}", cotangent.sum(axis=axis, keepdims=True)),
        ):
            advice = "look at how grad_output is indexed, summed and broadcast before it is used"
            changed = np.broadcast_to(made, cotangent.shape)
            yield f"has {words} of {name} in the place of all", advice, np.array(changed)
