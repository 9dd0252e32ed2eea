"""The speed of checks on this machine: published layers beside the machine's limit and PyTorch's backward passes."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from statistics import median
from types import ModuleType
from typing import Any

from fastcheck.check import check
from fastcheck.common import machine
from fastcheck.common.arguments import integer
from fastcheck.common.errors import FastcheckError
from fastcheck.common.progress import ProgressHook, silent
from fastcheck.convolutions.case import ConvCase
from fastcheck.workloads import roofline, zoo
from fastcheck.workloads.published import NETWORKS, ConvLayer

SCHEMA = 1

LAYERS = (("vgg16", "conv3_2"), ("vgg16", "conv5_1"), ("resnet50", "layer4.0.conv3"))
"""Layers of the short benchmark: maps 56, 14 and 7 wide, the last with a 1x1 kernel."""

ROUNDS = 5
"""Number of rounds of the short benchmark."""

PAUSE = 0.1
"""Seconds to wait after PyTorch, whose threads spin for a while and would occupy the cores of the next side."""

Measured = dict[str, float]
Side = Callable[[], Measured]
"""One side of a comparison: a function that runs once and returns figures by name."""


def run(
    *,
    threads: int | None = None,
    layers: Iterable[tuple[str, str]] | None = None,
    rounds: int | None = None,
    progress: ProgressHook | None = None,
) -> dict[str, Any]:
    """Measure this machine in about a minute, compilation included.

    Parameters
    ----------
    threads : int, optional
        Number of threads of every side, PyTorch included. Default: all processors available to this process.
    layers : pairs of str, optional
        Networks and their layers; by default `LAYERS`.
    rounds : int, optional
        Number of rounds, over which medians are taken; by default `ROUNDS`.
    progress : callable, optional
        Called as progress(stage, done, total).

    Returns
    -------
    dict
        The content of ``fastcheck bench --json``: ``schema, machine, threads, limit, scaling, layers``.

    Raises
    ------
    FastcheckError
        If an argument is invalid.
    """
    count = machine.thread_count(threads)
    rounds = ROUNDS if rounds is None else integer("rounds", rounds, least=1)
    report = progress or silent
    chosen = [(network, _layer(network, name)) for network, name in layers or LAYERS]
    report("measuring the limit (the first run compiles the kernels)", 0, 0)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": machine.described(),
        "threads": count,
        "limit": {
            "simd_bits": roofline.simd_bits(),
            "elements_per_second": in_turns({"limit": lambda: measured_roofline(count)}, rounds)["limit"],
        },
    }
    network, layer = chosen[0]
    report(f"{network} {layer.name} on 1 to {count} threads", 0, 0)
    case = zoo.make_case(network, layer, ("weight",), threads=count)
    results["scaling"] = {"network": network, "layer": layer.name, "tensor": "weight"}
    results["scaling"]["rows"] = scaling([case], counts(count), rounds)
    results["layers"] = []
    for network, layer in chosen:
        for tensor in ("weight", "input"):
            report(f"{network} {layer.name}: {tensor}", 0, 0)
            results["layers"].append(layer_row(network, layer, tensor, threads=count, rounds=rounds))
    return results


def layer_row(
    network: str,
    layer: ConvLayer,
    tensor: str,
    *,
    threads: int,
    rounds: int,
    batch: int = 1,
    side: Callable[[ConvCase, int], Measured] | None = None,
) -> dict[str, Any]:
    """Measure one layer's check, the machine's limit and, if it is installed, PyTorch's backward pass, in turns.

    An *element* is one output touched by one dimension. A tensor therefore has as many elements as a forward pass has
    multiply-adds, including those with padding.

    Parameters
    ----------
    network : str
    layer : ConvLayer
    tensor : {"weight", "input"}
    threads, rounds, batch : int
    side : callable, optional
        Replacement for `checked`.

    Returns
    -------
    dict
        Medians of seconds, and quantities derived from them; PyTorch's are None if it is not installed.
    """
    torch = _torch()
    backward = "reference" if torch is None else "torch"
    case = zoo.make_case(network, layer, (tensor,), backward=backward, batch=batch, threads=threads)
    geometry = case.geometry
    sides: dict[str, Side] = {
        "limit": lambda: measured_roofline(threads),
        "check": lambda: (side or checked)(case, threads),
    }
    with ExitStack() as stack:
        if torch is not None:
            arrays = (case.input, case.weight, case.grad_output)
            backward_pass = stack.enter_context(torch.backward_pass(geometry, *arrays, threads, tensor))
            sides["torch"] = lambda: {"torch_seconds": _timed(backward_pass, PAUSE)}
        medians = in_turns(sides, rounds)
    elements = math.prod(geometry.output_shape) * geometry.terms
    row: dict[str, Any] = {
        "network": network,
        "layer": layer.name,
        "tensor": tensor,
        "input": list(geometry.input_shape),
        "weight": list(geometry.weight_shape),
        "output": list(geometry.output_shape),
        "dims": math.prod(geometry.shape_of(tensor)),
        "elements": elements,
        "torch_seconds": None,
    }
    row |= medians
    row["share_of_limit"] = elements / row["seconds"] / row["limit"]
    row["ratio_to_torch"] = None if torch is None else row["seconds"] / row["torch_seconds"]
    return row


def checked(case: ConvCase, threads: int) -> Measured:
    """Check every dimension of a case and return the seconds of its parts.

    Raises
    ------
    FastcheckError
        If the check does not pass: the time of a wrong or partial check is meaningless.
    """
    report = check(case, dims="all", threads=threads)
    if not report.passed:
        raise FastcheckError(f"the check of a correct gradient ended as: {report.summary()}")
    return {name: report.run[name] for name in ("seconds", "forward_seconds", "audit_seconds")}


def measured_roofline(threads: int) -> Measured:
    """Return the machine's limit in elements per second."""
    return {"limit": roofline.elements_per_second(threads)}


def scaling(cases: list[ConvCase], threads: Iterable[int], rounds: int) -> list[dict[str, Any]]:
    """Measure the same checks with several thread counts, in turns; speed-ups are relative to the first count."""

    def total(count: int) -> Measured:
        return {str(count): sum(checked(case, count)["seconds"] for case in cases)}

    sides: dict[str, Side] = {str(count): lambda count=count: total(count) for count in threads}  # type: ignore[misc]
    seconds = in_turns(sides, rounds)
    base = next(iter(seconds.values()))
    return [{"threads": int(count), "seconds": taken, "speedup": base / taken} for count, taken in seconds.items()]


def counts(most: int) -> list[int]:
    """Return the powers of two up to a number of threads, and the number itself."""
    return sorted({*(2**k for k in range(most.bit_length())), most})


def in_turns(sides: Mapping[str, Side], rounds: int) -> Measured:
    """Run the sides in turns, so that a busy machine slows all of them, and return the medians of their figures.

    Every side first runs once without being measured.
    """
    figures: dict[str, list[float]] = defaultdict(list)
    for side in sides.values():
        side()
    for _ in range(rounds):
        for side in sides.values():
            for name, value in side().items():
                figures[name].append(value)
    return {name: median(values) for name, values in figures.items()}


def _layer(network: str, name: str) -> ConvLayer:
    return next(layer for layer in NETWORKS[network].layers if layer.name == name)


def _timed(call: Callable[[], object], pause: float) -> float:
    start = time.perf_counter()
    call()
    taken = time.perf_counter() - start
    time.sleep(pause)
    return taken


def _torch() -> ModuleType | None:
    """Return the PyTorch adapter; None if PyTorch is not installed."""
    try:
        from fastcheck.adapters import torch
    except FastcheckError:
        return None
    return torch
