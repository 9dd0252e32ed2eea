"""The public check of a whole network, phase by phase."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastcheck import hygiene, machine
from fastcheck.cases import network as cases
from fastcheck.cases.network import Arrays, NetworkCase, Point
from fastcheck.check import KINKS, usable_step
from fastcheck.errors import FastcheckError
from fastcheck.geometry import integer
from fastcheck.interrupts import listening
from fastcheck.naming import nearest
from fastcheck.network import Network, Penalty
from fastcheck.network_report import Explanation, NetworkReport
from fastcheck.progress import ProgressHook, silent
from fastcheck.report import Report
from fastcheck.sampling import Dims
from fastcheck.step import positive
from fastcheck.suite import SuiteReport

if TYPE_CHECKING:
    from fastcheck.evaluators.network_bars import Ground
    from fastcheck.paths import Plan

EVALUATORS = ("auto", "network", "full")
"""What ``evaluator`` may be."""

FEW = 8
"""Data points that are used where the gradient is a function, which can be called for any."""

DATA, WHOLE = "data loss", "with regularisation"
"""The phases' names."""

Gradient = Any
"""Arrays by name, or a function of (params, x, y) that returns them."""


def check_network(
    network: Network,
    params: Any,
    grads: Gradient,
    x: Any,
    y: Any,
    *,
    loss: float | None = None,
    data_grads: Gradient = None,
    masks: Any = None,
    points: int | None = None,
    burn_in: int = 0,
    learning_rate: float = 0.05,
    only: Sequence[str] | None = None,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    evaluator: Literal["auto", "network", "full"] = "auto",
    kinks: Literal["widen", "exclude"] = "widen",
    precision: str | None = None,
    explain: bool = False,
    threads: int | None = None,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | None = None,
) -> NetworkReport:
    """Difference a whole network through its loss, and judge the gradient of every parameter.

    A regularised network is checked in two phases: the data loss alone, then the whole objective.

    Parameters
    ----------
    network : Network
    params : mapping
        Arrays by "layer.tensor", or by layer and tensor; float64, float32 or float16.
    grads : mapping, or callable of (params, x, y) that returns one
        The gradient of the whole objective, regularisation included, named as ``params``.
    x : array, shape (N, ...)
    y : array
        Classes of shape (N,) for softmax and hinge, else an array shaped as the output.
    loss : float, optional
        What your forward pass gave at this point, with or without regularisation. It is compared first: gradients of
        another function are not judged.
    data_grads : as ``grads``, optional
        The gradient with regularisation switched off. Without it the first phase takes the regularisation's own
        gradient off ``grads``, or finds that it is missing.
    masks : mapping of dropout layers to arrays of zeros and ones, optional
        Those of the analytic pass. Without one dropout is off.
    points : int, optional
        How many data points to use, a seeded sample. By default all, or 8 where the gradients are functions.
    burn_in : int
        Steps of plain SGD by the reference gradient before the check; the gradients must be functions.
    learning_rate : float
        Of these steps.
    only : sequence of str, optional
        Layers and tensors to check.
    dims, step, kinks, threads, seed, keep, progress : optional
        As in `fastcheck.check`. With ``step="auto"`` each tensor has a power of two that moves its layer's results by
        about 2^-17 of their size, and a dimension that crosses a kink is tried again with smaller ones.
    evaluator : {"auto", "network", "full"}
        ``network``, which ``"auto"`` picks, evaluates what a dimension moves; ``full`` the whole network, twice.
    precision : str, optional
        How the analytic pass computed, where the gradients' dtype does not tell ("tf32", "bfloat16", ...).
    explain : bool
        Name the units that the worst dimensions of the first layer cross, and sweep the step there.

    Returns
    -------
    NetworkReport

    Raises
    ------
    FastcheckError
        If an argument is none of the above, the shapes do not chain, or the loss is not finite at the point itself.
    """
    if evaluator not in EVALUATORS:
        raise FastcheckError(
            f"evaluator is {evaluator!r}{nearest(evaluator, EVALUATORS)}: expected {', '.join(EVALUATORS)}"
        )
    if kinks not in KINKS:
        raise FastcheckError(f"kinks is {kinks!r}{nearest(str(kinks), KINKS)}: expected {', '.join(KINKS)}")
    cases.precision_known(precision)
    threads = machine.default_threads() if threads is None else integer("threads", threads, least=1)
    seed, step = integer("seed", seed, least=0), usable_step(step)
    given = _Given(
        network,
        Point.of(network, params, x, y, masks),
        np.asarray(y),
        grads,
        data_grads,
        None if only is None else tuple(only),
        precision,
    )
    given = given.burnt_in(integer("burn_in", burn_in, least=0), positive("learning_rate", learning_rate), seed)
    given = given.with_points(points, seed)
    from fastcheck.paths import Plan

    plan = Plan(
        dims=dims,
        step=step,
        evaluator=evaluator,
        kinks=kinks,
        threads=threads,
        seed=seed,
        keep=keep or explain,
        progress=progress or silent,
    )
    return _run(given, plan, loss, burn_in, explain=explain, keep=keep)


@dataclass(frozen=True)
class _Given:
    """What a check begins with; ``chosen`` are the data points that are used, of ``total`` that were given."""

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

    def burnt_in(self, steps: int, learning_rate: float, seed: int) -> _Given:
        """Return the same at parameters that were trained a little."""
        if not steps:
            return self
        if not self._functions:
            raise FastcheckError(
                f"burn_in is {steps}: it changes the parameters, so that gradients must be functions of (params, x, y)"
            )
        from fastcheck import training  # imports Numba

        return replace(self, point=self.point.with_params(training.burn_in(self.point, steps, learning_rate, seed)))

    def with_points(self, points: int | None, seed: int) -> _Given:
        """Return the same with a sample of the data points."""
        total = len(self.point.x)
        if points is None:
            count = min(FEW, total) if self._functions and not self.point.masks else total
        else:
            count = min(total, integer("points", points, least=1))
        if count < total and not self._functions:
            raise FastcheckError(
                f"points is {count}: the gradients given are those of all {total}; expected functions of (params, x, y)"
            )
        chosen = np.sort(np.random.default_rng([seed, total]).choice(total, count, replace=False))
        point = self.point.taking(chosen)
        return replace(self, point=point, y=self.y[chosen], total=total, chosen=tuple(chosen.tolist()))

    def arrays(self, label: str, gradient: Gradient) -> Arrays:
        """Return a gradient's arrays, those of a function called with copies."""
        if callable(gradient):
            point = self.point
            params = {name: array.copy() for name, array in (point.params | point.buffers).items()}
            try:
                gradient = gradient(params, point.x.copy(), self.y.copy())
            except Exception as error:
                told = " ".join(str(error).split())
                raise FastcheckError(f"{label} raises {type(error).__name__}{': ' * bool(told)}{told}") from error
        return cases.gradients(label, gradient, self.point, self.only)


def _run(given: _Given, plan: Plan, loss: float | None, burn_in: int, *, explain: bool, keep: bool) -> NetworkReport:
    from fastcheck import coordinator, explanation, loss_check  # import Numba
    from fastcheck.cases import network_pass
    from fastcheck.cases.network_pass import Passes, refuse_non_finite
    from fastcheck.evaluators import network_moved
    from fastcheck.evaluators.network_bars import Ground
    from fastcheck.paths.network import NetworkPath

    point = given.point
    whole = given.arrays("grads", given.grads)
    data = None if given.data_grads is None else given.arrays("data_grads", given.data_grads)
    plan.progress("evaluating the network (the first run compiles the kernels)", 0, 0)
    lowered = network_pass.lowered(point)
    _refuse_what_cannot_fit(network_moved.needed_bytes(lowered, point, plan.threads), len(point.x))
    passes = Passes(point, lowered)
    refuse_non_finite(passes)
    penalties = given.network.penalties(list(point.params))
    ground = Ground.of(passes, plan.seed, phases=2 if penalties else 1)
    forward = None if loss is None else loss_check.compared(loss, ground, penalties, given.precision)
    phases = _phases(given, whole, data, penalties, ground)
    reports: dict[str, Report] = {}
    interrupted = False
    for name, case in phases.items():
        report = coordinator.run(NetworkPath(case, plan, ground, forward), _named(plan, name, phases))
        reports[name] = report
        interrupted |= report.interrupted
        if interrupted or (forward is not None and forward.verdict == "fail"):
            break
    found: tuple[Explanation, ...] = ()
    if explain and not interrupted and (forward is None or forward.verdict == "pass"):
        with listening():
            name = list(reports)[-1]
            found = explanation.of_first_layer(phases[name], ground, reports[name], plan, given.chosen)
    facts = hygiene.Facts(
        network=given.network,
        point=point,
        ground=ground,
        penalties=penalties,
        whole=whole,
        reports=reports,
        requested_step=plan.step,
        total=given.total,
        burn_in=burn_in,
        included=_included(whole, penalties, ground) if data is None else None,
    )
    suite = SuiteReport.of({name: _kept(report, keep) for name, report in reports.items()}, plan.threads)
    return NetworkReport(suite.cases, interrupted, suite.run, hygiene.panel(facts), found)


def _refuse_what_cannot_fit(needed: int, points: int) -> None:
    available = machine.available_bytes()
    if available is not None and needed > available:
        raise FastcheckError(
            f"the network at {points:,} data points needs {needed:,} bytes, and {available:,} are available: expected "
            "fewer data points"
        )


def _named(plan: Plan, phase: str, phases: Collection[str]) -> Plan:
    """Return a plan whose progress tells the phase, where there are several."""
    if len(phases) == 1:
        return plan
    return replace(plan, progress=lambda stage, done, total: plan.progress(f"{phase}, {stage}", done, total))


def _kept(report: Report, keep: bool) -> Report:
    """Return a report without the arrays that only the explanation needed."""
    if keep:
        return report
    return replace(report, tensors={name: replace(tensor, kept=None) for name, tensor in report.tensors.items()})


def _phases(
    given: _Given, whole: Arrays, data: Arrays | None, penalties: dict[str, Penalty], ground: Ground
) -> dict[str, NetworkCase]:
    """Return what is checked in every phase."""
    if not penalties:
        return {DATA: NetworkCase(given.point, whole if data is None else data, {}, given.precision)}
    removed: dict[str, Penalty] = {}
    if data is None:
        removed = {name: penalties[name] for name, there in _included(whole, penalties, ground).items() if there}
        data = _without(whole, removed, given.point.params)
    return {
        DATA: NetworkCase(given.point, data, {}, given.precision, removed),
        WHOLE: NetworkCase(given.point, whole, penalties, given.precision),
    }


def _included(whole: Arrays, penalties: dict[str, Penalty], ground: Ground) -> dict[str, bool]:
    """Tell for every regularised tensor whether its gradient looks like one with the regularisation in it."""
    from fastcheck.evaluators.penalty import gradient

    found = {}
    reference = ground.passes.named(ground.gradient)
    for name in whole.keys() & penalties.keys():
        own = gradient(penalties[name], ground.passes.point.params[name])
        with np.errstate(all="ignore"):
            rest = whole[name].astype(np.float64) - reference[name]
            with_it, without = (float(np.linalg.norm(part)) for part in (rest - own, rest))
        found[name] = not without < with_it
    return found


def _without(whole: Arrays, removed: dict[str, Penalty], params: Arrays) -> Arrays:
    """Return gradients with those of regularisation taken off."""
    from fastcheck.evaluators.penalty import gradient

    return {
        name: (array - gradient(removed[name], params[name])).astype(array.dtype) if name in removed else array
        for name, array in whole.items()
    }
