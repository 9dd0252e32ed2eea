"""The machine's limit: elements per second that its vectors can process, on data that stay in the L1 cache."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from fastcheck_kernels import limit

POSITIONS, REPEATS = 512, 2**14
"""Length of the arrays (4 KiB each), and repetitions per measurement, which takes about eight milliseconds."""

_WIDTH = 2 * limit.SHIFTS
"""Width of a map; the offsets are those of a 3x3 kernel on it."""


def elements_per_second(threads: int) -> float:
    """Return the rate of all threads together; an element is one output moved by one dimension."""
    barrier = threading.Barrier(threads)

    def work(seed: int) -> tuple[float, float]:
        data = _data(seed)
        limit.move(*data, limit.SHIFTS)
        barrier.wait()
        start = time.perf_counter()
        limit.move(*data, REPEATS)
        return start, time.perf_counter()

    limit.move(*_data(0), 1)  # compiles here, once
    with ThreadPoolExecutor(threads) as pool:
        spans = list(pool.map(work, range(threads)))
    elements = int(threads * REPEATS * POSITIONS * limit.SUMS)
    return elements / (max(end for _, end in spans) - min(start for start, _ in spans))


def simd_bits() -> int | None:
    """Return the width of the widest vectors in the limit's compiled kernel; None if it is unknown."""
    if not hasattr(limit.move, "py_func"):
        return None
    # Compile it again, since Numba does not give the assembly of kernels loaded from its cache.
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
"""Patterns of packed float64 additions and subtractions in x86 and Arm assembly, the widest first."""


def _data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernel's arguments: z, v, d and offsets."""
    rng = np.random.default_rng(seed)
    offsets = np.array([row * _WIDTH + column for row in range(3) for column in range(3)], dtype=np.uint64)
    z, v, d = (_aligned(rng, size) for size in (POSITIONS, POSITIONS, POSITIONS + 3 * _WIDTH))
    return z, v, d, offsets


def _aligned(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return random numbers aligned to a cache line; otherwise the limit would depend on their address."""
    line = 64
    buffer = np.empty(8 * size + line, dtype=np.uint8)
    first = -buffer.ctypes.data % line
    array: np.ndarray = buffer[first : first + 8 * size].view(np.float64)
    array[:] = rng.standard_normal(size)
    return array
