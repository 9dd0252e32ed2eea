"""A few steps of plain SGD, so that a network need not be checked at its initialisation."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.networks import penalty
from fastcheck.networks.case import Arrays, Point
from fastcheck.networks.passes import Passes, lowered

BATCH = 32
"""Number of data points in a step."""

DIVERGED = 1e3
"""Ratio of the loss to the first one from which training has diverged."""


def burn_in(point: Point, steps: int, learning_rate: float, seed: int) -> Arrays:
    """Return the parameters after some steps of SGD on the whole objective, by the reference gradient.

    Parameters
    ----------
    point : Point
    steps : int
    learning_rate : float
    seed : int
        Random seed for the batches.

    Raises
    ------
    FastcheckError
        If the loss diverges.
    """
    program, rng = lowered(point), np.random.default_rng(seed)
    params = {name: array.copy() for name, array in point.params.items()}
    first = math.inf
    for count in range(steps):
        batch = np.sort(rng.choice(len(point.x), min(BATCH, len(point.x)), replace=False))
        passes = Passes(point.taking(batch).with_params(params), program)
        loss = passes.loss()
        first = loss if count == 0 else first
        if not math.isfinite(loss) or abs(loss) > DIVERGED * max(abs(first), 1.0):
            raise FastcheckError(
                f"learning_rate is {learning_rate!r}: the loss is {loss:.3g} after {count} steps of burn_in, from "
                f"{first:.3g} at the start; expected a smaller one"
            )
        for name, gradient in whole_gradient(passes).items():
            params[name] = params[name] - learning_rate * gradient
    return params


def whole_gradient(passes: Passes) -> Arrays:
    """Return the reference gradient of the whole objective, regularisation included, by name."""
    params = passes.point.params
    gradients = passes.named(passes.gradient())
    for name, own in passes.point.network.penalties(list(params)).items():
        gradients[name] = gradients[name] + penalty.gradient(own, params[name])
    return gradients
