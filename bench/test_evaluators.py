"""Two-sided differences a second of each evaluator, and whether threads are used.

pytest bench/test_evaluators.py
"""

import time

import pytest
from layer_examples import case, layer

import fastcheck

LAYER = layer((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
TENSORS = ("input", "weight", "bias")


@pytest.fixture(scope="module")
def made():
    return case(LAYER, output=None)


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize(("evaluator", "dims"), [("local", 400), ("full", 24)])
def test_differences(benchmark, made, evaluator, dims, tensor, threads):
    alone = case(LAYER, grads={tensor: made.grads[tensor]}, output=None)
    benchmark.group = f"64 to 64, 56 wide, {threads} threads: {evaluator}"
    report = benchmark.pedantic(
        fastcheck.check,
        args=(alone,),
        kwargs={"dims": dims, "evaluator": evaluator, "threads": threads},
        rounds=3,
        warmup_rounds=1,
    )
    assert report.passed
    checked = report.tensors[tensor].dims_checked
    benchmark.extra_info["differences a second"] = checked / report.run["seconds"]
    print(f"\n{evaluator} {tensor}: {checked / report.run['seconds']:,.0f} differences a second")


def test_full_with_two_threads_uses_both(made):
    fastcheck.check(made, dims=4, evaluator="full", threads=2)
    wall, cpu = time.perf_counter(), time.process_time()
    fastcheck.check(made, dims=240, evaluator="full", threads=2)
    used = (time.process_time() - cpu) / (time.perf_counter() - wall)
    print(f"\n{used:.2f} CPU-seconds a second")
    assert used > 1.6
