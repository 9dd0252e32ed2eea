"""The compile time of every kernel: python bench/compilation.py, with an empty NUMBA_CACHE_DIR, prints JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from numba.core import event

import fastcheck
from fastcheck.workloads import roofline, zoo
from fastcheck.workloads.published import ConvLayer

LAYERS = (
    ConvLayer("wide", (4, 12, 12), (4, 4, 3, 3), 1, 1, 1, 1, True),
    ConvLayer("narrow", (4, 3, 3), (256, 4, 3, 3), 1, 1, 1, 1, True),
    ConvLayer("depthwise", (4, 12, 12), (4, 1, 3, 3), 1, 1, 1, 4, True),
)
"""Layers that together take every kernel of a check."""


def compiled() -> list[dict[str, Any]]:
    """Use every kernel, and return what each took to compile, helpers included."""
    listener = event.RecordingListener()
    with event.install_listener("numba:compile", listener):
        for layer in LAYERS:
            case = zoo.make_case("compiled", layer, ("weight", "input", "bias"))
            assert fastcheck.check(case, dims="all", threads=1).passed
        roofline.elements_per_second(1)
    return list(_outermost(listener.buffer))


def _outermost(events: list[tuple[float, event.Event]]) -> Iterator[dict[str, Any]]:
    """Yield the compilations that no other one asked for: a kernel's helpers are compiled within its own."""
    running: list[float] = []
    for moment, entry in events:
        if entry.is_start:
            running.append(moment)
            continue
        start = running.pop()
        function = entry.data["dispatcher"].py_func
        if not running:
            name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
            yield {"kernel": name, "seconds": moment - start}


if __name__ == "__main__":
    print(json.dumps(compiled()))
