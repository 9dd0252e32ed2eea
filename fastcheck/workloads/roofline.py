"""The machine's own limit: how many elements a second its vectors can move, on data that stay in the L1 cache."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from fastcheck_kernels import limit

POSITIONS, REPEATS = 512, 2**14
"""Size of the data (4 KiB an array), and repetitions in a measurement: about eight milliseconds."""

_WIDTH = 2 * limit.SHIFTS
"""Of a map: the offsets are those of a 3x3 kernel on it."""


def elements_per_second(threads: int) -> float:
    """Measure all threads together; an element is one output that is moved by one dimension."""
    together = threading.Barrier(threads)

    def work(seed: int) -> tuple[float, float]:
        data = _data(seed)
        limit.move(*data, limit.SHIFTS)
        together.wait()
        start = time.perf_counter()
        limit.move(*data, REPEATS)
        return start, time.perf_counter()

    limit.move(*_data(0), 1)  # compiles here, once
    with ThreadPoolExecutor(threads) as pool:
        spans = list(pool.map(work, range(threads)))
    elements = int(threads * REPEATS * POSITIONS * limit.SUMS)
    return elements / (max(end for _, end in spans) - min(start for start, _ in spans))


def simd_bits() -> int | None:
    """Return the width of the widest vectors that the limit's kernel is compiled to, None where that is not told."""
    if not hasattr(limit.move, "py_func"):
        return None
    # Compiled again, since Numba does not show what it read from its cache.
    options = {name: value for name, value in limit.move.targetoptions.items() if name != "nopython"}
    fresh = numba.njit(**options)(limit.move.py_func)
    fresh(*_data(0), 1)
    assembly = "".join(fresh.inspect_asm().values())
    return next((bits for bits, pattern in _VECTORS.items() if re.search(pattern, assembly)), None)


_VECTORS = {
    512: r"v(add|sub)pd\s.*%zmm",
    256: r"v(add|sub)pd\s.*%ymm",
    128: r"(add|sub)pd\s.*%xmm|f(add|sub)\s+v\d+\.2d",
}
"""Packed sums and differences of float64, in the assembly of x86 and of Arm, the widest first."""


def _data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what the kernel takes: z, v, d and offsets."""
    rng = np.random.default_rng(seed)
    offsets = np.array([row * _WIDTH + column for row in range(3) for column in range(3)], dtype=np.uint64)
    z, v, d = (_aligned(rng, size) for size in (POSITIONS, POSITIONS, POSITIONS + 3 * _WIDTH))
    return z, v, d, offsets


def _aligned(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return random numbers that begin with a cache line: otherwise the limit would depend on where they happen to."""
    line = 64
    buffer = np.empty(8 * size + line, dtype=np.uint8)
    first = -buffer.ctypes.data % line
    array: np.ndarray = buffer[first : first + 8 * size].view(np.float64)
    array[:] = rng.standard_normal(size)
    return array
