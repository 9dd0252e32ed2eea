"""Finished parts of a tensor: they merge in any order to the last bit, and travel and rest as bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fastcheck import tally
from fastcheck.errors import FastcheckError
from fastcheck.report import Kept
from fastcheck.tally import Finding, ScaledSum, Tally, exactly

_FINDINGS, _LISTS = ("least", "widest"), ("worst",)
_SUMS = ("differences", "sums")


class Noted(NamedTuple):
    """What an audit keeps of a part.

    Attributes
    ----------
    dims, numeric, error_bar : tuples of numbers
        Of the audited dimensions in it.
    along, size, bars : tuples of float
        Numbers whose sums are those over the part of direction * numeric, of \\|numeric\\| and of the error bars.
    """

    dims: tuple[int, ...] = ()
    numeric: tuple[float, ...] = ()
    error_bar: tuple[float, ...] = ()
    along: tuple[float, ...] = ()
    size: tuple[float, ...] = ()
    bars: tuple[float, ...] = ()

    @classmethod
    def merged(cls, parts: Sequence[Noted]) -> Noted:
        """Put parts together, sums as few numbers."""
        joined = [tuple(chain.from_iterable(column)) for column in zip(*parts, strict=True)] if parts else []
        return cls(*joined[:3], *map(exactly, joined[3:]))


class Part(NamedTuple):
    """What is known of some blocks of a tensor, kinks counted; ``kept`` where arrays are asked for."""

    tally: Tally
    noted: Noted | None
    kept: Kept | None = None

    @property
    def reached(self) -> int:
        """Dimensions that were differenced, those left out for a kink among them."""
        return self.tally.dims + self.tally.excluded

    @classmethod
    def merged(cls, parts: Sequence[Part]) -> Part:
        """Put parts together; their order decides nothing."""
        noted = [part.noted for part in parts if part.noted is not None]
        kept = [part.kept for part in parts if part.kept is not None]
        return cls(
            tally.merge(part.tally for part in parts),
            Noted.merged(noted) if noted else None,
            Kept.joined(kept) if kept else None,
        )


def encode(part: Part) -> bytes:
    """Return a part as bytes, its arrays left aside: about a kilobyte, however many blocks it has."""
    compact = part.tally.compact()
    data = {name: value for name, value in compact.__dict__.items() if value != getattr(_EMPTY, name)}
    whole = {"tally": data, "noted": part.noted}
    return zlib.compress(json.dumps(whole, separators=(",", ":")).encode(), 9)


def decode(body: bytes) -> Part:
    """Return what `encode` made bytes of.

    Raises
    ------
    FastcheckError
        If it is something else.
    """
    try:
        whole = json.loads(zlib.decompress(body))
        noted = None if whole["noted"] is None else Noted(*map(tuple, whole["noted"]))
        return Part(Tally(**{name: _decoded(name, value) for name, value in whole["tally"].items()}), noted)
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FastcheckError(f"a finished part is damaged: {error}") from None


_EMPTY = Tally()


def _decoded(name: str, value: Any) -> Any:
    if name in _FINDINGS:
        return Finding(*value)
    if name in _LISTS:
        return tuple(Finding(*entry) for entry in value)
    if name in _SUMS:
        return tuple(ScaledSum(*entry) for entry in value)
    return tuple(value) if isinstance(value, list) else value


def noted_of(dims: np.ndarray, numeric: np.ndarray, error_bar: np.ndarray, sums: Sequence[float]) -> Noted:
    """Note some audited dimensions of a block, and its three sums."""
    along, size, bars = ((float(value),) for value in sums)
    return Noted(tuple(dims.tolist()), tuple(numeric.tolist()), tuple(error_bar.tolist()), along, size, bars)
