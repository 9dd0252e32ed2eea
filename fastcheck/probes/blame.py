"""What is wrong with a gradient that directions contradict: a factor, or single entries, read from the directions.

Along direction d the derivative differs from the analytic one by the sum of e_i m_di, with e the gradient's errors and
m the moves. One wrong entry must give, from every direction, the same e_i = difference / m_di within the bar; with
random signs in two dozen directions hardly any other entry does. A factor on a tensor's gradient is found likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastcheck.probes.along import Derivative
from fastcheck.probes.evaluated import Evaluated, largest_moves
from fastcheck.probes.manifest import Manifest

NAMED = 4
"""Entries that may explain the directions: of more, none is named."""

TOGETHER = 2**16
"""Entries that are looked at together: their moves in all directions must fit in memory."""

SHARP = 0.05
"""Largest uncertainty of a factor, relative to its distance from one."""


class Entry(NamedTuple):
    """An entry that alone explains all directions: its tensor, flat index, error numeric - analytic, and bar."""

    tensor: str
    dim: int
    error: float
    bar: float


class Blame(NamedTuple):
    """What explains the directions.

    Attributes
    ----------
    entries : tuple of Entry
        Each of them would, by itself; usually one.
    factor : float or None
        Numeric / analytic, if the gradients of ``tensors`` have it.
    tensors : tuple of str
    """

    entries: tuple[Entry, ...] = ()
    factor: float | None = None
    tensors: tuple[str, ...] = ()

    @property
    def explains(self) -> bool:
        """Whether something does."""
        return bool(self.tensors)


def blamed(folder: Path, manifest: Manifest, evaluated: Evaluated, derivatives: Sequence[Derivative]) -> Blame:
    """Look for what explains all directions: one entry, else a factor, else one of a few entries."""
    found = entries(folder, manifest, derivatives)
    if len(found) != 1:
        by_factor = factor(manifest, evaluated, derivatives)
        if by_factor is not None:
            return by_factor
    return Blame(tuple(found), None, tuple(dict.fromkeys(one.tensor for one in found)))


def entries(folder: Path, manifest: Manifest, derivatives: Sequence[Derivative]) -> list[Entry]:
    """Return the entries of which one, wrong by itself, explains what all directions show; none where many do."""
    usable = [one for one in derivatives if one.usable]
    numbers = [one.direction for one in usable]
    apart = np.array([one.numeric - one.analytic for one in usable])
    bars = np.array([one.bar for one in usable])
    found: list[Entry] = []
    for tensor in manifest.tensors:
        for first in range(0, tensor.size, TOGETHER):
            moves = largest_moves(folder, manifest, tensor, slice(first, first + TOGETHER))[numbers]
            low, high = _common(apart[:, None], bars[:, None], moves)
            dims = np.flatnonzero((low <= high) & np.isfinite(low) & np.isfinite(high))
            if len(dims) + len(found) > NAMED:
                return []
            middle, half = (low[dims] + high[dims]) / 2, (high[dims] - low[dims]) / 2
            columns = zip((first + dims).tolist(), middle.tolist(), half.tolist(), strict=True)
            found += [Entry(tensor.name, *column) for column in columns]
    return found


def factor(manifest: Manifest, evaluated: Evaluated, derivatives: Sequence[Derivative]) -> Blame | None:
    """Return a factor on all gradients, or on one tensor's, that explains all directions; None where there is none."""
    usable = [one for one in derivatives if one.usable]
    apart = np.array([one.numeric - one.analytic for one in usable])
    bars = np.array([one.bar for one in usable])
    parts = evaluated.along[[one.direction for one in usable]]
    names = [tensor.name for tensor in manifest.tensors]
    groups = [(tuple(names), parts.sum(1))]
    groups += [((name,), parts[:, position]) for position, name in enumerate(names) if len(names) > 1]
    for tensors, part in groups:
        low, high = (float(end[0]) for end in _common(apart[:, None], bars[:, None], part[:, None]))
        middle = (low + high) / 2
        if low <= high and high - low <= SHARP * abs(middle) and np.isfinite(middle):
            return Blame((), 1 + middle, tensors)
    return None


def _common(apart: np.ndarray, bars: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of what is common to the intervals (apart +- bars) / moves of all directions, for each column.

    A direction that does not move a column leaves nothing, unless it shows nothing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (apart - bars) / moves, (apart + bars) / moves
        low, high = np.minimum(*ends), np.maximum(*ends)
    still, quiet = moves == 0, np.abs(apart) <= bars
    low = np.where(still, np.where(quiet, -np.inf, np.inf), low)
    high = np.where(still, np.where(quiet, np.inf, -np.inf), high)
    return low.max(0), high.min(0)
