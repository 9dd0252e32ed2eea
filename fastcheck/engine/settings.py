"""Paths: what the coordinator asks of each kind of case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastcheck.common.arguments import Shape, positive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.interrupts import Interrupts
from fastcheck.common.progress import ProgressHook
from fastcheck.engine.differences import Auditing, Chosen, Evaluator
from fastcheck.engine.shard_results import Part
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import ForwardReport, requested

EVALUATORS = ("auto", "full", "local", "delta")
"""What ``evaluator`` may be."""

KINKS = ("widen", "exclude")
"""What ``kinks`` may be."""


@dataclass(frozen=True)
class Settings:
    """How a case is to be checked; see `fastcheck.check` and `fastcheck.check_gradient` for the meaning of each."""

    dims: Any
    step: Any
    evaluator: str
    threads: int
    seed: int
    kinks: str
    keep: bool
    progress: ProgressHook
    stencil: Any = None
    noise: float | None = None
    relative_noise: float | None = None
    precision: str | None = None

    @property
    def black_box(self) -> bool:
        """Whether the case is a function of which nothing is known: they alone have a stencil."""
        return self.stencil is not None

    @property
    def declared(self) -> bool:
        """Whether the accuracy of the loss was declared."""
        return self.noise is not None or self.relative_noise is not None

    @property
    def requested(self) -> dict[str, Any]:
        """What a report tells of it."""
        names = ("stencil", "noise", "relative_noise", "precision")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return requested(self.step, self.evaluator, self.dims, self.kinks) | own


def usable_step(step: Any) -> Any:
    """Return a step as it is to be used, after checking it."""
    if not isinstance(step, str):
        return positive("step", step)
    if step != "auto":
        raise FastcheckError(f"step is {step!r}: expected 'auto' or a positive finite number")
    return step


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
    """A case and the way that it is differenced.

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

    def prepare(self, session: Session) -> ForwardReport | None:
        """Do what all tensors need, and compare a declared forward result where there is one."""
        ...

    def evaluator(self, name: str, step: Any, session: Session) -> Evaluator:
        """Prepare a tensor to be differenced with a step."""
        ...

    def audit(self, name: str, dims: Chosen, session: Session) -> Auditing | None:
        """Return the audit of a tensor, where its evaluator takes a shortcut."""
        ...

    def blinding(self, name: str) -> HealthFinding | None:
        """Return what makes a tensor's gradient vanish, whatever the code is; None where nothing is known to."""
        ...
