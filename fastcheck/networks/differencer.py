"""Differences of one tensor of a network with a single step: numeric values, their round-off and their kinks."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fastcheck.common.precision import U
from fastcheck.engine import magnitudes, steps
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.differenced import DifferencedBlock
from fastcheck.networks.error_bars import SAFETY, Baseline
from fastcheck.networks.full import Full
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.networks.passes import Passes, lanes
from fastcheck.networks.penalty import difference as penalty_difference
from fastcheck_kernels import columns

MOVE = 2.0**-17
"""Perturbation of a layer's results by the automatic step, relative to their root mean square: rounding and truncation
are about equal there, and few units cross a kink."""

MOST_EXPONENT = 200
"""Automatic steps are `MOVE` times 2^-200 to 2^200: the perturbations are squared."""

LEAST_EXPONENT = -16
"""Automatic steps are at least `MOVE` times 2^-16 of the tensor's largest entry."""

KINK_SAFETY = 1.25
"""Factor on what crossings can change, which is computed to first order."""

PILOTS = 8
"""Dimensions of a tensor whose scatter is measured."""

PILOT_STEPS = 8
"""Steps for that measurement: random ones, since evenly spaced steps repeat the same roundings."""

PILOT_REACH = (0.06, 0.1)
"""Range of these steps, relative to the automatic step: few units cross a kink there."""

LEAST_SCATTER = 1 / 4
"""Smallest factor on the model's round-off that pilots may set: with a sixteenth, 6 of 25 correct gradients of relu
networks with 20 layers failed."""

STRONG = 1e-3
"""Pilots whose expected noise is below this fraction of the largest show nothing about other channels."""


class TensorDifferencer:
    """Differences one tensor of a network with any one step.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    tables : PartialEvaluation or Full
        Evaluates perturbed losses.
    name : str
        The tensor.
    step : float or "auto"
    seed : int
        Random seed for the pilots.

    Attributes
    ----------
    step : float
        As given, or the automatic step.

    Raises
    ------
    FastcheckError
        If the step is lost in the tensor's largest entry, or overflows with it.
    """

    def __init__(
        self,
        case: NetworkCase,
        baseline: Baseline,
        tables: PartialEvaluation | Full,
        name: str,
        step: float | Literal["auto"],
        seed: int,
    ) -> None:
        self._case, self._baseline, self._tables, self._name = case, baseline, tables, name
        self._passes = baseline.passes
        self._values = case.point.params[name].reshape(-1)
        self.step = automatic(self._passes, name) if step == "auto" else float(step)
        steps.refuse_unusable(self.step, self._values, name)
        rows = self._passes.program.nodes_of(name)
        node = self._passes.program.nodes[rows[0]]
        self._per_channel = max(1, len(self._values) // node.columns["channels"])
        coherent, noise = [baseline.roundoff.coherent(row) for row in rows], baseline.roundoff.of(rows[0])
        if node.is_one_slope:  # it moves all channels at once
            coherent = [bounds.sum(keepdims=True) for bounds in coherent]
            noise = np.sqrt((noise * noise).sum(keepdims=True))
        self._coherent = np.sum(coherent, axis=0)
        self._channel_noise = np.hypot(noise, tables.noise)
        self._channel_noise = baseline.cached(("scatter", name, tables.kind, seed), lambda: self._measured(seed))

    def with_step(self, dims: np.ndarray, h: float) -> DifferencedBlock:
        """Difference dimensions with one step; their truncation is not known from that, and left at 0."""
        table = self._table(dims, h)
        right, left = table[:, columns.RIGHT] / h, table[:, columns.LEFT] / h
        at_point = table[:, columns.HERE] > 0
        # At a kink in the point itself, any slope between the loss's one-sided ones is a subgradient.
        jump = np.where(at_point, np.abs(right - left) / 2, 0.0)
        crossed = KINK_SAFETY * np.maximum(table[:, columns.WIDENING] - table[:, columns.JUMP], 0.0) / (2 * h)
        numeric = table[:, columns.NUMERIC] / (2 * h)
        noise = SAFETY * self._noise(dims) + self._coherent[self._channels(dims)]
        # Each one-sided slope has the whole round-off, over half of the distance.
        roundoff = noise * np.where(at_point, 2.0, 1.0) / h + 4 * U * np.abs(numeric)
        kinks = table[:, columns.KINKS].astype(np.int64)
        data = DifferencedBlock(numeric, roundoff, np.zeros(len(dims)), crossed, jump, kinks, right, left, at_point)
        penalty = self._case.penalties.get(self._name)
        return data if penalty is None else data.plus(penalty_difference(penalty, self._values[dims], h))

    def _table(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the kernel's results for dimensions, from an earlier phase where that had the same ones."""
        if not self._baseline.remembering or h != self.step or not len(dims):
            return self._tables(dims, h)
        key = (self._name, self._tables.kind, h, dims.tobytes())
        return self._baseline.cached(key, lambda: self._tables(dims, h))

    def _noise(self, dims: np.ndarray) -> np.ndarray:
        """Return the standard deviation of h * n that comes from round-off."""
        return self._channel_noise[self._channels(dims)] / math.sqrt(2)

    def _channels(self, dims: np.ndarray) -> np.ndarray:
        """Return the channels that dimensions perturb."""
        return self._passes.program.tensors[self._name].places(dims) // self._per_channel

    def _measured(self, seed: int) -> np.ndarray:
        """Return the model's noise of every channel, scaled by the measured scatter of pilots.

        The model alone would have to assume the worst of every sum, and a measurement alone would miss a channel of
        another scale. So the pilot that exceeds the model most scales all channels, while a pilot with little expected
        noise raises its own channel alone.
        """
        rng = np.random.default_rng([seed, len(self._values)])
        dims = np.sort(rng.choice(len(self._values), min(PILOTS, len(self._values)), replace=False))
        # h * n scatters alike for every h.
        pilot_steps = automatic(self._passes, self._name) * rng.uniform(*PILOT_REACH, PILOT_STEPS)
        tables = [self._tables(dims, h) for h in pilot_steps.tolist()]
        numeric = np.stack([table[:, columns.NUMERIC] / (2 * h) for table, h in zip(tables, pilot_steps, strict=True)])
        kinked = np.stack([table[:, columns.KINKS] for table in tables]).any(axis=0)
        # A fit of a + b h^2 removes the value and its truncation; the rest is scatter.
        smooth = np.stack([np.ones(PILOT_STEPS), (pilot_steps / pilot_steps.mean()) ** 2], axis=1)
        rest = numeric - smooth @ np.linalg.lstsq(smooth, numeric, rcond=None)[0]
        scatter = pilot_steps.mean() * np.sqrt((rest**2).sum(axis=0) / (PILOT_STEPS - 2))
        expected, model = self._noise(dims), self._channel_noise
        clean = ~kinked & (expected > 0)
        strong = clean & (expected > STRONG * expected.max())
        factor = max(LEAST_SCATTER, float((scatter[strong] / expected[strong]).max(initial=0.0)))
        noise: np.ndarray = model * (factor if not kinked.all() else 1.0)
        weak = np.flatnonzero(~kinked & ~strong)
        np.maximum.at(noise, self._channels(dims[weak]), scatter[weak] * math.sqrt(2))
        return noise


def automatic(passes: Passes, name: str) -> float:
    """Return the automatic step: a power of two that perturbs a layer's results by about `MOVE` of their size.

    Of several layers that share the tensor, the one that it perturbs most decides.
    """
    bias = name.endswith(".bias")
    exponents = [found for row in passes.program.nodes_of(name) if (found := _exponent(passes, row, bias)) is not None]
    if not exponents:
        return MOVE
    # Large enough to change every entry by many roundings, even where results are as good as zero.
    largest = float(np.abs(passes.point.params[name]).max(initial=0.0))
    least = math.frexp(largest)[1] + LEAST_EXPONENT if largest else -MOST_EXPONENT
    return math.ldexp(MOVE, steps.within(max(min(exponents), least), MOST_EXPONENT))


def _exponent(passes: Passes, row: int, bias: bool) -> int | None:
    """Return the power of two that moves a row's results by their size; None where there is nothing to compare."""
    node, chunk = passes.program.nodes[row], passes.chunks[0]
    size, factor = magnitudes.rms(lanes(passes, chunk, chunk.cached, row)), 1.0
    if node.kind in ("conv", "prelu") and not bias:
        factor = magnitudes.rms(lanes(passes, chunk, chunk.cached, node.columns["a"]))
    if size == 0 or factor == 0:
        return None
    return round(math.log2(size) - math.log2(factor))
