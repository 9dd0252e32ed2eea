"""The difference between two runs of a suite: lost cases, changed verdicts, drifts of values, and the speed of both."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from fastcheck.batch.common_causes import in_common
from fastcheck.batch.ledger.ledger import WAITING
from fastcheck.batch.results import Case, SuiteResults
from fastcheck.common.errors import FastcheckError
from fastcheck.reports.report import SCHEMA, Report, WithJson, encode
from fastcheck.reports.suite_report import every_tensor, phases_of
from fastcheck.reports.tensor_report import Entry, TensorReport

ABSENT = "not checked"
"""The verdict shown for a tensor that only the other run checked."""

FACTOR = 10.0
"""A ratio has drifted if it grew or shrank by more than this factor."""

FLOOR = 1e-12
"""Ratios below this show only the rounding of a few additions."""

_WEIGHTS = {"pass": 0, "fail": 2}
"""Severity of verdicts; all others lie in between."""


@dataclass(frozen=True)
class Change:
    """A verdict that changed.

    Attributes
    ----------
    case, phase, tensor : str
        Without phase and tensor, the verdict is the case's. With them, it is the tensor's, and the case's verdict is
        unchanged.
    before, after : str
        Verdicts, or "waiting" for an unfinished case, or "not checked" for a tensor.
    why : str
        The reasons for the later verdict; empty for a pass.
    """

    case: str
    phase: str
    tensor: str
    before: str
    after: str
    why: str

    @property
    def worse(self) -> bool:
        """Whether a pass was lost, or an inconclusive verdict or an error became a failure."""
        return self.before not in (WAITING, ABSENT) and _weight(self.before) < _weight(self.after)

    @property
    def fixed(self) -> bool:
        """Whether what failed, was inconclusive or was an error has passed."""
        return self.before not in (WAITING, ABSENT) and self.after == "pass"


@dataclass(frozen=True)
class Drift:
    """A value or a ratio of a tensor that moved further than can be explained, though the verdict is unchanged.

    Attributes
    ----------
    case, phase, tensor : str
    what : {"analytic", "numeric", "norm_ratio", "max_ratio_resolved"}
    index : tuple of int or None
        Index of a value; None for a ratio.
    before, after : float
    allowed : float
        For a value, the sum of both error bars; for a ratio, the factor by which it may change.
    """

    case: str
    phase: str
    tensor: str
    what: str
    index: tuple[int, ...] | None
    before: float
    after: float
    allowed: float


class Pace(NamedTuple):
    """Speed of both runs on the same cases."""

    dims_before: int
    dims_after: int
    seconds_before: float
    seconds_after: float

    @property
    def before(self) -> float | None:
        """Dimensions per second in the first run; None if it took no time."""
        return self.dims_before / self.seconds_before if self.seconds_before > 0 else None

    @property
    def after(self) -> float | None:
        """Dimensions per second in the second run; None if it took no time."""
        return self.dims_after / self.seconds_after if self.seconds_after > 0 else None

    @property
    def factor(self) -> float | None:
        """Speed of the second run divided by that of the first."""
        speedup = self.after / self.before if self.before and self.after else 0.0
        return speedup if 0 < speedup < math.inf else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as Python objects."""
        return {**self._asdict(), "per_second_before": self.before, "per_second_after": self.after}


@dataclass(frozen=True)
class Difference(WithJson):
    """The changes from one run of a suite to another.

    Attributes
    ----------
    only_before, only_after : tuple of str
        Cases that the other run does not have: lost ones, and new ones.
    compared : int
        Number of cases that are finished in both.
    changes : tuple of Change
        Changed verdicts, those that got worse first.
    drifts : tuple of Drift
    paces : dict of str to Pace
        Speeds of the cases that have dimensions in both.
    still_failing : tuple of str
        Cases that fail in both.
    in_common : str
        What the cases that began to fail have in common, as `fastcheck.batch.common_causes.in_common` says it.
    """

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    compared: int
    changes: tuple[Change, ...]
    drifts: tuple[Drift, ...]
    paces: dict[str, Pace]
    still_failing: tuple[str, ...] = ()
    in_common: str = ""

    @property
    def worse(self) -> bool:
        """Whether any verdict got worse."""
        return any(change.worse for change in self.changes)

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: 1 if a verdict got worse or a case is lost, else 0."""
        return int(self.worse or bool(self.only_before))

    @property
    def pace(self) -> Pace:
        """Speed over all these cases together."""
        columns = zip(*self.paces.values(), strict=True)
        return Pace(*map(sum, columns)) if self.paces else Pace(0, 0, 0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can hold, with nan and infinities as strings."""
        return encode(
            {
                "schema": SCHEMA,
                "worse": self.worse,
                "only_before": self.only_before,
                "only_after": self.only_after,
                "compared": self.compared,
                "changes": [asdict(one) | {"worse": one.worse, "fixed": one.fixed} for one in self.changes],
                "still_failing": self.still_failing,
                "in_common": self.in_common,
                "moves": [asdict(drift) for drift in self.drifts],
                "pace": self.pace.to_dict(),
                "paces": {name: pace.to_dict() for name, pace in self.paces.items()},
            }
        )


def difference(before: SuiteResults, after: SuiteResults) -> Difference:
    """Compare two runs of a suite, case by case.

    A tensor whose verdict is the same in both has *drifted* if

    - the analytic or the numeric value of a dimension that is among the worst of both differs by more than the sum of
      both error bars. Each bar bounds how far its run's values may lie from the derivative, so a larger difference
      means that the data, the function or the gradient changed; or
    - its ``norm_ratio`` or its ``max_ratio_resolved`` grew or shrank by more than `FACTOR`, and the larger of the two
      is above `FLOOR`.

    Raises
    ------
    FastcheckError
        If the runs have no case in common.
    """
    known = set(before.names)
    shared = [name for name in after.names if name in known]
    if not shared:
        raise FastcheckError(f"{before.name!r} and {after.name!r} have no case in common: expected two runs of a suite")
    pairs = [(name, before.suite.cases[name], after.suite.cases[name]) for name in _finished(shared, before, after)]
    changes = [change for name in shared for change in _changes(name, before.suite.cases, after.suite.cases)]
    broken = {change.case for change in changes if change.worse and change.after == "fail"}
    return Difference(
        _others(before.names, shared),
        _others(after.names, shared),
        len(pairs),
        tuple(sorted(changes, key=lambda change: (not change.worse, -_weight(change.after)))),
        tuple(drift for pair in pairs for drift in _drifts(*pair)),
        {name: pace for name, *pair in pairs if min((pace := _pace(*pair))[:2])},
        tuple(name for name, *pair in pairs if all(case.verdict == "fail" for case in pair)),
        in_common(after.suite.cases, broken),
    )


def _others(names: Collection[str], shared: Collection[str]) -> tuple[str, ...]:
    known = set(shared)
    return tuple(name for name in names if name not in known)


def _finished(names: Collection[str], before: SuiteResults, after: SuiteResults) -> list[str]:
    return [name for name in names if name in before.suite.cases and name in after.suite.cases]


def _weight(verdict: str) -> int:
    return _WEIGHTS.get(verdict, 1)


def _changes(name: str, before: Mapping[str, Case], after: Mapping[str, Case]) -> Iterator[Change]:
    one, other = before.get(name), after.get(name)
    was, now = (WAITING if case is None else case.verdict for case in (one, other))
    if was != now:
        yield Change(name, "", "", was, now, "" if other is None else _why(other))
    elif one is not None and other is not None:
        yield from _tensor_changes(name, _tensors(one), _tensors(other))


def _why(case: Case) -> str:
    """Return the reasons of the phases and tensors that did not pass."""
    return "; ".join(filter(None, (_reasons(phase) for phase in phases_of(case).values() if not phase.passed)))


def _reasons(phase: Report) -> str:
    failed = {name: tensor for name, tensor in phase.tensors.items() if not tensor.passed}
    if not failed and phase.error is None and (phase.forward is None or phase.forward.passed):
        return ""
    return replace(phase, tensors=failed).summary().removeprefix(f"{phase.verdict}: ")


_TensorKey = tuple[str, str]
"""Phase and name of a tensor."""


def _tensors(case: Case) -> dict[_TensorKey, TensorReport]:
    return {(phase, name): tensor for phase, name, tensor in every_tensor(case)}


def _tensor_changes(
    name: str, before: dict[_TensorKey, TensorReport], after: dict[_TensorKey, TensorReport]
) -> Iterator[Change]:
    for phase, tensor in before | after:
        one, other = before.get((phase, tensor)), after.get((phase, tensor))
        was, now = (ABSENT if report is None else report.verdict for report in (one, other))
        if was != now:
            yield Change(name, phase, tensor, was, now, "" if other is None or other.passed else other.reason)


def _drifts(name: str, before: Case, after: Case) -> Iterator[Drift]:
    later = _tensors(after)
    for key, one in _tensors(before).items():
        other = later.get(key)
        if other is not None and other.verdict == one.verdict:
            yield from _value_drifts((name, *key), one, other)
            yield from _ratio_drifts((name, *key), one, other)


def _value_drifts(where: tuple[str, str, str], before: TensorReport, after: TensorReport) -> Iterator[Drift]:
    """Yield, for each kind of value, the dimension that moved furthest relative to its error bars."""
    later = {entry.index: entry for entry in after.worst}
    pairs = [(entry, later[entry.index]) for entry in before.worst if entry.index in later]
    for what in ("analytic", "numeric"):
        drifted = [(excess, pair) for pair in pairs if (excess := _excess(what, *pair)) > 1]
        if drifted:
            _, (one, other) = max(drifted, key=lambda entry: entry[0])
            values = (float(getattr(one, what)), float(getattr(other, what)))
            yield Drift(*where, what, one.index, *values, _allowed(one, other))


def _allowed(before: Entry, after: Entry) -> float:
    bars = (before.error_bar, after.error_bar)
    return math.inf if None in bars else sum(bar for bar in bars if bar is not None)


def _excess(what: str, before: Entry, after: Entry) -> float:
    """Return how far a value moved, in units of the sum of both error bars; 0 without bars."""
    one, other, allowed = getattr(before, what), getattr(after, what), _allowed(before, after)
    if one == other or (math.isnan(one) and math.isnan(other)) or allowed == math.inf:
        return 0.0
    distance = abs(one - other)
    if math.isnan(distance) or math.isnan(allowed):
        return math.inf
    return distance / allowed if allowed > 0 else math.inf


def _ratio_drifts(where: tuple[str, str, str], before: TensorReport, after: TensorReport) -> Iterator[Drift]:
    for what in ("norm_ratio", "max_ratio_resolved"):
        one, other = getattr(before, what), getattr(after, what)
        if _ratio_drifted(one, other):
            yield Drift(*where, what, None, one, other, FACTOR)


def _ratio_drifted(before: float, after: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) != math.isnan(after)
    low, high = sorted((before, after))
    return low != high and high > FLOOR and high > FACTOR * low


def _pace(before: Case, after: Case) -> Pace:
    dims = [sum(tensor.dims_checked for _, _, tensor in every_tensor(case)) for case in (before, after)]
    return Pace(*dims, *(_seconds(case.run.get("seconds")) for case in (before, after)))


def _seconds(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
