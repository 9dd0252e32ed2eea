"""What directions say of a gradient, as a report."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import index_of
from fastcheck.common.arrays import Floating
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed
from fastcheck.engine.magnitudes import rms
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import Estimate, exponent_of
from fastcheck.metrics import advice, judged, probe_health, tally
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import Judgement
from fastcheck.metrics.tally import Tally
from fastcheck.probes import blame
from fastcheck.probes.along import Derivative, Differencer
from fastcheck.probes.evaluated import Evaluated
from fastcheck.probes.manifest import Manifest, Stored
from fastcheck.reports.report import Report, requested
from fastcheck.reports.tensor_report import TensorReport

EVALUATOR = "directions"

SPARE = 6
"""One of so many directions is left out of the limit of detection: the ones with the widest bars, where kinks crowd.
Bars depend on the program and not on the gradient's errors, so the choice favours none."""

MEANINGFUL = 0.25
"""Largest limit of detection, as a fraction of a typical entry, with which a tensor passes."""

FEW = 3
"""Fewer directions that contradict the gradient decide nothing by themselves: a bar may be small."""

TINY = 8.0
"""Smallest moves, in units of an entry, beyond which directions do not show how the program varies with it."""

STEEP = 2.0**10
"""Ratio to the gradient's other entries from which one may belong to a small entry with a scale of its own."""

SMALL_STEP, LARGE_STEP = -40, -2
"""Smallest and largest step that is suggested, as powers of two."""

LARGER = 4
"""Powers of two by which a larger step is suggested, beyond what would do, where round-off hides how far to go."""

CLOSE = 2
"""Powers of two by which a suggested step differs at least from those that were probed."""


@dataclass(frozen=True)
class Outcome:
    """What the directions say of a gradient.

    Parameters
    ----------
    place : Path
        The folder of points.
    manifest : Manifest
    evaluated : Evaluated
    differencer : Differencer
    given : dict of str to Floating
        The gradients as the program wrote them.
    analytic : dict of str to float64 array
        The same, with zeros for what is not finite.
    start : dict of str to float64 array
        The start point, flat.
    sizes : dict of str to float
        Size of a typical entry, by tensor.
    """

    place: Path
    manifest: Manifest
    evaluated: Evaluated
    differencer: Differencer
    given: dict[str, Floating]
    analytic: Arrays
    start: Arrays
    sizes: dict[str, float]

    def report(self, findings: Sequence[HealthFinding], began: float) -> Report:
        """Return the report, with these and further findings; ``began`` is when the judgement did."""
        derivatives, broken = self.differencer.derivatives(), self._not_finite()
        failing = [one for one in derivatives if one.fails]
        blamed = blame.Blame()
        if failing and not broken:
            blamed = blame.blamed(self.place, self.manifest, self.evaluated, derivatives)
        contradicted = [self._contradiction(derivatives, failing, blamed)] if failing and not broken else []
        findings = [*findings, *self._repeats(), *contradicted]
        along = self._described(derivatives, len(failing), blamed)
        tensors = {
            tensor.name: self._tensor(tensor, derivatives, blamed, broken, along) for tensor in self.manifest.tensors
        }
        plan = self.manifest.plan
        report = Report(
            verdict=judged.heaviest(tensor.verdict for tensor in tensors.values()),
            seed=self.manifest.seed,
            requested=requested(list(plan.steps), EVALUATOR, "all", None) | {"directions": plan.directions},
            interrupted=False,
            forward=None,
            tensors=tensors,
            run=machine.run_part(threads=1, seconds=time.perf_counter() - began),
            directions=None if broken else along,
        )
        return report.with_health(findings)

    # The directions

    def counted(self, derivatives: Sequence[Derivative]) -> list[Derivative]:
        """Return the directions of which the limit speaks: of those over all tensors, the ones with the least bars."""
        plan = self.manifest.plan
        usable = sorted((one for one in derivatives[: plan.directions] if one.usable), key=lambda one: one.bar)
        return usable[: plan.directions - plan.directions // SPARE]

    def _described(self, derivatives: Sequence[Derivative], failing: int, blamed: blame.Blame) -> dict[str, Any]:
        """Return the directions as a report keeps them.

        What explains their contradictions is known within a bar only, so that limits are then twice as wide.
        """
        counted = self.counted(derivatives)
        limits, relative, places = {}, {}, dict[str, list[int]]()
        for position, tensor in enumerate(self.manifest.tensors):
            moves = self.evaluated.moves[:, position]
            limit = max((_over(one.bar, moves[one.direction]) for one in counted), default=math.inf)
            typical = rms(self.analytic[tensor.name])
            limits[tensor.name] = (4 if blamed.explains else 2) * limit
            relative[tensor.name] = _over(limits[tensor.name], typical)
        for entry in blamed.entries:
            places.setdefault(entry.tensor, []).append(entry.dim)
        return {
            "count": len(counted),
            "guards": len(derivatives) - len(counted),
            "dims": self.manifest.dims,
            "calls": self.manifest.count,
            "failing": failing,
            "chance_of_missing": 2.0 ** -len(counted),
            "limit_of_detection": limits,
            "relative_limit": relative,
            "named": places,
            "along": [self._along(one) for one in derivatives],
        }

    def _along(self, one: Derivative) -> dict[str, Any]:
        plan = self.manifest.plan
        moving = [t.name for at, t in enumerate(self.manifest.tensors) if plan.moves(one.direction, at)]
        verdict = "fail" if one.fails else "pass" if one.usable else "inconclusive"
        numbers = {"analytic": one.analytic, "numeric": one.numeric, "error_bar": one.bar, "step": one.step}
        return {"tensors": moving, **numbers, "verdict": verdict}

    # Findings

    def _repeats(self) -> list[HealthFinding]:
        values = self.evaluated.values[self.evaluated.starts]
        if not np.isfinite(values).all():
            raise FastcheckError(
                "the program returns nan or infinity when it is evaluated again at the start point, where it was "
                "finite before: expected the same outputs"
            )
        spread = float(np.ptp(values))
        if not spread:
            return []
        return [probe_health.differs_when_repeated(spread / (self.evaluated.magnitude or 1.0))]

    def _not_finite(self) -> dict[str, np.ndarray]:
        """Return which entries of the gradient are not finite, by tensor, where some are."""
        wrong = {name: ~np.isfinite(one.values) for name, one in self.given.items()}
        return {name: entries for name, entries in wrong.items() if entries.any()}

    def _contradiction(
        self, derivatives: Sequence[Derivative], failing: Sequence[Derivative], blamed: blame.Blame
    ) -> HealthFinding:
        tensors = blamed.tensors if blamed.explains else self._alone(failing)
        shapes = {tensor.name: tensor.shape for tensor in self.manifest.tensors}
        finding = probe_health.contradicted(
            len(failing),
            len(derivatives),
            self.manifest.dims,
            [f"{one.tensor}{list(index_of(one.dim, shapes[one.tensor]))}" for one in blamed.entries],
            blamed.factor,
            tensors,
            len(shapes),
        )
        beyond = self._beyond_steps()
        if max(abs(one.numeric - one.analytic) for one in failing) <= 2 * sum(beyond.values()):
            return probe_health.beyond_steps(finding, list(beyond))
        decides = len(failing) >= min(FEW, sum(one.usable for one in derivatives))
        return finding if decides else probe_health.few_contradict(finding)

    def _beyond_steps(self) -> dict[str, float]:
        """Return by how much steep entries that every step exceeds may change a derivative, by tensor.

        They are far smaller than others and have far larger gradients: the program varies on their own scale there.
        """
        plan, found = self.manifest.plan, {}
        for position, (name, grad) in enumerate(self.analytic.items()):
            move = float(self.evaluated.moves[:, position].max())
            sizes, slopes = np.abs(self.start[name]), np.abs(grad.reshape(-1))
            tiny = (sizes > 0) & (sizes < TINY * (plan.bottom or plan.steps[-1]) * move)
            steep = tiny & (slopes > STEEP * (rms(slopes[~tiny]) if not tiny.all() else 0.0))
            if steep.any():
                found[name] = move * float(slopes[steep].sum())
        return found

    def _alone(self, failing: Sequence[Derivative]) -> tuple[str, ...]:
        """Return the tensors that are contradicted where they move alone."""
        plan, tensors = self.manifest.plan, self.manifest.tensors
        own = {(one.direction - plan.directions) // plan.own for one in failing if one.direction >= plan.directions}
        return tuple(tensors[position].name for position in sorted(own))

    # Tensors

    def _tensor(
        self,
        tensor: Stored,
        derivatives: Sequence[Derivative],
        blamed: blame.Blame,
        broken: dict[str, np.ndarray],
        along: dict[str, Any],
    ) -> TensorReport:
        name, counts = tensor.name, Tally()
        mine = [one for one in blamed.entries if one.tensor == name]
        if name in broken:
            dims = np.flatnonzero(broken[name])
            values = self.given[name].values.reshape(-1)[dims].astype(np.float64)
            counts = tally.fold(dims, values, np.zeros(len(dims)), np.zeros(len(dims)))
        elif mine:
            dims = np.array([one.dim for one in mine])
            analytic = self.analytic[name].reshape(-1)[dims]
            bars = np.array([one.bar for one in mine])
            counts = tally.fold(dims, analytic, analytic + [one.error for one in mine], bars)
        judgement = self._judgement(name, derivatives, blamed, broken, along)
        steps = sorted(one.step for one in derivatives)
        return TensorReport.of(counts, judgement, tensor.shape, evaluator=EVALUATOR, step=float(steps[len(steps) // 2]))

    def _judgement(
        self,
        name: str,
        derivatives: Sequence[Derivative],
        blamed: blame.Blame,
        broken: dict[str, np.ndarray],
        along: dict[str, Any],
    ) -> Judgement:
        """Judge a tensor that no finding condemns."""
        if name in broken:
            count = int(np.count_nonzero(broken[name]))
            reason = f"{count:,} of {broken[name].size:,} analytic values are nan or infinite"
            return Judgement("fail", reason, advice.NON_FINITE)
        if broken:
            return Judgement(
                "inconclusive", f"not judged: it moves together with {listed(broken)}, which is not finite"
            )
        if along["failing"] and not blamed.explains:
            return Judgement(
                "inconclusive",
                "not judged further: others are wrong, and move together with it",
                "mend the others first",
            )
        counted, limit = self.counted(derivatives), self._meaning(name, along)
        if len(counted) < max(1, self.manifest.plan.directions // 2):
            return self._few(derivatives)
        if not limit <= MEANINGFUL:
            return Judgement(
                "inconclusive",
                f"an entry off by less than {limit:.2g} times a typical one would not be seen",
                self._next_step(counted, max(self._meaning(one, along) for one in self.analytic)),
            )
        return Judgement("pass", "all directions agree" if not along["failing"] else "all else agrees")

    def _few(self, derivatives: Sequence[Derivative]) -> Judgement:
        kinked = sum(one.at_kink for one in derivatives)
        if kinked:
            return Judgement(
                "inconclusive",
                "the start point lies at a kink, where every direction has two slopes",
                "move the start point off it: add small random numbers to inputs that are zero or equal",
            )
        smallest = exponent_of(self.manifest.plan.steps[-1])
        return Judgement(
            "inconclusive",
            "outputs are nan or infinite along most directions",
            f"probe again with a smaller step, --step 2^{smallest - 4}, or from another start point",
        )

    def _meaning(self, name: str, along: dict[str, Any]) -> float:
        """Return a tensor's limit relative to a typical entry; where these are zero, to what other tensors promise."""
        if rms(self.analytic[name]):
            return float(along["relative_limit"][name])
        promised = max(rms(grad) * self.sizes[other] for other, grad in self.analytic.items())
        promised = promised or self.evaluated.magnitude
        return float(_over(along["limit_of_detection"][name] * self.sizes[name], promised))

    def _next_step(self, counted: Sequence[Derivative], limit: float) -> str:
        """Return advice on the step, by what widens most bars; ``limit`` is the limit of detection."""
        if self.evaluated.single and self.manifest.tensors[0].dtype == "float64":
            return "outputs have the digits of float32: store the inputs as float32, or compute in float64 throughout"
        estimates = [one.estimate for one in counted if one.estimate is not None]
        usual = sorted(estimates, key=lambda one: one.bar)[len(estimates) // 2]
        shift = usual.shift()
        if shift > 0:  # round-off, which falls as 1 / h, hides how far the step may grow
            shift = LARGER + max(0, exponent_of(limit / MEANINGFUL))
        power = min(max(exponent_of(usual.step) + shift, SMALL_STEP), LARGE_STEP)
        if not shift or any(abs(power - exponent_of(one)) < CLOSE for one in self.manifest.plan.steps):
            balance = "" if self.manifest.balanced else ", give your gradients to the probe (--grads)"
            return f"compute the outputs in float64{balance}, or probe fewer tensors at once (--only)"
        return f"probe again with --step 2^{power}: {_widest(usual)}"


def _widest(estimate: Estimate) -> str:
    """Return what widens a bar most."""
    if estimate.shift() > 0:
        return "now the round-off of the outputs hides the rest"
    kinks = estimate.kink > estimate.truncation
    return "kinks lie within the step" if kinks else "the outputs bend too much within the step"


def _over(value: float, by: float) -> float:
    return value / by if by else math.inf
