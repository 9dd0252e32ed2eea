"""TOML files, read strictly: every value is checked, and every refusal is one line that names the line of the file."""

from __future__ import annotations

import functools
import re
import tomllib
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, offered, printable, shown
from fastcheck.common.opened import Source, opened

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TomlPath = tuple[str | int, ...]
"""The keys and positions that lead to a value in a file: ("layer", 0, "kind")."""

_Read = TypeVar("_Read")

_WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "a string"}
_PLURALS = {bool: "booleans", int: "integers", float: "finite numbers", str: "strings"}


class Refused(Exception):
    """A refusal, with the path of the value that is wrong, or its line where no path is known: "3", "3, column 5"."""

    def __init__(self, where: TomlPath | str, message: str) -> None:
        super().__init__(message)
        self.where, self.message = where, message


class Document(NamedTuple):
    """A file's text and its data.

    Attributes
    ----------
    text : str
    data : dict
        The data as tomllib parses the text.
    """

    text: str
    data: dict[str, Any]

    def line(self, where: TomlPath) -> int:
        """Return the line of a value, or of the innermost table around it that the text spells out."""
        return _line(self.text, where)


def read(path: Source, understand: Callable[[Document], _Read]) -> _Read:
    """Read a TOML file and interpret it.

    Parameters
    ----------
    path : path
    understand : callable
        Called as understand(document). It may raise `Refused`.

    Returns
    -------
    object
        The result of ``understand``.

    Raises
    ------
    FastcheckError
        If the file cannot be read, is not TOML, or ``understand`` refuses it. The message is one printable line that
        names the file and the line in it.
    """
    name = printable(str(path))
    try:
        with opened(path) as file:
            text = _text(file.read())
        return understand(Document(text, _parsed(text)))
    except Refused as refused:
        line = refused.where if isinstance(refused.where, str) else _line(text, refused.where)
        raise FastcheckError(f"{name}, line {line}: {printable(refused.message)}") from None
    except RecursionError:
        raise FastcheckError(f"{name} cannot be read: its arrays or tables are nested too deeply") from None


@contextmanager
def blamed(where: TomlPath, before: str = "") -> Iterator[None]:
    """Turn bad input into a refusal of the value at ``where``, with ``before`` in front of its message."""
    try:
        yield
    except FastcheckError as error:
        raise Refused(where, f"{before}{error}") from None


def tables(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the tables of an array of at least one table."""
    wanted = f"expected a [[{key}]] table for each {key}"
    entries = data.get(key, [])
    if not isinstance(entries, list):
        raise Refused((key,), f"{key} is {shown(entries)}: {wanted}")
    if not entries:
        raise Refused((key,), f"it has no {key}: {wanted}")
    for position, table in enumerate(entries):
        if not isinstance(table, dict):
            raise Refused((key, position), f"{key} is {shown(table)}: {wanted}")
    return entries


def refuse_unknown(
    where: TomlPath,
    what: str,
    table: Mapping[str, Any],
    known: Collection[str],
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Refuse keys that a table cannot have, and suggest the nearest that it can.

    ``elsewhere`` has messages of their own for keys that belong to another table.
    """
    for key in table:
        if key not in known:
            message = elsewhere.get(key) or f"{nearest(key, known)}: expected {offered(known)}"
            raise Refused((*where, key), f"{what} has the unknown key {shown(key)}{message}")


def checked(where: TomlPath, name: str, value: Any, kind: Any, note: str = "") -> Any:
    """Return a value converted to its type: arrays become tuples, and integers become floats where one is expected."""
    from pydantic import ValidationError  # imported here, so that `import fastcheck` stays quick

    try:
        return _adapter(kind).validate_python(_tuples(value), strict=True)
    except ValidationError:
        message = f"{name} is {shown(value)}{_closest(value, kind)}: expected {expected(kind)}{note}"
        raise Refused(where, message) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's validator of a field. A strict one of a whole dataclass would accept only its instances."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def expected(kind: Any, many: bool = False) -> str:
    """Return a type in words: "an integer or an array of integers"."""
    *others, last = [words for option in _options(kind) for words in _names(option, many)]
    return f"{', '.join(others)} or {last}" if others else last


def _names(kind: Any, many: bool) -> list[str]:
    """Return the words for a type that is not a union: one for each choice of a literal."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return [repr(choice) for choice in arguments]
    if get_origin(kind) is tuple:
        one, several = ("an array", "arrays") if arguments[-1] is Ellipsis else ("a pair", "pairs")
        return [f"{several if many else one} of {expected(arguments[0], many=True)}"]
    if get_origin(kind) is Mapping:
        return [f"a table of {expected(arguments[1], many=True)}"]
    return [(_PLURALS if many else _WORDS)[kind]]


def _options(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union without None, which TOML cannot express."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return tuple(option for option in members if option is not type(None))


def choices(kind: Any) -> list[str]:
    """Return the words that a type allows."""
    return [choice for option in _options(kind) if get_origin(option) is Literal for choice in get_args(option)]


def _closest(value: Any, kind: Any) -> str:
    """Return the suggestion for a word, or for the first wrong word of an array."""
    if isinstance(value, str):
        return nearest(value, choices(kind))
    known = [word for option in _options(kind) if get_origin(option) is tuple for word in choices(get_args(option)[0])]
    wrong = (
        [entry for entry in value if isinstance(entry, str) and entry not in known] if isinstance(value, list) else []
    )
    return nearest(wrong[0], known) if wrong else ""


def _text(data: bytes) -> str:
    if data.startswith(b"PK\x03\x04"):
        raise Refused("1", "the file is a zip file (.npz): expected a TOML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(str(line), f"it has the byte 0x{data[error.start]:02x}: expected text in UTF-8") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, location = str(error).rpartition(" (at ")
        where = location.removeprefix("line ").removesuffix(")")
        if "column" not in where:
            where, message = _line_at(text, len(text.rstrip())), f"{message}, at the end of the file"
        raise Refused(where, f"it is not TOML: {message}") from None
    except ValueError:  # tomllib does not catch an integer with more digits than Python converts
        longest = max(re.finditer("[0-9_]*", text), key=lambda run: len(run[0]))
        message = f"it has an integer of {len(longest[0].replace('_', ''))} digits: expected fewer"
        raise Refused(_line_at(text, longest.start()), message) from None


def _line_at(text: str, position: int) -> str:
    return str(text.count("\n", 0, position) + 1)


def _line(text: str, where: TomlPath) -> int:
    """Return the line of a value in a TOML text, or of the innermost table around it that the text spells out."""
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
    """Finds the line of every key, table and array entry in a TOML text, since tomllib keeps none.

    tomllib has parsed the text before, so nothing is checked here: every token stands where the grammar wants it.

    Attributes
    ----------
    lines : dict of TomlPath to int
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[TomlPath, int] = {(): 1}
        self._tokens = _tokens(text)
        self._next = 0
        self._latest: dict[TomlPath, int] = {}  # for every array of tables, the position of its latest table
        table: TomlPath = ()
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

    def _note(self, path: TomlPath, token: int) -> None:
        """Note the line of a token for a path, and for the tables around it that have none yet."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], self._tokens[token][1])

    def _header(self) -> TomlPath:
        """Read a table's header, [a.b] or [[a.b]], and return the path of the table that begins."""
        start = self._next
        self._take()
        many = self._peek() == "["
        keys = self._keys("]")
        path: TomlPath = ()
        for key in keys[:-1]:  # a name on the way that is an array of tables means the latest of these
            path = (*path, key)
            path = (*path, self._latest[path]) if path in self._latest else path
        path = (*path, keys[-1])
        if many:
            self._take()
            self._latest[path] = self._latest.get(path, -1) + 1
            path = (*path, self._latest[path])
        self._note(path, start)
        return path

    def _keys(self, end: str) -> list[str]:
        """Read a dotted key up to a token that ends it."""
        keys = []
        while (token := self._take()) != end:
            if token not in (".", "["):
                keys.append(tomllib.loads(f"key = {token}")["key"] if token[0] in "\"'" else token)
        return keys

    def _pair(self, table: TomlPath) -> None:
        start = self._next
        path = (*table, *self._keys("="))
        self._note(path, start)
        self._value(path)

    def _value(self, path: TomlPath) -> None:
        """Read a value: an array, an inline table, or the tokens of anything else."""
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
                self._pair(path)
            else:
                self._note((*path, entry), self._next)
                self._value((*path, entry))
        self._take()


def _tokens(text: str) -> list[tuple[str, int]]:
    """Return the tokens and their lines, without comments."""
    tokens, line, end = [], 1, 0
    for match in _TOKEN.finditer(text + "\n"):
        line += text.count("\n", end, match.start())
        end = match.start()
        if not match[0].startswith("#"):
            tokens.append((match[0], line))
    return tokens
