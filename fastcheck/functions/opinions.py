"""Second opinions on one entry's derivative: none fails, and none is a subgradient, on the word of one step."""

from __future__ import annotations

from fastcheck.functions.entry import EntryDifferencer
from fastcheck.functions.step_search import CLEAR, NOISES, Estimate, Search, exponent_of

ROUNDS = 12
"""Steps tried where no typical one is known."""

BOTTOM = (41, 35, 26)
"""Powers of two below the size of an entry at which a second opinion is asked for: about the root of the unit
round-off, its two thirds' power, and below. A loss whose own scale is far below the entry's is seen there alone."""

DESCENTS = 3
"""Searches further down, one below the other: each may find a scale that is not the last."""

APART = 3
"""Powers of two below what was found where the search begins anew."""

STANDS_OUT = 8 * CLEAR
"""Times the noise of a value that the jump makes at the smallest step that is to show it."""

BELIEVED = 1 / 4
"""Part of a value that the bar near the bottom may be for its quotients to agree with each other."""

CLOSER = (1, 2, 3)
"""Powers of two by which steps are smaller that tell whether a bar is too narrow."""


def decided(entry: EntryDifferencer, search: Search, found: Estimate, doubtful: bool) -> Estimate:
    """Return what was found, or what smaller steps put in its place.

    Parameters
    ----------
    entry : EntryDifferencer
    search : Search
        Of the entry.
    found : Estimate
    doubtful : bool
        Whether the loss has a scale far below its entries, so that steps near the bottom are asked in any case.
    """
    if doubtful or entry.outside(found):
        found = _below(entry, search, found)
    if entry.outside(found):
        found = _closer(entry, search, found)
    return at_the_point(entry, found) if found.jump else found


def contradiction(entry: EntryDifferencer, search: Search, found: Estimate) -> int | None:
    """Return the exponent of a step near the bottom whose quotient cannot be that of a larger step."""
    size = exponent_of(entry.own_size())
    for exponent in (size - depth for depth in BOTTOM):
        if exponent < exponent_of(found.step):
            level = search.level(exponent)
            if level is not None and level.contradicts(found):
                return exponent
    return None


def at_the_point(entry: EntryDifferencer, found: Estimate) -> Estimate:
    """Look whether a kink is at the point itself, or merely nearer than the step.

    With the smallest step at which the jump between the slopes stands clear of the noise it has to be there still.
    """
    noise = entry.own_noise()
    search = entry.search(noise)
    clear = exponent_of(STANDS_OUT * NOISES * noise / found.jump)
    if clear >= exponent_of(found.step) - 2:
        return found
    nearer = search.best(clear, 1)
    if nearer is None or nearer.jump >= found.jump / 2:
        return found
    return search.best(clear, ROUNDS, most=exponent_of(found.step) - 1) or found


def _below(entry: EntryDifferencer, search: Search, found: Estimate) -> Estimate:
    """Search near the bottom where a quotient there contradicts what was found.

    A smaller step is nearer to the derivative. It is believed where its own quotients agree with each other; else the
    bar has to hold both.
    """
    lower = found
    for _ in range(DESCENTS):
        exponent = contradiction(entry, search, lower)
        if exponent is None:
            break
        lower = search.best(exponent, ROUNDS, most=exponent_of(lower.step) - APART) or lower
    agreed = lower is found or lower.bar <= BELIEVED * abs(lower.numeric)
    return lower if agreed else found.doubted(lower)


def _closer(entry: EntryDifferencer, search: Search, found: Estimate) -> Estimate:
    """Ask steps of a half, a quarter and an eighth whether the bar is too narrow.

    One that puts the derivative elsewhere, and the gradient inside, is right: what it moved by is truncation.
    """
    for powers in CLOSER:
        # The stencil with the smaller bar: inside a wide one is no second opinion.
        closer = min(search.closer(found, powers), key=lambda one: one.bar, default=None)
        if closer is None or abs(closer.numeric - found.numeric) <= max(found.bar, closer.bar) / 2:
            continue
        if not entry.outside(closer):
            return closer
    return found
