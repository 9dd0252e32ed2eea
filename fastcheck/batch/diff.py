"""What has changed between two runs of a suite: verdicts, values and ratios that moved, and how fast both were."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from fastcheck.batch.ledger.ledger import WAITING
from fastcheck.batch.results import Answers, Case
from fastcheck.common.errors import FastcheckError
from fastcheck.reports.report import SCHEMA, Entry, TensorReport, encode
from fastcheck.reports.suite_report import every_tensor

ABSENT = "not checked"
"""What a tensor is called that only the other run has checked."""

FACTOR = 10.0
"""A ratio has moved where it is so many times what it was, or so many times less."""

FLOOR = 1e-12
"""Ratios below tell of the rounding of a few additions alone."""

_WEIGHTS = {"pass": 0, "fail": 2}
"""Of verdicts; all others lie between."""


@dataclass(frozen=True)
class Change:
    """A verdict that is another one.

    Attributes
    ----------
    case, phase, tensor : str
        Without phase and tensor it is the case's; with them, the tensor's in a case whose verdict is the same.
    before, after : str
        Verdicts, "waiting" of a case that is not finished, or "not checked" of a tensor.
    why : str
        The reasons of the verdict after.
    """

    case: str
    phase: str
    tensor: str
    before: str
    after: str
    why: str

    @property
    def worse(self) -> bool:
        """Whether what passed does so no longer, or what was inconclusive or an error fails."""
        return self.before not in (WAITING, ABSENT) and _weight(self.before) < _weight(self.after)


@dataclass(frozen=True)
class Move:
    """A value or a ratio of a tensor that moved further than can be explained, while its verdict is the same.

    Attributes
    ----------
    case, phase, tensor : str
    what : {"analytic", "numeric", "norm_ratio", "max_ratio_resolved"}
    index : tuple of int or None
        Of a value.
    before, after : float
    allowed : float
        How far a value may move: both error bars together; by which factor a ratio may.
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
    """How fast cases were checked in both runs."""

    dims_before: int
    dims_after: int
    seconds_before: float
    seconds_after: float

    @property
    def before(self) -> float | None:
        """Dimensions a second, None where no time was taken."""
        return self.dims_before / self.seconds_before if self.seconds_before > 0 else None

    @property
    def after(self) -> float | None:
        """The same of the other run."""
        return self.dims_after / self.seconds_after if self.seconds_after > 0 else None

    @property
    def factor(self) -> float | None:
        """How many times faster the other run was."""
        found = self.after / self.before if self.before and self.after else 0.0
        return found if 0 < found < math.inf else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as Python objects."""
        return {**self._asdict(), "per_second_before": self.before, "per_second_after": self.after}


@dataclass(frozen=True)
class Difference:
    """What has changed from one run of a suite to another.

    Attributes
    ----------
    only_before, only_after : tuple of str
        Cases that the other one does not have.
    compared : int
        How many cases are finished in both.
    changes : tuple of Change
        What got worse comes first.
    moves : tuple of Move
    paces : dict of str to Pace
        Of each of these that has dimensions in both.
    """

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    compared: int
    changes: tuple[Change, ...]
    moves: tuple[Move, ...]
    paces: dict[str, Pace]

    @property
    def worse(self) -> bool:
        """Whether any verdict got worse."""
        return any(change.worse for change in self.changes)

    @property
    def exit_code(self) -> int:
        """What the command line returns: 1 where a verdict got worse, else 0."""
        return int(self.worse)

    @property
    def pace(self) -> Pace:
        """Of all these cases together."""
        columns = zip(*self.paces.values(), strict=True)
        return Pace(*map(sum, columns)) if self.paces else Pace(0, 0, 0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it, with nan and infinities as strings."""
        found: dict[str, Any] = encode(
            {
                "schema": SCHEMA,
                "worse": self.worse,
                "only_before": self.only_before,
                "only_after": self.only_after,
                "compared": self.compared,
                "changes": [asdict(change) | {"worse": change.worse} for change in self.changes],
                "moves": [asdict(move) for move in self.moves],
                "pace": self.pace.to_dict(),
                "paces": {name: pace.to_dict() for name, pace in self.paces.items()},
            }
        )
        return found

    def to_json(self) -> str:
        """Return the JSON, indented, with a final newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def difference(before: Answers, after: Answers) -> Difference:
    """Compare two runs of a suite, case by case.

    A tensor that has the same verdict in both has *moved* where

    - the analytic or the numeric value of a dimension that is among the worst of both differs by more than both error
      bars together. Either bar bounds how far both values may lie from the derivative, so that the data, the function
      or the gradient is another one; or
    - its ``norm_ratio`` or its ``max_ratio_resolved`` is more than `FACTOR` times what it was, or less than that part
      of it, and the larger one is above `FLOOR`.

    Raises
    ------
    FastcheckError
        If no case is in both.
    """
    known = set(before.names)
    shared = [name for name in after.names if name in known]
    if not shared:
        raise FastcheckError(f"{before.name!r} and {after.name!r} have no case in common: expected two runs of a suite")
    pairs = [(name, before.suite.cases[name], after.suite.cases[name]) for name in _finished(shared, before, after)]
    changes = [change for name in shared for change in _changes(name, before.suite.cases, after.suite.cases)]
    return Difference(
        _others(before.names, shared),
        _others(after.names, shared),
        len(pairs),
        tuple(sorted(changes, key=lambda change: (not change.worse, -_weight(change.after)))),
        tuple(move for pair in pairs for move in _moves(*pair)),
        {name: pace for name, *pair in pairs if min((pace := _pace(*pair))[:2])},
    )


def _others(names: Collection[str], shared: Collection[str]) -> tuple[str, ...]:
    known = set(shared)
    return tuple(name for name in names if name not in known)


def _finished(names: Collection[str], before: Answers, after: Answers) -> list[str]:
    return [name for name in names if name in before.suite.cases and name in after.suite.cases]


def _weight(verdict: str) -> int:
    return _WEIGHTS.get(verdict, 1)


def _changes(name: str, before: Mapping[str, Case], after: Mapping[str, Case]) -> Iterator[Change]:
    one, other = before.get(name), after.get(name)
    was, now = (WAITING if case is None else case.verdict for case in (one, other))
    if was != now:
        yield Change(name, "", "", was, now, "" if other is None else other.summary().removeprefix(f"{now}: "))
    elif one is not None and other is not None:
        yield from _tensor_changes(name, _tensors(one), _tensors(other))


_Place = tuple[str, str]


def _tensors(case: Case) -> dict[_Place, TensorReport]:
    return {(phase, name): tensor for phase, name, tensor in every_tensor(case)}


def _tensor_changes(
    name: str, before: dict[_Place, TensorReport], after: dict[_Place, TensorReport]
) -> Iterator[Change]:
    for phase, tensor in before | after:
        one, other = before.get((phase, tensor)), after.get((phase, tensor))
        was, now = (ABSENT if found is None else found.verdict for found in (one, other))
        if was != now:
            yield Change(name, phase, tensor, was, now, "" if other is None else other.reason)


def _moves(name: str, before: Case, after: Case) -> Iterator[Move]:
    found = _tensors(after)
    for place, one in _tensors(before).items():
        other = found.get(place)
        if other is not None and other.verdict == one.verdict:
            yield from _value_moves((name, *place), one, other)
            yield from _ratio_moves((name, *place), one, other)


def _value_moves(where: tuple[str, str, str], before: TensorReport, after: TensorReport) -> Iterator[Move]:
    """Yield of each kind of value the dimension that moved furthest, beside what its error bars allow."""
    found = {entry.index: entry for entry in after.worst}
    pairs = [(entry, found[entry.index]) for entry in before.worst if entry.index in found]
    for what in ("analytic", "numeric"):
        moved = [(excess, pair) for pair in pairs if (excess := _excess(what, *pair)) > 1]
        if moved:
            _, (one, other) = max(moved, key=lambda entry: entry[0])
            values = (float(getattr(one, what)), float(getattr(other, what)))
            yield Move(*where, what, one.index, *values, _allowed(one, other))


def _allowed(before: Entry, after: Entry) -> float:
    bars = (before.error_bar, after.error_bar)
    return math.inf if None in bars else sum(bar for bar in bars if bar is not None)


def _excess(what: str, before: Entry, after: Entry) -> float:
    """Return how far a value moved, in units of what the error bars allow; without bars it did not."""
    one, other, allowed = getattr(before, what), getattr(after, what), _allowed(before, after)
    if one == other or (math.isnan(one) and math.isnan(other)) or allowed == math.inf:
        return 0.0
    moved = abs(one - other)
    if math.isnan(moved) or math.isnan(allowed):
        return math.inf
    return moved / allowed if allowed > 0 else math.inf


def _ratio_moves(where: tuple[str, str, str], before: TensorReport, after: TensorReport) -> Iterator[Move]:
    for what in ("norm_ratio", "max_ratio_resolved"):
        one, other = getattr(before, what), getattr(after, what)
        if _ratio_moved(one, other):
            yield Move(*where, what, None, one, other, FACTOR)


def _ratio_moved(before: float, after: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) != math.isnan(after)
    low, high = sorted((before, after))
    return low != high and high > FLOOR and high > FACTOR * low


def _pace(before: Case, after: Case) -> Pace:
    dims = [sum(tensor.dims_checked for _, _, tensor in every_tensor(case)) for case in (before, after)]
    return Pace(*dims, *(_seconds(case.run.get("seconds")) for case in (before, after)))


def _seconds(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
