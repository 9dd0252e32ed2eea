"""What a check ran on: the part of a report that another machine may tell differently."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from fastcheck.version import __version__


def default_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_bytes() -> int | None:
    """Return the memory that is free for new data, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return None
    except OSError:
        return None


def peak_bytes() -> int | None:
    """Return the largest resident size of this process so far, None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def target() -> str:
    """Return the processor that kernels are compiled for."""
    from llvmlite import binding

    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    return {
        "fastcheck": __version__,
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "numba": metadata.version("numba"),
    }
