"""An evaluator of a plain convolution's entries, which are those of another convolution in other places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.convolutions.case import Plain
from fastcheck.convolutions.entries import Entries
from fastcheck.engine.differences import Chosen, Differences, Evaluator


class Relabelled:
    """Difference the entries of an operand by those of the plain operand that they are.

    Parameters
    ----------
    evaluator : Evaluator
        Of the plain operand.
    entries : Entries
    """

    def __init__(self, evaluator: Evaluator, entries: Entries) -> None:
        self._evaluator, self._entries, self.step = evaluator, entries, evaluator.step

    def blocks(self, dims: Chosen) -> Sequence[Any]:
        """Cut dimensions into blocks of the plain operand's, in ascending order."""
        places = self._entries.places
        return self._evaluator.blocks(np.sort(places if isinstance(dims, range) else places[dims]))

    def __call__(self, block: Any) -> Differences:
        """Difference the dimensions of a block."""
        found = self._evaluator(block)
        return found._replace(dims=self._entries.sources.reshape(-1)[found.dims])

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        return self._evaluator.bar_components(self._entries.places[dims])


def relabelled(evaluator: Evaluator, plain: Plain, name: str) -> Evaluator:
    """Return an evaluator of the entries that an operand had before it became plain."""
    return Relabelled(evaluator, plain.entries[name]) if name in plain.entries else evaluator
