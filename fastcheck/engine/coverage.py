"""What a sample of dimensions leaves out, covered by directions over all of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.engine import sampling
from fastcheck.engine.culprits import localise
from fastcheck.engine.differences import Evaluator
from fastcheck.engine.directions import COUNT, Directions, Lines
from fastcheck.engine.pipeline import Session
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings
from fastcheck.metrics.health import HealthFinding


def count_of(settings: Settings, shapes: Mapping[str, Shape], work: Mapping[str, int], dims: Dims | None = None) -> int:
    """Return the number of directions: by default, none where every dimension is differenced by itself.

    ``dims`` defaults to those of the settings.
    """
    if settings.directions != "auto":
        return settings.directions or 0
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return COUNT if sampling.counts(settings.dims if dims is None else dims, sizes, work) != sizes else 0


class Covered:
    """Base of the pipelines that difference directions while they prepare: see `engine.pipeline.WithDirections`."""

    _directions: Directions | None = None

    @property
    def grads(self) -> Mapping[str, np.ndarray]:
        """The analytic gradients."""
        raise NotImplementedError

    @property
    def directions(self) -> dict[str, Any] | None:
        """What directions over all dimensions gave; None where none were differenced."""
        return None if self._directions is None else self._directions.described()

    def named(self, name: str) -> list[int]:
        """Return the entries of a tensor that directions point to."""
        return [] if self._directions is None else sorted(self._directions.named.get(name, []))

    def confirm(self, name: str, evaluator: Evaluator) -> None:
        """Compare these entries by themselves with what directions say of them."""
        if self._directions is not None:
            self._directions.confirm(name, evaluator, self.grads[name])

    def _cover(
        self,
        lines: Lines,
        grads: Mapping[str, np.ndarray],
        errors: Mapping[str, np.ndarray],
        count: int,
        session: Session,
        *,
        threads: bool = False,
        weighing: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Difference directions, and look for the entries that explain what they contradict.

        ``threads`` says whether the lines may be differenced from several threads at once.
        """
        settings, check = session.settings, session.interrupts.raise_if_interrupted
        # In a batch, this thread is one of those that run the pool's tasks, and must not wait for them.
        alone = not threads or settings.threads == 1 or session.keeper is not None
        mapped = map if alone else session.pool.map
        progress = functools.partial(settings.progress, "directions")
        progress(0, 0)
        directions = Directions(lines, grads, errors, settings.seed, count, check, mapped, weighing, progress)
        directions.run()
        if directions.contradicting:
            settings.progress("directions: search for wrong entries", 0, 0)
            localise(directions)
        self._directions = directions

    def _seen(self, verdict: str) -> list[HealthFinding]:
        """Return what directions find beside the entries that were differenced one by one, with that verdict."""
        found = None if self._directions is None else self._directions.finding(verdict == "fail")
        return [] if found is None else [found]
