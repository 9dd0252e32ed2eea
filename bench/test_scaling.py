"""More threads, and more channels: VGG-16's weights on 1, 2, 4... threads, and what a weight costs in wide layers."""

import json

import children

from fastcheck.workloads import benchmark as short

CHANNELS = [2**k for k in range(4, 11)]


def _default(widths):
    return next(width for width in widths if width.default)


def test_threads(benchmark, results, widths, threads):
    arguments = {"network": "vgg16", "threads": short.counts(threads), "rounds": 5}
    rows = benchmark.pedantic(
        children.call,
        args=("measures.py", "scaling", json.dumps(arguments)),
        kwargs={"environment": _default(widths).environment},
        rounds=1,
    )
    results.record("scaling", rows, simd_bits=_default(widths).bits)


def test_channels(benchmark, results, widths, threads):
    arguments = {"counts": CHANNELS, "threads": threads, "rounds": 7}
    rows = benchmark.pedantic(
        children.call,
        args=("measures.py", "channels", json.dumps(arguments)),
        kwargs={"environment": _default(widths).environment},
        rounds=1,
    )
    results.record("channels", rows, threads=threads, simd_bits=_default(widths).bits)
