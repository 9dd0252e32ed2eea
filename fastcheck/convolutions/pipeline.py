"""The pipeline of a convolution: scaled operands, forward passes, and the evaluators and audits of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import Precision
from fastcheck.convolutions import cost, diagnosis, error_bars, passes
from fastcheck.convolutions.audit import Audit
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.delta_curved import CurvedDelta
from fastcheck.convolutions.delta_input import InputDelta
from fastcheck.convolutions.delta_weight import WeightDelta
from fastcheck.convolutions.reevaluation import Reevaluation
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.engine import error_model
from fastcheck.engine.differences import Chosen, Evaluator
from fastcheck.engine.pipeline import Session
from fastcheck.engine.settings import Settings
from fastcheck.metrics import health, tally
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import ForwardReport

FORWARD_BLOCK = 4096
"""Number of outputs that are compared with declared ones at a time."""


class ConvPipeline:
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

    def __init__(self, case: ConvCase, settings: Settings) -> None:
        self._case = case
        self.kind = cost.kind_of(settings.evaluator)
        self.balanced = case.loss in ("relu", "tanh")
        for name in case.grads if settings.step != "auto" else ():
            error_model.usable(settings.step, case.operand(name), name)

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        return self._case.grads

    def precision(self, name: str) -> str:
        """Return the precision in which a gradient was computed."""
        return self._case.precision or self._case.grads[name].dtype.name

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the tensors that have a gradient."""
        return {name: self._case.geometry.shape_of(name) for name in self._case.grads}

    def work(self) -> dict[str, int]:
        """Return the cost of one dimension of each tensor, in multiply-adds."""
        return cost.of_conv(self._case.geometry, self.kind, self._case.loss, self._case.grads)

    def described(self) -> dict[str, Any]:
        """Return shapes, parameters and the loss by name."""
        return self._case.described()

    @np.errstate(over="ignore", invalid="ignore")  # an overflow is refused below, or makes bars infinite
    def prepare(self, session: Session) -> ForwardReport | None:
        """Scale the operands, run the forward passes, and compare the declared output where there is one."""
        case, clock, progress = self._case, session.clock, session.settings.progress
        with clock.of("seconds"):
            passes.compile()
            session.interrupts.raise_if_interrupted()
            self._scaled = ScaledOperands.of(case)
        self._output = self._magnitude = None
        if case.output is not None or self.kind == "delta" or case.loss != "vjp":
            with clock.of("forward_seconds"):
                progress("forward", 0, 0)
                self._output = passes.output(self._scaled, case.geometry, session.pool)
        if case.output is not None or self.kind != "delta" or case.loss != "vjp":
            with clock.of("forward_seconds" if self.kind == "delta" else "seconds"):
                self._magnitude = passes.magnitude(self._scaled, case.geometry, session.pool)
        for array in (self._output, self._magnitude):
            _refuse_overflow(array)
        if case.loss != "vjp":
            assert self._output is not None
            with clock.of("seconds"):
                error_bars.describe(case, self._scaled, self._output, session.pool)
        if case.output is None:
            return None
        assert self._output is not None
        assert self._magnitude is not None
        with clock.of("forward_seconds"):
            return _check_forward(case, self._scaled, self._output, self._magnitude, session.pool)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced."""
        case, scaled, output, magnitude = self._case, self._scaled, self._output, self._magnitude
        if self.kind == "delta":
            assert output is not None
            if case.loss != "vjp":
                assert magnitude is not None
                return CurvedDelta(case, scaled, name, output, magnitude, step, session.pool)
            if name == "input":
                return InputDelta(case, scaled, output, step, session.pool)
            return WeightDelta(case, scaled, name, output, step, session.pool)
        assert magnitude is not None
        return Reevaluation(self.kind, case, scaled, name, magnitude, output, step)

    def audit(self, name: str, dims: Chosen, session: Session) -> Audit | None:
        """Return the audit of a tensor; None unless ``delta`` differences it."""
        if self.kind != "delta":
            return None
        assert self._output is not None
        return Audit(self._case, self._scaled, self._output, name, dims, session.settings.step, session.settings.seed)

    def blinding(self, name: str) -> HealthFinding | None:
        """Return the finding that the loss follows no output that the tensor moves, where that is known and so."""
        loss = self._case.loss
        if loss == "relu" and self._output is not None and not (self._output > 0).any():
            return health.no_output_counts(loss)
        if loss == "tanh" and error_bars.bars_of(self._case, self._scaled, name, chain=1).saturated:
            return health.no_output_counts(loss)
        return None


def _refuse_overflow(outputs: np.ndarray | None) -> None:
    if outputs is not None and not np.isfinite(outputs).all():
        raise FastcheckError("the forward pass overflows float64: scale input, weight or bias down")


def _check_forward(
    case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray, pool: Executor
) -> ForwardReport:
    """Compare the declared output with the computed one, by a bound on what their arithmetic can explain.

    ``output`` and ``magnitude`` belong to the scaled operands.
    """
    assert case.output is not None
    assert case.output_dtype is not None
    with np.errstate(over="ignore"):
        computed, size = (np.ldexp(array, scaled.exponents["bias"]) for array in (output, magnitude))
    precision = Precision.of(case.output_dtype, case.precision, (case.input, case.weight))
    _refuse_overflow(size)
    bar = error_model.forward_bar(computed, size, case.geometry.terms, precision)
    every = np.arange(computed.size)
    arrays = (every, case.output.ravel(), computed.ravel(), bar.ravel())
    # In blocks, since a dot product of millions of entries depends on the number of BLAS's threads.
    blocks = range(0, computed.size, FORWARD_BLOCK)
    compared = tally.merge(tally.fold(*(a[i : i + FORWARD_BLOCK] for a in arrays)) for i in blocks)
    if not compared.beyond:
        return ForwardReport("pass", compared.norm_ratio, None)
    mistake = diagnosis.of_forward(
        case.geometry,
        (case.input, case.weight, case.bias),
        case.output,
        computed,
        lambda geometry, x, w, b: passes.convolve(geometry, x, w, b, pool),
    )
    return ForwardReport("fail", compared.norm_ratio, mistake)
