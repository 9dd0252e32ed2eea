"""The diagnoses of a network's failed tensors: which layer is the culprit, what lies behind it, and which bug it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.diagnosed import KEPT, diagnosed, failed_in
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.fitted import fitted, is_in_part
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.culprits import Ways
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.hygiene import AMOUNTS
from fastcheck.networks.network import Penalty
from fastcheck.networks.penalty import Share
from fastcheck.networks.search import Finding, Search
from fastcheck.networks.suspects import RIGHT, Suspect
from fastcheck.reports.layout import joined
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import Kept

PENALTIES: dict[str, Callable[[Penalty, np.ndarray], np.ndarray]] = {
    "the sign is missing in the l1 term's gradient, which is l1 everywhere": (
        lambda own, w: own.l2 * w + own.l1 * np.ones_like(w)
    ),
    "the l1 term's gradient is l1 times the parameter, not times its sign": (lambda own, w: (own.l2 + own.l1) * w),
    "the l2 term's gradient is l2 times the parameter's sign, not times the parameter": (
        lambda own, w: (own.l2 + own.l1) * np.sign(w)
    ),
}
"""Wrong formulas of the regularisation's gradient."""

_OF_DECAY = (
    "compare the penalty in the loss with its gradient: its factor, its 2 or 1/2, its sign, and where it is added"
)


def with_diagnoses(case: NetworkCase, baseline: Baseline, reports: Mapping[str, Report]) -> dict[str, Report]:
    """Return the reports of phases, with a diagnosis of every failed tensor.

    Parameters
    ----------
    case : NetworkCase
        The gradients to explain: of the whole objective, if that is what was given.
    baseline : Baseline
    reports : mapping of str to Report
        Of the phases that checked these gradients.
    """
    failed = {name for report in reports.values() for name in failed_in(report)}
    if not failed:
        return dict(reports)
    with np.errstate(all="ignore"):
        network = _Diagnosing(case, baseline, failed, _passed(reports))
        return {name: network.completed(report) for name, report in reports.items()}


def _passed(reports: Mapping[str, Report]) -> set[str]:
    every = [report.tensors for report in reports.values()]
    return {name for name in every[-1] if all(one[name].verdict == "pass" for one in every if name in one)}


class _Diagnosing:
    """The diagnoses of one gradient of a network."""

    def __init__(self, case: NetworkCase, baseline: Baseline, failed: Collection[str], passed: Collection[str]) -> None:
        self._case, self._baseline = case, baseline
        known = [name for name in case.grads if name in failed or name in passed]
        self._suspects = {name: Suspect.of(case, baseline, name, name in failed) for name in known}
        self._ways = Ways(baseline.passes.program, known)
        self._places = dict[str, str]()
        self._kept = {name: _kept(one) for name, one in self._suspects.items() if one.failed}
        self._found: list[Diagnosis] | None = None

    def completed(self, report: Report) -> Report:
        """Return a report with its diagnoses."""
        values = self._case.point.params
        report = diagnosed(report, self._kept, self._case.grads, values, self._explain)
        tensors = {
            name: replace(tensor, diagnosis=tensor.diagnosis | {"culprit": self._places[name]})
            if tensor.diagnosis and name in self._places
            else tensor
            for name, tensor in report.tensors.items()
        }
        return replace(report, tensors=tensors)

    def _explain(self, failed: Failed) -> list[Diagnosis]:
        if self._found is None:
            self._found = list(self._explained(failed))
        return self._found

    def _explained(self, failed: Failed) -> Iterator[Diagnosis]:
        """Yield what explains some tensors: mistakes that are replayed, then patterns that are fitted."""
        penalised = list(self._penalties())
        yield from penalised
        settled = {name for one in penalised for name in one.tensors}
        right = [name for name, one in self._suspects.items() if not one.failed or name in settled]
        self._places |= self._ways.words(right)
        replayed = list(self._replayed(settled))
        patterns = self._fitted({name: one for name, one in failed.items() if name not in settled}, replayed)
        yield from sorted([*replayed, *patterns], key=lambda one: (is_in_part(one), -len(one.tensors)))

    def _fitted(self, failed: Failed, replayed: Collection[Diagnosis]) -> list[Diagnosis]:
        """Return patterns of the arrays alone, but for those of a few tensors where a mistake explains others too."""
        if not failed:
            return []
        others = {
            name: one.right.reshape(self._case.grads[name].shape)
            for name, one in self._suspects.items()
            if not one.failed
        }
        explained = {name for one in replayed for name in one.tensors}
        return [
            one
            for one in fitted(failed, others, _counts(self._baseline))
            if not explained >= {*one.tensors} or any({*one.tensors} >= {*other.tensors} for other in replayed)
        ]

    def _penalties(self) -> Iterator[Diagnosis]:
        """Yield the shares of the regularisation that alone make a gradient wrong."""
        found: dict[Share, list[str]] = {}
        for name, one in self._suspects.items():
            share = one.share(one.reference) if one.failed else None
            if share is not None:
                found.setdefault(share, []).append(name)
        for words, names in self._other_penalties(found).items():
            yield Diagnosis(
                f"{words}, and the gradient is right otherwise",
                f"with this in its place, {_same(names)}",
                _OF_DECAY,
                tuple(names),
                1.0,
                0.0,
            )
        for share, names in found.items():
            words = _amount(share, self._suspects[names[0]])
            yield Diagnosis(
                f"the gradient has {words}, and is right otherwise",
                f"with this share of it, {_same(names)}",
                _OF_DECAY,
                tuple(names),
                1.0,
                max(self._suspects[name].residual(self._suspects[name].reference, share) for name in names),
            )

    def _other_penalties(self, found: Mapping[Share, list[str]]) -> dict[str, list[str]]:
        """Return wrong formulas of the regularisation's gradient, and the tensors in which they stand alone."""
        known = {name for names in found.values() for name in names}
        others: dict[str, list[str]] = {}
        for name, one in self._suspects.items():
            for words, formula in PENALTIES.items() if one.failed and name not in known else ():
                if one.is_made(one.reference, formula(one.penalty, one.values)):
                    others.setdefault(words, []).append(name)
        return others

    def _replayed(self, settled: Collection[str]) -> Iterator[Diagnosis]:
        """Yield the mistakes that were found by replaying the backward pass, the same ones as one."""
        wanted = {
            name: replace(one, failed=one.failed and name not in settled)
            for name, one in self._suspects.items()
            if name not in settled or one.share(one.reference) is not None  # another formula fits no replay
        }
        merged: dict[tuple[str, str], Finding] = {}
        for findings in Search(self._baseline, wanted, self._ways).findings():
            for one in findings:
                known = merged.setdefault((one.bug, one.advice), Finding(one.bug, one.advice, []))
                known.rows += one.rows
                known.shares |= one.shares
                known.residuals |= one.residuals
        right = [name for name, one in self._suspects.items() if not one.failed or name in settled]
        for one in reversed(merged.values()):  # those found first say where
            self._places |= dict.fromkeys(one.shares, self._ways.of_mistake(one.rows, one.shares, right))
        for one in merged.values():
            yield from self._of_finding(one)

    def _of_finding(self, finding: Finding) -> Iterator[Diagnosis]:
        """Yield a mistake's diagnoses: one for each share of the regularisation in what it explains."""
        place = joined(self._ways.layers(finding.rows))
        for share in dict.fromkeys(finding.shares.values()):
            names = [name for name, own in finding.shares.items() if own == share]
            besides = (
                "" if share == RIGHT else f"; besides, the gradient has {_amount(share, self._suspects[names[0]])}"
            )
            yield Diagnosis(
                f"{finding.bug}, in {place}{besides}",
                f"computed again with this mistake, {_same(names)}",
                finding.advice,
                tuple(names),
                1.0,
                max(finding.residuals[name] for name in names),
            )


def _kept(one: Suspect) -> Kept:
    """Return a tensor's values as a check keeps them: all, or a sample."""
    size = len(one.given)
    dims = np.sort(np.random.default_rng(0).choice(size, min(size, KEPT), replace=False))
    return Kept(dims, one.given[dims], one.right[dims], one.bars[dims])


def _same(names: Collection[str]) -> str:
    return f"the gradient of {joined(list(names))} is the same, within rounding"


def _amount(share: Share, suspect: Suspect) -> str:
    """Return the words for a share of the regularisation's gradient."""
    if share.l2 == share.l1 or not (suspect.penalty.l2 and suspect.penalty.l1):
        amount = share.l2 if suspect.penalty.l2 else share.l1
        return AMOUNTS[amount].format("the regularisation's") if amount else "none of the regularisation's"
    return " and ".join(
        AMOUNTS[factor].format(f"the {kind} term's") if factor else f"none of the {kind} term's"
        for factor, kind in ((share.l2, "l2"), (share.l1, "l1"))
    )


def _counts(baseline: Baseline) -> dict[str, float]:
    """Return what a network's gradients may have been divided or multiplied by, in words."""
    passes = baseline.passes
    counts = {"the number of data points": float(len(passes.point.x))}
    return counts | {"the number of outputs": float(passes.program.nodes[-1].entries)}
