"""An evaluator of a plain convolution's entries, which are those of another convolution in other places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastcheck.convolutions.case import Plain
from fastcheck.convolutions.entries import Entries
from fastcheck.engine.differences import Chosen, DerivativeOverflow, Differences, Evaluator, indices


class _Block(NamedTuple):
    """A block of one of the evaluators."""

    evaluator: Evaluator
    part: Any


class Relabelled:
    """Difference the entries of an operand by those of the plain operand that they are.

    Parameters
    ----------
    evaluator : Evaluator
        Of the plain operand.
    entries : Entries
    of_copies : Evaluator or None
        Differences entries that have several copies there, by their own indices.
    """

    def __init__(self, evaluator: Evaluator, entries: Entries, of_copies: Evaluator | None) -> None:
        self._evaluator, self._entries, self._of_copies, self.step = evaluator, entries, of_copies, evaluator.step

    def blocks(self, dims: Chosen) -> Sequence[Any]:
        """Cut dimensions into blocks, each for one of the evaluators; those of the plain operand's ascend."""
        every = indices(dims)
        alone = self._entries.copies[every] == 1
        blocks = [_Block(self._evaluator, block) for block in self._blocks_alone(every[alone])]
        if self._of_copies is not None and not alone.all():
            blocks += [_Block(self._of_copies, block) for block in self._of_copies.blocks(every[~alone])]
        return blocks

    def _blocks_alone(self, dims: np.ndarray) -> Sequence[Any]:
        return self._evaluator.blocks(np.sort(self._entries.places[dims])) if len(dims) else []

    def __call__(self, block: _Block) -> Differences:
        """Difference the dimensions of a block."""
        if block.evaluator is self._of_copies:
            return block.evaluator(block.part)
        sources = self._entries.sources.reshape(-1)
        try:
            found = block.evaluator(block.part)
        except DerivativeOverflow as error:
            raise DerivativeOverflow(error.tensor, int(sources[error.dim]), self._entries.shape) from None
        return found._replace(dims=sources[found.dims])

    def bar_components(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions."""
        alone = self._entries.copies[dims] == 1
        parts = [(alone, self._evaluator.bar_components(self._entries.places[dims[alone]]))] if alone.any() else []
        if self._of_copies is not None and not alone.all():
            parts.append((~alone, self._of_copies.bar_components(dims[~alone])))
        columns = {name: np.empty(len(dims)) for name in parts[0][1]}
        for here, values in parts:
            for name, column in values.items():
                columns[name][here] = column
        return columns


def relabelled(evaluator: Evaluator, plain: Plain, name: str, of_copies: Callable[[], Evaluator]) -> Evaluator:
    """Return an evaluator of the entries that an operand had before it became plain.

    ``of_copies`` makes the evaluator of those with several copies, where there are any.
    """
    if name not in plain.entries:
        return evaluator
    entries = plain.entries[name]
    return Relabelled(evaluator, entries, None if entries.alone is None else of_copies())
