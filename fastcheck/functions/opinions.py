"""Second opinions on one entry's derivative, so that no single step decides a failure or a subgradient."""

from __future__ import annotations

from typing import Protocol

from fastcheck.functions.step_search import CLEAR, NOISES, Estimate, Search, exponent_of

ROUNDS = 12
"""Steps to try where no typical step is known."""

BOTTOM = (41, 35, 26)
"""Depths, in powers of two below the size of an entry, of the steps that give a second opinion: the square root of the
unit round-off, its two-thirds power, and below. Only there is a loss seen whose own scale is far below the entry's."""

DESCENTS = 3
"""Largest number of searches further down, each below the one before: a scale may have another one below it."""

APART = 3
"""Powers of two between an estimate's step and the largest step of the search below it."""

STANDS_OUT = 8 * CLEAR
"""Multiple of a value's noise that a jump must reach at the smallest step that is to show it."""

TRUSTED = 1 / 4
"""Largest bar, as a fraction of the value, with which quotients near the bottom count as agreeing with each other."""

CLOSER = (1, 2, 3)
"""Powers of two by which a step is divided to test whether its bar is too narrow."""


class Line(Protocol):
    """The loss along a line: one entry's, or a direction's."""

    def outside(self, estimate: Estimate) -> bool:
        """Return whether the analytic value lies outside the error bar."""
        ...

    def own_size(self) -> float:
        """Return the size on which the loss may vary along the line."""
        ...

    def own_noise(self) -> float:
        """Return the noise of the loss next to the point, where this line alone is followed."""
        ...

    def search(self, noise: float | None = None) -> Search:
        """Return the search for the step."""
        ...


def decided(entry: Line, search: Search, estimate: Estimate, doubtful: bool) -> Estimate:
    """Return an estimate, or the one that smaller steps put in its place.

    Parameters
    ----------
    entry : Line
    search : Search
        The entry's search.
    estimate : Estimate
    doubtful : bool
        Whether the loss has a scale far below its entries, so that steps near the bottom are tried in any case.
    """
    if doubtful or entry.outside(estimate):
        estimate = _below(entry, search, estimate)
    if entry.outside(estimate):
        estimate = _closer(entry, search, estimate)
    return at_the_point(entry, estimate) if estimate.jump else estimate


def contradiction(entry: Line, search: Search, estimate: Estimate) -> int | None:
    """Return the exponent of a step near the bottom whose quotient contradicts the estimate; None without one."""
    size = exponent_of(entry.own_size())
    for exponent in (size - depth for depth in BOTTOM):
        if exponent < exponent_of(estimate.step):
            level = search.level(exponent)
            if level is not None and level.contradicts(estimate):
                return exponent
    return None


def at_the_point(entry: Line, estimate: Estimate) -> Estimate:
    """Check whether a kink lies at the point itself, or merely nearer than the step; return the better estimate.

    A kink at the point still shows with the smallest step at which its jump between the slopes is clear of the noise.
    """
    noise = entry.own_noise()
    search = entry.search(noise)
    clear = exponent_of(STANDS_OUT * NOISES * noise / estimate.jump)
    if clear >= exponent_of(estimate.step) - 2:
        return estimate
    nearer = search.best(clear, 1)
    if nearer is None or nearer.jump >= estimate.jump / 2:
        return estimate
    return search.best(clear, ROUNDS, most=exponent_of(estimate.step) - 1) or estimate


def _below(entry: Line, search: Search, estimate: Estimate) -> Estimate:
    """Search near the bottom if a quotient there contradicts the estimate.

    A smaller step is nearer to the derivative. It is trusted where its own quotients agree with each other; otherwise
    the bar must cover both.
    """
    lower = estimate
    for _ in range(DESCENTS):
        exponent = contradiction(entry, search, lower)
        if exponent is None:
            break
        lower = search.best(exponent, ROUNDS, most=exponent_of(lower.step) - APART) or lower
    agreed = lower is estimate or lower.bar <= TRUSTED * abs(lower.numeric)
    return lower if agreed else estimate.doubted(lower)


def _closer(entry: Line, search: Search, estimate: Estimate) -> Estimate:
    """Try steps of a half, a quarter and an eighth, in case the bar is too narrow.

    A smaller step that moves the numeric value and has the gradient inside its bar is right: the rest was truncation.
    """
    for powers in CLOSER:
        # The stencil with the smaller bar: lying inside a wide bar is no second opinion.
        closer = min(search.closer(estimate, powers), key=lambda one: one.bar, default=None)
        if closer is None or abs(closer.numeric - estimate.numeric) <= max(estimate.bar, closer.bar) / 2:
            continue
        if not entry.outside(closer):
            return closer
    return estimate
