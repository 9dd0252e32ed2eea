"""A forward pass of arrays and the backward pass that was written for it, called at one point and near it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape, index_of
from fastcheck.common.arrays import as_array, as_it_is, is_complex, refuse_non_finite
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import quoted, refuse_unknown
from fastcheck.functions import conventions
from fastcheck.functions.case import START
from fastcheck.functions.conventions import Inputs, Outputs
from fastcheck.functions.parts import CONVENTIONS, Parts
from fastcheck.functions.state import Arrays
from fastcheck.metrics.verdict import norm_rule
from fastcheck.reports.tensor_report import ForwardReport

Layout = Callable[[Any], Any]
"""Takes an array, and returns the same values in another memory layout."""


NEAR = 2.0**-12
"""Fraction of themselves by which inputs are moved, to see in how many bits outputs are computed."""


class Backward(NamedTuple):
    """A call of `backward`, after one of `forward`.

    Attributes
    ----------
    output : object
        What forward returned.
    inputs : dict
        By name: those that backward had, or the ones in its cache. They are as the calls left them.
    cotangent : dict
        By output, as the call left it.
    returned : object
    changed : tuple of str
        Labels of the inputs that forward changed.
    """

    output: Any
    inputs: dict[str, Any]
    cotangent: dict[str, Any]
    returned: Any
    changed: tuple[str, ...]


class Vjp:
    """A forward pass, its inputs, a cotangent, and the backward pass there. Every call has memory of its own.

    Parameters
    ----------
    forward, backward, inputs, has_cache, grad_output, complex_convention, precision, reference, vectorized, seed
        As in `fastcheck.check_vjp`.

    Attributes
    ----------
    inputs : Inputs
    outputs : Outputs
        What forward returned at the start point.
    differenced : Outputs
        What forward, or the reference in its place, returned there.
    here : dict of str to float64 array
        The same, by output, or by part of one that is complex.
    cotangent : dict of str to float64 array
        Their weights in the loss.
    convention : str
        The convention of complex gradients.
    has_cache : bool
    reference : callable or None
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        inputs: Any,
        *,
        has_cache: bool = False,
        grad_output: Any = None,
        complex_convention: str = "torch",
        precision: str | None = None,
        reference: Callable[..., Any] | None = None,
        vectorized: bool = False,
        seed: int = 0,
    ) -> None:
        for name, function in (("forward", forward), ("backward", backward), ("reference", reference or forward)):
            if not callable(function):
                raise FastcheckError(f"{name} is {quoted(function)}: expected a function of the inputs")
        if not isinstance(has_cache, (bool, np.bool_)):
            raise FastcheckError(f"has_cache is {quoted(has_cache)}: expected True or False")
        if has_cache and vectorized and reference is None:
            raise FastcheckError(
                "has_cache and vectorized are both True: backward, which is not vectorised, would get a cache with the "
                "leading axis; expected a vectorised reference=, or a backward of the inputs"
            )
        self._forward, self._backward, self.reference = forward, backward, reference
        self._stacks = (reference or forward) if vectorized else None
        refuse_unknown("complex_convention", complex_convention, CONVENTIONS)
        self.convention = complex_convention
        self.has_cache, self.inputs = bool(has_cache), Inputs.of(inputs, precision)
        self.outputs = self._at_start("forward", forward)
        self.differenced = self.outputs if reference is None else self._at_start("reference", reference)
        self._refuse_other(self.differenced, lambda: START)
        self._returns_one = self.differenced.kind is object and len(self.differenced.arrays) == 1
        self.here = {label: np.array(array, np.float64) for label, array in self.differenced.arrays.items()}
        self.cotangent = self.representable(self._drawn(seed) if grad_output is None else self._given(grad_output))

    def sent(self) -> dict[str, Any]:
        """Return what of the user's must be sent to other processes that evaluate the function, by name."""
        labelled = {self.inputs.label(name): value for name, value in self.inputs.given.items()}
        return {self._name: self.reference or self._forward} | labelled

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs to evaluate the function: no backward."""
        return self.__dict__ | {"_backward": None} | ({} if self.reference is None else {"_forward": None})

    def comparison(self) -> ForwardReport | None:
        """Compare forward with the reference, within a generous bar; return None without a reference."""
        if self.reference is None:
            return None
        ratios = {label: self._ratio(label) for label in self.outputs.parts.of}
        label = max(ratios, key=lambda label: ratios[label] / self._generous(label))
        if ratios[label] <= self._generous(label):
            return ForwardReport("pass", max(ratios.values()), None)
        mine, other = self._both(label)
        index = index_of(int(np.argmax(np.abs(mine - other))), mine.shape)
        diagnosis = {
            "bug": f"forward and reference differ in {label}",
            "evidence": f"largest at index {list(index)}: forward {mine[index]:.6g}, reference {other[index]:.6g}",
            "try": "give as reference the same function in float64, with the same arguments",
        }
        return ForwardReport("fail", ratios[label], diagnosis)

    def value(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """Return what forward, or the reference in its place, returns for float64 inputs."""
        inputs = self.inputs.made(arrays, own_type=False)
        if self.reference is not None:
            return self._called(self.reference, inputs)
        return self._split(self._called(self._forward, inputs))[0]

    def near(self, seed: int) -> dict[str, np.ndarray]:
        """Return the outputs where every input is moved by up to `NEAR` of itself; none where that raises."""
        rng = np.random.default_rng([seed, 1])
        arrays = {
            name: array * (1 + rng.uniform(-NEAR, NEAR, array.shape)) for name, array in self.inputs.arrays.items()
        }
        try:
            return self._outputs_near(arrays)
        except Exception:
            return {}

    def outputs_moved(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return by how much each output differs from the one at the start point, on one axis; nan where it raises."""
        try:
            outputs = self._outputs_near(arrays)
        except Exception:
            return np.full(sum(here.size for here in self.here.values()), np.nan)
        return flat({label: outputs[label] - here for label, here in self.here.items()})

    def terms(self, returned: Any, where: Callable[[], str]) -> np.ndarray:
        """Return by how much each weighted output differs from the one at the start point.

        Parameters
        ----------
        returned : object
            As `value` returned it.
        where : callable
            Returns words for the place of the call.
        """
        plain = as_it_is(returned) if self._returns_one else None
        if plain is not None:
            [(label, here)] = self.here.items()
            if plain.shape == here.shape:  # most often, at once
                with np.errstate(all="ignore"):
                    return (self.cotangent[label] * (plain - here)).reshape(-1)
        return self._weighted(Outputs.of(returned, self._name, where), self.here, where)

    def stacked_terms(self, stack: Mapping[str, np.ndarray], where: Callable[[], str]) -> np.ndarray:
        """Return the same for points along a leading axis of the inputs: a row for each."""
        assert self._stacks is not None
        count = len(next(iter(stack.values())))
        every = {name: np.broadcast_to(array, (count, *array.shape)) for name, array in self.inputs.arrays.items()}
        returned = self.inputs.call(self._stacks, inputs=self.inputs.made({**every, **stack}, own_type=False))
        outputs = Outputs.of(returned, self._name, where)
        self._refuse_other(outputs, where, (count,))
        with np.errstate(all="ignore"):
            changes = {
                label: outputs.arrays[label].astype(np.float64, copy=False) - self.here[label] for label in self.here
            }
            rows = [(self.cotangent[label] * change).reshape(count, -1) for label, change in changes.items()]
        return np.concatenate(rows, axis=1)

    def forward_terms(self, returned: Any) -> np.ndarray:
        """Return the same of what forward returned at the start point."""
        return self._weighted(Outputs.of(returned, "forward", lambda: START), self.outputs.arrays, lambda: START)

    def first(self, again: bool = False) -> Backward:
        """Call backward at the start point, where it may not raise, or call it again there."""
        try:
            return self.backpropagated(self.inputs.arrays, self.cotangent)
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by("backward", error, "when it is called again" if again else START) from error

    def backpropagated(
        self,
        arrays: Mapping[str, np.ndarray],
        cotangent: Mapping[str, np.ndarray],
        *,
        layout: Layout = lambda value: value,
        input_layout: Layout = lambda value: value,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Backward:
        """Call forward, then backward, each with arrays of its own.

        Parameters
        ----------
        arrays : mapping of str to float64 array
            Inputs; others are as at the start point.
        cotangent : mapping of str to float64 array
            By output.
        layout, input_layout : callable
            Memory layouts of cotangent and inputs.
        meanwhile : callable
            Called between the two.
        """
        inputs = self._own(arrays, input_layout)
        before = self._own(arrays)
        output, cache = self._split(self._called(self._forward, inputs))
        changed = tuple(self.inputs.label(name) for name in self.inputs.parts.of if _differ(inputs[name], before[name]))
        made = {label: one if one is None else layout(one) for label, one in self.cotangents(cotangent).items()}
        packed = self.outputs.packed(made)
        meanwhile()
        if self.has_cache:
            with np.errstate(all="ignore"):
                return Backward(output, inputs, made, self._backward(packed, cache), changed)
        inputs = self._own(arrays, input_layout)
        return Backward(output, inputs, made, self.inputs.call(self._backward, packed, inputs=inputs), changed)

    def elsewhere(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Call forward at other inputs."""
        self._called(self._forward, self._own(arrays))

    def cotangents(self, cotangent: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return cotangents as backward gets them, by output; None for one that is not differentiated."""
        return self.outputs.made(self._conjugated(self.outputs.parts, cotangent))

    @property
    def is_complex(self) -> bool:
        """Whether an input or an output is complex."""
        return any(len(parts) > 1 for one in (self.inputs, self.outputs) for parts in one.parts.of.values())

    def otherwise(self) -> Vjp:
        """Return the same functions, with backward understood by the other convention of complex gradients."""
        other = object.__new__(Vjp)
        other.__dict__.update(self.__dict__, convention=next(one for one in CONVENTIONS if one != self.convention))
        return other

    def representable(self, cotangent: Mapping[str, np.ndarray]) -> Arrays:
        """Return cotangents as they are once rounded to the outputs' types."""
        return self.outputs.split(self.outputs.made(cotangent))

    def gradients(self, returned: Any) -> dict[str, Any]:
        """Return what backward returned for each input, or its parts where an input is complex."""
        parts, found = self.inputs.parts, dict[str, Any]()
        for name, value in self.inputs.gradients(returned).items():
            if value is None or not (is_complex(value) or len(parts.of[name]) > 1):
                found |= dict.fromkeys(parts.of[name], value)
            else:
                split = parts.split(name, f"backward's gradient of {self.inputs.label(name)}", value)
                found |= self._conjugated(parts, {part: one.values for part, one in split.items()})
        return found

    @property
    def size(self) -> int:
        """The numbers of a call: entries of all inputs that are arrays, and of outputs."""
        arrays = (*self.inputs.arrays.values(), *self.here.values())
        return sum(array.size for array in arrays)

    @property
    def _name(self) -> str:
        return "reference" if self.reference else "forward"

    def _outputs_near(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs near the start point."""
        outputs = Outputs.of(self.value(arrays), self._name, lambda: "near the start point")
        self._refuse_other(outputs, lambda: "near the start point")
        return {label: np.array(array, np.float64) for label, array in outputs.arrays.items()}

    def _called(self, function: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        """Call a function of the inputs; a vectorised one, with a leading axis of length 1."""
        if function is not self._stacks:
            return self.inputs.call(function, inputs=inputs)
        stack = {name: value[None] if name in self.inputs.parts.of else value for name, value in inputs.items()}
        returned = self.inputs.call(function, inputs=stack)
        return conventions.of_one_point(returned, self._name)

    def _own(self, arrays: Mapping[str, np.ndarray], layout: Layout = lambda value: value) -> dict[str, Any]:
        """Return inputs as forward and backward get them."""
        return self.inputs.made(arrays, self.reference is not None, layout)

    def _conjugated(self, parts: Parts, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return gradients or cotangents of the convention in PyTorch's, or the other way round."""
        return dict(arrays) if self.convention == "torch" else parts.conjugated(arrays)

    def _at_start(self, name: str, function: Callable[..., Any]) -> Outputs:
        """Call a function at the start point, where its outputs must be finite."""
        mine = name == "forward"
        try:
            inputs = self._own({}) if mine else self.inputs.made({}, own_type=False)
            returned = self._called(function, inputs)
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by(name, error, START) from error
        outputs = Outputs.of(self._split(returned)[0] if mine else returned, name, lambda: START)
        for label, array in outputs.arrays.items():
            refuse_non_finite(f"{label} of {name}", array)
        if not sum(array.size for array in outputs.arrays.values()):
            raise FastcheckError(f"{name} returns empty arrays {START}: expected at least one number")
        return outputs.kept()

    def _split(self, returned: Any) -> tuple[Any, Any]:
        """Return what forward returned as output and cache."""
        if not self.has_cache:
            return returned, None
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            what = f"{len(returned)} values" if isinstance(returned, (tuple, list)) else f"a {type(returned).__name__}"
            raise FastcheckError(f"forward returns {what}: expected (output, cache), as has_cache=True says")
        return returned[0], returned[1]

    def _weighted(self, outputs: Outputs, start: Mapping[str, np.ndarray], where: Callable[[], str]) -> np.ndarray:
        self._refuse_other(outputs, where)
        with np.errstate(all="ignore"):
            changes = {label: outputs.arrays[label].astype(np.float64, copy=False) - start[label] for label in start}
            return flat({label: self.cotangent[label] * change for label, change in changes.items()})

    def _refuse_other(self, outputs: Outputs, where: Callable[[], str], leading: Shape = ()) -> None:
        """Refuse outputs of other shapes than forward's at the start point."""
        expected, parts = self.outputs.arrays, self.outputs.parts.of
        if outputs.parts.of.keys() != parts.keys():
            count = len(outputs.parts.of)
            raise FastcheckError(
                f"{self._name} returns {count} output{'s' * (count != 1)} {where()}: expected {len(parts)}, as "
                "in forward's first call"
            )
        for label, names in parts.items():
            if names != outputs.parts.of[label]:
                kinds = ("real", "complex") if len(names) == 2 else ("complex", "real")
                raise FastcheckError(
                    f"{label} of {self._name} is {kinds[0]} {where()}: expected a {kinds[1]} array, as in forward's "
                    "first call"
                )
        for label, array in outputs.arrays.items():
            shape = (*leading, *expected[label].shape)
            if array.shape != shape:
                raise FastcheckError(
                    f"{label} of {self._name} has shape {array.shape} {where()}: expected {shape}, as in forward's "
                    f"first call{', behind the leading axis' * bool(leading)}"
                )

    def _drawn(self, seed: int) -> Arrays:
        """Return random cotangents: sizes between a half and three halves, and random signs."""
        rng = np.random.default_rng([seed, len(self.here)])
        return {
            label: rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1.0, 1.0], array.shape)
            for label, array in self.here.items()
        }

    def _given(self, grad_output: Any) -> Arrays:
        """Return the user's cotangents."""
        return self._conjugated(self.outputs.parts, self.outputs.unpacked(grad_output))

    def _generous(self, label: str) -> float:
        """Return the largest norm ratio of forward and reference: half of the digits of forward's type."""
        return norm_rule(self.outputs.precisions[self.outputs.parts.of[label][0]]) ** 0.5

    def _both(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Return an output of forward, and that of the reference."""
        return self.outputs.array(label), self.outputs.parts.joined(label, self.here)

    def _ratio(self, label: str) -> float:
        mine, other = self._both(label)
        size = max(float(np.abs(mine).max(initial=0.0)), float(np.abs(other).max(initial=0.0))) or 1.0
        apart, both = np.linalg.norm(mine / size - other / size), np.linalg.norm(mine / size + other / size)
        return float(apart / both) if both else float(np.inf if apart else 0.0)


def flat(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return arrays one after another, on one axis."""
    if len(arrays) == 1:
        return next(iter(arrays.values())).reshape(-1)
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def _differ(one: Any, other: Any) -> bool:
    """Whether two arrays of the same shape differ in a value."""
    return not np.array_equal(as_array("input", one), as_array("input", other), equal_nan=True)
