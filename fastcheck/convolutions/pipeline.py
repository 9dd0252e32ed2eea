"""The pipeline of a convolution: scaled operands, forward passes, and the evaluators and audits of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions import cost, error_bars, passes
from fastcheck.convolutions.audit import Audit
from fastcheck.convolutions.case import ConvCase, Plain
from fastcheck.convolutions.copies_evaluators import CopiesDelta, CopiesReevaluation
from fastcheck.convolutions.delta_curved import CurvedDelta
from fastcheck.convolutions.delta_input import InputDelta
from fastcheck.convolutions.delta_weight import WeightDelta
from fastcheck.convolutions.directions import ConvLines
from fastcheck.convolutions.forward import Outputs, refuse_overflow
from fastcheck.convolutions.gradient_errors import gradient_errors
from fastcheck.convolutions.reevaluation import Reevaluation
from fastcheck.convolutions.relabelled import relabelled
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine import coverage, sampling, steps
from fastcheck.engine.coverage import Covered
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.pipeline import Prepared, Session
from fastcheck.engine.settings import Settings
from fastcheck.metrics import health
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import ForwardReport

PASSES = 44
"""Forward passes that directions take."""


class ConvPipeline(Covered):
    """The pipeline of a `ConvCase`.

    Parameters
    ----------
    case : ConvCase
    settings : Settings

    Raises
    ------
    FastcheckError
        If the step is lost when added to a tensor's largest entry, or overflows with it.
    """

    subject = "the loss"

    def __init__(self, case: ConvCase, settings: Settings) -> None:
        self._case = case
        self.kind = cost.kind_of(settings.evaluator)
        self.balanced = case.loss in ("relu", "tanh")
        for name in case.grads if settings.step != "auto" else ():
            steps.refuse_unusable(settings.step, case.operand(name), name)

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        return self._case.grads

    def precision(self, name: str) -> str:
        """Return the precision in which a gradient was computed."""
        return self._case.declared_precision(f"grad_{name}") or self._case.grads[name].dtype.name

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the tensors that have a gradient."""
        return {name: self._case.geometry.shape_of(name) for name in self._case.grads}

    def work(self) -> dict[str, int]:
        """Return the cost of one dimension of each tensor, in multiply-adds."""
        return cost.of_conv(self._case.geometry, self.kind, self._case.loss, self._case.grads)

    def described(self) -> dict[str, Any]:
        """Return shapes, parameters, the loss and the precision of the gradients by name."""
        precisions = dict.fromkeys(map(self.precision, self._case.grads))
        return {**self._case.described(), "precision": ", ".join(precisions)}

    def _count_of_directions(self, settings: Settings) -> int:
        """Return the number of directions: by default, none where they take longer than ``dims="auto"`` may."""
        long = PASSES * cost.forward(self._case.geometry) > sampling.AUTO_WORK
        automatic = settings.directions == "auto"
        return 0 if automatic and long else coverage.count_of(settings, self.shapes(), self.work())

    @np.errstate(over="ignore", invalid="ignore")  # an overflow is refused below, or makes bars infinite
    def prepare(self, session: Session) -> Prepared:
        """Scale the operands, run the forward passes, and compare the declared output where there is one."""
        clock, pool = session.clock, session.pool
        with clock.of("seconds"):
            passes.compile_kernels()
            session.interrupts.raise_if_interrupted()
            case = self._case.plain.case
            scaled = ScaledOperands.of(case)
        delta, declared, curved = self.kind == "delta", case.output is not None, case.loss != "vjp"
        count = self._count_of_directions(session.settings)
        output = magnitude = None
        if declared or delta or curved or count:
            with clock.of("forward_seconds"):
                session.settings.progress("forward", 0, 0)
                output = passes.output(scaled, case.geometry, pool)
                refuse_overflow(output)
        if declared or not delta or curved or count:
            with clock.of("forward_seconds" if delta else "seconds"):
                magnitude = passes.magnitude(scaled, case.geometry, pool)
                refuse_overflow(magnitude)
        if curved and output is not None:
            with clock.of("seconds"):
                error_bars.prepare_curved_bars(case, scaled, output, pool)
        forward = None
        if declared and output is not None and magnitude is not None:
            with clock.of("forward_seconds"):
                forward = Outputs.unscaled(self._case, scaled, output, magnitude).compared()
        if count and output is not None and magnitude is not None and (forward is None or forward.passed):
            with clock.of("seconds"):
                errors = gradient_errors(self._case, scaled, output, magnitude, pool)
                self._cover(ConvLines(self._case, scaled, output, magnitude, pool), case.grads, errors, count, session)
        return self._prepared(scaled, forward, output, magnitude)

    def _prepared(
        self,
        scaled: ScaledOperands,
        forward: ForwardReport | None,
        output: np.ndarray | None,
        magnitude: np.ndarray | None,
    ) -> Prepared:
        """Return the prepared case for its evaluator and its kind of loss."""
        if self.kind != "delta" and magnitude is not None:
            return _Reevaluated(self._case, scaled, forward, output, magnitude, self.kind)
        assert output is not None
        if self._case.loss != "vjp" and magnitude is not None:
            return _Curved(self._case, scaled, forward, output, magnitude)
        return _Linear(self._case, scaled, forward, output)

    def findings(self, report: Report) -> Sequence[HealthFinding]:
        """Return notes on what was assumed: indices of channels-last arrays, and a default stride and padding."""
        case, geometry = self._case, self._case.geometry
        found = [health.transposed(case.layout)] if case.channels_last else []
        if case.by_default >= {"stride", "padding"}:
            found.append(health.default_geometry(geometry.input_shape, geometry.weight_shape))
        return found if report.interrupted else [*found, *self._seen(report.verdict)]


@dataclass(frozen=True)
class _Prepared:
    """A prepared case."""

    case: ConvCase
    scaled: ScaledOperands
    forward: ForwardReport | None

    @np.errstate(over="ignore", invalid="ignore")
    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced."""
        plain = self.case.plain
        evaluator = self._evaluator(plain, name, step, session)
        return relabelled(evaluator, plain, name, lambda: self._of_copies(plain, step))

    def _evaluator(self, plain: Plain, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor of the plain case."""
        raise NotImplementedError

    def _of_copies(self, plain: Plain, step: Any) -> Evaluator:
        """Prepare the inputs of which padding makes copies."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Linear(_Prepared):
    """A prepared case with a linear loss, differenced by ``delta``."""

    output: np.ndarray

    def _evaluator(self, plain: Plain, name: str, step: Any, session: Session) -> Evaluator:
        if name == "input":
            alone = plain.entries[name].alone if name in plain.entries else None
            return InputDelta(plain.case, self.scaled, self.output, step, session.pool, alone)
        return WeightDelta(plain.case, self.scaled, name, self.output, step, session.pool)

    def _of_copies(self, plain: Plain, step: Any) -> Evaluator:
        return CopiesDelta(plain, self.scaled, self.output, None, step)

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor."""
        settings = session.settings
        return Audit(self.case, self.scaled, self.output, name, dims, settings.step, settings.seed)

    def blinding(self, name: str) -> HealthFinding | None:
        """Return None: a linear loss follows every output."""
        return None


@dataclass(frozen=True)
class _Curved(_Linear):
    """A prepared case with a loss that is not linear in the outputs, differenced by ``delta``."""

    magnitude: np.ndarray

    def _evaluator(self, plain: Plain, name: str, step: Any, session: Session) -> Evaluator:
        return CurvedDelta(plain.case, self.scaled, name, self.output, self.magnitude, step, session.pool)

    def _of_copies(self, plain: Plain, step: Any) -> Evaluator:
        return CopiesDelta(plain, self.scaled, self.output, self.magnitude, step)

    def blinding(self, name: str) -> HealthFinding | None:
        """Return the finding that the loss follows no output that the tensor moves, or None where it follows one."""
        return _blinding(self.case, self.scaled, self.output, name)


@dataclass(frozen=True)
class _Reevaluated(_Prepared):
    """A prepared case with any loss, differenced by ``full`` or ``local``. A linear loss may do without the output."""

    output: np.ndarray | None
    magnitude: np.ndarray
    kind: str

    def _evaluator(self, plain: Plain, name: str, step: Any, session: Session) -> Evaluator:
        return Reevaluation(self.kind, plain.case, self.scaled, name, self.magnitude, self.output, step)

    def _of_copies(self, plain: Plain, step: Any) -> Evaluator:
        return CopiesReevaluation(self.kind, plain, self.scaled, self.magnitude, self.output, step)

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return None: these evaluators take no shortcut."""
        return None

    def blinding(self, name: str) -> HealthFinding | None:
        """Return the finding that the loss follows no output that the tensor moves, or None where it follows one."""
        return None if self.output is None else _blinding(self.case, self.scaled, self.output, name)


def _blinding(case: ConvCase, scaled: ScaledOperands, output: np.ndarray, name: str) -> HealthFinding | None:
    dead = case.loss == "relu" and not (output > 0).any()
    if dead or (case.loss == "tanh" and error_bars.bars_of(case.plain.case, scaled, name, chain=1).saturated):
        return health.no_output_counts(case.loss)
    return None
