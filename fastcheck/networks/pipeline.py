"""The path of a network: its passes, evaluators of its tensors, and the audit by whole forward passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.precision import UNITS
from fastcheck.engine import error_model
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.plan import Plan, Session
from fastcheck.metrics.health import HealthFinding
from fastcheck.networks import blind
from fastcheck.networks.audit import NetworkAudit
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import Ground
from fastcheck.networks.evaluator import NetworkEvaluator
from fastcheck.networks.full import Full
from fastcheck.networks.partial import Moved, thread_bytes, work
from fastcheck.networks.passes import cache_bytes
from fastcheck.reports.report import ForwardReport

AUTOMATIC = "network"
"""What ``evaluator="auto"`` picks."""


class NetworkPath:
    """The path of a `NetworkCase`.

    Parameters
    ----------
    case : NetworkCase
    plan : Plan
    ground : Ground
        What both phases share.
    forward : ForwardReport or None
        The declared loss beside the computed one.

    Raises
    ------
    FastcheckError
        If the plan's step is lost in a tensor's largest entry, or overflows with it.
    """

    balanced = True

    def __init__(self, case: NetworkCase, plan: Plan, ground: Ground, forward: ForwardReport | None = None) -> None:
        self._case, self._ground, self._forward = case, ground, forward
        self.kind = AUTOMATIC if plan.evaluator == "auto" else plan.evaluator
        for name in case.grads if plan.step != "auto" else ():
            error_model.usable(plan.step, case.point.params[name], name)

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        return self._case.grads

    def precision(self, name: str) -> str:
        """Return how a gradient was computed."""
        return self._case.precision_of(name)

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the tensors that are checked."""
        return {name: grad.shape for name, grad in self._case.grads.items()}

    def work(self) -> dict[str, int]:
        """Return what a dimension of each tensor costs, in multiply-adds."""
        points, lowered = len(self._case.point.x), self._ground.passes.program
        return {name: work(lowered, name, points, self.kind) for name in self._case.grads}

    def described(self) -> dict[str, Any]:
        """Return the network and its data, as a report tells them."""
        passes = self._ground.passes
        return self._case.described() | {
            "data_loss": passes.loss(),
            "cache_bytes": cache_bytes(passes.program, passes.point),
            "thread_bytes": thread_bytes(passes.program, passes.point),
        }

    def prepare(self, session: Session) -> ForwardReport | None:
        """Return how the declared loss compares: the passes have been run."""
        return self._forward

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced."""
        passes = self._ground.passes
        tables = Full(passes, name, self._ground.roundoff.loss) if self.kind == "full" else Moved(passes, name)
        return NetworkEvaluator(self._case, self._ground, tables, name, step, session.plan.seed)

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor."""
        if self.kind == "full":
            return None
        plan = session.plan
        return NetworkAudit(self._case, self._ground, name, dims, plan.step, plan.seed)

    def blinding(self, name: str) -> HealthFinding | None:
        """Return what makes a tensor's gradient vanish, whatever the code is."""
        return blind.blinding(self._ground, name, UNITS[self.precision(name)])
