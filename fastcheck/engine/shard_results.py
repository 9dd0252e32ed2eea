"""The results of finished shards: they merge in any order to the last bit, and can be stored and sent as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import shown
from fastcheck.common.packing import pack, unpack
from fastcheck.metrics import tally
from fastcheck.metrics.tally import Finding, ScaledSum, Tally, exactly
from fastcheck.reports.tensor_report import Kept

_FINDINGS, _LISTS = ("least", "widest"), ("worst",)
_SUMS = ("differences", "sums")

_KEYS = {"inconclusive": "undecided"}
"""Keys of the stored JSON that differ from a tally's attributes: ledgers hold these."""

_ATTRIBUTES = {key: name for name, key in _KEYS.items()}

MOST_BYTES = 2**22
"""Bytes of a part as JSON at most. It takes about two thousand; only sums of many blocks that overflow take more."""


class AuditRecord(NamedTuple):
    """The values of a part that the audit needs.

    Attributes
    ----------
    dims, numeric, error_bar : tuples of numbers
        Flat indices, numeric values and error bars of the audited dimensions in the part.
    along, size, bars : tuples of float
        Numbers that add up to the sums of direction * numeric, of \\|numeric\\| and of the error bars over the part.
    """

    dims: tuple[int, ...] = ()
    numeric: tuple[float, ...] = ()
    error_bar: tuple[float, ...] = ()
    along: tuple[float, ...] = ()
    size: tuple[float, ...] = ()
    bars: tuple[float, ...] = ()

    @classmethod
    def merged(cls, parts: Sequence[AuditRecord]) -> AuditRecord:
        """Merge the values of several parts; each sum becomes as few numbers as possible."""
        joined = [tuple(chain.from_iterable(column)) for column in zip(*parts, strict=True)] if parts else []
        return cls(*joined[:3], *map(exactly, joined[3:]))


class ShardResult(NamedTuple):
    """The result of some blocks of a tensor, with kinks counted; ``kept`` holds arrays where these are asked for."""

    tally: Tally
    noted: AuditRecord | None
    kept: Kept | None = None

    @property
    def reached(self) -> int:
        """Number of dimensions differenced, including those left out for a kink."""
        return self.tally.dims + self.tally.excluded

    @classmethod
    def merged(cls, results: Sequence[ShardResult]) -> ShardResult:
        """Merge results; the result does not depend on their order."""
        noted = [result.noted for result in results if result.noted is not None]
        kept = [result.kept for result in results if result.kept is not None]
        return cls(
            tally.merge(result.tally for result in results),
            AuditRecord.merged(noted) if noted else None,
            Kept.joined(kept) if kept else None,
        )


def encode(result: ShardResult) -> bytes:
    """Return a shard's result as bytes, without its arrays: about a kilobyte, however many blocks it has."""
    compact = result.tally.compact()
    changed = {name: value for name, value in compact.__dict__.items() if value != getattr(_EMPTY, name)}
    data = {_KEYS.get(name, name): value for name, value in changed.items()}
    whole = {"tally": data, "noted": result.noted}
    return pack(whole, 9, MOST_BYTES)


def decode(body: bytes) -> ShardResult:
    """Return the result that `encode` turned into bytes.

    Raises
    ------
    FastcheckError
        If the bytes are something else.
    """
    try:
        whole = unpack(body, MOST_BYTES)
        noted = None if whole["noted"] is None else _noted(whole["noted"])
        named = {_ATTRIBUTES.get(key, key): value for key, value in whole["tally"].items()}
        return ShardResult(Tally(**{name: _decoded(name, value) for name, value in named.items()}), noted)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FastcheckError(f"a finished part is damaged: {error}") from None


_EMPTY = Tally()


def _decoded(name: str, value: Any) -> Any:
    if name in _FINDINGS:
        return _finding(value)
    if name in _LISTS:
        return tuple(map(_finding, value))
    if name in _SUMS:
        return tuple(map(_sum, value))
    if name == "histogram":
        return _row(value, _EMPTY.histogram)
    return _like(value, 0.0 if isinstance(getattr(_EMPTY, name), float) else 0)


def _like(value: Any, example: bool | int | float) -> Any:
    """Return a number of the same type as another; floats may be written as integers."""
    good = type(value) is type(example) or (type(value) is int and type(example) is float)
    if not good or (type(value) is int and abs(value) >= 2**63):
        raise ValueError(f"it has {shown(value)}: expected {type(example).__name__}")
    return value


def _row(values: Any, examples: Sequence[bool | int | float]) -> tuple[Any, ...]:
    return tuple(_like(value, example) for value, example in zip(values, examples, strict=True))


def _finding(value: Any) -> Finding:
    return Finding(*_row(value, (0, 0.0, 0.0, 0.0, 0.0, False)))


def _sum(value: Any) -> ScaledSum:
    return ScaledSum(*_row(value, (0.0, 0)))


def _noted(value: Any) -> AuditRecord:
    columns = [_row(column, [0.0 if position else 0] * len(column)) for position, column in enumerate(value)]
    noted = AuditRecord(*columns)
    if not len(noted.dims) == len(noted.numeric) == len(noted.error_bar):
        raise ValueError("it has audited dimensions without values")
    return noted


def audit_record(dims: np.ndarray, numeric: np.ndarray, error_bar: np.ndarray, sums: Sequence[float]) -> AuditRecord:
    """Return the audited dimensions of a block, and its three sums."""
    along, size, bars = ((float(value),) for value in sums)
    return AuditRecord(tuple(dims.tolist()), tuple(numeric.tolist()), tuple(error_bar.tolist()), along, size, bars)
