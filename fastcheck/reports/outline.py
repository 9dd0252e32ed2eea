"""The outline of a report: what a person reads first, the same in terminals, logs, exceptions and notebooks.

It begins and ends with the verdict. Between the two stand the tensors that did not pass, the worst first, with a few
dimensions each, and what to try next. Everything else is in the long text of `fastcheck.render`, and in the JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastcheck.common.errors import shortened
from fastcheck.metrics import judged, reach
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import Verdict
from fastcheck.reports import layout
from fastcheck.reports.layout import Row, joined, wrapped
from fastcheck.reports.tensor_report import ForwardReport, TensorReport, worst_first

ROWS = (8, 5, 4)
"""Largest number of dimensions listed for a tensor, where one, two or three do not pass. Of more, three are listed."""

LISTED_CASES, ROWS_OF_CASE = 5, 3
"""Largest number of cases whose dimensions are listed (of others, the verdict is), and of dimensions of a tensor."""

NOTES = 3
"""Largest number of notes of a kind: of other advice, or of other tensors."""

TENSOR_HEADINGS = ("tensor", "verdict", "checked", "wrong", "norm ratio", "fewest digits")

INTERRUPTED = "interrupted: only the dimensions reached are counted"

_NAME = 30
"""Largest width to which names of cases are aligned."""

_TITLE = 40
"""Largest number of characters of a title."""

_SHORT = 60
"""Largest number of characters of a reason in the short form."""


class Block(NamedTuple):
    """A tensor's title (empty where it is the only one) and some of its dimensions."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Outline:
    """What a report says, in short.

    Attributes
    ----------
    verdict : Verdict
    gist, head : str
        The verdict's reasons: as short as possible, and as the first line.
    blocks : tuple of Block
        Tensors that did not pass.
    notes, foot : tuple of str
        Sentences below them, on what was found and on what it took.
    cases : tuple of pairs of str and Outline
        Names and outlines of several checks.
    tensors : tuple of tuples of str
        Cells of all tensors, under `TENSOR_HEADINGS`.
    """

    verdict: Verdict
    gist: str
    head: str
    blocks: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()
    foot: tuple[str, ...] = ()
    cases: tuple[tuple[str, Outline], ...] = ()
    tensors: tuple[tuple[str, ...], ...] = ()

    @property
    def closing(self) -> str:
        """The verdict and its reasons, as short as possible."""
        return f"{self.verdict.upper()}: {self.gist}"

    def lines(self, width: int = layout.WIDTH, title: str = "") -> list[str]:
        """Return the text, line by line.

        Parameters
        ----------
        width : int
            Number of columns in which sentences are wrapped.
        title : str
            Text before the first verdict.
        """
        return [*self.opening(width, title), *self.body(width), *self.end(width)]

    def opening(self, width: int = layout.WIDTH, title: str = "") -> Iterator[str]:
        """Yield the lines of the verdict and its reasons."""
        before = f"{shortened(title, _TITLE)}   " if title else ""
        yield from wrapped(f"{before}{self.verdict.upper()}: {self.head}", width)

    def body(self, width: int = layout.WIDTH, rows: int = ROWS[0]) -> Iterator[str]:
        """Yield the lines on tensors and cases, with at most so many dimensions of each tensor, and the notes."""
        for block in self.blocks:
            if block.title:
                yield from wrapped(block.title, width)
            yield from layout.table(block.rows[:rows])
        longest = max((len(name) for name, _ in self.cases), default=0)
        for number, (name, case) in enumerate(self.cases):
            label = f"{name:<{min(longest, _NAME)}}"
            if case.verdict == "pass" or number >= LISTED_CASES:
                yield from wrapped(f"{label}   {case.closing}", width)
            else:
                yield from case.opening(width, label)
                yield from case.body(width, ROWS_OF_CASE)
        yield from self.sentences(width)

    def sentences(self, width: int = layout.WIDTH) -> Iterator[str]:
        """Yield the lines of the notes."""
        for note in self.notes:
            yield from wrapped(note, width)

    def end(self, width: int = layout.WIDTH) -> Iterator[str]:
        """Yield the lines on the check's cost, and the verdict again."""
        for sentence in (*self.foot, self.closing):
            yield from wrapped(sentence, width)


class Facts(NamedTuple):
    """The parts of a report that its outline is made of.

    Attributes
    ----------
    verdict, forward, health, error, interrupted, run
        As in `fastcheck.Report`.
    tensors : mapping of str to TensorReport
        By label.
    declared : str
        Name of the declared result, or "reference" where it is another function's.
    phases : str
        What was checked twice, in words.
    differenced : collection of TensorReport
        Tensors of all phases; those of ``tensors`` where it is empty.
    notes : sequence of str
        More sentences.
    """

    verdict: Verdict
    tensors: Mapping[str, TensorReport]
    forward: ForwardReport | None = None
    health: Sequence[HealthFinding] = ()
    error: str | None = None
    interrupted: bool = False
    run: Mapping[str, Any] = {}
    declared: str = "output"
    phases: str = ""
    differenced: Collection[TensorReport] = ()
    notes: Sequence[str] = ()


def of_tensors(facts: Facts) -> Outline:
    """Return the outline of the report of one case."""
    shown = [(name, tensor) for name, tensor in worst_first(facts.tensors) if not tensor.passed]
    gist, head = _gist(facts, shown), _head(facts, shown)
    notes = [*_forward_notes(facts), *_advice(shown), *_sweeps(facts), *_health(facts), *facts.notes]
    if facts.verdict == "pass":
        notes += [*_exceptions(facts), *_least_digits(facts), *_reach(facts)]
    foot = [cost(facts.differenced or facts.tensors.values(), facts.run), INTERRUPTED if facts.interrupted else ""]
    return Outline(
        facts.verdict,
        gist,
        head,
        tuple(_blocks(shown)),
        tuple(notes),
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
        return f"{_other_function(facts)}: {facts.forward.diagnosis['bug']}"
    if not facts.tensors:
        return "no dimension was checked"
    message = "interrupted: " * facts.interrupted + (_decisive(facts) or _what(shown) or _passing(facts))
    aside = "; ".join(part for part in (_others(facts) if shown else facts.phases, _forward(facts)) if part)
    return f"{message} ({aside})" if aside else message


def _other_function(facts: Facts) -> str:
    if facts.declared == "reference":
        return "forward is not what reference computes"
    return f"the declared {facts.declared} is not what this case computes"


def _decisive(facts: Facts) -> str:
    """Return the finding about the functions themselves that decides; empty where differences do."""
    return next((one.words for one in _deciding(facts)), "")


def _deciding(facts: Facts) -> list[HealthFinding]:
    return [one for one in facts.health if one.verdict is not None and one.verdict == facts.verdict]


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
    total = f"{tensor.dims_checked:,}"
    sample = "" if tensor.dims_checked == tensor.dims_total else " checked"
    if tensor.beyond_error_bar == tensor.dims_checked:
        return " is wrong" if tensor.dims_checked == 1 and not sample else f" is wrong in all {total} entries{sample}"
    return f" is wrong in {tensor.beyond_error_bar:,} of {total} entries{sample}"


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
    checked, total = (sum(getattr(tensor, key) for tensor in tensors) for key in ("dims_checked", "dims_total"))
    entries = f"all {checked:,} entries" if checked == total else f"{checked:,} entries checked, of {total:,}"
    return f"{joined(names)} {'is' if len(names) == 1 else 'are'} right in {entries}"


def _others(facts: Facts) -> str:
    names = [name for name, tensor in facts.tensors.items() if tensor.verdict == "pass"]
    if not names:
        return ""
    return f"{joined(names)} {'passes' if len(names) == 1 else 'pass'}"


def _forward(facts: Facts) -> str:
    if facts.forward is None:
        return ""
    what = "forward" if facts.declared == "output" else facts.declared
    return f"{what} agrees to {facts.forward.norm_ratio:.0e}" if facts.forward.norm_ratio else f"{what} is equal"


def _gist(facts: Facts, shown: Sequence[tuple[str, TensorReport]]) -> str:
    """Return the reasons, as short as possible."""
    if facts.error is not None:
        return shortened(facts.error, _SHORT)
    if facts.forward is not None and facts.forward.diagnosis is not None:
        return f"forward: {shortened(facts.forward.diagnosis['bug'], _SHORT)}"
    if deciding := _deciding(facts):
        return deciding[0].name
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


# Notes


def _forward_notes(facts: Facts) -> Iterator[str]:
    if facts.forward is not None and facts.forward.diagnosis is not None:
        yield f"norm ratio {layout.short(facts.forward.norm_ratio)}: {facts.forward.diagnosis['evidence']}"
        yield f"try: {facts.forward.diagnosis['try']}"
        yield f"no gradient was judged, since {_other_function(facts)}"


def _advice(shown: Sequence[tuple[str, TensorReport]]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for name, tensor in shown:
        if tensor.advice:
            names.setdefault(tensor.advice, []).append(name)
    for advice, those in list(names.items())[:NOTES]:
        yield f"try: {advice}" if len(names) == 1 else f"try ({joined(those)}): {advice}"


def _sweeps(facts: Facts) -> Iterator[str]:
    for name, tensor in facts.tensors.items():
        for swept in tensor.sweep:
            yield f"sweep of {name} {list(swept['index'])}: {swept['reading']}. {swept['words']}"


def _health(facts: Facts) -> Iterator[str]:
    for finding in facts.health:
        if finding not in _deciding(facts)[:1]:
            yield f"{finding.name}: {finding.words}" + f"; {finding.advice}" * bool(finding.advice)


def _exceptions(facts: Facts) -> Iterator[str]:
    """Yield the reasons of tensors that pass in part because of kinks, or of bars that are too wide."""
    special = [(name, tensor) for name, tensor in facts.tensors.items() if tensor.subgradients or tensor.undecided]
    for name, tensor in special[:NOTES]:
        yield f"{name}: {tensor.reason}"
    if len(special) > NOTES:
        yield f"and so for {len(special) - NOTES:,} more tensors"


def _least_digits(facts: Facts) -> Iterator[str]:
    """Yield the regime of the tensor with the fewest digits, or with none."""
    told = {name: tensor for name, tensor in facts.tensors.items() if tensor.regime}
    if told:
        name = min(told, key=lambda name: (told[name].digits["min"] is None, told[name].digits["min"] or 0.0))
        regime = told[name].regime.partition("; ")[0]
        yield f"fewest digits, {name}: {regime}" if len(told) > 1 else regime


def _reach(facts: Facts) -> Iterator[str]:
    """Yield what the smallest sample would have missed."""
    tensors = {name: tensor for name, tensor in facts.tensors.items() if not tensor.excluded and tensor.dims_checked}
    name = min(tensors, key=lambda name: tensors[name].dims_checked / tensors[name].dims_total, default="")
    if name and tensors[name].dims_checked < tensors[name].dims_total:
        yield reach.reach(tensors[name].dims_total, tensors[name].dims_checked, name)


def cost(tensors: Collection[TensorReport], run: Mapping[str, Any]) -> str:
    """Return how fast these tensors were differenced and how audited; empty if unknown, or if none was."""
    seconds = run.get("seconds")
    differenced = [tensor for tensor in tensors if tensor.evaluator is not None]
    if not seconds or not differenced:
        return ""
    checked, threads = sum(tensor.dims_checked for tensor in differenced), run["threads"]
    audit = audit_outcome(differenced)
    return (
        f"{checked:,} dimensions in {seconds:.2f} s on {threads} thread{'s' * (threads != 1)}, "
        f"{checked / seconds:,.0f} a second" + f"; audit: {audit}" * bool(audit)
    )


def audit_outcome(tensors: Collection[TensorReport]) -> str:
    """Return the outcome of the audits of these tensors; empty if there was none."""
    dims = sum(tensor.audit.get("dims", 0) for tensor in tensors)
    wrong = sum(tensor.audit.get("disagreements", 0) for tensor in tensors)
    return "" if not dims else f"{wrong:,} of {dims:,} disagree" if wrong else f"{dims:,} agree"
