"""Escape users' texts: names, errors and reasons may contain terminal escape sequences, or spreadsheet formulas."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from fastcheck.common.naming import printable

_T = TypeVar("_T")

_FORMULA = ("=", "+", "-", "@", *"\uff1d\uff0b\uff0d\uff20")
"""Characters that start a formula in a spreadsheet cell, with the full-width ones, which some programs also accept."""


def cell(value: Any) -> Any:
    """Return a value for a CSV file: a text is made printable, with an apostrophe before a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def escaped(value: _T) -> _T:
    """Return a report, or a part of one, with all its texts made printable."""
    return cast(_T, _escaped(value))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return _keyed(value)
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    if isinstance(value, tuple):
        entries = [_escaped(entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _escaped(getattr(value, one.name)) for one in fields(value)})
    return value


def _keyed(value: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dict with as many keys, all printable."""
    printable_keys: dict[Any, Any] = {}
    for key, entry in value.items():
        name = _escaped(key)
        while name in printable_keys:  # an escaped name can equal another name that spells out the escape
            name += "'"
        printable_keys[name] = _escaped(entry)
    return printable_keys
