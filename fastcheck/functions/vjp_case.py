"""A forward pass of arrays and its backward pass, as a function with a gradient.

The loss is sum(v * (y(p) - y(p0))): outputs are differenced entry by entry from those at the start point before they
meet the cotangent v. An output that does not move cancels to exactly zero, so that the noise of a difference is that of
the outputs that move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastcheck.common.arguments import index_of, positive
from fastcheck.common.arrays import Floating
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import UNITS, U
from fastcheck.engine.magnitudes import rms
from fastcheck.functions import blind, cotangents
from fastcheck.functions.case import MOVED, Evaluation, FunctionCase
from fastcheck.functions.conjugates import other_convention
from fastcheck.functions.detection import detected
from fastcheck.functions.new_memory import memory_of_nan
from fastcheck.functions.noise import Noise, unit_of_values
from fastcheck.functions.patterns import Pattern
from fastcheck.functions.state import REPEATS, Arrays, last_bits
from fastcheck.functions.structure import DETECT, Structure
from fastcheck.functions.vjp import Vjp, flat
from fastcheck.metrics import health, vjp_health
from fastcheck.metrics.health import FORWARD, Functions, HealthFinding
from fastcheck.reports.tensor_report import ForwardReport

_COLUMN_STEP = 2.0**-10
"""The step of the derivatives of all outputs, relative to the size of what moves."""

_FIVE_POINTS = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
"""Weights of the values at multiples of the step, in a quotient whose error is of the fourth order."""


class VjpCase(FunctionCase):
    """A forward pass of arrays, weighted with a cotangent, and the gradient that backward returns for it.

    Parameters
    ----------
    vjp : Vjp
    noise, relative_noise, precision, vectorized, seed
        As in `fastcheck.check_vjp`.
    structure : Structure, optional
    notes : sequence of HealthFinding
        What is known of the functions already.
    """

    names: ClassVar[Functions] = FORWARD

    def __init__(
        self,
        vjp: Vjp,
        *,
        noise: float | None = None,
        relative_noise: float | None = None,
        precision: str | None = None,
        structure: Structure | None = None,
        vectorized: bool = False,
        seed: int = 0,
        notes: Sequence[HealthFinding] = (),
    ) -> None:
        self._vjp, self._calls = vjp, [vjp.first()]
        self._sizes = flat({label: np.abs(vjp.cotangent[label] * here) for label, here in vjp.here.items()})
        self._errors = np.zeros(self._sizes.shape)
        units = self._units_of_outputs(seed)
        self._least = flat({label: self._rounding(label, units[label]) for label in vjp.here})
        gradients = vjp.gradients(self._calls[0].returned)
        params = {name: vjp.inputs.arrays[name] for name, value in gradients.items() if value is not None}
        if not params:
            names = ", ".join(vjp.inputs.parts.of)
            raise FastcheckError(f"backward returns None for {names}: expected at least one gradient")
        super().__init__(
            vjp.value,
            lambda arrays: vjp.backpropagated(arrays, vjp.cotangent).returned,
            params,
            noise=noise,
            relative_noise=relative_noise,
            precision=precision,
            vectorized=vectorized,
        )
        if structure is not None:
            self.patterns, self.detecting = self._patterns(structure, seed)
        self.findings += notes
        self.findings += cotangents.of_calls(vjp, self._calls, self.grads)
        self.findings += self._noted([name for name, parts in vjp.inputs.parts.of.items() if parts[0] not in params])

    @property
    def magnitude(self) -> float:
        """The size that the weighted sum of the outputs would have, were their signs random."""
        return rms(self._sizes) * float(np.sqrt(np.count_nonzero(self._sizes)))

    @property
    def carried(self) -> float:
        """The largest change of the outputs that backward computes with: of a saturated unit, the unit itself."""
        return max(self.promised, self.magnitude)

    @property
    def least_noise(self) -> np.ndarray:
        """The least standard deviation of the rounding of each weighted output."""
        return self._least

    @property
    def declared_errors(self) -> np.ndarray:
        """The declared bound on the error of each weighted output."""
        return self._errors

    def parts(self) -> list[tuple[slice, np.ndarray]]:
        """Return the slice of each output, with the sizes of its weighted entries at the start point."""
        ends = np.cumsum([here.size for here in self._vjp.here.values()])
        slices = [slice(end - here.size, end) for end, here in zip(ends, self._vjp.here.values(), strict=True)]
        return [(part, self._sizes[part]) for part in slices if part.stop > part.start]

    @property
    def forward(self) -> ForwardReport | None:
        """The comparison of forward with the reference; None without one."""
        return self._vjp.comparison()

    def blind_spots(self) -> Iterator[str]:
        """Yield what of the inputs and the cotangent would hide mistakes, in words."""
        yield from super().blind_spots()
        yield from blind.constant_cotangent(self._vjp.cotangent)
        yield from blind.single_sample(self.params, self._vjp.here, self.label)

    def label(self, name: str) -> str:
        """Return the user's name for an input."""
        return self._vjp.inputs.label(name)

    def gradient_label(self, name: str) -> str:
        """Return words for the gradient of an input."""
        return f"backward's gradient of {self.label(name)}"

    def place(self, output: int) -> str:
        """Return words for an output, by its position among all."""
        for label, here in self._vjp.here.items():
            if output < here.size:
                return f"{label}{list(index_of(output, here.shape))}"
            output -= here.size
        raise IndexError(output)

    @property
    def vjp(self) -> Vjp:
        """The functions, their inputs and the cotangent."""
        return self._vjp

    def columns(self, name: str, dims: np.ndarray) -> np.ndarray:
        """Return the derivatives of all outputs by some entries of an input: a row for each, of four calls."""
        flat_array = (arrays := self.copies())[name].reshape(-1)
        rows = np.zeros((len(dims), self._sizes.size))
        typical = rms(flat_array) or 1.0
        with np.errstate(all="ignore"):
            for row, dim in zip(rows, dims.tolist(), strict=True):
                here = flat_array[dim]
                step = _COLUMN_STEP * 2.0 ** math.ceil(math.log2(max(abs(here), typical)))
                for times, weight in _FIVE_POINTS.items():
                    flat_array[dim] = here + times * step
                    row += weight / step * self._vjp.outputs_moved(arrays)
                flat_array[dim] = here
        return rows

    def examine(self, errors: Mapping[str, np.ndarray]) -> None:
        """Add the findings on backward with other cotangents, and in other orders of calls."""
        if not any(finding.verdict for finding in self.findings):  # else results differ for that reason
            units = {name: self.half_unit(name) for name in self.grads}
            self.findings += cotangents.examined(self._vjp, self.grads, errors, units, self._read)
            if self._vjp.is_complex:
                self.findings += other_convention(self, self.grads, self._vjp.otherwise(), self._values)

    def _patterns(self, structure: Structure, seed: int) -> tuple[dict[str, Pattern], dict[str, int]]:
        """Return the pattern of each input that has one, and the calls that it took to look for it."""
        outputs = {label: here.shape for label, here in self._vjp.here.items()}
        every = self._vjp.inputs.parts.of
        inputs = {self.label(name): self._vjp.inputs.arrays[parts[0]].shape for name, parts in every.items()}
        checked = {name: inputs[self.label(name)] for name, parts in every.items() if parts[0] in self.params}
        patterns, detecting = dict[str, Pattern](), dict[str, int]()
        for name, one in structure.by_input(checked).items():
            for part in every[name]:
                if isinstance(one, str) and one == DETECT:
                    found = detected(self, part, list(outputs.values()), seed)
                    detecting[part] = found.calls
                    if found.pattern is not None:
                        patterns[part] = found.pattern
                else:
                    patterns[part] = structure.pattern(self.label(name), one, inputs, outputs)
        return patterns, detecting

    def _with_moves(
        self, arrays: Arrays, name: str, dims: np.ndarray, points: np.ndarray, noises: Noise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate as the super class does; the noise is that of the outputs that an entry moves."""
        flat_array, where = arrays[name].reshape(-1), self._near(name)
        values, noise = np.empty(points.shape), np.empty(len(dims))
        if self._stacked is not None:
            for part, several in self._stacked.moved(name, dims, points, where):
                values[:, part] = several.sum(axis=-1).T
                noise[part] = [noises.of(moving) for moving in (several != 0).any(axis=1)]
            return values, noise
        with np.errstate(all="ignore"):
            for column, dim in enumerate(dims.tolist()):
                here, moving = flat_array[dim], np.zeros(self._sizes.shape, bool)
                for row, point in enumerate(points[:, column].tolist()):
                    flat_array[dim] = point
                    try:
                        returned = self._vjp.value(arrays)
                    except Exception:
                        values[row, column], moving[:] = math.nan, True
                        continue
                    terms = self._vjp.terms(returned, where)
                    values[row, column] = terms.sum()
                    moving |= terms != 0
                flat_array[dim] = here
                noise[column] = noises.whole if moving.all() else noises.of(moving)
        return values, noise

    def sent(self) -> dict[str, Any]:
        """Return the function that is differenced, and all inputs."""
        return self._vjp.sent()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_calls": []}

    def _evaluated(self, arrays: Arrays) -> Any:
        return self._vjp.value(arrays)

    def _together(self, stack: Arrays, where: Callable[[], str]) -> np.ndarray:
        return self._vjp.stacked_terms(stack, where)

    @property
    def _size_of_call(self) -> int:
        return self._vjp.size

    def _read(self, returned: Any) -> Arrays:
        return self._values(self._vjp.gradients(returned))

    def _values(self, gradients: Mapping[str, Any]) -> Arrays:
        return {name: self._shaped(name, gradients[name]).values for name in self.params}

    def _matched(self, grad: Any) -> dict[str, Floating]:
        gradients = self._vjp.gradients(grad)
        return {name: self._shaped(name, gradients[name]) for name in self.params}

    def _measured(self, returned: Any, where: Callable[[], str]) -> Evaluation:
        terms = self._vjp.terms(returned, where)
        with np.errstate(all="ignore"):
            return Evaluation(float(terms.sum()), terms)

    def _called_gradient(self) -> dict[str, Floating]:
        """Return the gradient of the first call, at first; later those of new calls, in memory filled with nan."""
        if hasattr(self, "grads"):
            with memory_of_nan([*self.params.values(), *self._vjp.here.values()]):
                self._calls.append(self._vjp.first(again=True))
        return self._matched(self._calls[-1].returned)

    def _repeated(self, again: Arrays) -> tuple[Arrays, list[HealthFinding]]:
        unwritten = [name for name in again if (np.isnan(again[name]) & ~np.isnan(self.grads[name])).any()]
        if unwritten:
            nothing = {name: np.zeros(array.shape) for name, array in again.items()}
            return nothing, [vjp_health.unwritten_memory(unwritten)]
        return super()._repeated(again)

    def _declared(self, noise: float | None, relative_noise: float | None) -> float:
        absolute = 0.0 if noise is None else positive("noise", noise)
        relative = 0.0 if relative_noise is None else positive("relative_noise", relative_noise)
        weights = flat({label: np.abs(array) for label, array in self._vjp.cotangent.items()})
        self._errors = np.maximum(absolute * weights, relative * self._sizes)
        if absolute or relative:
            largest = max(float(np.abs(array).max(initial=0.0)) for array in self._vjp.here.values())
            self.findings.append(health.loss_accuracy(max(absolute, relative * largest), self.names))
        return float(self._errors.sum())

    def _scattered(self) -> tuple[float, list[HealthFinding]]:
        start = self.copies()
        samples = [np.zeros(self._sizes.shape), self._again(start)]
        if not samples[1].any():
            return 0.0, []
        samples += [self._again(start) for _ in range(REPEATS - 2)]
        with np.errstate(all="ignore"):
            spread, size = float(np.ptp(samples, axis=0).max()), float(self._sizes.max())
        bits = max(last_bits(UNITS[precision]) for precision in self._vjp.differenced.precisions.values())
        if not spread <= max(2 * float(self._errors.max()), bits * size) and not spread <= bits * self._scale():
            how = (
                f"they differ by a relative {spread / size:.1g}" if size and spread < np.inf else "some are no numbers"
            )
            raise FastcheckError(
                f"forward returns other outputs when it is called again ({how}): expected the same ones (fix the seed, "
                "or freeze the dropout mask; noise= declares the accuracy of a function that never repeats)"
            )
        each = np.std(samples, axis=0, ddof=1)
        self._least = np.maximum(self._least, each)
        return float(np.linalg.norm(each)), [health.loss_wavers(spread / size if size else np.inf, self.names)]

    def _again(self, start: Arrays) -> np.ndarray:
        """Return the terms of another call at the start point, where forward may not raise."""
        _, terms, raised = self.attempt(start, lambda: "when it is called again")
        if raised is not None:
            raise raised
        assert terms is not None
        return terms

    def _size_of(self, value: float) -> float:
        return self.magnitude

    def _units_of_outputs(self, seed: int) -> dict[str, float]:
        """Return the unit round-off of each output, by its type or its values.

        Outputs that only copy numbers of float32, or negate or add few of them, fit float32 too: what they are
        computed in shows where inputs have more bits.
        """
        vjp = self._vjp
        units = {
            label: max(UNITS[vjp.differenced.precisions[label]], unit_of_values(vjp.here[label])) for label in vjp.here
        }
        seeming = [
            label for label, unit in units.items() if unit > U and vjp.differenced.precisions[label] == "float64"
        ]
        near = vjp.near(seed) if seeming else {}
        return units | {label: unit_of_values(near[label]) for label in seeming if label in near}

    def _rounding(self, label: str, unit: float) -> np.ndarray:
        """Return the standard deviation of rounding an output once."""
        return np.abs(self._vjp.cotangent[label] * self._vjp.here[label]) * (unit / np.sqrt(3))

    def _noted(self, without: list[str]) -> list[HealthFinding]:
        """Return the findings about inputs without a gradient, and about the reference."""
        found = []
        if without:
            moving = [self.label(name) for name in without if self._moves(name)]
            found.append(vjp_health.no_gradient([self.label(name) for name in without], moving))
        if self._vjp.reference is not None:
            found.append(vjp_health.by_reference())
        return found

    def _moves(self, name: str) -> bool:
        """Whether outputs change with an input."""
        parts = {part: self._vjp.inputs.arrays[part] for part in self._vjp.inputs.parts.of[name]}
        moved = {part: np.where(array, array * (1 + MOVED), MOVED) for part, array in parts.items()}
        return bool(self.sample({**self.params, **moved}, lambda: f"with {self.label(name)} moved").any())
