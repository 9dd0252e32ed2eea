"""Measurements in processes of their own: with a cache, vectors and memory that no other has used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
HELPERS = ROOT / "tests" / "helpers"


@dataclass(frozen=True)
class Width:
    """A width of vectors, and the environment in which kernels are compiled to it."""

    bits: int | None
    default: bool
    environment: dict[str, str]


def call(script: str, *arguments: object, environment: dict[str, str] | None = None) -> Any:
    """Run a script of this folder on these sources, and return the JSON that it prints."""
    command = [sys.executable, str(HERE / script), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=on_these_sources(environment))
    return json.loads(done.stdout)


def on_these_sources(environment: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that imports these sources, whatever is installed."""
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "kernels", HELPERS))
    return os.environ | {"PYTHONPATH": paths} | (environment or {})


def widths(caches: Path, threads: int) -> list[Width]:
    """Find the widths that this machine has: LLVM's choice, and the others where it can be told to take them."""
    found: list[Width] = []
    for name, wish in (("default", {}), ("256", _preferring("+")), ("512", _preferring("-"))):
        if wish is None:
            continue
        environment = wish | {"NUMBA_CACHE_DIR": str(caches / name)}
        bits = call("measures.py", "limit", json.dumps({"threads": threads}), environment=environment)["simd_bits"]
        if bits not in [width.bits for width in found]:
            found.append(Width(bits, name == "default", environment))
    return found


def _preferring(sign: str) -> dict[str, str] | None:
    """Return what tells LLVM to prefer vectors of 256 bits, or not to, on a processor that has 512."""
    sys.path.insert(0, str(HELPERS))
    import widths

    return widths.environment(f"{sign}prefer-256-bit") if 256 in widths.narrower() else None
