"""Error bars of a network's differences, and of the gradient that they are compared with.

The differences' round-off is a model, scaled by a measurement. In the model, every result of a layer has the local
error that `fastcheck.networks.local_errors` gives it; times the result's cotangent, that is its effect on the loss, and
the squares of independent effects add up. A few pilot dimensions, differenced with steps near one another, then show
how much n really scatters (`fastcheck.networks.differencer`). A model alone would have to assume the worst of every
sum, and a measurement alone would miss a channel of another scale.

The analytic side has two parts. Its last sums follow the bounds of a convolution's
(`fastcheck.convolutions.error_bars`). The effect of rounding in all layers before, forward and backward, is measured:
noise is added to the layers' results in place of rounding, and units whose piece rounding decides are flipped.

bench/network_false_alarms.py searches for correct gradients outside these bars and for wrong ones inside them;
tests/networks/test_error_bars.py has the points that were hardest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import ACCUMULATOR, RESULT, SMALLEST, UNITS, U
from fastcheck.engine.magnitudes import Structure, rms
from fastcheck.networks import flips, round_off_noise
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.local_errors import LocalErrors
from fastcheck.networks.network import Penalty
from fastcheck.networks.passes import Chunk, Passes, lanes
from fastcheck_kernels import moments

SAFETY = 6.0
"""Standard deviations of the differences' round-off in a bar."""

NOISE_SAFETY, NARROW_SAFETY = 5.0, 8.0
"""Standard deviations of the noise's effect on the gradient in a bar; the second where results are stored in half
precision, where numbers repeat, and so do their roundings. The largest errors found were 0.4 and 0.8 of such bars."""

DOUBT = 5.0
"""Standard deviations of its rounding within which a unit may be on the other side of its kink."""

TYPICAL = 0.5
"""An entry's standard deviation, known from a few passes, is assumed to be at least this fraction of the typical one of
entries with terms of the same size."""


Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""T1, T2 and the number of terms of each of a tensor's entries."""


class RoundOff:
    """The effect on the loss of rounding the layers' results, by row and channel: standard deviations.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    errors : sequence of LocalErrors
        Local errors of all chunks, in float64.

    Attributes
    ----------
    loss, evaluated : float
        The rounding of the loss as computed from the outputs, and that together with all layers before it.
    """

    def __init__(self, passes: Passes, errors: Sequence[LocalErrors]) -> None:
        self._passes = passes
        nodes = passes.program.nodes
        self._own: list[np.ndarray] = [np.zeros(nodes[0].columns["channels"])]
        for row in range(1, len(nodes)):
            pairs = zip(passes.chunks, errors, strict=True)
            self._own.append(sum((_squares(passes, *pair, row) for pair in pairs), start=np.zeros(1)))
        totals = np.array([squares.sum() for squares in self._own])
        self._after = np.append(np.cumsum(totals[::-1])[::-1][1:], 0.0)
        # exp, log and the sum over classes: about eight roundings of numbers as large as the loss and the outputs.
        sizes = np.concatenate([np.abs(chunk.losses) for chunk in passes.chunks]) + np.abs(passes.outputs()).max(axis=1)
        if passes.point.network.loss == "multiclass_hinge":
            sizes += passes.point.network.margin
        self.loss = 8 * U * passes.weight * math.sqrt(float(sizes @ sizes))
        self.evaluated = math.hypot(math.sqrt(float(totals.sum())), self.loss)

    def of(self, row: int) -> np.ndarray:
        """Return the standard deviations for perturbing each channel of a row, which changes all later rows."""
        return np.sqrt(self._own[row] + self._after[row])

    def coherent(self, row: int) -> np.ndarray:
        """Bound the rounding of z + d in each channel of a row, where all entries are rounded in the same direction.

        Inputs with few different values, such as images, perturb many entries by the same d. The rounding of z + d then
        follows from d and from the binade of z alone. The factor of two is for the next layer, or for the loss.
        """
        bounds = np.zeros(self._passes.program.nodes[row].columns["channels"])
        for chunk in self._passes.chunks:
            z, v = (lanes(self._passes, chunk, array, row) for array in (chunk.cached, chunk.cotangents))
            bounds += 2 * U * np.abs(z * v).sum(axis=(1, 2))
        return bounds


def _squares(passes: Passes, chunk: Chunk, errors: LocalErrors, row: int) -> np.ndarray:
    """Return, for each channel, the sum over its entries of the squares of their rounding's effect on the loss."""
    v = lanes(passes, chunk, chunk.cotangents, row)
    own = U * lanes(passes, chunk, errors.results, row) * v
    squares: np.ndarray = (own * own).sum(axis=(1, 2))
    if row in errors.shared_results:
        shared = errors.shared_results[row]
        shared = U * shared[..., : chunk.points] if shared.shape[2] > 1 else U * shared
        axes = tuple(axis for axis in range(3) if shared.shape[axis] == 1)
        # A group has one error: its entries' effects add up before they are squared, and its channels share the square.
        groups = (v * shared).sum(axis=axes, keepdims=True) ** 2
        squares = squares + (groups.sum(axis=(1, 2)) if shared.shape[0] > 1 else groups.sum() / len(squares))
    return squares


LARGEST = 2.0**200
"""Largest value for which error bars, which are made of squares of products, cannot overflow."""


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
        for row in range(1, len(passes.program.nodes)):
            name = passes.program.layer_name(row)
            check(f"results of layer {name!r}", lanes(passes, chunk, chunk.cached, row))
            check(f"cotangents of layer {name!r}", lanes(passes, chunk, chunk.cotangents, row))


@dataclass
class _Side:
    """The backward pass with units on one piece, and the rounding of its gradient.

    Attributes
    ----------
    passes : Passes
        After a backward pass.
    gradient, deviations : float64 arrays
        Its gradient, and the standard deviations that rounding in all layers causes in it, as vectors.
    """

    passes: Passes
    gradient: np.ndarray
    deviations: np.ndarray

    def moments(self, name: str) -> Moments:
        """Return T1, T2 and the number of terms of each of a tensor's entries."""
        passes = self.passes
        out = np.zeros((passes.point.params[name].size, 3))
        bias = name.endswith(".bias")
        for chunk, node in itertools.product(passes.chunks, passes.program.nodes_of(name)):
            moments.moments(chunk.net, (node, bias), chunk.cached, chunk.cotangents, chunk.points, chunk.period, out)
        out = passes.program.tensors[name].sorted(out)
        return out[:, 0], np.sqrt(out[:, 1]), out[:, 2]


@dataclass
class _Known:
    """What is known of one precision's arithmetic: its sides, and the effects of units whose piece rounding decides."""

    sides: list[_Side]
    least: np.ndarray
    most: np.ndarray


class GradientRounding:
    """Bounds on the rounding of every tensor's analytic gradient.

    Parameters
    ----------
    passes : Passes
        After a backward pass.
    gradient : float64 array
        The reference gradient.
    seed : int
        Random seed for the noise.
    """

    def __init__(self, passes: Passes, gradient: np.ndarray, seed: int) -> None:
        self._passes, self._gradient, self._seed = passes, gradient, seed
        self._known: dict[str, _Known] = {}

    def _before(self, precision: str) -> _Known:
        """Return the effects of rounding in all layers on the gradient."""
        if precision not in self._known:
            unit = UNITS[precision]
            deviations = round_off_noise.of(self._passes, self._gradient, precision, self._seed)
            sizes = [DOUBT * unit * own for own in deviations.results]
            least, most = flips.doubted(self._passes, sizes, self._seed)
            sides = [_Side(self._passes, self._gradient, unit * deviations.gradient)]
            flipped = flips.all_flipped(self._passes, sizes)
            if flipped is not None:
                gradient = flipped.gradient()
                both = round_off_noise.Flipped(flipped, deviations.results)
                other = round_off_noise.of(self._passes, gradient, precision, self._seed, flipped=both)
                sides.append(_Side(flipped, gradient, unit * other.gradient))
            self._known[precision] = _Known(sides, least, most)
        return self._known[precision]

    def moments(self, name: str) -> Moments:
        """Return T1, T2 and the number of terms of each of a tensor's entries."""
        return _Side(self._passes, self._gradient, np.empty(0)).moments(name)

    def deviations(self, precision: str, name: str) -> np.ndarray:
        """Return the standard deviations of a tensor's gradient that come from rounding in all layers."""
        return self._passes.program.tensors[name].of(self._before(precision).sides[0].deviations)

    def flipped(self, case: NetworkCase, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the most that units whose piece rounding decides may add to a tensor's gradient."""
        tensor, known = self._passes.program.tensors[name], self._before(case.precision_of(name))
        return tensor.of(known.least), tensor.of(known.most)

    def of(self, case: NetworkCase, name: str, terms: Moments) -> np.ndarray:
        """Return the error bars of a tensor's gradient, without the effect of units that `flipped` gives."""
        precision, given = case.precision_of(name), case.grads[name].reshape(-1)
        stored = "bfloat16" if name in case.bfloat16 else given.dtype.name
        first, *others = self._before(precision).sides
        # A unit on its other piece has cotangents of its own, which are rounded too.
        rounding = self._of_side(first, precision, name, terms)
        for side in others:
            rounding = np.maximum(rounding, self._of_side(side, precision, name, side.moments(name)))
        penalty = case.penalties.get(name) or case.removed.get(name, Penalty())
        values = np.abs(case.point.params[name].reshape(-1))
        result = max(UNITS[stored], RESULT[precision])
        # The penalty's own sum: three roundings where it is accumulated, two where it is stored.
        added = (abs(penalty.l2) * values + abs(penalty.l1)) * (3 * max(ACCUMULATOR[precision], result) + 2 * result)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.nan_to_num(np.abs(given.astype(np.float64)), posinf=0.0)
        return rounding + added + 2 * result * sizes + SMALLEST[stored]

    def _of_side(self, side: _Side, precision: str, name: str, terms: Moments) -> np.ndarray:
        """Bound the rounding of a tensor's gradient: of its last sums, and in all layers before them."""
        tensor = self._passes.program.tensors[name]
        noise = tensor.of(side.deviations)
        own = self._sums(name, terms, np.abs(tensor.of(side.gradient)), ACCUMULATOR[precision])
        nothing = terms[1] <= noise  # entries whose terms are rounding: none is known better than the others
        noise = np.where(nothing, np.maximum(noise, rms(noise[nothing]) if nothing.any() else 0.0), noise)
        total = float(terms[1] @ terms[1])
        typical = math.sqrt(float(noise @ noise) / total) if total else 0.0
        safety = NARROW_SAFETY if RESULT[precision] else NOISE_SAFETY
        return own + safety * np.hypot(noise, TYPICAL * typical * terms[1])

    def _sums(self, name: str, terms: Moments, size: np.ndarray, u: float) -> np.ndarray:
        """Bound the rounding of the last sums, by the law for a convolution's (`fastcheck.convolutions.error_bars`).

        In terms of T1, T2, the number of terms and the size of the sum: the square-root law where roundings cancel,
        plus the linear worst case in the measure (``drift``) that the data keep them from it; never beyond that case.
        """
        first, second, count = terms
        worst: np.ndarray = count * first * u
        if u == U:  # small beside the differences' own rounding, and in no need of a finer bound
            return worst
        with np.errstate(divide="ignore", invalid="ignore"):
            skew = np.nan_to_num(np.sqrt(count) * second / first, posinf=1.0)
        drift = 0.5 if self._alike(name) else np.minimum(0.5, 8 * count * u * np.maximum(1.0, skew))
        likely = (np.sqrt(count) * (1.75 * (second + size) + 0.75 * first) + drift * count * first) * u
        return np.minimum(worst, likely)

    def _alike(self, name: str) -> bool:
        """Return whether magnitudes repeat so often that roundings add up instead of cancelling, in any use."""
        bias = name.endswith(".bias")
        return any(self._alike_in(row, bias) for row in self._passes.program.nodes_of(name))

    def _alike_in(self, row: int, bias: bool) -> bool:
        passes, chunk = self._passes, self._passes.chunks[0]
        source = passes.program.nodes[row].columns["a"]
        v = Structure.of(np.ascontiguousarray(lanes(passes, chunk, chunk.cotangents, row)[0]), 0.0)
        x = (
            Structure.none()
            if bias or passes.program.nodes[row].kind == "embedding"
            else Structure.of(np.ascontiguousarray(lanes(passes, chunk, chunk.cached, source)[0]), 0.0)
        )
        count = lanes(passes, chunk, chunk.cached, row)[0].size
        return bool(v.multiplicity * x.multiplicity > 4 * count or max(v.multiplicity, x.multiplicity) >= count / 2)


@dataclass(frozen=True)
class Baseline:
    """The unperturbed network, shared by all tensors and by both phases of a check.

    Attributes
    ----------
    passes : Passes
    gradient : float64 array
        The reference gradient of the data points' loss.
    roundoff : RoundOff
    rounding : GradientRounding
    remembering : bool
        Whether differences are kept for a second phase, which needs the same ones.
    known : dict
        Cached results, by any key.
    """

    passes: Passes
    gradient: np.ndarray
    roundoff: RoundOff
    rounding: GradientRounding
    remembering: bool = False
    known: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, passes: Passes, seed: int, *, phases: int = 1) -> Baseline:
        """Run the backward passes, and prepare the error bars."""
        gradient = passes.gradient()
        refuse_what_overflows(passes)
        errors = [LocalErrors.of(passes, chunk, "float64") for chunk in passes.chunks]
        return cls(passes, gradient, RoundOff(passes, errors), GradientRounding(passes, gradient, seed), phases > 1)

    def cached(self, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return the result cached under a key, computing it on first use."""
        if key not in self.known:
            self.known[key] = find()
        return self.known[key]

    def choices(self, name: str) -> list[np.ndarray]:
        """Return the gradients that automatic differentiation may give a tensor where kinks lie at the point itself."""
        every = self.cached(("choices",), lambda: flips.choices(self.passes, self.gradient))
        return [self.passes.program.tensors[name].of(choice) for choice in every]

    def terms(self, name: str) -> Moments:
        """Return a tensor's moments, `GradientRounding.moments`, computed once."""
        return self.cached(("terms", name), lambda: self.rounding.moments(name))

    def natural_slope(self, name: str) -> float:
        """Return the slope with which the bars of a tensor without any gradient are compared.

        It is the largest change of the loss that the gradient promises for moving an entry of any tensor by that
        tensor's size, divided by the size of this one.
        """
        params = self.passes.point.params
        sizes = {other: rms(array) or 1.0 for other, array in params.items()}
        named = self.passes.named(self.gradient)
        changes = max(float(np.abs(named[other]).max()) * size for other, size in sizes.items())
        return (changes or abs(self.passes.loss())) / sizes[name]
