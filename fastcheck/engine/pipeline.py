"""The protocols of cases and pipelines. A case's pipeline prepares it, differences it and audits the differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.interrupts import Interrupts
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings
from fastcheck.engine.shard_results import ShardResult
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import Report
from fastcheck.reports.tensor_report import ForwardReport


@dataclass
class Clock:
    """Seconds spent on the parts of a check."""

    seconds: float = 0.0
    forward_seconds: float = 0.0
    audit_seconds: float = 0.0

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)


class Keeper(Protocol):
    """A store of finished shards that outlives the process which differenced them."""

    def known(self, tensor: str, number: int) -> ShardResult | None:
        """Return a shard that was finished earlier, or None."""
        ...

    def keep(self, tensor: str, number: int, result: ShardResult, seconds: float) -> ShardResult:
        """Store a finished shard, in the thread that differenced it; return what the check holds in memory of it."""
        ...


@dataclass(frozen=True)
class Session:
    """The resources of a running check.

    Attributes
    ----------
    settings : Settings
    pool : Executor
    interrupts : Interrupts
    clock : Clock
    keeper : Keeper or None
    run_pending : callable
        Called while the check waits for the pool. It runs a pending task and returns whether there was one.
    """

    settings: Settings
    pool: Executor
    interrupts: Interrupts
    clock: Clock = field(default_factory=Clock)
    keeper: Keeper | None = None
    run_pending: Callable[[], bool] = lambda: False


class Pipeline(Protocol):
    """The way in which one kind of case is checked.

    Attributes
    ----------
    kind : str
        The evaluator's name in reports.
    balanced : bool
        Whether an automatic step balances round-off against truncation or kinks; a loss without these takes a large
        step.
    subject : str
        What messages call the function that is differenced.
    """

    kind: str
    balanced: bool
    subject: str

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients, by tensor to be checked."""
        ...

    def precision(self, name: str) -> str:
        """Return the precision in which a gradient was computed."""
        ...

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of these tensors."""
        ...

    def work(self) -> dict[str, int]:
        """Return the cost of one dimension of each, in multiply-adds."""
        ...

    def described(self) -> dict[str, Any] | None:
        """Return the description of the case in its report."""
        ...

    def prepare(self, session: Session) -> Prepared:
        """Prepare what all tensors need, and compare the declared forward result where there is one."""
        ...

    def findings(self, report: Report) -> Sequence[HealthFinding]:
        """Return the findings about the function itself that a check leaves."""
        ...


class Prepared(Protocol):
    """A case whose forward passes are done, ready to be differenced.

    Attributes
    ----------
    forward : ForwardReport or None
        The comparison of the declared forward result with the computed one; None where none was declared.
    """

    @property
    def forward(self) -> ForwardReport | None: ...

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced with a step."""
        ...

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor, or None where its evaluator takes no shortcut."""
        ...

    def blinding(self, name: str) -> HealthFinding | None:
        """Return the reason why a tensor's gradient vanishes whatever the code is; None where no reason is known."""
        ...


@runtime_checkable
class WithDirections(Protocol):
    """A pipeline that differences directions over all dimensions while it prepares.

    Attributes
    ----------
    directions : dict or None
        What they gave, as a report keeps it.
    """

    @property
    def directions(self) -> dict[str, Any] | None: ...

    def named(self, name: str) -> list[int]:
        """Return the flat indices of a tensor's entries that directions point to."""
        ...

    def confirm(self, name: str, evaluator: Evaluator) -> None:
        """Compare these entries, differenced by themselves, with what directions say of them."""
        ...


@runtime_checkable
class WithSample(Protocol):
    """A pipeline that says for itself what ``dims="auto"`` means."""

    def automatic(self) -> Dims:
        """Return the dimensions to difference by themselves."""
        ...


@runtime_checkable
class WithStructure(Protocol):
    """A pipeline that moves dimensions together where a structure of its case was declared.

    Attributes
    ----------
    structure : dict or None
        What that took, as a report keeps it.
    """

    @property
    def structure(self) -> dict[str, Any] | None: ...

    def kind_of(self, name: str) -> str:
        """Return the evaluator's name in the report of a tensor."""
        ...


@runtime_checkable
class Case(Protocol):
    """A function at a point, with the analytic gradients of its tensors there.

    Attributes
    ----------
    grads : mapping of str to array
        The analytic gradients, by tensor.
    evaluators : tuple of str
        Names of the case's evaluators; the first evaluates the function itself on both sides.
    """

    evaluators: ClassVar[tuple[str, ...]]

    @property
    def grads(self) -> Mapping[str, np.ndarray]: ...

    def operand(self, name: str) -> np.ndarray:
        """Return the values of a tensor, which differences perturb."""
        ...

    def described(self) -> dict[str, Any]:
        """Return the description of the case in its report."""
        ...

    def pipeline(self, settings: Settings) -> Pipeline:
        """Return the pipeline that checks the case with these settings. This imports Numba."""
        ...
