"""fastcheck.torch.gradcheck in place of torch.autograd.gradcheck: answers and time, on operators of PyTorch.

python bench/torch_gradcheck.py [--size 1000] [--only NAME]

Each operator is checked as it is, and with two faults planted in its backward. Times are of the second call with the
right backward, in seconds of wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from torch_operators import FAULTS, operators, wrong

import fastcheck.torch

LARGE = 1000
"""Entries from which gradcheck, which calls the function twice for each, takes long."""


def timed(check, function, inputs):
    """Return the answer of a check, and its seconds."""
    start = time.perf_counter()
    answer = check(function, inputs, raise_exception=False)
    return answer, time.perf_counter() - start


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1000, help="entries, about")
    parser.add_argument("--only", help="one operator")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ratios, large, agree, found, passed = {}, [], 0, 0, 0
    print("| operator | entries | gradcheck | fastcheck | faster | faults found by gradcheck | by fastcheck |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    chosen = {name: one for name, one in operators(asked.size).items() if asked.only in (None, name)}
    for name, (function, inputs) in chosen.items():
        theirs, their_time = timed(torch.autograd.gradcheck, function, inputs)
        fastcheck.torch.gradcheck(function, inputs, raise_exception=False)
        mine, my_time = timed(fastcheck.torch.gradcheck, function, inputs)
        caught = [
            (
                not torch.autograd.gradcheck(wrong(function, fault), inputs, raise_exception=False),
                not fastcheck.torch.gradcheck(wrong(function, fault), inputs, raise_exception=False),
            )
            for fault in FAULTS.values()
        ]
        by_theirs, by_mine = (sum(column) for column in zip(*caught, strict=True))
        ratios[name] = their_time / my_time
        agree, found, passed = agree + (mine == theirs), found + by_mine, passed + by_theirs
        size = sum(one.numel() for one in inputs)
        large += [name] * (size >= LARGE)
        answers = "" if mine else " (fails)"
        print(
            f"| {name} | {size:,} | {their_time:.2f} s | {my_time:.2f} s{answers} | {ratios[name]:.1f}x | "
            f"{by_theirs} of {len(FAULTS)} | {by_mine} of {len(FAULTS)} |",
            flush=True,
        )
    total = len(FAULTS) * len(chosen)
    print(f"same answer on {agree} of {len(chosen)} right ones")
    if large:
        median = statistics.median(ratios[name] for name in large)
        print(f"{median:.1f} times as fast (median of the {len(large)} operators with {LARGE:,} entries or more)")
    print(f"faults found: gradcheck {passed}, fastcheck {found} of {total}")


if __name__ == "__main__":
    main()
