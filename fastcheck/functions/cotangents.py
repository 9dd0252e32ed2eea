"""Whether a backward pass treats every cotangent, every layout and every order of calls alike.

A gradient checker that feeds one contiguous cotangent sees none of this. `of_calls` reads the two calls that every
check makes. `examined` calls backward nine times more, where nothing is found: with zeros, with a multiple, with two
parts of the cotangent, with equal entries along an axis and again with a stride of zero, with strided memory, with
inputs in strided memory, and after forward was called elsewhere. Each call has its call of forward, the last one two.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.arrays import as_array
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import UNITS
from fastcheck.engine.magnitudes import rms
from fastcheck.functions import layouts
from fastcheck.functions.conventions import shares_memory
from fastcheck.functions.noise import unit_of_values
from fastcheck.functions.state import Arrays, last_bits
from fastcheck.functions.vjp import Backward, Vjp, flat
from fastcheck.metrics import vjp_health
from fastcheck.metrics.health import HealthFinding

SCALE = -16.0
"""Factor on the cotangent: a power of two rounds nothing, and its sign shows what is compared with zero."""

SHRUNK = 0.875
"""Factor on the inputs at which forward is called in between. It leads out of few domains."""

ALLOWED = 2.0
"""Bounds on the gradient's rounding by which two results that should be equal may differ."""

HALVES = 8
"""Roundings to half precision by which an entry may differ: of results, and of what is kept between operations."""

SLIGHT, TYPICAL = 1e-6, 1e-9
"""Fractions of an entry, and of a typical one, by which they may differ in any case. Roundings that are the same at
neighbouring points, as those of saturated units, are not in the bounds; mistakes are far larger."""

ROUNDINGS = 256.0
"""Roundings of backward's arithmetic that count as slight, too. An algorithm may choose its order by the cotangent's
size: results of PyTorch's matrix exponential in float32 differ by a hundred."""


def of_calls(vjp: Vjp, calls: Sequence[Backward], grads: Arrays) -> list[HealthFinding]:
    """Return the findings about the first calls of backward: what they changed, and whose memory they returned.

    Parameters
    ----------
    vjp : Vjp
    calls : sequence of Backward
    grads : dict of str to array
        Copies of what the first one returned.
    """
    return [*_changes(vjp, calls[0]), *_memory(vjp, calls[0], grads)]


def examined(
    vjp: Vjp,
    grads: Arrays,
    errors: Mapping[str, np.ndarray],
    units: Mapping[str, float],
    read: Callable[[Any], Arrays],
) -> list[HealthFinding]:
    """Call backward with other cotangents, layouts and orders, and return what is found.

    Parameters
    ----------
    vjp : Vjp
    grads : dict of str to array
        The gradient.
    errors : mapping of str to float64 array
        Bounds on its rounding.
    units : mapping of str to float
        Unit round-off of each tensor in half precision, 0 for a wider type.
    read : callable
        Takes what backward returned, and returns copies of the gradients.
    """
    made = _Examination(vjp, grads, errors, units, read)
    with warnings.catch_warnings(action="ignore"):  # as PyTorch warns of read-only memory
        parts = (made.zero, made.linear, made.expanded, made.layout, made.inputs, made.order)
        return [finding for part in parts for finding in _guarded(part)]


class _Examination:
    """Calls of backward whose results are compared with the gradient, within the bounds on its rounding."""

    def __init__(
        self,
        vjp: Vjp,
        grads: Arrays,
        errors: Mapping[str, np.ndarray],
        units: Mapping[str, float],
        read: Callable[[Any], Arrays],
    ) -> None:
        self._vjp, self._errors, self._units, self._read = vjp, errors, units, read
        self._grads = {name: grad.astype(np.float64) for name, grad in grads.items()}
        self._rounding = {name: ROUNDINGS * unit_of_values(grad) for name, grad in grads.items()}
        self._here = {name: vjp.inputs.arrays[name] for name in grads}

    def zero(self) -> Iterator[HealthFinding]:
        """A cotangent of zeros."""
        found = self._gradient({label: np.zeros(array.shape) for label, array in self._vjp.cotangent.items()})
        # Where the gradient itself is not finite, that fails by itself.
        far = {name: np.isfinite(self._grads[name]) & (grad != 0) for name, grad in found.items()}
        wrong = [name for name in found if far[name].any()]
        if wrong:
            grad = found[wrong[0]]
            index = index_of(int(np.argmax(far[wrong[0]])), grad.shape)
            yield vjp_health.of_zero(wrong, f"{grad[index]:.4g} in {self._vjp.inputs.label(wrong[0])} at {list(index)}")

    def linear(self) -> Iterator[HealthFinding]:
        """A multiple of the cotangent, and two parts of it: some entries, and the others."""
        cotangent = self._vjp.cotangent
        found = self._gradient({label: SCALE * array for label, array in cotangent.items()})
        with np.errstate(over="ignore"):
            expected = {name: SCALE * grad for name, grad in self._grads.items()}
        wrong = self._wrong(found, expected, abs(SCALE))
        if wrong:
            yield vjp_health.not_linear(
                f"{SCALE:g} times the cotangent", *self._told(wrong, found, expected, "that multiple")
            )
            return
        rng = np.random.default_rng(len(cotangent))
        masks = {label: rng.integers(0, 2, array.shape) for label, array in cotangent.items()}
        first = self._gradient({label: masks[label] * array for label, array in cotangent.items()})
        second = self._gradient({label: (1 - masks[label]) * array for label, array in cotangent.items()})
        with np.errstate(all="ignore"):
            total = {name: first[name] + second[name] for name in first}
            sizes = {name: np.abs(first[name]) + np.abs(second[name]) for name in first}
        larger = max(_ratio(one[name], self._grads[name]) for one in (first, second) for name in one)
        wrong = self._wrong(total, self._grads, 1 + 2 * larger, sizes)
        if wrong:
            told = self._told(wrong, total, self._grads, "the sum of what it returns for each")
            yield vjp_health.not_linear("a sum of two cotangents", *told)

    def expanded(self) -> Iterator[HealthFinding]:
        """A cotangent with equal entries along an axis, and the same with a stride of zero."""
        equal = {label: np.array(layouts.expanded(array)) for label, array in self._vjp.cotangent.items()}
        expected = self._gradient(equal)
        larger = max(_ratio(expected[name], self._grads[name]) for name in expected)
        yield from self._laid_out("expanded", layouts.expanded, equal, expected, larger)

    def layout(self) -> Iterator[HealthFinding]:
        """The cotangent in other memory."""
        found = list(self._laid_out("strided", layouts.all_at_once, self._vjp.cotangent, self._grads, 1.0))
        if found:
            each = [
                finding
                for name, layout in layouts.LAYOUTS.items()
                for finding in self._laid_out(name, layout, self._vjp.cotangent, self._grads, 1.0)
            ]
            yield from each or found

    def inputs(self) -> Iterator[HealthFinding]:
        """The inputs in other memory."""
        vjp = self._vjp
        try:
            call = vjp.backpropagated(self._here, vjp.cotangent, input_layout=layouts.not_contiguous)
        except Exception as error:
            yield vjp_health.refuses("non-contiguous input", error)
            return
        apart = np.abs(vjp.forward_terms(call.output))
        sizes = flat({label: np.abs(vjp.cotangent[label] * array) for label, array in vjp.here.items()})
        bits = max(last_bits(UNITS[precision]) for precision in vjp.outputs.precisions.values())
        if not apart.max() <= bits * float(sizes.max()):
            yield vjp_health.wrong_inputs("forward", (), f"outputs differ by up to {apart.max():.2g}")
            return
        found = self._read(call.returned)
        wrong = self._wrong(found, self._grads, 1.0)
        if wrong:
            yield vjp_health.wrong_inputs("backward", *self._told(wrong, found, self._grads))

    def order(self) -> Iterator[HealthFinding]:
        """A call of forward elsewhere, between forward and backward."""
        other = {name: SHRUNK * array for name, array in self._here.items()}

        def meanwhile() -> None:
            with suppress(Exception):  # outside of its domain
                self._vjp.elsewhere(other)

        found = self._gradient(self._vjp.cotangent, meanwhile=meanwhile)
        wrong = self._wrong(found, self._grads, 1.0)
        if wrong:
            told = self._told(wrong, found, self._grads)
            yield vjp_health.stale_cache(*told) if self._vjp.has_cache else vjp_health.hidden_state(told[1])

    def _gradient(self, cotangent: Mapping[str, np.ndarray], **how: Any) -> Arrays:
        call = self._vjp.backpropagated(self._here, cotangent, **how)
        return {name: grad.astype(np.float64) for name, grad in self._read(call.returned).items()}

    def _laid_out(
        self, name: str, layout: Callable[[Any], Any], cotangent: Arrays, expected: Arrays, scale: float
    ) -> Iterator[HealthFinding]:
        try:
            found = self._gradient(cotangent, layout=layout)
        except Exception as error:
            yield vjp_health.refuses(f"{name} cotangent", error)
            return
        wrong = self._wrong(found, expected, scale)
        if wrong:
            yield vjp_health.wrong_layout(name, *self._told(wrong, found, expected))

    def _wrong(self, found: Arrays, expected: Arrays, scale: float, sizes: Arrays | None = None) -> list[str]:
        """Return the tensors that differ by more than their rounding, which is ``scale`` times that of the gradient."""
        sizes = {name: np.abs(found[name]) for name in found} if sizes is None else sizes
        return [name for name in found if self._far(name, found, expected, scale, sizes[name]).any()]

    def _far(self, name: str, found: Arrays, expected: Arrays, scale: float, sizes: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            apart, rounding = np.abs(found[name] - expected[name]), self._rounding[name]
            slight = max(SLIGHT, rounding, HALVES * self._units[name]) * np.maximum(sizes, np.abs(expected[name]))
            typical = rms(np.where(np.isfinite(expected[name]), expected[name], 0.0))
            slight += max(TYPICAL * scale, rounding) * typical
            near = apart <= ALLOWED * scale * self._errors[name] + slight
        # Where either is not finite, the gradient is, or overflows: that fails by itself.
        return np.isfinite(expected[name]) & np.isfinite(self._grads[name]) & ~near & ~np.isinf(found[name])

    def _told(self, wrong: list[str], found: Arrays, expected: Arrays, what: str = "") -> tuple[list[str], str]:
        """Return the tensors that differ, and words for the first one's largest difference."""
        name = wrong[0]
        with np.errstate(all="ignore"):
            apart = np.abs(found[name] - expected[name])
        index = index_of(int(np.argmax(np.where(np.isnan(apart), np.inf, apart))), apart.shape)
        got, right = found[name][index], expected[name][index]
        words = f"{got:.4g}, not {right:.4g}, in {self._vjp.inputs.label(name)} at {list(index)}"
        return wrong, f"{what} ({words})" if what else words


def _guarded(part: Callable[[], Iterator[HealthFinding]]) -> list[HealthFinding]:
    """Return the findings of one part of the examination, or that backward raises in it."""
    try:
        return list(part())
    except FastcheckError:
        raise
    except Exception as error:
        return [vjp_health.raises(_CALLS[part.__name__], error)]


_CALLS = {
    "zero": "for a cotangent of zeros",
    "linear": "for a multiple or a part of the cotangent",
    "expanded": "for another cotangent",
    "layout": "for another cotangent",
    "inputs": "for other inputs",
    "order": "after forward was called elsewhere",
}
"""Words for the calls of each part."""


def _ratio(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much larger a gradient is than another, typically, and at least 1."""
    sizes = [rms(np.where(np.isfinite(array), array, 0.0)) for array in (one, other)]
    return max(1.0, min(_FAR, sizes[0] / sizes[1])) if sizes[1] else _FAR


_FAR = 1e100
"""The ratio to a gradient of zeros: parts that cancel say nothing of their rounding."""


def _changes(vjp: Vjp, call: Backward) -> Iterator[HealthFinding]:
    if call.changed:
        yield vjp_health.changes("forward", call.changed)
    before = {vjp.inputs.label(name): (vjp.inputs.array(name), call.inputs[name]) for name in vjp.inputs.parts.of}
    before |= {
        label.replace("output", "grad_output", 1): (as_array(label, one), call.cotangent[label])
        for label, one in vjp.cotangents(vjp.cotangent).items()
        if one is not None
    }
    changed = [
        label
        for label, (array, after) in before.items()
        if not np.array_equal(array, as_array(label, after)) and not (vjp.has_cache and label in call.changed)
    ]
    if changed:
        yield vjp_health.changes("backward", changed)


def _memory(vjp: Vjp, call: Backward, grads: Arrays) -> Iterator[HealthFinding]:
    """Yield the findings about the memory of gradients."""
    results = vjp.inputs.gradients(call.returned)
    own = {name: as_array(name, value) for name, value in results.items() if value is not None}
    others = [(vjp.inputs.label(name), as_array(name, call.inputs[name])) for name in vjp.inputs.parts.of]
    others += [("the cotangent", as_array(label, one)) for label, one in call.cotangent.items() if one is not None]
    pairs = []
    for name, array in own.items():
        title = f"the gradient of {vjp.inputs.label(name)}"
        pairs += [f"{title} with {other}" for other, memory in others if shares_memory(array, memory)]
        others.append((title.replace("the gradient", "that"), array))
    if pairs:
        yield vjp_health.shared_memory(pairs)
    after = vjp.gradients(call.returned)
    overwritten = {
        vjp.inputs.label(vjp.inputs.parts.whole(name)[0]): None
        for name, grad in grads.items()
        if not np.array_equal(as_array(name, after[name]).astype(np.float64), grad.astype(np.float64), equal_nan=True)
    }
    if overwritten:
        yield vjp_health.reused_memory(list(overwritten))
