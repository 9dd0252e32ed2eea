"""The largest resident size of this process, from now on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Memory:
    """How many bytes were taken at most above the start; None where the system does not tell."""

    bytes: int | None = None


@contextmanager
def peak_above() -> Iterator[Memory]:
    """Measure what the block takes above what is resident when it begins.

    The peak is that of /proc, since `resource.getrusage` counts from the process that started this one: a child of a
    test run with PyTorch loaded would begin with all of that.
    """
    found = Memory()
    if not _RESET.exists():
        yield found
        return
    _RESET.write_text("5")  # the peak begins again at what is resident now
    before = _resident("VmRSS")
    yield found
    found.bytes = _resident("VmHWM") - before


def _resident(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])
