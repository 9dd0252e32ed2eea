"""The notes of an outline: what to try next, what a pass owes to kinks, what limits the digits, and what it took."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from fastcheck.metrics import reach
from fastcheck.reports import layout
from fastcheck.reports.facts import Facts
from fastcheck.reports.layout import joined
from fastcheck.reports.tensor_report import TensorReport

NOTES = 3
"""Largest number of notes of a kind: of other advice, or of other tensors."""

FEW = 3
"""Failing entries that a report lists one by one in any case."""


def of(facts: Facts, shown: Sequence[tuple[str, TensorReport]]) -> Iterator[str]:
    """Yield all notes; ``shown`` are the tensors that did not pass."""
    yield from _forward_notes(facts)
    yield from _advice(shown)
    yield from _sweeps(facts)
    yield from _health(facts)
    yield from facts.notes
    yield from _ratios(facts)
    if facts.verdict == "pass":
        yield from _exceptions(facts)
        yield from _least_digits(facts)
        yield from _reach(facts)


def _forward_notes(facts: Facts) -> Iterator[str]:
    if facts.forward is not None and facts.forward.diagnosis is not None:
        known = facts.forward.diagnosis
        yield f"norm ratio {layout.short(facts.forward.norm_ratio)}: {known['evidence']}"
        if not known.get("shape", "all").startswith("all"):
            yield f"where: {known['shape']}"
        if known.get("gradients"):
            yield known["gradients"]
        yield f"try: {known['try']}"
        yield f"no gradient was judged, since {facts.other_function}"


def _advice(shown: Sequence[tuple[str, TensorReport]]) -> Iterator[str]:
    """Yield what is wrong where that is known, and what to try, once for all tensors of which it is said."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, tensor in shown:
        for note in _of_tensor(tensor):
            names.setdefault(note, []).append(name)
    several = len({tuple(those) for those in names.values()}) > 1
    for (title, words), those in list(names.items())[: 2 * NOTES]:
        yield f"{title} ({joined(those)}): {words}" if several else f"{title}: {words}"


def _of_tensor(tensor: TensorReport) -> Iterator[tuple[str, str]]:
    known = tensor.diagnosis or {}
    if known.get("evidence"):
        yield "this is", f"{known['bug']}; {known['evidence']}"
    if known.get("culprit"):
        yield "look first", known["culprit"]
    if known.get("shape") and FEW < tensor.beyond_error_bar < tensor.dims_checked:  # the first line says all of them
        yield "where", known["shape"]
    if advice := known.get("try") or tensor.advice:
        yield "try", advice


def _sweeps(facts: Facts) -> Iterator[str]:
    for name, tensor in facts.tensors.items():
        for swept in tensor.sweep:
            yield f"sweep of {name} {list(swept['index'])}: {swept['reading']}. {swept['words']}"


def _health(facts: Facts) -> Iterator[str]:
    for finding in facts.health:
        if finding is not facts.deciding:
            yield f"{finding.name}: {finding.words}" + f"; {finding.advice}" * bool(finding.advice)


def _ratios(facts: Facts) -> Iterator[str]:
    """Yield the ratios of pairs of arrays, which alone decide on them."""
    for name, tensor in list(facts.tensors.items())[:NOTES]:
        if tensor.evaluator is None:
            yield f"{name}: norm ratio {layout.short(tensor.norm_ratio)}, max ratio {layout.short(tensor.max_ratio)}"


def _exceptions(facts: Facts) -> Iterator[str]:
    """Yield the reasons of tensors that pass in part because of kinks, or of bars that are too wide."""
    special = [(name, tensor) for name, tensor in facts.tensors.items() if tensor.subgradients or tensor.undecided]
    for name, tensor in special[:NOTES]:
        yield f"{name}: {tensor.reason}"
    if len(special) > NOTES:
        yield f"and so for {len(special) - NOTES:,} more tensors"


def _least_digits(facts: Facts) -> Iterator[str]:
    """Yield the regime of the tensor with the fewest digits, or with none."""
    known = {name: tensor for name, tensor in facts.tensors.items() if tensor.regime}
    if known:
        name = min(known, key=lambda name: (known[name].digits["min"] is None, known[name].digits["min"] or 0.0))
        regime = known[name].regime.partition("; ")[0]
        yield f"fewest digits, {name}: {regime}" if len(known) > 1 else regime


def _reach(facts: Facts) -> Iterator[str]:
    """Yield what the smallest sample would have missed."""
    tensors = {name: tensor for name, tensor in facts.tensors.items() if not tensor.excluded and tensor.dims_checked}
    name = min(tensors, key=lambda name: tensors[name].dims_checked / tensors[name].dims_total, default="")
    if name and tensors[name].dims_checked < tensors[name].dims_total:
        yield reach.reach(tensors[name].dims_total, tensors[name].dims_checked, name)


def covered(directions: Mapping[str, Any]) -> list[str]:
    """Return what directions over all dimensions say beyond the dimensions that were differenced one by one."""
    if directions["failing"] or directions["chance_of_missing"] == 1:
        return []  # a finding says it
    limits = {name: limit for name, limit in directions["relative_limit"].items() if math.isfinite(limit)}
    worst = max(limits, key=lambda name: limits[name], default="")
    of = f" of {worst}" if len(directions["relative_limit"]) > 1 else ""
    seen = f"an entry{of} off by {limits[worst]:.0e} of a typical one" if worst else "no error of any size"
    return [
        f"{directions['count']:,} directions over all {directions['dims']:,} dimensions agree: {seen} would have been "
        f"seen, but for a chance of {directions['chance_of_missing']:.0e}"
    ]


def coloured(structure: Mapping[str, Any]) -> list[str]:
    """Return what it took to move entries together."""
    used = {name: one for name, one in structure.items() if one.get("colours")}
    lines = [
        f"{name}: {one['colours']:,} colour{'s' * (one['colours'] != 1)}, {one['structure']}"
        for name, one in list(used.items())[:NOTES]
    ]
    if used:
        calls, audited, alone, detecting = (
            sum(one.get(key, 0) for one in used.values()) for key in ("calls", "audited", "alone", "detecting")
        )
        lines.append(
            f"{calls:,} calls for these colours, {audited:,} of them with one entry, to verify the structure"
            + f"; {detecting:,} to find it" * bool(detecting)
            + f"; {alone:,} entr{'y was' if alone == 1 else 'ies were'} differenced alone" * bool(alone)
        )
    without = {name: one for name, one in structure.items() if one["structure"] is None}
    return lines + [
        f"{name}: no structure was found in {one['detecting']:,} calls" for name, one in list(without.items())[:NOTES]
    ]


def cost(tensors: Collection[TensorReport], run: Mapping[str, Any]) -> str:
    """Return how fast these tensors were differenced and how audited; empty if unknown, or if none was."""
    seconds = run.get("seconds")
    differenced = [tensor for tensor in tensors if tensor.evaluator not in (None, "directions")]
    if not seconds or not differenced:
        return ""
    checked, threads = sum(tensor.dims_checked for tensor in differenced), run["threads"]
    audit = audit_outcome(differenced)
    return (
        f"{checked:,} dimension{'s' * (checked != 1)} in {seconds:.2f} s on {threads} thread{'s' * (threads != 1)}, "
        f"{checked / seconds:,.0f} a second" + f"; audit: {audit}" * bool(audit)
    )


def audit_outcome(tensors: Collection[TensorReport]) -> str:
    """Return the outcome of the audits of these tensors; empty if there was none."""
    dims = sum(tensor.audit.get("dims", 0) for tensor in tensors)
    wrong = sum(tensor.audit.get("disagreements", 0) for tensor in tensors)
    return "" if not dims else f"{wrong:,} of {dims:,} disagree" if wrong else f"{dims:,} agree"
