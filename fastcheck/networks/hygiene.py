"""The good-practice checklist of a network's report: for each item, a line on what was done or is left to the user."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common.meanings import COUNTER
from fastcheck.common.naming import listed
from fastcheck.common.precision import UNITS, WIDE, U
from fastcheck.networks.case import NetworkCase, Point
from fastcheck.networks.layers import Dropout
from fastcheck.networks.network import Network, Penalty
from fastcheck.networks.program import ACTIVATIONS
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import HygieneLine
from fastcheck.reports.tensor_report import TensorReport

if TYPE_CHECKING:
    from fastcheck.networks.error_bars import Baseline
    from fastcheck.networks.penalty import Share

MANY_POINTS = 64
"""More data points than this make kinks likely, and show nothing more."""

FRESH = 0.05
"""Relative distance to the loss of a network that knows nothing, within which a point looks like an initialisation."""

SWAMPED = 1.0
"""Ratio of the regularisation's gradient norm to the data loss's above which the regularisation is too large."""

MOSTLY = 0.75
"""Fraction of zero dimensions above which a check shows little. In a relu network half of them often are zero."""

STOPPED = 1e-12
"""A unit passes no gradient on where this fraction, or less, of what reaches it is left."""

AMOUNTS = {
    1.0: "all of {}",
    0.0: "none of {}",
    0.5: "half of {}",
    2.0: "{} twice",
    -1.0: "{} with the opposite sign",
}
"""Words for the amount of regularisation in a gradient, by its factor."""

PENALTY = (
    "add l2 * w + l1 * sign(w), the gradient of l2 / 2 * sum(w^2) + l1 * sum(|w|), once (a loss with "
    "reg * sum(w^2) has l2 = 2 * reg, and 2 * reg * w in its gradient)"
)
"""The right amount of regularisation."""


@dataclass(frozen=True)
class Facts:
    """The facts that the checklist is written from.

    Attributes
    ----------
    network, point, baseline, penalties
        What was checked.
    cases : mapping of str to NetworkCase
        The phases' cases, by name.
    reports : mapping of str to Report
        The phases' reports, by name.
    requested_step : float or "auto"
    total : int
        Number of data points that were given.
    burn_in : int
    shares : mapping of str to Share
        Share of the regularisation in every regularised tensor's gradient.
    data_shares : mapping of str to Share
        The same for the data loss's gradients, where they were given.
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
    """Return the lines of the checklist."""
    return (
        _precision(facts),
        HygieneLine(
            "differences", "done", "two-sided, (f(w + h) - f(w - h)) / 2h, with one-sided ones beside them at kinks"
        ),
        _step(facts),
        _points(facts),
        _point(facts),
        _regularisation(facts),
        *_swamped(facts),
        _dropout(facts),
        *_ignored(facts),
        *([_sampling(facts), _kinks(facts)] if _tensors(facts) else []),
        *_statistics(facts),
        *(list(_vanishing(facts)) or _nothing_shown(facts)),
    )


def _tensors(facts: Facts) -> list[TensorReport]:
    """Return the last phase's tensors; none where a wrong loss ended the check."""
    return list(list(facts.reports.values())[-1].tensors.values())


def _precision(facts: Facts) -> HygieneLine:
    gradients = [(case, name) for case in facts.cases.values() for name in case.grads]
    computed = {case.precision_of(name) for case, name in gradients} - {"float64"}
    stored = {case.grads[name].dtype.name for case, name in gradients if name not in case.bfloat16}
    narrow = sorted(computed | stored - {"float64"})
    if not narrow:
        return HygieneLine(
            "double precision", "done", "everything is evaluated in float64, and the gradients are float64"
        )
    message = (
        f"everything is evaluated in float64; the gradients are {' and '.join(narrow)}, and the error bars include "
        "that rounding"
    )
    make = "compute" if computed else "keep"
    return HygieneLine("double precision", "note", f"{message}: {make} them in float64 to see more digits")


def _unit(facts: Facts) -> float:
    """Return the unit round-off of the gradients' coarsest precision; float64's where no gradient is checked."""
    return max((UNITS[case.precision_of(name)] for case in facts.cases.values() for name in case.grads), default=U)


def _step(facts: Facts) -> HygieneLine:
    if facts.requested_step != "auto":
        return HygieneLine(
            "step", "note", f"h = {facts.requested_step:g}, as given; step='auto' chooses one for each tensor"
        )
    steps = [tensor.step for report in facts.reports.values() for tensor in report.tensors.values() if tensor.step]
    span = f", {min(steps):.2g} to {max(steps):.2g}" if steps else ""
    return HygieneLine(
        "step",
        "done",
        f"for each tensor a power of two that perturbs its layer's results by about 2^-17 of their size{span}: "
        "rounding and truncation are about equal there, and few units cross a kink",
    )


def _points(facts: Facts) -> HygieneLine:
    from fastcheck.networks import blind

    used = len(facts.point.x)
    why = "every data point adds units that may lie near a kink, and the gradient's code is the same for each"
    message = f"a seeded {used} of {facts.total:,}" if used < facts.total else f"all {used:,} that were given"
    if blind.all_equal(facts.point.x):
        return HygieneLine(
            "data points",
            "warn",
            f"{message}; all are identical, so they show no more than one would: use different data points",
        )
    if facts.total == 1:
        words = "the only one that was given, which shows no mistake in a mean over data points or in their order"
        return HygieneLine("data points", "warn", f"{words}: use a few")
    if used > MANY_POINTS:
        return HygieneLine("data points", "warn", f"{message}; a few are enough, say 4 to 16: {why}")
    return HygieneLine("data points", "done", f"{message}: {why}")


def _point(facts: Facts) -> HygieneLine:
    done = f"after {facts.burn_in} steps of SGD" if facts.burn_in else "at the parameters given"
    if not _fresh(facts):
        return HygieneLine("not at initialisation", "done", done)
    return HygieneLine(
        "not at initialisation",
        "warn",
        f"{done}, which look like an initialisation ({_why_fresh(facts)}): gradients there are unlike those during "
        "training and can hide a mistake. Train for a few steps first, or use burn_in",
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
    """Return the number of classes."""
    return facts.baseline.passes.program.nodes[-1].entries


def _why_fresh(facts: Facts) -> str:
    if _knows_nothing(facts):
        return f"the loss is near ln {_classes(facts)}, the loss of a network that knows nothing"
    return "all biases are zero"


def _regularisation(facts: Facts) -> HygieneLine:
    if not facts.penalties:
        return HygieneLine("regularisation", "done", "none; one phase, the data loss")
    shares = ", ".join(f"{name} {share:.1g}" for name, share in _shares(facts).items())
    message = f"off first, then on; ratio of its gradient's norm to the data loss's: {shares}"
    wrong = [f"The gradients of {names} contain {amount}" for amount, names in _amounts(facts).items()]
    kept = [name for name, share in facts.data_shares.items() if share.explains and (share.l2 or share.l1)]
    advice = [PENALTY] * bool(wrong)
    if kept:
        wrong.append(f"The data_grads of {listed(kept)} contain regularisation")
        advice.append("data_grads must be those of the data loss alone")
    if not wrong:
        return HygieneLine("regularisation", "done", message)
    return HygieneLine("regularisation", "warn", f"{message}. {'. '.join(wrong)}: {'; '.join(advice)}")


def _amounts(facts: Facts) -> dict[str, str]:
    """Return the tensors whose gradients contain a wrong amount of regularisation, by that amount in words."""
    data, whole = (list(facts.reports.values())[phase].tensors for phase in (0, -1))
    tensors: dict[str, list[str]] = {}
    for name, share in facts.shares.items():
        if share.wrong:
            tensors.setdefault(_amount(share, facts.penalties[name]), []).append(name)
        elif name in whole and whole[name].verdict == "fail" and data[name].verdict == "pass":
            tensors.setdefault("something other than all of the regularisation", []).append(name)
    return {amount: listed(names) for amount, names in tensors.items()}


def _amount(share: Share, penalty: Penalty) -> str:
    """Return the amount of a tensor's regularisation in its gradient, in words."""
    if share.l2 == share.l1 or not (penalty.l2 and penalty.l1):
        return AMOUNTS[share.l2].format("the regularisation") if share.l2 else "no regularisation"
    return " and ".join(
        AMOUNTS[factor].format(f"the {kind} term") for factor, kind in ((share.l2, "l2"), (share.l1, "l1"))
    )


def _shares(facts: Facts) -> dict[str, float]:
    from fastcheck.networks.penalty import gradient

    named = facts.baseline.passes.named(facts.baseline.gradient)
    shares = {}
    for name, penalty in facts.penalties.items():
        own = gradient(penalty, facts.point.params[name])
        with np.errstate(over="ignore"):
            size, data = (float(np.linalg.norm(part)) for part in (own, named[name]))
        shares[name] = size / data if data else math.inf if size else 0.0
    return shares


def _swamped(facts: Facts) -> Iterator[HygieneLine]:
    names = [name for name, share in _shares(facts).items() if share > SWAMPED]
    if names:
        yield HygieneLine(
            "regularisation's size",
            "warn",
            f"the regularisation swamps the data loss in {listed(names)}: with both on, a wrong gradient of the "
            "data loss would hardly show; rely on the first phase there",
        )


def _dropout(facts: Facts) -> HygieneLine:
    layers = {str(layer.name): layer.p for layer in facts.network.layers if isinstance(layer, Dropout)}
    if not layers:
        return HygieneLine("dropout", "done", "the network has none")
    frozen = [name for name in layers if name in facts.point.masks]
    off = [name for name, p in layers.items() if p and name not in facts.point.masks]
    if not (frozen or off):
        return HygieneLine("dropout", "done", f"p is 0 in {listed(layers)}, which let everything through")
    notes = [f"mask frozen in {listed(frozen)}: the same at +h, at -h and in the analytic pass"] * bool(frozen)
    if not off:
        return HygieneLine("dropout", "done", *notes)
    data_loss = next(iter(facts.reports.values()))  # regularisation does not depend on masks
    notes.append(
        f"off in {listed(off)}, which let everything through: gradients computed with a mask belong to another "
        "function; pass the mask as masks= (mask.NAME in data.npz)"
    )
    return HygieneLine("dropout", "warn" if data_loss.verdict == "fail" else "note", "; ".join(notes))


def _ignored(facts: Facts) -> Iterator[HygieneLine]:
    counters = [name for name in facts.point.ignored if name.endswith(COUNTER)]
    statistics = [name for name in facts.point.ignored if name not in counters]
    if counters:
        text = f"{listed(counters)} ignored: they count batches, and no result needs them"
        yield HygieneLine("parameters", "note", text)
    if statistics:
        text = f"{listed(statistics)} ignored: in training the batch has its own; frozen=True (frozen = true) uses them"
        yield HygieneLine("parameters", "note", text)


def _sampling(facts: Facts) -> HygieneLine:
    tensors = _tensors(facts)
    checked, total = (sum(getattr(one, name) for one in tensors) for name in ("dims_checked", "dims_total"))
    if checked == total:
        return HygieneLine("dimensions", "done", f"all {total:,} of {len(tensors)} tensors")
    return HygieneLine(
        "dimensions",
        "done",
        f"{checked:,} of {total:,}, sampled tensor by tensor, so that weights do not crowd out biases",
    )


def _kinks(facts: Facts) -> HygieneLine:
    tensors = _tensors(facts)
    kinks, checked, excluded = (
        sum(getattr(one, name) for one in tensors) for name in ("kinks", "dims_checked", "excluded")
    )
    retried = " (after smaller steps, where those avoid it)" if facts.requested_step == "auto" else ""
    message = f"{kinks:,} of {checked + excluded:,} dimensions cross one{retried}"
    if excluded:
        return HygieneLine("kinks", "note", f"{message}; {excluded:,} were left out")
    if kinks:
        return HygieneLine("kinks", "note", f"{message}; their error bars include what the crossing can change")
    return HygieneLine("kinks", "done", message)


def _statistics(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where a normalisation takes the variance of a single value."""
    from fastcheck.networks import blind

    finding = blind.statistics(facts.baseline, _unit(facts))
    if finding is not None:
        zeros = f", and the gradients of {listed(finding.tensors)} are zero but for rounding, which it amplifies"
        message = f"{finding.words}: eps alone decides there{zeros * bool(finding.tensors)}"
        yield HygieneLine(finding.name, "warn", f"{message}. {finding.advice.capitalize()}")


def _vanishing(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where the loss has nothing to gain and no dimension of its gradient can be judged."""
    from fastcheck.networks import blind

    finding = blind.saturated(facts.baseline.passes, _unit(facts))
    tensors = next(iter(facts.reports.values())).tensors.values()
    if finding is not None and all(max(one.unresolved, one.undecided) == one.dims_checked for one in tensors):
        message = f"{finding.words}: all gradients vanish here, and a wrong one would look right"
        yield HygieneLine(finding.name, "warn", f"{message}. {finding.advice.capitalize()}")


def _nothing_shown(facts: Facts) -> Iterator[HygieneLine]:
    """Warn where most of the data loss's gradient is zero, or all of a tensor in which zeros are not normal."""
    tensors = next(iter(facts.reports.values())).tensors
    zeros = {name: _zeros(tensor, facts.baseline.natural_slope(name)) for name, tensor in tensors.items()}
    checked = sum(tensor.dims_checked for tensor in tensors.values())
    whole = [name for name, tensor in tensors.items() if tensor.dims_checked and zeros[name] == tensor.dims_checked]
    # A normalisation cancels the bias before it in every correct network: it is enough that the weight shows something.
    odd = [name for name in whole if not name.endswith(".bias")]
    if not checked or not (odd or sum(zeros.values()) > MOSTLY * checked):
        return
    named = f", all of {listed(whole)}" * bool(whole)
    yield HygieneLine(
        "what was shown",
        "warn",
        f"{sum(zeros.values()):,} of {checked:,} dimensions are zero within their error bars{named}: correct and "
        f"wrong code would both give zero here, so these show nothing. {_why_zero(facts, whole)}",
    )


def _zeros(tensor: TensorReport, slope: float) -> int:
    """Count the dimensions whose values are both zero within bars that are small beside the network's slopes.

    Dimensions at a kink do not count, since their bars hold its slopes; nor do inconclusive ones with too wide a bar.
    """
    if tensor.verdict == "fail":
        return 0
    too_wide = "widest" in tensor.explained and tensor.explained["widest"]["error_bar"] > WIDE * slope
    return max(0, tensor.unresolved - tensor.at_kink - tensor.undecided * too_wide)


def _why_zero(facts: Facts, whole: list[str]) -> str:
    """Return what stops the gradient, and what to try; ``whole`` are the tensors that show nothing."""
    from fastcheck.networks import blind

    passing = {name: (np.count_nonzero(mask), mask.size) for name, mask in facts.point.masks.items()}
    if closed := {name: counts for name, counts in passing.items() if counts[0] < (1 - MOSTLY) * counts[1]}:
        listing = ", ".join(f"{count:,} of {of:,} entries of {name}" for name, (count, of) in closed.items())
        return f"The mask lets only {listing} through: take another one"
    blinding = blind.statistics(facts.baseline, _unit(facts))
    if blinding is not None and set(whole) & set(blinding.tensors):
        return f"The gradient stops where {blinding.words}: {blinding.advice}"
    if stopped := _stopped(facts):
        listing = ", ".join(f"{count} of {of} units of {name}" for name, (count, of) in stopped.items())
        return (
            f"{listing} are dead or saturated for all data points: take other data points, another initialisation or "
            "a burn_in"
        )
    blank = [name for name, array in facts.point.params.items() if name.endswith(".weight") and not array.any()]
    if blank:
        return f"{listed(blank)} is zero, and stops all gradients before it: take other parameters, or a burn_in"
    if any(layer.kind.endswith("_norm") for layer in facts.network.layers):
        return (
            "A normalisation cancels the shift and scale of the layers before it, and a loss that weighs its results "
            "equally sees nothing of them: check other tensors as well, and take targets that differ from one another"
        )
    return "Take other data points, targets or parameters"


def _stopped(facts: Facts) -> dict[str, tuple[int, int]]:
    """Return, for every activation that has such units, how many of how many let no gradient through."""
    from fastcheck.networks.passes import lanes

    passes, stopped = facts.baseline.passes, {}
    for activation, node in enumerate(passes.program.nodes):
        if node.kind not in ACTIVATIONS:
            continue
        before, after = (
            np.max([np.abs(lanes(passes, chunk, chunk.cotangents, row)).max((1, 2)) for chunk in passes.chunks], axis=0)
            for row in (node.columns["a"], activation)
        )
        count = int(np.count_nonzero((after > 0) & (before <= STOPPED * after)))
        if count:
            stopped[passes.program.layer_name(activation)] = (count, len(after))
    return stopped
