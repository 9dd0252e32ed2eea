"""The analytic side of one tensor of a network: its gradient, that gradient's error bars, and what they are held to."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.common.precision import RESULT, UNITS, WIDE, WIDE_TYPES, U
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.differenced import DifferencedBlock
from fastcheck.networks.error_bars import NOISE_SAFETY, Baseline
from fastcheck.networks.network import Penalty
from fastcheck.networks.penalty import gradient as penalty_gradient

LOST = 2.0**-450
"""Largest loss of a bar to underflow: bars are made of squares."""

CHOICE_UNITS = 64
"""Round-offs by which a gradient with other pieces at a kink may be off, relative to its value."""


class AnalyticTensor:
    """The analytic gradient of one tensor, compared with differenced blocks.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    name : str
        The tensor.

    Attributes
    ----------
    errors : float64 array
        Bounds on the rounding of the analytic gradient.
    flips : pair of float64 arrays
        The least and the most that units whose piece rounding decides may add to it.
    reference : float64 array
        The reference gradient of the data loss.
    """

    def __init__(self, case: NetworkCase, baseline: Baseline, name: str) -> None:
        self._case, self._baseline, self._name = case, baseline, name
        self._values = case.point.params[name].reshape(-1)
        self._gradient = case.grads[name].reshape(-1).astype(np.float64)
        self._penalty = case.penalties.get(name, Penalty())
        terms = baseline.terms(name)
        self._terms = terms[1]
        self._sizes = self._at_least_typical(terms[1])
        self._too_wide = max(WIDE, WIDE_TYPES * RESULT[case.precision_of(name)])
        self.errors = baseline.rounding.of(case, name, terms)
        self.flips = baseline.rounding.flipped(case, name)
        self.reference = baseline.passes.program.tensors[name].of(baseline.gradient)

    def bars(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray:
        """Return the whole error bars of dimensions: the differences' and the gradient's."""
        return block.bar + self.errors[dims] + LOST

    def distance(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray:
        """Return |analytic - numeric|."""
        return np.abs(self._gradient[dims] - block.numeric)

    def outside(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray:
        """Return which dimensions lie outside their error bars."""
        return self.distance(dims, block) > self.bars(dims, block)

    def contradicted(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray:
        """Return the distances of numeric values from the reference gradient that exceed rounding, 0 elsewhere.

        Such a step is beyond the scale on which the loss bends, and other steps of its size do not show it: n(h) falls
        as 1 / h where an outlier saturates everything that it perturbs.
        """
        right = self.reference[dims] + penalty_gradient(self._penalty, self._values[dims])
        with np.errstate(invalid="ignore"):
            apart = np.abs(block.numeric - right)
        beyond = (apart > self.bars(dims, block)) & ~block.at_point
        return np.where(beyond, apart, 0.0)

    def hidden(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray:
        """Return which dimensions have values that round-off hides."""
        return block.roundoff > self._too_wide * np.maximum(np.abs(block.numeric), self._sizes[dims])

    def are_too_wide(self, dims: np.ndarray, bars: np.ndarray) -> np.ndarray:
        """Return which bars are too wide to judge by, beside the size of the sum of the dimension's terms."""
        too_wide: np.ndarray = bars > self._too_wide * self._sizes[dims]
        if too_wide.any():
            # Terms that are no larger than their own rounding in float64 are as good as zero.
            real = self._terms > NOISE_SAFETY * self._baseline.rounding.deviations("float64", self._name)
            too_wide = bars > self._too_wide * self._at_least_typical(np.where(real, self._terms, 0.0))[dims]
        return too_wide

    def widen_for_choices(self, dims: np.ndarray, block: DifferencedBlock) -> np.ndarray | None:
        """Widen jumps to values outside that automatic differentiation may choose; return which, None without any.

        At a kink in the point itself, its choice need not lie between the loss's one-sided slopes: relu(b) - relu(-b)
        is b, but automatic differentiation finds the derivative 0 at zero.
        """
        outside = np.flatnonzero(self.outside(dims, block) & block.at_point)
        if not len(outside):
            return None
        chosen = outside[self._as_chosen()[dims[outside]]]
        if not len(chosen):
            return None
        bars, reach = self.bars(dims, block)[chosen], self.distance(dims, block)[chosen]
        # Just beyond the value, so that rounding does not leave it outside.
        block.jump[chosen] += (reach - bars) * (1 + 8 * U) + 8 * U * reach
        automatic = np.zeros(len(dims), bool)
        automatic[chosen] = True
        return automatic

    def _as_chosen(self) -> np.ndarray:
        """Return which entries follow one choice at kinks: the choice that explains the most entries of the tensor."""
        choices = self._baseline.choices(self._name)
        unit = UNITS[self._case.precision_of(self._name)]
        room = np.where(self._values == 0, abs(self._penalty.l1), 0.0) + self.errors + LOST
        # The choices' own rounding: a unit that is dead in one of them has terms in another.
        room += CHOICE_UNITS * unit * np.max([np.abs(choice) for choice in choices], axis=0)
        added = penalty_gradient(self._penalty, self._values)
        marks = [np.abs(self._gradient - choice - added) <= room for choice in choices]
        return max(marks, key=np.count_nonzero)

    def _at_least_typical(self, terms: np.ndarray) -> np.ndarray:
        """Return the sizes of all dimensions' terms, none below the tensor's typical size."""
        typical = math.sqrt(float(terms @ terms) / len(terms)) or self._baseline.natural_slope(self._name)
        return np.maximum(terms, typical)
