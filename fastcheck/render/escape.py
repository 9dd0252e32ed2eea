"""Texts of users made harmless: names, errors and reasons may hold terminal escapes, and formulas for spreadsheets."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from fastcheck.common.naming import printable

_T = TypeVar("_T")

_FORMULA = ("=", "+", "-", "@", *"\uff1d\uff0b\uff0d\uff20")
"""What a cell begins with that a spreadsheet computes; wide signs too, which some take for these."""


def cell(value: Any) -> Any:
    """Return what a CSV file holds of a value: a text made printable, with an apostrophe before a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def harmless(value: _T) -> _T:
    """Return a report, or a part of one, with every text in it printable."""
    return cast(_T, _harmless(value))


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return _keyed(value)
    if isinstance(value, list):
        return [_harmless(entry) for entry in value]
    if isinstance(value, tuple):
        entries = [_harmless(entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _harmless(getattr(value, one.name)) for one in fields(value)})
    return value


def _keyed(value: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dict with printable keys, as many as before."""
    found: dict[Any, Any] = {}
    for key, entry in value.items():
        name = _harmless(key)
        while name in found:  # an escape, and a name that spells it
            name += "'"
        found[name] = _harmless(entry)
    return found
