"""A mistake of a network's backward pass: what happened, where to look, in which layers, and what makes it."""

from __future__ import annotations

from typing import NamedTuple

from fastcheck.networks.mistakes.row import Carry


class Hypothesis(NamedTuple):
    """A mistake that code can make in the backward pass of a layer, or of a loss.

    Attributes
    ----------
    bug : str
        What the program did, in a few words; unique among those of a kind. Reports add the layers.
    kinds : tuple of str
        Kinds of layers, or losses, that can have it.
    advice : str
        Where to look in the code.
    carry : callable
        Makes the mistake in one row.
    """

    bug: str
    kinds: tuple[str, ...]
    advice: str
    carry: Carry
