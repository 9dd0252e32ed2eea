"""What is measured in a process of its own: python bench/measures.py NAME '{"argument": value}' prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any

from fastcheck.convolutions.case import ConvCase
from fastcheck.workloads import benchmark, roofline, zoo
from fastcheck.workloads.published import NETWORKS, ConvLayer
from fastcheck_kernels import delta


def width(threads: int) -> dict[str, Any]:
    """The width of vectors, and the limit of one thread and of all."""
    sides: dict[str, benchmark.Side] = {
        f"{count} threads": lambda count=count: {str(count): roofline.elements_per_second(count)}  # type: ignore[misc]
        for count in {1, threads}
    }
    return {"simd_bits": roofline.simd_bits(), "limits": benchmark.in_turns(sides, rounds=9)}


def network(network: str, tensor: str, threads: int, rounds: int, batch: int) -> list[dict[str, Any]]:
    """Every conv layer of a network; of layers of one shape the first, with their number."""
    found = []
    for layer, names in _alike(network):
        row = benchmark.layer_row(
            network, layer, tensor, threads=threads, rounds=rounds, batch=batch, side=_checked_and_kernels
        )
        found.append(row | {"alike": len(names), "groups": layer.groups, "stride": layer.stride} | _kernel_share(row))
    return found


def channels(counts: list[int], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Layers of as many filters as channels, 3x3 on maps 14 wide."""
    found = []
    for count in counts:
        layer = ConvLayer(f"{count} channels", (count, 14, 14), (count, count, 3, 3), 1, 1, 1, 1, False)
        row = benchmark.layer_row("square", layer, "weight", threads=threads, rounds=rounds, side=_checked_and_kernels)
        found.append(row | {"channels": count} | _kernel_share(row))
    return found


def scaling(network: str, threads: list[int], rounds: int) -> list[dict[str, Any]]:
    """All weights of a network, with different numbers of threads."""
    cases = [
        zoo.make_case(network, layer, ("weight",), backward="torch", threads=max(threads))
        for layer in NETWORKS[network].layers
    ]
    return benchmark.scaling(cases, threads, rounds)


def _alike(network: str) -> Iterator[tuple[ConvLayer, list[str]]]:
    """Yield the layers of different shapes, with the names of those of the same shape."""
    shapes: dict[ConvLayer, list[str]] = {}
    for layer in NETWORKS[network].layers:
        shapes.setdefault(replace(layer, name="", bias=False), []).append(layer.name)
    for layer, names in shapes.items():
        yield replace(layer, name=names[0]), names


def _checked_and_kernels(case: ConvCase, threads: int) -> benchmark.Measured:
    with _in_kernels() as seconds:
        found = benchmark.checked(case, threads)
    assert seconds
    return found | {"kernel_seconds": sum(seconds) / threads}


def _kernel_share(row: dict[str, Any]) -> dict[str, float]:
    return {"kernel_share_of_limit": row["elements"] / row["kernel_seconds"] / row["limit"]}


@contextmanager
def _in_kernels() -> Iterator[list[float]]:
    """Record the seconds of every call of the differencing kernels, in whatever thread."""
    seconds: list[float] = []

    def timed(kernel: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            start = perf_counter()
            kernel(*arguments)
            seconds.append(perf_counter() - start)

        return call

    originals = {name: getattr(delta, name) for name in ("reduce", "spread")}
    try:
        for name, kernel in originals.items():
            setattr(delta, name, timed(kernel))
        yield seconds
    finally:
        for name, kernel in originals.items():
            setattr(delta, name, kernel)


MEASURES = {"limit": width, "network": network, "channels": channels, "scaling": scaling}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](**json.loads(sys.argv[2]))))
