"""Backward passes of attention with a mistake: the outputs say which attention it is, and its mistakes are replayed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypotheses import Hypothesis, Known
from fastcheck.diagnosis.patterns.pattern import Proposals, replayed
from fastcheck.diagnosis.patterns.sums import softmax

_MOST_INPUTS = 5
"""Inputs of which all threes are tried as queries, keys and values."""

_ALIKE = 1e-4
"""Outputs are those of an attention if they differ by no more, relatively: forward may compute in half precision."""

_Scores = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Attention:
    """softmax(scale Q Kᵀ, masked) V, over the last two axes, and the cotangent of its output.

    Attributes
    ----------
    names : tuple of str
        Of queries, keys and values.
    q, k, v, cotangent : float64 array
    scale : float
    masked : callable
        Takes scores; returns them with minus infinity where nothing is attended to, or with what is added.
    """

    names: tuple[str, str, str]
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    cotangent: np.ndarray
    scale: float
    masked: _Scores

    def weights(self, masked: _Scores | None = None, scale: float | None = None) -> np.ndarray:
        """Return the weights of all values, with another mask or scale where these are given."""
        scores = self.q @ _t(self.k) * (self.scale if scale is None else scale)
        return softmax((masked or self.masked)(scores), (-1,))

    def gradients(self, p: np.ndarray, slope: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """Return the gradients of queries, keys and values that these weights lead to."""
        scores = slope(p, self.cotangent @ _t(self.v)) * self.scale
        made = (scores @ self.k, _t(scores) @ self.q, _t(p) @ self.cotangent)
        return dict(zip(self.names, made, strict=True))


def _t(array: np.ndarray) -> np.ndarray:
    return array.swapaxes(-1, -2)


def _through_softmax(p: np.ndarray, grad: np.ndarray) -> np.ndarray:
    return np.asarray(p * (grad - (p * grad).sum(axis=-1, keepdims=True)))


_RECOMPUTED = "look at where the backward pass computes the weights again: with the forward pass's scale and mask"
_SOFTMAX = "look at the softmax in the backward pass: p * (grad - (p * grad).sum(over keys))"


def attention(part: Evidence, known: Known) -> Proposals:
    """The gradients that attention's backward pass returns with one mistake."""
    for one in itertools.islice(_recognised(part.name, known), 1):
        for words, advice, gradients in (mistakes := list(_mistakes(one))):
            yield Hypothesis(
                {"words": words, "advice": advice}, replayed(part, gradients[part.name]), tried=len(mistakes)
            )


def _mistakes(one: _Attention) -> Iterator[tuple[str, str, Mapping[str, np.ndarray]]]:
    """Yield mistakes: words, advice, and the gradients that they lead to."""
    right = one.weights()

    def without_mask(scores: np.ndarray) -> np.ndarray:
        return scores

    recomputed = {
        "without the mask": one.weights(without_mask),
        "without the scale": one.weights(scale=1.0),
        "with the mask's other triangle": one.weights(lambda scores: one.masked(_t(scores)).swapaxes(-1, -2))
        if one.q.shape[-2] == one.k.shape[-2]
        else right,
    }
    for words, p in recomputed.items():
        if not np.array_equal(p, right):
            yield f"uses weights that are computed {words}", _RECOMPUTED, one.gradients(p, _through_softmax)
    slopes: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "lacks the sum in the softmax's backward pass": lambda p, grad: p * grad,
        "takes the softmax for a function of each score alone, p (1 - p)": lambda p, grad: p * (1 - p) * grad,
        "leaves out the softmax": lambda p, grad: grad,
    }
    for words, slope in slopes.items():
        yield words, _SOFTMAX, one.gradients(right, slope)
    if one.q.shape == one.k.shape:
        yield from _exchanged(one, right)


def _exchanged(one: _Attention, p: np.ndarray) -> Iterator[tuple[str, str, Mapping[str, np.ndarray]]]:
    """Yield weights or scores that are not transposed where they should be."""
    advice = "look at the transposes: p and the gradient of the scores have queries as rows and keys as columns"
    scores = _through_softmax(p, one.cotangent @ _t(one.v)) * one.scale
    made = (_t(scores) @ one.k, scores @ one.q, p @ one.cotangent)
    yield (
        "uses weights that are transposed: queries and keys changed places",
        advice,
        dict(zip(one.names, made, strict=True)),
    )


def _recognised(name: str, known: Known) -> Iterator[_Attention]:
    """Yield the attentions of three inputs, one of them the tensor of this name, whose outputs are the function's."""
    around = known.around
    if len(around.outputs) != 1 or len(around.inputs) > _MOST_INPUTS or name not in around.inputs:
        return
    ((output, expected),) = around.outputs.items()
    for names in itertools.permutations(around.inputs, 3):
        q, k, v = (around.inputs[one] for one in names)
        if name in names and _fit(q, k, v, expected):
            for scale in (1 / math.sqrt(q.shape[-1]), 1.0):
                for masked in _masks(names, known, (q.shape[-2], k.shape[-2])):
                    one = _Attention(names, q, k, v, around.cotangents[output], scale, masked)
                    if _same(one.weights() @ v, expected):
                        yield one


def _fit(q: np.ndarray, k: np.ndarray, v: np.ndarray, output: np.ndarray) -> bool:
    """Return whether shapes are those of queries, keys, values and outputs of an attention."""
    if min(q.ndim, k.ndim, v.ndim) < 2:
        return False
    leading = q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    inner = q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    return leading and inner and output.shape == (*q.shape[:-1], v.shape[-1])


def _same(made: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(made - expected).max() <= _ALIKE * np.abs(expected).max())


def _masks(names: tuple[str, ...], known: Known, shape: tuple[int, int]) -> Iterator[_Scores]:
    """Yield no mask, a causal one, and those that other inputs are."""
    around = known.around
    yield lambda scores: scores
    yield _where(np.tril(np.ones(shape, dtype=bool)))
    arrays = [*around.integers.values(), *(array for name, array in around.inputs.items() if name not in names)]
    for array in arrays:
        if array.ndim >= 2 and array.shape[-2:] == shape:
            if array.dtype.kind == "f":
                yield _added(array)
            else:
                yield from (_where(array != 0), _where(array == 0))


def _where(attended: np.ndarray) -> _Scores:
    return lambda scores: np.where(attended, scores, -np.inf)


def _added(array: np.ndarray) -> _Scores:
    return lambda scores: scores + array
