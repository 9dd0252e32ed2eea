"""The form in which a user has parameters: one array, arrays by name, or a list or tuple of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.arrays import holds_arrays, is_tensor
from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import COUNTER, STATISTICS
from fastcheck.common.naming import nearest, offered, quoted

ALONE = "params"
"""Name of the tensor where params is a single array. Those of a list are named "params[0]", "params[1]", ..."""


_PARAMETERS = "give params as dict(model.named_parameters())"


@dataclass(frozen=True)
class Form:
    """The form of params, in which functions take them and return their gradient.

    Attributes
    ----------
    names : tuple of str
        Names of the tensors, as reports show them.
    kind : type
        dict, list or tuple, or a named tuple; object where params is one array.
    has_tensors : bool
        Whether tensors of PyTorch are among them.
    """

    names: tuple[str, ...]
    kind: type
    has_tensors: bool

    @classmethod
    def of(cls, params: Any) -> Form:
        """Read the form of params.

        Raises
        ------
        FastcheckError
            If they hold no array, or a name is not a string.
        """
        if hasattr(params, "__next__"):
            named = "named" in getattr(params, "__name__", "")  # a module's named_parameters
            instead = "dict(model.named_parameters())" if named else "list(params)"
            raise FastcheckError(f"params is a {type(params).__name__}: expected arrays, such as {instead}")
        if hasattr(params, "named_parameters"):
            raise FastcheckError("params is a module: expected arrays, such as dict(params.named_parameters())")
        if isinstance(params, Mapping):
            if not params:
                raise FastcheckError("params is an empty mapping: expected at least one array")
            for name in params:
                if not isinstance(name, str):
                    raise FastcheckError(f"params has the key {quoted(name)}: expected names (str)")
            return cls(tuple(params), dict, any(map(is_tensor, params.values())))
        if holds_arrays(params):
            names = tuple(f"{ALONE}[{number}]" for number in range(len(params)))
            return cls(names, type(params), any(map(is_tensor, params)))
        return cls((ALONE,), object, is_tensor(params))

    def packed(self, arrays: Mapping[str, Any]) -> Any:
        """Return arrays by name in this form."""
        if self.kind is object:
            return arrays[ALONE]
        if self.kind is dict:
            return dict(arrays)
        make = getattr(self.kind, "_make", self.kind)  # a named tuple's
        return make([arrays[name] for name in self.names])

    def named(self, label: str, given: Any) -> dict[str, Any]:
        """Return what has this form by name; refuse any other form.

        Parameters
        ----------
        label : str
            The user's name for it: "params", or "grad".
        given : object
        """
        _refuse_pairs(label, given)
        if self.kind is object:
            if isinstance(given, Mapping):
                raise FastcheckError(f"{label} is a mapping: expected an array, like params")
            return {ALONE: given}
        by_name = self._by_name(label, given) if self.kind is dict else self._in_order(label, given)
        for name, value in by_name.items():
            if holds_arrays(value):
                what = f"{self.label(label, name)} is a {type(value).__name__} of arrays"
                raise FastcheckError(f"{what}: expected one array")
            tail = name.rpartition(".")[2]
            if tail == COUNTER and self.kind is dict:
                raise FastcheckError(f"{label} has {name!r}, a counter and not a parameter: {_PARAMETERS}")
        return by_name

    def label(self, label: str, name: str) -> str:
        """Return the user's name for a tensor of ``label``: "grad", "grad['w']" or "grad[0]"."""
        return f"{label}[{name!r}]" if self.kind is dict else label + name.removeprefix(ALONE)

    def _by_name(self, label: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            if holds_arrays(given) and len(given) == len(self.names):
                what = f"{label} is a {type(given).__name__} of arrays, and params a mapping"
                raise FastcheckError(f"{what}: give dict(zip(params, {label}))")
            raise FastcheckError(f"{label} is {quoted(given)}: expected a mapping of names to arrays, like params")
        for name in given:
            if name not in self.names:
                raise FastcheckError(
                    f"{label} has the key {quoted(name)}{nearest(name, self.names)}: expected {offered(self.names)}"
                )
        for name in self.names:
            if name not in given:
                if name.rpartition(".")[2] in STATISTICS:
                    raise FastcheckError(f"{label} has no {name!r}, a statistic and not a parameter: {_PARAMETERS}")
                raise FastcheckError(f"{label} has no {name!r}: expected {offered(self.names)}")
        return {name: given[name] for name in self.names}

    def _in_order(self, label: str, given: Any) -> dict[str, Any]:
        count = len(self.names)
        if not isinstance(given, (list, tuple)):
            raise FastcheckError(f"{label} is {quoted(given)}: expected a list of {count} arrays, like params")
        if len(given) != count:
            raise FastcheckError(f"{label} has {len(given)} entries: expected {count} arrays, like params")
        return dict(zip(self.names, given, strict=True))


def of_other_shape(label: str, given: Any, shape: Shape) -> str:
    """Return what to do with a gradient that has not the shape of its parameter, or an empty string."""
    if isinstance(given, (list, tuple)) and len(given) == 1 and np.shape(given[0]) == shape:
        return f"; torch.autograd.grad returns a tuple: give {label}[0]"
    return ""


def _refuse_pairs(label: str, given: Any) -> None:
    """Refuse a list of pairs of a name and an array, as ``list(model.named_parameters())`` is."""
    if isinstance(given, (list, tuple)) and given:
        first = given[0]
        if isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], str):
            raise FastcheckError(f"{label}[0] is a pair of a name and an array: give dict({label})")
