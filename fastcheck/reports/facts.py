"""The parts of a report that its outline is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import Verdict
from fastcheck.reports.tensor_report import ForwardReport, TensorReport


class Facts(NamedTuple):
    """The parts of a report that its outline is made of.

    Attributes
    ----------
    verdict, forward, health, error, interrupted, run
        As in `fastcheck.Report`.
    tensors : mapping of str to TensorReport
        By label.
    declared : str
        Name of the declared result, or "reference" where it is another function's.
    phases : str
        What was checked twice, in words.
    differenced : collection of TensorReport
        Tensors of all phases; those of ``tensors`` where it is empty.
    notes : sequence of str
        More sentences.
    """

    verdict: Verdict
    tensors: Mapping[str, TensorReport]
    forward: ForwardReport | None = None
    health: Sequence[HealthFinding] = ()
    error: str | None = None
    interrupted: bool = False
    run: Mapping[str, Any] = {}
    declared: str = "output"
    phases: str = ""
    differenced: Collection[TensorReport] = ()
    notes: Sequence[str] = ()

    @property
    def other_function(self) -> str:
        """What it means that the forward results differ, in words."""
        if self.declared == "reference":
            return "forward is not what reference computes"
        return f"the declared {self.declared} is not what this case computes"

    @property
    def deciding(self) -> HealthFinding | None:
        """The finding about the functions themselves that decides the verdict; None where differences do."""
        return next((one for one in self.health if one.verdict is not None and one.verdict == self.verdict), None)
