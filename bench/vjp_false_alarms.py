"""Right backward passes of random functions of arrays: how many are called wrong; and which wrong ones pass.

python bench/vjp_false_alarms.py [--cases 2000] [--faults 2] [--seed N] [--family NAME] [--only SEED] [--json F]

Each function is checked with its right backward pass, and with faults planted in it, which take turns. Whatever is not
as it should be is listed on standard error, with what replays it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from random_vjps import FAMILIES, FAULTS, KINDS, OWN, QUIET, draw, planted

import fastcheck

SEED = 1_732_050_807
"""One that no test uses, and that nothing was tuned with."""

VERDICTS = ("pass", "fail", "inconclusive", "refused")

OUTCOMES = {
    "found": "found",
    "inconclusive": "inconclusive",
    "below": "below the bar",
    "limit": "below the limit of detection",
    "chance": "by chance",
    "defect": "passes above the bar",
}
"""What becomes of a wrong backward pass: it fails; it is inconclusive or refused; or it passes. Then its entries are
wrong by no more than their error bars; or, where they are none of the sample, by no more than the directions' limit of
detection; or by more than that, which happens by the chance that the report states; or by more than their bars, which
must not occur."""

FAR = 2.0
"""Roundings of backward that an error is, at least: a smaller one might as well be rounding, and counts as none."""

FEW_UNITS = 25.0
"""Round-offs of its arithmetic that a right backward pass may be off, of an entry and of its tensor's largest."""


class Recorded:
    """A backward pass that keeps the gradients of its first call, which is at the start point."""

    def __init__(self, backward):
        self._backward, self.first = backward, None

    def __call__(self, cotangents, inputs):
        grads = self._backward(cotangents, inputs)
        if self.first is None:
            self.first = [grad.detach().double().numpy().ravel().copy() for grad in grads]
        return grads


def checked(drawn, backward):
    """Return the report, or None where the check is refused; the verdict, its reason, and the gradients."""
    recorded = Recorded(backward)
    try:
        report = fastcheck.check_vjp(**drawn.arguments(recorded))
    except fastcheck.FastcheckError as error:
        return None, "refused", f"refused: {error}", recorded.first
    return report, report.verdict, report.summary(), recorded.first


def outcome(drawn, fault, backward, right):
    """Return what becomes of a planted fault, and in words; None where it changes no more than rounding does."""
    report, verdict, summary, wrong = checked(drawn, backward)
    errors = [np.where(np.isfinite(one), np.abs(one - other), np.inf) for one, other in zip(wrong, right, strict=True)]
    if fault not in QUIET and not any(
        (error > FAR * _rounding(drawn, other)).any() for error, other in zip(errors, right, strict=True)
    ):
        return None
    if verdict != "pass":
        return "found" if verdict == "fail" else "inconclusive", summary
    if fault in QUIET:
        return "defect", summary
    found = [_missed(report, name, error) for name, error in zip(drawn.names(), errors, strict=True) if error.any()]
    worst = max(found, key=lambda one: [*OUTCOMES].index(one[0]))
    return worst[0], f"{summary}: {worst[1]}"


def _rounding(drawn, grad):
    sizes = np.abs(grad)
    return max(1e-12, FEW_UNITS * drawn.unit) * (sizes + sizes.max(initial=0.0))


def _missed(report, name, error):
    """Return why the errors of a tensor pass, and the largest one in words."""
    tensor = report.tensors[name]
    dims = tensor.dims
    off, bar = np.abs(tensor.analytic - tensor.numeric), tensor.error_bar
    moved = error[dims] > 0
    if (moved & (off > bar)).any():
        place = int(np.argmax(moved * (off - bar)))
        return "defect", f"{name}[{dims[place]}] is off by {off[place]:.2g}, bar {bar[place]:.2g}"
    others = np.delete(error, dims)
    if not others.any():
        place = int(np.argmax(error[dims]))
        return "below", f"{name}[{dims[place]}] is wrong by {error[dims][place]:.2g}, bar {bar[place]:.2g}"
    limit = report.directions["limit_of_detection"][name]
    return "limit" if others.max() <= limit else "chance", f"{name} is wrong by {others.max():.2g}, limit {limit:.2g}"


class Search:
    """Counts of verdicts by family and of outcomes by fault."""

    def __init__(self, faults, listed):
        self._faults, self._listed, self._turn = faults, listed, itertools.cycle([*FAULTS, OWN])
        self.verdicts, self.outcomes = defaultdict(Counter), defaultdict(Counter)
        self.seconds = Counter()

    def take(self, family, seed):
        """Check one function with its right backward pass and with faults."""
        start, drawn = time.perf_counter(), draw(family, seed)
        label = f"--family {family} --only {seed}: {drawn.described()}"
        report, verdict, summary, right = checked(drawn, drawn.backward)
        self.verdicts[family, drawn.kind][verdict] += 1
        if verdict != "pass" or self._listed:
            self._tell(label, "right", summary)
        if report is not None:
            rng = np.random.default_rng(seed)
            names = [*FAULTS, OWN] if self._listed else itertools.islice(self._turn, self._faults)
            for fault in names:
                self._plant(drawn, fault, planted(drawn, fault, rng), right, label)
        self.seconds[family, drawn.kind] += time.perf_counter() - start

    def _plant(self, drawn, fault, backward, right, label):
        found = None if backward is None else outcome(drawn, fault, backward, right)
        if found is None:
            return
        self.outcomes[fault][found[0]] += 1
        if found[0] in ("chance", "defect", "inconclusive") or self._listed:
            self._tell(label, fault, f"{OUTCOMES[found[0]]}: {found[1]}")

    @staticmethod
    def _tell(label, fault, words):
        print(f"{label} | {fault} | {words}", file=sys.stderr)

    def rows(self):
        """Return the figures, a list of rows for each of two tables."""
        families = [
            {"family": family, "arithmetic": kind}
            | {verdict: found[verdict] for verdict in VERDICTS}
            | {"seconds": round(self.seconds[family, kind], 1)}
            for family, kind in itertools.product(FAMILIES, KINDS)
            if (found := self.verdicts.get((family, kind)))
        ]
        faults = [
            {"fault": fault, "planted": self.outcomes[fault].total()}
            | {key: self.outcomes[fault][key] for key in OUTCOMES}
            for fault in (*FAULTS, OWN)
        ]
        return {"families": families, "faults": faults}


def print_tables(rows):
    """Print the figures as tables, and return whether any is what it must not be."""
    _table(("family", "arithmetic", *VERDICTS, "seconds"), rows["families"])
    print()
    _table(("fault", "planted", *OUTCOMES.values()), rows["faults"])
    right, wrong = Counter(), Counter()
    for row in rows["families"]:
        right.update({verdict: row[verdict] for verdict in VERDICTS})
    for row in rows["faults"]:
        wrong.update({key: row[key] for key in OUTCOMES})
    above, kinds = wrong.total() - wrong["below"] - wrong["limit"], sum(row["planted"] > 0 for row in rows["faults"])
    print(
        f"\n{right.total():,} right backward passes: {right['fail']} false alarms, {right['inconclusive']} "
        f"inconclusive, {right['refused']} refused; {wrong.total():,} wrong ones of {kinds} kinds: {wrong['found']:,} "
        f"found, {wrong['below']} within the bar and {wrong['limit']} below the limit of detection; of the {above:,} "
        f"others {wrong['found'] / max(above, 1):.2%} are found, {wrong['inconclusive']} inconclusive, "
        f"{wrong['chance']} missed by chance and {wrong['defect']} pass that must not"
    )
    return bool(right["fail"] + right["refused"] + wrong["defect"])


def _table(headings, rows):
    print(f"| {' | '.join(headings)} |\n| --- |{' ---: |' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=2, help="planted in each function, in turn")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument(
        "--only", type=int, metavar="SEED", help="check this function alone, with all faults, and list all"
    )
    parser.add_argument("--json")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # more are slower for arrays this small
    replayed = asked.only is not None
    search = Search(asked.faults, replayed)
    names = [asked.family] if asked.family else [*FAMILIES]
    seeds = [asked.only] * len(names) if replayed else range(asked.seed, asked.seed + asked.cases)
    with np.errstate(all="ignore"):
        for family, seed in zip(itertools.cycle(names), seeds, strict=False):
            search.take(family, seed)
    rows = search.rows()
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(print_tables(rows))


if __name__ == "__main__":
    main()
