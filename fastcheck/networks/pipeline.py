"""The pipeline of a network: its passes, the evaluators of its tensors, and the audit by whole forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.precision import UNITS
from fastcheck.engine import coverage, steps
from fastcheck.engine.coverage import Covered
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.pipeline import Session
from fastcheck.engine.settings import Settings
from fastcheck.metrics.health import HealthFinding
from fastcheck.networks import blind
from fastcheck.networks.audit import NetworkAudit
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.directions import data_gradient, gradient_errors, lines_of
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.evaluator import NetworkEvaluator
from fastcheck.networks.full import Full
from fastcheck.networks.partial import PartialEvaluation, thread_bytes, work
from fastcheck.networks.passes import cache_bytes
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import ForwardReport

AUTOMATIC = "network"
"""The evaluator that ``evaluator="auto"`` picks."""


class NetworkPipeline(Covered):
    """The pipeline of a `NetworkCase`.

    Parameters
    ----------
    case : NetworkCase
    settings : Settings
    baseline : Baseline
        The unperturbed network, which both phases share.
    forward : ForwardReport or None
        The comparison of the declared loss with the computed one.

    Raises
    ------
    FastcheckError
        If the requested step is lost in a tensor's largest entry, or overflows with it.
    """

    balanced = True
    subject = "the loss"

    def __init__(
        self, case: NetworkCase, settings: Settings, baseline: Baseline, forward: ForwardReport | None = None
    ) -> None:
        self._case, self._baseline, self.forward = case, baseline, forward
        self.kind = AUTOMATIC if settings.evaluator == "auto" else settings.evaluator
        for name in case.grads if settings.step != "auto" else ():
            steps.refuse_unusable(settings.step, case.point.params[name], name)

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        return self._case.grads

    def precision(self, name: str) -> str:
        """Return the precision that a gradient was computed in."""
        return self._case.precision_of(name)

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the tensors that are checked."""
        return {name: grad.shape for name, grad in self._case.grads.items()}

    def work(self) -> dict[str, int]:
        """Return the cost of a dimension of each tensor, in multiply-adds."""
        points, lowered = len(self._case.point.x), self._baseline.passes.program
        return {name: work(lowered, name, points, self.kind) for name in self._case.grads}

    def described(self) -> dict[str, Any]:
        """Return the network and its data as a report states them."""
        passes = self._baseline.passes
        return self._case.described() | {
            "data_loss": passes.loss(),
            "cache_bytes": cache_bytes(passes.program, passes.point),
            "thread_bytes": thread_bytes(passes.program, passes.point),
        }

    def prepare(self, session: Session) -> NetworkPipeline:
        """Difference directions where a sample leaves dimensions out; the network's passes have been run already."""
        count = coverage.count_of(session.settings, self.shapes(), self.work())
        if count and (self.forward is None or self.forward.passed):
            with session.clock.of("seconds"):
                case, baseline = self._case, self._baseline
                self._cover(
                    lines_of(baseline, case.grads, count),
                    data_gradient(case),
                    gradient_errors(case, baseline),
                    count,
                    session,
                    threads=True,
                    weighing=baseline.passes.named(baseline.gradient),
                )
        return self

    def findings(self, report: Report) -> Sequence[HealthFinding]:
        """Return what directions find; of all else, the checklist of good practice reports."""
        return () if report.interrupted else self._seen(report.verdict)

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced."""
        passes = self._baseline.passes
        tables = (
            Full(passes, name, self._baseline.roundoff.loss) if self.kind == "full" else PartialEvaluation(passes, name)
        )
        return NetworkEvaluator(self._case, self._baseline, tables, name, step, session.settings.seed)

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor."""
        if self.kind == "full":
            return None
        settings = session.settings
        return NetworkAudit(self._case, self._baseline, name, dims, settings.step, settings.seed)

    def blinding(self, name: str) -> HealthFinding | None:
        """Return why a tensor's gradient vanishes at this point with any code; None where no reason is known."""
        return blind.blinding(self._baseline, name, UNITS[self.precision(name)])
