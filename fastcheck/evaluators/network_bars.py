"""Error bars of a network's differences and of the gradient that they are compared with.

The differences' round-off is a model, scaled by a measurement. In the model every result of a layer errs by
u * sqrt(K) * max(|z|, rms of its channel), K its terms, and what that changes of the loss is its cotangent times that;
independent errors add up by their squares. A few pilot dimensions, differenced with steps near one another, show how
much n really scatters. A model alone would have to assume the worst of every sum, and a measurement alone would miss a
channel of another scale.

The analytic side has two parts. Its own last sums follow the bounds of a convolution's (`fastcheck.step`). What
rounding in all layers before does to it, forth and back, is seen by adding noise of 2^-40 to the layers' results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.cases.network import NetworkCase
from fastcheck.cases.network_pass import Chunk, Passes
from fastcheck.errors import FastcheckError
from fastcheck.network import Penalty
from fastcheck.step import ACCUMULATOR, SMALLEST, UNITS, Structure, U, rms
from fastcheck_kernels import moments

SAFETY = 6.0
"""Standard deviations of the differences' round-off in a bar."""

SHAKES = 4
"""Passes with noise."""

AMPLITUDE = 2.0**-40
"""Size of the noise: far above rounding, and far below what crosses kinks."""

SHAKEN_SAFETY = 6.0
"""Standard deviations of what noise does to the gradient."""


def roundings(passes: Passes, place: int) -> float:
    """Return about how many roundings, as they add up by their squares, a result of a row has met."""
    node = passes.program.nodes[place]
    terms = {
        "conv": math.sqrt(node.columns["per_group"] * node.columns["taps"] + 1),
        "avg_pool": math.sqrt(1 if node.lookup is None else len(node.lookup)),
        **dict.fromkeys(("batch_norm", "frozen_norm", "layer_norm"), 6.0),
        **dict.fromkeys(("gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "elu"), 3.0),
        **dict.fromkeys(("add", "leaky_relu", "dropout"), 1.0),
    }
    return float(terms.get(node.kind, 0.0))


class RoundOff:
    """What rounding of the layers' results does to the loss, by row and channel: standard deviations.

    Parameters
    ----------
    passes : Passes
        After a backward pass.

    Attributes
    ----------
    loss, evaluated : float
        What evaluating the loss of the outputs adds, and that with all layers before it.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        nodes = passes.program.nodes
        self._own: list[np.ndarray] = [np.zeros(nodes[0].columns["channels"])]
        for place in range(1, len(nodes)):
            self._own.append(sum((_squares(passes, chunk, place) for chunk in passes.chunks), start=np.zeros(1)))
        totals = np.array([squares.sum() for squares in self._own])
        self._after = np.append(np.cumsum(totals[::-1])[::-1][1:], 0.0)
        # exp, log and the sum over classes: some eight roundings of numbers as large as the loss and the outputs.
        sizes = np.concatenate([np.abs(chunk.losses) for chunk in passes.chunks]) + np.abs(passes.outputs()).max(axis=1)
        self.loss = 8 * U * passes.weight * math.sqrt(float(sizes @ sizes))
        self.evaluated = math.hypot(math.sqrt(float(totals.sum())), self.loss)

    def of(self, place: int) -> np.ndarray:
        """Return it for moves of each channel of a row, which all later rows follow."""
        found: np.ndarray = np.sqrt(self._own[place] + self._after[place])
        return found

    def coherent(self, place: int) -> np.ndarray:
        """Bound what adding moves to each channel of a row does, where all of its entries are rounded the same way.

        Inputs of few values, as of images, move many entries by the same: how z + d rounds follows from d and from the
        binade of z alone. A factor of two is for what the next layer, or the loss, makes of it.
        """
        found = np.zeros(self._passes.program.nodes[place].columns["channels"])
        for chunk in self._passes.chunks:
            z, v = (lanes(self._passes, chunk, array, place) for array in (chunk.cached, chunk.cotangents))
            found += 2 * U * np.abs(z * v).sum(axis=(1, 2))
        return found


def _squares(passes: Passes, chunk: Chunk, place: int) -> np.ndarray:
    """Return sums over a channel's entries of the squares of what their rounding does to the loss."""
    node = passes.program.nodes[place]
    z, v = (lanes(passes, chunk, array, place) for array in (chunk.cached, chunk.cotangents))
    typical = np.sqrt((z * z).mean(axis=(1, 2), keepdims=True))
    errors = U * roundings(passes, place) * np.maximum(np.abs(z), typical) * v
    found: np.ndarray = (errors * errors).sum(axis=(1, 2))
    return found[: node.columns["channels"]]


def lanes(passes: Passes, chunk: Chunk, array: np.ndarray, place: int) -> np.ndarray:
    """Return a row's entries in an array laid out as the cache: (channels, pixels, points)."""
    node = passes.program.nodes[place]
    at = passes.program.slots()[0][place] * chunk.period
    shape = (node.columns["channels"], node.columns["pixels"], chunk.period)
    return array[at : at + math.prod(shape)].reshape(shape)[:, :, : chunk.points]


LARGEST = 2.0**200
"""Values beyond it have error bars, made of squares of products, that may overflow."""


def refuse_what_overflows(passes: Passes) -> None:
    """Check that error bars can be computed, after a backward pass.

    Raises
    ------
    FastcheckError
        If a parameter, a result or a cotangent is too large.
    """

    def check(what: str, array: np.ndarray) -> None:
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= LARGEST:
            raise FastcheckError(
                f"{what} reach {largest:.3g}: expected at most {LARGEST:.3g}, beyond which error bars overflow; "
                "scale params, x or y down"
            )

    for name, array in passes.point.params.items():
        check(f"entries of {name}", array)
    check("entries of x", passes.point.x)
    for chunk in passes.chunks:
        for place in range(1, len(passes.program.nodes)):
            name = passes.program.layer_name(place)
            check(f"results of layer {name!r}", lanes(passes, chunk, chunk.cached, place))
            check(f"cotangents of layer {name!r}", lanes(passes, chunk, chunk.cotangents, place))


class GradientRounding:
    """What rounding may have done to the analytic gradient of every tensor.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    gradient : float64 array
        The reference gradient.
    seed : int
        Of the noise.
    """

    def __init__(self, passes: Passes, gradient: np.ndarray, seed: int) -> None:
        self._passes, self._gradient = passes, gradient
        rng = np.random.default_rng([seed, SHAKES])
        amplitudes = AMPLITUDE * _amplitudes(passes)
        amplitudes[-1] = max(amplitudes[-1], AMPLITUDE)
        noise = [rng.standard_normal(8191) for _ in range(SHAKES)]
        moved = [passes.shaken(amplitudes, _shaken_params(passes, rng), numbers) - gradient for numbers in noise]
        self._shaken = np.sqrt(sum((move * move for move in moved), start=np.zeros(1)) / SHAKES) / AMPLITUDE

    def moments(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return T1, T2 and the number of terms of a tensor's entries."""
        passes = self._passes
        out = np.zeros((passes.point.params[name].size, 3))
        for chunk in passes.chunks:
            node, bias = passes.program.node_of(name)
            moments.moments(chunk.net, (node, bias), chunk.cached, chunk.cotangents, chunk.points, chunk.period, out)
        return out[:, 0], np.sqrt(out[:, 1]), out[:, 2]

    def of(self, case: NetworkCase, name: str, terms: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the bars of a tensor's gradient."""
        precision, given = case.precision_of(name), case.grads[name].reshape(-1)
        stored = given.dtype.name
        place = self._passes.program.places[name]
        shaken, size = self._shaken[place], np.abs(self._gradient[place])
        own = self._sums(name, terms, size, ACCUMULATOR[precision])
        total = float(terms[1] @ terms[1])
        typical = math.sqrt(float(shaken @ shaken) / total) if total else 0.0
        before = SHAKEN_SAFETY * UNITS[precision] * (shaken + typical * terms[1])
        penalty = case.penalties.get(name) or case.removed.get(name, Penalty())
        values = np.abs(case.point.params[name].reshape(-1))
        added = (abs(penalty.l2) * values + abs(penalty.l1)) * (3 * ACCUMULATOR[precision] + 2 * UNITS[stored])
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.nan_to_num(np.abs(given.astype(np.float64)), posinf=0.0)
        found: np.ndarray = own + before + added + 2 * UNITS[stored] * sizes + SMALLEST[stored]
        return found

    def _sums(
        self, name: str, terms: tuple[np.ndarray, np.ndarray, np.ndarray], size: np.ndarray, u: float
    ) -> np.ndarray:
        """Bound the rounding of the last sums, by the law that `fastcheck.step` has for a convolution's."""
        first, second, count = terms
        worst: np.ndarray = count * first * u
        if u == U:  # which is small beside the differences' own, and needs no finer bound
            return worst
        with np.errstate(divide="ignore", invalid="ignore"):
            skew = np.nan_to_num(np.sqrt(count) * second / first, posinf=1.0)
        drift = 0.5 if self._alike(name) else np.minimum(0.5, 8 * count * u * np.maximum(1.0, skew))
        likely = (np.sqrt(count) * (1.75 * (second + size) + 0.75 * first) + drift * count * first) * u
        found: np.ndarray = np.minimum(worst, likely)
        return found

    def _alike(self, name: str) -> bool:
        """Tell whether magnitudes repeat so often that roundings add up instead of cancel."""
        passes = self._passes
        node, bias = passes.program.node_of(name)
        source = passes.program.nodes[node].columns["a"]
        chunk = passes.chunks[0]
        v = Structure.of(np.ascontiguousarray(lanes(passes, chunk, chunk.cotangents, node)[0]), 0.0)
        x = (
            Structure.none()
            if bias
            else Structure.of(np.ascontiguousarray(lanes(passes, chunk, chunk.cached, source)[0]), 0.0)
        )
        count = lanes(passes, chunk, chunk.cached, node)[0].size
        return bool(v.multiplicity * x.multiplicity > 4 * count or max(v.multiplicity, x.multiplicity) >= count / 2)


def _amplitudes(passes: Passes) -> np.ndarray:
    """Return for every row the roundings that its results have met, as a part of their root mean square.

    A gelu's tail is a difference of numbers near one: its rounding goes by its input, and that of its slope by its own
    cotangent.
    """
    nodes = passes.program.nodes
    found = np.array([roundings(passes, place) for place in range(len(nodes))])
    for place, node in enumerate(nodes):
        if node.kind in ("gelu", "gelu_tanh"):
            source = node.columns["a"]
            found[place] *= max(1.0, _larger(passes, "cached", source, place))
            found[source] = max(found[source], _larger(passes, "cotangents", place, source))
    return found


def _larger(passes: Passes, array: str, one: int, other: int) -> float:
    """Return by how much the channels of a row are larger than those of another, at most."""
    sizes = []
    for place in (one, other):
        parts = [(lanes(passes, chunk, getattr(chunk, array), place) ** 2).mean(axis=(1, 2)) for chunk in passes.chunks]
        sizes.append(np.sqrt(np.mean(parts, axis=0)))
    ratios = np.where(sizes[1] > 0, sizes[0] / np.where(sizes[1] > 0, sizes[1], 1.0), 0.0)
    return float(ratios.max())


def _shaken_params(passes: Passes, rng: np.random.Generator) -> np.ndarray:
    """Return the parameters with noise, which stands for the rounding of every product with them.

    Noise on results alone would be too small where large terms cancel in all of them.
    """
    found = passes.params.copy()
    for name, place in passes.program.places.items():
        amplitude = AMPLITUDE * max(1.0, roundings(passes, passes.program.node_of(name)[0]))
        found[place] *= 1 + amplitude * rng.standard_normal(place.stop - place.start)
    return found


@dataclass(frozen=True)
class Ground:
    """What all tensors of a network, and both phases of a check, share.

    Attributes
    ----------
    passes : Passes
    gradient : float64 array
        The reference gradient of the data points' loss.
    roundoff : RoundOff
    rounding : GradientRounding
    remembering : bool
        Whether differences are kept, since a second phase takes the same ones.
    known : dict
        What was found of tensors, by any key.
    """

    passes: Passes
    gradient: np.ndarray
    roundoff: RoundOff
    rounding: GradientRounding
    remembering: bool = False
    known: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, passes: Passes, seed: int, *, phases: int = 1) -> Ground:
        """Run the backward passes of a point."""
        gradient = passes.gradient()
        refuse_what_overflows(passes)
        rounding = GradientRounding(passes, gradient, seed)
        return cls(passes, gradient, RoundOff(passes), rounding, phases > 1)

    def once(self, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return what is known under a key, and find it first where nothing is."""
        if key not in self.known:
            self.known[key] = find()
        return self.known[key]

    def terms(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a tensor's moments: `GradientRounding.moments`."""
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = self.once(
            ("terms", name), lambda: self.rounding.moments(name)
        )
        return found

    def natural_slope(self, name: str) -> float:
        """Return the slope that bars of a tensor without any gradient are measured by.

        The largest change of the loss that moving any tensor's entry by the tensor's size promises, per size of this
        one.
        """
        params = self.passes.point.params
        sizes = {other: rms(array) or 1.0 for other, array in params.items()}
        named = self.passes.named(self.gradient)
        changes = max(float(np.abs(named[other]).max()) * size for other, size in sizes.items())
        return (changes or abs(self.passes.loss())) / sizes[name]
