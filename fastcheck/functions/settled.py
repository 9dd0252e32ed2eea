"""Whether directions over all dimensions, without a single entry by itself, settle that a gradient is right."""

from __future__ import annotations

import numpy as np

from fastcheck.engine.directions import COUNT, Directions, finite_values
from fastcheck.functions import noise
from fastcheck.functions.directions import LossLines
from fastcheck.functions.vjp_case import VjpCase

LIMIT = 1e-6
"""Largest limit of detection, relative to a typical entry of its tensor, with which directions settle it."""


def by_directions(case: VjpCase, seed: int) -> bool:
    """Return whether a gradient agrees with all directions, and nothing is wrong with the function or with backward.

    False settles nothing: a check entry by entry says what is wrong, or passes after all.

    Parameters
    ----------
    case : VjpCase
    seed : int
        Random seed for the directions.
    """
    if not all(np.isfinite(grad).all() for grad in case.grads.values()):
        return False
    errors = noise.of_gradient(case, seed)
    case.examine(errors)
    directions = Directions(
        LossLines(case, finite_values(case.grads)), case.grads, errors, seed, COUNT, check=lambda: None
    )
    directions.run()
    case.examine_end()
    if directions.contradicting or any(finding.verdict for finding in case.findings):
        return False
    seen = directions.described()
    return seen["count"] == COUNT and max(seen["relative_limit"].values()) <= LIMIT
