"""Batch runs measured, each in a process of its own.

python bench/batch_measures.py tiny|loop|mixed|memory|ledger '{"threads": 2}' prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fastcheck import check
from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
from fastcheck.batch.run import jobs, local, runner
from fastcheck.batch.run.scheduler import InlineExecutor
from fastcheck.batch.suite.entries import ConvEntry, Entry, Suite
from fastcheck.common import machine
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request
from fastcheck.engine.shard_results import AuditRecord, ShardResult, encode
from fastcheck.metrics import tally
from fastcheck.render.batch_progress import Lines


def entry(name: str, shape: tuple[int, ...], filters: int, kernel: int, stride: int = 1, **how: Any) -> ConvEntry:
    """Describe a convolution on seeded data, every gradient of it checked at every dimension."""
    weight = (filters, shape[1], kernel, kernel)
    geometry = ConvGeometry.of(shape, weight, stride=stride, padding=kernel // 2)
    tensors = ("input", "weight", "bias")
    return ConvEntry(name, Request(dims="all", **how), geometry, True, tensors, "reference", "float64", "vjp", name)


def tiny_suite(count: int = 1000) -> list[Entry]:
    """Return cases of a few hundred dimensions, milliseconds each."""
    return [entry(f"tiny {number}", (1, 3, 6, 6), 4, 3) for number in range(count)]


def mixed_suite(count: int = 200) -> list[Entry]:
    """Return cases of a thousand to three million dimensions."""
    rng = np.random.default_rng(0)
    found: list[Entry] = []
    for number in range(count):
        channels, filters = (int(2 ** rng.uniform(3, 8.5)) for _ in range(2))
        side = int(rng.choice([7, 14, 28, 56]))
        kernel, stride = int(rng.choice([1, 3, 5])), int(rng.choice([1, 2]))
        found.append(entry(f"mixed {number}", (1, channels, side, side), filters, kernel, stride))
    return found


def through(entries: Iterable[Entry], threads: int, memory: int | None = None) -> dict[str, Any]:
    """Run a suite in a new folder, after a first case that compiles the kernels."""
    warm(entry("warm", (1, 64, 28, 28), 64, 3))
    warm(entry("warm narrow", (1, 64, 7, 7), 64, 3))
    with tempfile.TemporaryDirectory() as folder:
        cases = tuple(entries)
        options = runner.Options.of(threads=threads, memory=memory)
        start = perf_counter()
        runner.run(Suite("bench", "", cases), Path(folder) / "out", options, Lines(lambda text: None), local.Threads)
        seconds = perf_counter() - start
        with Ledger.read(Path(folder) / "out") as ledger:
            results = list(ledger.results())
        size = (Path(folder) / "out" / "ledger.sqlite").stat().st_size
    assert all(result.verdict == "pass" for result in results), [r.name for r in results if r.verdict != "pass"]
    return {
        "cases": len(cases),
        "threads": threads,
        "seconds": seconds,
        "dims": sum(result.dims for result in results),
        "shards": sum(result.shards for result in results),
        "ledger_bytes": size,
        "peak_bytes": machine.peak_bytes(),
    }


def loop(entries: Iterable[Entry], threads: int) -> dict[str, Any]:
    """Call `check` case after case."""
    warm(entry("warm", (1, 64, 28, 28), 64, 3))
    start = perf_counter()
    count = 0
    for one in entries:
        warm(one, threads)
        count += 1
    return {"cases": count, "threads": threads, "seconds": perf_counter() - start}


def ledger(shards: int, dims: int) -> dict[str, Any]:
    """Keep shards of so many dimensions each, as a large tensor has them; return the size of the ledger."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with Ledger.open(Path(folder), "bench", "", "target") as opened:
            opened.sync([PlannedCase("large", "key", {}, 1.0)])
            for number in range(shards):
                body = encode(
                    ShardResult(_tally(rng, number * dims, dims), AuditRecord(along=(0.1,), size=(0.2,), bars=(0.3,)))
                )
                opened.keep_shard("key", "", "weight", number, dims=dims, seconds=1.0, worker="bench", body=body)
        size = (Path(folder) / "ledger.sqlite").stat().st_size
    return {"shards": shards, "dims": shards * dims, "numeric_bytes": 8 * shards * dims, "ledger_bytes": size}


def _tally(rng: np.random.Generator, first: int, dims: int) -> tally.Tally:
    """Fold random dimensions, in blocks as evaluators have them; the rest is as if they came again and again."""
    blocks = []
    for _ in range(4):
        analytic = rng.standard_normal(4096)
        numeric = analytic * (1 + 1e-15 * rng.standard_normal(4096))
        blocks.append(tally.fold(first + np.sort(rng.choice(dims, 4096)), analytic, numeric, np.full(4096, 1e-14)))
    return tally.merge(blocks)


def warm(one: Entry, threads: int = 1) -> None:
    """Check a case by itself."""
    assert isinstance(one, ConvEntry)
    assert check(jobs.conv_case(one, InlineExecutor()), dims="all", threads=threads).passed


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "tiny": lambda threads: through(tiny_suite(), threads),
    "loop": lambda threads: loop(tiny_suite(), threads),
    "mixed": lambda threads: through(mixed_suite(), threads),
    "memory": lambda threads, memory: through(mixed_suite(), threads, memory),
    "ledger": ledger,
}


if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](**json.loads(sys.argv[2]))))
