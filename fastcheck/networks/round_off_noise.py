"""Forward and backward passes with noise in place of rounding: its effect on results and on a gradient.

This is Monte Carlo arithmetic. To first order the effect is linear in the local errors, so that noise of their size,
scaled far above float64's own rounding, shows it without any formula for how errors travel through a network: forward,
back, and along paths that cancel. The noise must do what rounding does, and no more:

- Equal numbers are rounded alike, so noise before a pooling row follows from a number's value: ties stay ties.
- Errors that a normalisation's group shares get one number for the whole group.
- No unit may cross its kink, where the effect is not proportional to the noise (`_Noise._hold`); units whose own
  rounding is that large are flipped instead (`fastcheck.networks.flips`).

tests/networks/test_error_bars.py checks deep networks and half precision (test_deep_relu_networks_are_right,
test_half_precision_through_a_network); bench/network_false_alarms.py searches thousands of networks.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.precision import SMALLEST, UNITS
from fastcheck.networks import flips
from fastcheck.networks.local_errors import SIGNS, LocalErrors, sums_of
from fastcheck.networks.passes import Chunk, Passes, row_of
from fastcheck_kernels import shake

PASSES = 6
"""Number of passes with noise."""

AMPLITUDE = 2.0**-40
"""Noise in place of one round-off: far above float64's rounding, and far below what crosses kinks."""


class Deviations(NamedTuple):
    """Standard deviations, in units of the round-off of a stored number.

    Attributes
    ----------
    gradient : float64 array
        Deviations of the gradient, as one vector.
    results : list of float64 arrays
        Deviations of the results of all rows, chunk by chunk, laid out as their ``cached``.
    """

    gradient: np.ndarray
    results: list[np.ndarray]


class Flipped(NamedTuple):
    """Passes with units on their other piece.

    Attributes
    ----------
    passes : Passes
        `fastcheck.networks.flips.all_flipped`, after a backward pass.
    results : list of float64 arrays
        Deviations of the results of the passes at the point itself.
    """

    passes: Passes
    results: list[np.ndarray]


def of(
    passes: Passes, gradient: np.ndarray, precision: str, seed: int, *, flipped: Flipped | None = None
) -> Deviations:
    """Return the deviations that arithmetic in some precision causes in a network.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    gradient : float64 array
        The gradient of that backward pass, or of the flipped one.
    precision : str
    seed : int
    flipped : Flipped, optional
        Passes whose gradient's deviations are wanted instead.
    """
    rng = np.random.default_rng([seed, PASSES])
    backward = passes if flipped is None else flipped.passes
    errors = [LocalErrors.of(backward, chunk, precision) for chunk in backward.chunks]
    if flipped is not None:
        _add_to_flipped(passes, flipped, errors)
    least = SMALLEST[precision] / UNITS[precision]
    for chunk, own in zip(backward.chunks, errors, strict=True):
        own.results[chunk.cached != 0] += least
        own.cotangents[chunk.cotangents != 0] += least
    squares = np.zeros_like(gradient)
    results = [np.zeros_like(chunk.cached) for chunk in passes.chunks]
    for _ in range(PASSES):
        noise = _Noise(passes, errors, AMPLITUDE * rng.standard_normal(shake.NUMBERS))
        params = _params(passes, precision, rng)
        noisy = Passes(passes.point, passes.program, params, noise.after)
        if flipped is not None:
            _flip(passes, flipped.passes, noisy)
        squares += (noisy.gradient(noise.before) - gradient) ** 2
        for total, chunk, noisy_chunk in zip(results, passes.chunks, noisy.chunks, strict=True):
            total += (noisy_chunk.cached - chunk.cached) ** 2
    # A result is rounded at least once, even where a few passes do not show it.
    deviations = [
        np.maximum(np.sqrt(total / PASSES) / AMPLITUDE, own.results) for total, own in zip(results, errors, strict=True)
    ]
    return Deviations(np.sqrt(squares / PASSES) / AMPLITUDE, deviations)


def _add_to_flipped(passes: Passes, flipped: Flipped, errors: list[LocalErrors]) -> None:
    """Add, to the errors of activations on their other piece, those of their inputs, which the own piece cuts."""
    chunks = zip(passes.chunks, flipped.passes.chunks, strict=True)
    for (still, other), deviations, own in zip(chunks, flipped.results, errors, strict=True):
        for row, node in enumerate(passes.program.nodes):
            if node.kind in SIGNS:
                arrays = (still.cached, other.cached, deviations)
                z, nudged, size = (row_of(passes, still, array, node.columns["a"]) for array in arrays)
                row_of(passes, still, own.results, row)[z != nudged] += size[z != nudged]


def _flip(passes: Passes, flipped: Passes, noisy: Passes) -> None:
    """Take units of noisy passes to their other piece. Rows with any are without noise, which could take them back."""
    for still, other, chunk in zip(passes.chunks, flipped.chunks, noisy.chunks, strict=True):
        for row in range(len(passes.program.nodes)):
            known, nudged, own = (row_of(passes, chunk, array.cached, row) for array in (still, other, chunk))
            if (known != nudged).any():
                own[:] = nudged
        if passes.point.network.loss == "multiclass_hinge":
            noisy.score(chunk, passes.point.network.margin)


def _params(passes: Passes, precision: str, rng: np.random.Generator) -> np.ndarray:
    """Return the parameters with noise, which stands for the rounding of sums of products with them.

    Noise on results alone would be too small where large terms cancel in all of them. In tf32 the operands themselves
    are rounded.
    """
    noisy = passes.params.copy()
    sums = sums_of(precision)
    for name, tensor in passes.program.tensors.items():
        node = passes.program.nodes[passes.program.node_of(name)[0]]
        if node.kind == "embedding":  # no product, and nothing to round
            continue
        columns = node.columns
        terms = max(1, columns["per_group"] * columns["taps"]) + 1
        size = math.hypot(sums * math.sqrt(terms), 1.0 if precision == "tf32" else 0.0)
        for copy in tensor.copies:
            noisy[copy] *= 1 + AMPLITUDE * size * rng.standard_normal(tensor.size)
    return noisy


class _Noise:
    """The noise of one pass, which takes no unit to another piece."""

    def __init__(self, passes: Passes, errors: list[LocalErrors], numbers: np.ndarray) -> None:
        self._passes, self._errors, self._numbers = passes, errors, numbers
        nodes = passes.program.nodes
        self._readers = passes.program.readers()
        # Entries that tie must not come apart before they are pooled.
        self._pooled = max((row for row, node in enumerate(nodes) if node.kind == "max_pool"), default=-1)

    def after(self, chunk: Chunk, row: int) -> None:
        """Add noise to the results of a row, and to its normalised input."""
        errors = self._errors[chunk.number]
        kernel = shake.by_value if row < self._pooled else shake.by_value_and_place
        self._add(kernel, chunk, chunk.cached, errors.results, row)
        if row in errors.shared_results:
            row_of(self._passes, chunk, chunk.cached, row)[:] += self._shared(errors.shared_results[row], row, 1)
        if "norm" in self._passes.program.nodes[row].kind:
            self._add(shake.by_value_and_place, chunk, chunk.cached, errors.results, row, normalised=True)
        if row in errors.shared_inputs:
            unit = row_of(self._passes, chunk, chunk.cached, row, normalised=True)
            unit[:] += self._shared(errors.shared_inputs[row], row, 2)
        self._hold(chunk, row)

    def before(self, chunk: Chunk, row: int) -> None:
        """Add noise to the cotangents of a row's results."""
        errors = self._errors[chunk.number]
        self._add(shake.by_value_and_place, chunk, chunk.cotangents, errors.cotangents, row)
        if row in errors.shared_cotangents:
            v = row_of(self._passes, chunk, chunk.cotangents, row)
            v[:] += self._shared(errors.shared_cotangents[row], row, 3)

    def _hold(self, chunk: Chunk, row: int) -> None:
        """Restore results that noise took across a kink, where the effect is not proportional to the noise."""
        still = self._passes.chunks[chunk.number].cached
        z, known = (row_of(self._passes, chunk, array, row) for array in (chunk.cached, still))
        if row == len(self._readers) - 1 and self._passes.point.network.loss == "multiclass_hinge":
            torn = (flips.terms(self._passes, chunk, z) > 0) != (flips.terms(self._passes, chunk, known) > 0)
            z[:, :, torn.any(axis=0)] = known[:, :, torn.any(axis=0)]
        for reader in self._readers[row]:
            node = self._passes.program.nodes[reader]
            if node.kind in SIGNS:
                crossed = (z > 0) != (known > 0)
            elif node.kind == "max_pool":
                assert node.lookup is not None
                crossed = _other_winners(z, known, node.lookup)
            else:
                continue
            z[crossed] = known[crossed]

    def _add(
        self, kernel: Any, chunk: Chunk, values: np.ndarray, sizes: np.ndarray, row: int, normalised: bool = False
    ) -> None:
        flat, own = (row_of(self._passes, chunk, array, row, normalised).reshape(-1) for array in (values, sizes))
        kernel(flat, flat.view(np.int64), own, self._numbers)

    def _shared(self, sizes: np.ndarray, row: int, kind: int) -> np.ndarray:
        """Return the same noise for all entries of a group."""
        numbers = self._numbers[(np.arange(sizes.size) * 7919 + 31 * row + kind) % shake.NUMBERS]
        noise = sizes * numbers.reshape(sizes.shape)
        channels = self._passes.program.nodes[row].columns["channels"]
        return np.repeat(noise, channels // len(noise), axis=0) if len(noise) > 1 else noise


def _other_winners(z: np.ndarray, known: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Return the maps, marked as a whole, in which a pooling window has another winner."""
    winners = [
        np.where(lookup[None, :, :, None] >= 0, values[:, lookup], -np.inf).argmax(axis=1) for values in (z, known)
    ]
    other = (winners[0] != winners[1]).any(axis=1)
    return np.broadcast_to(other[:, None], z.shape)
