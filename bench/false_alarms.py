"""Correct gradients of random convolutions: how many are called wrong, or inconclusive, and how tight their bars are.

Every case is examined by directions over all dimensions, too.

python bench/false_alarms.py [--cases 5000] [--seed N] [--json F]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from data_kinds import KINDS, any_layer, made, wide

import fastcheck
from fastcheck.engine.directions import COUNT

SEED = 3_141_592_653
"""One that no test uses."""

EVALUATORS = ("delta", "local", "full")
DIMS = {"delta": "all", "local": 100, "full": 20}
BACKWARDS = ("torch", "reference")
DTYPES = (np.float64, np.float32)
EDGES = (1, 10, 100, 1_000, 10_000, 10**9)
"""Numbers of terms between which tightness is told apart."""


def a_case(seed):
    """Return a random case, what it is, and the evaluator for it."""
    rng = np.random.default_rng(seed)
    kinds = [KINDS[i] for i in rng.integers(len(KINDS), size=3)]
    scale = 1.0 if wide in kinds else 10.0 ** rng.uniform(-8, 8)
    dtype = DTYPES[int(rng.integers(2))]
    # The reference computes in float64.
    backward = BACKWARDS[int(rng.integers(2))] if dtype == np.float64 else "torch"
    evaluator = EVALUATORS[int(rng.integers(3))]
    case = made(any_layer(rng), kinds, scale, dtype, [*seed, 1], backward)
    return case, (evaluator, np.dtype(dtype).name, backward), [kind.__name__ for kind in kinds]


def search(cases, seed):
    """Check so many cases; return counts by what they are, the worst of them, and more."""
    verdicts, dims, worst, contradicted = defaultdict(Counter), 0, (0.0, ""), 0
    used = defaultdict(list)
    for number in range(cases):
        case, (evaluator, dtype, backward), kinds = a_case([seed, number])
        report = fastcheck.check(
            case, dims=DIMS[evaluator], evaluator=evaluator, directions=COUNT, seed=number, keep=True
        )
        contradicted += report.directions is not None and report.directions["failing"] > 0
        verdicts[evaluator, dtype, backward][report.verdict] += 1
        if not report.passed:
            print(f"case {number}: {evaluator} {dtype} {backward} {kinds}: {report.summary()}", file=sys.stderr)
        for name, tensor in report.tensors.items():
            dims += tensor.dims_checked
            share = np.abs(tensor.analytic - tensor.numeric) / np.where(tensor.error_bar > 0, tensor.error_bar, 1.0)
            worst = max(worst, (float(share.max()), f"case {number}, {name}"))
            if dtype == "float64":
                terms = case.geometry.products_per_dimension(name) // case.geometry.terms
                differing = share[share > 0]
                if differing.size:  # where all agree to the last bit, no bar is tight
                    used[next(edge for edge in EDGES if terms <= edge)].append(float(np.median(differing)))
    return verdicts, dims, worst, contradicted, {edge: float(np.median(found)) for edge, found in sorted(used.items())}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json")
    asked = parser.parse_args()
    verdicts, dims, (share, where), contradicted, used = search(asked.cases, asked.seed)
    total = sum(verdicts.values(), Counter())
    for kind, found in sorted(verdicts.items()):
        print(*kind, dict(found))
    print(
        f"{asked.cases:,} correct cases, {dims:,} dimensions: {total['fail']} false alarms, "
        f"{total['inconclusive']} inconclusive, {total['error']} errors; {contradicted} contradict directions"
    )
    print(f"largest |a - n| / error bar: {share:.2f} ({where})")
    for edge, median in used.items():
        print(f"up to {edge:,} terms, float64: median |a - n| / error bar {median:.1e}")
    sys.exit(total["pass"] != asked.cases or contradicted)


if __name__ == "__main__":
    main()
