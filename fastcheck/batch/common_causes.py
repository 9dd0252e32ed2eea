"""What the failing cases of a suite have in common, and none of its passing ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fastcheck.common.naming import printable
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, every_tensor, phases_of

Case = Report | NetworkReport

MOST_VALUES = 3
"""Values of one property that are listed: "stride 2 or 3"."""

MOST_PROPERTIES = 3
"""Properties that are listed, each of which no passing case has."""


def in_common(cases: Mapping[str, Case], names: Collection[str] | None = None) -> str:
    """Return what failing cases have in common, as a line; empty if there is nothing to say.

    The line names properties of the operands (a stride, a kernel size, a precision, ...) that all failing cases have
    and no passing case has: each by itself, or else two of them together. It names tensors that fail in every failing
    case, if others pass there.

    Parameters
    ----------
    cases : mapping of str to Report or NetworkReport
    names : collection of str, optional
        Cases that began to fail, to be looked at alone; by default all that fail.
    """
    failing = [case for name, case in cases.items() if case.verdict == "fail" and (names is None or name in names)]
    if len(failing) < 2:
        return ""
    properties = _properties(failing, [case for case in cases.values() if case.passed])
    tensors = _tensors(failing)
    if not properties and not tensors:
        return ""
    count = "both" if len(failing) == 2 else f"all {len(failing):,}"
    own = f" {_joined(properties)}" if properties else ""
    always = f"{';' if properties else ':'} always {' and '.join(tensors)}" if tensors else ""
    return printable(f"{count} that {'fail' if names is None else 'began to fail'}{own}{always}")


class _Property(NamedTuple):
    """What all failing cases have, and which of the passing cases have it too, by their number."""

    verb: str
    words: str
    shared: frozenset[int]


_Operands = Mapping[str, Any]


class _Trait(NamedTuple):
    """A property of a case's operands.

    Attributes
    ----------
    verb, words : str
        "have" and "stride {}": in place of the braces come the values that all failing cases have.
    value : callable
        Called as value(operands); returns the property's value.
    """

    verb: str
    words: str
    value: Callable[[_Operands], str | bool]


def _each(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _padding(operands: _Operands) -> str:
    sides = [tuple(pair) for pair in operands["padding"]]
    if all(low == high for low, high in sides):
        return _each([low for low, _ in sides])
    return "x".join(f"{low}:{high}" for low, high in sides)


def _is_depthwise(operands: _Operands) -> bool:
    return bool(1 < operands["groups"] == operands["input"][1])


_TRAITS: Sequence[Sequence[_Trait]] = (
    (
        _Trait("have", "stride {}", lambda one: _each(one["stride"])),
        _Trait("have", "a stride above 1", lambda one: max(one["stride"]) > 1),
    ),
    (
        _Trait("have", "dilation {}", lambda one: _each(one["dilation"])),
        _Trait("have", "a dilation above 1", lambda one: max(one["dilation"]) > 1),
    ),
    (
        _Trait("have", "padding {}", _padding),
        _Trait("have", "padding", lambda one: max(map(max, one["padding"])) > 0),
        _Trait("have", "padding that differs between two sides", lambda one: ":" in _padding(one)),
    ),
    (
        _Trait("have", "kernel size {}", lambda one: _each(one["weight"][2:])),
        _Trait("have", "a kernel size above 1", lambda one: max(one["weight"][2:]) > 1),
    ),
    (
        _Trait("are", "depthwise", _is_depthwise),
        _Trait("have", "{} groups", lambda one: str(one["groups"])),
        _Trait("have", "several groups", lambda one: one["groups"] > 1),
    ),
    (_Trait("have", "{} spatial axes", lambda one: str(len(one["stride"]))),),
    (_Trait("have", "loss {}", lambda one: str(one["loss"])),),
    (_Trait("are", "{}", lambda one: str(one["precision"])),),
    (_Trait("have", "one data point", lambda one: one["input"][0] == 1),),
)
"""Properties that are looked at. Of each group, the first one that no passing case has is named."""


def _properties(failing: Sequence[Case], passing: Sequence[Case]) -> list[_Property]:
    """Return what all failing cases have and no passing case has: properties one by one, or else a pair of them."""
    theirs, others = [_operands(case) for case in failing], [_operands(case) for case in passing]
    known = [operands for operands in others if operands]
    if not all(theirs) or not known:
        return []
    groups = [[one for trait in group if (one := _shared(trait, theirs, known))] for group in _TRAITS]
    alone = [next((one for one in group if not one.shared), None) for group in groups]
    found = [one for one in alone if one is not None]
    if found:
        return found[:MOST_PROPERTIES]
    for first, second in itertools.combinations(groups, 2):
        for pair in itertools.product(first, second):
            if not pair[0].shared & pair[1].shared:
                return list(pair)
    return []


def _operands(case: Case) -> _Operands:
    """Return the operands of a convolution; nothing for other cases."""
    operands = next(iter(phases_of(case).values())).operands or {}
    return operands if {"input", "weight", "stride", "padding", "dilation", "groups"} <= operands.keys() else {}


def _shared(trait: _Trait, failing: Sequence[_Operands], passing: Sequence[_Operands]) -> _Property | None:
    """Return a trait as a property of all failing cases; None if they have too many values of it to call it one."""
    try:
        values = {trait.value(operands) for operands in failing}
        shared = frozenset(number for number, operands in enumerate(passing) if trait.value(operands) in values)
    except (KeyError, TypeError, ValueError, IndexError):  # a report of another version, or a damaged one
        return None
    few = len(values) == 1 or len(values) <= min(MOST_VALUES, len(failing) // 2)
    if not few or False in values:
        return None
    listed = sorted(map(str, values), key=lambda value: (len(value), value))
    words = f"{', '.join(listed[:-1])} or {listed[-1]}" if len(listed) > 1 else listed[0]
    return _Property(trait.verb, trait.words.format(words), shared)


def _joined(properties: Sequence[_Property]) -> str:
    parts, verb = [], ""
    for one in properties:
        parts.append(one.words if one.verb == verb else f"{one.verb} {one.words}")
        verb = one.verb
    return " and ".join(parts)


def _tensors(failing: Sequence[Case]) -> list[str]:
    """Return the tensors that fail in every case; none if nothing else was checked in any of them."""
    checked = [{name: False for _, name, _ in every_tensor(case)} for case in failing]
    for wrong, case in zip(checked, failing, strict=True):
        wrong |= {name: True for _, name, tensor in every_tensor(case) if tensor.verdict == "fail"}
    always = [name for name, is_wrong in checked[0].items() if is_wrong and all(one.get(name) for one in checked)]
    return always if any(not is_wrong for one in checked for is_wrong in one.values()) else []
