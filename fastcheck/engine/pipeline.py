"""What the coordinator asks of each kind of case: a pipeline that prepares it, differences it and audits that."""

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
from fastcheck.engine.settings import Settings
from fastcheck.engine.shard_results import Part
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import ForwardReport, Report


@dataclass
class Clock:
    """Seconds of the parts of a check."""

    seconds: float = 0.0
    forward_seconds: float = 0.0
    audit_seconds: float = 0.0

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add what the block takes to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)


class Keeper(Protocol):
    """Keeps finished shards of a case beyond the process that differenced them."""

    def known(self, tensor: str, number: int) -> Part | None:
        """Return a shard that was finished earlier."""
        ...

    def keep(self, tensor: str, number: int, part: Part, seconds: float) -> Part:
        """Keep a finished shard, in the thread that differenced it; return what the check is to hold of it."""
        ...


@dataclass(frozen=True)
class Session:
    """What a running check has at hand.

    Attributes
    ----------
    settings : Settings
    pool : Executor
    interrupts : Interrupts
    clock : Clock
    keeper : Keeper or None
    run_pending : callable
        Called while the check waits for the pool: does a part of what was submitted, and tells whether it did.
    """

    settings: Settings
    pool: Executor
    interrupts: Interrupts
    clock: Clock = field(default_factory=Clock)
    keeper: Keeper | None = None
    run_pending: Callable[[], bool] = lambda: False


class Pipeline(Protocol):
    """How one kind of case is checked.

    Attributes
    ----------
    kind : str
        The evaluator's name, as reports tell it.
    balanced : bool
        Whether an automatic step balances round-off against truncation or kinks; a loss without these has a large one.
    """

    kind: str
    balanced: bool

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients of the tensors to be checked."""
        ...

    def precision(self, name: str) -> str:
        """Return how a gradient was computed."""
        ...

    def shapes(self) -> dict[str, Shape]:
        """Return their shapes."""
        ...

    def work(self) -> dict[str, int]:
        """Return what a dimension of each costs, in multiply-adds."""
        ...

    def described(self) -> dict[str, Any] | None:
        """Return what a report tells of the case itself."""
        ...

    def prepare(self, session: Session) -> Prepared:
        """Do what all tensors need, and compare a declared forward result where there is one."""
        ...

    def findings(self, report: Report) -> Sequence[HealthFinding]:
        """Return what is known of the function itself after a check."""
        ...


class Prepared(Protocol):
    """A case whose forward passes are done, ready to be differenced.

    Attributes
    ----------
    forward : ForwardReport or None
        The declared forward result beside the computed one.
    """

    @property
    def forward(self) -> ForwardReport | None: ...

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced with a step."""
        ...

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor, where its evaluator takes a shortcut."""
        ...

    def blinding(self, name: str) -> HealthFinding | None:
        """Return what makes a tensor's gradient vanish, whatever the code is; None where nothing is known to."""
        ...


@runtime_checkable
class Case(Protocol):
    """A function at a point, with the analytic gradients of its tensors there.

    Attributes
    ----------
    grads : mapping of str to array
        The analytic gradients, by tensor.
    evaluators : tuple of str
        Names of the evaluators that it has; the first evaluates the function itself on both sides.
    """

    evaluators: ClassVar[tuple[str, ...]]

    @property
    def grads(self) -> Mapping[str, np.ndarray]: ...

    def operand(self, name: str) -> np.ndarray:
        """Return the values of a tensor, which differences move."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what a report says of the case itself."""
        ...

    def pipeline(self, settings: Settings) -> Pipeline:
        """Return how it is checked with these settings; imports Numba."""
        ...
