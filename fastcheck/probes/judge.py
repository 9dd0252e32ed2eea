"""The judgement on a gradient by directions that a program evaluated, as a report."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.common import machine
from fastcheck.common.arguments import index_of, positive
from fastcheck.common.arrays import Floating, refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed
from fastcheck.common.progress import ProgressHook
from fastcheck.engine.magnitudes import rms
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import Estimate, exponent_of
from fastcheck.metrics import advice, judged, probe_health, tally
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import Judgement
from fastcheck.metrics.tally import Tally
from fastcheck.probes import blame, directions, files
from fastcheck.probes.along import Derivative, Differencer, errors_along, errors_of
from fastcheck.probes.evaluated import Evaluated, evaluate, start_of
from fastcheck.probes.files import Source
from fastcheck.probes.manifest import NAME, Manifest, Stored, read
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

SMALL_STEP, LARGE_STEP = -40, -2
"""Smallest and largest step that is suggested, as powers of two."""

LARGER = 4
"""Powers of two by which a larger step is suggested, beyond what would do, where round-off hides how far to go."""

CLOSE = 2
"""Powers of two by which a suggested step differs at least from those that were probed."""


def judge(
    folder: str | Path,
    *,
    outputs: Sequence[str] = (),
    grads: Sequence[str] = (),
    grad_output: Sequence[str] = (),
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    progress: ProgressHook,
) -> Report:
    """Judge a gradient by what a program returned at the points of a folder.

    Parameters
    ----------
    folder : path
        What `fastcheck probe` wrote.
    outputs, grads, grad_output : sequence of str
        Files, NAME=FILE, archives or folders. By default, files in ``folder``.
    noise, relative_noise : float, optional
        Accuracy of the outputs: each may be off by ``noise``, or by ``relative_noise`` times its size.
    precision : str, optional
        The arithmetic that made the gradients, if their type does not show it.

    Raises
    ------
    FastcheckError
        If a file is missing, damaged or of another size, or an output is not finite at the start point.
    """
    absolute = 0.0 if noise is None else positive("noise", noise)
    relative = 0.0 if relative_noise is None else positive("relative_noise", relative_noise)
    began, place = time.perf_counter(), Path(folder)
    manifest = read(place)
    found = files.find("outputs", [one.name for one in manifest.outputs], outputs, place)
    sources = {name: _there(source, f"output {name}", place / name) for name, source in found.items()}
    cotangents = _cotangents(place, manifest, grad_output)
    given = _gradients(place, manifest, grads, precision)
    analytic = {name: np.nan_to_num(one.values.astype(np.float64), posinf=0, neginf=0) for name, one in given.items()}
    start = start_of(place, manifest)
    sizes = directions.sizes(start)
    with np.errstate(all="ignore"):  # what overflows shows nothing, and is inconclusive
        evaluated = evaluate(place, manifest, sources, cotangents, analytic, (absolute, relative), progress)
        errors = errors_of(analytic, {name: precision or one.precision for name, one in given.items()}, sizes)
        differencer = Differencer(manifest, evaluated, errors_along(manifest, analytic, errors, evaluated.moves))
        outcome = _Outcome(place, manifest, evaluated, differencer, given, analytic, start, sizes)
        stated = [probe_health.declared_accuracy(absolute, relative)] if absolute or relative else []
        return outcome.report([*stated, *_older(place, sources)], began)


def _there(source: Source | None, what: str, path: Path) -> Source:
    if source is None:
        option = "--outputs" if what.startswith("output") else "--grads"
        raise FastcheckError(f"{what} is missing: expected {path}.bin or .npy from your program, or {option} FILE")
    return source


def _cotangents(place: Path, manifest: Manifest, given: Sequence[str]) -> Arrays:
    """Return the cotangents by output: the user's, else those of the folder, else 1 for a single number."""
    names = [output.name for output in manifest.outputs]
    found = files.find("grad_output", names, given, place)
    stored = {one.name.removeprefix("grad_"): one for one in manifest.cotangents}
    cotangents = {}
    for output in manifest.outputs:
        source = found[output.name]
        if source is None:
            if output.name in stored:
                path = place / stored[output.name].file
                raise FastcheckError(
                    f"{path} is missing: expected the cotangent of `fastcheck probe`, or --grad-output"
                )
            cotangents[output.name] = np.ones(output.shape)
            continue
        values = files.array(source, f"output {output.name}", output.shape).values.astype(np.float64)
        refuse_non_finite(str(source), values)
        cotangents[output.name] = values
    return cotangents


def _gradients(place: Path, manifest: Manifest, given: Sequence[str], precision: str | None) -> dict[str, Floating]:
    names = [tensor.name for tensor in manifest.tensors]
    found = files.find("grads", names, given, place)
    missing = [name for name, source in found.items() if source is None]
    if missing and len(missing) < len(names):
        there = ",".join(name for name in names if name not in missing)
        raise FastcheckError(
            f"the gradient of {listed(missing, 6)} is missing: expected {place}/grad_{missing[0]}.bin or .npy, or "
            f"--grads {missing[0]}=FILE (to check the others alone, probe with --only {there})"
        )
    shapes = {tensor.name: tensor.shape for tensor in manifest.tensors}
    return {
        name: files.array(_there(source, f"gradient of {name}", place / f"grad_{name}"), name, shapes[name], precision)
        for name, source in found.items()
    }


def _older(place: Path, sources: dict[str, Source]) -> list[HealthFinding]:
    """Return the finding that outputs are older than the points."""
    written = (place / NAME).stat().st_mtime
    older = [str(source.path) for source in sources.values() if source.path.stat().st_mtime < written]
    return [probe_health.older_outputs(older)] if older else []


@dataclass(frozen=True)
class _Outcome:
    """What the directions say of a gradient."""

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
            tensors if len(tensors) < len(shapes) or len(shapes) == 1 else (),
            len(shapes) > 1,
        )
        if blamed.entries and all(map(self._is_tiny, blamed.entries)):
            return probe_health.tiny_entry(finding)
        decides = len(failing) >= min(FEW, sum(one.usable for one in derivatives))
        return finding if decides else probe_health.few_contradict(finding)

    def _is_tiny(self, entry: blame.Entry) -> bool:
        """Return whether an entry is not zero, but moves by more than its size at every step."""
        plan, size = self.manifest.plan, abs(float(self.start[entry.tensor][entry.dim]))
        return 0 < size < TINY * (plan.bottom or plan.steps[-1]) * self.sizes[entry.tensor]

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
