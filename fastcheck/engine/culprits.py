"""Wrong entries of a gradient that directions contradict.

A single one is spelled by the directions themselves: each is off by as much, with the sign that it has for that entry.
Several are found one after another, by halving the range of all dimensions; where there are too many, slices of tensors
that hold them all are looked for.
"""

from __future__ import annotations

import math

import numpy as np

from fastcheck.engine import random_signs
from fastcheck.engine.directions import Direction, Directions, Line
from fastcheck.engine.random_signs import Arrays

TRIES = 4
"""Times with fresh signs that each half of an index range is tried."""

CLEAR = 3.0
"""Bars by which a range must be off for an error to be looked for in it."""

SPELLED = 4
"""Largest number of entries with the same signs that are differenced by themselves: of millions, one or two have."""

NAMED = 8
"""Largest number of wrong entries that are looked for."""


def localise(directions: Directions) -> None:
    """Find wrong entries, one after another, until the directions agree with what is found.

    Each is differenced by itself; the value found takes the place of the analytic one, and all directions are judged
    anew.
    """
    for attempt in range(NAMED):
        failing = directions.failing
        if not failing:
            break
        found = _wrong_entry(directions, failing[0], attempt)
        if found is None:
            break
        name, dim = found
        directions.named.setdefault(name, []).append(dim)
    directions.explained = bool(directions.named) and not directions.failing
    directions.slices = _slices(directions)


def _slices(directions: Directions) -> dict[str, tuple[int | None, ...]]:
    """Return, of tensors with more wrong entries than were found, the index of each axis to which all are confined."""
    if not directions.named or not directions.failing:
        return {}
    worst, found = directions.failing[0], dict[str, tuple[int | None, ...]]()
    for name, dims in directions.named.items():
        array = directions.lines.params[name]
        rng = np.random.default_rng([directions.seed, 15485863, len(found)])
        if not _is_off(directions, worst, name, np.ones(array.shape, bool), rng):
            continue
        indices = np.array(np.unravel_index(dims, array.shape))
        confined: list[int | None] = [None] * array.ndim
        for axis, own in enumerate(indices):
            if array.shape[axis] == 1 or np.ptp(own):
                continue
            others = np.moveaxis(np.ones(array.shape, bool), axis, 0)
            others[own[0]] = False
            if not _is_off(directions, worst, name, np.moveaxis(others, 0, axis), rng):
                confined[axis] = int(own[0])
        if any(index is not None for index in confined):
            found[name] = tuple(confined)
    return found


def _is_off(directions: Directions, worst: Direction, name: str, chosen: np.ndarray, rng: np.random.Generator) -> bool:
    """Return whether the gradient is clearly off along one of a few random lines on which chosen entries move."""
    whole = {name: slice(0, chosen.size)}
    for _ in range(TRIES):
        directions.check()
        moves = worst.weights[name] * rng.choice([-1.0, 1.0], chosen.shape) * chosen
        analytic = float((directions.gradient[name] * moves).sum())
        found = directions.lines.part({name: moves}, worst)
        if abs(found.numeric - analytic) > CLEAR * (found.bar + directions.error(worst.weights, whole)):
            return True
    return False


def _wrong_entry(directions: Directions, worst: Direction, attempt: int) -> tuple[str, int] | None:
    """Return an entry that is wrong when it is differenced by itself, and replace its value; None without one."""
    for found in _spelled(directions):
        if _wrong(directions, worst, *found):
            return found
    searched = _Search(directions, worst, attempt).descend()
    return searched if searched is not None and _wrong(directions, worst, *searched) else None


def _spelled(directions: Directions) -> list[tuple[str, int]]:
    """Return the entries whose signs are those by which all directions are off, if these are off by the same."""
    directions.check()
    usable = [one for one in directions.done if one.finite and not one.at_kink]
    off = np.array([one.analytic - one.numeric for one in usable])
    bar = max((one.bar for one in usable), default=math.inf)
    if not (np.abs(off) > bar).all() or np.ptp(np.abs(off)) > 2 * bar:
        return []
    found = []
    for position, (name, array) in enumerate(directions.lines.params.items()):
        agreeing = np.zeros(array.size, np.int16)
        for one, sign in zip(usable, np.sign(off).astype(np.int16), strict=True):
            agreeing += sign * random_signs.signs(directions.seed, one.number, position, array.size)
        dims = np.flatnonzero(np.abs(agreeing) == len(usable))
        found += [(name, dim) for dim in dims[:SPELLED].tolist()]
    return found[:SPELLED]


class _Search:
    """One descent to a wrong entry."""

    def __init__(self, directions: Directions, worst: Direction, attempt: int) -> None:
        self._directions, self._worst, self._number = directions, worst, attempt * 4096
        self._params = directions.lines.params
        self._ends = np.cumsum([array.size for array in self._params.values()]).tolist()

    def descend(self) -> tuple[str, int] | None:
        """Halve the range, with fresh signs each time, down to one entry; None where it gets lost."""
        low, high = 0, self._ends[-1]
        while high - low > 1:
            self._directions.check()
            middle = self._middle(low, high)
            half = self._wrong_half((low, middle), (middle, high))
            if half is None:
                return None
            low, high = half
        position = next(i for i, end in enumerate(self._ends) if low < end)
        return list(self._params)[position], low - (self._ends[position - 1] if position else 0)

    def _middle(self, low: int, high: int) -> int:
        """Return where to cut: between two tensors, as evenly as possible, or in the middle of one."""
        inside = [end for end in self._ends if low < end < high]
        return min(inside, key=lambda end: abs(2 * end - low - high), default=(low + high) // 2)

    def _wrong_half(self, *halves: tuple[int, int]) -> tuple[int, int] | None:
        for _ in range(TRIES):
            for half in halves:
                self._number += 1
                if self._off(half):
                    return half
        return None

    def _off(self, part: tuple[int, int]) -> bool:
        """Return whether the gradient is clearly off along fresh signs in a range of all dimensions."""
        directions, worst = self._directions, self._worst
        moves, only, start, analytic = Arrays(), dict[str, slice](), 0, 0.0
        rng = np.random.default_rng([directions.seed, 104729, self._number, *part])
        for name, array in self._params.items():
            inside = slice(max(part[0] - start, 0), max(min(part[1] - start, array.size), 0))
            start += array.size
            if inside.stop <= inside.start:
                continue
            flat = np.zeros(array.size)
            flat[inside] = worst.weights[name] * (2.0 * rng.integers(0, 2, inside.stop - inside.start, np.int8) - 1.0)
            moves[name], only[name] = flat.reshape(array.shape), inside
            analytic += float(directions.gradient[name].reshape(-1)[inside] @ flat[inside])
        found = directions.lines.part(moves, worst)
        return bool(abs(found.numeric - analytic) > CLEAR * (found.bar + directions.error(worst.weights, only)))


def _wrong(directions: Directions, worst: Direction, name: str, dim: int) -> bool:
    """Difference an entry; where it is off, put its numeric value in place of the analytic one."""
    array, weight = directions.lines.params[name], worst.weights[name]
    flat = np.zeros(array.size)
    flat[dim] = weight
    analytic = float(directions.gradient[name].reshape(-1)[dim]) * weight
    error = directions.error(worst.weights, {name: slice(dim, dim + 1)})
    found = directions.lines.searched(Line(-1, {name: flat.reshape(array.shape)}, analytic, error))
    if not abs(found.numeric - analytic) > found.bar + error:
        return False
    directions.patch(name, dim, found.numeric / weight, found.bar / weight)
    return True
