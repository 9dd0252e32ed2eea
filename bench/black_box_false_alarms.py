"""Right gradients of hard functions: how many are called wrong, or inconclusive; and which wrong ones pass.

python bench/black_box_false_alarms.py [--cases 2400] [--seed N] [--family NAME] [--only SEED] [--json F]

Every function is checked with its right gradient and with every error that can be planted in it. Whatever is not as
it should be is listed on standard error, with what replays it.
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

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from hard_functions import ERRORS, FAMILIES, draw, mistaken, named, planted

import fastcheck

SEED = 2_645_751_311
"""One that no test uses, and that nothing was tuned with."""

VERDICTS = ("pass", "fail", "inconclusive", "error", "refused")

OUTCOMES = {
    "found": "found",
    "inconclusive": "inconclusive",
    "below": "below the bar",
    "wide": "as inconclusive",
    "subgradient": "as a subgradient",
    "unresolved": "unresolved",
    "unseen": "counted nowhere",
    "defect": "passes above the bar",
}
"""What becomes of a wrong gradient: it fails; it is inconclusive or refused; or it passes. Then the error is below the
bar and the bar below the value; the bar is above the value, which is counted as inconclusive, as a subgradient (of a
kink too near to tell apart), as unresolved, or nowhere; or the error is above the bar. The last two must not occur."""

CALLS = {"differences": "calls that difference a dimension", "calls": "all calls a dimension"}
"""Medians over functions; the other calls are for noise, and at the point."""


class Counted:
    """A loss that counts its calls: all, and those with one entry moved, which are differences."""

    def __init__(self, function):
        self._loss, self._start = function.loss, [*named(function.params).values()]
        self.calls = self.differences = 0

    def __call__(self, params):
        self.calls += 1
        arrays = zip(self._start, named(params).values(), strict=True)
        self.differences += sum(np.count_nonzero(start != now) for start, now in arrays) == 1
        return self._loss(params)


def checked(function, grad):
    """Return the report, or None where the check is refused; the verdict, and the reason; and the loss."""
    loss = Counted(function)
    try:
        report = fastcheck.check_gradient(loss, grad, function.params, keep=True, **function.options)
    except fastcheck.FastcheckError as error:
        return None, "refused", f"refused: {error}", loss
    return report, report.verdict, report.summary(), loss


def outcome(function, right, wrong):
    """Return what becomes of a planted error, and in words; ``right`` is the report of the right gradient."""
    report, verdict, summary, _ = checked(function, wrong.grad)
    if verdict != "pass":
        return "found" if verdict == "fail" else "inconclusive", summary
    entries = [
        (abs(given - numeric), bar, abs(value), report.tensors[name])
        for name, places in wrong.places.items()
        for value, given, numeric, bar in _entries(right.tensors[name], report.tensors[name], np.flatnonzero(places))
    ]
    error, bar, value, tensor = max(entries, key=lambda entry: entry[0] / max(entry[1], 5e-324))
    words = f"{summary}: off by {error:.2g} of {value:.2g}, bar {bar:.2g}"
    if error > bar:
        return "defect", words
    if value > bar:
        return "below", words
    if tensor.undecided:
        return "wide", words
    if tensor.subgradients:
        return "subgradient", words
    return "unresolved" if tensor.unresolved else "unseen", words


def _entries(right, wrong, places):
    """Return for wrong entries the right value, the wrong one, the numeric one and the error bar."""
    return zip(
        right.analytic[places], wrong.analytic[places], right.numeric[places], right.error_bar[places], strict=True
    )


def siblings(function, seed):
    """Yield every error that can be made in a function's gradient, by name."""
    rng = np.random.default_rng(seed)
    for error in ERRORS:
        wrong = planted(function, error, rng)
        if wrong is not None:
            yield error, wrong
    for name in function.mistakes:
        yield name, mistaken(function, name)


class Search:
    """Counts of verdicts by family and of outcomes by error, and calls of the loss for a dimension by family."""

    def __init__(self, listed):
        self._listed = listed
        self.verdicts, self.outcomes = defaultdict(Counter), defaultdict(Counter)
        self.calls, self.seconds = defaultdict(list), Counter()

    def take(self, family, seed):
        """Check one function and its siblings."""
        start, function = time.perf_counter(), draw(family, seed)
        label = f"--family {family} --only {seed}: {function.described}"
        report, verdict, summary, loss = checked(function, function.given)
        excused = verdict == "inconclusive" and function.undecidable
        self.verdicts[family]["undecidable" if excused else verdict] += 1
        if verdict != "pass" or self._listed:
            self._tell(label, "right", " | ".join(filter(None, (summary, function.undecidable))))
        if report is not None:
            dims = sum(tensor.dims_checked for tensor in report.tensors.values())
            self.calls[family].append((loss.differences / dims, loss.calls / dims))
            for error, wrong in siblings(function, seed):
                found, words = outcome(function, report, wrong)
                if found == "below" and error in function.mistakes:
                    found = "subgradient" if function.undecidable and "as subgradients" in words else "defect"
                self.outcomes[error][found] += 1
                if found in ("defect", "unseen") or self._listed:
                    self._tell(label, error, f"{OUTCOMES[found]}: {words}")
        self.seconds[family] += time.perf_counter() - start

    @staticmethod
    def _tell(label, error, words):
        print(f"{label} | {error} | {words}", file=sys.stderr)

    def rows(self):
        """Return the figures, a list of rows for each of two tables."""
        families = [
            {"family": family}
            | {verdict: found[verdict] for verdict in (*VERDICTS, "undecidable")}
            | dict(zip(CALLS, np.median(self.calls[family] or [[np.nan] * 2], axis=0).tolist(), strict=True))
            | {"seconds": round(self.seconds[family], 1)}
            for family, found in self.verdicts.items()
        ]
        errors = [
            {"error": error, "planted": found.total()} | {key: found[key] for key in OUTCOMES}
            for error, found in self.outcomes.items()
        ]
        return {"families": families, "errors": errors}


def print_tables(rows):
    """Print the figures as tables, and return whether any is what it must not be."""
    families, errors = rows["families"], rows["errors"]
    headings = ("family", *VERDICTS, "no difference decides", *CALLS.values(), "seconds")
    _table(headings, [[*row.values()] for row in families])
    print()
    _table(("error", "planted", *OUTCOMES.values()), [[*row.values()] for row in errors])
    total = Counter()
    for row in families:
        total.update({verdict: row[verdict] for verdict in (*VERDICTS, "undecidable")})
    defects = sum(row["defect"] + row["unseen"] for row in errors)
    print(
        f"\n{total.total():,} right gradients: {total['fail']} false alarms, {total['inconclusive']} inconclusive "
        f"and {total['undecidable']} that no difference decides, {total['refused'] + total['error']} refused; "
        f"{sum(row['planted'] for row in errors):,} wrong ones: {defects} pass that must not"
    )
    return bool(total["fail"] + total["refused"] + total["error"] + defects)


def _table(headings, rows):
    print(f"| {' | '.join(headings)} |\n| --- |{' ---: |' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in row)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--only", type=int, metavar="SEED", help="check this function alone, and list everything")
    parser.add_argument("--json")
    asked = parser.parse_args()
    search, replayed = Search(asked.only is not None), asked.only is not None
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
