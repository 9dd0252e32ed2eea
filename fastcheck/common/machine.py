"""The machine that a check runs on: processors, memory, versions, and the part of a report that depends on them."""

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
"""More than the processors of any one machine: a larger number is a mistake, and every thread takes memory."""

OVERHEAD = 64 * 2**20
"""Bytes that a check may take besides its operands and results."""


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: Any, default: int | None = None) -> int:
    """Return the number of threads asked for, else the default, else the number of processors.

    Raises
    ------
    FastcheckError
        If it is not an integer from 1 to `MOST_THREADS`.
    """
    if threads is None:
        return default or default_threads()
    return integer("threads", threads, least=1, most=MOST_THREADS)


def available_bytes() -> int | None:
    """Return the bytes of memory available for new data, None where the system does not report them."""
    return _bytes(_field("/proc/meminfo", "MemAvailable"))


def refuse_beyond(needed: int, message: Callable[[int], str]) -> None:
    """Refuse what needs more bytes of memory than are available, where the system reports them.

    Raises
    ------
    FastcheckError
        With the text that message(available) returns.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise FastcheckError(message(available))


def peak_bytes() -> int | None:
    """Return the largest resident size of this process so far in bytes, None where the system does not report it."""
    # On Linux, getrusage reports the size of the process that started this one where that was larger.
    peak = _bytes(_field("/proc/self/status", "VmHWM"))
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _field(path: str, name: str) -> str | None:
    """Return the first value of a name in a file of lines "name: value", None where there is no such file or name."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def _bytes(size: str | None) -> int | None:
    """Return a size such as "512 kB" in bytes."""
    return None if size is None else int(size.removesuffix("kB")) * 1024


def target() -> str:
    """Return the processor that kernels are compiled for; its family alone where no kernel was needed."""
    binding = sys.modules.get("llvmlite.binding")
    return platform.machine() if binding is None else _compiled_for(binding)


@cache
def _compiled_for(binding: Any) -> str:
    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def processor() -> str:
    """Return the processor's model name where the system reports one, else its family."""
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def described() -> dict[str, Any]:
    """Describe this machine to readers of a benchmark: the kind of machine, not its name."""
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
    """Return the versions of Python, fastcheck, NumPy and Numba, and of other packages that are installed."""
    by_package = {
        "fastcheck": __version__,
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
    }
    for package in others:
        with suppress(metadata.PackageNotFoundError):
            by_package[package] = _version(package)
    return by_package


@cache
def _version(package: str) -> str:
    """Return the version of an installed package. Every report shows it, so its file is read once."""
    return metadata.version(package)
