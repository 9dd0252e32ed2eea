"""Right gradients of random networks on hard data: how many are called wrong, or undecided; and which wrong ones pass.

python bench/network_false_alarms.py [--cases 3000] [--seed N] [--family NAME] [--only SEED] [--json F]

Every network is checked with PyTorch's gradient and, unless that fails, with errors planted in it, on all processors.
Whatever is not as it should be is listed on standard error, with what replays it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from hard_networks import FAMILIES, draw, family_of
from network_faults import FAULTS, NEAR_ZERO, WHOLE, has_nothing_to_gain, part_lost, planted, slopes

from fastcheck.common.machine import default_threads
from fastcheck.metrics.verdict import INCONCLUSIVE_SHARE, MAX_RULE

SEED = 1_618_033_988
"""One that no test uses, and that nothing was tuned with."""

VERDICTS = ("pass", "fail", "inconclusive", "error", "beyond the type", "nothing to gain")
"""The last two are inconclusive as well. Where nothing is to be gained, the loss has no gradient that could show any
code; beyond the type is a tensor of which PyTorch's own gradient errs by more than a passing one's bars may show."""

TYPES = {"float64": "float64", "float32": "float32", "float16": "half", "bfloat16": "half"}
"""What tables call the types of gradients."""

ROOM = {"float64": 0.0, "float32": 1e-6, "half": 2.0**-6}
"""What the rounding of a gradient's own type may add to slopes."""

OUTCOMES = {
    "found": "found",
    "inconclusive": "inconclusive",
    "alike": "as the right one",
    "error": "error",
    "below": "below the bar",
    "wide": "wide bar",
    "unresolved": "unresolved",
    "subgradient": "as a subgradient",
    "choice": "beside a choice",
    "outside": "outside the slopes",
    "defect": "above the bar",
}
"""What becomes of a wrong gradient: it fails; it is inconclusive, or an error; or it passes. Where the right gradient
is inconclusive, too, that is counted apart. Of one that passes, the entry whose error is largest beside its bar
decides: the bar is at most 1 % of its value, at most the value, or larger; or it is a subgradient, or passes as one
though it lies outside the one-sided slopes of the loss, where PyTorch's choice does so too, or does not; or the error
is more than twice the bar. The last two must not occur."""

MUST_NOT = ("outside", "defect")

TWICE = 2.001
"""The largest error, beside its bar, between two gradients that pass: the ends of an interval of subgradients."""

BUDGET = {250: (4, 2), 600: (1, 1), np.inf: (1, 0)}
"""How many faults of arrays and of what computes them are planted, by the number of parameters."""

HEADLINES = {
    "whole tensors and signs": (*WHOLE, "an entry's sign"),
    "1 % of a channel": ("a filter by 1 % (half precision: 10 %)", "a column by 1 % (half precision: 10 %)"),
    "an entry by 1e-3": ("an entry by 1e-3",),
    "an entry by 1e-6": ("an entry by 1e-6",),
}
"""Figures of the last line, in float64 and float32."""


@dataclass
class Found:
    """What became of one network: its verdict, the median of bar / |value|, and each planted fault's outcome."""

    seed: int
    family: str
    computed: str
    verdict: str
    narrow: float = np.nan
    seconds: float = 0.0
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def checked(hard, grads=None):
    """Return the report, or None where something was raised; the verdict, and the reason."""
    try:
        report = hard.check(grads)
    except Exception as error:
        return None, "error", f"{type(error).__name__}: {error}"
    return report, report.verdict, _reasons(report)


def _reasons(report):
    """Say why a report is no pass: the first reasons of its first phase that is none."""
    bad = (case for case in report.phases.items() if not case[1].passed)
    phase, case = next(bad, (None, None))
    if case is None:
        return "pass"
    reasons = [f"{name}: {tensor.reason}" for name, tensor in case.tensors.items() if tensor.verdict == case.verdict]
    more = f"; and {len(reasons) - 2} more" if len(reasons) > 2 else ""
    return f"{case.verdict} in {phase}: {'; '.join(reasons[:2])}{more}"


def examine(seed, everything=False):
    """Check the network of a seed, and its wrong siblings."""
    warnings.simplefilter("ignore")
    start, hard = time.perf_counter(), draw(seed)
    report, verdict, summary = checked(hard)
    found = Found(seed, hard.family, TYPES[hard.computed], verdict)
    label = f"--only {seed}: {hard.described}"
    if verdict == "inconclusive":
        found.verdict = _why(report, hard)
    if found.verdict not in ("pass", "beyond the type", "nothing to gain") or everything:
        found.lines.append(f"{label} | right | {summary}{_worst(report, hard)}")
    if report is not None:
        found.narrow = _narrow(report, hard)
    if verdict in ("pass", "inconclusive"):
        size = sum(grad.size for grad in hard.grads.values())
        arrays, computed = next(counts for most, counts in BUDGET.items() if size <= most)
        for kind, wrong in planted(hard, seed, arrays, computed):
            outcome, words = _outcome(hard, wrong)
            if outcome == verdict == "inconclusive":
                outcome = "alike"
            found.outcomes.append((kind, outcome))
            if everything or outcome not in ("found", "alike"):
                found.lines.append(f"{label} | {kind} | {OUTCOMES[outcome]}: {words}")
    found.seconds = time.perf_counter() - start
    return found


def _why(report, hard):
    """Say why a right gradient is inconclusive, by PyTorch alone: where it must be, or because bars are too wide."""
    if has_nothing_to_gain(hard):
        return "nothing to gain"
    parts = part_lost(hard)
    undecided = (name for case in report.phases.values() for name, tensor in case.tensors.items() if not tensor.passed)
    return "beyond the type" if any(parts[name] > INCONCLUSIVE_SHARE for name in undecided) else "inconclusive"


def _worst(report, hard):
    """Say where a right gradient fails by most, and how far it is from that in float64."""
    if report is None or report.verdict != "fail":
        return ""
    failing = (tensor for tensor in report.tensors.items() if tensor[1].verdict == "fail" and tensor[1].worst)
    name, entry = max(
        ((name, tensor.worst[0]) for name, tensor in failing),
        key=lambda one: abs(one[1].difference) / max(one[1].error_bar, 5e-324),
        default=(None, None),
    )
    if entry is None:
        return ""
    return (
        f" | {name}{list(entry.index)}: a {entry.analytic:.9g} n {entry.numeric:.9g} bar {entry.error_bar:.2g}, "
        f"in float64 {hard.truth[name][entry.index]:.9g}"
    )


def _narrow(report, hard):
    """Return the median of bar / |value| over entries that are not small in their tensor."""
    ratios = []
    for name, tensor in report.tensors.items():
        sizes = np.abs(hard.truth[name]).ravel()[tensor.dims]
        typical = sizes > NEAR_ZERO * np.sqrt(np.mean(hard.truth[name] ** 2))
        ratios.append(tensor.error_bar[typical] / sizes[typical])
    return float(np.median(np.concatenate(ratios))) if any(map(len, ratios)) else np.nan


def _outcome(hard, wrong):
    """Return what becomes of a wrong gradient, and in words."""
    report, verdict, summary = checked(hard, wrong)
    if verdict != "pass":
        return "found" if verdict == "fail" else verdict, summary
    entries = [
        (error / max(bar, 5e-324), error, bar, name, place)
        for name, right in hard.grads.items()
        for place, error, bar in _changed(report.tensors[name], right, wrong[name], hard.truth[name])
    ]
    ratio, error, bar, name, place = max(entries)
    value = hard.truth[name].flat[place]
    words = f"{name} at {place}: off by {error:.2g} of {value:.2g}, {ratio:.2g} times the bar of {bar:.2g}"
    if report.tensors[name].subgradients:
        low, high = slopes(hard, name, place)
        words += f"; {wrong[name].flat[place]:.6g} beside slopes of {low:.6g} to {high:.6g}"
        room = ROOM[TYPES[hard.computed]] * max(abs(low), abs(high))
        beyond, truly = (
            max(low - grads[name].flat[place], grads[name].flat[place] - high) for grads in (wrong, hard.grads)
        )
        if beyond <= room:
            return "subgradient", words
        if beyond > max(room, bar - (high - low) / 2):
            return "outside" if truly <= room or ratio > TWICE else "choice", words
    if ratio > TWICE:
        return "defect", words
    if bar <= MAX_RULE * abs(value):
        return "below", words
    return "wide" if bar <= abs(value) else "unresolved", words


def _changed(tensor, right, wrong, truth):
    """Return places, errors and bars of the entries that were changed."""
    places = tensor.dims
    errors = np.abs(wrong.ravel()[places].astype(np.float64) - truth.ravel()[places])
    here = wrong.ravel()[places] != right.ravel()[places]
    return zip(places[here].tolist(), errors[here].tolist(), tensor.error_bar[here].tolist(), strict=True)


def tables(networks):
    """Return the figures, a list of rows for each of two tables."""
    groups, faults = defaultdict(list), defaultdict(lambda: defaultdict(Counter))
    for one in networks:
        groups[one.family, one.computed].append(one)
        for kind, outcome in one.outcomes:
            faults[kind][one.computed][outcome] += 1
    types = dict.fromkeys(TYPES.values())
    families = [
        _family_row(family, computed, groups[family, computed]) for family in FAMILIES for computed in types
    ] + [_family_row("all", computed, [one for one in networks if one.computed == computed]) for computed in types]
    return {
        "families": [row for row in families if any(row[verdict] for verdict in VERDICTS)],
        "faults": [_fault_row(kind, faults[kind]) for kind in FAULTS if kind in faults],
    }


def _family_row(family, computed, networks):
    verdicts = Counter(one.verdict for one in networks)
    narrow = [one.narrow for one in networks if not np.isnan(one.narrow)]
    return (
        {"family": family, "type": computed}
        | {verdict: verdicts[verdict] for verdict in VERDICTS}
        | {"bar / value": float(np.median(narrow)) if narrow else np.nan}
        | {"seconds": round(sum(one.seconds for one in networks), 1)}
    )


def _fault_row(kind, by_type):
    wide = by_type["float64"] + by_type["float32"]
    return (
        {"fault": kind, "planted": wide.total()}
        | {outcome: wide[outcome] for outcome in OUTCOMES}
        | {f"half_{key}": by_type["half"].total() if key == "planted" else by_type["half"][key] for key in HALF}
    )


HALF = ("planted", "found", *MUST_NOT)
"""What tables have of half precision."""


def print_tables(rows):
    """Print the figures as tables, and return whether any is what it must not be."""
    families, faults = rows["families"], rows["faults"]
    _table(("family", "type", *VERDICTS, "bar / value", "seconds"), [[*row.values()] for row in families])
    print("\nIn float64 and float32, and the last columns in half precision:\n")
    half = (f"half: {OUTCOMES.get(key, key)}" for key in HALF)
    _table(("fault", "planted", *OUTCOMES.values(), *half), [[*row.values()] for row in faults])
    every = [row for row in families if row["family"] == "all"]
    total = Counter({verdict: sum(row[verdict] for row in every) for verdict in VERDICTS})
    wide = Counter({verdict: sum(row[verdict] for row in every if row["type"] != "half") for verdict in VERDICTS})
    missed = sum(row[key] + row[f"half_{key}"] for row in faults for key in MUST_NOT)
    found = "; ".join(f"{words} {_share(faults, kinds)}" for words, kinds in {"all": FAULTS, **HEADLINES}.items())
    print(
        f"\n{total.total():,} right gradients: {total['fail']} false alarms, {total['error']} errors; "
        f"{wide.total():,} in float64 and float32: {wide['inconclusive']} inconclusive "
        f"({wide['inconclusive'] / max(wide.total(), 1):.1%}), {wide['beyond the type']} beyond the type, "
        f"{wide['nothing to gain']} with nothing to gain; of wrong ones there were found {found}; "
        f"{missed} pass that must not"
    )
    return bool(total["fail"] + total["error"] + missed)


def _share(faults, kinds):
    """Say how many of some faults were found; at a kink some are none, and where nothing is decided none is found."""
    keys = ("planted", "found", "alike", "subgradient", "choice")
    planted, found, *none = (sum(row[key] for row in faults if row["fault"] in kinds) for key in keys)
    return f"{found:,} of {planted - sum(none):,} ({found / max(planted - sum(none), 1):.1%})"


def _table(headings, rows):
    print(f"| {' | '.join(headings)} |\n| --- |{' ---: |' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.2g}' if isinstance(cell, float) else str(cell) for cell in row)} |")


def examined(seeds, everything):
    """Yield what became of every seed's network, in order."""
    if len(seeds) == 1:
        yield examine(seeds[0], everything)
        return
    with ProcessPoolExecutor(default_threads(), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(examine, everything=everything), seeds, chunksize=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--only", type=int, metavar="SEED", help="check this network alone, and list everything")
    parser.add_argument("--json")
    asked = parser.parse_args()
    wanted = (seed for seed in itertools.count(asked.seed) if asked.family in (None, family_of(seed)))
    seeds = [*itertools.islice(wanted, asked.cases)] if asked.only is None else [asked.only]
    networks = []
    for one in examined(seeds, asked.only is not None):
        networks.append(one)
        for line in one.lines:
            print(line, file=sys.stderr)
    rows = tables(networks)
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(print_tables(rows))


if __name__ == "__main__":
    main()
