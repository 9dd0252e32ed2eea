"""How every kernel of this package is compiled and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _source_stamp() -> bytes:
    """Return one digest of every source file of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


_STAMP = _source_stamp()


def kernel(*fastmath: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the GIL, cached on disk where a folder is writable.

    Parameters
    ----------
    *fastmath : str
        LLVM flags that the kernel is allowed. ``"contract"`` (fused multiply-add) is safe anywhere;
        ``"reassoc"`` belongs to reductions only. Flags that ignore signed zeros, NaN or infinities would let
        the compiler fold a difference (z + d) - (z - d) into 2d and are refused.

    Raises
    ------
    ValueError
        If a flag other than those two is asked for.
    """
    if not set(fastmath) <= {"contract", "reassoc"}:
        raise ValueError(f"fastmath flags {sorted(fastmath)}: only 'contract' and 'reassoc' are allowed")

    def compile_lazily(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
        try:
            dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no cache folder is writable: compile in each process instead
            return numba.njit(**options)(function)
        # Numba's own stamp covers the kernel's file alone, so that an edit of a helper in another file would
        # go unseen (tests/kernels/test_jit.py).
        cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if hasattr(cache_file, "_source_stamp"):
            cache_file._source_stamp = _STAMP
        return dispatcher

    return compile_lazily
