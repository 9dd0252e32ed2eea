"""Evaluators of inputs of which padding makes copies: all copies of an input are moved at once."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Literal

import numpy as np

from fastcheck.convolutions.case import Plain
from fastcheck.convolutions.copies import Copies, Moved
from fastcheck.convolutions.error_bars import bars_of, loss_model, roundings
from fastcheck.convolutions.reevaluation import Reevaluation, step_of
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.convolutions.steps import Step
from fastcheck.convolutions.table_evaluator import TableEvaluator
from fastcheck.engine.differences import Chosen, indices
from fastcheck_kernels import conv, curved

ANALYTIC = slice(curved.ABSOLUTE, curved.ROUNDING)
"""Columns of the sums over the terms of an analytic gradient, which adds what belongs to each copy."""


class _OfCopies(TableEvaluator):
    """Base of the evaluators of inputs with several copies.

    Parameters
    ----------
    plain : Plain
        Of the case.
    scaled : ScaledOperands
        Of the plain case.
    seen : tuple of float64 arrays
        Output, cotangent, and the sums of the sizes of the outputs' terms; of a linear loss that reads neither the
        first nor the last, any arrays of their shape.
    h : float
        Step of the scaled input.
    chain : int
        Roundings that a product meets before the moved outputs are known: 0 where they are moved from the known ones.
    work : int
        What one dimension takes, in the unit of `BLOCK_WORK`.
    searching : bool
        Whether to try smaller steps.
    """

    def __init__(
        self,
        plain: Plain,
        scaled: ScaledOperands,
        seen: tuple[np.ndarray, ...],
        *,
        h: float,
        chain: int,
        work: int,
        searching: bool,
    ) -> None:
        case, entries = plain.case, plain.entries["input"]
        self._copies = Copies(case.geometry, entries)
        self._geometry = case.geometry
        self._seen = tuple(array.reshape(-1) for array in seen)
        self._model, self._model_of_moves = (loss_model(case, scaled, "input", each) for each in (chain, 0))
        self._per_group, groups = case.geometry.weight_shape[1], case.geometry.groups
        kernels = scaled.weight.reshape(groups, -1, self._per_group, case.geometry.taps).swapaxes(1, 2)
        self._kernels = np.ascontiguousarray(kernels).reshape(groups * self._per_group, -1, case.geometry.taps)
        self._filters = self._kernels.shape[1]
        # Kernels are summed over the copies, and so are, in the analytic pass, gradients of the padded input.
        most = self._copies.most
        bars = bars_of(case, scaled, "input", chain=1 + chain + most)
        bars = replace(bars, partials=bars.partials * most)
        nothing = np.empty(0, dtype=np.int64)
        self._each(Moved(nothing, nothing, nothing), nothing, h)  # compiles here, as in TableEvaluator
        super().__init__("input", entries.shape, bars, h=h, searching=searching, work=work * most)

    def blocks(self, dims: Chosen) -> list[Chosen]:
        """Cut dimensions into blocks, in which those of one position come together."""
        every = indices(dims)
        return super().blocks(every[np.argsort(every % self._copies.plane, kind="stable")])

    def with_step(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of dimensions, differenced with one step of the scaled operands."""
        table = np.empty((len(dims), curved.COLUMNS))
        for position, rows in self._copies.groups(dims):
            moved = self._copies.moved(position)
            table[rows] = self._differenced(position, moved, dims[rows], h)
            table[rows, ANALYTIC] = self._each(moved, dims[rows], h)[:, ANALYTIC]
        return table

    def _differenced(self, position: int, moved: Moved, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of inputs at one position of their planes."""
        raise NotImplementedError

    def _each(self, moved: Moved, dims: np.ndarray, h: float) -> np.ndarray:
        """Return the table of inputs at one position, with outputs moved by themselves for each tap that they meet."""
        _, channels = self._copies.planes(dims)
        filters, taps = self._kernels.shape[1:]
        terms = np.arange(filters)[:, None] * taps + moved.taps
        return self._along(dims, moved.outputs, self._kernels, channels * filters * taps, terms, h)

    def _along(
        self,
        dims: np.ndarray,
        outputs: np.ndarray,
        factors: np.ndarray,
        begins: np.ndarray,
        terms: np.ndarray,
        h: float,
    ) -> np.ndarray:
        """Return the table of inputs that move outputs of each filter by h times factors[begins + terms]."""
        samples, channels = self._copies.planes(dims)
        plane, filters = math.prod(self._geometry.output_shape[2:]), self._kernels.shape[1]
        first = (samples * self._geometry.filters + channels // self._per_group * filters) * plane
        starts = np.arange(filters)[:, None] * plane + outputs
        places, begun, flat = (a.astype(np.uint64) for a in (starts.reshape(-1), np.stack([begins, first]), terms))
        table = np.empty((len(dims), curved.COLUMNS))
        model = self._model_of_moves
        curved.along_terms(*self._seen, places, factors.reshape(-1), begun, flat.reshape(-1), h, model, table)
        return table


class CopiesDelta(_OfCopies):
    """Difference inputs with several copies by moving the outputs that they have, for any loss.

    Parameters
    ----------
    plain : Plain
    scaled : ScaledOperands
        Of the plain case.
    output : float64 array
        The forward result of the scaled operands.
    magnitude : float64 array or None
        The sums of the sizes of its terms, which a linear loss does without.
    step : float or "auto"
    """

    BLOCK_WORK = 2**22
    """Moved outputs after which a block ends."""

    def __init__(
        self,
        plain: Plain,
        scaled: ScaledOperands,
        output: np.ndarray,
        magnitude: np.ndarray | None,
        step: float | Literal["auto"],
    ) -> None:
        geometry, here = plain.case.geometry, Step.of(scaled, "input", output, step, plain.case.loss)
        self.step = here.nominal
        seen = output, scaled.grad_output, output if magnitude is None else magnitude
        work = geometry.products_per_dimension("input") // geometry.terms
        super().__init__(plain, scaled, seen, h=here.scaled, chain=0, work=work, searching=step == "auto")

    def _differenced(self, position: int, moved: Moved, dims: np.ndarray, h: float) -> np.ndarray:
        _, channels = self._copies.planes(dims)
        found, rows = np.unique(channels, return_inverse=True)
        factors = moved.summed(self._kernels[found])
        count = factors[0].size
        return self._along(dims, moved.distinct, factors, rows * count, np.arange(count), h)


class CopiesReevaluation(_OfCopies):
    """Difference inputs with several copies by evaluating the forward kernel with all copies at +h and at -h.

    Parameters
    ----------
    name : {"full", "local"}
        As in `Reevaluation`.
    plain : Plain
    scaled : ScaledOperands
        Of the plain case.
    magnitude : float64 array
    output : float64 array or None
    step : float or "auto"
    size : float, optional
        As in `Reevaluation`.
    """

    BLOCK_WORK = Reevaluation.BLOCK_WORK

    def __init__(
        self,
        name: str,
        plain: Plain,
        scaled: ScaledOperands,
        magnitude: np.ndarray,
        output: np.ndarray | None,
        step: float | Literal["auto"],
        size: float | None = None,
    ) -> None:
        geometry = plain.case.geometry
        h, self.step = step_of(plain.case, scaled, "input", magnitude, step, size)
        self._whole, self._private, self._vector = name == "full", threading.local(), geometry.vector()
        self._lifted = geometry.lift(scaled.input), geometry.lift(scaled.weight), scaled.bias
        self._space = (1,) * (3 - geometry.rank) + geometry.output_shape[2:]
        v = scaled.grad_output
        seen = v if output is None else output, v, magnitude
        whole = math.prod(geometry.output_shape) * geometry.terms
        work = whole if self._whole else geometry.products_per_dimension("input")
        chain = 1 + roundings(geometry.terms, conv.TAPS)
        super().__init__(plain, scaled, seen, h=h, chain=chain, work=work, searching=step == "auto")

    def _differenced(self, position: int, moved: Moved, dims: np.ndarray, h: float) -> np.ndarray:
        """Evaluate every output, or a box that holds those that move; only these add to the error bar."""
        table = np.empty((len(dims), curved.COLUMNS))
        samples, channels = self._copies.planes(dims)
        places = self._copies.places(position)
        for i, (sample, channel) in enumerate(zip(samples.tolist(), channels.tolist(), strict=True)):
            group = channel // self._per_group
            box = self._box(sample, group, moved.distinct)
            first = (sample * self._geometry.input_shape[1] + channel) * math.prod(self._geometry.input_shape[2:])
            plus, minus, width = self._sides(first + places, box, h)
            here, inside = self._affected(sample, group, moved.distinct, box)
            table[i] = self._folded(plus[inside], minus[inside], here, width)
            if self._whole:
                every = self._folded(plus, minus, np.arange(plus.size), width)
                table[i, : curved.ROUNDING] = every[: curved.ROUNDING]
        return table

    def _box(self, sample: int, group: int, outputs: np.ndarray) -> np.ndarray:
        """Return the region of outputs to evaluate, as `conv.forward` takes it."""
        if self._whole:
            shape = *self._geometry.output_shape[:2], *self._space
            return np.array([(0, size, 1) for size in shape], dtype=np.int64)
        box = [(sample, 1, 1), (group * self._filters, self._filters, 1)]
        for at in np.unravel_index(outputs, self._space):
            low, high = (int(at.min()), int(at.max()) + 1) if at.size else (0, 0)
            box.append((low, high - low, 1))
        return np.array(box, dtype=np.int64)

    def _affected(self, sample: int, group: int, outputs: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the outputs that move are among all, and where in the box, both flat."""
        filters = np.arange(group * self._filters, (group + 1) * self._filters)[:, None]
        at = np.unravel_index(outputs, self._space)
        every = sample, filters, *(axis[None] for axis in at)
        low, count = box[:, conv.LOW], box[:, conv.COUNT]
        shape = *self._geometry.output_shape[:2], *self._space
        here, inside = (
            np.ravel_multi_index(np.broadcast_arrays(*index), sizes).reshape(-1)
            for index, sizes in ((every, shape), ([a - b for a, b in zip(every, low, strict=True)], tuple(count)))
        )
        return here, inside

    def _sides(self, places: np.ndarray, box: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Evaluate a box of outputs with all copies at +h and at -h; return both, flat, and the realised width."""
        if not hasattr(self._private, "x"):
            self._private.x = self._lifted[0].copy()
        x, flat = self._private.x, self._private.x.reshape(-1)
        saved, count = float(flat[places[0]]), box[:, conv.COUNT]
        sides, shape = [], (count[0], count[1], math.prod(count[2:]))
        while saved + h == saved or saved - h == saved:
            h *= 2
        for value in (saved + h, saved - h):
            flat[places] = value
            sides.append(np.empty(shape))
            if sides[-1].size:
                conv.forward(x, *self._lifted[1:], self._vector, box, sides[-1])
        flat[places] = saved
        return sides[0].reshape(-1), sides[1].reshape(-1), (saved + h) - (saved - h)

    def _folded(self, plus: np.ndarray, minus: np.ndarray, here: np.ndarray, width: float) -> np.ndarray:
        """Difference the loss at some outputs; return a row of the table."""
        row = np.empty(curved.COLUMNS)
        curved.outputs(plus, minus, *(array[here] for array in self._seen), width, self._model, row)
        return row
