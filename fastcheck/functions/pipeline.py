"""The pipeline of a user's function: its gradient's noise, and one evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.engine import coverage, sampling, steps
from fastcheck.engine.coverage import Covered
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.directions import finite_values
from fastcheck.engine.pipeline import Session
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings
from fastcheck.functions import noise, ties
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.coloured import ColouredEvaluator
from fastcheck.functions.directions import LossLines
from fastcheck.functions.evaluator import PILOTS, FunctionEvaluator
from fastcheck.functions.noise import Noise
from fastcheck.functions.ties import Kinked
from fastcheck.metrics import health, vjp_health
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import ForwardReport

MOSTLY = 0.75
"""Where more than this fraction of all derivatives is zero, a check shows little."""

UNDERFLOW = 1e-290
"""Losses below this have few digits left, or their differences have."""

AUTO_DIMS = 2048
"""Largest tensor that ``dims="auto"`` checks whole: about 15,000 calls of the loss. Of a larger one it samples
`fastcheck.engine.sampling.AUTO_SAMPLE` dimensions, since the cost of a call is unknown."""


LARGE_SAMPLE = 64
"""Dimensions that ``dims="auto"`` differences by themselves in a large function, or one of each tensor if these are
more. Directions cover all."""


class FunctionPipeline(Covered):
    """The pipeline of a `FunctionCase`.

    Parameters
    ----------
    case : FunctionCase
    settings : Settings

    Raises
    ------
    FastcheckError
        If the requested step is lost in a tensor's largest entry, or overflows with it.
    """

    kind = "full"
    balanced = True

    def __init__(self, case: FunctionCase, settings: Settings) -> None:
        self._case, self.subject = case, case.names.subject
        self._noise: dict[str, Noise] = {}
        self._shared_noise: Noise | None = None
        self._errors: Mapping[str, np.ndarray] = {}
        self._evaluators: dict[str, FunctionEvaluator] = {}
        self._settings = settings
        self._coloured: dict[str, ColouredEvaluator] = {}
        for name in case.params if settings.step != "auto" else ():
            steps.refuse_unusable(settings.step, case.params[name], case.label(name))

    @property
    def forward(self) -> ForwardReport | None:
        """The comparison of the function with another one that is differenced; None where it is differenced itself."""
        return self._case.forward

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        return self._case.grads

    def precision(self, name: str) -> str:
        """Return the precision that a gradient was computed in."""
        return self._case.precision_of(name)

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors."""
        return self._case.shapes()

    def work(self) -> dict[str, int]:
        """Return the share of the work of ``dims="auto"`` that a dimension takes, by tensor; a colour shares one."""
        alone = int(sampling.AUTO_WORK) // AUTO_DIMS
        shares = {name: pattern.count / self._case.params[name].size for name, pattern in self._case.patterns.items()}
        return {name: max(1, int(alone * shares.get(name, 1))) for name in self._case.params}

    def automatic(self) -> Dims:
        """Return the dimensions to difference by themselves: of a large function, few besides all directions."""
        share = max(1, LARGE_SAMPLE // len(self._case.params))
        each: dict[str, Any] = {name: "auto" if name in self._case.patterns else share for name in self._case.params}
        return each if self._case.is_large else "auto"

    def described(self) -> dict[str, Any]:
        """Return the shapes."""
        return self._case.described()

    def prepare(self, session: Session) -> FunctionPipeline:
        """Measure the rounding noise of the analytic gradient, and examine the function that computes it."""
        with session.clock.of("seconds"):
            if self.forward is None or self.forward.passed:
                self._errors = noise.of_gradient(self._case, session.settings.seed)
                self._case.examine(self._errors)
                if count := coverage.count_of(session.settings, self.shapes(), self.work(), self._dims()):
                    self._run_directions(count, session)
        return self

    def _dims(self) -> Dims:
        dims: Dims = self._settings.dims
        return self.automatic() if dims == "auto" else dims

    def _counts(self) -> dict[str, int]:
        """Return the number of dimensions of each tensor that are differenced by themselves."""
        sizes = {name: array.size for name, array in self._case.params.items()}
        return sampling.counts(self._dims(), sizes, self.work())

    def _run_directions(self, count: int, session: Session) -> None:
        lines = LossLines(self._case, finite_values(self._case.grads))
        self._cover(lines, self._case.grads, self._errors, count, session, threads=True)
        for arrays in lines.near.restored():
            self._case.refuse_changes(arrays, self._case.names.function)

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced."""
        if step == "auto" and name in self._evaluators:  # prepared, perhaps for the start of another tensor's searches
            return self._coloured.get(name, self._evaluators[name])
        settings = session.settings
        few = step == "auto" and self._case.has_many and self._counts()[name] <= PILOTS
        if name not in self._noise:
            self._noise[name] = self._noise_where(name, few)
        largest = max(self._case.params, key=lambda other: self._case.params[other].size)
        start = None
        if few and name != largest:
            self.evaluator(largest, step, session)
            start = self._evaluators[largest].start
        self._evaluators[name] = FunctionEvaluator(
            self._case,
            name,
            self._noise[name],
            self._errors[name],
            step,
            settings.stencil or "auto",
            settings.seed,
            start,
        )
        if name not in self._case.patterns:
            return self._evaluators[name]
        self._coloured[name] = ColouredEvaluator(
            self._case,
            name,
            self._case.patterns[name],
            self._evaluators[name],
            self._noise[name],
            self._errors[name],
            step,
            settings.stencil or "auto",
            settings.seed,
        )
        return self._coloured[name]

    def _noise_where(self, name: str, few: bool) -> Noise:
        """Return the noise of the function where a tensor moves; or where all do, for few dimensions."""
        if not (self._case.is_large or few):
            return noise.of_loss(self._case, name, self._settings.seed)
        if self._shared_noise is None:
            self._shared_noise = noise.of_loss_where_all_move(self._case, self._settings.seed)
        return self._shared_noise

    def kind_of(self, name: str) -> str:
        """Return the evaluator's name in the report of a tensor."""
        return "coloured" if name in self._coloured else self.kind

    @property
    def structure(self) -> dict[str, Any] | None:
        """What colours took, by tensor; None where no structure was given."""
        found = {name: evaluator.described() for name, evaluator in self._coloured.items()}
        for name, calls in self._case.detecting.items():
            found[name] = found.get(name, {"structure": None}) | {"detecting": calls}
        return found or None

    def findings(self, report: Report) -> list[HealthFinding]:
        """Return the findings about the functions after a check, whose ``report`` has the differences alone."""
        if report.interrupted or not report.tensors:
            return self._case.findings
        self._case.examine_end()
        findings = [*self._case.findings, *self._tied(), *self._breached(report), *self._seen(report.verdict)]
        if any(one.verdict for one in findings):
            return findings
        return [*findings, *self._vanishing(report), *self._blind(report)]

    def _blind(self, report: Report) -> Iterator[HealthFinding]:
        """Yield what would hide mistakes, where the check passes."""
        reasons = list(self._case.blind_spots()) if report.verdict == "pass" else []
        if reasons:
            yield health.blind_spots(reasons)

    def _tied(self) -> Iterator[HealthFinding]:
        kinked = [
            Kinked(name, dim, estimate.step, estimate.numeric, estimate.jump, estimate.convex)
            for name, evaluator in self._evaluators.items()
            for dim, estimate in sorted(evaluator.kinked.items())
        ]
        largest_noise = max((evaluator.noise for evaluator in self._evaluators.values()), default=0.0)
        finding = ties.examined(self._case, kinked, largest_noise)
        if finding is not None:
            yield finding

    def _breached(self, report: Report) -> Iterator[HealthFinding]:
        """Yield what is wrong with a structure. It leaves tensors that fail by entries differenced by themselves."""
        found = {name: min(one.breaches) for name, one in self._coloured.items() if one.breaches}
        if found:
            places = [
                f"{self._case.place(output)} depends on {self._case.label(name)}{list(self._case.index(name, dim))}"
                for name, (dim, output) in found.items()
            ]
            open_ = [name for name in found if report.tensors[name].verdict != "fail"]
            finding = vjp_health.wrong_structure(self._coloured[min(found)].words, open_, places)
            yield finding if open_ else finding._replace(verdict=None)

    def _vanishing(self, report: Report) -> Iterator[HealthFinding]:
        """Yield the findings about a point at which derivatives vanish."""
        if report.verdict == "fail":
            return
        if report.verdict == "inconclusive" and 0 < self._case.largest < UNDERFLOW:
            yield health.loss_underflows(self._case.largest, self._case.names)
        tensors, grads = report.tensors.values(), self._case.grads
        dims = sum(one.dims_checked for one in tensors)
        unresolved = sum(one.unresolved - one.at_kink for one in tensors)  # derivatives at a kink are not zeros
        vanish = [np.abs(grads[name]) <= self._errors[name] for name in grads]
        zeros = sum(map(np.count_nonzero, vanish)) / sum(grad.size for grad in grads.values())
        if min(zeros, unresolved / dims) > (MOSTLY if report.passed else 1 - 1 / dims):
            yield health.nothing_shown(unresolved, dims, report.passed)

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return None: the whole function is evaluated, without a shortcut to audit."""
        return None

    def blinding(self, name: str) -> HealthFinding | None:
        """Return None: `findings` examines the point instead."""
        return None
