"""The report of one tensor: its metrics, and its worst dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape, index_of
from fastcheck.metrics.judged import Judged, Judgement, Verdict, weight
from fastcheck.metrics.tally import Finding, Tally, relative_difference_of
from fastcheck.reports.layout import Row, short, table

NOT_AUDITED: dict[str, Any] = {"dims": 0, "direction": None, "disagreements": 0}
"""The audit part of a report whose evaluator takes no shortcut."""

UNKNOWN = "not one of the known patterns"
"""The bug of a diagnosis where nothing fits."""


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

    def row(self) -> Row:
        """Return the dimension as a row of the short text: the remark is on signs, or on a bar too wide to judge by."""
        opposite = self.analytic * self.numeric < 0
        wide = self.verdict == "inconclusive" and self.error_bar is not None
        remark = f"bar {short(self.error_bar or 0.0)}" if wide else "opposite sign" if opposite else ""
        return Row(self.index, self.analytic, self.numeric, remark)


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


@dataclass(frozen=True, repr=False)
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

    def rows(self, most: int) -> list[Row]:
        """Return the worst dimensions that did not pass, at most so many."""
        wrong = [entry for entry in self.worst if entry.verdict != "pass"]
        return [entry.row() for entry in wrong[:most]]

    def __str__(self) -> str:
        return "\n".join([f"{self.verdict.upper()}: {self.reason}", *table(self.rows(len(self.worst)))])

    def __repr__(self) -> str:
        return f"<TensorReport {self.verdict.upper()}: {self.reason}>"

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


def worst_first(tensors: Mapping[str, TensorReport]) -> list[tuple[str, TensorReport]]:
    """Return names and reports of tensors, by verdict and then by norm ratio; those that passed keep their order."""

    def rank(entry: tuple[str, TensorReport]) -> tuple[int, float]:
        ratio = math.inf if math.isnan(entry[1].norm_ratio) else entry[1].norm_ratio
        return weight(entry[1].verdict), 0.0 if entry[1].passed else -ratio

    return sorted(tensors.items(), key=rank)


@dataclass(frozen=True)
class ForwardReport(Judged):
    """The comparison of the declared output with the computed one. It is true if it passed.

    Attributes
    ----------
    verdict : {"pass", "fail"}
    norm_ratio : float
    diagnosis : dict or None
        "bug", "evidence" and "try", where the outputs differ; of a convolution also "shape", and "gradients": which
        function the gradients belong to.
    """

    verdict: Verdict
    norm_ratio: float
    diagnosis: dict[str, str] | None
