"""The hygiene panel: what good practice asks for, a line each, with what was done or what the user should do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common.naming import listed
from fastcheck.common.precision import UNITS, WIDE, U
from fastcheck.networks.case import NetworkCase, Point
from fastcheck.networks.layers import Dropout
from fastcheck.networks.network import Network, Penalty
from fastcheck.networks.program import ACTIVATIONS
from fastcheck.reports.report import Report, TensorReport
from fastcheck.reports.suite_report import HygieneLine

if TYPE_CHECKING:
    from fastcheck.networks.error_bars import Baseline
    from fastcheck.networks.penalty import Share

MANY_POINTS = 64
"""More data points than this make kinks likely, and tell nothing more."""

FRESH = 0.05
"""A loss this near to that of a network that knows nothing, as a part of it, looks like its initialisation."""

SWAMPED = 1.0
"""Regularisation is too large where its gradient's norm is so many times the data loss's."""

MOSTLY = 0.75
"""Most of what was checked is zero where this part of the dimensions is. Half of a relu network often is."""

STOPPED = 1e-12
"""A unit whose gradient falls to this part of what reaches it passes none on."""

AMOUNTS = {
    1.0: "all of {}",
    0.0: "nothing of {}",
    0.5: "half of {}",
    2.0: "{} twice",
    -1.0: "{} with the opposite sign",
}
"""How much of the regularisation a gradient has, by its factor."""

PENALTY = (
    "l2 * w + l1 * sign(w), the gradient of l2 / 2 * sum(w^2) + l1 * sum(|w|), is to be added once (a loss with "
    "reg * sum(w^2) has l2 = 2 * reg, and 2 * reg * w in its gradient)"
)
"""What the regularisation is."""


@dataclass(frozen=True)
class Facts:
    """What the panel tells of.

    Attributes
    ----------
    network, point, ground, penalties
        What was checked.
    cases : mapping of str to NetworkCase
        Of the phases, by name.
    reports : mapping of str to Report
        Of the phases, by name.
    requested_step : float or "auto"
    total : int
        Data points that were given.
    burn_in : int
    shares : mapping of str to Share
        How much of its regularisation is in every regularised tensor's gradient.
    data_shares : mapping of str to Share
        The same of the data loss's gradients, where they were given.
    """

    network: Network
    point: Point
    baseline: Baseline
    penalties: Mapping[str, Penalty]
    cases: Mapping[str, NetworkCase]
    reports: Mapping[str, Report]
    requested_step: Any
    total: int
    burn_in: int
    shares: Mapping[str, Share]
    data_shares: Mapping[str, Share]


def panel(facts: Facts) -> tuple[HygieneLine, ...]:
    """Return the lines of the panel."""
    return (
        _precision(facts),
        HygieneLine(
            "differences", "done", "two-sided, (f(w + h) - f(w - h)) / 2h, and one-sided ones beside them at kinks"
        ),
        _step(facts),
        _points(facts),
        _point(facts),
        _regularisation(facts),
        *_swamped(facts),
        _dropout(facts),
        *([_sampling(facts), _kinks(facts)] if _tensors(facts) else []),
        *_statistics(facts),
        *(list(_vanishing(facts)) or _nothing_shown(facts)),
    )


def _tensors(facts: Facts) -> list[TensorReport]:
    """Return the tensors of the last phase; none where a wrong loss ended the check."""
    return list(list(facts.reports.values())[-1].tensors.values())


def _precision(facts: Facts) -> HygieneLine:
    gradients = [(case, name) for case in facts.cases.values() for name in case.grads]
    computed = {case.precision_of(name) for case, name in gradients} - {"float64"}
    narrow = sorted(computed | {case.grads[name].dtype.name for case, name in gradients} - {"float64"})
    if not narrow:
        return HygieneLine("double precision", "done", "all is evaluated in float64, and the gradients are float64")
    message = (
        f"all is evaluated in float64; the gradients are {' and '.join(narrow)}, whose rounding is in the error bars"
    )
    make = "compute" if computed else "keep"
    return HygieneLine("double precision", "note", f"{message}: {make} them in float64 to see more digits")


def _unit(facts: Facts) -> float:
    """Return the unit round-off of the gradients' coarsest precision, that of float64 where none is checked."""
    return max((UNITS[case.precision_of(name)] for case in facts.cases.values() for name in case.grads), default=U)


def _step(facts: Facts) -> HygieneLine:
    if facts.requested_step != "auto":
        return HygieneLine(
            "step", "note", f"h = {facts.requested_step:g} as given; step='auto' chooses one for each tensor"
        )
    steps = [tensor.step for report in facts.reports.values() for tensor in report.tensors.values() if tensor.step]
    span = f", {min(steps):.2g} to {max(steps):.2g}" if steps else ""
    return HygieneLine(
        "step",
        "done",
        f"a power of two for each tensor that moves its layer's results by about 2^-17 of their size{span}: "
        "rounding and truncation are about equal there, and few units cross a kink",
    )


def _points(facts: Facts) -> HygieneLine:
    from fastcheck.networks import blind

    used = len(facts.point.x)
    why = "every data point adds units that may lie near a kink, and the gradient's code is the same for each"
    message = f"a seeded {used} of {facts.total:,}" if used < facts.total else f"all {used:,} that were given"
    if blind.all_equal(facts.point.x):
        return HygieneLine(
            "data points", "warn", f"{message}, which are equal, and show what one of them does; take some that differ"
        )
    if used > MANY_POINTS:
        return HygieneLine("data points", "warn", f"{message}; take a few, 4 to 16 say: {why}")
    return HygieneLine("data points", "done", f"{message}: {why}")


def _point(facts: Facts) -> HygieneLine:
    done = f"after {facts.burn_in} steps of SGD" if facts.burn_in else "at the parameters given"
    if not _fresh(facts):
        return HygieneLine("not at initialisation", "done", done)
    return HygieneLine(
        "not at initialisation",
        "warn",
        f"{done}, which look like an initialisation ({_why_fresh(facts)}): gradients there are unlike those of "
        "training and can hide a mistake. Train for a few steps first, or by burn_in",
    )


def _fresh(facts: Facts) -> bool:
    return _knows_nothing(facts) or _zero_biases(facts)


def _zero_biases(facts: Facts) -> bool:
    biases = [array for name, array in facts.point.params.items() if name.endswith(".bias")]
    return bool(biases) and not any(array.any() for array in biases)


def _knows_nothing(facts: Facts) -> bool:
    if facts.network.loss != "softmax_cross_entropy":
        return False
    blank, passes = math.log(_classes(facts)), facts.baseline.passes
    loss = passes.loss() if facts.network.reduction == "mean" else passes.loss() / len(facts.point.x)
    return abs(loss - blank) < FRESH * blank


def _classes(facts: Facts) -> int:
    """Return how many classes the network tells apart."""
    return facts.baseline.passes.program.nodes[-1].entries


def _why_fresh(facts: Facts) -> str:
    if _knows_nothing(facts):
        return f"the loss is near ln {_classes(facts)}, that of a network that knows nothing"
    return "all biases are zero"


def _regularisation(facts: Facts) -> HygieneLine:
    if not facts.penalties:
        return HygieneLine("regularisation", "done", "none; one phase, the data loss")
    shares = ", ".join(f"{name} {share:.1g}" for name, share in _shares(facts).items())
    message = f"off first, then on; its gradient's norm as a part of the data loss's: {shares}"
    wrong = [f"The gradients of {names} have {amount} in them" for amount, names in _amounts(facts).items()]
    kept = [name for name, share in facts.data_shares.items() if share.explains and (share.l2 or share.l1)]
    advice = [PENALTY] * bool(wrong)
    if kept:
        wrong.append(f"The data_grads of {listed(kept)} have regularisation in them")
        advice.append("data_grads are those of the data loss alone")
    if not wrong:
        return HygieneLine("regularisation", "done", message)
    return HygieneLine("regularisation", "warn", f"{message}. {'. '.join(wrong)}: {'; '.join(advice)}")


def _amounts(facts: Facts) -> dict[str, str]:
    """Return the tensors that have something else in their gradients than their regularisation, by what that is."""
    data, whole = (list(facts.reports.values())[place].tensors for place in (0, -1))
    found: dict[str, list[str]] = {}
    for name, share in facts.shares.items():
        if share.wrong:
            found.setdefault(_amount(share, facts.penalties[name]), []).append(name)
        elif name in whole and whole[name].verdict == "fail" and data[name].verdict == "pass":
            found.setdefault("something other than all of the regularisation", []).append(name)
    return {amount: listed(names) for amount, names in found.items()}


def _amount(share: Share, penalty: Penalty) -> str:
    """Return in words how much of a tensor's regularisation is in its gradient."""
    if share.l2 == share.l1 or not (penalty.l2 and penalty.l1):
        return AMOUNTS[share.l2].format("the regularisation") if share.l2 else "no regularisation"
    return " and ".join(
        AMOUNTS[factor].format(f"the {kind} term") for factor, kind in ((share.l2, "l2"), (share.l1, "l1"))
    )


def _shares(facts: Facts) -> dict[str, float]:
    from fastcheck.networks.penalty import gradient

    named = facts.baseline.passes.named(facts.baseline.gradient)
    found = {}
    for name, penalty in facts.penalties.items():
        own = gradient(penalty, facts.point.params[name])
        with np.errstate(over="ignore"):
            size, data = (float(np.linalg.norm(part)) for part in (own, named[name]))
        found[name] = size / data if data else math.inf if size else 0.0
    return found


def _swamped(facts: Facts) -> Iterator[HygieneLine]:
    names = [name for name, share in _shares(facts).items() if share > SWAMPED]
    if names:
        yield HygieneLine(
            "regularisation's size",
            "warn",
            f"the regularisation swamps the data loss in {listed(names)}: with both on, a wrong gradient of the "
            "data loss would hardly show; go by the first phase there",
        )


def _dropout(facts: Facts) -> HygieneLine:
    layers = {str(layer.name): layer.p for layer in facts.network.layers if isinstance(layer, Dropout)}
    if not layers:
        return HygieneLine("dropout", "done", "the network has none")
    frozen = [name for name in layers if name in facts.point.masks]
    off = [name for name, p in layers.items() if p and name not in facts.point.masks]
    if not (frozen or off):
        return HygieneLine("dropout", "done", f"p is 0 in {listed(layers)}, which pass on all that they get")
    message = [f"the mask frozen in {listed(frozen)}, the same at +h, at -h and in the analytic pass"] * bool(frozen)
    if not off:
        return HygieneLine("dropout", "done", *message)
    data_loss = next(iter(facts.reports.values()))  # regularisation knows no masks
    message.append(
        f"off in {listed(off)}, which pass on all that they get: gradients that were computed with a mask are those "
        "of another function; give it as masks= (mask.NAME in data.npz)"
    )
    return HygieneLine("dropout", "warn" if data_loss.verdict == "fail" else "note", "; ".join(message))


def _sampling(facts: Facts) -> HygieneLine:
    tensors = _tensors(facts)
    checked, total = (sum(getattr(one, name) for one in tensors) for name in ("dims_checked", "dims_total"))
    if checked == total:
        return HygieneLine("dimensions", "done", f"all {total:,} of {len(tensors)} tensors")
    return HygieneLine(
        "dimensions",
        "done",
        f"{checked:,} of {total:,}, sampled for each tensor by itself, so that biases are not drowned by weights",
    )


def _kinks(facts: Facts) -> HygieneLine:
    tensors = _tensors(facts)
    kinks, checked, excluded = (
        sum(getattr(one, name) for one in tensors) for name in ("kinks", "dims_checked", "excluded")
    )
    retried = " (after smaller steps where that got away from them)" if facts.requested_step == "auto" else ""
    message = f"{kinks:,} of {checked + excluded:,} dimensions cross one{retried}"
    if excluded:
        return HygieneLine("kinks", "note", f"{message}; {excluded:,} were left out")
    if kinks:
        return HygieneLine("kinks", "note", f"{message}; their error bars are wider by what the crossing can change")
    return HygieneLine("kinks", "done", message)


def _statistics(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where a normalisation takes the variance of one value."""
    from fastcheck.networks import blind

    found = blind.statistics(facts.baseline, _unit(facts))
    if found is not None:
        zeros = f", and the gradients of {listed(found.tensors)} are zero but for rounding, which it makes larger"
        message = f"{found.words}: eps alone decides there{zeros * bool(found.tensors)}"
        yield HygieneLine(found.name, "warn", f"{message}. {found.advice.capitalize()}")


def _vanishing(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where the loss has nothing to gain, and no dimension of its gradient can be judged."""
    from fastcheck.networks import blind

    found = blind.saturated(facts.baseline.passes, _unit(facts))
    tensors = next(iter(facts.reports.values())).tensors.values()
    if found is not None and all(max(one.unresolved, one.undecided) == one.dims_checked for one in tensors):
        message = f"{found.words}: all gradients vanish here, and a wrong one would look right"
        yield HygieneLine(found.name, "warn", f"{message}. {found.advice.capitalize()}")


def _nothing_shown(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where most of the data loss's gradient is zero, or all of a tensor whose zeros are no rule."""
    tensors = next(iter(facts.reports.values())).tensors
    zeros = {name: _zeros(tensor, facts.baseline.natural_slope(name)) for name, tensor in tensors.items()}
    checked = sum(tensor.dims_checked for tensor in tensors.values())
    whole = [name for name, tensor in tensors.items() if tensor.dims_checked and zeros[name] == tensor.dims_checked]
    # A normalisation takes away the bias before it, in every right network: what its weight shows is enough.
    odd = [name for name in whole if not name.endswith(".bias")]
    if not checked or not (odd or sum(zeros.values()) > MOSTLY * checked):
        return
    named = f", all of {listed(whole)}" * bool(whole)
    yield HygieneLine(
        "what was shown",
        "warn",
        f"{sum(zeros.values()):,} of {checked:,} dimensions are zero within their error bars{named}: right and wrong "
        f"code give the same zeros here, and show nothing. {_why_zero(facts, whole)}",
    )


def _zeros(tensor: TensorReport, slope: float) -> int:
    """Count the dimensions whose values are both zero within bars that are small beside the network's slopes.

    The bars of those at a kink hold its slopes, and those that are undecided are not all unresolved.
    """
    if tensor.verdict == "fail":
        return 0
    wide = "widest" in tensor.explained and tensor.explained["widest"]["error_bar"] > WIDE * slope
    return max(0, tensor.unresolved - tensor.at_kink - tensor.undecided * wide)


def _why_zero(facts: Facts, whole: list[str]) -> str:
    """Return what stops the gradient, and what would show something; ``whole`` are tensors that show nothing."""
    from fastcheck.networks import blind

    passing = {name: (np.count_nonzero(mask), mask.size) for name, mask in facts.point.masks.items()}
    if closed := {name: found for name, found in passing.items() if found[0] < (1 - MOSTLY) * found[1]}:
        message = ", ".join(f"{count:,} of {of:,} entries of {name}" for name, (count, of) in closed.items())
        return f"The mask lets {message} through: take another one"
    blinding = blind.statistics(facts.baseline, _unit(facts))
    if blinding is not None and set(whole) & set(blinding.tensors):
        return f"The gradient stops where {blinding.words}: {blinding.advice}"
    if stopped := _stopped(facts):
        message = ", ".join(f"{count} of {of} units of {name}" for name, (count, of) in stopped.items())
        return f"{message} are dead or saturated for all data points: take others, another initialisation or a burn_in"
    blank = [name for name, array in facts.point.params.items() if name.endswith(".weight") and not array.any()]
    if blank:
        return f"{listed(blank)} is zero, and stops what comes before it: take other parameters, or a burn_in"
    if any(layer.kind in ("batch_norm", "layer_norm") for layer in facts.network.layers):
        return (
            "A normalisation takes away how the layers before it shift and scale, and a loss that weighs its results "
            "alike sees nothing of them: check other tensors as well, and take targets that differ from one another"
        )
    return "Take other data points, targets or parameters"


def _stopped(facts: Facts) -> dict[str, tuple[int, int]]:
    """Return for every activation how many of how many units let no gradient through, where there are any."""
    from fastcheck.networks.passes import lanes

    passes, found = facts.baseline.passes, {}
    for place, node in enumerate(passes.program.nodes):
        if node.kind not in ACTIVATIONS:
            continue
        before, after = (
            np.max([np.abs(lanes(passes, chunk, chunk.cotangents, row)).max((1, 2)) for chunk in passes.chunks], axis=0)
            for row in (node.columns["a"], place)
        )
        count = int(np.count_nonzero((after > 0) & (before <= STOPPED * after)))
        if count:
            found[passes.program.layer_name(place)] = (count, len(after))
    return found
