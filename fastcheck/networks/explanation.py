"""Explanations of a network's worst dimensions: the units that cross kinks, a step without crossings, a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.precision import WIDE
from fastcheck.engine.settings import Settings
from fastcheck.engine.steps import is_usable
from fastcheck.metrics import tally
from fastcheck.networks import penalty
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.evaluator import NetworkEvaluator
from fastcheck.networks.full import Crossing, Full
from fastcheck.networks.network import Penalty
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import Explanation
from fastcheck.reports.tensor_report import Kept, TensorReport
from fastcheck.sweeps.sweep import sweep

SHOWN = 3
"""Largest number of dimensions to explain."""

NAMED = 3
"""Largest number of units that an explanation names."""

TRIED = 8
"""Largest number of smaller steps to try, by factors of four, until no kink is crossed."""


def of_worst(
    case: NetworkCase, baseline: Baseline, report: Report, settings: Settings, points: Sequence[int]
) -> tuple[Explanation, ...]:
    """Explain the worst dimensions of what failed, or else of what is inconclusive, or else of the first layer.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    report : Report
        A report that kept the per-dimension arrays.
    settings : Settings
    points : sequence of int
        The user's numbers of the data points.
    """
    # A mistake reaches the gradients of its own layer and of all layers before it. So the last tensors that fail are
    # nearest to it, and the first inconclusive ones would show any mistake.
    failed, unsure = (named(report.tensors, verdict) for verdict in ("fail", "inconclusive"))
    names = failed[-SHOWN:] or unsure[:SHOWN] or list(report.tensors)[:1]
    each = -(-SHOWN // len(names)) if names else 0
    explained = [_of_tensor(case, baseline, report.tensors[name], name, each, settings, points) for name in names]
    return tuple(itertools.chain.from_iterable(explained))[:SHOWN]


def named(reports: Mapping[str, Report] | Mapping[str, TensorReport], verdict: str) -> list[str]:
    """Return the names of the reports that have a verdict."""
    return [name for name, one in reports.items() if one.verdict == verdict]


def _of_tensor(
    case: NetworkCase,
    baseline: Baseline,
    tensor: TensorReport,
    name: str,
    count: int,
    settings: Settings,
    points: Sequence[int],
) -> Iterator[Explanation]:
    """Yield explanations of a tensor's worst dimensions."""
    if tensor.kept is None or tensor.step is None:
        return
    positions = _worst(tensor.kept)[:count]
    dims = [int(tensor.kept.dims[position]) for position in positions]
    if not dims:
        return
    swept = sweep(case, tensor=name, dims=dims, threads=settings.threads, seed=settings.seed)
    explaining = _Explaining(case, baseline, name, settings.seed, points)
    for position, curve in zip(positions, swept.curves, strict=True):
        yield explaining.of(tensor.kept, position, tensor.step, curve.brief())


def _worst(kept: Kept) -> list[int]:
    """Return the positions of the worst dimensions: those outside their error bars, or else those that agree least.

    A value that is not finite is outside any bar, and comes first.
    """
    ratio = tally.relative_difference(kept.analytic, kept.numeric)
    larger = np.maximum(np.abs(kept.analytic), np.abs(kept.numeric))
    finite = np.isfinite(larger)
    bars = np.zeros(len(larger)) if kept.error_bar is None else kept.error_bar
    with np.errstate(invalid="ignore"):
        beyond = ~finite | (np.abs(kept.analytic - kept.numeric) > bars)
    large = larger > 1e-9 * larger[finite].max(initial=0.0)
    # A kink can make a bar as wide as the value itself; such a dimension needs explaining too.
    seen = finite & ((larger > bars) | (ratio > 1e-6))
    score = np.where(beyond if beyond.any() else seen, np.where(large, ratio, 0.0), -1.0)
    score = np.where(finite, score, np.inf)
    return [int(i) for i in np.lexsort((kept.dims, -score))[:SHOWN] if score[i] >= 0]


class _Explaining:
    """Explains dimensions of one tensor."""

    def __init__(self, case: NetworkCase, baseline: Baseline, name: str, seed: int, points: Sequence[int]) -> None:
        self._case, self._baseline, self._name, self._seed, self._points = case, baseline, name, seed, points
        self._full = Full(baseline.passes, name, baseline.roundoff.loss)

    def of(self, kept: Kept, position: int, step: float, swept: dict[str, Any]) -> Explanation:
        """Explain the dimension at a position of the kept arrays."""
        dim = int(kept.dims[position])
        analytic, numeric = float(kept.analytic[position]), float(kept.numeric[position])
        crossings = [
            one._replace(unit=(self._points[one.unit[0]], *one.unit[1:])) for one in self._full.crossings(dim, step)
        ]
        quiet = self._quiet(dim, step) if crossings else None
        value = None if quiet is None else self._numeric(dim, quiet)
        explanation = Explanation(
            tensor=self._name,
            index=index_of(dim, self._case.grads[self._name].shape),
            analytic=analytic,
            numeric=numeric,
            digits=_digits(analytic, numeric),
            step=step,
            crossings=tuple(
                {key: entry for key, entry in crossing._asdict().items() if key != "amount"} for crossing in crossings
            ),
            quiet_step=quiet,
            quiet_numeric=value,
            quiet_digits=None if value is None else _digits(analytic, value),
            sweep=swept,
            words="",
        )
        shown = "" if quiet is None else self._shown(dim, analytic, quiet, swept["reading"] == "coding mistake")
        bar = 0.0 if kept.error_bar is None else float(kept.error_bar[position])
        return _with_words(explanation, crossings, shown, bar)

    def _quiet(self, dim: int, step: float) -> float | None:
        """Return the largest step, by factors of four, with which a dimension crosses no kink; None without one."""
        steps = [step * 0.25**count for count in range(1, TRIED + 1)]
        usable = [smaller for smaller in steps if is_usable(smaller, self._case.operand(self._name), self._name)]
        return next((smaller for smaller in usable if not self._full.crossings(dim, smaller)), None)

    def _numeric(self, dim: int, step: float) -> float:
        """Return the numeric value with another step, by whole forward passes, regularisation included."""
        own = penalty.difference(
            self._case.penalties.get(self._name, Penalty()), self._case.operand(self._name).reshape(-1)[[dim]], step
        )
        return float(self._full.numeric(np.array([dim]), step)[0]) / (2 * step) + float(own[0][0])

    def _shown(self, dim: int, analytic: float, step: float, mistaken: bool) -> str:
        """Return the conclusion from a step that crosses nothing; ``mistaken`` if the sweep shows a mistake."""
        tables = PartialEvaluation(self._baseline.passes, self._name)
        there = NetworkEvaluator(self._case, self._baseline, tables, self._name, step, self._seed)(np.array([dim]))
        numeric, bar = float(there.numeric[0]), float(there.error_bar[0])
        if mistaken or not abs(analytic - numeric) <= bar:
            return "the kinks are not the whole reason"
        if bar > WIDE * max(abs(analytic), abs(numeric)):
            return f"the error bar, {bar:.1e}, is too wide there to show a bug"
        return "no bug"


def _digits(a: float, n: float) -> float:
    return float(tally.digits(np.array(tally.relative_difference_of(a, n)))) + 0.0  # never -0.0


def _with_words(explanation: Explanation, crossings: list[Crossing], shown: str, bar: float) -> Explanation:
    """Return an explanation with its sentences."""
    entry, h = f"{explanation.tensor}{list(explanation.index)}", f"at h = {explanation.step:.3g}"
    words = [f"{entry} agrees to {explanation.digits:.1f} digits {h}."]
    # Where both values are noise, so are their digits.
    if not crossings and max(abs(explanation.analytic), abs(explanation.numeric)) <= bar:
        words = [f"Neither value of {entry} exceeds its error bar, {bar:.1e} {h}."]
    if not crossings:
        words.append("No unit crosses a kink between -h and +h.")
    else:
        largest = sorted(crossings, key=lambda crossing: -crossing.amount)
        count = len(crossings)
        words.append(f"Between -h and +h, {count} unit{'s cross' if count > 1 else ' crosses'} a kink:")
        words.append("; ".join(map(_described, largest[:NAMED])) + ("; ..." if count > NAMED else "."))
    if explanation.quiet_digits is not None:
        words.append(
            f"At h = {explanation.quiet_step:.3g} none does, and {explanation.quiet_digits:.1f} digits agree: {shown}."
        )
    words.append(f"The sweep over h reads: {explanation.sweep['reading']}. {explanation.sweep['words']}")
    return replace(explanation, words=" ".join(words))


def _described(crossing: Crossing) -> str:
    """Return a description of one unit's crossing."""
    if crossing.kind == "hinge":
        return (
            f"the hinge's term of data point {crossing.unit[0]} and class {crossing.unit[1]} goes from "
            f"{crossing.minus:.2g} to {crossing.plus:.2g}"
        )
    point, channel, *position = crossing.unit
    where = f", position {tuple(position)}" if position else ""
    unit = f"{crossing.layer}, data point {point}, channel {channel}{where}"
    if crossing.kind == "winner":
        return f"{unit}: the largest entry moves from {_listed(crossing.minus)} to {_listed(crossing.plus)}"
    return f"{unit}: {crossing.minus:.2g} becomes {crossing.plus:.2g}"


def _listed(positions: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(map(str, positions[:2])) + (" and more" if len(positions) > 2 else "")
