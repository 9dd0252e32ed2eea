"""A failure's shape in words: which entries of a tensor fail and which are right, their signs and their factors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.diagnosis.cover import Cover, Places, confined, covered
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.factors import shown
from fastcheck.reports.layout import joined

_ONE_BY_ONE = 3
"""Largest number of failing entries that are listed where nothing describes them."""

_PLAIN = 0.05
"""By how much what fails may cost more to describe than what is right: it is simpler to read."""

_ENOUGH = 10
"""A sample shows what failing entries have in common if at least so many fail: fewer may share a sign by chance."""

_NEARLY_ALL = 0.95
"""Share of failing entries from which nearly all fail, or share a sign."""

_MOST_FACTORS = 3
"""Largest number of factors that make a cluster each, rather than a spread."""

_RESOLVED = 0.01
"""A factor counts where the error bar leaves it uncertain by at most this."""

_BLOCK = 2**17
"""Number of entries whose signs are counted at a time."""

_MOST_FACTORED = 100_000
"""Largest number of failing entries whose factors are looked at."""


def described(evidence: Evidence, axes: Sequence[str]) -> str:
    """Return a failure's shape in words: where it fails, with which signs, by which factors.

    Of a sample, the words tell what it shows and no more.

    Parameters
    ----------
    evidence : Evidence
    axes : sequence of str
        The names of the tensor's axes: "filter", "channel", "tap row", "tap column".
    """
    failing = evidence.failing
    if not failing.any():
        return "no entry fails"
    with np.errstate(all="ignore"):
        parts = [_where(evidence, failing, axes), _signs(evidence, failing), _factors(evidence, failing)]
    return "; ".join(filter(None, parts))


def _where(evidence: Evidence, failing: np.ndarray, axes: Sequence[str]) -> str:
    total, size = len(failing), evidence.analytic.size
    if failing.all():
        return _all(total) if evidence.is_whole else f"all {total:,} entries checked, of {size:,}"
    # Places of fewer bytes: large tensors have many.
    dims = evidence.dims.astype(np.int32) if size <= np.iinfo(np.int32).max else evidence.dims
    checked = "" if evidence.is_whole else f" ({total:,} of {size:,} entries checked)"
    return f"{_which(Places(dims, evidence.shape, axes), failing)}{checked}"


def _all(total: int) -> str:
    return {1: "the only entry", 2: "both entries"}.get(total, f"all {total:,} entries")


def _which(places: Places, failing: np.ndarray) -> str:
    """Return the simplest description of the entries that fail, or of those that do not."""
    count, total = np.count_nonzero(failing), len(failing)
    wrong, right = covered(places, failing), covered(places, ~failing)
    if wrong and (right is None or wrong.cost <= right.cost + _PLAIN):
        return _exactly(wrong, "only ")
    if right:
        return _exactly(right, "all but ")
    if count <= _ONE_BY_ONE:
        entries = [str(list(index_of(dim, places.shape))) for dim in places.dims[failing]]
        return f"{count:,} of {total:,} entries: {joined(entries)}"
    where = confined(places, failing)
    if where:
        return f"only in {where.words}, where {count:,} of {where.inside:,} entries fail"
    if count >= _NEARLY_ALL * total:
        return f"nearly all: {count:,} of {total:,} entries"
    return f"scattered: {count:,} of {total:,} entries"


def _exactly(cover: Cover, opening: str) -> str:
    """Return a description with the number of its exceptions."""
    exceptions = cover.inside - cover.hits + cover.outside
    noun = "entry" if exceptions == 1 else "entries"
    return f"{opening}{cover.words}" + f", but for {exceptions:,} {noun}" * (exceptions > 0)


class _Signs(NamedTuple):
    """Numbers of failing entries: all, and of those with a finite value and a derivative above its bar.

    Attributes
    ----------
    failing, finite, zero, flat : int
        All, and of all: finite ones, those whose value is zero, and those whose derivative is.
    resolved, vanished, smaller, larger, opposite : int
        Those whose derivative is larger than its bar, and of these: zero, too small or large in size, of another sign.
    """

    failing: int
    finite: int
    zero: int
    flat: int
    resolved: int
    vanished: int
    smaller: int
    larger: int
    opposite: int

    def words(self) -> str:
        """Return what (nearly) all of them have in common."""
        if self.finite == 0:
            return "all nan or infinite"
        if self.zero == self.failing:
            return "all zero"
        if self.flat == self.failing:
            return "the derivative is zero in all of them"
        if vanished := self._nearly_all(self.vanished, "zero"):
            return vanished
        size = self._nearly_all(self.smaller, "too small in size") or self._nearly_all(self.larger, "too large in size")
        sign = self._nearly_all(self.opposite, _OPPOSITE) or self._half(self.opposite, _OPPOSITE)
        return ", ".join(filter(None, (size, sign)))

    def _nearly_all(self, count: int, words: str) -> str:
        if self.resolved < 2 or count < _NEARLY_ALL * self.resolved:
            return ""
        return f"{'all' if count == self.resolved else 'nearly all'} {words}"

    def _half(self, count: int, words: str) -> str:
        """Return whether about half have a property: in one of a thousand samples, chance is farther from a half."""
        close = abs(count / max(self.resolved, 1) - 0.5) * math.sqrt(self.resolved) <= 1.6
        return f"about half {words}" if close and self.resolved >= 2 * _ENOUGH else ""


_OPPOSITE = "of the opposite sign"


def _signs(evidence: Evidence, failing: np.ndarray) -> str:
    """Return what the failing values have in common, by their signs and sizes."""
    if np.count_nonzero(failing) < (2 if evidence.is_whole else _ENOUGH):
        return ""
    counts = np.zeros(len(_Signs._fields), dtype=np.int64)
    for start in range(0, len(failing), _BLOCK):
        block = slice(start, start + _BLOCK)
        flat, wrong = evidence.analytic.reshape(-1), failing[block]
        a, n, bar = flat[evidence.dims[block]][wrong], evidence.numeric[block][wrong], evidence.error_bar[block][wrong]
        counts += _counted(a, n, bar)
    return _Signs(*counts.tolist()).words()


def _counted(a: np.ndarray, n: np.ndarray, bar: np.ndarray) -> list[int]:
    finite, sizes = np.isfinite(a), (np.abs(a), np.abs(n))
    resolved = finite & (sizes[1] > bar)
    among = (a == 0, sizes[0] < sizes[1], sizes[0] > sizes[1], np.sign(a) * np.sign(n) < 0)
    masks = (finite, a == 0, n == 0, resolved, *(mask & resolved for mask in among))
    return [len(a), *(int(np.count_nonzero(mask)) for mask in masks)]


def _factors(evidence: Evidence, failing: np.ndarray) -> str:
    """Return the few factors between the analytic and the numeric values, where there are only a few."""
    wrong = np.flatnonzero(failing)
    wrong = wrong[:: -(-len(wrong) // _MOST_FACTORED)]
    a, n, bar = evidence.analytic.reshape(-1)[evidence.dims[wrong]], evidence.numeric[wrong], evidence.error_bar[wrong]
    resolved = np.isfinite(a) & (bar < _RESOLVED * np.abs(n))
    if np.count_nonzero(resolved) < max(_ONE_BY_ONE, _NEARLY_ALL * len(wrong) / 2):
        return ""
    ratios, unsure = a[resolved] / n[resolved], bar[resolved] / np.abs(n[resolved])
    found = sorted(_clusters(ratios, unsure))
    if not any(found):  # zeros are described by their sign
        return ""
    words = joined([shown(value) for value in found])
    return f"one factor: {words}" if len(found) == 1 else f"{_NUMBERS[len(found)]} factors: {words}"


_NUMBERS = {2: "two", 3: "three"}


def _clusters(ratios: np.ndarray, unsure: np.ndarray) -> Iterator[float]:
    """Yield up to three factors that nearly all ratios have, within what they are unsure by; nothing otherwise."""
    left, total, found = np.ones(len(ratios), dtype=bool), len(ratios), list[float]()
    while np.count_nonzero(left) > (1 - _NEARLY_ALL) * total and len(found) < _MOST_FACTORS:
        some = ratios[left]
        middle = int(np.argpartition(some, len(some) // 2)[len(some) // 2])
        value = some[middle]
        near = np.abs(ratios - value) <= unsure * max(1.0, abs(value)) + unsure[left][middle] * max(1.0, abs(value))
        if np.count_nonzero(near) < _ONE_BY_ONE:
            return
        found.append(float(np.average(ratios[near], weights=1 / np.maximum(unsure[near], 1e-16))))
        left &= ~near
    if np.count_nonzero(left) <= (1 - _NEARLY_ALL) * total:
        yield from found
