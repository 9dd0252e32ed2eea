"""The argument ``structure``: what the user says of the outputs that each entry of an input can move."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed, nearest, offered, quoted, refuse_unknown
from fastcheck.functions.patterns import Axes, OfOutput, Pattern, Relation, Sparse

DETECT = "detect"

_KINDS = ("elementwise", "per_sample", "conv(stride=1, padding=0, dilation=1, groups=1)", DETECT)
_OPTIONS = ("stride", "padding", "dilation", "groups")


class Geometry(Protocol):
    """The shapes of a convolution and its parameters, as `fastcheck.convolutions.geometry.ConvGeometry` has them."""

    @property
    def input_shape(self) -> Shape: ...
    @property
    def weight_shape(self) -> Shape: ...
    @property
    def output_shape(self) -> Shape: ...
    @property
    def stride(self) -> Shape: ...
    @property
    def padding(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def dilation(self) -> Shape: ...
    @property
    def groups(self) -> int: ...


@dataclass(frozen=True)
class Structure:
    """A structure for each input that has one.

    Parameters
    ----------
    given : object
        As in `fastcheck.check_vjp`.
    geometry : callable
        Makes the `Geometry` of an input's and a weight's shape, and of ``stride``, ``padding``, ``dilation`` and
        ``groups``; raises FastcheckError where these do not fit.
    """

    given: Any
    geometry: Callable[..., Geometry]

    def described(self) -> Any:
        """Return the argument as a report keeps it."""
        if isinstance(self.given, Mapping):
            return {str(name): _described(one) for name, one in self.given.items()}
        return _described(self.given)

    def by_input(self, inputs: Mapping[str, Shape]) -> dict[str, Any]:
        """Return the argument for each input; refuse names of no input, and one pattern for several of them."""
        if isinstance(self.given, Mapping):
            for name in self.given:
                if name not in inputs:
                    raise FastcheckError(
                        f"structure names {quoted(name)}{nearest(name, inputs)}: expected inputs, of {offered(inputs)}"
                    )
            return {name: one for name, one in self.given.items() if one is not None}
        if not isinstance(self.given, str) and len(inputs) > 1:
            raise FastcheckError(
                f"structure is one {_described(self.given)} for {len(inputs)} inputs: expected a dict of them, by "
                f"{offered(inputs)}"
            )
        return dict.fromkeys(inputs, self.given)

    def pattern(self, name: str, one: Any, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> Pattern:
        """Return the pattern of an input.

        Parameters
        ----------
        name : str
            The input's.
        one : object
            Its structure: anything but "detect".
        inputs, outputs : mapping of str to tuple of int
            Shapes of all arrays of floating-point numbers, by the user's names.

        Raises
        ------
        FastcheckError
            If it is no structure, or not one of these shapes.
        """
        if not isinstance(one, str):
            return _sparse(one, math.prod(inputs[name]), sum(map(math.prod, outputs.values())))
        if re.match(r"conv\b", one.strip()):
            return self._convolution(name, one, inputs, outputs)
        refuse_unknown("structure", one, _KINDS)
        make = _elementwise if one == "elementwise" else _per_sample
        made = {label: make(inputs[name], shape) for label, shape in outputs.items()}
        for label, relations in made.items():
            if relations is None:
                expected = (
                    "the same shape, or one that broadcasts to it"
                    if one == "elementwise"
                    else "one first axis, that of the samples"
                )
                raise _unfit(one, f"{name} has shape {inputs[name]} and {label} {outputs[label]}: expected {expected}")
        parts = [OfOutput(outputs[label], relations) for label, relations in made.items()]
        return Axes(one, inputs[name] or (1,), tuple(parts))

    def _convolution(self, name: str, one: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> Pattern:
        options = _options(one)
        fits: dict[tuple[str, str], Geometry] = {}
        refusals = {}
        for pair in itertools.permutations([one for one, shape in inputs.items() if len(shape) > 2], 2):
            try:
                geometry = self.geometry(*(inputs[one] for one in pair), **options)
            except FastcheckError as error:
                refusals[pair] = str(error)
                continue
            if all(shape == geometry.output_shape for shape in outputs.values()):
                fits[pair] = geometry
            else:
                refusals[pair] = (
                    f"{pair[1]} {inputs[pair[1]]} over {pair[0]} {inputs[pair[0]]} gives {geometry.output_shape}, but "
                    f"{' and '.join(f'{label} has shape {shape}' for label, shape in outputs.items())}"
                )
        if not fits:
            why = next(iter(refusals.values()), "expected two inputs of three to five axes, an input and a weight")
            raise _unfit(one, why)
        if len(fits) > 1:
            raise _unfit(one, f"{listed(next(iter(fits)))} may each be its input: expected shapes that tell which")
        ((image, weight), geometry), *_ = fits.items()
        shapes = tuple(outputs.values())
        if name == image:
            return _of_image(one, geometry, shapes)
        if name == weight:
            return _of_weight(one, geometry, shapes)
        if inputs[name] == geometry.weight_shape[:1]:
            return Axes(one, inputs[name], tuple(OfOutput(shape, (Relation(1),)) for shape in shapes))
        raise _unfit(
            one,
            f"{name} has shape {inputs[name]}: expected an input, a weight or a bias; give a dict, by input, of those "
            "that are",
        )


def _unfit(one: str, why: str) -> FastcheckError:
    return FastcheckError(f"structure is {quoted(one)}: {why}")


def _described(one: Any) -> Any:
    if one is None or isinstance(one, str):
        return one
    shape = getattr(one, "shape", None)
    return quoted(one) if shape is None else f"pattern of shape {tuple(shape)}"


def _elementwise(shape: Shape, output: Shape) -> tuple[Relation | None, ...] | None:
    """Return the relations of an input that is broadcast to an output; None where it cannot be."""
    missing = len(output) - len(shape)
    if missing < 0 or any(own not in (1, out) for own, out in zip(shape, output[missing:], strict=True)):
        return None
    relations = [Relation(missing + axis) if own == output[missing + axis] else None for axis, own in enumerate(shape)]
    return tuple(relations) or (None,)


def _per_sample(shape: Shape, output: Shape) -> tuple[Relation | None, ...] | None:
    if not shape or not output or shape[0] != output[0]:
        return None
    return (Relation(0), *(None,) * (len(shape) - 1))


def _options(one: str) -> dict[str, Any]:
    """Read the arguments of ``conv(...)``."""
    expected = "conv(stride=1, padding=0, dilation=1, groups=1)"
    try:
        call = ast.parse(one.strip(), mode="eval").body
        if isinstance(call, ast.Name) and call.id == "conv":
            return {}
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "conv":
            raise ValueError
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise _unfit(one, f"expected arguments by name, as in {expected!r}") from None
    for name in options:
        refuse_unknown(f"argument of structure {quoted(one)}", name, _OPTIONS)
    return options


def _of_image(words: str, geometry: Geometry, outputs: tuple[Shape, ...]) -> Axes:
    """Return the pattern of a convolution's input, its channels split into groups."""
    samples, channels, *space = geometry.input_shape
    groups = geometry.groups
    relations: list[Relation | None] = [Relation(0), Relation(1), None]
    for axis, taps in enumerate(geometry.weight_shape[2:]):
        low, every = geometry.padding[axis][0], geometry.dilation[axis]
        first = low - every * (taps - 1)
        relations.append(Relation(3 + axis, geometry.stride[axis], 1, first, low, every))
    parts = [OfOutput((shape[0], groups, shape[1] // groups, *shape[2:]), tuple(relations)) for shape in outputs]
    return Axes(words, (samples, groups, channels // groups, *space), tuple(parts))


def _of_weight(words: str, geometry: Geometry, outputs: tuple[Shape, ...]) -> Axes:
    """Return the pattern of a convolution's weight: a tap misses the outputs at which it lies in the padding."""
    relations: list[Relation | None] = [Relation(1), None]
    for axis, length in enumerate(geometry.input_shape[2:]):
        low = geometry.padding[axis][0]
        relations.append(Relation(2 + axis, geometry.stride[axis], -geometry.dilation[axis], low, low + length - 1))
    return Axes(words, geometry.weight_shape, tuple(OfOutput(shape, tuple(relations)) for shape in outputs))


def _sparse(given: Any, entries: int, outputs: int) -> Sparse:
    """Read a SciPy sparse matrix or array, or an array, of shape (outputs, entries): what is not zero counts."""
    if hasattr(given, "tocsc"):
        matrix = given.tocsc(copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        shape, starts, rows = matrix.shape, matrix.indptr, matrix.indices
    elif isinstance(given, np.ndarray) and given.dtype.kind in "biuf" and given.ndim == 2:
        shape, (columns, rows) = given.shape, np.nonzero(given.T)
        starts = np.searchsorted(columns, np.arange(given.shape[1] + 1))
    else:
        kinds = ", ".join(map(repr, _KINDS))
        raise FastcheckError(f"structure is {_described(given)}: expected {kinds} or a sparse pattern")
    if tuple(shape) != (outputs, entries):
        turned = " (it is transposed)" if tuple(shape) == (entries, outputs) else ""
        raise FastcheckError(
            f"structure is a pattern of shape {tuple(shape)}{turned}: expected ({outputs}, {entries}), a row for each "
            "output and a column for each entry"
        )
    return Sparse(_described(given), starts.astype(np.int64), rows.astype(np.int64), outputs)
