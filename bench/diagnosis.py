"""The confusion table of diagnoses of convolutions: which broken backward passes are named as what.

python bench/diagnosis.py [--count N] [--only NAME] [--float32]

Plants are those of tests/helpers/planted_backward.py, each in N random layers in which it has an effect. A plant counts
as named right where its own class is among the names, since several mistakes can make the same array: all of them fit.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
import broken_layers
from planted_backward import PLANTS

from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.convolutions import replayed


def named(case):
    """The classes that the diagnoses of a case name."""
    bugs = [one.bug for one in replayed(case, broken_layers.failed(case, dims="all"))]
    return [hypothesis.name for bug in bugs for hypothesis in CATALOGUE if bug.partition(": ")[0] in _said(hypothesis)]


def _said(hypothesis):
    return {hypothesis.bug, hypothesis.bug.partition(": ")[0]}


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="layers of each plant")
    parser.add_argument("--only", help="the class of mistakes to plant")
    parser.add_argument("--float32", action="store_true", help="gradients of float32")
    asked = parser.parse_args()
    dtype, start = np.float32 if asked.float32 else np.float64, time.perf_counter()
    total = right = 0
    for name, plants in PLANTS.items():
        for plant in plants if asked.only in (None, name) else ():
            others, hits = collections.Counter(), 0
            cases = [broken_layers.planted(plant, seed, dtype) for seed in range(asked.count)]
            for case in filter(None, cases):
                found = dict.fromkeys(named(case))
                hits += name in found
                others.update(one for one in found or ["(no name)"] if one != name)
            count = sum(case is not None for case in cases)
            total, right = total + count, right + hits
            also = ", ".join(f"{one} {times}" for one, times in others.most_common())
            print(f"{name:30} {plant.__name__:38} {hits:3}/{count}  {also}", flush=True)
    print(f"{right} of {total} named right, in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
