"""The mistakes that a case cannot show, because they leave its gradients as they are, and a case that shows all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fastcheck.common import machine
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.diagnosis.catalogue import CATALOGUE, ONE_OUTPUT, ONE_SAMPLE, Hypothesis
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import SPACE, Block, Problem, gradient, of_case, of_operands
from fastcheck.diagnosis.replay import Replays, grouped_shape
from fastcheck.metrics.health import HealthFinding, hidden_mistakes

ALIKE = 1e-9
"""Part of a gradient's largest entry below which a replay is the right gradient, rounding aside."""


_Axes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]

_AXES: _Axes = (11, 6, 5), (4, 3, 2), (3, 2, 2), (2, 1, 1), ((2, 1), (1, 0), (1, 0))
"""Sizes, taps, stride, dilation and padding of up to three axes, of a case that shows all mistakes."""

_TRANSPOSED: _Axes = (4, 3, 2), (4, 3, 2), (3, 2, 2), (2, 1, 1), ((2, 1), (1, 0), (1, 0))
"""The same of a transposed convolution."""


class BlindSpot(NamedTuple):
    """A mistake that a case cannot show.

    Attributes
    ----------
    bug : str
        What a program with the mistake does.
    reason : str
        What hides it in this case.
    """

    bug: str
    reason: str


def blind_spots(case: ConvCase) -> list[BlindSpot]:
    """List the known mistakes that would leave a case's gradients as they are.

    A case that passes says nothing about these: with one sample, no order of samples is wrong; with one tap, no kernel
    is flipped. `suggested` has shapes and arguments of a case that shows all mistakes.

    Parameters
    ----------
    case : ConvCase
        Only the gradients that it has are looked at.

    Returns
    -------
    list of BlindSpot
        In the order of the catalogue, the most frequent mistakes first.

    Notes
    -----
    Mistakes are replayed for a few filters, channels and samples, which takes a fraction of a check.
    """
    with ThreadPoolExecutor(machine.default_threads()) as pool, np.errstate(over="ignore", invalid="ignore"):
        return list(_blind_spots(case, of_case(case, pool), pool))


def noted(case: ConvCase) -> HealthFinding | None:
    """Return what a passing report says of a case whose arrays hide mistakes; None where they hide none.

    What the layer itself hides (no stride, one group) is left to `blind_spots`: no other arrays would show it. Nothing
    is replayed.
    """
    problem = of_operands(case)
    hiding = [condition for condition in (ONE_SAMPLE, ONE_OUTPUT) if condition[0](problem)]
    hypotheses = [one for one in CATALOGUE if set(one.tensors) & case.grads.keys() and problem.rank >= one.least_rank]
    count = sum(any(condition in one.hidden for condition in hiding) for one in hypotheses)
    reasons = [*(words for _, words in hiding), *_alike(problem), *_zero_bias(case)]
    return hidden_mistakes(reasons, count) if reasons else None


def _zero_bias(case: ConvCase) -> Iterator[str]:
    """Yield that a bias shows nothing in the outputs, where these count."""
    if "bias" in case.grads and not case.bias.any() and (case.output is not None or case.loss != "vjp"):
        yield "the bias is zero"


def suggested(case: ConvCase) -> ConvGeometry:
    """Return shapes and arguments of a small case that shows all known mistakes, with random arrays.

    Sizes, taps and parameters differ between axes, and between filters and channels, so that nothing can be exchanged
    unseen.

    Parameters
    ----------
    case : ConvCase
        The suggestion has its number of axes and its padding mode, and is transposed if it is.

    Returns
    -------
    ConvGeometry
    """
    geometry = case.geometry
    rank, axes = geometry.rank, _TRANSPOSED if geometry.transposed else _AXES
    sizes, taps, stride, dilation, padding = (one[:rank] for one in axes)
    return ConvGeometry.of(
        (2, 6 if geometry.transposed else 4, *sizes),
        (6, 2, *taps),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=2,
        transposed=geometry.transposed,
        output_padding=(1, 0, 0)[:rank] if geometry.transposed else 0,
        padding_mode=geometry.padding_mode,
    )


def _blind_spots(case: ConvCase, problem: Problem, pool: Executor) -> Iterator[BlindSpot]:
    shown = {name: _Shown(problem, name, pool) for name in case.grads}
    for hypothesis in CATALOGUE:
        names = [name for name in hypothesis.tensors if name in shown]
        if not names or problem.rank < hypothesis.least_rank:
            continue
        variants = list(hypothesis.variants(problem))
        if not any(shown[name](variant) for variant in variants for name in names):
            reason = _reason(hypothesis, problem, bool(variants))
            if reason:
                yield BlindSpot(hypothesis.bug, reason)
    for reason in _zero_bias(case):
        yield BlindSpot("the forward pass leaves the bias out, or adds it several times", reason)
    if _is_square(problem):
        reason = "input, kernel and outputs are square"
        yield BlindSpot("the size of one spatial axis is used for another, in a loop or a reshape", reason)


def _is_square(problem: Problem) -> bool:
    sizes = (problem.inside, problem.taps, problem.v.shape[SPACE:])
    return problem.rank > 1 and all(len(set(one)) == 1 for one in sizes) and max(problem.inside) > 1


def _reason(hypothesis: Hypothesis, problem: Problem, replayed: bool) -> str:
    """Return what hides a mistake; empty where it cannot be made in this layer, or would not run."""
    for holds, words in hypothesis.hidden:
        if holds(problem):
            return words
    if not replayed:
        return ""
    return next((words for words in _alike(problem)), "it makes the same gradients of these arrays")


def _alike(problem: Problem) -> Iterator[str]:
    """Yield what of the arrays makes mistakes invisible."""
    for name, array in (("cotangent", problem.v), ("input", problem.x), ("weight", problem.w)):
        if array.size > 1 and _is_flat(array):
            yield f"the {name} is constant"
        elif name != "weight" and array[0, 0, 0].size > 1 and all(map(_is_flat, _maps(array))):
            yield f"the {name} is constant in space"


def _maps(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, *array.shape[SPACE:])


def _is_flat(array: np.ndarray) -> bool:
    """Return whether all entries are equal, by two of them where these differ."""
    return bool(array.flat[0] == array.flat[-1] and (array == array.flat[0]).all())


class _Shown:
    """Whether mistakes show in a tensor's gradient.

    Mistakes that store the gradient in another order are replayed on numbers that all differ.
    """

    def __init__(self, problem: Problem, name: str, pool: Executor) -> None:
        shape = grouped_shape(problem, name)
        self._numbers = np.arange(1.0, 1 + math.prod(shape)).reshape(shape)
        self._replays = Replays(problem, name, _block(problem, name), lambda: self._numbers, pool)
        self._right = self._replays.of_block(Variant())

    def __call__(self, variant: Variant) -> bool:
        numbers = variant.whole and variant.gradient is gradient
        right = self._replays.cut(self._numbers) if numbers else self._right
        apart = np.abs(self._replays.of_block(variant) - right).max()
        return bool(apart > ALIKE * np.abs(right).max())


def _block(problem: Problem, name: str) -> Block:
    """Return the first and last samples, groups, filters and channels."""
    groups, filters, channels = map(_ends, problem.w.shape[:SPACE])
    return Block(_ends(len(problem.v)) if name == "input" else slice(None), groups, filters, channels)


def _ends(size: int) -> slice:
    return slice(None, None, max(1, size - 1))
