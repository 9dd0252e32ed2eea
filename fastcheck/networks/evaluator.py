"""Evaluator ``network``: only what a dimension moves is evaluated again, through all later layers, at +h and at -h."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import RESULT, UNITS, WIDE, WIDE_TYPES, U
from fastcheck.engine import magnitudes, steps
from fastcheck.engine.differences import Chosen, Differences, indices
from fastcheck.engine.steps import usable
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import SAFETY, SHAKEN_SAFETY, Baseline
from fastcheck.networks.found import Found
from fastcheck.networks.full import Full
from fastcheck.networks.network import Penalty
from fastcheck.networks.partial import PartialEvaluation, work
from fastcheck.networks.passes import Passes, lanes
from fastcheck.networks.penalty import difference as penalty_difference
from fastcheck.networks.penalty import gradient as penalty_gradient
from fastcheck_kernels import columns

MOVE = 2.0**-17
"""How far the automatic step moves a layer's results, as a part of their root mean square: rounding and truncation are
about as large there, and few units cross a kink."""

CLOSER = 0.25
"""The next step that is tried where one is not enough, as a part of it."""

ROUNDS = 4
"""Steps that are tried at most, the first and smaller ones."""

DEEPEST = 6
"""Smaller steps that are tried at most where a dimension bends on the scale of a step."""

LARGER = 4
"""Larger steps that are tried at most where round-off hides a value."""

WAS, LEFT = 1.5 / (1 - CLOSER**2), 3 * CLOSER**2 / (1 - CLOSER**2)
"""Truncation with the larger of two steps, and with the smaller one, as parts of how far n moves between them; on the
safe side by a half, and by three."""

BENT = 4.0
"""Truncation of one-sided slopes, as a part of how they move to the smaller step: on the safe side by three."""

KINK_SAFETY = 1.25
"""What crossings can change is computed to first order."""

PILOTS = 8
"""Dimensions of a tensor whose scatter is measured."""

LEAST_SCATTER = 1 / 4
"""The smallest part of the model's round-off that pilots may find: with a sixteenth, 6 of 25 right gradients of relu
networks with 20 layers failed."""

STRONG = 1e-3
"""Pilots of which less noise is expected, as a part of the largest, say nothing of other channels."""

SECOND_OPINIONS = (0.83, 0.71, 0.59, 0.47)
"""Steps that a dimension near its bar is differenced with again, as parts of its own."""

NEAR = 10.0
"""How many bars from its numeric value a dimension is at most near."""

FAR = 12
"""Steps far smaller, by factors of 16, that are tried where a numeric value contradicts the reference gradient."""

CHOICE_UNITS = 64
"""Round-offs that a gradient with other pieces at a kink may be off by, as a part of its value."""

SPREAD = 3.0
"""Round-off is at least this many times what n moves by between these steps."""

PILOT_STEPS = 8
"""Steps that it is measured with: scattered, since how sums round repeats itself over steps that are evenly spaced."""

PILOT_REACH = (0.06, 0.1)
"""Between these parts of the automatic step: few units cross a kink there."""

LOST = 2.0**-450
"""What a bar may lose to underflow: it is made of squares."""

MOST_EXPONENT = 200
"""Automatic steps are `MOVE` times 2^-200 to 2^200: what they move is squared."""

LEAST_EXPONENT = -16
"""They are at least `MOVE` times 2^-16 of the tensor's largest entry."""

BLOCK_WORK = 1e7
"""Multiply-adds in a block: about a millisecond."""


class NetworkEvaluator:
    """Difference one tensor of a network.

    Parameters
    ----------
    case : NetworkCase
    baseline : Baseline
    tables : PartialEvaluation or Full
        What moving its entries does to the loss.
    name : str
        The tensor.
    step : float or "auto"
        With "auto" a dimension that crosses a kink is differenced with smaller steps as well.
    seed : int
        Of the pilots.

    Attributes
    ----------
    step : float
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
        self._case, self._baseline, self._passes, self._tables, self._name = (
            case,
            baseline,
            baseline.passes,
            tables,
            name,
        )
        self._node, self._bias = self._passes.program.node_of(name)
        self._values = case.point.params[name].reshape(-1)
        self._analytic = case.grads[name].reshape(-1).astype(np.float64)
        self._searching = step == "auto"
        self.step = automatic(self._passes, name) if step == "auto" else float(step)
        usable(self.step, self._values, name)
        terms = baseline.terms(name)
        self._terms = terms[1]
        self._sizes = self._at_least_typical(terms[1])
        self._wide = max(WIDE, WIDE_TYPES * RESULT[case.precision_of(name)])
        self._gradient = baseline.rounding.of(case, name, terms)
        self._flipped = baseline.rounding.flipped(case, name)
        self._reference = baseline.gradient[self._passes.program.places[name]]
        channels = self._passes.program.nodes[self._node].columns["channels"]
        self._per_channel = len(self._values) // channels
        self._coherent = baseline.roundoff.coherent(self._node)
        self._channel_noise = np.hypot(baseline.roundoff.of(self._node), tables.noise)
        self._channel_noise = baseline.cached(("scatter", name, tables.kind, seed), lambda: self._measured(seed))

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of about `BLOCK_WORK`."""
        cost = work(self._passes.program, self._name, len(self._case.point.x), self._tables.kind)
        return blocks_of(dims, cost, self._tables.group, self._tables.dims_per_pass)

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        found = self._searched(dims)
        automatic = self._chosen_at_kinks(dims, found)
        bars = found.bar + self._gradient[dims] + LOST
        finite = np.isfinite(found.numeric)
        if not finite.all():
            index = list(index_of(int(dims[np.argmin(finite)]), self._case.grads[self._name].shape))
            raise FastcheckError(f"the derivative by {self._name} at index {index} overflows float64: scale the case")
        return Differences(
            dims,
            found.numeric,
            bars,
            kinks=found.kinks,
            jump=found.jump,
            too_wide=self._are_wide(dims, bars - found.jump),
            harmless=np.where(found.crossed + found.jump > 0, 0, found.kinks),
            automatic=automatic,
        )

    def _are_wide(self, dims: np.ndarray, bars: np.ndarray) -> np.ndarray:
        """Mark bars that are too wide to judge by, beside what the dimension's terms add up to in size."""
        wide: np.ndarray = bars > self._wide * self._sizes[dims]
        if wide.any():
            # Terms that are no larger than their own rounding in float64 are as good as zero.
            real = self._terms > SHAKEN_SAFETY * self._baseline.rounding.deviations("float64", self._name)
            wide = bars > self._wide * self._at_least_typical(np.where(real, self._terms, 0.0))[dims]
        return wide

    def _at_least_typical(self, terms: np.ndarray) -> np.ndarray:
        """Return the sizes of all dimensions' terms, none below the tensor's typical one."""
        typical = math.sqrt(float(terms @ terms) / len(terms)) or self._baseline.natural_slope(self._name)
        found: np.ndarray = np.maximum(terms, typical)
        return found

    def parts(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, which are differenced again."""
        found = self._searched(dims)
        return {
            "round-off": found.roundoff,
            "truncation": found.truncation,
            "kinks": found.crossed + found.jump,
            "gradient": self._gradient[dims],
        }

    def cached(self, dims: np.ndarray, h: float) -> Found:
        """Difference dimensions with one step, truncation left aside."""
        table = self._table(dims, h)
        right, left = table[:, columns.RIGHT] / h, table[:, columns.LEFT] / h
        at_point = table[:, columns.HERE] > 0
        # At a kink in the point itself any slope between the loss's one-sided ones is a subgradient.
        jump = np.where(at_point, np.abs(right - left) / 2, 0.0)
        crossed = KINK_SAFETY * np.maximum(table[:, columns.WIDENING] - table[:, columns.JUMP], 0.0) / (2 * h)
        numeric = table[:, columns.NUMERIC] / (2 * h)
        noise = SAFETY * self._noise(dims) + self._coherent[dims // self._per_channel]
        # Each of the one-sided slopes has all of it in half of the move.
        roundoff = noise * np.where(at_point, 2.0, 1.0) / h + 4 * U * np.abs(numeric)
        kinked = table[:, columns.KINKS].astype(np.int64)
        found = Found(numeric, roundoff, np.zeros(len(dims)), crossed, jump, kinked, right, left, at_point)
        penalty = self._case.penalties.get(self._name)
        return found if penalty is None else found.plus(penalty_difference(penalty, self._values[dims], h))

    def _table(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Difference dimensions, unless an earlier phase did."""
        if not self._baseline.remembering or h != self.step or not len(dims):
            return self._tables(dims, h)
        key = (self._name, self._tables.kind, h, dims.tobytes())
        found: np.ndarray = self._baseline.cached(key, lambda: self._tables(dims, h))
        return found

    def _searched(self, dims: np.ndarray) -> Found:
        """Difference dimensions: away from kinks, if a smaller step gets there, and with what truncation they have."""
        found, levels = self.cached(dims, self.step), np.zeros(len(dims), np.int64)
        for level in range(1, ROUNDS if self._searching else 1):
            crossing = np.flatnonzero(found.crossed > found.roundoff)
            if not len(crossing):
                break
            better = found.take(crossing, self.cached(dims[crossing], self.step * CLOSER**level))
            levels[better] = level
        if self._searching:
            self._enlarge(dims, found, levels)
        self._close(dims, np.flatnonzero(found.at_point), found, levels)
        self._reconcile(dims, found, levels)
        outside = self._outside(dims, found) & ~found.at_point
        for level in np.unique(levels[outside]).tolist():
            self._doubt(dims, np.flatnonzero(outside & (levels == level)), level, found, levels)
        self._flip(dims, found)
        found.truncation += self._contradicted(dims, found)
        return found

    def _contradicted(self, dims: np.ndarray, found: Found) -> np.ndarray:
        """Return how far numeric values are from the reference gradient, where that is no rounding: 0 elsewhere.

        The step is then beyond the scale on which the loss bends, and no other step shows it: n(h) falls as 1 / h where
        an outlier saturates all that it moves.
        """
        penalty = self._case.penalties.get(self._name, Penalty())
        right = self._reference[dims] + penalty_gradient(penalty, self._values[dims])
        with np.errstate(invalid="ignore"):
            apart = np.abs(found.numeric - right)
        beyond = (apart > found.bar + self._gradient[dims] + LOST) & ~found.at_point
        return np.where(beyond, apart, 0.0)

    def _reconcile(self, dims: np.ndarray, found: Found, levels: np.ndarray) -> None:
        """Difference dimensions that contradict the reference gradient with far smaller steps."""
        places = np.flatnonzero(self._contradicted(dims, found)) if self._searching else np.zeros(0, np.int64)
        before, settled = found.numeric[places], np.zeros(len(places), bool)
        for level in range(2, 2 * FAR, 2):
            if not len(places):
                return
            smaller = self.cached(dims[places], self.step * CLOSER**level)
            moved, before = np.abs(smaller.numeric - before), smaller.numeric
            smaller.truncation = CLOSER**2 * moved
            agreeing = self._contradicted(dims[places], smaller) == 0
            better = agreeing & (~settled | (smaller.bar < found.bar[places]))
            found.put(places[better], smaller.of(better))
            levels[places[better]] = level
            settled |= agreeing
            rest = ~settled | (better & (smaller.truncation > smaller.roundoff))
            places, before, settled = places[rest], before[rest], settled[rest]

    def _enlarge(self, dims: np.ndarray, found: Found, levels: np.ndarray) -> None:
        """Difference dimensions whose values round-off hides with larger steps: units in their tails hardly bend."""
        before = found.numeric.copy()
        for level in range(-1, -1 - LARGER, -1):
            hidden = found.roundoff > self._wide * np.maximum(np.abs(found.numeric), self._sizes[dims])
            places = np.flatnonzero(hidden & ~found.at_point & (levels == level + 1))
            if not len(places):
                break
            larger = self.cached(dims[places], self.step * CLOSER**level)
            larger.truncation = WAS * np.abs(larger.numeric - before[places])
            before[places] = larger.numeric
            levels[found.take(places, larger)] = level

    def _flip(self, dims: np.ndarray, found: Found) -> None:
        """Widen what dimensions outside may be by units whose piece rounding decides: both pieces are as good."""
        outside = self._outside(dims, found)
        least, most = (np.where(outside, bound[dims], 0.0) for bound in self._flipped)
        middle, half = (found.right + found.left) / 2, np.abs(found.right - found.left) / 2
        value = self._reference[dims]
        reach = np.maximum(np.abs(value + least - middle), np.abs(value + most - middle))
        found.jump += np.where(found.at_point & (least < most), np.maximum(reach - half, 0.0), 0.0)
        found.crossed += np.where(found.at_point, 0.0, np.maximum(-least, most))

    def _close(self, dims: np.ndarray, places: np.ndarray, found: Found, levels: np.ndarray) -> None:
        """Difference dimensions at a kink in the point with smaller steps as well, which show how the slopes bend.

        Truncation of one-sided slopes falls as h: what is left with the smaller step is a third of how they move, and
        what the larger one has four thirds.
        """
        while len(places):
            curved = []
            for level in np.unique(levels[places]).tolist():
                here = places[levels[places] == level]
                closer = self.cached(dims[here], self.step * CLOSER ** (level + 1))
                bend = [np.abs(getattr(closer, side) - getattr(found, side)[here]) for side in ("right", "left")]
                if not self._searching:
                    found.truncation[here] = BENT * np.maximum(*bend)
                    continue
                closer.truncation = np.maximum(*bend)
                found.put(here, closer)
                levels[here] = level + 1
                curved.append(here[(closer.truncation > closer.roundoff) & (level < DEEPEST)])
            places = np.concatenate([places[:0], *curved])

    def _doubt(self, dims: np.ndarray, places: np.ndarray, level: int, found: Found, levels: np.ndarray) -> None:
        """Let other steps tell how much truncation there is in dimensions that would fail with one.

        Truncation falls as h^2. A larger step shows it best, unless that crosses a kink, or is so large that terms of
        h^4 hide it: what a smaller step shows beyond its own round-off is there. Where truncation is most of the bar,
        the smaller step has the better value.
        """
        h = self.step * CLOSER**level
        here, n = dims[places], found.numeric[places]
        larger, smaller = self.cached(here, h / CLOSER), self.cached(here, h * CLOSER)
        smooth = larger.crossed + larger.jump <= found.crossed[places] + found.jump[places] + larger.roundoff
        moved, before = np.abs(smaller.numeric - n), np.abs(larger.numeric - n)
        by_larger = np.maximum(LEFT * before, WAS * (moved - smaller.roundoff))
        found.truncation[places] = np.where(smooth, by_larger, WAS * moved + smaller.roundoff)
        smaller.truncation = np.maximum(LEFT * moved, np.where(smooth, LEFT * CLOSER**2 * before, 0.0))
        curved = (found.truncation[places] > found.roundoff[places] + self._gradient[here]) & self._searching
        better = found.take(places[curved], smaller.of(curved))
        levels[better] = level + 1
        self._doubt_roundoff(dims, places, found, levels)
        if level < DEEPEST and len(better):
            self._doubt(dims, better, level + 1, found, levels)

    def _doubt_roundoff(self, dims: np.ndarray, places: np.ndarray, found: Found, levels: np.ndarray) -> None:
        """Let other steps tell how much round-off there is in dimensions near their bars."""
        bars = found.bar + self._gradient[dims] + LOST
        apart = np.abs(self._analytic[dims] - found.numeric)[places]
        close = places[(apart > bars[places]) & (apart <= NEAR * bars[places])]
        for level in np.unique(levels[close]).tolist():
            near = close[levels[close] == level]
            steps = [self.step * CLOSER**level * part for part in SECOND_OPINIONS]
            moved = np.max([np.abs(self.cached(dims[near], h).numeric - found.numeric[near]) for h in steps], axis=0)
            found.roundoff[near] = np.maximum(found.roundoff[near], SPREAD * moved)

    def _outside(self, dims: np.ndarray, found: Found) -> np.ndarray:
        bars = found.bar + self._gradient[dims] + LOST
        outside: np.ndarray = np.abs(self._analytic[dims] - found.numeric) > bars
        return outside

    def _chosen_at_kinks(self, dims: np.ndarray, found: Found) -> np.ndarray | None:
        """Widen the jumps of dimensions outside whose analytic value is a choice of automatic differentiation.

        At a kink in the point that need not lie between the loss's slopes: relu(b) - relu(-b) is b, whose derivative
        automatic differentiation finds to be zero at zero. Return which dimensions these are, None without any.
        """
        outside = np.flatnonzero(self._outside(dims, found) & found.at_point)
        if not len(outside):
            return None
        chosen = outside[self._as_chosen()[dims[outside]]]
        if not len(chosen):
            return None
        bars = found.bar[chosen] + self._gradient[dims[chosen]] + LOST
        reach = np.abs(self._analytic[dims[chosen]] - found.numeric[chosen])
        found.jump[chosen] += (reach - bars) * (1 + 8 * U) + 8 * U * reach
        automatic = np.zeros(len(dims), bool)
        automatic[chosen] = True
        return automatic

    def _as_chosen(self) -> np.ndarray:
        """Mark the entries that have the one choice of automatic differentiation that explains most of the tensor's."""
        choices = self._baseline.choices(self._name)
        penalty = self._case.penalties.get(self._name, Penalty())
        unit = UNITS[self._case.precision_of(self._name)]
        room = np.where(self._values == 0, abs(penalty.l1), 0.0) + self._gradient + LOST
        # The choices' own rounding: a unit that is dead in one of them has terms in another.
        room += CHOICE_UNITS * unit * np.max([np.abs(choice) for choice in choices], axis=0)
        added = penalty_gradient(penalty, self._values)
        marks = [np.abs(self._analytic - choice - added) <= room for choice in choices]
        return max(marks, key=np.count_nonzero)

    def _noise(self, dims: np.ndarray) -> np.ndarray:
        """Return the standard deviation of h * n through round-off."""
        noise: np.ndarray = self._channel_noise[dims // self._per_channel] / math.sqrt(2)
        return noise

    def _measured(self, seed: int) -> np.ndarray:
        """Return the model's noise of every channel, scaled by how much pilots really scatter."""
        rng = np.random.default_rng([seed, len(self._values)])
        dims = np.sort(rng.choice(len(self._values), min(PILOTS, len(self._values)), replace=False))
        # h * n scatters alike for every h.
        steps = automatic(self._passes, self._name) * rng.uniform(*PILOT_REACH, PILOT_STEPS)
        found = [self._tables(dims, h) for h in steps.tolist()]
        moves = np.stack([table[:, columns.NUMERIC] / (2 * h) for table, h in zip(found, steps, strict=True)])
        kinked = np.stack([table[:, columns.KINKS] for table in found]).any(axis=0)
        # What follows a + b h^2 is truncation.
        smooth = np.stack([np.ones(PILOT_STEPS), (steps / steps.mean()) ** 2], axis=1)
        rest = moves - smooth @ np.linalg.lstsq(smooth, moves, rcond=None)[0]
        scatter = steps.mean() * np.sqrt((rest**2).sum(axis=0) / (PILOT_STEPS - 2))
        expected, model = self._noise(dims), self._channel_noise
        usable = ~kinked & (expected > 0)
        strong = usable & (expected > STRONG * expected.max())
        factor = max(LEAST_SCATTER, float((scatter[strong] / expected[strong]).max(initial=0.0)))
        noise: np.ndarray = model * (factor if not kinked.all() else 1.0)
        weak = np.flatnonzero(~kinked & ~strong)
        np.maximum.at(noise, dims[weak] // self._per_channel, scatter[weak] * math.sqrt(2))
        return noise


def automatic(passes: Passes, name: str) -> float:
    """Return a power of two that moves a layer's results by about `MOVE` of their size."""
    place, bias = passes.program.node_of(name)
    node, chunk = passes.program.nodes[place], passes.chunks[0]
    size, factor = magnitudes.rms(lanes(passes, chunk, chunk.cached, place)), 1.0
    if node.kind == "conv" and not bias:
        factor = magnitudes.rms(lanes(passes, chunk, chunk.cached, node.columns["a"]))
    if size == 0 or factor == 0:
        return MOVE
    # No smaller than what changes every entry by many roundings: results may be as good as zero.
    largest = float(np.abs(passes.point.params[name]).max(initial=0.0))
    least = math.frexp(largest)[1] + LEAST_EXPONENT if largest else -MOST_EXPONENT
    return math.ldexp(MOVE, steps.within(max(round(math.log2(size) - math.log2(factor)), least), MOST_EXPONENT))


def blocks_of(dims: Chosen, cost: int, group: int, dims_per_pass: int) -> list[Chosen]:
    """Cut dimensions that cost so much into blocks of about `BLOCK_WORK`.

    They have whole groups, dimensions that move the same channel, if one takes less. Otherwise they fill the lanes,
    even if that takes more: fewer dimensions would take as long.
    """
    size = max(dims_per_pass, min(4096, int(BLOCK_WORK / cost)))
    unit = group if group <= size else dims_per_pass
    size = size // unit * unit
    return [dims[start : start + size] for start in range(0, len(dims), size)]
