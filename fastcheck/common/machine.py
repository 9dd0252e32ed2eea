"""What a check ran on: the part of a report that another machine may tell differently."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any

from fastcheck.common.arguments import integer
from fastcheck.common.errors import FastcheckError
from fastcheck.common.version import __version__

MOST_THREADS = 4096
"""More than any one machine has processors; a larger number is a mistake, and every thread takes memory."""


def default_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: Any, default: int | None = None) -> int:
    """Return a number of threads that was asked for, else the default, else that of the processors.

    Raises
    ------
    FastcheckError
        If it is no integer from 1 to `MOST_THREADS`.
    """
    if threads is None:
        return default or default_threads()
    return integer("threads", threads, least=1, most=MOST_THREADS)


def available_bytes() -> int | None:
    """Return the memory that is free for new data, None where the system does not tell."""
    return _bytes(_told("/proc/meminfo", "MemAvailable"))


def refuse_beyond(needed: int, message: Callable[[int], str]) -> None:
    """Refuse what needs more memory than is free, where the system tells how much that is.

    Raises
    ------
    FastcheckError
        With the text of message(available).
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise FastcheckError(message(available))


def peak_bytes() -> int | None:
    """Return the largest resident size of this process so far, None where the system does not tell."""
    # Linux has getrusage tell the size of the process that started this one, where that was larger.
    peak = _bytes(_told("/proc/self/status", "VmHWM"))
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _told(path: str, name: str) -> str | None:
    """Return what a file of lines "name: value" tells under a name first, None where there is no such file or name."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def _bytes(message: str | None) -> int | None:
    return None if message is None else int(message.removesuffix("kB")) * 1024


def target() -> str:
    """Return the processor that kernels are compiled for; its family alone where none was needed."""
    binding = sys.modules.get("llvmlite.binding")
    return platform.machine() if binding is None else _compiled_for(binding)


@cache
def _compiled_for(binding: Any) -> str:
    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def processor() -> str:
    """Return the processor's name as it tells it, else its family."""
    return _told("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def described() -> dict[str, Any]:
    """Describe this machine to readers of a benchmark: its kind, not its name."""
    return {
        "processor": processor(),
        "target": target(),
        "cores": default_threads(),
        "system": platform.system(),
        "versions": versions("torch"),
    }


def run_part(threads: int, seconds: float, forward_seconds: float = 0.0, audit_seconds: float = 0.0) -> dict[str, Any]:
    """Return the part of a report that depends on the machine and the moment."""
    return {
        "threads": threads,
        "seconds": seconds,
        "audit_seconds": audit_seconds,
        "forward_seconds": forward_seconds,
        "peak_bytes": peak_bytes(),
        "target": target(),
        "versions": versions(),
    }


def versions(*others: str) -> dict[str, str]:
    """Return the versions of Python and of what computes, and of other packages that are installed."""
    found = {
        "fastcheck": __version__,
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
    }
    for package in others:
        with suppress(metadata.PackageNotFoundError):
            found[package] = _version(package)
    return found


@cache
def _version(package: str) -> str:
    """Return the version of an installed package, whose file is read once: every report tells it."""
    return metadata.version(package)
