"""A Python function of arrays with the gradient that somebody wrote for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastcheck.cases.arrays import as_floating, finite
from fastcheck.errors import FastcheckError
from fastcheck.geometry import Shape
from fastcheck.naming import LONGEST_VALUE, brief, nearest
from fastcheck.step import rms

ALONE = "params"
"""The tensor's name where one array is given."""

START = "at the start point"

Arrays = dict[str, np.ndarray]


class FunctionCase:
    """A loss, its parameters and its analytic gradient at one point.

    Parameters
    ----------
    loss : callable
        Takes params, as float64 arrays in the form that they are given in, and returns a finite number (or an array of
        size 1).
    grad : callable, array or mapping
        The gradient, or what returns it when called with params: shaped as params, float64, float32 or float16.
    params : array, or mapping of str to arrays
        float64, float32 or float16. They are converted to float64, which is exact.

    Attributes
    ----------
    params : dict of str to float64 array
    grads : dict of str to array
    start : float
        The loss at params.

    Raises
    ------
    FastcheckError
        If an argument is none of these, a name or shape does not fit, a parameter is not finite, or the loss or its
        gradient raises, changes its argument, returns no finite number or differs when called again. A non-finite
        *gradient* is no bad input.
    """

    def __init__(self, loss: Callable[[Any], Any], grad: Any, params: Any) -> None:
        if not callable(loss):
            raise FastcheckError(f"loss is {_brief(loss)}: expected a function of params that returns a number")
        self._loss = loss
        self._grad = grad if callable(grad) else None
        self._named = isinstance(params, Mapping)
        self.params = self._parameters(params)
        self.start = self._at_start()
        self.grads = self._matched(grad) if self._grad is None else self._called_gradient()

    @property
    def has_function(self) -> bool:
        """Whether the gradient is a function, which can be called elsewhere."""
        return self._grad is not None

    def label(self, name: str) -> str:
        """Return what the user calls a tensor."""
        return f"params[{name!r}]" if self._named else ALONE

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors."""
        return {name: array.shape for name, array in self.params.items()}

    def operand(self, name: str) -> np.ndarray:
        """Return a tensor's parameters."""
        return self.params[name]

    def described(self) -> dict[str, Any]:
        """Return the shapes, as a report tells them."""
        return {name: list(shape) for name, shape in self.shapes().items()}

    def size(self, name: str) -> float:
        """Return the root mean square of a tensor's non-zero entries; where there are none, of all tensors', else 1."""
        own = rms(self.params[name])
        return own or rms(np.array([rms(array) for array in self.params.values()])) or 1.0

    def copies(self) -> Arrays:
        """Return arrays of one's own to evaluate at."""
        return {name: array.copy() for name, array in self.params.items()}

    def value(self, arrays: Arrays, where: Callable[[], str]) -> float:
        """Evaluate the loss, whatever number it gives; ``where`` tells what to call the point if it raises."""
        return _number(_called("loss", self._loss, self._packed(arrays), where), where)

    def gradient(self, arrays: Arrays, where: Callable[[], str]) -> Arrays:
        """Evaluate the analytic gradient elsewhere."""
        assert self._grad is not None
        return self._matched(_called("grad", self._grad, self._packed(arrays), where))

    def refuse_changes(self, arrays: Arrays, function: str) -> None:
        """Check that arrays are still equal to params after a function was called with them."""
        for name, array in self.params.items():
            if not np.array_equal(array, arrays[name]):
                raise FastcheckError(
                    f"{function} changes {self.label(name)}, which it is given: expected a function that leaves its "
                    "argument as it is"
                )

    def _packed(self, arrays: Arrays) -> Any:
        return dict(arrays) if self._named else arrays[ALONE]

    def _parameters(self, params: Any) -> Arrays:
        given = params if self._named else {ALONE: params}
        if not given:
            raise FastcheckError("params is an empty mapping: expected at least one array")
        for name in given:
            if not isinstance(name, str):
                raise FastcheckError(f"params has the key {_brief(name)}: expected names (str)")
        return {name: finite(self.label(name), value) for name, value in given.items()}

    def _at_start(self) -> float:
        arrays = self.copies()
        values = []
        for _ in range(2):
            values.append(self.value(arrays, lambda: START))
            self.refuse_changes(arrays, "loss")
        first, second = values
        if not math.isfinite(first):
            raise FastcheckError(f"loss is {first!r} {START}: expected a finite number")
        if first != second:
            raise FastcheckError(
                f"loss is {first!r} and then {second!r} at the same point: expected the same value again "
                "(fix the seed, or freeze the dropout mask)"
            )
        return first

    def _called_gradient(self) -> Arrays:
        arrays = self.copies()
        found = self.gradient(arrays, lambda: START)
        self.refuse_changes(arrays, "grad")
        return found

    def _matched(self, grad: Any) -> Arrays:
        """Return copies of the gradient's arrays, in the order of params."""
        if self._named and not isinstance(grad, Mapping):
            raise FastcheckError(f"grad is {_brief(grad)}: expected a mapping of names to arrays, as params is")
        if not self._named and isinstance(grad, Mapping):
            raise FastcheckError("grad is a mapping: expected an array, as params is")
        given = grad if self._named else {ALONE: grad}
        for name in given:
            if name not in self.params:
                raise FastcheckError(
                    f"grad has the key {_brief(name)}{nearest(name, self.params)}: expected {', '.join(self.params)}"
                )
        for name in self.params:
            if name not in given:
                raise FastcheckError(f"grad has no {name!r}: expected {', '.join(self.params)}")
        return {name: self._shaped(name, given[name]) for name in self.params}

    def _shaped(self, name: str, value: Any) -> np.ndarray:
        label = f"grad[{name!r}]" if self._named else "grad"
        array, expected = as_floating(label, value), self.params[name].shape
        if array.shape != expected:
            raise FastcheckError(f"{label} has shape {array.shape}: expected {expected}, that of {self.label(name)}")
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _called(name: str, function: Callable[[Any], Any], params: Any, where: Callable[[], str]) -> Any:
    """Call a user's function; what it raises becomes one line, chained. Its overflows are values like others."""
    try:
        with np.errstate(all="ignore"):
            return function(params)
    except Exception as error:
        told = " ".join(str(error).split())
        raise FastcheckError(f"{name} raises {type(error).__name__} {where()}{': ' * bool(told)}{told}") from error


def _number(found: Any, where: Callable[[], str]) -> float:
    value = found
    if isinstance(value, np.ma.MaskedArray):
        raise FastcheckError(f"loss returns a masked array {where()}: expected one number")
    if hasattr(value, "item"):  # an array of NumPy's or of another library
        size = math.prod(getattr(value, "shape", ()))
        if size != 1:
            raise FastcheckError(f"loss returns an array of shape {tuple(value.shape)} {where()}: expected one number")
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FastcheckError(f"loss returns {_brief(found)} {where()}: expected one number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _brief(value: Any) -> str:
    """Return a value as a message quotes it, though its representation may have several lines."""
    return brief(repr(value), LONGEST_VALUE)
