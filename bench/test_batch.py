"""Batch runs: overhead over a loop of `check`, two threads beside one, memory beside the budget, the ledger's size.

pytest bench/test_batch.py
"""

import json

import children

OVERHEAD = 3e-3
"""Seconds that a tiny case may take longer than in a loop of `check`."""

SPEEDUP = 1.85
"""How many times faster two threads are to be than one."""

BUDGET = 400 * 2**20
"""Bytes that a suite is given whose cases together need several times as much."""

ROUNDS, MIXED_ROUNDS = 3, 15
"""Pairs of runs, of which the one with the median ratio counts: neighbours on a shared machine slow single runs."""


def _call(name, **arguments):
    return children.call("batch_measures.py", name, json.dumps(arguments))


def test_batch(benchmark, results, threads):
    rows = benchmark.pedantic(_rows, args=(threads,), rounds=1)
    results.record("batch", rows, threads=threads, packages=("torch",))
    figures = {row["name"]: row for row in rows}
    print(json.dumps(figures, indent=1))
    assert figures["tiny"]["overhead"] <= OVERHEAD
    assert figures["memory"]["peak_bytes"] <= BUDGET
    assert figures["ledger"]["ledger_bytes"] <= 1e6 * figures["ledger"]["shards"] / 1000
    if threads == 2:
        assert figures["mixed"]["speedup"] >= SPEEDUP


def _rows(threads):
    tiny = [{"run": _call("tiny", threads=1), "loop": _call("loop", threads=1)} for _ in range(ROUNDS)]
    mixed = [{"one": _call("mixed", threads=1), "all": _call("mixed", threads=threads)} for _ in range(MIXED_ROUNDS)]
    return [
        _tiny(_median(tiny, lambda pair: pair["run"]["seconds"] / pair["loop"]["seconds"])),
        _mixed(mixed),
        {"name": "memory", "budget": BUDGET} | _call("memory", threads=threads, memory=BUDGET),
        {"name": "ledger"} | _call("ledger", shards=1000, dims=1_250_000),
    ]


def _median(pairs, ratio):
    return sorted(pairs, key=ratio)[len(pairs) // 2]


def _tiny(pair):
    run, loop = pair["run"], pair["loop"]
    overhead = (run["seconds"] - loop["seconds"]) / run["cases"]
    return {"name": "tiny", "overhead": overhead, "loop_seconds": loop["seconds"]} | run


def _mixed(pairs):
    def speedup(pair):
        return pair["one"]["seconds"] / pair["all"]["seconds"]

    chosen, speedups = _median(pairs, speedup), sorted(map(speedup, pairs))
    found = {"speedup": speedup(chosen), "speedups": speedups, "one_seconds": chosen["one"]["seconds"]}
    return {"name": "mixed"} | found | chosen["all"]
