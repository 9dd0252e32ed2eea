"""The confusion tables of diagnoses: which planted mistakes are named as what.

python bench/diagnosis.py [gradients|outputs|functions|networks ...] [--count N] [--only WORDS] [--float32] [--write]

Plants are those of the tests: tests/helpers/planted_backward.py (gradients of convolutions), planted_forward.py
(outputs of convolutions), planted_functions.py and planted_network.py, each in N random layers, shapes or networks. A
plant counts as named where its own name is among those given, since several mistakes can make the same array: all of
them fit. --write puts the tables into docs/bugs.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
import broken_layers
import network_bugs
import planted_backward
import planted_forward
import planted_functions
import torch
from network_examples import CASES
from planted_network import MISTAKES

import fastcheck
from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.convolutions import replayed

PAGE = Path(__file__).parent.parent / "docs" / "bugs.md"

START, END = "<!-- confusion: written by bench/diagnosis.py -->\n", "<!-- end -->"


class Trial(NamedTuple):
    """Whether a plant was named, and the other names that were given; "(none)" where none was."""

    named: bool
    others: tuple[str, ...]


Planted = tuple[str, Callable[[int], Trial | None]]
"""A plant's name, and what plants it by a seed: None where it has no effect."""


def gradients(dtype: Any) -> Iterator[Planted]:
    """Mistakes in the backward pass of a convolution."""
    for name, plants in planted_backward.PLANTS.items():
        for plant in plants:

            def trial(seed: int, name: str = name, plant: Any = plant) -> Trial | None:
                case = broken_layers.planted(plant, seed, dtype)
                if case is None:
                    return None
                bugs = [one.bug for one in replayed(case, broken_layers.failed(case, dims="all"))]
                found = dict.fromkeys(one.name for bug in bugs for one in CATALOGUE if bug.startswith(one.bug))
                return Trial(name in found, tuple(one for one in found or ["(none)"] if one != name))

            yield f"{name} ({plant.__name__})", trial


def outputs(dtype: Any) -> Iterator[Planted]:
    """Mistakes in the forward pass of a convolution."""
    for words, plants in planted_forward.PLANTS.items():
        for plant in plants:
            if dtype == np.float64 or plant not in planted_forward.NARROW:

                def trial(seed: int, words: str = words, plant: Any = plant) -> Trial | None:
                    case = broken_layers.with_output(plant, seed, dtype)
                    if case is None:
                        return None
                    return _trial(words, [fastcheck.check(case, dims=1).forward.diagnosis or {}])

                yield f"{words} ({plant.__name__})", trial


def functions(dtype: Any) -> Iterator[Planted]:
    """Mistakes in the backward pass of a function of arrays."""
    for words in planted_functions.PLANTED:

        def trial(seed: int, words: str = words) -> Trial:
            others = planted_functions.named(fastcheck, words, seed, np.dtype(dtype).name)
            return Trial(not others, tuple(others))

        yield words, trial


def networks(dtype: Any) -> Iterator[Planted]:
    """Mistakes in the backward pass of a network."""
    kind = torch.float64 if dtype == np.float64 else torch.float32
    for name, mistake in MISTAKES.items():

        def trial(seed: int, name: str = name, mistake: Any = mistake) -> Trial:
            network, params, x, y, masks = CASES[mistake.case](seed)
            grads = network_bugs.gradients(name, network, params, x, y, masks, kind)
            report = fastcheck.check_network(network, params, grads, x, y, masks=masks or None, threads=1)
            return _trial(network_bugs.SAID[name], list(network_bugs.told(report).values()))

        yield f"{network_bugs.SAID[name]} ({name})", trial


def _trial(words: str, diagnoses: list[dict[str, str]]) -> Trial:
    every = [f"{one.get('bug', '')}; {one.get('evidence', '')}" for one in diagnoses]
    others = dict.fromkeys(one.get("bug", "(none)") for one in diagnoses if words not in one.get("bug", ""))
    return Trial(any(words in one for one in every), tuple(others))


KINDS: dict[str, Callable[[Any], Iterator[Planted]]] = {
    "gradients": gradients,
    "outputs": outputs,
    "functions": functions,
    "networks": networks,
}


def table(kind: str, count: int, dtype: Any, only: str) -> Iterator[str]:
    """Yield the lines of a table, and its sums."""
    yield f"### {KINDS[kind].__doc__.rstrip('.')}, {np.dtype(dtype).name}"
    yield from ("", "| planted | named | also given |", "|---|---:|---|")
    total = right = 0
    for name, trial in KINDS[kind](dtype):
        if only in name:
            trials = [one for one in map(trial, range(count)) if one is not None]
            hits, others = sum(one.named for one in trials), Counter(other for one in trials for other in one.others)
            total, right = total + len(trials), right + hits
            also = "; ".join(f"{words} ({times})" for words, times in others.most_common(3))
            more = f"; {len(others) - 3} more" if len(others) > 3 else ""
            yield f"| {name} | {hits} of {len(trials)} | {also}{more} |"
    yield from ("", f"{right:,} of {total:,} named.", "")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="tables, all by default")
    parser.add_argument("--count", type=int, default=20, help="layers, shapes or networks for each plant")
    parser.add_argument("--only", default="", help="part of the name of the plants to run")
    parser.add_argument("--float32", action="store_true", help="gradients and outputs of float32")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/bugs.md")
    asked = parser.parse_args()
    dtype, start, lines = np.float32 if asked.float32 else np.float64, time.perf_counter(), []
    for kind in asked.kinds or KINDS:
        for line in table(kind, asked.count, dtype, asked.only):
            print(line, flush=True)
            lines.append(line)
    print(f"in {time.perf_counter() - start:.0f} s")
    if asked.write:
        before, _, rest = PAGE.read_text().partition(START)
        PAGE.write_text("\n".join([f"{before}{START}", *lines, f"{END}{rest.partition(END)[2]}"]))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
