"""How `forward` and `backward` are called: the forms of inputs, outputs and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from fastcheck.common.arrays import as_array, finite, fresh, holds_arrays, is_complex, is_tensor, made_like
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed, nearest, offered, quoted
from fastcheck.functions.parts import Parts
from fastcheck.functions.state import Arrays

_WHOLE = ("int", "uint", "bool")
"""What names of the types of integers and truth values begin with."""

_OVERLAPS = 10_000
"""Work that goes into the question whether two arrays share memory, before they count as sharing it."""


class Labelled(dict[str, Any]):
    """Inputs by the names that messages give them, or outputs by the ends of these, which are not the user's keys.

    Attributes
    ----------
    held : mapping of str to object
        Further inputs that the functions have already, and are not called with.
    """

    held: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Inputs:
    """The inputs of a function, as the user gave them.

    Attributes
    ----------
    given : dict of str to object
        By name: "input 0", "input 1", ..., or the user's keys.
    kind : type
        dict or Labelled, tuple for any sequence, object for one array alone.
    parts : Parts
        Those that are differentiated.
    arrays : dict of str to float64 array
        The same, by part.
    held : mapping of str to object
        Further inputs that the functions have already.
    """

    given: dict[str, Any]
    kind: type
    parts: Parts
    arrays: Arrays
    held: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Any, precision: str | None) -> Inputs:
        """Read the inputs.

        Raises
        ------
        FastcheckError
            If they are no arrays, none of them is of floating-point numbers, or two of those share memory.
        """
        given: dict[str, Any]
        kind: type
        if isinstance(inputs, Mapping):
            for name in inputs:
                if not isinstance(name, str):
                    raise FastcheckError(f"inputs has the key {quoted(name)}: expected names (str), passed as keywords")
            given, kind = dict(inputs), Labelled if isinstance(inputs, Labelled) else dict
        elif isinstance(inputs, (list, tuple)):
            given, kind = {f"input {number}": value for number, value in enumerate(inputs)}, tuple
        elif hasattr(inputs, "__array__") and not isinstance(inputs, np.generic):
            given, kind = {"input 0": inputs}, object
        else:
            raise FastcheckError(f"inputs is {quoted(inputs)}: expected an array, or a tuple, list or dict of arrays")
        labels = {name: f"inputs[{name!r}]" if kind is dict else name for name in given}
        wanted = [name for name, value in given.items() if _is_differentiated(labels[name], value)]
        parts = Parts.named(wanted, [name for name in wanted if is_complex(given[name])])
        made = cls(given, kind, parts, {}, getattr(inputs, "held", {}))
        for name in wanted:
            for part, one in parts.split(name, labels[name], given[name], precision).items():
                made.arrays[part] = finite(made.label(part), one.values)
        if not wanted:
            kinds = listed(_kind(value) for value in given.values()) or "nothing"
            raise FastcheckError(f"inputs holds {kinds}: expected at least one array of floating-point numbers")
        made._refuse_aliases()
        return made

    def label(self, name: str) -> str:
        """Return the user's name for an input, or for a part of one."""
        name, part = (name, "") if name in self.given else self.parts.whole(name)
        return f"inputs[{name!r}]{part}" if self.kind is dict else name + part

    def array(self, name: str) -> np.ndarray:
        """Return an input that is differentiated, float64 or complex128."""
        return self.parts.joined(name, self.arrays)

    def integers(self) -> Arrays:
        """Return the inputs that are arrays of integers or truth values."""
        others = {**self.held, **{name: value for name, value in self.given.items() if name not in self.parts.of}}
        whole = {name: value for name, value in others.items() if _kind(value).startswith(_WHOLE)}
        return {name: as_array(name, value) for name, value in whole.items() if hasattr(value, "__array__")}

    def made(
        self, arrays: Mapping[str, np.ndarray], own_type: bool, layout: Callable[[Any], Any] = lambda value: value
    ) -> dict[str, Any]:
        """Return all inputs in memory of their own, with the values of these arrays.

        Parameters
        ----------
        arrays : mapping of str to float64 array
            Others keep their values.
        own_type : bool
            Whether arrays have the types that were given; otherwise they are float64.
        layout : callable
            Takes an array, and returns the same values in the memory layout to use.
        """
        return {name: self._one(name, arrays, own_type, layout) for name in self.given}

    def call(self, function: Callable[..., Any], *first: Any, inputs: Mapping[str, Any]) -> Any:
        """Call a function with the inputs, after other arguments."""
        with np.errstate(all="ignore"):
            if issubclass(self.kind, dict):
                return function(*first, **inputs)
            return function(*first, *inputs.values())

    def gradients(self, returned: Any) -> dict[str, Any]:
        """Return what `backward` returned for each input that is differentiated; refuse any other form."""
        if hasattr(returned, "__next__"):
            raise FastcheckError(f"backward returns a {type(returned).__name__}: expected {self._expected}")
        if isinstance(returned, Mapping):
            return self._by_key(returned)
        if isinstance(returned, (list, tuple)) and (len(self.given) > 1 or holds_arrays(returned)):
            for names in (list(self.given), list(self.parts.of)):
                if len(returned) == len(names):
                    return {name: value for name, value in zip(names, returned, strict=True) if name in self.parts.of}
            raise FastcheckError(f"backward returns {_counted(len(returned))}: expected {self._expected}")
        if len(self.parts.of) == 1 and (len(self.given) == 1 or returned is not None):
            return dict.fromkeys(self.parts.of, returned)
        what = f"one {_kind(returned)} array" if hasattr(returned, "shape") else quoted(returned)
        raise FastcheckError(f"backward returns {what}: expected {self._expected}")

    def _one(self, name: str, arrays: Mapping[str, np.ndarray], own_type: bool, layout: Callable[[Any], Any]) -> Any:
        given = self.given[name]
        if name not in self.parts.of:
            return fresh(given)
        values = {part: arrays.get(part, self.arrays[part]) for part in self.parts.of[name]}
        made = layout(made_like(given, self.parts.joined(name, values), own_type))
        return made.requires_grad_(given.requires_grad) if is_tensor(given) else made

    @property
    def _expected(self) -> str:
        """Words for what `backward` should return."""
        if issubclass(self.kind, dict):
            return f"a dict of gradients, of {offered(self.parts.of)}"
        return f"{_counted(len(self.given))}, one per input" if len(self.given) > 1 else "a gradient of the input"

    def _by_key(self, returned: Mapping[Any, Any]) -> dict[str, Any]:
        for key in returned:
            if key not in self.given:
                raise FastcheckError(
                    f"backward returns a gradient of {quoted(key)}{nearest(key, self.given)}: expected {self._expected}"
                )
        for name in self.parts.of:
            if name not in returned:
                raise FastcheckError(f"backward returns no gradient of {name!r}: expected {self._expected}, or None")
        return {name: returned[name] for name in self.parts.of}

    def _refuse_aliases(self) -> None:
        plain = {name: as_array(name, self.given[name]) for name in self.parts.of}
        for one, other in itertools.combinations(plain, 2):
            if shares_memory(plain[one], plain[other]):
                raise FastcheckError(
                    f"{self.label(one)} and {self.label(other)} share memory: expected arrays of their own, such as a "
                    "copy of one of them"
                )


@dataclass(frozen=True)
class Outputs:
    """What a function of arrays returned.

    Attributes
    ----------
    given : dict of str to object
        By label: "output", or "output 0", "output 1", ..., or "output['y']".
    kind : type
        dict, list or tuple, or a named tuple; object for one array alone.
    keys : tuple
        The user's keys, of a dict.
    parts : Parts
        Of those of floating-point numbers.
    arrays : dict of str to array
        The same, by part, in their own types.
    precisions : dict of str to str
        By part.
    """

    given: dict[str, Any]
    kind: type
    keys: tuple[Any, ...]
    parts: Parts
    arrays: Arrays
    precisions: dict[str, str]

    @classmethod
    def of(cls, returned: Any, function: str, where: Callable[[], str]) -> Outputs:
        """Read what a function returned.

        Parameters
        ----------
        returned : object
        function : str
            Its name, for messages.
        where : callable
            Returns words for the place where it was called.
        """
        if returned is None or hasattr(returned, "__next__"):
            what = "None" if returned is None else f"a {type(returned).__name__}"
            raise FastcheckError(
                f"{function} returns {what} {where()}: expected an array, or a tuple or dict of arrays"
            )
        keys: tuple[Any, ...] = ()
        given: dict[str, Any]
        kind: type
        if isinstance(returned, Mapping):
            keys = tuple(returned)
            written = str if isinstance(returned, Labelled) else _in_brackets
            given, kind = {f"output{written(key)}": value for key, value in returned.items()}, dict
        elif holds_arrays(returned) or (isinstance(returned, (list, tuple)) and any(map(_is_container, returned))):
            given, kind = {f"output {number}": value for number, value in enumerate(returned)}, type(returned)
        else:
            given, kind = {"output": returned}, object
        wanted = []
        for label, value in given.items():
            name = f"{label} of {function}"
            if _is_container(value) and kind is not object:
                advice = " (has_cache=True takes output and cache)" * issubclass(kind, tuple)
                raise FastcheckError(f"{name} is a {type(value).__name__} {where()}: expected an array{advice}")
            if not _is_whole(name, value):
                wanted.append(label)
        if not wanted:
            what = listed(_kind(value) for value in given.values()) or "nothing"
            raise FastcheckError(f"{function} returns {what} {where()}: expected arrays of floating-point numbers")
        parts = Parts.named(wanted, [label for label in wanted if is_complex(given[label])])
        read = {
            part: one
            for label in wanted
            for part, one in parts.split(label, f"{label} of {function}", given[label]).items()
        }
        arrays = {part: one.values for part, one in read.items()}
        return cls(given, kind, keys, parts, arrays, {part: one.precision for part, one in read.items()})

    def kept(self) -> Outputs:
        """Return the same outputs with copies of the arrays: some functions return one buffer again and again."""
        return replace(self, arrays={label: array.copy() for label, array in self.arrays.items()})

    def array(self, label: str) -> np.ndarray:
        """Return an output of floating-point numbers, float64 or complex128."""
        return self.parts.joined(label, {part: self.arrays[part].astype(np.float64) for part in self.parts.of[label]})

    def made(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return cotangents for these outputs, in their types and in memory of their own; None where there is none.

        Parameters
        ----------
        values : mapping of str to float64 array
            By part.
        """
        return {
            label: made_like(given, self.parts.joined(label, values), own_type=True) if label in self.parts.of else None
            for label, given in self.given.items()
        }

    def split(self, cotangents: Mapping[str, Any]) -> Arrays:
        """Return cotangents of these outputs by part, in float64."""
        return {
            part: np.array(one.values, np.float64)
            for label in self.parts.of
            for part, one in self.parts.split(label, _cotangent(label), cotangents[label]).items()
        }

    def packed(self, cotangents: Mapping[str, Any]) -> Any:
        """Return cotangents in the form of the outputs."""
        values = list(cotangents.values())
        if self.kind is object:
            return values[0]
        if self.kind is dict:
            return dict(zip(self.keys, values, strict=True))
        return getattr(self.kind, "_make", self.kind)(values)

    def unpacked(self, grad_output: Any) -> dict[str, np.ndarray]:
        """Return the user's cotangent of each output of floating-point numbers, in float64; refuse any other form."""
        values = dict(zip(self.given, self._values(grad_output), strict=True))
        made = self.split(values)
        for part, array in self.arrays.items():
            if made[part].shape != array.shape:
                label, _ = self.parts.whole(part)
                what = f"{_cotangent(label)} has shape {made[part].shape}"
                raise FastcheckError(f"{what}: expected {array.shape}, that of {label}")
            if not np.isfinite(made[part]).all():
                raise FastcheckError(
                    f"{_cotangent(part)} has entries that are nan or infinite: expected finite numbers"
                )
        return made

    def _values(self, grad_output: Any) -> list[Any]:
        if self.kind is object:
            return [grad_output]
        if self.kind is dict:
            if not isinstance(grad_output, Mapping) or set(grad_output) != set(self.keys):
                raise FastcheckError(f"grad_output is {quoted(grad_output)}: expected a dict of {listed(self.given)}")
            return [grad_output[key] for key in self.keys]
        if not isinstance(grad_output, (list, tuple)) or len(grad_output) != len(self.given):
            count = len(self.given)
            raise FastcheckError(f"grad_output is {quoted(grad_output)}: expected {count} arrays, like the outputs")
        return list(grad_output)


def of_one_point(returned: Any, function: str) -> Any:
    """Return what a vectorised function returned for one point without the leading axis: views, in the same form."""
    if isinstance(returned, Mapping):
        return {key: of_one_point(value, function) for key, value in returned.items()}
    if _is_container(returned):
        make = getattr(type(returned), "_make", type(returned))
        return make([of_one_point(value, function) for value in returned])
    shape = getattr(returned, "shape", None)
    if shape is not None and tuple(shape[:1]) != (1,):
        raise FastcheckError(
            f"{function} returns shape {tuple(shape)} for one point: expected a leading axis of length 1, as "
            "vectorized=True says"
        )
    return returned if shape is None else returned[0]


def shares_memory(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays share memory, as far as that is known after a moderate amount of work."""
    try:
        return np.shares_memory(one, other, max_work=_OVERLAPS)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _is_differentiated(label: str, value: Any) -> bool:
    """Whether an input is an array of floating-point numbers; refuse those that hide arrays, and unusable types."""
    if isinstance(value, Mapping) or holds_arrays(value):
        held = list(value.values()) if isinstance(value, Mapping) else list(value)
        if any(_is_container(one) or (hasattr(one, "__array__") and not _is_whole(label, one)) for one in held):
            raise FastcheckError(f"{label} is a {type(value).__name__} of arrays: expected each array as an input")
        return False
    if not hasattr(value, "__array__") or isinstance(value, np.generic):
        return False
    return not _is_whole(label, value)


def _is_whole(label: str, value: Any) -> bool:
    """Whether a value is an array of integers or booleans, or of text."""
    if is_tensor(value):
        return not (value.is_floating_point() or value.is_complex() or value.is_quantized)
    dtype = getattr(value, "dtype", None)
    if dtype == np.dtype(object):
        raise FastcheckError(f"{label} has dtype object: expected numbers (an array of arrays is made by np.stack)")
    return isinstance(dtype, np.dtype) and dtype.kind in "iubSU" and not isinstance(value, np.ma.MaskedArray)


def _is_container(value: Any) -> bool:
    return value is not None and isinstance(value, (Mapping, list, tuple))


def _in_brackets(key: Any) -> str:
    return f"[{key!r}]"


def _cotangent(label: str) -> str:
    """Return the name of an output's cotangent."""
    return label.replace("output", "grad_output", 1)


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else str(dtype).removeprefix("torch.")


def _counted(count: int) -> str:
    return f"{count} gradient{'s' * (count != 1)}"
