"""Compressed JSON, the form in which a ledger stores reports and finished parts."""

from __future__ import annotations

import json
import zlib
from typing import Any

from fastcheck.common.errors import FastcheckError


def pack(data: Any, level: int, most: int, *, allow_nan: bool = True) -> bytes:
    """Return data as compressed JSON; nan and infinities are written as in JavaScript, where they are allowed.

    Raises
    ------
    FastcheckError
        If the JSON is longer than ``most`` bytes: `unpack` would refuse it.
    ValueError, TypeError
        If JSON cannot hold it.
    """
    text = json.dumps(data, allow_nan=allow_nan, separators=(",", ":")).encode()
    if len(text) > most:
        raise FastcheckError(f"it has {len(text):,} bytes: expected at most {most:,}")
    return zlib.compress(text, level)


def unpack(body: bytes, most: int) -> Any:
    """Return the data that `pack` compressed; never inflate more than ``most`` bytes.

    Raises
    ------
    FastcheckError
        If the bytes are something else, or longer.
    """
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(body, most + 1)
        if len(text) > most or not stream.eof:
            raise FastcheckError(f"it is cut short, or longer than {most:,} bytes")
        return json.loads(text)
    except (zlib.error, ValueError, RecursionError, MemoryError) as error:
        raise FastcheckError(str(error)) from None
