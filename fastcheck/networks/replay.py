"""The backward pass of a whole network, row by row, in which some rows make mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.mistakes.row import Carried, Carry, Row
from fastcheck.networks.passes import Chunk, lanes, row_of
from fastcheck_kernels import vjp

Arrive = Callable[[str, np.ndarray], bool]
"""Called with a tensor's name and its gradient, flat, when that is complete; the replay ends where it returns False."""


class Replay:
    """Replays of a network's backward pass.

    Parameters
    ----------
    baseline : Baseline
        The right passes.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._passes = baseline.passes
        self._chunks = baseline.passes.chunks
        self._program = baseline.passes.program
        self.rows = len(self._program.nodes)
        """Number of rows; a mistake of the loss has this number itself."""
        self.made: set[int] = set()
        """The rows in which the last replay did make a mistake."""
        self._own = np.zeros(self._program.params_size)
        self._cotangents: list[np.ndarray] = []
        self._started: list[np.ndarray] = []
        self._grads: dict[str, np.ndarray] = {}
        self._kept: dict[str, np.ndarray] = {}
        self._first = self.rows - 1
        self._complete = self._completed()
        self._row_of_layer = {node.layer: row for row, node in reversed([*enumerate(self._program.nodes)])}

    def start(self, mistakes: Mapping[int, Carry], first: int) -> None:
        """Carry the cotangents back to just before a row, with mistakes; replays can begin there."""
        self._grads = {}
        self._begin(mistakes.get(self.rows))
        for number in range(self.rows - 1, first, -1):
            self._step(number, mistakes, lambda name, gradient: True)
        self._first, self._started, self._kept = first, self._cotangents, dict(self._grads)

    def run(self, mistakes: Mapping[int, Carry], arrive: Arrive) -> bool:
        """Carry the cotangents back, with mistakes in some rows, until all gradients are complete.

        It begins where `start` has ended, unless the loss is mistaken.

        Parameters
        ----------
        mistakes : mapping of int to Carry
            By row.
        arrive : callable

        Returns
        -------
        bool
            Whether ``arrive`` was true for every tensor.
        """
        self.made = {self.rows} & set(mistakes)
        if self.rows in mistakes or self._first == self.rows - 1:
            first, self._grads = self.rows - 1, {}
            self._begin(mistakes.get(self.rows))
        else:
            first, self._grads = self._first, dict(self._kept)
            self._cotangents = [array.copy() for array in self._started]
        return all(self._step(number, mistakes, arrive) for number in range(first, 0, -1))

    def _step(self, number: int, mistakes: Mapping[int, Carry], arrive: Arrive) -> bool:
        """Carry one row's cotangents back, and hand over the gradients that are complete then."""
        mistake = mistakes.get(number)
        own = self._carry(number) if mistake is None else self._mistaken(number, mistake)
        for name, part in own.items():
            self._grads[name] = self._grads[name] + part if name in self._grads else part
        arriving = [name for name in self._complete.get(number, ()) if name in self._grads]
        return all(arrive(name, self._sorted(name, self._grads.pop(name))) for name in arriving)

    def _completed(self) -> dict[int, list[str]]:
        """Return the tensors whose gradient is complete with each row."""
        complete: dict[int, list[str]] = {}
        for name in self._program.tensors:
            complete.setdefault(min(self._program.nodes_of(name)), []).append(name)
        return complete

    def _sorted(self, name: str, gradient: np.ndarray) -> np.ndarray:
        return self._program.tensors[name].sorted(gradient)

    def _begin(self, loss: Carry | None) -> None:
        """Write the loss's cotangents, and zeros before them."""
        last = self.rows - 1
        self._cotangents = [np.zeros_like(chunk.cached) for chunk in self._chunks]
        for chunk, cotangents in self._pairs():
            own = row_of(self._passes, chunk, cotangents, last)
            own[:] = (self._passes.weight * chunk.seeds).reshape(own.shape)
        if loss is not None:
            carried = loss(Row(self._passes, last, self._cotangents))
            if carried is not None and carried.inputs[0] is not None:
                self._clear(last)
                self._write(last, carried.inputs[0])

    def _carry(self, number: int) -> dict[str, np.ndarray]:
        """Carry a row's cotangents back as is right; return the gradients of its parameters, in the kernels' order."""
        places = self._places(number)
        found = {name: np.zeros(part.stop - part.start) for name, part in places.items()}
        for chunk, cotangents in self._pairs():
            for part in places.values():
                self._own[part] = 0.0
            arguments = (chunk.net, number, chunk.cached, cotangents, self._passes.places(chunk), chunk.size)
            vjp.carry(*arguments, self._own)
            for name, part in places.items():
                found[name] += self._own[part]
        return found

    def _places(self, number: int) -> dict[str, slice]:
        """Return where the kernels write the gradients of a row's parameters."""
        position = self._program.nodes[number].layer
        tensors = {
            name: tensor
            for name, tensor in self._program.tensors.items()
            if position in tensor.starts and number == self._row_of_layer[position]
        }
        return {
            name: slice(tensor.starts[position], tensor.starts[position] + tensor.size)
            for name, tensor in tensors.items()
        }

    def _mistaken(self, number: int, mistake: Carry) -> dict[str, np.ndarray]:
        """Carry a row's cotangents back with a mistake; return the gradients of its parameters."""
        row, grads = self._right(number)
        carried = mistake(row)
        if carried is not None:
            self.made.add(number)
        wrong = Carried() if carried is None else carried
        for place, (source, right) in enumerate(zip(row.sources, row.right, strict=True)):
            given = wrong.inputs[place] if place < len(wrong.inputs) else None
            self._write(source, right if given is None else given)
        for tensor, values in wrong.grads.items():
            name = f"{row.layer.owner}.{tensor}"
            order = self._program.tensors[name].order
            grads[name] = np.empty(values.size)
            grads[name][slice(None) if order is None else order] = values.reshape(-1)
        return grads

    def _right(self, number: int) -> tuple[Row, dict[str, np.ndarray]]:
        """Return a row with what it rightly hands back, and the right gradients of its parameters."""
        row = Row(self._passes, number, self._cotangents)
        node = row.node
        if node.kind in ("add", "concat"):
            cut = self._program.nodes[node.columns["a"]].columns["channels"]
            return replace(row, right=(row.v, row.v) if node.kind == "add" else (row.v[:cut], row.v[cut:])), {}
        (source,) = row.sources
        kept = [row_of(self._passes, *pair, source).copy() for pair in self._pairs()]
        self._clear(source)
        grads = self._carry(number)
        parts = [lanes(self._passes, *pair, source) for pair in self._pairs()]
        right = np.concatenate(parts, axis=2)
        for pair, before in zip(self._pairs(), kept, strict=True):
            row_of(self._passes, *pair, source)[:] = before
        tensors = {name.rpartition(".")[2]: self._sorted(name, grad) for name, grad in grads.items()}
        return replace(row, right=(right,), grads=tensors), grads

    def _clear(self, row: int) -> None:
        for pair in self._pairs():
            row_of(self._passes, *pair, row)[:] = 0.0

    def _pairs(self) -> list[tuple[Chunk, np.ndarray]]:
        return list(zip(self._chunks, self._cotangents, strict=True))

    def _write(self, source: int, values: np.ndarray) -> None:
        """Add what is handed back to a row, of all data points, to its cotangents."""
        at = 0
        for chunk, cotangents in self._pairs():
            own = row_of(self._passes, chunk, cotangents, source)
            part = values[:, :, at : at + chunk.points]
            own += np.tile(part, (1, 1, chunk.period // chunk.points))
            at += chunk.points
