"""What is known of a tensor that failed, and what a hypothesis makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape


@dataclass(frozen=True)
class Evidence:
    """A tensor that failed.

    Attributes
    ----------
    name : str
    analytic : float64 array
        The whole gradient that was checked.
    dims : int64 array, shape (n,)
        Flat indices that were differenced, ascending: all of them, or a sample.
    numeric, error_bar : float64 array, shape (n,)
        The derivative there, and how far the analytic value may be from it.
    value : float64 array or None
        The tensor itself, of a parameter that may be regularised.
    label : str
        What it is called in words; its name by default.
    """

    name: str
    analytic: np.ndarray
    dims: np.ndarray
    numeric: np.ndarray
    error_bar: np.ndarray
    value: np.ndarray | None = None
    label: str = ""

    @property
    def words(self) -> str:
        """What it is called in words."""
        return self.label or self.name

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.analytic.shape

    @property
    def seen(self) -> np.ndarray:
        """The analytic values at ``dims``."""
        return self.analytic.reshape(-1)[self.dims]

    @property
    def failing(self) -> np.ndarray:
        """Whether each of ``dims`` lies outside its bar."""
        return ~(np.abs(self.seen - self.numeric) <= self.error_bar)

    @property
    def is_whole(self) -> bool:
        """Whether all entries were differenced."""
        return len(self.dims) == self.analytic.size


class Diagnosis(NamedTuple):
    """A hypothesis that fits.

    Attributes
    ----------
    bug : str
        What the program did, in a few words: "the kernel is flipped in the input gradient".
    evidence : str
        How well that fits: "explains all 432 entries that fail, within their bars".
    advice : str
        Where to look in the code.
    tensors : tuple of str
        The tensors that it explains.
    explained : float
        Share of the failing entries that it explains.
    residual : float
        Norm of what it leaves, relative to the norm of the failure.
    """

    bug: str
    evidence: str
    advice: str
    tensors: tuple[str, ...]
    explained: float
    residual: float


Failed = Mapping[str, Evidence]
"""The tensors that failed, by name."""


def fit(evidence: Evidence, predicted: np.ndarray, slack: float = 0.0) -> tuple[float, float]:
    """Return how well a prediction of the analytic gradient fits: the share of failing entries explained, the residual.

    Parameters
    ----------
    evidence : Evidence
    predicted : float64 array, shape (n,)
        What the hypothesis makes of the gradient at ``evidence.dims``.
    slack : float
        Further error that a prediction may have, relative to its own size.
    """
    apart = np.abs(evidence.seen - predicted)
    within = apart <= evidence.error_bar + slack * np.abs(predicted)
    failing = evidence.failing
    gap = np.linalg.norm(evidence.seen - evidence.numeric)
    left = float(np.linalg.norm(evidence.seen - predicted) / gap) if gap else 0.0
    return float(within[failing].mean()) if failing.any() else 1.0, left


def in_report(diagnosis: Diagnosis, shape: str) -> dict[str, Any]:
    """Return a diagnosis as a report keeps it, with the failure's shape in words."""
    return {"bug": diagnosis.bug, "evidence": diagnosis.evidence, "try": diagnosis.advice, "shape": shape}
