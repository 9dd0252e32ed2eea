"""Findings about a function itself, whatever its gradient's values are: what was seen, and the next step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastcheck.common.naming import listed
from fastcheck.metrics.judged import Verdict


class HealthFinding(NamedTuple):
    """A finding about a function.

    Attributes
    ----------
    name : str
    words : str
        What was seen.
    advice : str
        The next step; empty where there is none.
    verdict : {"fail", "inconclusive"} or None
        The verdict that the finding imposes on a check, whatever the differences say; None where it is for information.
    tensors : tuple of str
        Names of the tensors concerned; empty where all are.
    """

    name: str
    words: str
    advice: str = ""
    verdict: Verdict | None = None
    tensors: tuple[str, ...] = ()


class Functions(NamedTuple):
    """What messages call a function and its gradient, as the user knows them.

    Attributes
    ----------
    function, gradient : str
        Names of the two arguments.
    subject : str
        The function, as the subject of a sentence.
    value : str
        What is differenced.
    """

    function: str
    gradient: str
    subject: str
    value: str


LOSS = Functions("loss", "grad", "the loss", "the loss")
FORWARD = Functions("forward", "backward", "forward", "the change of the outputs, weighted by the cotangent,")


def transposed(layout: str) -> HealthFinding:
    """Describe the indices of a report on arrays that were given in another layout."""
    return HealthFinding(
        "layout",
        f"the arrays were read as {layout}; indices here are (sample, channel, space), and (filter, channel, taps)",
    )


def default_geometry(input: Sequence[int], weight: Sequence[int]) -> HealthFinding:
    """Describe a convolution with the default stride and padding, by the shapes of its operands."""
    shapes = " * ".join("x".join(map(str, shape)) for shape in (input, weight))
    return HealthFinding("geometry", f"{shapes}, with stride 1 and padding 0, the defaults")


def loss_changed_by_grad(before: float, after: float, names: Functions = LOSS) -> HealthFinding:
    """Describe a gradient function that changes what the loss reads."""
    _, grad, loss, value = names
    return HealthFinding(
        f"{grad} changes {loss}",
        f"a call of {grad} changes {loss} at the same point: {value} is {before!r} before and {after!r} after",
        f"look for what {grad} changes in place (an array that {loss} reads too, a cache, a running mean), and copy it",
        "inconclusive",
    )


def gradient_adds_up(factor: float | None, names: Sequence[str], grad: str = "grad") -> HealthFinding:
    """Describe a gradient to which every call adds, in the tensors named.

    Parameters
    ----------
    factor : float or None
        The second gradient over the first; None where it is not a multiple.
    names : sequence of str
    grad : str
        The gradient function's name.
    """
    what = f"{factor:.4g} times the first result" if factor is not None else "the first result and something more"
    return HealthFinding(
        f"{grad} adds up",
        f"the second call of {grad} returns {what} in {listed(names)}, at the same point: each call adds to the last "
        "one",
        "set the gradient to zero before computing it, or write = in place of +=",
        "fail",
        tuple(names),
    )


def gradient_differs(size: float, grad: str = "grad") -> HealthFinding:
    """Describe a gradient that changes when it is computed again, by ``size`` relative to itself."""
    how = f": it differs by a relative {size:.1g}" if size < math.inf else ""
    return HealthFinding(
        f"{grad} differs when called again",
        f"the second call of {grad} returns another gradient at the same point{how}",
        f"fix the seed, freeze the dropout mask, or look for what {grad} keeps between calls",
        "inconclusive",
    )


def gradient_settles(size: float, grad: str = "grad") -> HealthFinding:
    """Describe a gradient that the second and the third call return alike, and the first one otherwise."""
    how = f", which differs by a relative {size:.1g}" if size < math.inf else ""
    return HealthFinding(
        f"the first call of {grad} returns something else",
        f"the second and the third call of {grad} return one gradient, and the first another{how}, at the same point",
        f"look for what {grad} keeps between calls: a gradient of the call before, a buffer that is filled too late",
        "fail",
    )


def gradient_wavers(size: float, grad: str = "grad") -> HealthFinding:
    """Describe a gradient that differs in its last bits from call to call."""
    return HealthFinding(
        f"{grad} wavers",
        f"{grad} differs by a relative {size:.1g} from call to call at the same point; the error bars include that",
    )


def loss_wavers(size: float, names: Functions = LOSS) -> HealthFinding:
    """Describe a loss that differs in its last bits from call to call."""
    return HealthFinding(
        f"{names.subject} wavers",
        f"{names.subject} differs by a relative {size:.1g} from call to call at the same point (sums in another "
        "order?); this noise was measured, and the error bars come from it",
    )


def loss_accuracy(accuracy: float, names: Functions = LOSS) -> HealthFinding:
    """Describe an accuracy of the loss that was declared."""
    return HealthFinding(
        f"accuracy of {names.subject}",
        f"the error bars come from the declared accuracy of {names.subject}: a value may be off by {accuracy:.3g}",
    )


def loss_remembers(before: float, after: float, names: Functions = LOSS) -> HealthFinding:
    """Describe a loss with two values at one point, which depends on where it was evaluated before."""
    _, _, loss, value = names
    it = "it" if value == loss else loss
    return HealthFinding(
        f"{loss} remembers",
        f"{value} is {before!r} and later {after!r} at the same point: {it} depends on where it was evaluated before",
        f"look for what {loss} keeps between calls (a warm start, a running mean, a cache), and reset it in each call",
        "inconclusive",
    )


def loss_never_moves(value: float, zero: bool, names: Functions = LOSS) -> HealthFinding:
    """Describe a loss that is the same number everywhere; ``zero`` is whether its gradient is zero, as it should be."""
    loss = names.subject
    seen = f"the loss is {value!r}" if names == LOSS else f"{loss} returns the same outputs"
    return HealthFinding(
        f"{loss} never moves",
        f"{seen} wherever it was evaluated: it does not read its argument, or its changes are lost in rounding or "
        "underflow",
        f"use the argument inside {loss}, not a captured array; if it is used, scale {loss} up or remove a large "
        "constant",
        None if zero else "inconclusive",
    )


def directions_disagree(
    failing: int,
    count: int,
    dims: int,
    places: Sequence[str],
    tensors: Sequence[str],
    explained: bool,
    parts: Sequence[str] = (),
) -> HealthFinding:
    """Describe directions over all dimensions that contradict the gradient.

    Parameters
    ----------
    failing, count, dims : int
        Numbers of directions that contradict it, of all directions, and of dimensions.
    places, tensors : sequence of str
        Wrong entries that were found, and their tensors.
    explained : bool
        Whether these explain all that the directions see.
    parts : sequence of str
        Slices of these tensors in which all of their wrong entries lie.
    """
    words = f"{failing:,} of {count:,} directions over all {dims:,} dimensions contradict the gradient"
    if explained:
        words += f"; {listed(places, 8)} alone explain{'s' * (len(places) == 1)} it, and all else agrees"
    elif places:
        words += f"; among the wrong entries: {listed(places, 8)}"
    if parts:
        words += f"; within a tensor, all lie in {listed(parts, 8)}"
    advice = "start with these entries" if places else "check tensor by tensor: dims={'name': 'all'}"
    return HealthFinding("directions", words, advice, "fail", tuple(tensors))


def directions_distrusted() -> HealthFinding:
    """Describe directions that contradict entries which are right by themselves."""
    return HealthFinding(
        "directions",
        "directions over all dimensions show nothing here: entries that they point to are right by themselves, so the "
        "loss varies on a scale far below the size by which all are moved",
        "difference all dimensions one by one: dims='all'",
    )


def loss_underflows(largest: float, names: Functions = LOSS) -> HealthFinding:
    """Describe a loss that is too small for double precision."""
    return HealthFinding(
        f"{names.subject} underflows",
        f"no value of {names.value.rstrip(',')} exceeds {largest:.2g}: it underflows, and few of its digits are left",
        f"scale {names.subject} up, or check at a point where it is larger",
        "inconclusive",
    )


def no_subgradient(entries: Sequence[str], tensors: Sequence[str], promise: float, change: float) -> HealthFinding:
    """Describe a gradient that is wrong for several entries together, which share a kink.

    Parameters
    ----------
    entries, tensors : sequence of str
    promise, change : float
        Change when these entries move alike: the one that the gradient promises, and the one of the loss.
    """
    return HealthFinding(
        "no subgradient",
        f"{listed(entries)} share a kink (a tied maximum?): when they move together, the loss is smooth and changes by "
        f"{change:.4g}, but the gradient promises {promise:.4g}",
        "make the winners of a tie share the slope: give it to one of them, or divide it by their number",
        "fail",
        tuple(tensors),
    )


def nothing_shown(zeros: int, dims: int, passed: bool) -> HealthFinding:
    """Describe a point at which most derivatives are zero, whatever the code is."""
    return HealthFinding(
        "nothing was shown",
        f"{zeros:,} of {dims:,} derivatives are zero here, as far as arithmetic can tell: wrong code could give zeros "
        "too",
        "check at another point (with live units, say), or weight the outputs by something other than ones: a sum of "
        "normalised values does not depend on its input",
        None if passed else "inconclusive",
    )


def blind_spots(reasons: Sequence[str]) -> HealthFinding:
    """Describe arrays of a function with which wrong code may give right gradients."""
    return HealthFinding(
        "blind spots",
        f"{listed(reasons)}: some mistakes, such as entries or samples in the wrong order, could not have shown here",
        "check with random values and several samples",
    )


def hidden_mistakes(reasons: Sequence[str], count: int) -> HealthFinding:
    """Describe a convolution whose arrays hide so many known mistakes; 0 where they were not counted."""
    known = f"{count:,} known mistake{'s' * (count != 1)}" if count else "known mistakes"
    return HealthFinding(
        "blind spots",
        f"{listed(reasons)}: {known} could not have shown here (fastcheck conv --suggest, or fastcheck.blind_spots)",
    )


def nothing_to_gain(loss: float, softmax: bool) -> HealthFinding:
    """Describe a point at which the gradient of a network's loss vanishes."""
    kind = "the softmax is saturated" if softmax else "there is nothing left to gain"
    return HealthFinding(
        "vanishing gradients",
        f"the loss is {loss:.2g} and {kind}",
        "check at parameters, or with data points, that the network still gets wrong (shuffle the labels, say)",
    )


def no_variance(where: str, equal: bool, cancelled: Sequence[str]) -> HealthFinding:
    """Describe normalisations without variance.

    Parameters
    ----------
    where : str
        The layers and channels.
    equal : bool
        Whether equal data points are the reason.
    cancelled : sequence of str
        Tensors whose gradients are zero for that reason, but for rounding.
    """
    return HealthFinding(
        "statistics",
        f"the variance is zero but for rounding in {where}" + ", since all data points are equal" * equal,
        "use data points that differ" if equal else "use other data points or parameters",
        tensors=tuple(cancelled),
    )


def no_output_counts(loss: str) -> HealthFinding:
    """Describe a convolution whose loss, "relu" or "tanh", has almost no slope."""
    words = {"relu": "the relu lets no output through", "tanh": "the tanh is saturated"}
    advice = {"relu": "outputs above zero", "tanh": "outputs of less than ten"}
    return HealthFinding(
        "vanishing gradients", words[loss], f"check with operands, or a bias, that give {advice[loss]}"
    )
