"""Likely causes for a convolution's arrays that do not fit: another order of axes, or arguments that were not given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastcheck.common.arguments import Shape, flag, per_axis
from fastcheck.common.errors import FastcheckError
from fastcheck.convolutions import layout
from fastcheck.convolutions.geometry import paddings
from fastcheck.convolutions.layout import ACTIVATIONS, KERNELS

Shapes = Mapping[str, Shape]
"""Shapes by key: input, weight, and those of bias, output, grad_output, grad_input, grad_weight, grad_bias present."""

DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "transposed": False,
    "output_padding": 0,
    "padding_mode": "zeros",
}
"""Arguments of a convolution that is given none."""

_TRIED = {"padding": range(1, 17), "stride": range(2, 9), "dilation": range(2, 9), "output_padding": range(1, 8)}
"""Values that are tried for arguments that were not given."""

_LIKELY = (
    ("padding",),
    ("stride",),
    ("stride", "padding"),
    ("dilation",),
    ("padding", "dilation"),
    ("stride", "dilation"),
    ("stride", "padding", "dilation"),
)
"""The arguments that are tried together, the likeliest first."""

_LIKELY_TRANSPOSED = (
    (),
    ("output_padding",),
    ("padding",),
    ("stride",),
    ("padding", "output_padding"),
    ("stride", "padding"),
    ("stride", "output_padding"),
    ("stride", "padding", "output_padding"),
    ("dilation",),
    ("padding", "dilation"),
)
"""Those of a transposed convolution."""


class Tried(NamedTuple):
    """What did not fit.

    Attributes
    ----------
    shapes, first : mapping of str to Shape
        As given, and channels-first.
    arguments : mapping
        Those of `DEFAULTS` that were given.
    last : bool
        Whether the arrays were said to be channels-last.
    absent : str
        Words for an argument that was not given.
    fit : callable
        Takes channels-first shapes and arguments; returns whether they fit.
    """

    shapes: Shapes
    first: Shapes
    arguments: Mapping[str, Any]
    last: bool
    absent: str
    fit: Callable[[Shapes, Mapping[str, Any]], bool]

    def likely_arguments(self, shapes: Shapes) -> list[dict[str, Any]]:
        """Return the likeliest arguments that make all fit, and were not given; and others, if as few will do."""
        candidates = _candidates(shapes, self.arguments)
        fitting = (found for found in candidates if self.fit(shapes, {**self.arguments, **found}))
        first = next(fitting, None)
        if first is None:
            return []
        other = next((found for found in fitting if found.keys() != first.keys()), first)
        return [first] if other is first or len(other) > len(first) else [first, other]


def with_cause(message: str, tried: Tried) -> str:
    """Return a refusal with the likeliest reason, if one is found."""
    depthwise = _kerass_depthwise(tried)
    if depthwise:
        return f"{message}; {depthwise}"
    readings = list(_readings(tried.shapes, tried.last, tried.arguments.get("transposed", False)))
    for hint, read in readings:
        if tried.fit(read, tried.arguments):
            return f"{message}; {hint}"
    likely = tried.likely_arguments(tried.first)
    if likely:
        return _missing(message, likely, tried.absent)
    for hint, read in readings:
        if tried.likely_arguments(read):
            return f"{message}; {hint}"
    return message + _of_ranks(tried.shapes)


def _readings(shapes: Shapes, last: bool, transposed: bool) -> Iterator[tuple[str, Shapes]]:
    """Yield other ways to read the arrays' axes, each with what it takes."""
    first = {name: layout.shape_first(name, shape) for name, shape in shapes.items()}
    if last:
        yield "the arrays look channels-first: leave layout out", shapes
    else:
        yield "the arrays look channels-last: add layout='NHWC' (--layout NHWC)", first
    for names, by, words in _orders(len(shapes["input"]), last, transposed):
        present = [name for name in names if name in shapes and len(shapes[name]) == len(by) > 2]
        for some in (present, *([name] for name in present)):
            turned = {name: tuple(shapes[name][axis] for axis in by) for name in some}
            read = {name: layout.shape_first(name, shape) for name, shape in turned.items()} if last else turned
            yield f"give {' and '.join(some)} as .transpose{by}: {words}", {**(first if last else shapes), **read}
    given = first if last else shapes
    yield "input and weight look exchanged", {**given, "input": given["weight"], "weight": given["input"]}


def _orders(axes: int, last: bool, transposed: bool) -> tuple[tuple[Sequence[str], Shape, str], ...]:
    """Return other orders of axes that people have: for which arrays, the transposition, and in words."""
    space = tuple(range(2, axes))
    a, b = "IO" if transposed else "OI"  # the axes of a kernel, input and output channels
    if last:
        return (
            (KERNELS, (*space, 1, 0), f"{a}{b}HW becomes HW{b}{a}"),
            (KERNELS, (*range(1, axes), 0), f"{a}HW{b} becomes HW{b}{a}"),
        )
    return (
        (KERNELS, layout.order("weight", axes), f"HW{b}{a} becomes {a}{b}HW"),
        (KERNELS, (1, 0, *space), f"{'input channels' if transposed else 'filters'} come first"),
        (KERNELS, layout.order("input", axes), f"{a}HW{b} becomes {a}{b}HW"),
        (ACTIVATIONS, layout.order("input", axes), "NHWC becomes NCHW"),
    )


def _kerass_depthwise(tried: Tried) -> str:
    """Return what to do with a kernel of Keras' DepthwiseConv2D, (taps..., C_in, multiplier); else an empty string."""
    if not tried.last or len(tried.shapes["weight"]) < 3 or len(tried.shapes["input"]) < 3:
        return ""
    *taps, channels, multiplier = tried.shapes["weight"]
    kernel = (channels * multiplier, 1, *taps)
    read = {name: kernel if name in KERNELS else shape for name, shape in tried.first.items()}
    if not tried.fit(read, {**tried.arguments, "groups": channels}):
        return ""
    flat = (*taps, 1, channels * multiplier)
    return f"a depthwise kernel needs .reshape{flat}, its gradient too, and groups={channels}"


def _candidates(shapes: Shapes, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield values of arguments that were not given, with which the outputs may have their sizes."""
    output = shapes.get("grad_output", shapes.get("output", ()))
    input, weight = shapes["input"], shapes["weight"]
    if not 3 <= len(input) == len(weight) == len(output) <= 5 or 0 in (*input, *weight):
        return
    if "transposed" in arguments:
        yield from _of_kind(shapes, output, arguments)
        return
    enlarged = all(out >= size + k for out, size, k in zip(output[2:], input[2:], weight[2:], strict=True))
    for transposed in (True, False) if enlarged else (False, True):
        kind = {"transposed": True} if transposed else {}
        for found in _of_kind(shapes, output, {**arguments, **kind}):
            yield kind | found


def _of_kind(shapes: Shapes, output: Shape, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield such values for a convolution that is known to be transposed, or not to be."""
    input, weight = shapes["input"], shapes["weight"]
    split, whole = (weight[1], output[1]) if arguments.get("transposed") else (weight[1], input[1])
    groups = dict[str, Any]()
    if "groups" not in arguments and split != whole and whole % split == 0:
        groups = {"groups": whole // split}
        yield groups
    try:
        search = _Search.of(input[2:], weight[2:], output[2:], arguments)
    except FastcheckError:  # what was given is wrong in itself
        return
    for found in search.found():
        yield groups | found


@dataclass(frozen=True)
class _Search:
    """A search for arguments that give an output its size.

    Attributes
    ----------
    sizes, taps, outputs : Shape
    given : dict of str to Shape
        Arguments that were given, one for each axis; the padding is the sum of both sides.
    transposed : bool
    """

    sizes: Shape
    taps: Shape
    outputs: Shape
    given: dict[str, Shape]
    transposed: bool

    @classmethod
    def of(cls, sizes: Shape, taps: Shape, outputs: Shape, arguments: Mapping[str, Any]) -> _Search:
        """Read the arguments that were given; raises FastcheckError where one is wrong in itself."""
        transposed = flag("transposed", arguments.get("transposed", False))
        given = {
            name: per_axis(name, arguments[name], len(sizes), least)
            for name, least in (("stride", 1), ("dilation", 1), ("output_padding", 0))
            if name in arguments
        }
        if "padding" in arguments:
            dilation = given.get("dilation", (1,) * len(sizes))
            extents = tuple(d * (k - 1) + 1 for d, k in zip(dilation, taps, strict=True))
            sides = paddings(arguments["padding"], given.get("stride", (1,) * len(sizes)), extents, transposed)
            given["padding"] = tuple(map(sum, sides))
        return cls(sizes, taps, outputs, given, transposed)

    def found(self) -> Iterator[dict[str, Any]]:
        """Yield what fits: one number for all axes, the likeliest arguments first; then padding by side."""
        likely = _LIKELY_TRANSPOSED if self.transposed else _LIKELY
        for names in (names for names in likely if not self.given.keys() & set(names)):
            for numbers in itertools.product(*(_TRIED[name] for name in names)):
                tried = dict(zip(names, numbers, strict=True))
                if self._outputs(tried) == self.outputs:
                    yield tried
        if "padding" not in self.given and not self.transposed:
            for stride in (1, *_TRIED["stride"]) if "stride" not in self.given else (0,):
                yield self._sides({"stride": stride} if stride else {})

    def _values(self, tried: Mapping[str, int]) -> Iterator[tuple[int, int, int, int]]:
        """Yield stride, padding, dilation and output padding of each axis."""
        for axis in range(len(self.sizes)):
            every = {name: DEFAULTS[name] for name in _TRIED} | {name: by[axis] for name, by in self.given.items()}
            every |= {name: 2 * number if name == "padding" else number for name, number in tried.items()}
            yield every["stride"], every["padding"], every["dilation"], every["output_padding"]

    def _outputs(self, tried: Mapping[str, int]) -> Shape:
        return tuple(map(self._output, self.sizes, self.taps, self._values(tried)))

    def _output(self, size: int, k: int, values: tuple[int, int, int, int]) -> int:
        stride, pad, dilation, more = values
        if self.transposed:
            return (size - 1) * stride - pad + dilation * (k - 1) + 1 + more
        return (size + pad - dilation * (k - 1) - 1) // stride + 1

    def _sides(self, tried: dict[str, int]) -> dict[str, Any]:
        """Return the padding that gives the outputs their size, as TensorFlow's "SAME" distributes it."""
        axes = zip(self.sizes, self.taps, self.outputs, self._values(tried), strict=True)
        sums = [max(0, (out - 1) * s + d * (k - 1) + 1 - size) for size, k, out, (s, _, d, _) in axes]
        return {name: s for name, s in tried.items() if s > 1} | {"padding": tuple((n // 2, n - n // 2) for n in sums)}


def _missing(message: str, likely: list[dict[str, Any]], absent: str) -> str:
    """Return the refusal of arrays that fit with arguments that were not given."""
    found = likely[0]
    now = " and ".join(f"{name} {DEFAULTS[name]}" for name in found)
    then = " and ".join(f"{name} {value}" for name, value in found.items())
    size = re.search(r"\) is (\d+), expected \d+", message)
    gives = f"; {then} give{'s' * (len(found) == 1)} {size[1]}" if size else ""
    added = " (or ".join(", ".join(f"{name}={value}" for name, value in one.items()) for one in likely)
    return f"{message.partition(' in (')[0]} with {now} ({absent}){gives}: add {added}{')' * (len(likely) > 1)}"


def _of_ranks(shapes: Shapes) -> str:
    """Return what arrays of another number of axes are likely to be."""
    input, weight = shapes["input"], shapes["weight"]
    if len(input) == len(weight) == 2:
        return "; for a dense layer use check_network or check_gradient"
    if 3 <= len(input) + 1 == len(weight) <= 5:
        return "; a single sample needs an axis of its own: give input[None], and so with grad_output"
    return ""
