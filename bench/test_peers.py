"""Gradient checkers side by side on the 64 to 64 layer, 3x3 on maps of 8x8: 36,864 weights."""

import json

import children
from peers import PEERS


def test_peers(benchmark, results, threads):
    def run():
        children.call("peers.py", "fastcheck", threads)  # so that every kernel is in the cache
        return [children.call("peers.py", name, threads) for name in PEERS]

    rows = benchmark.pedantic(run, rounds=1)
    results.record("peers", rows, threads=threads, packages=("torch", "jax", "scipy"))
    benchmark.extra_info["rows"] = json.dumps(rows)
    ours, slow = (next(row for row in rows if row["name"] == name) for name in ("fastcheck", "gradcheck slow"))
    print(f"\ngradcheck / fastcheck: {slow['seconds'] / ours['seconds']:,.0f}, {ours['bytes'] / 1e6:.0f} MB")
