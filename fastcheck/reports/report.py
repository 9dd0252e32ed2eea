"""The frozen report of a check, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import Shape, index_of
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import EXIT_CODES, Judged, Judgement, Verdict, heaviest
from fastcheck.metrics.tally import Finding, Tally, relative_difference_of
from fastcheck.reports.mismatch import RaisesMismatch

SCHEMA = 1
"""Version of the JSON report."""

NOT_AUDITED: dict[str, Any] = {"dims": 0, "direction": None, "disagreements": 0}
"""The audit part of a report whose evaluator takes no shortcut."""


class WithJson:
    """Base of what is written as JSON."""

    if TYPE_CHECKING:

        def to_dict(self) -> dict[str, Any]: ...

    def to_json(self) -> str:
        """Return the JSON report (schema 1), indented, with a final newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class CheckReport(Judged, WithJson):
    """Base of the reports of one check or several: their exit code and JSON."""

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


@dataclass(frozen=True)
class Entry(Judged):
    """One dimension of a tensor.

    Attributes
    ----------
    index : tuple of int
    analytic, numeric, difference : float
        The difference is analytic - numeric.
    same_sign : bool
    ratio : float
        |analytic - numeric| / max(|analytic|, |numeric|), 0 where both are 0.
    error_bar : float or None
        None where only two arrays were compared.
    verdict : {"pass", "fail", "inconclusive"} or None
        "inconclusive" inside an error bar too wide to judge by.
    """

    index: tuple[int, ...]
    analytic: float
    numeric: float
    difference: float
    same_sign: bool
    ratio: float
    error_bar: float | None
    verdict: Verdict | None

    @classmethod
    def of(cls, finding: Finding, shape: Shape) -> Entry:
        """Describe a finding in a tensor of this shape."""
        a, n = finding.analytic, finding.numeric
        difference = a - n
        known = not math.isnan(finding.error_bar)
        return cls(
            index=index_of(finding.dim, shape),
            analytic=a,
            numeric=n,
            difference=difference,
            same_sign=bool(np.sign(a) == np.sign(n)),
            ratio=relative_difference_of(a, n),
            error_bar=finding.error_bar if known else None,
            verdict=_verdict(finding) if known else None,
        )


def _verdict(finding: Finding) -> Verdict:
    if not abs(finding.analytic - finding.numeric) <= finding.error_bar:
        return "fail"
    return "inconclusive" if finding.inconclusive else "pass"


@dataclass(frozen=True)
class Kept:
    """The arrays kept for each checked dimension of a tensor, of equal length and in ascending order of ``dims``."""

    dims: np.ndarray
    analytic: np.ndarray
    numeric: np.ndarray
    error_bar: np.ndarray | None

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        """Join the arrays of several parts, in ascending order of flat indices."""
        dims = np.concatenate([part.dims for part in parts])
        order = np.argsort(dims, kind="stable")
        bars = [part.error_bar for part in parts if part.error_bar is not None]
        return cls(
            dims[order],
            np.concatenate([part.analytic for part in parts])[order],
            np.concatenate([part.numeric for part in parts])[order],
            np.concatenate(bars)[order],
        )


@dataclass(frozen=True)
class TensorReport(Judged):
    """Metrics of one tensor, named as in the JSON report. It is true if the tensor passed.

    Attributes
    ----------
    verdict, reason, advice : str
    shape : tuple of int
    evaluator : str or None
        None where two arrays were compared.
    step : float or None
        The nominal step; differences are divided by the realised one.
    dims_total, dims_checked, unresolved, kinks, excluded, non_finite, sign_mismatches, beyond_error_bar : int
    norm_ratio, max_ratio, max_ratio_resolved : float
    audit : dict
        "dims", the number of dimensions differenced again by ``local``; "direction", the derivative along one direction
        by the evaluator ("delta") and by ``full`` ("full"), their "difference" and its "error_bar"; and
        "disagreements", the number of all these that disagree. Empty where the evaluator takes no shortcut.
    digits : dict
        "min" and "median" over resolved dimensions (None where there are none), and the quarter-digit "histogram".
    first_beyond : tuple of int or None
        The first index outside its error bar.
    undecided, subgradients, at_kink : int
        Numbers of dimensions inside error bars too wide to judge by (``undecided`` is the frozen JSON key of
        inconclusive ones); of those that are a subgradient at a kink; and of unresolved ones at a kink, which may be
        far from zero.
    regime : str
        The source of the ratios of a tensor that did not fail, in words.
    explained : dict of str to dict
        The dimension that agrees "least", and the one with the "widest" of the bars too wide to judge by: attributes
        of `Entry`, and the "parts" of its error bar.
    worst : tuple of Entry
        The worst dimensions; the largest |a - n| / error bar comes first.
    diagnosis : dict or None
    precision : str or None
        The coarser type of two arrays that were compared, by which they were judged; None in the report of a check.
    sweep : tuple of dict
        For the worst dimensions, where a failing tensor was explained: "index", "order", "slope", "best_step",
        "best_error", "reading" and "words" of `fastcheck.sweeps.curve.Curve`.
    dims, analytic, numeric, error_bar : array or None
        Flat indices and the values there, with ``keep=True`` only; not part of the JSON.
    """

    verdict: Verdict
    reason: str
    advice: str
    shape: tuple[int, ...]
    evaluator: str | None
    step: float | None
    dims_total: int
    dims_checked: int
    unresolved: int
    kinks: int
    excluded: int
    non_finite: int
    norm_ratio: float
    max_ratio: float
    max_ratio_resolved: float
    sign_mismatches: int
    beyond_error_bar: int
    audit: dict[str, Any]
    digits: dict[str, Any]
    first_beyond: tuple[int, ...] | None
    worst: tuple[Entry, ...]
    diagnosis: dict[str, Any] | None = None
    undecided: int = 0
    subgradients: int = 0
    at_kink: int = 0
    regime: str = ""
    explained: dict[str, Any] = field(default_factory=dict)
    sweep: tuple[dict[str, Any], ...] = ()
    precision: str | None = None
    kept: Kept | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        tally: Tally,
        judgement: Judgement,
        shape: Shape,
        *,
        evaluator: str | None = None,
        step: float | None = None,
        audit: dict[str, Any] | None = None,
        regime: str = "",
        parts: Mapping[int, dict[str, float]] | None = None,
        precision: str | None = None,
        kept: Kept | None = None,
    ) -> TensorReport:
        """Make a tensor's report from its tally and judgement."""
        first = tally.first_beyond
        return cls(
            verdict=judgement.verdict,
            reason=judgement.reason,
            advice=judgement.advice,
            shape=tuple(shape),
            evaluator=evaluator,
            step=step,
            dims_total=math.prod(shape),
            dims_checked=tally.dims,
            unresolved=tally.unresolved,
            kinks=tally.kinks,
            excluded=tally.excluded,
            non_finite=tally.non_finite,
            norm_ratio=tally.norm_ratio,
            max_ratio=tally.max_ratio,
            max_ratio_resolved=tally.max_ratio_resolved,
            sign_mismatches=tally.sign_mismatches,
            beyond_error_bar=tally.beyond,
            audit=NOT_AUDITED if audit is None else audit,
            digits={"min": tally.min_digits, "median": tally.median_digits, "histogram": list(tally.histogram)},
            first_beyond=None if first is None else index_of(first, shape),
            worst=tuple(Entry.of(finding, shape) for finding in tally.worst),
            undecided=tally.inconclusive,
            subgradients=tally.subgradients,
            at_kink=tally.at_kink,
            regime=regime,
            explained={
                name: vars(Entry.of(finding, shape)) | {"parts": parts[finding.dim]}
                for name, finding in (("least", tally.least), ("widest", tally.widest))
                if parts is not None and finding is not None and finding.dim in parts
            },
            precision=precision,
            kept=kept,
        )

    @property
    def dims(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept.dims

    @property
    def analytic(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept.analytic

    @property
    def numeric(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept.numeric

    @property
    def error_bar(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept.error_bar


@dataclass(frozen=True)
class ForwardReport(Judged):
    """The comparison of the declared output with the computed one. It is true if it passed.

    Attributes
    ----------
    verdict : {"pass", "fail"}
    norm_ratio : float
    diagnosis : dict or None
        "bug", "evidence" and "try", where the outputs differ.
    """

    verdict: Verdict
    norm_ratio: float
    diagnosis: dict[str, str] | None


@dataclass(frozen=True)
class Report(CheckReport, RaisesMismatch):
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
        optional = {"operands": self.operands, "error": self.error, "health": health}
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
