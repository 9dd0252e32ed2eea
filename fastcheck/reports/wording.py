"""The words of an outline: the verdict's reasons, and the tensors and cases that did not pass."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from fastcheck.metrics import judged
from fastcheck.metrics.judged import Verdict
from fastcheck.reports import layout, notes
from fastcheck.reports.facts import Facts
from fastcheck.reports.layout import joined
from fastcheck.reports.notes import NOTES
from fastcheck.reports.outline import ROWS, Block, Outline
from fastcheck.reports.tensor_report import TensorReport, worst_first

FEW_DIGITS = 6.0
"""A pass with fewer digits says so in its first line."""

INTERRUPTED = "interrupted: only the dimensions reached are counted"

_SHORT = 60
"""Largest number of characters of a reason in the short form."""


def of_tensors(facts: Facts) -> Outline:
    """Return the outline of the report of one case."""
    shown = [(name, tensor) for name, tensor in worst_first(facts.tensors) if not tensor.passed]
    gist, head = _gist(facts, shown), _head(facts, shown)
    foot = [
        notes.cost(facts.differenced or facts.tensors.values(), facts.run),
        INTERRUPTED if facts.interrupted else "",
    ]
    return Outline(
        facts.verdict,
        gist,
        head,
        tuple(_blocks(shown)),
        tuple(notes.of(facts, shown)),
        tuple(filter(None, foot)),
        tensors=tuple(_summary(name, tensor) for name, tensor in facts.tensors.items()),
    )


def of_cases(verdict: Verdict, cases: Mapping[str, Outline], foot: Sequence[str], interrupted: bool) -> Outline:
    """Return the outline of the report of several cases."""
    ordered = sorted(cases.items(), key=lambda entry: judged.weight(entry[1].verdict))
    names: dict[Verdict, list[str]] = {}
    for name, case in ordered:
        names.setdefault(case.verdict, []).append(name)
    passed = len(names.pop("pass", []))
    phrases = [
        f"{len(those):,} of {len(cases):,} cases {_VERBS[verdict][len(those) > 1]}: {joined(those)}"
        for verdict, those in names.items()
    ]
    counted = f"{passed:,} pass{'es' * (passed == 1)}"
    if len(cases) == 1 and names:
        phrases = [f"the only case {_VERBS[verdict][0]}: {those[0]}" for verdict, those in names.items()]
    all_of = f"all {passed:,} cases pass" if passed > 1 else "the only case passes"
    rest = "" if not passed else counted if phrases else all_of
    gist = "; ".join(part for part in ("interrupted" * interrupted, *phrases, rest) if part) or "there are no cases"
    return Outline(verdict, gist, gist, foot=tuple(foot), cases=tuple(ordered))


_VERBS: dict[Verdict, tuple[str, str]] = {
    "fail": ("fails", "fail"),
    "error": ("could not be checked", "could not be checked"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
}
"""What is said of one case, and of several."""

# The verdict's reasons


def _head(facts: Facts, shown: Sequence[tuple[str, TensorReport]]) -> str:
    if facts.error is not None:
        return facts.error
    if facts.forward is not None and facts.forward.diagnosis is not None:
        return f"{facts.other_function}: {facts.forward.diagnosis['bug']}"
    if not facts.tensors:
        return "no dimension was checked"
    decisive = "" if facts.deciding is None else facts.deciding.words
    message = "interrupted: " * facts.interrupted + (decisive or _what(shown) or _passing(facts))
    aside = "; ".join(part for part in (_others(facts) if shown else facts.phases, _forward(facts)) if part)
    return f"{message} ({aside})" if aside else message


def _what(shown: Sequence[tuple[str, TensorReport]]) -> str:
    """Return what is wrong with the first tensors, and how many others did not pass."""
    by_reason: dict[str, list[str]] = {}
    for name, tensor in shown:
        by_reason.setdefault(_predicate(tensor), []).append(name)
    phrases = [f"{joined(names)}{_plural(reason, len(names))}" for reason, names in by_reason.items()]
    if len(phrases) > NOTES:
        others = sum(len(names) for names in list(by_reason.values())[NOTES - 1 :])
        phrases = [*phrases[: NOTES - 1], f"{others:,} other tensors do not pass"]
    return "; ".join(phrases)


def _predicate(tensor: TensorReport) -> str:
    """Return what is wrong with a tensor, to follow its name."""
    if not _is_wrong(tensor):
        return f": {tensor.reason}"
    total, sample = tensor.dims_checked, "" if tensor.dims_checked == tensor.dims_total else " checked"
    if total == 1:
        return " is wrong in the only entry checked" if sample else " is wrong"
    if tensor.beyond_error_bar == total:
        return f" is wrong in {_all(total)}{sample}"
    return f" is wrong in {tensor.beyond_error_bar:,} of {_counted(total)}{sample}"


def _plural(predicate: str, names: int) -> str:
    """Return a predicate that follows so many names."""
    return predicate if names == 1 else predicate.replace(" is wrong", " are wrong", 1)


def _is_wrong(tensor: TensorReport) -> bool:
    """Return whether a tensor fails because dimensions lie outside their error bars."""
    by_bars = tensor.evaluator is not None and tensor.beyond_error_bar > 0 and not tensor.non_finite
    return tensor.verdict == "fail" and by_bars


def _passing(facts: Facts) -> str:
    """Return what passed, and of how many dimensions."""
    names, tensors = list(facts.tensors), list(facts.tensors.values())
    if any(tensor.evaluator is None for tensor in tensors):
        return _what(list(facts.tensors.items()))
    if all(tensor.evaluator == "directions" for tensor in tensors):
        return f"{joined(names)} {'is' if len(names) == 1 else 'are'} right along all directions"
    checked, total = (sum(getattr(tensor, key) for tensor in tensors) for key in ("dims_checked", "dims_total"))
    entries = f" in {_all(checked)}" if checked == total else f" in {_counted(checked)} checked, of {total:,}"
    verb = "is" if len(names) == 1 else "are"
    return f"{joined(names)} {verb} right{entries if total > 1 else ''}{_few_digits(tensors)}"


def _few_digits(tensors: Collection[TensorReport]) -> str:
    """Return the digits that all resolved dimensions agree in, where a person may have expected more."""
    least = min((tensor.digits["min"] for tensor in tensors if tensor.digits["min"] is not None), default=math.inf)
    return f", to at least {least:.1f} digits" if least < FEW_DIGITS else ""


def _counted(entries: int) -> str:
    return f"{entries:,} entr{'y' if entries == 1 else 'ies'}"


def _all(entries: int) -> str:
    return "both entries" if entries == 2 else f"all {entries:,} entries"


def _others(facts: Facts) -> str:
    names = [name for name, tensor in facts.tensors.items() if tensor.verdict == "pass"]
    if not names:
        return ""
    return f"{joined(names)} {'passes' if len(names) == 1 else 'pass'}"


def _forward(facts: Facts) -> str:
    if facts.forward is None:
        return ""
    what = "forward" if facts.declared == "output" else facts.declared
    return f"{what} agrees to {facts.forward.norm_ratio:.0e}" if facts.forward.norm_ratio else f"{what} is identical"


def _gist(facts: Facts, shown: Sequence[tuple[str, TensorReport]]) -> str:
    """Return the reasons, as short as possible."""
    if facts.error is not None:
        return _cut(facts.error)
    if facts.forward is not None and facts.forward.diagnosis is not None:
        return f"forward: {_cut(facts.forward.diagnosis['bug'])}"
    if facts.deciding is not None:
        return facts.deciding.name
    phrases = [f"{name} {_count(tensor)}" for name, tensor in shown]
    phrases = [*phrases[: NOTES - 1], f"{len(phrases) - NOTES + 1:,} more"] if len(phrases) > NOTES else phrases
    passed = [name for name, tensor in facts.tensors.items() if tensor.verdict == "pass"]
    listed = ", ".join(passed) if len(passed) <= NOTES else f"{len(passed):,} tensors"
    phrases[len(phrases) :] = [f"{listed} {'passes' if len(passed) == 1 else 'pass'}"] if passed else []
    return "; ".join(["interrupted"] * facts.interrupted + phrases) or "no dimension was checked"


def _count(tensor: TensorReport) -> str:
    """Return how many dimensions of a tensor did not pass, in a few words."""
    if _is_wrong(tensor):
        return f"{tensor.beyond_error_bar:,} of {tensor.dims_checked:,} wrong"
    if tensor.non_finite:
        return f"{tensor.non_finite:,} of {tensor.dims_checked:,} nan or infinite"
    words = {"fail": "wrong", "inconclusive": "inconclusive", "error": "in error", "pass": "passes"}
    return words[tensor.verdict]


def _cut(text: str) -> str:
    """Return a text, or its beginning: what matters most stands first."""
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3].rstrip()}..."


# Dimensions


def _blocks(shown: Sequence[tuple[str, TensorReport]]) -> Iterator[Block]:
    """Yield the worst dimensions of tensors that did not pass."""
    listed = shown[: len(ROWS)]
    for name, tensor in listed:
        rows = tuple(tensor.rows(ROWS[len(listed) - 1]))
        if rows:
            yield Block(_title(name, tensor) if len(listed) > 1 else "", rows)


def _title(name: str, tensor: TensorReport) -> str:
    signs = f", {tensor.sign_mismatches:,} of opposite sign" if tensor.sign_mismatches else ""
    return f"{name}: norm ratio {layout.short(tensor.norm_ratio)}{signs}"


def _summary(name: str, tensor: TensorReport) -> tuple[str, ...]:
    """Return a tensor's cells under `TENSOR_HEADINGS`."""
    least = tensor.digits["min"]
    return (
        name,
        tensor.verdict,
        f"{tensor.dims_checked:,} of {tensor.dims_total:,}",
        f"{tensor.beyond_error_bar:,}" if tensor.evaluator is not None else "",
        layout.short(tensor.norm_ratio),
        "" if least is None else f"{least:.1f}",
    )
