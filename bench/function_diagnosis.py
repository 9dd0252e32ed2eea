"""The diagnoses of functions: which mistakes in backward passes of arrays are named as what.

python bench/function_diagnosis.py [--count N] [--only WORDS]

Plants are those of tests/helpers/planted_functions.py, each in N random shapes, with gradients of float64 and float32.
A plant counts as named right where its own words are among those given for every tensor that fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
from planted_functions import PLANTED, named

import fastcheck


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="shapes of each plant")
    parser.add_argument("--only", default="", help="part of the words of the plants to run")
    asked = parser.parse_args()
    start, total, right = time.perf_counter(), {}, {}
    for key in (key for key in PLANTED if asked.only in key):
        for dtype in ("float64", "float32"):
            found = [named(fastcheck, key, seed, dtype) for seed in range(asked.count)]
            hits = sum(not others for others in found)
            total[dtype], right[dtype] = total.get(dtype, 0) + asked.count, right.get(dtype, 0) + hits
            others = sorted({other for one in found for other in one})
            print(f"{hits:3}/{asked.count} {dtype} {key}  {'; '.join(others)}", flush=True)
    for dtype, count in total.items():
        print(f"{dtype}: {right[dtype]} of {count} named right")
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
