"""Networks from TOML files: every value is checked, and every refusal names its line."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import meant, remark
from fastcheck.common.naming import nearest, offered, shown
from fastcheck.common.opened import Source
from fastcheck.common.toml import Document, Refused, TomlPath, blamed, checked, expected, read, refuse_unknown, tables
from fastcheck.networks.layers import KINDS, Layer
from fastcheck.networks.network import Network, named

Padding = int | Literal["same", "valid"] | tuple[int | tuple[int, int], ...]
"""Type of a layer's ``padding``, where its dataclass says Any."""

_LAYER = "layer"


def read_network(path: Source) -> Network:
    """Read a network from a TOML file.

    Parameters
    ----------
    path : path
        A ``[[layer]]`` table for each layer, with its ``kind`` (a key of `fastcheck.layers.KINDS`) and that layer's
        fields; above them any of ``loss``, ``l2``, ``l1``, ``margin`` and ``reduction``, as `Network` takes them.

    Returns
    -------
    Network

    Raises
    ------
    FastcheckError
        If the file cannot be read, is not TOML, or describes no network; the message has the line, the key, its value
        and what was expected.
    """
    return read(path, _network)


def _network(document: Document) -> Network:
    options = _settings()
    refuse_unknown((), "the file", document.data, (_LAYER, *options))
    given = {name: _setting(name, document.data[name], kind) for name, kind in options.items() if name in document.data}
    layers = [_layer(number, table) for number, table in enumerate(tables(document.data, _LAYER))]
    try:
        return Network(layers, **given)
    except FastcheckError as error:
        raise Refused(_blamed(str(error), layers, document.data), str(error)) from None


@functools.cache
def _settings() -> dict[str, Any]:
    """Return a network's arguments other than its layers, with their types."""
    return {key: kind for key, kind in get_type_hints(Network.__init__).items() if key not in ("layers", "return")}


def _setting(name: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, dict) or not any(get_origin(option) is Mapping for option in get_args(kind)):
        return checked((name,), name, value, kind)
    return {tensor: _weighted(name, tensor, entry) for tensor, entry in value.items()}


def _weighted(name: str, tensor: str, value: Any) -> Any:
    note = ""
    if isinstance(value, dict):  # in TOML, conv1.bias = 0 is a table and "conv1.bias" = 0 is not
        note = ' (the name of a tensor stands in quotes: "conv1.bias")'
    return checked((name, tensor), f"{name}[{shown(tensor)}]", value, float, note)


def _layer(number: int, table: dict[str, Any]) -> Layer:
    where: TomlPath = (_LAYER, number)
    layer = KINDS[_kind(where, table)]
    hints = get_type_hints(layer)
    kinds = {one.name: Padding if hints[one.name] is Any else hints[one.name] for one in fields(layer)}
    known = ("kind", *kinds)
    above = ": it belongs to the network, above the first [[layer]]"
    elsewhere = {key: f": {remark(key)}" for key in table if remark(key) and not meant(key, known)}
    elsewhere |= {key: f"{nearest(key, known)}{above}" for key in table if key in _settings()}
    refuse_unknown(where, layer.kind, table, known, elsewhere)
    for one in fields(layer):
        if one.name not in table and one.default is MISSING and one.default_factory is MISSING:
            raise Refused(where, f"{layer.kind} has no key {one.name!r}: expected {expected(kinds[one.name])}")
    given = {key: checked((*where, key), key, value, kinds[key]) for key, value in table.items() if key != "kind"}
    described = layer(**given)
    with blamed((*where, "other"), f"{layer.kind}: "):  # checked here, where the line is known: no name leads to it
        described.others()
    return described


def _kind(where: TomlPath, table: dict[str, Any]) -> str:
    kinds = f"expected {offered(KINDS, 60)}"
    if "kind" not in table:
        for key in table:
            if nearest(key, ("kind",)):
                raise Refused((*where, key), f"layer has the unknown key {shown(key)} (did you mean 'kind'?)")
        raise Refused(where, f"layer has no key 'kind': {kinds}")
    kind = table["kind"]
    if isinstance(kind, str) and kind in KINDS:
        return kind
    message = f"kind is {shown(kind)}"
    if isinstance(kind, str):
        advice = "" if meant(kind, KINDS) else remark(kind)
        message += f": {advice}" if advice else f"{nearest(kind.lower(), KINDS)}: {kinds}"
    else:
        message += f": {kinds}"
    raise Refused((*where, "kind"), message)


def _blamed(message: str, layers: list[Layer], data: dict[str, Any]) -> TomlPath:
    """Return the path in the file that a refusal of `Network` is about, from the beginning of its message."""
    return next((path for start, path in _beginnings(layers, data) if message.startswith(start)), ())


def _beginnings(layers: list[Layer], data: dict[str, Any]) -> Iterator[tuple[str, TomlPath]]:
    """Yield the beginnings of messages, each with the path that it is about."""
    for key, value in data.items():
        for entry in value if isinstance(value, dict) else ():
            yield f"{key} names {entry!r}", (key, entry)
            yield f"{key}[{entry!r}] ", (key, entry)
        yield f"{key} is ", (key,)
    for number in range(len(layers)):
        yield f"layers[{number}] ", (_LAYER, number, "name")
    for number, layer in enumerate(named(layers)):
        name = layer.name
        yield f"layer {name!r} takes {layer.input!r}", (_LAYER, number, "input")
        yield f"layer {name!r} shares {layer.shares!r}", (_LAYER, number, "shares")
        for entry, other in enumerate(layer.others()):
            yield f"layer {name!r} takes {other!r}", (_LAYER, number, "other", entry)
        yield f"layer {name!r} ", (_LAYER, number)
