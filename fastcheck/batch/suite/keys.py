"""The keys of a suite: allowed values, and values with their positions in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Literal, NamedTuple, get_args

from fastcheck.batch.suite.entries import Backward, Dtype
from fastcheck.common.arguments import integer, positive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, shown
from fastcheck.common.toml import Refused, TomlPath, blamed, checked
from fastcheck.convolutions.case import EVALUATORS, LOSSES, TENSORS
from fastcheck.engine.settings import KINKS, Request
from fastcheck.networks.case import EVALUATORS as NETWORK_EVALUATORS

DEFAULTS_TABLE = "defaults"

_INTEGER_LIMIT = 2**63
"""TOML integers have 64 bits; Python reads longer ones, but refuses to print those of thousands of digits."""


class Given(NamedTuple):
    """A checked value, and its position in the file."""

    value: Any
    where: TomlPath

    @property
    def is_default(self) -> bool:
        """Whether it comes from ``[defaults]``."""
        return self.where[0] == DEFAULTS_TABLE


Values = Mapping[str, Given]
"""Values by their keys."""


@dataclass(frozen=True)
class Key:
    """The rule for the values of a key.

    Attributes
    ----------
    kind : type
        Type for pydantic's strict mode.
    fit : callable
        Called as fit(name, value) with a value of that type; returns the value for the case, or raises a
        `FastcheckError`.
    """

    kind: Any
    fit: Callable[[str, Any], Any] = lambda _, value: value

    def given(self, where: TomlPath, name: str, value: Any) -> Given:
        """Check a value; error messages use its name."""
        typed = checked(where, name, value, self.kind)
        if any(abs(number) >= _INTEGER_LIMIT for number in _integers(typed)):
            raise Refused(where, f"{name} is {shown(value)}: expected 64-bit integers")
        with blamed(where):
            return Given(self.fit(name, typed), where)


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, tuple):
        for entry in value:
            yield from _integers(entry)
    elif isinstance(value, int):
        yield value


def choice(words: Iterable[str]) -> Any:
    """Return the literal type of these words."""
    return Literal.__getitem__(tuple(words))


def at_least(least: int) -> Key:
    """Return the rule for an integer with a lower bound."""
    return Key(int, lambda name, value: integer(name, value, least))


def shape(axes: range, expected: str) -> Key:
    """Return the rule for a shape whose number of axes lies in a range."""

    def fit(name: str, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in axes:
            raise FastcheckError(f"{name} is {list(value)}: expected {expected}")
        return tuple(integer(f"{name}[{axis}]", size, least=1) for axis, size in enumerate(value))

    return Key(tuple[int, ...], fit)


def filled(name: str, value: Sequence[Any]) -> Any:
    """Refuse an empty string or array."""
    if not value:
        quoted, entry = ("''", "a character") if isinstance(value, str) else ("[]", "an entry")
        raise FastcheckError(f"{name} is {quoted}: expected at least {entry}")
    return value


_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION = re.compile(f"{_NAME}:{_NAME}")


def function(name: str, value: str) -> str:
    """Refuse what is not the name of a function in a module."""
    if not _FUNCTION.fullmatch(value):
        raise FastcheckError(f"{name} is {shown(value)}: expected a function, as 'package.module:function'")
    return value


def _backward(name: str, value: str) -> str:
    words = get_args(Backward)
    if value in words or _FUNCTION.fullmatch(value):
        return value
    known = ", ".join(map(repr, words))
    expected = f"expected {known} or a function, as 'package.module:function'"
    raise FastcheckError(f"{name} is {shown(value)}{nearest(value, words)}: {expected}")


def _dims(name: str, value: int | str) -> int | str:
    return value if isinstance(value, str) else integer(name, value, least=1)


def _step(name: str, value: float | str) -> float | str:
    return value if isinstance(value, str) else positive(name, value)


def _tensors(name: str, value: tuple[str, ...]) -> tuple[str, ...]:
    filled(name, value)
    return tuple(tensor for tensor in TENSORS if tensor in value)


NAME = Key(str, filled)

REQUEST: Mapping[str, Key] = {
    "seed": at_least(0),
    "dims": Key(int | Literal["all", "auto"], _dims),
    "step": Key(float | Literal["auto"], _step),
    "evaluator": Key(choice(("auto", *EVALUATORS))),
    "kinks": Key(choice(KINKS)),
}
"""Keys for how a convolution is checked."""

REQUEST_GRADIENT: Mapping[str, Key] = {key: REQUEST[key] for key in ("seed", "dims", "step")}
"""Keys for how a function is checked."""

REQUEST_NETWORK: Mapping[str, Key] = {**REQUEST, "evaluator": Key(choice(("auto", *NETWORK_EVALUATORS)))}
"""Keys for how a whole network is checked."""

SEEDED: Mapping[str, Key] = {
    "backward": Key(str, _backward),
    "dtype": Key(Dtype),
    "tensors": Key(GenericAlias(tuple, (choice(TENSORS), ...)), _tensors),
    "loss": Key(choice(LOSSES)),
}
"""Additional keys of a convolution on seeded data."""

DEFAULTS: Mapping[str, Key] = {
    **REQUEST,
    "evaluator": Key(choice(dict.fromkeys(("auto", *EVALUATORS, *NETWORK_EVALUATORS)))),
    **SEEDED,
}
"""Keys allowed in ``[defaults]``."""


def request(values: Values) -> Request:
    """Return the request of a case; missing keys have the defaults of `Request`."""
    return Request(**{key: values[key].value for key in REQUEST if key in values})
