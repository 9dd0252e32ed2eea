"""The settings of a check, validated once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from fastcheck.common import machine
from fastcheck.common.arguments import integer, positive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import refuse_unknown
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.engine.sampling import Dims
from fastcheck.reports.report import requested

KINKS = ("widen", "exclude")
"""Values of the argument ``kinks``."""

_OPTIONS = (
    "stencil",
    "noise",
    "relative_noise",
    "precision",
    "reference",
    "structure",
    "vectorized",
    "executor",
    "complex_convention",
)
"""Settings that a report keeps where they were asked for."""


@dataclass(frozen=True)
class Request:
    """The settings that decide a result; `fastcheck.check` documents each."""

    seed: int = 0
    dims: Dims = "auto"
    step: Any = "auto"
    evaluator: str = "auto"
    kinks: Literal["widen", "exclude"] = "widen"

    @property
    def requested(self) -> dict[str, Any]:
        """The settings in the form that a report keeps."""
        return requested(self.step, self.evaluator, self.dims, self.kinks)


@dataclass(frozen=True)
class Settings(Request):
    """The settings of a check; `fastcheck.check` and `fastcheck.check_gradient` document each."""

    threads: int = 1
    keep: bool = False
    progress: ProgressHook = silent
    stencil: Literal["auto", 3, 5] | None = None
    noise: float | None = None
    relative_noise: float | None = None
    precision: str | None = None
    directions: int | Literal["auto"] | None = None
    reference: Literal[True] | None = None
    structure: Any = None
    vectorized: Literal[True] | None = None
    executor: Literal["processes"] | None = None
    complex_convention: Literal["jax"] | None = None

    @classmethod
    def of(
        cls,
        evaluators: Collection[str],
        *,
        evaluator: str,
        kinks: Literal["widen", "exclude"] = "widen",
        step: Any,
        seed: Any,
        threads: Any,
        default_threads: int | None = None,
        progress: ProgressHook | None,
        **others: Any,
    ) -> Settings:
        """Make settings, after checking the arguments that all checks have in common.

        Parameters
        ----------
        evaluators : collection of str
            Names that ``evaluator`` may have besides ``"auto"``.
        default_threads : int, optional
            Number of threads where ``threads`` is None; by default, the machine's.

        Raises
        ------
        FastcheckError
            If an argument is not one that `fastcheck.check` accepts.
        """
        refuse_unknown("evaluator", evaluator, ("auto", *evaluators))
        refuse_unknown("kinks", kinks, KINKS)
        return cls(
            evaluator=evaluator,
            kinks=kinks,
            threads=machine.thread_count(threads, default_threads),
            seed=integer("seed", seed, least=0),
            step=usable_step(step),
            progress=progress or silent,
            **others,
        )

    @property
    def black_box(self) -> bool:
        """Whether the case is a function of which nothing else is known: only these have a stencil."""
        return self.stencil is not None

    @property
    def declared(self) -> bool:
        """Whether the accuracy of the loss was declared."""
        return self.noise is not None or self.relative_noise is not None

    @property
    def requested(self) -> dict[str, Any]:
        """The settings in the form that a report keeps."""
        own = {name: value for name in _OPTIONS if (value := getattr(self, name)) is not None}
        own |= {} if self.directions in (None, "auto") else {"directions": self.directions}
        return super().requested | own


def usable_step(step: Any) -> Any:
    """Return a step, after checking it: "auto", or a positive number as a float."""
    if not isinstance(step, str):
        return positive("step", step)
    if step != "auto":
        raise FastcheckError(f"step is {step!r}: expected 'auto' or a positive finite number")
    return step


def usable_directions(directions: Any) -> int | Literal["auto"]:
    """Return a number of directions, after checking it: "auto", or a number of at least 0."""
    return (
        "auto" if isinstance(directions, str) and directions == "auto" else integer("directions", directions, least=0)
    )
