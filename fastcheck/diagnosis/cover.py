"""Cover a set of a tensor's entries with the simplest description: of one axis, of several, or a union of those."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.diagnosis.index_words import Axis, log_choices, named

NEARLY = 0.98
"""A description covers at least this share of the set, and the set is at least this share of what it describes."""

CHANCE = math.log(1e4)
"""A pattern must be so much likelier (a logarithm) than that chance shows any of those that are as simple."""

_MOST_TERMS = 3
"""Largest number of descriptions that are joined."""

_MOST_LISTED = math.log(1e4)
"""Where all entries are known, what exactly fits is a fact: it is stated up to this cost."""

_BLOCK = 2**17
"""Number of entries whose cells are found at a time."""

_CELLS = 4
"""Two axes are looked at together where at least one in so many of their cells was seen."""


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


class Cover(NamedTuple):
    """A description of a set.

    Attributes
    ----------
    words : str
    cost : float
        Logarithm of the number of descriptions that are as simple, and of the exceptions to this one.
    inside, hits, outside : int
        Number of entries that are described, of those that belong to the set among them, and elsewhere.
    """

    words: str
    cost: float
    inside: int
    hits: int
    outside: int


class _Term(NamedTuple):
    """A description that others may be joined to: words and cost, the axes it is about, the entries it means."""

    words: str
    cost: float
    axes: tuple[int, ...]
    mask: np.ndarray


@dataclass(frozen=True)
class Places:
    """The entries of a tensor that were differenced, and where they lie along its axes.

    Attributes
    ----------
    dims : array, shape (n,)
        Flat indices, of 32 or 64 bits.
    shape : tuple of int
    names : sequence of str
        One for each axis.
    """

    dims: np.ndarray
    shape: Shape
    names: Sequence[str]

    @cached_property
    def wide(self) -> list[int]:
        """The axes with more than one index."""
        return [axis for axis, size in enumerate(self.shape) if size > 1]

    @cached_property
    def axes(self) -> dict[int, Axis]:
        """Those axes, with the indices that were seen."""
        return {
            axis: Axis(self.names[axis], self.shape[axis], np.flatnonzero(self.counts((axis,)))) for axis in self.wide
        }

    @property
    def is_whole(self) -> bool:
        """Whether all entries were differenced."""
        return len(self.dims) == math.prod(self.shape)

    def cells(self, axes: tuple[int, ...], block: slice) -> np.ndarray:
        """Return the flat index of each entry of a block in the space of some axes."""
        dims = self.dims[block]
        cells = np.zeros_like(dims)
        for axis in axes:
            cells *= self.shape[axis]
            cells += dims // math.prod(self.shape[axis + 1 :]) % self.shape[axis]
        return cells

    def counts(self, axes: tuple[int, ...], among: np.ndarray | None = None) -> np.ndarray:
        """Return the number of entries in each cell of some axes: of all entries, or of those among a set."""
        counts = np.zeros(math.prod(self.shape[axis] for axis in axes), dtype=np.int64)
        for block in self._blocks(len(counts)):
            cells = self.cells(axes, block)
            counts += np.bincount(cells if among is None else cells[among[block]], minlength=len(counts))
        return counts

    def within(self, axes: tuple[int, ...], chosen: np.ndarray) -> np.ndarray:
        """Return which entries lie in the cells that are chosen, a bool array."""
        mask = np.empty(len(self.dims), dtype=bool)
        for block in self._blocks():
            mask[block] = chosen[self.cells(axes, block)]
        return mask

    def related(self, one: int, other: int, relation: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return which entries have related indices along two axes, a bool array."""
        mask = np.empty(len(self.dims), dtype=bool)
        for block in self._blocks():
            mask[block] = relation(self.cells((one,), block), self.cells((other,), block))
        return mask

    def _blocks(self, least: int = 0) -> Iterator[slice]:
        size = max(_BLOCK, least)
        return (slice(start, start + size) for start in range(0, len(self.dims), size))


def covered(places: Places, target: np.ndarray) -> Cover | None:
    """Return the simplest description of a set of entries; None where nothing simple describes it.

    Parameters
    ----------
    places : Places
    target : bool array, shape (n,)
        Which of the entries belong to the set: some, not all.
    """
    count, total = _count(target), len(target)
    scattered = log_choices(total, count)
    found = [cover for terms in _attempts(places, target) if (cover := _judged(places, target, terms, scattered))]
    return min(found, key=lambda cover: cover.cost, default=None)


def _attempts(places: Places, target: np.ndarray) -> Iterator[list[_Term]]:
    """Yield unions of terms that may describe the set."""
    box = _box(places, target)
    if box:
        yield [box]
    for term in _related(places, target):
        yield [term]
    for together in (1, 2, 3):
        yield _union(places, target, together)


def _judged(places: Places, target: np.ndarray, terms: list[_Term], scattered: float) -> Cover | None:
    """Return terms as a description of the set; None where they do not fit, or would fit as well by chance."""
    if not terms:
        return None
    mask = terms[0].mask if len(terms) == 1 else np.logical_or.reduce([term.mask for term in terms])
    inside, count = _count(mask), _count(target)
    hits = _count(mask & target)
    if hits < NEARLY * max(inside, count):
        return None
    simple = sum(term.cost for term in terms)
    exceptions = log_choices(inside, hits) + log_choices(len(target) - inside, count - hits)
    exact = places.is_whole and hits == inside == count and simple <= _MOST_LISTED * len(terms)
    if not exact and simple + exceptions + CHANCE > scattered:
        return None
    words = [term.words for term in sorted(terms, key=lambda term: term.axes)]
    return Cover(" and ".join(words), simple + exceptions, inside, hits, count - hits)


def confined(places: Places, target: np.ndarray) -> Cover | None:
    """Return where all entries of a set lie, among others; None where that says nothing."""
    box = _box(places, target, all_of_them=True)
    if box is None:
        return None
    inside, count = _count(box.mask), _count(target)
    likely = log_choices(len(target), count) - log_choices(inside, count)
    if likely < box.cost + CHANCE:
        return None
    return Cover(box.words, box.cost, inside, count, 0)


def _box(
    places: Places, target: np.ndarray, among: np.ndarray | None = None, all_of_them: bool = False
) -> _Term | None:
    """Return what lies at the indices that the set has along each axis, of the axes where these say something.

    Where all entries are known, and not only some of the box belong to the set, every axis does.

    Parameters
    ----------
    places : Places
    target : bool array
    among : bool array, optional
        The entries that are not described yet.
    all_of_them : bool
        Whether indices with a few strays count too.
    """
    pieces: dict[int, np.ndarray] = {}
    for axis in places.wide:
        indices = _indices(places, axis, target, all_of_them)
        if len(indices) < _count(places.counts((axis,), among)):
            pieces[axis] = indices
    if not places.is_whole or all_of_them:
        pieces = _telling(places, _count(target), pieces)
    return _of_pieces(places, pieces) if pieces else None


def _telling(places: Places, count: int, pieces: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return those pieces that make a set of so many entries less likely by chance than they are simple."""
    mask, kept = np.ones(len(places.dims), dtype=bool), list[int]()
    while len(kept) < len(pieces):
        inside = log_choices(_count(mask), count)
        gains = {}
        for axis in pieces.keys() - set(kept):
            fewer = _count(mask & _within(places, axis, pieces[axis]))
            gains[axis] = inside - log_choices(fewer, min(count, fewer)) - named(places.axes[axis], pieces[axis]).cost
        best = max(gains, key=lambda axis: gains[axis])
        if gains[best] <= math.log(len(places.wide)):
            break
        kept.append(best)
        mask &= _within(places, best, pieces[best])
    return {axis: pieces[axis] for axis in sorted(kept)}


def _indices(places: Places, axis: int, target: np.ndarray, all_of_them: bool) -> np.ndarray:
    """Return the indices along an axis at which the set lies, or these without those of a few strays."""
    hits, seen = places.counts((axis,), target), places.counts((axis,))
    rates = hits / np.maximum(seen, 1)
    most = rates >= 0.3 * rates.max()
    return np.flatnonzero(most if not all_of_them and hits[most].sum() >= NEARLY * hits.sum() else hits)


def _within(places: Places, axis: int, indices: np.ndarray) -> np.ndarray:
    """Return which entries lie at these indices along an axis."""
    chosen = np.zeros(places.shape[axis], dtype=bool)
    chosen[indices] = True
    return places.within((axis,), chosen)


def _of_pieces(places: Places, pieces: dict[int, np.ndarray]) -> _Term:
    """Return the entries that lie at some indices along each of several axes."""
    mask, cost = np.ones(len(places.dims), dtype=bool), math.log(len(places.wide)) * len(pieces)
    words = {}
    for axis, indices in pieces.items():
        mask &= _within(places, axis, indices)
        words[axis], more = named(places.axes[axis], indices)
        cost += more
    return _Term(" of ".join(_phrases(places, pieces, words)), cost, tuple(pieces), mask)


def _phrases(places: Places, pieces: dict[int, np.ndarray], words: dict[int, str]) -> Iterator[str]:
    """Yield the words for the indices along each axis, the last axis first; those of a tap together."""
    for point in _points(places, pieces):
        numbers = ", ".join(str(int(pieces[axis][0])) if axis in pieces else "0" for axis in point)
        yield f"{'tap' if places.names[point[0]].startswith('tap ') else 'entry'} ({numbers})"
        words = {axis: phrase for axis, phrase in words.items() if axis not in point}
    taps = [phrase for axis, phrase in reversed(words.items()) if places.axes[axis].is_tap]
    if taps:
        yield f"taps in {' of '.join(taps)}"
    yield from (phrase for axis, phrase in reversed(words.items()) if not places.axes[axis].is_tap)


def _points(places: Places, pieces: dict[int, np.ndarray]) -> Iterator[tuple[int, ...]]:
    """Yield the axes of a kernel where single indices along all of them make a tap; numbered axes likewise."""
    for prefix in ("tap ", "axis "):
        axes = tuple(axis for axis, name in enumerate(places.names) if name.startswith(prefix))
        wide = [axis for axis in axes if axis in places.axes]
        if wide and len(axes) > 1 and all(axis in pieces and len(pieces[axis]) == 1 for axis in wide):
            yield axes


def _related(places: Places, target: np.ndarray) -> Iterator[_Term]:
    """Yield the entries whose indices along two axes of one size are equal, or in one order."""
    few = slice(None, None, max(1, len(target) // 1000))
    for one, other in itertools.combinations(places.wide, 2):
        if places.shape[one] != places.shape[other]:
            continue
        for relation, words in ((np.equal, "equals"), (np.less, "is less than"), (np.greater, "is greater than")):
            mask = places.related(one, other, relation)
            if _count(mask[few] & target[few]) >= 0.9 * _count(target[few]):
                names = places.names[one], places.names[other]
                yield _Term(f"entries whose {names[0]} {words} their {names[1]}", math.log(6), (one, other), mask)


def _union(places: Places, target: np.ndarray, together: int) -> list[_Term]:
    """Return a greedy union: each term covers most of what is left, whole slices of one axis or of several together.

    What is left at the end may be what lies at some indices along each of several axes.
    """
    left, among, terms = target.copy(), np.ones(len(target), dtype=bool), list[_Term]()
    for _ in range(_MOST_TERMS - 1):
        slices = (_slices(places, axes, target, left) for axes in _groups(places, together))
        best = max(filter(None, slices), key=lambda term: _count(term.mask & left), default=None)
        if best is None or _is_weak(places, best, left):
            break
        terms.append(best)
        left &= ~best.mask
        among &= ~best.mask
        if _count(left) <= (1 - NEARLY) * _count(target):
            return terms
    if terms and (rest := _box(places, left, among)) and not _is_weak(places, rest, left):
        terms.append(rest)
    return terms


def _is_weak(places: Places, term: _Term, left: np.ndarray) -> bool:
    """Return whether a term covers so little of what is left that a sample would show as much by chance."""
    hits = _count(term.mask & left)
    if places.is_whole:
        return hits < 0.1 * _count(left)
    return hits * math.log(len(left) / _count(term.mask)) < term.cost + CHANCE


def _groups(places: Places, together: int) -> Iterator[tuple[int, ...]]:
    """Yield so many axes at a time, where enough of their cells were seen."""
    for axes in itertools.combinations(places.wide, together):
        if _CELLS * len(places.dims) >= math.prod(places.shape[axis] for axis in axes):
            yield axes


def _slices(places: Places, axes: tuple[int, ...], target: np.ndarray, left: np.ndarray) -> _Term | None:
    """Return the cells of a plane of axes in which (nearly) every entry belongs to the set, if it has few of them."""
    seen, hits = places.counts(axes), places.counts(axes, target)
    full = (seen > 0) & (hits >= NEARLY * seen) & (places.counts(axes, left) > 0)
    if not full.any() or (len(axes) > 1 and _count(full) > _MOST_TERMS):
        return None
    if len(axes) == 1:
        return _of_pieces(places, {axes[0]: np.flatnonzero(full)})
    corners = np.unravel_index(np.flatnonzero(full), [places.shape[axis] for axis in axes])
    boxes = [
        _of_pieces(places, dict(zip(axes, map(np.atleast_1d, corner), strict=True)))
        for corner in zip(*corners, strict=True)
    ]
    return _Term(
        " and ".join(box.words for box in boxes), sum(box.cost for box in boxes), axes, places.within(axes, full)
    )
