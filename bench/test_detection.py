"""Planted errors, caught or missed, and false alarms, of several gradient checkers.

pytest bench/test_detection.py
"""

import children

ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
"""For JAX, which has no call for it."""


def test_detection(benchmark, results):
    rows = benchmark.pedantic(children.call, args=("detection.py",), kwargs={"environment": ONE_THREAD}, rounds=1)
    results.record("detection", rows, threads=1, packages=("torch", "jax"))
    correct = [row for row in rows if row["kind"] == "none"]
    alarms, cases = sum(row["refused"]["fastcheck"] for row in correct), sum(row["cases"] for row in correct)
    print(f"\nfastcheck: {alarms} false alarms in {cases} correct cases")
