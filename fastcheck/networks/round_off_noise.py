"""Forward and backward passes with noise in place of rounding: what rounding does to results and to a gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.precision import SMALLEST, UNITS
from fastcheck.networks import flips
from fastcheck.networks.local_errors import SIGNS, LocalErrors, sums_of
from fastcheck.networks.passes import Chunk, Passes, row_of
from fastcheck_kernels import shake

SHAKES = 6
"""Passes with noise."""

AMPLITUDE = 2.0**-40
"""Size of the noise in place of a round-off: far above rounding, and far below what crosses kinks."""


class Shaken(NamedTuple):
    """Standard deviations in units of the round-off of a stored number.

    Attributes
    ----------
    gradient : float64 array
        Of the gradient, as one vector.
    results : list of float64 arrays
        Of the results of all rows, chunk by chunk, laid out as their ``cached``.
    """

    gradient: np.ndarray
    results: list[np.ndarray]


def of(passes: Passes, gradient: np.ndarray, precision: str, seed: int) -> Shaken:
    """Shake a network as arithmetic in some precision does.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    gradient : float64 array
        The reference gradient.
    precision : str
    seed : int
    """
    rng = np.random.default_rng([seed, SHAKES])
    errors = [LocalErrors.of(passes, chunk, precision) for chunk in passes.chunks]
    least = SMALLEST[precision] / UNITS[precision]
    for chunk, found in zip(passes.chunks, errors, strict=True):
        found.results[chunk.cached != 0] += least
        found.cotangents[chunk.cotangents != 0] += least
    moved = np.zeros_like(gradient)
    results = [np.zeros_like(chunk.cached) for chunk in passes.chunks]
    for _ in range(SHAKES):
        noise = _Noise(passes, errors, AMPLITUDE * rng.standard_normal(shake.NUMBERS))
        params = _params(passes, precision, rng)
        shaken = Passes(passes.point, passes.program, params, noise.after)
        moved += (shaken.gradient(noise.before) - gradient) ** 2
        for total, chunk, own in zip(results, passes.chunks, shaken.chunks, strict=True):
            total += (own.cached - chunk.cached) ** 2
    # A rounding is there even where a few passes did not show it.
    sizes = [
        np.maximum(np.sqrt(total / SHAKES) / AMPLITUDE, found.results)
        for total, found in zip(results, errors, strict=True)
    ]
    return Shaken(np.sqrt(moved / SHAKES) / AMPLITUDE, sizes)


def _params(passes: Passes, precision: str, rng: np.random.Generator) -> np.ndarray:
    """Return the parameters with noise, which stands for the rounding of sums of products with them.

    Noise on results alone would be too small where large terms cancel in all of them. In tf32 the operands themselves
    are rounded.
    """
    found = passes.params.copy()
    sums = sums_of(precision)
    for name, place in passes.program.places.items():
        columns = passes.program.nodes[passes.program.node_of(name)[0]].columns
        terms = max(1, columns["per_group"] * columns["taps"]) + 1
        size = math.hypot(sums * math.sqrt(terms), 1.0 if precision == "tf32" else 0.0)
        found[place] *= 1 + AMPLITUDE * size * rng.standard_normal(place.stop - place.start)
    return found


class _Noise:
    """The noise of one pass, which takes no unit to another piece."""

    def __init__(self, passes: Passes, errors: list[LocalErrors], numbers: np.ndarray) -> None:
        self._passes, self._errors, self._numbers = passes, errors, numbers
        nodes = passes.program.nodes
        self._readers = passes.program.readers()
        # Entries that tie must not come apart before they are pooled.
        self._pooled = max((place for place, node in enumerate(nodes) if node.kind == "max_pool"), default=-1)

    def after(self, chunk: Chunk, place: int) -> None:
        """Shake the results of a row, and its normalised input."""
        errors = self._errors[chunk.number]
        kernel = shake.by_value if place < self._pooled else shake.by_value_and_place
        self._add(kernel, chunk, chunk.cached, errors.results, place)
        if place in errors.shared_results:
            row_of(self._passes, chunk, chunk.cached, place)[:] += self._shared(errors.shared_results[place], place, 1)
        if "norm" in self._passes.program.nodes[place].kind:
            self._add(shake.by_value_and_place, chunk, chunk.cached, errors.results, place, normalised=True)
        if place in errors.shared_inputs:
            unit = row_of(self._passes, chunk, chunk.cached, place, normalised=True)
            unit[:] += self._shared(errors.shared_inputs[place], place, 2)
        self._hold(chunk, place)

    def before(self, chunk: Chunk, place: int) -> None:
        """Shake the cotangents of a row's results."""
        errors = self._errors[chunk.number]
        self._add(shake.by_value_and_place, chunk, chunk.cotangents, errors.cotangents, place)
        if place in errors.shared_cotangents:
            v = row_of(self._passes, chunk, chunk.cotangents, place)
            v[:] += self._shared(errors.shared_cotangents[place], place, 3)

    def _hold(self, chunk: Chunk, place: int) -> None:
        """Put results back that noise took across a kink: what happens there is not in proportion to the noise."""
        still = self._passes.chunks[chunk.number].cached
        z, known = (row_of(self._passes, chunk, array, place) for array in (chunk.cached, still))
        if place == len(self._readers) - 1 and self._passes.point.network.loss == "multiclass_hinge":
            torn = (flips.terms(self._passes, chunk, z) > 0) != (flips.terms(self._passes, chunk, known) > 0)
            z[:, :, torn.any(axis=0)] = known[:, :, torn.any(axis=0)]
        for reader in self._readers[place]:
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
        self, kernel: Any, chunk: Chunk, values: np.ndarray, sizes: np.ndarray, place: int, normalised: bool = False
    ) -> None:
        flat, own = (row_of(self._passes, chunk, array, place, normalised).reshape(-1) for array in (values, sizes))
        kernel(flat, flat.view(np.int64), own, self._numbers)

    def _shared(self, sizes: np.ndarray, place: int, kind: int) -> np.ndarray:
        """Return the same noise for all entries of a group."""
        numbers = self._numbers[(np.arange(sizes.size) * 7919 + 31 * place + kind) % shake.NUMBERS]
        found: np.ndarray = sizes * numbers.reshape(sizes.shape)
        return found


def _other_winners(z: np.ndarray, known: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Mark the maps in which a pooling window has another winner."""
    winners = [
        np.where(lookup[None, :, :, None] >= 0, values[:, lookup], -np.inf).argmax(axis=1) for values in (z, known)
    ]
    other = (winners[0] != winners[1]).any(axis=1)
    found: np.ndarray = np.broadcast_to(other[:, None], z.shape)
    return found
