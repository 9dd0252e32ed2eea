"""A case prepared once, then differenced at chosen dimensions with any step: all that a sweep needs of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fastcheck.common.arguments import position_of
from fastcheck.common.interrupts import listening
from fastcheck.common.progress import ProgressHook
from fastcheck.diagnosis import checked
from fastcheck.engine import coordinator
from fastcheck.engine.differences import Differences
from fastcheck.engine.pipeline import Case, Prepared, Session
from fastcheck.engine.settings import Settings
from fastcheck.reports.report import Report


class Differencing(Protocol):
    """Differences one tensor's dimensions, given as ascending flat indices; the results are in the same order."""

    def __call__(self, tensor: str, dims: np.ndarray, step: float) -> Differences:
        """Difference the dimensions with one step."""
        ...

    def automatic(self, tensor: str) -> float:
        """Return the step that a check would take."""
        ...


@dataclass(frozen=True)
class _Differencing:
    """A prepared case, and the session that it is differenced in."""

    prepared: Prepared
    session: Session

    def __call__(self, tensor: str, dims: np.ndarray, step: float) -> Differences:
        self.session.interrupts.raise_if_interrupted()
        evaluator = self.prepared.evaluator(tensor, step, self.session)
        return _joined([evaluator(block) for block in evaluator.blocks(dims)])

    def automatic(self, tensor: str) -> float:
        return self.prepared.evaluator(tensor, "auto", self.session).step


@dataclass(frozen=True)
class Opening:
    """A case, and how a sweep differences it.

    Parameters
    ----------
    case : Case
    evaluator : {"full", "local", "delta", "network"}
    threads, seed, progress
        As in `fastcheck.check`.
    """

    case: Case
    evaluator: str
    threads: int
    seed: int
    progress: ProgressHook

    def worst(self) -> dict[str, list[int]]:
        """Check the case and return each tensor's worst flat indices, the worst first.

        Raises
        ------
        GradientMismatchError
            If the case's declared output belongs to another function.
        """
        settings = replace(self._settings(), evaluator="auto")
        report = coordinator.run(self.case.pipeline(settings), settings)
        if report.interrupted:
            raise KeyboardInterrupt
        self._refuse_wrong_forward(report, settings)
        return {
            name: [position_of(entry.index, tensor.shape) for entry in tensor.worst]
            for name, tensor in report.tensors.items()
        }

    @contextmanager
    def differencing(self) -> Iterator[Differencing]:
        """Prepare the case, and yield its differencing.

        Raises
        ------
        GradientMismatchError
            If the case's declared output belongs to another function.
        """
        settings = self._settings()
        pipeline = self.case.pipeline(settings)
        with listening() as interrupts, ThreadPoolExecutor(self.threads, thread_name_prefix="fastcheck") as pool:
            session = Session(settings, pool, interrupts)
            settings.progress("preparing (the first run compiles the kernels)", 0, 0)
            prepared = pipeline.prepare(session)
            if prepared.forward is not None and prepared.forward.verdict == "fail":
                self._refuse_wrong_forward(coordinator.run(pipeline, settings), settings)  # that stops there
            yield _Differencing(prepared, session)

    def _refuse_wrong_forward(self, report: Report, settings: Settings) -> None:
        if report.forward is not None and report.forward.verdict == "fail":
            checked.completed(self.case, settings, report).raise_if_failed()

    def _settings(self) -> Settings:
        return Settings(
            seed=self.seed, evaluator=self.evaluator, threads=self.threads, progress=self.progress, stencil=3
        )


def _joined(blocks: list[Differences]) -> Differences:
    """Return all blocks as one, in ascending order of flat indices."""
    order = np.argsort(np.concatenate([block.dims for block in blocks]))
    columns: Any = zip(*blocks, strict=True)
    return Differences._make(None if column[0] is None else np.concatenate(column)[order] for column in columns)
