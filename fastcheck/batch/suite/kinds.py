"""The kinds of cases in a suite: the keys of each kind, and how it expands into entries."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from fastcheck.batch.suite.entries import (
    ConvEntry,
    Entry,
    FunctionEntry,
    GradientEntry,
    NetworkEntry,
    NpzEntry,
    TorchEntry,
)
from fastcheck.batch.suite.folder import Folder
from fastcheck.batch.suite.keys import (
    REQUEST,
    REQUEST_GRADIENT,
    REQUEST_NETWORK,
    SEEDED,
    Given,
    Key,
    Values,
    at_least,
    filled,
    function,
    request,
    shape,
)
from fastcheck.common.arguments import Shape, per_axis
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, shown
from fastcheck.common.toml import Refused, TomlPath, blamed, expected
from fastcheck.convolutions.case import TENSORS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.networks.file import Padding
from fastcheck.workloads import zoo
from fastcheck.workloads.published import NETWORKS, ConvLayer

LONGEST_NAME = 200
"""Largest number of characters of a case's name in an error message."""


@dataclass(frozen=True)
class Expanded:
    """A case with one value for every key.

    Attributes
    ----------
    name : str
    data : str
        The name without the parts of the grid that are in `fastcheck.batch.suite.grid.SAME_DATA`.
    where : TomlPath
        Position of the case.
    values : mapping
        Values of the case and its grid; where there are none, the defaults.
    folder : Folder
    """

    name: str
    data: str
    where: TomlPath
    values: Values
    folder: Folder

    def get(self, key: str, default: Any) -> Any:
        """Return a value, or the default if none is given."""
        return self.values[key].value if key in self.values else default

    @property
    def prefix(self) -> str:
        """Start of an error message."""
        return f"case {shown(self.name, LONGEST_NAME)}: "


def _nothing_needed(where: TomlPath, keys: Collection[str]) -> None:
    """Accept every case."""


def _single(values: Values) -> int:
    return 1


@dataclass(frozen=True)
class Kind:
    """A kind of case.

    Attributes
    ----------
    entries : callable
        Called as entries(expanded); yields the entries of a case, or raises `Refused`.
    keys : mapping
        Keys that a case may have beside its kind, name and grid.
    own : Key, optional
        Rule for the value of the key that names the kind.
    table : mapping
        Keys of that key's table, if it has a table instead of a value.
    named : callable, optional
        Called as named(value) for a case without a name; derives the name from the kind's value. Without this
        function, a case must have a name.
    needs : callable
        Called as needs(where, keys) with all keys of a case, including its grid's; refuses a case that lacks one.
    size : callable
        Called as size(values); returns the number of entries of one combination, without making them.
    sizing : tuple of str
        Keys on which this number depends.
    """

    entries: Callable[[Expanded], Iterator[Entry]]
    keys: Mapping[str, Key]
    own: Key | None = None
    table: Mapping[str, Key] = field(default_factory=dict)
    named: Callable[[str], str] | None = None
    needs: Callable[[TomlPath, Collection[str]], None] = _nothing_needed
    size: Callable[[Values], int] = _single
    sizing: tuple[str, ...] = ()


def _conv_needs(where: TomlPath, keys: Collection[str]) -> None:
    for key in ("in", "out", "kernel"):
        if key not in keys:
            raise Refused((*where, "conv"), f"conv has no key {key!r}: expected {expected(_CONV[key].kind)}")
    if "input" not in keys:
        raise Refused(where, "this conv case has no key 'input': expected [N, C, spatial...]")


def _conv(one: Expanded) -> Iterator[Entry]:
    bias = one.get("bias", True)
    yield _conv_entry(one, one.name, _geometry(one), bias, _tensors(one, bias), one.data)


def _conv_entry(
    one: Expanded, name: str, geometry: ConvGeometry, bias: bool, tensors: tuple[str, ...], data: str
) -> ConvEntry:
    backward = one.get("backward", "reference")
    return ConvEntry(
        name=name,
        request=request(one.values),
        geometry=geometry,
        bias=bias,
        tensors=tensors,
        backward=one.folder.function(backward) if ":" in backward else backward,
        dtype=one.get("dtype", "float64"),
        loss=one.get("loss", "vjp"),
        data=data,
    )


def _geometry(one: Expanded) -> ConvGeometry:
    size, channels, groups = one.values["input"].value, one.values["in"].value, one.get("groups", 1)
    if size[1] != channels:
        message = f"input is {list(size)}: axis 1 (channels) is {size[1]}, expected {channels}, as in conv.in"
        raise Refused(one.values["input"].where, one.prefix + message)
    filters = one.values["out"].value, max(channels // groups, 1)
    with blamed(one.where, one.prefix):
        return _convolution(
            size,
            filters,
            one.values["kernel"].value,
            one.get("stride", 1),
            one.get("padding", 0),
            one.get("dilation", 1),
            groups,
        )


@functools.lru_cache(4096)  # most combinations of a large grid differ only in seeds and dtypes
def _convolution(
    size: Shape, filters: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> ConvGeometry:
    taps = per_axis("kernel", kernel, len(size) - 2, least=1)
    return ConvGeometry.of(size, (*filters, *taps), stride=stride, padding=padding, dilation=dilation, groups=groups)


def _tensors(one: Expanded, bias: bool) -> tuple[str, ...]:
    """Return the tensors to check; from a default, those that the case has."""
    has = TENSORS if bias else TENSORS[:-1]
    if "tensors" not in one.values:
        return has
    wanted = one.values["tensors"]
    present = tuple(name for name in wanted.value if name in has)
    if present and (present == wanted.value or wanted.is_default):
        return present
    message = f"tensors is {list(wanted.value)}, and conv has no bias: expected 'input' or 'weight'"
    raise Refused(one.where if wanted.is_default else wanted.where, one.prefix + message)


def _npz(one: Expanded) -> Iterator[Entry]:
    given = one.values["npz"]
    yield NpzEntry(one.name, request(one.values), one.folder.file("npz", given), given.value)


def _published(name: str, value: str) -> str:
    if value not in NETWORKS:
        raise FastcheckError(f"{name} is {shown(value)}{nearest(value, NETWORKS)}: expected {', '.join(NETWORKS)}")
    return value


def _layers(values: Values) -> list[tuple[ConvLayer, tuple[str, ...]]]:
    layers = values["layers"].value if "layers" in values else None
    tensors = values["tensors"].value if "tensors" in values else ("weight", "bias")
    return zoo.chosen_layers(values["zoo"].value, layers, tensors)


def _zoo_size(values: Values) -> int:
    if "layers" in values:
        patterns = values["layers"]
        for number, pattern in enumerate(patterns.value):
            with blamed((*patterns.where, number)):
                zoo.chosen_layers(values["zoo"].value, [pattern], TENSORS)
    tensors = values.get("tensors", values["zoo"])
    with blamed(values["zoo"].where if tensors.is_default else tensors.where):
        return len(_layers(values))


def _zoo(one: Expanded) -> Iterator[Entry]:
    for layer, tensors in _layers(one.values):
        name, data = f"{one.name}/{layer.name}", zoo.data_name(one.values["zoo"].value, layer)
        yield _conv_entry(one, name, layer.geometry(one.get("batch", 1)), layer.bias, tensors, data)


_ARRAYS = ("params", "grads", "data")


def _network_needs(where: TomlPath, keys: Collection[str]) -> None:
    arrays = [key for key in _ARRAYS if key in keys]
    message = "expected params, grads and data, or input"
    if "input" in keys and arrays:
        raise Refused((*where, arrays[0]), f"this network case has {arrays[0]} and input: {message}")
    if "burn_in" in keys and "input" not in keys:
        raise Refused((*where, "burn_in"), "burn_in needs input, which the case does not have")
    for key in _ARRAYS:
        if arrays and key not in keys:
            raise Refused(where, f"this network case has no key {key!r}: {message}")


def _network(one: Expanded) -> Iterator[Entry]:
    given = one.values["network"]
    path = one.folder.file("network", given)
    size, burn_in = one.get("input", None), one.get("burn_in", 0)
    params, grads, data = (_array(one, key) if size is None else None for key in _ARRAYS)
    yield NetworkEntry(one.name, request(one.values), path, given.value, params, grads, data, size, burn_in)


def _array(one: Expanded, key: str) -> Path:
    """Return the path of a network's arrays; the default for ``nets/digits.toml`` is ``nets/digits.params.npz``."""
    if key in one.values:
        return one.folder.file(key, one.values[key])
    network = one.values["network"]
    beside = Given(f"{os.path.splitext(network.value)[0]}.{key}.npz", network.where)
    return one.folder.file(f"{key} (by default, without input)", beside)


def _described(word: str, entry: type[FunctionEntry]) -> Kind:
    """Return the kind of a case that a function of the user's describes."""

    def entries(one: Expanded) -> Iterator[Entry]:
        yield entry(one.name, request(one.values), one.folder.function(one.values[word].value))

    return Kind(entries, keys=REQUEST_GRADIENT, own=Key(str, function), named=str)


def _stem(path: str) -> str:
    return PurePath(path).stem


_CONV: Mapping[str, Key] = {
    "in": at_least(1),
    "out": at_least(1),
    "kernel": Key(int | tuple[int, ...]),
    "stride": Key(int | tuple[int, ...]),
    "padding": Key(Padding),
    "dilation": Key(int | tuple[int, ...]),
    "groups": at_least(1),
    "bias": Key(bool),
}

_PATH = Key(str)

KINDS: dict[str, Kind] = {
    "conv": Kind(
        _conv,
        keys={**REQUEST, **SEEDED, "input": shape(range(3, 6), "3 to 5 sizes, [N, C, spatial...]")},
        table=_CONV,
        needs=_conv_needs,
    ),
    "npz": Kind(_npz, keys=REQUEST, own=_PATH, named=_stem),
    "zoo": Kind(
        _zoo,
        keys={**REQUEST, **SEEDED, "batch": at_least(1), "layers": Key(tuple[str, ...], filled)},
        own=Key(str, _published),
        named=str,
        size=_zoo_size,
        sizing=("layers", "tensors"),
    ),
    "network": Kind(
        _network,
        keys={
            **REQUEST_NETWORK,
            **dict.fromkeys(_ARRAYS, _PATH),
            "input": shape(range(2, 100), "at least 2 sizes, [N, ...]"),
            "burn_in": at_least(0),
        },
        own=_PATH,
        named=_stem,
        needs=_network_needs,
    ),
    "gradient": _described("gradient", GradientEntry),
    "function": _described("function", FunctionEntry),
    "torch": _described("torch", TorchEntry),
}
"""All kinds, by the key that names them."""
