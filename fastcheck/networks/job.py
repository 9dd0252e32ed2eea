"""A network prepared for its check: the passes that all phases share, and one pipeline for each phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import integer, positive
from fastcheck.common.arrays import as_array
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.interrupts import listening
from fastcheck.networks import hygiene
from fastcheck.networks.case import Arrays, Gradients, NetworkCase, Point, gradients, precision_known
from fastcheck.networks.network import Network, Penalty
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import Explanation, NetworkReport, SuiteReport

if TYPE_CHECKING:
    from fastcheck.engine.settings import Settings
    from fastcheck.networks.error_bars import Baseline
    from fastcheck.networks.penalty import Share
    from fastcheck.networks.program import Program

CHECK_POINTS = 8
"""Number of data points to use where the gradient is a function, which can be called for any number."""

DATA, WHOLE = "data loss", "with regularisation"
"""Names of the phases."""

Gradient = Any
"""Arrays by name, or a function of (params, x, y) that returns them."""


def prepare(
    network: Network,
    params: Any,
    grads: Gradient,
    x: Any,
    y: Any,
    settings: Settings,
    *,
    loss: float | None = None,
    data_grads: Gradient = None,
    masks: Any = None,
    points: int | None = None,
    burn_in: int = 0,
    learning_rate: float = 0.05,
    only: Sequence[str] | None = None,
    precision: str | None = None,
) -> NetworkJob:
    """Prepare a network for its check; the arguments are those of `fastcheck.check_network`."""
    precision_known(precision)
    arguments = _Arguments(
        network,
        Point.of(network, params, x, y, masks, precision),
        as_array("y", y),
        grads,
        data_grads,
        None if only is None else tuple(only),
        precision,
    )
    seed, rate = settings.seed, positive("learning_rate", learning_rate)
    arguments = arguments.burnt_in(integer("burn_in", burn_in, least=0), rate, seed).with_points(points, seed)
    return NetworkJob(arguments, settings, loss, burn_in)


def fitting(point: Point, threads: int) -> Program:
    """Lower a network, and refuse one that needs more memory than is free.

    Parameters
    ----------
    point : Point
        An outline is enough.
    threads : int

    Raises
    ------
    FastcheckError
        If the network needs more than that; the message has both numbers.
    """
    from fastcheck.networks import partial, passes  # imports Numba

    lowered, points = passes.lowered(point), len(point.x)
    needed = partial.needed_bytes(lowered, point, threads)
    machine.refuse_beyond(
        needed,
        lambda available: (
            f"the network at {points:,} data points needs {needed:,} bytes, and {available:,} are available: expected "
            "fewer data points"
        ),
    )
    return lowered


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a check, checked; ``chosen`` are the data points that are used, of ``total`` that were given."""

    network: Network
    point: Point
    y: np.ndarray
    grads: Gradient
    data_grads: Gradient
    only: tuple[str, ...] | None
    precision: str | None
    total: int = 0
    chosen: tuple[int, ...] = ()

    @property
    def _functions(self) -> bool:
        return callable(self.grads) and (self.data_grads is None or callable(self.data_grads))

    def burnt_in(self, steps: int, learning_rate: float, seed: int) -> _Arguments:
        """Return the arguments at parameters that were trained for a few steps."""
        if not steps:
            return self
        if not self._functions:
            raise FastcheckError(
                f"burn_in is {steps}: it changes the parameters, so the gradients must be functions of (params, x, y)"
            )
        from fastcheck.networks import training  # imports Numba

        return replace(self, point=self.point.with_params(training.burn_in(self.point, steps, learning_rate, seed)))

    def with_points(self, points: int | None, seed: int) -> _Arguments:
        """Return the arguments with a sample of the data points."""
        total = len(self.point.x)
        if points is None:
            count = min(CHECK_POINTS, total) if self._functions and not self.point.masks else total
        else:
            count = min(total, integer("points", points, least=1))
        if count < total and not self._functions:
            raise FastcheckError(
                f"points is {count}: the given gradients are those of all {total}; expected functions of (params, x, y)"
            )
        chosen = np.sort(np.random.default_rng([seed, total]).choice(total, count, replace=False))
        point = self.point.taking(chosen)
        return replace(self, point=point, y=self.y[chosen], total=total, chosen=tuple(chosen.tolist()))

    def given(self, label: str, gradient: Gradient) -> Gradients:
        """Return a gradient; a function is called with copies."""
        if callable(gradient):
            point = self.point
            params = {name: array.copy() for name, array in (point.params | point.buffers).items()}
            try:
                gradient = gradient(params, point.x.copy(), self.y.copy())
            except Exception as error:
                raise raised_by(label, error) from error
        return gradients(label, gradient, self.point, self.only, self.precision)


class NetworkJob:
    """A network whose passes have been run, ready to be checked phase by phase.

    Attributes
    ----------
    pipelines : dict of str to NetworkPipeline
        One for each phase, by name.
    """

    def __init__(self, arguments: _Arguments, settings: Settings, loss: float | None, burn_in: int) -> None:
        from fastcheck.networks import loss_check  # imports Numba
        from fastcheck.networks.error_bars import Baseline
        from fastcheck.networks.passes import Passes, refuse_non_finite
        from fastcheck.networks.pipeline import NetworkPipeline

        self._arguments, self._settings, self._burn_in = arguments, settings, burn_in
        point = arguments.point
        self._whole = arguments.given("grads", arguments.grads)
        self._data = None if arguments.data_grads is None else arguments.given("data_grads", arguments.data_grads)
        settings.progress("evaluating the network (the first run compiles the kernels)", 0, 0)
        lowered = fitting(point, settings.threads)
        passes = Passes(point, lowered)
        refuse_non_finite(passes)
        self._penalties = arguments.network.penalties(list(point.params))
        self._baseline = baseline = Baseline.of(passes, settings.seed, phases=2 if self._penalties else 1)
        forward = None if loss is None else loss_check.compared(loss, baseline, self._penalties, arguments.precision)
        self._shares = _shares(arguments, self._whole, self._penalties, baseline)
        self._data_shares = _shares(arguments, self._data or Gradients({}), self._penalties, baseline)
        self._cases = _phases(arguments, self._whole, self._data, self._penalties, baseline, self._shares)
        self.pipelines = {
            name: NetworkPipeline(case, settings, baseline, forward) for name, case in self._cases.items()
        }

    def settings(self, phase: str) -> Settings:
        """Return a phase's settings; where there are several phases, progress names the phase."""
        if len(self.pipelines) == 1:
            return self._settings
        progress = self._settings.progress
        return replace(self._settings, progress=lambda stage, done, total: progress(f"{phase}, {stage}", done, total))

    def explanations(self, reports: Mapping[str, Report]) -> tuple[Explanation, ...]:
        """Explain the worst dimensions of the last phase that failed, or else was inconclusive, or else ran.

        The reports must have kept their per-dimension arrays.
        """
        from fastcheck.networks import explanation

        if any(_ends(report) for report in reports.values()):
            return ()
        failed, unsure = (explanation.named(reports, verdict) for verdict in ("fail", "inconclusive"))
        name = (failed or unsure or list(reports))[-1]
        with listening():
            return explanation.of_worst(
                self._cases[name], self._baseline, reports[name], self._settings, self._arguments.chosen
            )

    def report(self, reports: Mapping[str, Report], explanations: tuple[Explanation, ...] = ()) -> NetworkReport:
        """Return the phases' reports as one, with the diagnoses of what fails and the checklist of good practice."""
        reports = self._diagnosed(reports)
        facts = hygiene.Facts(
            network=self._arguments.network,
            point=self._arguments.point,
            baseline=self._baseline,
            penalties=self._penalties,
            cases=self._cases,
            reports=reports,
            requested_step=self._settings.step,
            total=self._arguments.total,
            burn_in=self._burn_in,
            shares=self._shares,
            data_shares=self._data_shares,
        )
        suite = SuiteReport.of(reports, self._settings.threads)
        interrupted = any(report.interrupted for report in reports.values())
        return NetworkReport(reports, interrupted, suite.run, hygiene.panel(facts), explanations)

    def run(self, check: Callable[[str], Report]) -> dict[str, Report]:
        """Check phase after phase, until one is interrupted or finds another loss than the declared one."""
        reports: dict[str, Report] = {}
        for name in self.pipelines:
            reports[name] = check(name)
            if _ends(reports[name]):
                break
        return reports

    def _diagnosed(self, reports: Mapping[str, Report]) -> dict[str, Report]:
        """Return the phases' reports with a diagnosis of every tensor that failed."""
        from fastcheck.networks.diagnosed import with_diagnoses

        if any(_ends(report) for report in reports.values()):
            return dict(reports)
        if self._data is None:  # both phases check one gradient, the whole
            return with_diagnoses(self._cases[list(self._cases)[-1]], self._baseline, reports)
        completed = dict[str, Report]()
        for name, report in reports.items():
            completed |= with_diagnoses(self._cases[name], self._baseline, {name: report})
        return completed


def _ends(report: Report) -> bool:
    return report.interrupted or (report.forward is not None and report.forward.verdict == "fail")


def _phases(
    arguments: _Arguments,
    whole: Gradients,
    data: Gradients | None,
    penalties: dict[str, Penalty],
    baseline: Baseline,
    shares: Mapping[str, Share],
) -> dict[str, NetworkCase]:
    """Return the case of each phase, by name."""
    removed: dict[str, Penalty] = {}
    if data is None:
        removed = {name: share.of(penalties[name]) for name, share in shares.items()}
        arrays = _without(whole.arrays, removed, arguments.point.params, baseline.passes.named(baseline.gradient))
        data = Gradients(arrays, whole.bfloat16)
    cases = {DATA: _case(arguments, data, {}, removed)}
    return cases | {WHOLE: _case(arguments, whole, penalties)} if penalties else cases


def _case(
    arguments: _Arguments,
    given: Gradients,
    penalties: dict[str, Penalty],
    removed: dict[str, Penalty] | None = None,
) -> NetworkCase:
    return NetworkCase(
        arguments.point, given.arrays, penalties, arguments.precision, removed or {}, bfloat16=given.bfloat16
    )


def _shares(
    arguments: _Arguments, whole: Gradients, penalties: dict[str, Penalty], baseline: Baseline
) -> dict[str, Share]:
    """Return the share of its regularisation in every regularised tensor's gradient, by the reference gradient."""
    from fastcheck.networks import penalty

    most = penalty.Share(max(penalty.FACTORS), max(penalty.FACTORS), False)
    reference, params = baseline.passes.named(baseline.gradient), arguments.point.params
    twice = {name: most.of(penalties[name]) for name in penalties}
    case = _case(arguments, whole, {}, twice)
    shares = {}
    for name in (name for name in whole.arrays if name in penalties):
        given = whole.arrays[name]
        bars = baseline.rounding.of(case, name, baseline.terms(name)).reshape(given.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            rest = given.astype(np.float64) - reference[name]
        # Twice the bars: the reference, in float64, is rounded by no more than the given gradient.
        shares[name] = penalty.share(penalties[name], params[name], rest, 2 * bars)
    return shares


def _without(whole: Arrays, removed: dict[str, Penalty], params: Arrays, reference: Arrays) -> Arrays:
    """Return gradients without their share of the regularisation's."""
    from fastcheck.networks.penalty import taken_off

    def without(name: str, array: np.ndarray) -> np.ndarray:
        taken = taken_off(removed[name], params[name], array - reference[name])
        return (array - taken).astype(array.dtype)

    with np.errstate(over="ignore", invalid="ignore"):
        return {name: without(name, array) if name in removed else array for name, array in whole.items()}
