"""A failure's shape in words: which entries of a tensor fail and which are right, their signs and their factors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.diagnosis.cover import Cover, Places, confined, covered
from fastcheck.diagnosis.evidence import Evidence
from fastcheck.reports.layout import joined

_ONE_BY_ONE = 3
"""Largest number of failing entries that are listed where nothing describes them."""

_ENOUGH = 10
"""A sample shows what failing entries have in common if at least so many fail: fewer may share a sign by chance."""

_NEARLY_ALL = 0.95
"""Share of failing entries from which nearly all fail, or share a sign."""

_MOST_FACTORS = 3
"""Largest number of factors that make a cluster each, rather than a spread."""

_RESOLVED = 0.01
"""A factor counts where the error bar leaves it uncertain by at most this."""

_MOST_FACTORED = 100_000
"""Largest number of entries whose factors are looked at."""


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
    count, total = np.count_nonzero(failing), len(failing)
    of = "" if evidence.is_whole else f" ({total:,} of {evidence.analytic.size:,} entries checked)"
    if count == total:
        return f"{_all(total)}{of}"
    return f"{_which(Places(evidence.dims, evidence.shape, axes), failing)}{of}"


def _all(total: int) -> str:
    return {1: "the only entry", 2: "both entries"}.get(total, f"all {total:,} entries")


def _which(places: Places, failing: np.ndarray) -> str:
    """Return the simplest description of the entries that fail, or of those that do not."""
    count, total = np.count_nonzero(failing), len(failing)
    wrong, right = covered(places, failing), covered(places, ~failing)
    if wrong and (right is None or wrong.cost <= right.cost):
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


def _signs(evidence: Evidence, failing: np.ndarray) -> str:
    """Return what the failing values have in common, by their signs and sizes."""
    a, n = evidence.seen[failing], evidence.numeric[failing]
    if len(a) < (2 if evidence.is_whole else _ENOUGH):
        return ""
    finite = np.isfinite(a)
    if not finite.any():
        return "all are nan or infinite"
    if not a.any():
        return "all are zero"
    if not n.any():
        return "the derivative is zero in all of them"
    resolved = finite & (np.abs(n) > evidence.error_bar[failing])
    a, n = a[resolved], n[resolved]
    size, sign = _share(np.abs(a) < np.abs(n), "too small in size"), _share(a * n < 0, "of the opposite sign")
    return ", ".join(filter(None, (size or _share(np.abs(a) > np.abs(n), "too large in size"), sign)))


def _share(holds: np.ndarray, words: str) -> str:
    """Return how many entries something holds for, if these are all, nearly all or half."""
    if len(holds) < 2:
        return ""
    share = np.count_nonzero(holds) / len(holds)
    if share >= _NEARLY_ALL:
        return f"{'all' if share == 1 else 'nearly all'} {words}"
    # In less than one of a thousand samples is the share of what has nothing to do with it as far from a half.
    close = abs(share - 0.5) <= 1.6 / np.sqrt(len(holds))
    return f"about half {words}" if close and len(holds) >= 20 and words.endswith("sign") else ""


def _factors(evidence: Evidence, failing: np.ndarray) -> str:
    """Return the few factors between the analytic and the numeric values, where there are only a few."""
    every = -(-len(failing) // _MOST_FACTORED)
    a, n, bar, wrong = (one[::every] for one in (evidence.seen, evidence.numeric, evidence.error_bar, failing))
    resolved = np.isfinite(a) & (bar < _RESOLVED * np.abs(n))
    if np.count_nonzero(resolved & wrong) < max(_ONE_BY_ONE, _NEARLY_ALL * np.count_nonzero(wrong) / 2):
        return ""
    ratios, unsure = a[resolved] / n[resolved], bar[resolved] / np.abs(n[resolved])
    found = sorted(_clusters(ratios, unsure))
    failed = [value for value in found if abs(value - 1) > _RESOLVED]
    if not any(failed):
        return ""
    words = joined([f"{value:.6g}" for value in found])
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
