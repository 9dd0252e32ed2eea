"""Evaluator ``network``: only what a dimension moves is evaluated again, through all later layers, at +h and at -h."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastcheck import program, step
from fastcheck.cases.network import NetworkCase
from fastcheck.cases.network_pass import Chunk, Passes
from fastcheck.evaluators import Chosen, Differences, indices
from fastcheck.evaluators.network_bars import SAFETY, GradientRounding, RoundOff, lanes
from fastcheck.evaluators.penalty import difference as penalty_difference
from fastcheck.step import WIDE, U
from fastcheck_kernels import network

MOVE = 2.0**-17
"""How far the automatic step moves a layer's results, as a part of their root mean square: rounding and truncation are
about as large there, and few units cross a kink."""

CLOSER = 0.25
"""The next step that is tried where one is not enough, as a part of it."""

ROUNDS = 4
"""Steps that are tried at most."""

WAS, LEFT = 1.5 / (1 - CLOSER**2), 3 * CLOSER**2 / (1 - CLOSER**2)
"""What a move of n between two steps tells of the truncation with the larger one, and with the smaller one."""

KINK_SAFETY = 1.25
"""What crossings can change is computed to first order."""

PILOTS = 8
"""Dimensions of a tensor whose scatter is measured."""

LEAST_SCATTER = 1 / 16
"""The smallest part of the model's round-off that pilots may find."""

PILOT_STEPS = 1.0 + np.arange(6) / 16
"""Steps that it is measured with, as parts of h. Third differences leave nothing of truncation."""

BLOCK_WORK = 2e7
"""Multiply-adds in a block: about a hundredth of a second."""

CACHE = 2**18
"""Bytes that the room of the moved results should not exceed much: it then stays in a core's own cache."""


@dataclass
class _Room:
    """What a thread writes to."""

    arena: np.ndarray
    spare: np.ndarray


class NetworkEvaluator:
    """Difference one tensor of a network.

    Parameters
    ----------
    case : NetworkCase
    passes : Passes
        After a backward pass.
    name : str
        The tensor.
    step : float or "auto"
        With "auto" a dimension that crosses a kink, or is outside its bar, is differenced with smaller steps as well.
    roundoff : RoundOff
    rounding : GradientRounding
    seed : int
        Of the pilots.

    Attributes
    ----------
    step : float
    """

    def __init__(
        self,
        case: NetworkCase,
        passes: Passes,
        name: str,
        step: float | Literal["auto"],
        roundoff: RoundOff,
        rounding: GradientRounding,
        seed: int,
    ) -> None:
        self._case, self._passes, self._name = case, passes, name
        self._node, self._bias = passes.program.node_of(name)
        self._values = case.point.params[name].reshape(-1)
        self._analytic = case.grads[name].reshape(-1).astype(np.float64)
        self._searching = step == "auto"
        self.step = self._automatic() if step == "auto" else float(step)
        self._layouts = [_Layout(passes, chunk, self._node, len(self._values)) for chunk in passes.chunks]
        self._private = threading.local()
        terms = rounding.moments(name)
        self._sizes = np.maximum(terms[1], math.sqrt(float(terms[1] @ terms[1]) / len(terms[1])))
        self._gradient = rounding.of(name, terms)
        channels = np.arange(passes.program.nodes[self._node].columns["channels"])
        self._channel_noise = roundoff.of(self._node, channels)
        self._channel_noise = self._channel_noise * self._scatter(seed)

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of about `BLOCK_WORK`."""
        size = max(1, min(4096, int(BLOCK_WORK / work(self._passes, self._name))))
        copies = self._layouts[0].copies
        size = max(copies, size // copies * copies)
        return [dims[start : start + size] for start in range(0, len(dims), size)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        found = self._searched(dims)
        bars = found.bar + self._gradient[dims]
        return Differences(
            dims,
            found.numeric,
            bars,
            kinks=found.kinks,
            jump=found.jump,
            wide=bars - found.jump > WIDE * self._sizes[dims],
        )

    def parts(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, which are differenced again."""
        found = self._searched(dims)
        return {
            "round-off": found.roundoff,
            "truncation": found.truncation,
            "kinks": found.crossed + found.jump,
            "gradient": self._gradient[dims],
        }

    def once(self, dims: np.ndarray, h: float) -> Found:
        """Difference dimensions with one step, truncation left aside."""
        table = self._table(dims, h)
        kinked = table[:, network.KINKS].astype(np.int64)
        jump = table[:, network.JUMP].copy()
        at_point = jump > 0
        # At a kink in the point itself any slope between the one-sided ones is a subgradient.
        halves = np.abs(table[:, network.RIGHT] - table[:, network.LEFT])
        jump[at_point] = np.maximum(jump, halves)[at_point]
        crossed = KINK_SAFETY * np.maximum(table[:, network.WIDENING] - table[:, network.JUMP], 0.0)
        numeric = table[:, network.NUMERIC] / (2 * h)
        roundoff = SAFETY * self._noise(dims) / h + 4 * U * np.abs(numeric)
        found = Found(numeric, roundoff, np.zeros(len(dims)), crossed / (2 * h), jump / (2 * h), kinked)
        penalty = self._case.penalties.get(self._name)
        return found if penalty is None else found.plus(penalty_difference(penalty, self._values[dims], h))

    def _searched(self, dims: np.ndarray) -> Found:
        """Difference dimensions; where one step is not enough, with smaller ones."""
        found = self.once(dims, self.step)
        if not self._searching:
            return self._doubted(dims, found)
        last, h = found.copy(), self.step
        for turn in range(ROUNDS):
            h *= CLOSER
            open_ones = np.flatnonzero(self._unsettled(dims, found, fresh=not turn))
            if not len(open_ones):
                break
            closer = self.once(dims[open_ones], h)
            # Truncation falls as h^2, so that how far n moved tells what was there and what is left. Crossed kinks
            # move it too, which only makes the bar of the larger step the wider one.
            moved = np.abs(closer.numeric - last.numeric[open_ones])
            if not turn:
                found.truncation[open_ones] = WAS * moved
            closer.truncation = LEFT * moved
            found.take(open_ones, closer)
            last.put(open_ones, closer)
        return found

    def _doubted(self, dims: np.ndarray, found: Found) -> Found:
        """Where a dimension is outside with the user's step, let another step tell how much truncation is in it."""
        open_ones = np.flatnonzero(self._outside(dims, found))
        if len(open_ones):
            smaller = self.step >= self._automatic()
            again = self.once(dims[open_ones], self.step * (CLOSER if smaller else 1 / CLOSER))
            moved = np.abs(again.numeric - found.numeric[open_ones])
            found.truncation[open_ones] = (WAS if smaller else LEFT) * moved
        return found

    def _unsettled(self, dims: np.ndarray, found: Found, fresh: bool) -> np.ndarray:
        """Tell which dimensions a smaller step may help: ones outside, and ones whose bars are wide for kinks."""
        crossed = found.crossed > found.roundoff
        avoidable = found.crossed + found.truncation > found.roundoff
        unsettled: np.ndarray = crossed | (self._outside(dims, found) & (fresh | avoidable))
        return unsettled

    def _outside(self, dims: np.ndarray, found: Found) -> np.ndarray:
        outside: np.ndarray = np.abs(self._analytic[dims] - found.numeric) > found.bar + self._gradient[dims]
        return outside

    def _noise(self, dims: np.ndarray) -> np.ndarray:
        """Return the standard deviation of h * n through round-off."""
        node = self._passes.program.nodes[self._node]
        per_channel = len(self._values) // node.columns["channels"]
        noise: np.ndarray = self._channel_noise[dims // per_channel] / math.sqrt(2)
        return noise

    def _scatter(self, seed: int) -> float:
        """Return how much larger the scatter of n is than the model says."""
        rng = np.random.default_rng([seed, len(self._values)])
        dims = np.sort(rng.choice(len(self._values), min(PILOTS, len(self._values)), replace=False))
        found = [self._table(dims, self.step * part) for part in PILOT_STEPS]
        moves = np.stack([table[:, network.NUMERIC] / (2 * part) for table, part in zip(found, PILOT_STEPS, strict=True)])
        kinked = np.stack([table[:, network.KINKS] for table in found]).any(axis=0)
        scatter = np.sqrt(np.mean(np.diff(moves, 3, axis=0) ** 2, axis=0) / 20)
        expected = self._noise(dims)
        ratios = np.where(kinked | (expected == 0), 0.0, scatter / np.where(expected > 0, expected, 1.0))
        return max(LEAST_SCATTER, float(ratios.max())) if not kinked.all() else 1.0

    def _automatic(self) -> float:
        """Return a power of two that moves the layer's results by `MOVE` of their size."""
        passes, node = self._passes, self._passes.program.nodes[self._node]
        chunk = passes.chunks[0]
        size = step.rms(lanes(passes, chunk, chunk.cached, self._node))
        factor = 1.0
        if node.kind == "conv" and not self._bias:
            factor = step.rms(lanes(passes, chunk, chunk.cached, node.columns["a"]))
        if size == 0 or factor == 0:
            return MOVE
        return math.ldexp(MOVE, round(math.log2(size / factor)))

    def _table(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return what the kernel finds for dimensions, summed over the data points."""
        total = np.zeros((len(dims), network.FOUND))
        for chunk, layout in zip(self._passes.chunks, self._layouts, strict=True):
            found = np.empty_like(total)
            room = self._room()
            network.difference(
                chunk.net,
                chunk.cached,
                chunk.cotangents,
                chunk.known,
                chunk.targets,
                (room.arena, layout.places, room.spare),
                (self._node, self._bias),
                dims,
                h,
                (chunk.points, chunk.period, layout.lanes, layout.lanes // 2),
                (self._passes.kind, self._case.point.network.margin, self._passes.weight),
                found,
            )
            total += found
        return total

    def _room(self) -> _Room:
        if not hasattr(self._private, "room"):
            arena = max(layout.arena for layout in self._layouts)
            spare = max(layout.spare for layout in self._layouts)
            self._private.room = _Room(_aligned(arena), _aligned(spare))
        room: _Room = self._private.room
        return room


@dataclass
class Found:
    """What one step tells of some dimensions: the numeric value, and parts of its bar."""

    numeric: np.ndarray
    roundoff: np.ndarray
    truncation: np.ndarray
    crossed: np.ndarray
    jump: np.ndarray
    kinks: np.ndarray

    @property
    def bar(self) -> np.ndarray:
        """Bound on what arithmetic explains, the gradient's own rounding left aside."""
        return self.roundoff + self.truncation + self.crossed + self.jump

    def copy(self) -> Found:
        """Return a copy."""
        return Found(*(getattr(self, name).copy() for name in self.__dataclass_fields__))

    def put(self, places: np.ndarray, other: Found) -> None:
        """Replace entries."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[places] = getattr(other, name)

    def take(self, places: np.ndarray, other: Found) -> None:
        """Replace entries by others where those have the narrower bar."""
        better = other.bar < self.bar[places]
        for name in self.__dataclass_fields__:
            getattr(self, name)[places[better]] = getattr(other, name)[better]

    def plus(self, added: tuple[np.ndarray, ...]) -> Found:
        """Add the difference of a penalty: its value, round-off, what crossings change, jumps and kinks."""
        value, roundoff, crossed, jump, kinks = added
        return Found(
            self.numeric + value,
            self.roundoff + roundoff,
            self.truncation,
            self.crossed + crossed,
            self.jump + jump,
            self.kinks + kinks,
        )


class _Layout:
    """Lanes of a chunk, and where rows' results are in a thread's room."""

    def __init__(self, passes: Passes, chunk: Chunk, node: int, entries: int) -> None:
        lowered = passes.program
        per_channel = max(1, entries // lowered.nodes[node].columns["channels"])
        width = sum(count for _, count in program.moved_entries(lowered, node))
        unit = 2 * chunk.period
        wanted = min(CACHE / 8 / width, 2 * chunk.points * per_channel)
        self.lanes = unit * max(1, min(512 // unit, round(wanted / unit)))
        self.copies = self.lanes // 2 // chunk.points
        self.places, self.arena = program.arena(lowered, node, self.lanes)
        self.spare = max(other.entries for other in lowered.nodes) * self.lanes


def work(passes: Passes, name: str) -> int:
    """Return about how many multiply-adds a dimension of a tensor takes, both signs and all data points together."""
    lowered = passes.program
    node, _ = lowered.node_of(name)
    return _work(lowered, node) * 2 * len(passes.point.x)


def _work(lowered: program.Program, first: int) -> int:
    """Count the products of one data point: convolutions of one moved channel, or of all, and a few for other results."""
    total = 0
    moved = {id(node): count for node, count in program.moved_entries(lowered, first)}
    for place, node in enumerate(lowered.nodes):
        if id(node) not in moved:
            continue
        total += 8 * moved[id(node)]
        source = lowered.nodes[node.columns["a"]]
        if node.kind == "conv" and place != first and id(source) in moved:
            share = moved[id(source)] / source.entries
            total += int(share * moved[id(node)] * node.columns["per_group"] * node.columns["taps"])
    return total


def _aligned(size: int) -> np.ndarray:
    """Return an array whose first entry begins a line of the cache."""
    raw = np.zeros(size + 8)
    shift = -raw.ctypes.data // 8 % 8
    return raw[shift : shift + size]
