"""Tensors whose gradient is wrong or right, and whether a replay of the backward pass makes that gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastcheck.common.precision import UNITS, U
from fastcheck.networks import penalty
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.network import Penalty
from fastcheck.networks.penalty import Share

SLACK = 4
"""Times an error bar by which a replay may miss an entry: a wrong backward pass rounds elsewhere than the right one."""

ROUNDINGS = 8
"""Unit round-offs of its own value by which a gradient may differ from a replay, besides its bar."""

NEARLY_ALL = 0.999
"""Share of the entries that a replay must explain."""

LEFT = 1 / 16
"""Part of a failure that a replay may leave, by norm: more is explained by the bars, not by the mistake."""

RIGHT = Share(1.0, 1.0, True)
"""The right share of the regularisation's gradient."""


@dataclass
class Suspect:
    """A tensor that was checked.

    Attributes
    ----------
    name : str
    given : float64 array
        The gradient that was checked, flat.
    reference : float64 array
        The right gradient of the data loss.
    bars : float64 array
        How far a right gradient may be from it by rounding.
    values : float64 array
        The parameters.
    penalty : Penalty
        The regularisation that is part of the gradient.
    unit : float
        Unit round-off of the precision that it was computed in.
    failed : bool
    """

    name: str
    given: np.ndarray
    reference: np.ndarray
    bars: np.ndarray
    values: np.ndarray
    penalty: Penalty
    unit: float
    failed: bool
    size: float = field(init=False)
    gap: float = field(init=False)
    typical: float = field(init=False)

    def __post_init__(self) -> None:
        self.size = _norm(self.reference)
        self.gap = _norm(self.given - self.right)
        self.typical = float(np.median(self.bars))

    @classmethod
    def of(cls, case: NetworkCase, baseline: Baseline, name: str, failed: bool) -> Suspect:
        """Return a tensor of a case."""
        bars = baseline.rounding.of(case, name, baseline.terms(name))
        least, most = baseline.rounding.flipped(case, name)
        return cls(
            name,
            case.grads[name].reshape(-1).astype(np.float64),
            baseline.passes.program.tensors[name].of(baseline.gradient),
            bars + np.maximum(np.abs(least), np.abs(most)),
            case.point.params[name].reshape(-1),
            case.penalties.get(name, Penalty()),
            UNITS.get(case.precision_of(name), U),
            failed,
        )

    @property
    def right(self) -> np.ndarray:
        """The right gradient, regularisation included."""
        return self.reference + penalty.gradient(self.penalty, self.values)

    def share(self, replay: np.ndarray) -> Share | None:
        """Return the share of the regularisation's gradient with which a replay makes the gradient; None without one.

        Parameters
        ----------
        replay : float64 array
            The gradient of the data loss that a backward pass makes.
        """
        if not np.isfinite(replay).all():
            return None
        allowed = self._allowed(replay)
        if self._is_made(replay, RIGHT, allowed):
            return RIGHT
        if not (self.penalty.l2 or self.penalty.l1):
            return None
        share = penalty.share(self.penalty, self.values, self.given - replay, allowed)
        return share if share.wrong and self._is_made(replay, share, allowed) else None

    def residual(self, replay: np.ndarray, share: Share) -> float:
        """Return the norm of what a replay leaves, relative to the failure's."""
        return _norm(self._left(replay, share)) / self.gap if self.gap else 0.0

    def is_made(self, replay: np.ndarray, regularisation: np.ndarray) -> bool:
        """Return whether a data loss's gradient and one of the regularisation make the gradient."""
        return self._is_nothing(self.given - replay - regularisation, self._allowed(replay))

    def _allowed(self, replay: np.ndarray) -> np.ndarray:
        """Return how far the gradient may be from a replay; where that is larger than the right one, so is rounding."""
        larger = max(1.0, _norm(replay) / self.size) if self.size else 1.0
        return SLACK * larger * np.maximum(self.bars, self.typical) + ROUNDINGS * self.unit * np.abs(replay)

    def _is_made(self, replay: np.ndarray, share: Share, allowed: np.ndarray) -> bool:
        return self._is_nothing(self._left(replay, share), allowed)

    def _is_nothing(self, left: np.ndarray, allowed: np.ndarray) -> bool:
        if np.count_nonzero(np.abs(left) <= allowed) < NEARLY_ALL * len(left):
            return False
        return not self.failed or _norm(left) <= LEFT * self.gap

    def _left(self, replay: np.ndarray, share: Share) -> np.ndarray:
        rest = self.given - replay
        own = share.of(self.penalty)
        return rest - penalty.taken_off(own, self.values, rest) if own.l2 or own.l1 else rest


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values))
