"""Findings about a function itself, whatever its gradient's values are: each with its words and the next step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastcheck.common.naming import listed
from fastcheck.metrics.judged import Verdict


class HealthFinding(NamedTuple):
    """One finding.

    Attributes
    ----------
    name : str
    words : str
        What was seen.
    advice : str
        The next step, empty where there is none.
    verdict : {"fail", "inconclusive"} or None
        What a check ends with, whatever its differences say; None where the finding is worth knowing, no more.
    tensors : tuple of str
        The tensors that it is of, empty where it is of all.
    """

    name: str
    words: str
    advice: str = ""
    verdict: Verdict | None = None
    tensors: tuple[str, ...] = ()


def loss_changed_by_grad(before: float, after: float) -> HealthFinding:
    """Describe a gradient function that changes what the loss reads."""
    return HealthFinding(
        "grad changes the loss",
        f"the loss is another number after grad was called: {before!r} before and {after!r} after, at the same point",
        "look for what grad changes in place (an array that the loss reads too, a cache, a running mean), and copy it",
        "inconclusive",
    )


def gradient_adds_up(factor: float | None, names: Sequence[str]) -> HealthFinding:
    """Describe tensors of a gradient that every call adds to: ``factor`` times the first one, if it is a multiple."""
    what = f"{factor:.4g} times the first" if factor is not None else "the first and something that each call adds"
    return HealthFinding(
        "grad adds up",
        f"the second call of grad returns {what} in {listed(names)}, at the same point: it adds to what it returned "
        "before",
        "set the gradient to zero before it is computed, or write it with = in place of +=",
        "fail",
        tuple(names),
    )


def gradient_differs(size: float) -> HealthFinding:
    """Describe a gradient that is another one when it is asked for again."""
    how = f": it differs by {size:.1g} of its size" if size < math.inf else ""
    return HealthFinding(
        "grad differs when called again",
        f"the second call of grad returns another gradient at the same point{how}",
        "fix the seed, freeze the dropout mask, or look for what grad keeps between calls",
        "inconclusive",
    )


def gradient_wavers(size: float) -> HealthFinding:
    """Describe a gradient that differs in its last bits from call to call."""
    return HealthFinding(
        "grad wavers",
        f"grad differs by {size:.1g} of its size from call to call at the same point; the error bars hold that",
    )


def loss_wavers(size: float) -> HealthFinding:
    """Describe a loss that differs in its last bits from call to call."""
    return HealthFinding(
        "the loss wavers",
        f"the loss differs by {size:.1g} of its size from call to call at the same point (sums in another order?); "
        "that noise was measured, and the error bars come from it",
    )


def loss_accuracy(accuracy: float) -> HealthFinding:
    """Describe a declared accuracy."""
    return HealthFinding(
        "accuracy of the loss",
        f"the error bars come from the declared accuracy of the loss: a value may be off by {accuracy:.3g}",
    )


def loss_remembers(before: float, after: float) -> HealthFinding:
    """Describe a loss that depends on where it was evaluated before: two values at one point."""
    return HealthFinding(
        "the loss remembers",
        f"the loss is {before!r} and later {after!r} at the same point: it depends on where it was evaluated before",
        "look for what the loss keeps between calls (a warm start, a running mean, a cache), and reset it in each call",
        "inconclusive",
    )


def loss_never_moves(value: float, zero: bool) -> HealthFinding:
    """Describe a loss that is the same number everywhere; ``zero`` tells whether its gradient says so too."""
    return HealthFinding(
        "the loss never moves",
        f"the loss is {value!r} wherever it was evaluated: it does not read its argument, or its change is lost in "
        "rounding or underflow",
        "let the loss compute with the argument that it is given, not with an array of its own; if it does, scale it "
        "up, or take a large constant out of it",
        None if zero else "inconclusive",
    )


def loss_underflows(largest: float) -> HealthFinding:
    """Describe a loss that is too small for double precision."""
    return HealthFinding(
        "the loss underflows",
        f"no value of the loss is larger than {largest:.2g}: it underflows, and few of its digits are left",
        "scale the loss up, or check at parameters where it is larger",
        "inconclusive",
    )


def no_subgradient(entries: Sequence[str], tensors: Sequence[str], promise: float, change: float) -> HealthFinding:
    """Describe a gradient that is wrong for entries at a kink together: what it promises, and what the loss does."""
    return HealthFinding(
        "no subgradient",
        f"{listed(entries)} share a kink (a tied maximum?): where they move alike the loss is smooth, and changes by "
        f"{change:.4g} where the gradient promises {promise:.4g}",
        "let the winners of a tie share the slope: give it to one of them, or divide it by their number",
        "fail",
        tuple(tensors),
    )


def nothing_shown(zeros: int, dims: int, passed: bool) -> HealthFinding:
    """Describe a point at which most derivatives are zero, whatever the code is."""
    return HealthFinding(
        "nothing was shown",
        f"{zeros:,} of {dims:,} derivatives are zero here, as far as arithmetic can tell: wrong code can give zeros "
        "too",
        "check at another point (with live units, say), or with other weights of the outputs than ones: a sum of "
        "normalised values does not depend on its input",
        None if passed else "inconclusive",
    )


def nothing_to_gain(loss: float, softmax: bool) -> HealthFinding:
    """Describe a point at which the gradient of a network's loss vanishes."""
    kind = "the softmax is saturated" if softmax else "the loss has nothing to gain"
    return HealthFinding(
        "vanishing gradients",
        f"the loss is {loss:.2g} and {kind}",
        "check at parameters, or with data points, that the network still gets wrong (shuffle the labels, say)",
    )


def no_variance(where: str, equal: bool, cancelled: Sequence[str]) -> HealthFinding:
    """Describe normalisations of one value: where they are, and whether ``equal`` data points are why.

    The gradients of the ``cancelled`` tensors are zero for it, but for rounding.
    """
    return HealthFinding(
        "statistics",
        f"the variance is zero but for rounding in {where}" + ", as all data points are equal" * equal,
        "take data points that differ" if equal else "take other data points or parameters",
        tensors=tuple(cancelled),
    )


def no_output_counts(loss: str) -> HealthFinding:
    """Describe a convolution whose loss, "relu" or "tanh", has no slope to speak of."""
    words = {"relu": "the relu lets no output through", "tanh": "the tanh is saturated"}
    advice = {"relu": "outputs above zero", "tanh": "outputs of less than ten"}
    return HealthFinding(
        "vanishing gradients", words[loss], f"check with operands, or a bias, that make {advice[loss]}"
    )
