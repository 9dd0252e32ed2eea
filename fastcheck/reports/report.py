"""The frozen report of a check, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common import machine
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import EXIT_CODES, Verdict, heaviest
from fastcheck.reports.facts import Facts
from fastcheck.reports.mismatch import RaisesMismatch
from fastcheck.reports.notes import coloured, covered
from fastcheck.reports.outline import Outline
from fastcheck.reports.readable import Plottable
from fastcheck.reports.tensor_report import ForwardReport, TensorReport
from fastcheck.reports.wording import of_tensors

SCHEMA = 1
"""Version of the JSON report."""


class WithJson:
    """Base of what is written as JSON."""

    if TYPE_CHECKING:

        def to_dict(self) -> dict[str, Any]: ...

    def to_json(self) -> str:
        """Return the JSON report (schema 1), indented, with a final newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class CheckReport(RaisesMismatch, WithJson):
    """Base of the reports of one check or several: their text, exit code and JSON."""

    if TYPE_CHECKING:

        @property
        def verdict(self) -> Verdict: ...
        @property
        def interrupted(self) -> bool: ...

    @property
    def exit_code(self) -> int:
        """The command line's exit code for this report."""
        return 130 if self.interrupted else EXIT_CODES[self.verdict]


def requested(step: Any, evaluator: Any, dims: Any, kinks: Any) -> dict[str, Any]:
    """Return the settings that the caller asked for, as a report keeps them."""
    return {"step": step, "evaluator": evaluator, "dims": dims, "kinks": kinks}


@dataclass(frozen=True, repr=False)
class Report(CheckReport, Plottable):
    """The report of a check. It is true if the check passed: ``assert report`` works in a test.

    Attributes
    ----------
    verdict : {"pass", "fail", "inconclusive", "error"}
    seed : int
    requested : dict
        "step", "evaluator", "dims" and "kinks" as the caller gave them.
    interrupted : bool
        Whether the check was stopped. Counts are then those of the dimensions reached.
    forward : ForwardReport or None
        None without a declared output.
    tensors : dict of str to TensorReport
    run : dict
        The part that depends on the machine and the moment: threads, seconds, peak_bytes, target, versions.
    operands : dict or None
        Shapes and parameters of the layer by name, where several layers are checked together.
    error : str or None
        The reason of the verdict "error", where the check itself went wrong.
    health : tuple of HealthFinding
        Findings about a user's functions themselves.
    directions : dict or None
        Where all dimensions were moved at once: "count" and "guards" of directions over "dims" dimensions, "calls" of
        the loss, the number "failing", the "chance_of_missing" an error above the "limit_of_detection", by tensor, and
        as "relative_limit", a fraction of its rms gradient; and flat indices of entries "named", by tensor. Where no
        dimension was differenced by itself, "along" lists the directions: "tensors" that move, "analytic" and "numeric"
        derivative, "error_bar", "step" and "verdict".
    structure : dict or None
        Where entries that share no output were moved together, by tensor: the "structure" (None where none was found),
        the number of "colours", "calls" of the function for these and for the entries "audited", and the number of
        entries differenced "alone" besides; "detecting", the calls that it took to find the structure.
    """

    verdict: Verdict
    seed: int
    requested: dict[str, Any]
    interrupted: bool
    forward: ForwardReport | None
    tensors: dict[str, TensorReport]
    run: dict[str, Any]
    operands: dict[str, Any] | None = None
    error: str | None = None
    health: tuple[HealthFinding, ...] = ()
    directions: dict[str, Any] | None = None
    structure: dict[str, Any] | None = None

    @classmethod
    def crashed(
        cls, why: str, *, seed: int, requested: dict[str, Any], threads: int, operands: dict[str, Any] | None = None
    ) -> Report:
        """Return an error report for a check that did not complete."""
        return cls(
            verdict="error",
            seed=seed,
            requested=requested,
            interrupted=False,
            forward=None,
            tensors={},
            operands=operands,
            run=machine.run_part(threads, 0.0),
            error=why,
        )

    def with_health(self, findings: Sequence[HealthFinding]) -> Report:
        """Return the same report with findings added.

        Of the findings with a verdict, the first failure, else the first, decides the verdict of its tensors. Where a
        tensor fails by its own differences too, that reason follows the finding's.
        """
        deciding = sorted((one for one in findings if one.verdict is not None), key=lambda one: one.verdict != "fail")
        tensors = dict(self.tensors)
        for finding in deciding[:1]:
            assert finding.verdict is not None
            for name in finding.tensors or tensors:
                own = f"; {tensors[name].reason}" * (tensors[name].verdict == finding.verdict == "fail")
                tensors[name] = replace(
                    tensors[name],
                    verdict=finding.verdict,
                    reason=finding.words + own,
                    advice=finding.advice,
                    regime="",
                )
        verdicts: list[Verdict] = [tensor.verdict for tensor in tensors.values()]
        if self.forward is not None:
            verdicts.append(self.forward.verdict)
        if self.interrupted:
            verdicts.append("inconclusive")
        return replace(self, tensors=tensors, verdict=heaviest(verdicts), health=tuple(findings))

    def summary(self) -> str:
        """Return the verdict and its reasons in one line."""
        parts = [] if self.error is None else [self.error]
        if self.forward is not None and self.forward.diagnosis is not None:
            parts.append(f"forward: {self.forward.diagnosis['bug']} ({self.forward.diagnosis['evidence']})")
        for name, tensor in self.tensors.items():
            where = f", first at {list(tensor.first_beyond)}" if tensor.first_beyond is not None else ""
            parts.append(f"{name}: {tensor.reason}{where}")
        return f"{self.verdict}: " + ("; ".join(parts) or "no dimension was checked")

    def facts(self) -> Facts:
        """Return the parts of the report that its outline is made of."""
        parts = (self.forward, self.health, self.error, self.interrupted, self.run)
        declared = "reference" if self.requested.get("reference") else "output"
        notes = covered(self.directions) if self.directions is not None else []
        notes += coloured(self.structure) if self.structure is not None else []
        return Facts(self.verdict, self.tensors, *parts, declared=declared, notes=notes)

    def outline(self) -> Outline:
        """Return what the report says in short: the text that ``print(report)`` prints."""
        return of_tensors(self.facts())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON report as Python objects; nan and infinities become strings."""
        tensors = {
            name: {f.name: getattr(tensor, f.name) for f in fields(tensor) if f.name != "kept"}
            for name, tensor in self.tensors.items()
        }
        head = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "seed": self.seed,
            "requested": self.requested,
            "interrupted": self.interrupted,
            "forward": self.forward,
        }
        health = [finding._asdict() for finding in self.health] or None
        optional = {"operands": self.operands, "error": self.error, "health": health, "directions": self.directions}
        optional |= {"structure": self.structure}
        given = {key: value for key, value in optional.items() if value is not None}
        return encode({**head, **given, "tensors": tensors, "run": self.run})


_PLAIN = frozenset({str, int, bool, type(None)})
"""Types that JSON holds as they are: most of a report."""


def encode(value: Any) -> Any:
    """Return a value in the form that JSON can hold: dicts, lists, plain numbers; nan and infinities become strings."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(entry) for entry in value]
    if is_dataclass(value):
        return {name: encode(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
