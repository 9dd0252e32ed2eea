"""Error bars of a network's differences and of the gradient that they are compared with.

The differences' round-off is a model, scaled by a measurement. In the model every result of a layer errs by what
`fastcheck.networks.local_errors` says, and what that changes of the loss is its cotangent times that; independent
errors add up by their squares. A few pilot dimensions, differenced with steps near one another, show how much n really
scatters. A model alone would have to assume the worst of every sum, and a measurement alone would miss a channel of
another scale.

The analytic side has two parts. Its own last sums follow the bounds of a convolution's (`fastcheck.step`). What
rounding in all layers before does to it, forth and back, is seen by adding noise to the layers' results in place of it,
and by turning the units whose piece rounding decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import ACCUMULATOR, RESULT, SMALLEST, UNITS, U
from fastcheck.engine.magnitudes import Structure, rms
from fastcheck.networks import flips as network_flips
from fastcheck.networks import round_off_noise
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.local_errors import LocalErrors
from fastcheck.networks.network import Penalty
from fastcheck.networks.passes import Chunk, Passes, lanes
from fastcheck_kernels import moments

SAFETY = 6.0
"""Standard deviations of the differences' round-off in a bar."""

SHAKEN_SAFETY, NARROW_SAFETY = 5.0, 8.0
"""Standard deviations of what noise does to the gradient; and where results are kept in half precision, where numbers
repeat, and so do their roundings. The largest errors found were 0.4 and 0.8 of such bars."""

DOUBT = 5.0
"""Standard deviations of its rounding up to which a unit may be on the other side of its kink."""

TYPICAL = 0.5
"""An entry's standard deviation, known from a few passes, is taken to be at least about this part of that which entries
with such terms have in the tensor."""


class RoundOff:
    """What rounding of the layers' results does to the loss, by row and channel: standard deviations.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    errors : sequence of LocalErrors
        Those of all chunks, in float64.

    Attributes
    ----------
    loss, evaluated : float
        What evaluating the loss of the outputs adds, and that with all layers before it.
    """

    def __init__(self, passes: Passes, errors: Sequence[LocalErrors]) -> None:
        self._passes = passes
        nodes = passes.program.nodes
        self._own: list[np.ndarray] = [np.zeros(nodes[0].columns["channels"])]
        for place in range(1, len(nodes)):
            pairs = zip(passes.chunks, errors, strict=True)
            self._own.append(sum((_squares(passes, *pair, place) for pair in pairs), start=np.zeros(1)))
        totals = np.array([squares.sum() for squares in self._own])
        self._after = np.append(np.cumsum(totals[::-1])[::-1][1:], 0.0)
        # exp, log and the sum over classes: some eight roundings of numbers as large as the loss and the outputs.
        sizes = np.concatenate([np.abs(chunk.losses) for chunk in passes.chunks]) + np.abs(passes.outputs()).max(axis=1)
        if passes.point.network.loss == "multiclass_hinge":
            sizes += passes.point.network.margin
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


def _squares(passes: Passes, chunk: Chunk, errors: LocalErrors, place: int) -> np.ndarray:
    """Return sums over a channel's entries of the squares of what their rounding does to the loss."""
    v = lanes(passes, chunk, chunk.cotangents, place)
    own = U * lanes(passes, chunk, errors.results, place) * v
    found: np.ndarray = (own * own).sum(axis=(1, 2))
    if place in errors.shared_results:
        shared = errors.shared_results[place]
        shared = U * shared[..., : chunk.points] if shared.shape[2] > 1 else U * shared
        axes = tuple(axis for axis in range(3) if shared.shape[axis] == 1)
        # A group has one error, and counts by the channels that it is of.
        groups = (v * shared).sum(axis=axes, keepdims=True) ** 2
        found = found + (groups.sum(axis=(1, 2)) if shared.shape[0] > 1 else groups.sum() / len(found))
    return found


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
        self._passes, self._gradient, self._seed = passes, gradient, seed
        self._known: dict[str, tuple[np.ndarray, ...]] = {}

    def _before(self, precision: str) -> tuple[np.ndarray, ...]:
        """Return what rounding of all layers does to every entry, in vectors: standard deviations, least and most.

        The latter two are for units whose piece rounding decides.
        """
        if precision not in self._known:
            unit = UNITS[precision]
            shaken = round_off_noise.of(self._passes, self._gradient, precision, self._seed)
            sizes = [DOUBT * unit * own for own in shaken.results]
            flips = network_flips.doubted(self._passes, sizes, self._seed)
            self._known[precision] = unit * shaken.gradient, *flips
        return self._known[precision]

    def moments(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return T1, T2 and the number of terms of a tensor's entries."""
        passes = self._passes
        out = np.zeros((passes.point.params[name].size, 3))
        for chunk in passes.chunks:
            node, bias = passes.program.node_of(name)
            moments.moments(chunk.net, (node, bias), chunk.cached, chunk.cotangents, chunk.points, chunk.period, out)
        return out[:, 0], np.sqrt(out[:, 1]), out[:, 2]

    def deviations(self, precision: str, name: str) -> np.ndarray:
        """Return the standard deviations of what rounding of all layers does to a tensor's gradient."""
        found: np.ndarray = self._before(precision)[0][self._passes.program.places[name]]
        return found

    def flipped(self, case: NetworkCase, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the most that units whose piece rounding decides may add to a tensor's gradient."""
        place = self._passes.program.places[name]
        _, least, most = self._before(case.precision_of(name))
        return least[place], most[place]

    def of(self, case: NetworkCase, name: str, terms: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the bars of a tensor's gradient, what `flipped` says left aside."""
        precision, given = case.precision_of(name), case.grads[name].reshape(-1)
        stored = given.dtype.name
        place = self._passes.program.places[name]
        shaken = self.deviations(precision, name)
        own = self._sums(name, terms, np.abs(self._gradient[place]), ACCUMULATOR[precision])
        nothing = terms[1] <= shaken  # whose terms are rounding: none of them is known better than the others
        shaken = np.where(nothing, np.maximum(shaken, rms(shaken[nothing]) if nothing.any() else 0.0), shaken)
        total = float(terms[1] @ terms[1])
        typical = math.sqrt(float(shaken @ shaken) / total) if total else 0.0
        before = (NARROW_SAFETY if RESULT[precision] else SHAKEN_SAFETY) * np.hypot(
            shaken, TYPICAL * typical * terms[1]
        )
        penalty = case.penalties.get(name) or case.removed.get(name, Penalty())
        values = np.abs(case.point.params[name].reshape(-1))
        result = max(UNITS[stored], RESULT[precision])
        added = (abs(penalty.l2) * values + abs(penalty.l1)) * (3 * max(ACCUMULATOR[precision], result) + 2 * result)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.nan_to_num(np.abs(given.astype(np.float64)), posinf=0.0)
        found: np.ndarray = own + before + added + 2 * result * sizes + SMALLEST[stored]
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


@dataclass(frozen=True)
class Baseline:
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
    def of(cls, passes: Passes, seed: int, *, phases: int = 1) -> Baseline:
        """Run the backward passes of a point."""
        gradient = passes.gradient()
        refuse_what_overflows(passes)
        errors = [LocalErrors.of(passes, chunk, "float64") for chunk in passes.chunks]
        return cls(passes, gradient, RoundOff(passes, errors), GradientRounding(passes, gradient, seed), phases > 1)

    def cached(self, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return what is known under a key, and find it first where nothing is."""
        if key not in self.known:
            self.known[key] = find()
        return self.known[key]

    def choices(self, name: str) -> list[np.ndarray]:
        """Return what automatic differentiation may make of a tensor's gradient where kinks lie at the point itself."""
        place = self.passes.program.places[name]
        every = self.cached(("choices",), lambda: network_flips.choices(self.passes, self.gradient))
        return [choice[place] for choice in every]

    def terms(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a tensor's moments: `GradientRounding.moments`."""
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = self.cached(
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
