"""Whole networks beside torch.func.vmap at its best chunk and a loop by hand, in turns: a process a network.

pytest bench/test_network_speed.py
"""

import json

import children
import pytest

TARGETS = {
    "digits_cnn": {"all": 35, "conv1.weight": 10, "conv2.weight": 25},
    "cifar_net": {"all": 10, "conv1.weight": 3},
}
"""How many times faster than vmap differencing is to be, by the tensor."""

LOOP_TARGETS = {"digits_cnn": {"all": 500}, "cifar_net": {}}
"""The same for the loop by hand."""


def _missed(rows, targets, peer):
    """Tell every target that is missed: the tensor, how many times faster, and how many it was to be."""
    faster = {row["tensor"]: row[peer] / row["raw_seconds"] for row in rows}
    return [f"{name}: {faster[name]:.1f}x of {least}x" for name, least in targets.items() if faster[name] < least]


@pytest.mark.parametrize("network", TARGETS)
def test_network(benchmark, results, threads, network):
    arguments = json.dumps({"threads": threads})
    rows = benchmark.pedantic(children.call, args=("network_peers.py", network, arguments), rounds=1)
    results.record(network, rows, threads=threads, packages=("torch",))
    benchmark.extra_info["rows"] = json.dumps(rows)
    for row in rows:
        print(
            f"\n{row['tensor']}: {row['vmap_seconds'] / row['raw_seconds']:,.1f}x vmap (chunk {row['chunk']}), "
            f"{row['loop_seconds'] / row['raw_seconds']:,.0f}x the loop",
            end="",
        )
    assert not _missed(rows, TARGETS[network], "vmap_seconds")
    assert not _missed(rows, LOOP_TARGETS[network], "loop_seconds")
