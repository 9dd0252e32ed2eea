"""A network's loss along the lines of `fastcheck.engine.directions`, by whole forward passes.

What is differenced is the data's loss alone: a regularisation's gradient is a formula in the parameters, and is taken
off the analytic one. So both phases share every value.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection

import numpy as np

from fastcheck.engine.directions import Line, Quotient
from fastcheck.engine.magnitudes import rms
from fastcheck.functions.directions import LossLines
from fastcheck.networks.case import Arrays, NetworkCase
from fastcheck.networks.differencer import LEAST_SCATTER
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.passes import Passes
from fastcheck.networks.penalty import gradient as penalty_gradient


class NetworkLoss:
    """The data's loss, minus that at the point, as a function of some of a network's tensors.

    Parameters
    ----------
    baseline : Baseline
    names : collection of str
        The tensors.
    """

    start = accuracy = 0.0

    def __init__(self, baseline: Baseline, names: Collection[str]) -> None:
        self._passes, self._private = baseline.passes, threading.local()
        self._here = np.concatenate([chunk.losses for chunk in baseline.passes.chunks])
        self.scatter = LEAST_SCATTER * baseline.roundoff.evaluated
        self.params = {name: baseline.passes.point.params[name] for name in names}
        every = baseline.passes.named(baseline.gradient)
        self.gradient = {name: every[name] for name in names}

    @property
    def promised(self) -> float:
        """The largest change of the loss that the reference gradient promises for a move by a tensor's size."""
        return max(self.size(name) * float(np.abs(slopes).max()) for name, slopes in self.gradient.items())

    def size(self, name: str) -> float:
        """Return the root mean square of a tensor's non-zero entries; without any, that of all tensors, else 1."""
        return rms(self.params[name]) or rms(np.array([rms(array) for array in self.params.values()])) or 1.0

    def label(self, name: str) -> str:
        """Return the tensor's name."""
        return name

    def copies(self) -> Arrays:
        """Return private copies of the tensors."""
        return {name: array.copy() for name, array in self.params.items()}

    def value(self, arrays: Arrays, where: Callable[[], str]) -> float:
        """Evaluate the network with other tensors, data point by data point; nan where the loss is not finite."""
        own = self._own()
        for name, array in arrays.items():
            own.program.tensors[name].put(own.params, array)
        own.pack()
        for chunk in own.chunks:
            own.forward(chunk)
        rises = np.concatenate([chunk.losses for chunk in own.chunks]) - self._here
        return own.weight * math.fsum(rises.tolist()) if np.isfinite(rises).all() else math.nan

    def _own(self) -> Passes:
        """Return this thread's own copy of everything that a forward pass writes to."""
        if not hasattr(self._private, "own"):
            self._private.own = Passes(self._passes.point, self._passes.program)
        own: Passes = self._private.own
        return own


class NetworkLines(LossLines):
    """A network along lines; directions that an earlier phase differenced are known."""

    def __init__(self, loss: NetworkLoss) -> None:
        super().__init__(loss, loss.gradient)
        self._known: dict[int, Quotient] = {}

    def choose_step(self, lines: Collection[Line]) -> None:
        """Choose the step of all directions by a few, once."""
        if not self._known:
            super().choose_step(list(lines))

    def differenced(self, line: Line) -> Quotient:
        """Difference along a line with the chosen step, once."""
        if line.number not in self._known:
            self._known[line.number] = super().differenced(line)
        return self._known[line.number]


def lines_of(baseline: Baseline, names: Collection[str], count: int) -> NetworkLines:
    """Return a network along so many directions, the same for all phases."""
    return baseline.cached(("directions", tuple(names), count), lambda: NetworkLines(NetworkLoss(baseline, names)))


def data_gradient(case: NetworkCase) -> Arrays:
    """Return the analytic gradient of the data's loss alone."""
    grads = {name: grad.astype(np.float64) for name, grad in case.grads.items()}
    for name, penalty in case.penalties.items():
        if name in grads:
            grads[name] -= penalty_gradient(penalty, case.point.params[name])
    return grads


def gradient_errors(case: NetworkCase, baseline: Baseline) -> Arrays:
    """Return bounds on the rounding of the analytic gradient, entry by entry, and on what may be chosen at kinks.

    They include units whose piece rounding decides, and the choices at kinks in the point itself: of the network's, and
    of a regularisation's where a parameter is zero.
    """
    errors = {}
    for name, grad in case.grads.items():
        right = baseline.passes.program.tensors[name].of(baseline.gradient)
        least, most = baseline.rounding.flipped(case, name)
        chosen = np.max([np.abs(choice - right) for choice in baseline.choices(name)], axis=0)
        bars = baseline.rounding.of(case, name, baseline.terms(name)) + np.maximum(-least, most) + chosen
        penalty = case.penalties.get(name)
        if penalty is not None:
            bars = bars + abs(penalty.l1) * (case.point.params[name].reshape(-1) == 0)
        errors[name] = bars.reshape(grad.shape)
    return errors
