"""Networks from TOML files: every value checked, and every refusal with the line that it is about."""

from __future__ import annotations

import functools
import os
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from fastcheck.errors import FastcheckError
from fastcheck.layers import KINDS, Layer
from fastcheck.naming import nearest
from fastcheck.network import INPUT, Network

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Padding = int | Literal["same", "valid"] | tuple[int | tuple[int, int], ...]
"""What a layer's ``padding`` may be, where its dataclass says Any."""

Place = tuple[str | int, ...]
"""Where a value is in a file: ("layer", 0, "kind")."""

_LAYER = "layer"
_LONGEST = 60
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_PLURALS = {bool: "booleans", int: "integers", float: "numbers", str: "strings"}


def read_network(path: str | os.PathLike[str]) -> Network:
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
        If the file cannot be read, is not TOML, or describes no network: its line, the key, what it was and what was
        expected.
    """
    shown = _printable(str(path))
    try:
        text = _text(path, shown)
        return _network(_parsed(text))
    except _Refused as refused:
        line = refused.where if isinstance(refused.where, str) else _line(text, refused.where)
        raise FastcheckError(f"{shown}, line {line}: {_printable(refused.told)}") from None
    except RecursionError:
        raise FastcheckError(f"{shown} cannot be read: its arrays or tables are nested too deeply") from None


class _Refused(Exception):
    """What is wrong, and the place of it, or its line where no place is known: "3", "3, column 5"."""

    def __init__(self, where: Place | str, told: str) -> None:
        super().__init__(told)
        self.where, self.told = where, told


def _text(path: str | os.PathLike[str], shown: str) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise FastcheckError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Refused(str(line), f"it has the byte 0x{data[error.start]:02x}: expected text in UTF-8") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told, _, at = str(error).rpartition(" (at ")
        where = at.removeprefix("line ").removesuffix(")")
        if "column" not in where:
            where, told = _line_at(text, len(text.rstrip())), f"{told}, at the end of the file"
        raise _Refused(where, f"it is not TOML: {told}") from None
    except ValueError:  # an integer with more digits than Python converts
        longest = max(re.finditer("[0-9_]*", text), key=lambda run: len(run[0]))
        told = f"it has an integer of {len(longest[0].replace('_', ''))} digits: expected fewer"
        raise _Refused(_line_at(text, longest.start()), told) from None


def _line_at(text: str, position: int) -> str:
    return str(text.count("\n", 0, position) + 1)


def _network(data: dict[str, Any]) -> Network:
    options = _settings()
    _refuse_unknown((), "the file", data, (_LAYER, *options))
    given = {name: _checked((name,), name, data[name], kind) for name, kind in options.items() if name in data}
    layers = [_layer(place, table) for place, table in enumerate(_tables(data))]
    try:
        return Network(layers, **given)
    except FastcheckError as error:
        raise _Refused(_blamed(str(error), layers, data), str(error)) from None


@functools.cache
def _settings() -> dict[str, Any]:
    """Return the types of what a network takes beside its layers."""
    return {key: kind for key, kind in get_type_hints(Network.__init__).items() if key not in ("layers", "return")}


def _tables(data: dict[str, Any]) -> list[Any]:
    expected = "expected a [[layer]] table for each layer"
    tables = data.get(_LAYER, [])
    if not isinstance(tables, list):
        raise _Refused((_LAYER,), f"layer is {_shown(tables)}: {expected}")
    if not tables:
        raise _Refused((_LAYER,), f"it has no layer: {expected}")
    for place, table in enumerate(tables):
        if not isinstance(table, dict):
            raise _Refused((_LAYER, place), f"layer is {_shown(table)}: {expected}")
    return tables


def _layer(place: int, table: dict[str, Any]) -> Layer:
    where: Place = (_LAYER, place)
    layer = KINDS[_kind(where, table)]
    hints = get_type_hints(layer)
    kinds = {one.name: Padding if hints[one.name] is Any else hints[one.name] for one in fields(layer)}
    _refuse_unknown(where, layer.kind, table, ("kind", *kinds))
    for one in fields(layer):
        if one.name not in table and one.default is MISSING and one.default_factory is MISSING:
            raise _Refused(where, f"{layer.kind} has no key {one.name!r}: expected {_expected(kinds[one.name])}")
    given = {key: _checked((*where, key), key, value, kinds[key]) for key, value in table.items() if key != "kind"}
    found = layer(**given)
    try:
        found.others()
    except FastcheckError as error:  # told here, since no name stands in it by which to find the line
        raise _Refused((*where, "other"), f"{layer.kind}: {error}") from None
    return found


def _kind(where: Place, table: dict[str, Any]) -> str:
    expected = f"expected {', '.join(KINDS)}"
    if "kind" not in table:
        for key in table:
            if nearest(key, ("kind",)):
                raise _Refused((*where, key), f"layer has the unknown key {_shown(key)} (did you mean 'kind'?)")
        raise _Refused(where, f"layer has no key 'kind': {expected}")
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        close = nearest(kind.lower(), KINDS) if isinstance(kind, str) else ""
        raise _Refused((*where, "kind"), f"kind is {_shown(kind)}{close}: {expected}")
    return kind


def _refuse_unknown(where: Place, what: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key in known:
            continue
        expected = f"expected {', '.join(known)}"
        if where and key in _settings():
            expected = "it belongs to the network, above the first [[layer]]"
        raise _Refused((*where, key), f"{what} has the unknown key {_shown(key)}{nearest(key, known)}: {expected}")


def _checked(where: Place, name: str, value: Any, kind: Any) -> Any:
    """Return a value as it is wanted: arrays as tuples, and integers as floats where it is to be one."""
    from pydantic import ValidationError  # only here: `import fastcheck` is to stay quick

    if isinstance(value, dict) and any(get_origin(option) is Mapping for option in get_args(kind)):
        return {key: _checked((*where, key), f"{name}[{_shown(key)}]", entry, float) for key, entry in value.items()}
    try:
        return _adapter(kind).validate_python(_tuples(value), strict=True)
    except ValidationError:
        close = nearest(value, _choices(kind)) if isinstance(value, str) else ""
        told = f"{name} is {_shown(value)}{close}: expected {_expected(kind)}"
        if isinstance(value, dict) and len(where) == 2:  # conv1.bias = 0 is a table in TOML, "conv1.bias" = 0 is not
            told += ' (the name of a tensor stands in quotes: "conv1.bias")'
        raise _Refused(where, told) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's validator of a field. One for a whole dataclass takes instances alone when it is strict."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _expected(kind: Any, many: bool = False) -> str:
    """Return a type in words: "an integer or an array of integers"."""
    *others, last = [words for option in _options(kind) for words in _told(option, many)]
    return f"{', '.join(others)} or {last}" if others else last


def _told(kind: Any, many: bool) -> list[str]:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return [repr(choice) for choice in arguments]
    if get_origin(kind) is tuple:
        one, several = ("an array", "arrays") if arguments[-1] is Ellipsis else ("a pair", "pairs")
        return [f"{several if many else one} of {_expected(arguments[0], many=True)}"]
    if get_origin(kind) is Mapping:
        return [f"a table of {_expected(arguments[1], many=True)}"]
    return [(_PLURALS if many else _WORDS)[kind]]


def _options(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union without None, which TOML cannot write."""
    found = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return tuple(option for option in found if option is not type(None))


def _choices(kind: Any) -> list[str]:
    return [choice for option in _options(kind) if get_origin(option) is Literal for choice in get_args(option)]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    try:
        told = repr(value)
    except ValueError:  # hexadecimal in the file, and too long to be written in decimals
        return "an integer of thousands of digits"
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."


def _printable(told: str) -> str:
    """Return a line that cannot end early or move a terminal's cursor, whatever the names in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in told)


def _blamed(told: str, layers: list[Layer], data: dict[str, Any]) -> Place:
    """Return the place that a refusal of `Network` is about, by how it begins."""
    return next((place for start, place in _beginnings(layers, data) if told.startswith(start)), ())


def _beginnings(layers: list[Layer], data: dict[str, Any]) -> Iterator[tuple[str, Place]]:
    for key, value in data.items():
        for entry in value if isinstance(value, dict) else ():
            yield f"{key} names {entry!r}", (key, entry)
            yield f"{key}[{entry!r}] ", (key, entry)
        yield f"{key} is ", (key,)
    for place in range(len(layers)):
        yield f"layers[{place}] ", (_LAYER, place, "name")
    for place, (layer, name) in enumerate(zip(layers, _names(layers), strict=True)):
        yield f"layer {name!r} takes {layer.input!r}", (_LAYER, place, "input")
        for entry, other in enumerate(layer.others()):
            yield f"layer {name!r} takes {other!r}", (_LAYER, place, "other", entry)
        yield f"layer {name!r} ", (_LAYER, place)


def _names(layers: list[Layer]) -> tuple[str, ...]:
    """Return the names that layers have in a network, found in one where each takes the layer before it."""
    chain = [replace(layer, input=None, **({"other": INPUT} if layer.others() else {})) for layer in layers]
    return Network(chain).names


def _line(text: str, where: Place) -> int:
    """Return the line of a place in a text that is TOML, or of the innermost table around it that stands there."""
    lines = _Scanner(text).lines
    while where not in lines:
        where = where[:-1]
    return lines[where]


_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|\#[^\n]*"
    r"|[\[\]{}=,.\n]"
    r"|[^\s\[\]{}=,.\"'\#]+",
    re.DOTALL,
)


class _Scanner:
    """Finds the line of every key, table and array entry in a text that is TOML: tomllib keeps none.

    Attributes
    ----------
    lines : dict of Place to int
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {(): 1}
        self._tokens = _tokens(text)
        self._next = 0
        self._latest: dict[Place, int] = {}  # of every array of tables the entry that is being written
        table: Place = ()
        while self._next < len(self._tokens):
            if self._peek() == "\n":
                self._take()
            elif self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][0]

    def _note(self, place: Place, token: int) -> None:
        """Note the line of a token for a place, and for the tables around it that had none."""
        for length in range(1, len(place) + 1):
            self.lines.setdefault(place[:length], self._tokens[token][1])

    def _header(self) -> Place:
        start = self._next
        self._take()
        many = self._peek() == "["
        keys = self._keys("]")
        place: Place = ()
        for key in keys[:-1]:
            place = (*place, key)
            place = (*place, self._latest[place]) if place in self._latest else place
        place = (*place, keys[-1])
        if many:
            self._take()
            self._latest[place] = self._latest.get(place, -1) + 1
            place = (*place, self._latest[place])
        self._note(place, start)
        return place

    def _keys(self, end: str) -> list[str]:
        found = []
        while (token := self._take()) != end:
            if token not in (".", "["):
                found.append(tomllib.loads(f"key = {token}")["key"] if token[0] in "\"'" else token)
        return found

    def _pair(self, table: Place) -> None:
        start = self._next
        place = (*table, *self._keys("="))
        self._note(place, start)
        self._value(place)

    def _value(self, place: Place) -> None:
        if self._peek() not in ("[", "{"):
            while self._peek() not in (",", "]", "}", "\n"):
                self._take()
            return
        end = {"[": "]", "{": "}"}[self._take()]
        entry = 0
        while self._peek() != end:
            if self._peek() in (",", "\n"):
                entry += self._take() == ","
            elif end == "}":
                self._pair(place)
            else:
                self._note((*place, entry), self._next)
                self._value((*place, entry))
        self._take()


def _tokens(text: str) -> list[tuple[str, int]]:
    """Return the tokens and their lines, without comments."""
    found, line, end = [], 1, 0
    for match in _TOKEN.finditer(text + "\n"):
        line += text.count("\n", end, match.start())
        end = match.start()
        if not match[0].startswith("#"):
            found.append((match[0], line))
    return found
