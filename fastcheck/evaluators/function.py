"""Evaluator ``full`` of a user's function: the whole loss, at every step that a dimension needs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Literal

import numpy as np

from fastcheck import noise as noises
from fastcheck.black_box import CLEAR, NOISES, ROUNDS, Estimate, Level, Search, better, exponent_of
from fastcheck.cases.function import SMALL, Arrays, FunctionCase
from fastcheck.errors import FastcheckError
from fastcheck.evaluators import Chosen, Differences, indices
from fastcheck.evaluators.function_noise import LOSS_SAMPLES, LOSS_SPACINGS, result_unit
from fastcheck.step import WIDE, WIDE_TYPES, U

BLOCK = 32
"""Dimensions in a block: some hundred calls of the loss, after which Ctrl-C and progress are heard."""

PILOTS = 5
"""Dimensions of a tensor that find its typical step, at which the others begin."""

PILOT_ROUNDS = 12
"""Steps tried where no typical one is known."""

PILOT_STEP = -17
"""Where they begin, as a power of two relative to the size of the entries: about the cube root of the unit round-off,
where a difference of a function whose scale is that of its argument is balanced."""

BOTTOM = (26, 35, 41)
"""Powers of two below the size of an entry at which a second opinion is asked for: about the root of the unit
round-off, its two thirds' power, and below. A loss whose own scale is far below the entry's is seen there alone."""

LEAST = 2.0**-1074
"""No loss is known better: float64's smallest number."""


class FunctionEvaluator:
    """Difference one tensor of a function by calling it.

    Parameters
    ----------
    case : FunctionCase
    name : str
        The tensor.
    noise : float
        What rounding does to the loss where it is moved: `fastcheck.evaluators.function_noise.of_loss`.
    errors : float64 array
        What rounding does to its analytic gradient: `fastcheck.evaluators.function_noise.of_gradient`.
    step : float or "auto"
    stencil : "auto", 3 or 5
    seed : int
        Of the pilots.

    Attributes
    ----------
    step : float
        As given, or the median of what the pilots found best.
    noise : float
    kinked : dict of int to Estimate
        The dimensions that were found to be at a kink, with a subgradient.
    """

    def __init__(
        self,
        case: FunctionCase,
        name: str,
        noise: float,
        errors: np.ndarray,
        step: float | Literal["auto"],
        stencil: Literal["auto", 3, 5],
        seed: int,
    ) -> None:
        self._case, self._name, self._stencil = case, name, stencil
        self._values = case.params[name].reshape(-1)
        self._analytic = case.grads[name].reshape(-1).astype(np.float64)
        self._errors = errors.reshape(-1)
        self._size, self._promised = case.size(name), promised(case)
        self._small = case.small(name).reshape(-1)
        self._wide = max(WIDE, WIDE_TYPES * result_unit(case, name))
        self._private = threading.local()
        self.noise = max(noise, LEAST)
        self._fixed = None if step == "auto" else float(step)
        self._start, self._doubtful = PILOT_STEP, False
        self._pilots: dict[int, Estimate] = {}
        self.kinked: dict[int, Estimate] = {}
        if self._fixed is None:
            self._send_pilots(np.random.default_rng([seed, len(self._values)]))
        self.step = self._fixed or math.ldexp(1.0, self._start + exponent_of(self._size))

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks of `BLOCK`."""
        return [dims[start : start + BLOCK] for start in range(0, len(dims), BLOCK)]

    def __call__(self, block: Chosen) -> Differences:
        """Difference the dimensions of a block."""
        dims = indices(block)
        found = [self._differenced(dim) for dim in dims.tolist()]
        self._case.refuse_changes(self._arrays(), "loss")
        bars = np.array([entry.bar for entry in found]) + self._errors[dims]
        jumps = np.array([entry.jump for entry in found])
        self.kinked |= {
            dim: entry
            for dim, entry in zip(dims.tolist(), found, strict=True)
            if entry.jump and not self._outside(dim, entry)
        }
        slopes = np.array([self._slope(dim, entry) for dim, entry in zip(dims.tolist(), found, strict=True)])
        return Differences(
            dims,
            np.array([entry.numeric for entry in found]),
            bars,
            kinks=np.array([entry.kinked for entry in found], dtype=np.int64),
            jump=jumps,
            wide=(bars - jumps > self._wide * slopes) & (slopes > 0),
        )

    def parts(self, dims: np.ndarray) -> dict[str, np.ndarray]:
        """Split the error bars of dimensions, which are differenced again."""
        found = [self._differenced(dim) for dim in dims.tolist()]
        return {
            "round-off": np.array([entry.roundoff for entry in found]),
            "truncation": np.array([entry.safety * entry.truncation for entry in found]),
            "kinks": np.array([entry.widening for entry in found]),
            "gradient": self._errors[dims],
            "steps": np.array([entry.doubt for entry in found]),
        }

    def _slope(self, dim: int, found: Estimate) -> float:
        """Return the slope that an error bar is measured by: one above `WIDE` of it tells little.

        It is the one by which a move of the entry by its own size changes the loss as much as the gradient promises
        for any entry. Where it promises nothing, the slopes that were seen stand in; 0 where the loss never moved.
        """
        reach = self._reach(dim)
        if self._small[dim]:  # the step that was found shows which size it moves at
            reach = min(reach, max(abs(float(self._values[dim])), found.step * 2.0**20))
        return self._promised / reach if self._promised else max(abs(self._case.start) / reach, found.slope)

    def _send_pilots(self, rng: np.random.Generator) -> None:
        """Find the typical step, relative to the size of entries, and whether the loss has a scale far below it."""
        usual = np.flatnonzero(~self._small)
        among = usual if usual.size else np.arange(len(self._values))
        steps = []
        for dim in rng.choice(among, min(PILOTS, len(among)), replace=False).tolist():
            search = self._search(dim)
            found = search.best(self._begin(dim), PILOT_ROUNDS)
            if found is None:
                continue
            steps.append(exponent_of(found.step) - exponent_of(self._reach(dim)))
            self._doubtful = self._doubtful or self._contradiction(search, dim, found) is not None
            self._pilots[dim] = found
        self._start = sorted(steps)[len(steps) // 2] if steps else PILOT_STEP
        self._pilots = {dim: self._decided(self._search(dim), dim, found) for dim, found in self._pilots.items()}

    def _differenced(self, dim: int) -> Estimate:
        """Estimate one derivative."""
        found = self._searched(dim) if self._fixed is None else self._with_fixed_step(dim, self._fixed)
        if found is None:
            raise self._not_finite(dim)
        return found

    def _searched(self, dim: int, rounds: int = ROUNDS) -> Estimate | None:
        """Search for the step."""
        if dim in self._pilots:
            return self._pilots[dim]
        search = self._search(dim)
        found = search.best(self._begin(dim), PILOT_ROUNDS if self._small[dim] else rounds)
        for start in self._other_starts(dim):
            other = search.best(start, PILOT_ROUNDS)
            found = found if other is None else better(found, other)
        return found and self._decided(search, dim, found)

    def _decided(self, search: Search, dim: int, found: Estimate) -> Estimate:
        """Hear second opinions: no dimension fails, and none is a subgradient, on the word of one step."""
        if self._doubtful or self._outside(dim, found):
            found = self._below(search, dim, found)
        if self._outside(dim, found):
            found = self._closer(search, dim, found)
        return self._at_the_point(dim, found) if found.jump else found

    def _contradiction(self, search: Search, dim: int, found: Estimate) -> int | None:
        """Return the exponent of a step near the bottom whose quotient cannot be that of a larger step."""
        size = exponent_of(abs(float(self._values[dim])) or self._reach(dim))
        for exponent in (size - depth for depth in BOTTOM):
            if exponent < exponent_of(found.step) - 3:
                level = search.level(exponent)
                if level is not None and level.contradicts(found):
                    return exponent
        return None

    def _below(self, search: Search, dim: int, found: Estimate) -> Estimate:
        """Search near the bottom where a quotient there contradicts what was found.

        A smaller step is nearer to the derivative. It is believed where its own quotients agree with each other; else
        the bar has to hold both.
        """
        exponent = self._contradiction(search, dim, found)
        if exponent is None:
            return found
        lower = search.best(exponent, PILOT_ROUNDS, most=exponent_of(found.step) - 3)
        if lower is None:
            return found
        return lower if lower.bar <= abs(lower.numeric) / 4 else found.doubted(lower)

    def _closer(self, search: Search, dim: int, found: Estimate) -> Estimate:
        """Ask steps of a half, a quarter and an eighth whether the bar is too narrow.

        One that puts the derivative elsewhere, and the gradient inside, is right: what it moved by is truncation.
        """
        for powers in (1, 2, 3):
            # The stencil with the smaller bar: inside a wide one is no second opinion.
            closer = min(search.closer(found, powers), key=lambda one: one.bar, default=None)
            if closer is None or abs(closer.numeric - found.numeric) <= max(found.bar, closer.bar) / 2:
                continue
            if not self._outside(dim, closer):
                return closer
        return found

    def _at_the_point(self, dim: int, found: Estimate) -> Estimate:
        """Look whether a kink is at the point itself, or merely nearer than the step.

        With the smallest step at which the jump between the slopes stands clear of the noise it has to be there still.
        """
        noise = self._own_noise(dim)
        search = self._search(dim, noise)
        clear = exponent_of(8 * CLEAR * NOISES * noise / found.jump)
        if clear >= exponent_of(found.step) - 2:
            return found
        nearer = search.best(clear, 1)
        if nearer is None or nearer.jump >= found.jump / 2:
            return found
        lower = search.best(clear, PILOT_ROUNDS, most=exponent_of(found.step) - 1)
        return found if lower is None else lower

    def _own_noise(self, dim: int) -> float:
        """Return the noise of the loss where one entry moves, next to the point.

        Other entries' kinks, which look like noise where all are moved, are not met.
        """
        x = float(self._values[dim])
        unit = LOSS_SPACINGS[0] * (abs(x) or self._size)

        def seen(side: float) -> float:
            def sample(distance: float) -> np.ndarray:
                return np.array(self._moved(dim, x + side * distance, side * distance))

            return float(noises.measured(sample, LOSS_SAMPLES, [unit]))

        largest = max(seen(1.0), seen(-1.0))
        least = max(U * abs(self._case.start), self._case.accuracy / NOISES, LEAST)
        return min(self.noise, max(largest, least)) if largest > 0 else self.noise

    def _with_fixed_step(self, dim: int, step: float) -> Estimate | None:
        """Take the user's step; where the gradient is outside, the best one tells whether that was to blame."""
        found = Search(self._levels(dim, step, self.noise), self._stencil, 0, 0).best(0, rounds=1)
        if found is not None and found.jump and not self._at_the_point(dim, found).jump:
            found = found._replace(jump=0.0)
        if found is None or not self._outside(dim, found):
            return found
        other = self._searched(dim, PILOT_ROUNDS)
        if other is None or (self._outside(dim, other) and found.agrees(other)):
            return found
        apart = abs(found.numeric - other.numeric) + other.bar
        return found._replace(truncation=found.truncation + apart)

    def _outside(self, dim: int, found: Estimate) -> bool:
        return abs(float(self._analytic[dim]) - found.numeric) > found.bar + float(self._errors[dim])

    def _reach(self, dim: int) -> float:
        """Return how far an entry may be thought to move: by its own size, or that of a typical one."""
        return max(self._size, abs(float(self._values[dim])))

    def _begin(self, dim: int) -> int:
        return self._start + exponent_of(self._reach(dim))

    def _other_starts(self, dim: int) -> list[int]:
        """Return where else to begin with an entry that may have a size of its own, far below the others'.

        A zero's is guessed from its gradient: a move by it changes the loss as much as moves of others do.
        """
        if not self._small[dim]:
            return []
        slope, own = abs(float(self._analytic[dim])), abs(float(self._values[dim]))
        if not own and 0 < slope < math.inf:
            own = self._promised / slope
        return [self._start + exponent_of(own)] if LEAST < own < self._size * SMALL else []

    def _search(self, dim: int, noise: float | None = None) -> Search:
        x = float(self._values[dim])
        least = max(exponent_of(float(np.spacing(abs(x)))) + 2, -1000)
        # An entry is not moved beyond zero, where a domain may end, unless its size may be an accident.
        room = self._reach(dim) if self._small[dim] else abs(x)
        levels = self._levels(dim, 1.0, self.noise if noise is None else noise)
        return Search(levels, self._stencil, least, max(least, exponent_of(room) - 2))

    def _levels(self, dim: int, unit: float, noise: float) -> Callable[[int], Level | None]:
        """Return what differences a dimension with a step of a power of two times a unit."""
        x = float(self._values[dim])

        def level(exponent: int) -> Level | None:
            step = math.ldexp(unit, exponent)
            low, high = x - step, x + step
            before, after = self._moved(dim, low, -step), self._moved(dim, high, step)
            return Level.of(step, (low, x, high), (before, self._case.start, after), noise)

        return level

    def _moved(self, dim: int, value: float, by: float) -> float:
        """Evaluate the loss with one entry moved, and restore it."""
        arrays = self._arrays()
        flat = arrays[self._name].reshape(-1)
        flat[dim] = value
        try:
            return self._case.value(arrays, lambda: f"with {self._place(dim)} moved by {by!r}")
        finally:
            flat[dim] = self._values[dim]

    def _arrays(self) -> Arrays:
        if not hasattr(self._private, "arrays"):
            self._private.arrays = self._case.copies()
        arrays: Arrays = self._private.arrays
        return arrays

    def _place(self, dim: int) -> str:
        return f"{self._case.label(self._name)} at index {list(self._case.index(self._name, dim))}"

    def _not_finite(self, dim: int) -> FastcheckError:
        raised = self._case.raised
        cause = "" if raised is None else f"; {raised}"
        if self._fixed is not None:
            found = FastcheckError(
                f"step is {self._fixed!r}: the loss is not finite with {self._place(dim)} moved by one, two or four "
                f"of them; expected a smaller step, or step='auto'{cause}"
            )
        else:
            found = FastcheckError(
                f"loss is not finite around {self._place(dim)}: no step from {math.ldexp(1.0, self._begin(dim))!r} "
                f"downwards gives finite values on both sides{cause}"
            )
        found.__cause__ = None if raised is None else raised.__cause__
        return found


def promised(case: FunctionCase) -> float:
    """Return the largest change of the loss that the analytic gradient promises where an entry moves by its own size.

    It does not change when parameters are rescaled, and scales with the loss. Where entries that are not zero promise
    nothing, zeros are taken to move by the typical size. A change that is lost in the loss's own rounding is 0.
    """
    tensors = [(np.abs(case.params[name]), np.abs(grad.astype(np.float64))) for name, grad in case.grads.items()]
    sizes = [case.size(name) for name in case.grads]
    with np.errstate(over="ignore", invalid="ignore"):
        own = [
            _largest(grad * (value if value.any() else size))
            for (value, grad), size in zip(tensors, sizes, strict=True)
        ]
        every = [_largest(grad * size) for (_, grad), size in zip(tensors, sizes, strict=True)]
    largest = max(own, default=0.0) or max(every)
    return largest if largest > U * abs(case.start) else 0.0


def _largest(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].max(initial=0.0))
